# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Asks a running platform from outside whether it works: checks, the client they use, and what runs them."""

from __future__ import annotations
