# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The transaction that brings one component on one host to what its record says."""

from __future__ import annotations
