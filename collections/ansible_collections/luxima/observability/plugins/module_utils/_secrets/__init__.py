# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Secrets: what is declared about them, their file, and what happens to each of them."""

from __future__ import annotations
