# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What follows from who talks to whom."""

from __future__ import annotations
