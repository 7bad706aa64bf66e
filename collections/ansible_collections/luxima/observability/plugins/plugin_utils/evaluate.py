# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A variable's value for its owner, as the actions that look at variables ask for it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError


def evaluate(templar: Any, variables: dict[str, Any], value: Any) -> Any:
    """The value with its templates evaluated among `variables`. Raises AnsibleError."""
    try:
        return templar.copy_with_new_env(available_variables=variables).template(value)
    except AnsibleError:
        raise
    except Exception as error:  # a filter or lookup may raise anything; it is a fault of the variable
        raise AnsibleError(f"{type(error).__name__}: {error}") from error
