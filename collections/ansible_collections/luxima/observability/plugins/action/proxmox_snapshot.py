# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The module of this name, told in one line per object."""

from __future__ import annotations

from ansible_collections.luxima.observability.plugins.plugin_utils.telling import ActionModule

__all__ = ["ActionModule"]
