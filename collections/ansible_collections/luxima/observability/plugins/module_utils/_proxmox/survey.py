# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What is there: guests, and whatever new ones would need. Reads only."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .client import Client
from .cluster import located
from .errors import Absent, Conflict, Failed, ProxmoxError, Unreachable
from .formats import VOLUME, parse_nic, parse_properties, storage_of
from .model import API_KIND, Guest

#: Why the address of a VM stays unknown, however long one waits.
NO_AGENT = "the guest agent is not enabled for this VM"

#: How often a guest that is not where it was is followed before it is called unreadable.
MOVES = 6


def read(
    client: Client, guest: Guest, status: Mapping[str, Any] | None = None, renamed: str = ""
) -> Guest | None:
    """The guest with its configuration, by one request (two without ``status``), on whatever node it is. None: gone.

    ``renamed``: another name that it may have by now.
    """
    name = guest.name
    for move in range(MOVES):
        try:
            found = _read(client, guest, status)
        except Absent:
            time.sleep(0.1 * move)
            there, status = located(client, guest), None
            if there is None:
                return None
            guest = there
            continue
        # Under the id of a guest that is gone there may be another one by now.
        return None if move and name and found.name not in (name, renamed) else found
    raise Failed(
        f"read {guest.name}: {guest.vmid} is listed on {guest.node} and is not there: look at that node"
    )


def _read(client: Client, guest: Guest, status: Mapping[str, Any] | None) -> Guest:
    base = f"nodes/{guest.node}/{API_KIND[guest.kind]}/{guest.vmid}"
    subject = f"read {guest.name or guest.vmid}"
    entries = client.get(f"{base}/pending", subject)
    if status is None:
        status = client.get(f"{base}/status/current", subject)
    config: dict[str, Any] = {}
    pending: dict[str, Any] = {}
    for entry in entries:
        key = str(entry["key"])
        if "pending" in entry or entry.get("delete"):
            pending[key] = entry.get("value")
        if entry.get("delete"):
            continue
        value = entry.get("pending", entry.get("value"))
        if value is not None:
            config[key] = value
    digest = str(config.pop("digest", ""))
    name = config.get("hostname" if guest.kind == "lxc" else "name")
    return Guest(
        vmid=guest.vmid,
        name=str(name or guest.name),
        kind=guest.kind,
        node=guest.node,
        running=status.get("status") == "running",
        template=str(config.get("template", "0")) == "1",
        pool=guest.pool,
        ha=guest.ha,
        uptime=int(status.get("uptime") or 0),
        lock=str(config.pop("lock", "") or status.get("lock") or ""),
        digest=digest,
        config=config,
        pending=pending,
    )


def addresses(client: Client, guest: Guest) -> tuple[list[str], str]:
    """Addresses a running guest has on the interfaces in its configuration, those of IPv4 first; else why none is known."""
    if guest.kind == "vm" and parse_properties(str(guest.config.get("agent") or "0"), "enabled").get(
        "enabled"
    ) not in ("1", "yes", "on", "true"):
        return [], NO_AGENT
    macs = {
        part.split("=", 1)[1].lower()
        for key, raw in guest.config.items()
        if key.startswith("net") and key[3:].isdigit()
        for part in str(raw).split(",")
        if "=" in part and part.count(":") == 5
    }
    base = f"nodes/{guest.node}/{API_KIND[guest.kind]}/{guest.vmid}"
    try:
        if guest.kind == "lxc":
            rows = client.get(f"{base}/interfaces", f"ask {guest.name} for its addresses") or []
        else:
            answer = client.get(f"{base}/agent/network-get-interfaces", f"ask {guest.name} for its addresses")
            rows = answer.get("result", [])
    except (Absent, Conflict, Failed) as error:
        return [], str(error)  # the agent is not up yet: addresses are a convenience
    result = []
    for row in rows:
        mac = str(row.get("hwaddr") or row.get("hardware-address") or "").lower()
        if mac not in macs:
            continue
        found = [str(row["inet"])] if row.get("inet") else []
        found += [
            str(entry.get("ip-address"))
            for entry in row.get("ip-addresses") or []
            if entry.get("ip-address-type") in ("ipv4", "inet", "ipv6", "inet6")
        ]
        found += [str(row["inet6"])] if row.get("inet6") else []
        result += [address.split("/")[0] for address in found]
    good = (
        a
        for a in result
        if not ipaddress.ip_address(a).is_link_local and not ipaddress.ip_address(a).is_loopback
    )
    return sorted(dict.fromkeys(good), key=lambda address: ":" in address), ""


