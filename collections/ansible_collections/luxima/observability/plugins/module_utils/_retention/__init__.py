# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The retention policy: one document, one plan, and what the servers say they enforce."""

from __future__ import annotations
