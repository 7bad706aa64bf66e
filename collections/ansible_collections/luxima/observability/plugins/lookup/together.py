# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A variable and those beside it that add to it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: together
short_description: Joins a variable with those whose names continue it
description:
  - Ansible takes a list or a mapping from one place, so two files that write the same variable replace each other.
    A variable C(<name>_<anything>) adds to C(<name>) instead, from whichever file it comes.
  - Lists follow each other, C(<name>) first and the others by name. Mappings are merged; a key that two of them have is a fault.
author:
  - luxima.observability contributors (@luxima)
version_added: 0.1.0
options:
  _terms:
    description: The name of the variable.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
# platform_scrape_jobs and, say, platform_scrape_jobs_shop of another file
- ansible.builtin.debug:
    msg: "{{ lookup('luxima.observability.together', 'platform_scrape_jobs') }}"
"""

RETURN = r"""
_raw:
  description: One value, of the type of the variable.
  type: list
  elements: raw
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.luxima.observability.plugins.module_utils._validate import additions


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        have = variables or {}
        found = []
        for name in terms:
            values = {one: self._templar.template(have[one]) for one in additions.names_of(name, have)}
            try:
                found.append(additions.joined(name, values))
            except additions.Clash as error:
                raise AnsibleLookupError(str(error)) from error
        return found
