# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Bridges as access control sees them: members of the zone `localnetwork`, with VLANs below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lab.access import Identity
from lab.api.core import Request
from lab.cluster import Cluster

ZONE = "/sdn/zones/localnetwork"


def visible(cluster: Cluster, who: Identity, bridge: str) -> bool:
    """Whether somebody may see a bridge: because of itself, or because of a VLAN on it."""
    path = f"{ZONE}/{bridge}"
    below = [entry for entry, _ in cluster.access.acl if entry.startswith(f"{path}/")]
    return any(
        cluster.access.has(who, one, ["SDN.Audit", "SDN.Use"], any_of=True)
        for one in dict.fromkeys([path, *below])
    )


def require_use(request: Request, interfaces: Iterable[Mapping[str, str]]) -> None:
    """Whether interfaces may be put where they want to be."""
    if request.who.is_root:
        return
    for interface in interfaces:
        if not interface.get("bridge"):
            continue
        path = f"{ZONE}/{interface['bridge']}"
        tags = [interface["tag"]] if interface.get("tag") else []
        tags += list(filter(None, interface.get("trunks", "").split(";")))
        for one in [f"{path}/{tag}" for tag in tags] or [path]:
            request.cluster.access.require(request.who, one, ["SDN.Use"])
