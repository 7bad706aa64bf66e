# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The API's methods. Importing this package registers all of them in `core.ROUTES`."""

from __future__ import annotations

from lab.api import (
    access,
    backup,
    cluster,
    disks,
    firewall,
    ha,
    lxc,
    migrate,
    nodes,
    pools,
    power,
    qemu,
    snapshots,
    storage,
)
from lab.api.core import ROUTES, Request, dispatch

__all__ = [
    "ROUTES",
    "Request",
    "access",
    "backup",
    "cluster",
    "disks",
    "dispatch",
    "firewall",
    "ha",
    "lxc",
    "migrate",
    "nodes",
    "pools",
    "power",
    "qemu",
    "snapshots",
    "storage",
]
