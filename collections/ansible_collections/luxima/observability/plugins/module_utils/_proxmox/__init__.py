# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Proxmox VE guests: what is wanted and what is there make a plan; one writer carries it out."""

from __future__ import annotations
