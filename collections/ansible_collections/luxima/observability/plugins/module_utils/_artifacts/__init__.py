# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The artifact store: everything that is installed, by digest."""

from __future__ import annotations