class Stock:
    """What the nodes offer to new guests; asked for once, and only when something is to be made or changed."""

    def __init__(
        self, client: Client, identity: str, promised: Iterable[str] = (), silent: Iterable[str] = ()
    ) -> None:
        """``promised``: pools and volumes that count as there although they are not. ``silent``: nodes that do not answer."""
        self._client = client
        self._identity = identity
        self._promised = frozenset(promised)
        rows = client.get("nodes", "list the nodes")
        self.nodes: dict[str, bool] = {
            str(row["node"]): row.get("status", "online") == "online" and row["node"] not in set(silent)
            for row in rows
        }
        self._storages: dict[str, dict[str, Mapping[str, Any]]] = {}
        # Kind of each by name: a virtual network belongs to a zone, every other one to that of the node.
        self._bridges: dict[str, dict[str, str]] = {}
        self._volumes: dict[tuple[str, str, str], set[str]] = {}
        self._pools: set[str] | None = None
        self._permissions: dict[str, Mapping[str, Any]] | None = None
        self._permissions_unknown = False

    def _ask(self, node: str, path: str, subject: str, **params: Any) -> Any:
        """What a node says of itself; None: it does not answer, and counts as offline from now on."""
        if not self.nodes.get(node, True):
            return None
        try:
            return self._client.get(f"nodes/{node}/{path}", subject, **params)
        except Unreachable:
            pass
        except Conflict as error:
            if error.reason != "lost":
                raise
        self.nodes[node] = False
        return None

    def node_fault(self, node: str) -> str:
        if node not in self.nodes:
            return f"node {node!r} is not in the cluster (it has {_listing(self.nodes)})"
        return "" if self.nodes[node] else f"node {node!r} is offline or does not answer"

    def storage_fault(self, node: str, storage: str, content: str) -> str:
        if node not in self._storages:
            rows = self._ask(node, "storage", f"list the storages of {node}")
            if rows is None:
                return self.node_fault(node)
            self._storages[node] = {str(row["storage"]): row for row in rows}
        row = self._storages[node].get(storage)
        if row is None:
            return f"storage {storage!r} is not on node {node} (it has {_listing(self._storages[node])})"
        if not int(row.get("enabled", 1)) or not int(row.get("active", 1)):
            return f"storage {storage!r} is not active on node {node}"
        held = str(row.get("content") or "")
        if held and content not in held.split(","):
            return f"storage {storage!r} on node {node} does not hold content {content!r} (it holds {held})"
        return ""

    def storage_type(self, node: str, storage: str) -> str:
        """Empty when the storage is not there."""
        self.storage_fault(node, storage, "")
        return str(self._storages[node].get(storage, {}).get("type", ""))

    def storages_of(self, guest: Guest) -> list[str]:
        """Where the volumes of a guest lie."""
        path = f"nodes/{guest.node}/{API_KIND[guest.kind]}/{guest.vmid}/config"
        config = self._client.get(path, f"read {guest.name}")
        found = {storage_of(str(raw)) for key, raw in config.items() if VOLUME.fullmatch(key)}
        return sorted(found - {""})

    def bridges_of(self, guest: Guest) -> list[tuple[str, str]]:
        """Bridge and VLAN tag of every interface of a guest."""
        path = f"nodes/{guest.node}/{API_KIND[guest.kind]}/{guest.vmid}/config"
        config = self._client.get(path, f"read {guest.name}")
        nics = [
            parse_nic(str(raw), guest.kind)
            for key, raw in config.items()
            if key.startswith("net") and key[3:].isdigit()
        ]
        return sorted({(nic.get("bridge", ""), nic.get("tag", "")) for nic in nics} - {("", "")})

    def shared(self, node: str, storage: str) -> bool:
        """Whether other nodes reach the same volumes; asked after :meth:`storage_fault`."""
        return bool(int(self._storages.get(node, {}).get(storage, {}).get("shared", 0)))

    def template_fault(self, node: str, template: str) -> str:
        return self.volume_fault(node, template, "vztmpl")

    def volume_fault(self, node: str, volume: str, content: str) -> str:
        """Whether a file is not on its storage."""
        storage = volume.partition(":")[0]
        fault = self.storage_fault(node, storage, content)
        if fault:
            return fault
        key = (node, storage, content)
        if key not in self._volumes:
            rows = self._ask(
                node, f"storage/{storage}/content", f"list what is on {storage}", content=content
            )
            if rows is None:
                return self.node_fault(node)
            self._volumes[key] = {str(row["volid"]) for row in rows}
        if volume in self._volumes[key] or volume in self._promised:
            return ""
        return f"template {volume!r} is not on node {node} (storage {storage} has {_listing(self._volumes[key])})"

    def bridge_fault(self, node: str, bridge: str) -> str:
        if node not in self._bridges:
            rows = self._ask(node, "network", f"list the bridges of {node}", type="any_bridge")
            if rows is None:
                return self.node_fault(node)
            self._bridges[node] = {str(row["iface"]): str(row.get("type") or "") for row in rows}
        if bridge in self._bridges[node]:
            return ""
        return f"bridge {bridge!r} is not on node {node}, or {self._identity} may not see it (it sees {_listing(self._bridges[node])})"

    def bridge_privilege_fault(self, node: str, bridge: str, tag: str) -> str:
        """Empty when a bridge may be used, with a VLAN tag or none. The zone of a virtual network is not asked for."""
        tail = f"{bridge}/{tag}" if tag else bridge
        fault = self.privilege_fault("SDN.Use", [f"/sdn/zones/localnetwork/{tail}"])
        if not fault or not self.nodes.get(node) or self.bridge_fault(node, bridge):
            return fault
        if self._bridges[node][bridge] != "vnet":
            return fault
        zones = {path.split("/")[3] for path in self._permissions or {} if path.startswith("/sdn/zones/")}
        return self.privilege_fault(
            "SDN.Use", [f"/sdn/zones/{zone}/{tail}" for zone in sorted(zones) or ["<zone>"]]
        )

    def pool_fault(self, pool: str) -> str:
        if self._pools is None:
            self._pools = {str(row["poolid"]) for row in self._client.get("pools", "list the pools")}
        known = self._pools | self._promised
        return "" if pool in known else f"pool {pool!r} does not exist (there are {_listing(self._pools)})"

    def privilege_fault(self, privilege: str, paths: Iterable[str]) -> str:
        """Empty when the privilege is held on one of ``paths``, or when nobody may say what is held."""
        if self._permissions is None:
            try:
                answer = self._client.get("access/permissions", "read the own permissions") or {}
            except ProxmoxError:
                # What the server refuses later it says itself.
                answer, self._permissions_unknown = {}, True
            self._permissions = dict(answer)
        paths = list(paths)
        if self._permissions_unknown:
            return ""
        if any(held(self._permissions, path, privilege) for path in paths):
            return ""
        return f"{self._identity} lacks {privilege} on {' or '.join(paths)}"


def held(permissions: Mapping[str, Mapping[str, Any]], path: str, privilege: str) -> bool:
    """Whether a privilege holds on a path: its own entry, else the nearest one above that hands it down."""
    if path in permissions:
        return privilege in permissions[path]
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        if path in permissions:
            return bool(int(permissions[path].get(privilege) or 0))
    return False


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "none"
