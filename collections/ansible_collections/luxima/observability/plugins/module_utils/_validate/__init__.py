# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Everything that is wrong with an inventory, found without touching anything."""

from __future__ import annotations
