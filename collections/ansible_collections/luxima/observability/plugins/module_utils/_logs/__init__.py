# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What happens to a line between its source and Loki."""

from __future__ import annotations
