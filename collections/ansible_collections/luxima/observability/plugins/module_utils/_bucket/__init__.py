# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Buckets of object storage, each with one key that opens nothing else."""

from __future__ import annotations
