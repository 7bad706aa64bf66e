# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A hypervisor for tests: the real API over HTTPS on a free port, with guests of memory."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.access import Access, Token, User
from lab.cluster import Cluster
from lab.drivers.base import Guest
from lab.drivers.memory import MemoryDriver
from lab.faults import Faults
from lab.server import LogEntry, Server
from lab.statd import PERIOD

ROOT_PASSWORD = "correct horse battery staple"  # noqa: S105
SECRETS = {
    name: f"00000000-0000-4000-8000-00000000000{n}"
    for n, name in enumerate(("lab", "limited", "ro", "op", "vm"))
}


@dataclass(frozen=True)
class Account:
    """A token in the three parts that clients want."""

    user: str
    token_id: str
    token_secret: str


@dataclass
class TestServer:
    """A running server, everything a client needs to reach it and what a test wants to look at."""

    __test__ = False

    host: str
    port: int
    user: str
    password: str
    token_id: str
    token_secret: str
    ca_path: str
    faults: Faults
    cluster: Cluster
    driver: MemoryDriver
    vm_driver: MemoryDriver
    # Tokens with fewer rights: `limited` none at all, `auditor` reads everything, `operator` reads and
    # starts or stops guests, `vmadmin` everything about guests but no storage.
    limited: Account
    auditor: Account
    operator: Account
    vmadmin: Account
    _server: Server

    @property
    def requests(self) -> list[LogEntry]:
        """Every request so far: method, path (without /api2/json), status, params."""
        return self._server.requests

    def count(self, method: str = "", path: str = "") -> int:
        """Requests so far with this method and this part in the path."""
        return sum(1 for r in self.requests if method in ("", r.method) and path in r.path)

    def guest(self, name: str) -> Guest:
        """The guest with this name."""
        return next(guest for guest in self.cluster.guests.values() if guest.name == name)

    def lock_guest(self, vmid: int, lock: str) -> None:
        """Hold a configuration lock ("backup"); "" releases it."""
        guest = self.cluster.guests[vmid]
        with self.cluster.change(guest, skiplock=True):
            if lock:
                guest.config["lock"] = lock
            else:
                guest.config.pop("lock", None)

    def broadcast(self) -> None:
        """The nodes tell each other what they know of their guests, as they do every ten seconds."""
        self._server.broadcast()

    def kill(self, node: str, silent: float = 0.0) -> None:
        """A node dies; it was `silent` seconds before."""
        self.cluster.switch("dead-node", {"node": node}, True)
        self.cluster.statd.skip(silent)

    def revive(self, node: str) -> None:
        self.cluster.switch("dead-node", {"node": node}, False)

    def move(self, name: str, node: str) -> None:
        """A migration that is over: the guest is on another node from now on."""
        guest = self.guest(name)
        with self.cluster.change(guest, skiplock=True):
            guest.node = node

    def expire_tickets(self) -> None:
        self.cluster.access.expire_tickets()


def accounts(access: Access, root_password: str, root_token: str) -> None:
    """Fill the directory: root with one full token, and accounts with fewer rights."""
    access.users["root@pam"] = User(
        root_password, {"lab": Token(root_token, privsep=False), "limited": Token(SECRETS["limited"])}
    )
    for name, token, role in (
        ("auditor", "ro", "PVEAuditor"),
        ("operator", "op", "PVEVMUser"),
        ("vmadmin", "vm", "PVEVMAdmin"),
    ):
        access.users[f"{name}@pve"] = User(f"{name}-password", {token: Token(SECRETS[token], privsep=False)})
        access.acl["/", f"{name}@pve"] = role


@contextlib.contextmanager
def server(
    driver: str = "memory",
    nodes: tuple[str, ...] = ("pve1", "pve2", "pve3"),
    delay: float = 0.0,
    vm_templates: bool = False,
    lag: float = PERIOD,
) -> Iterator[TestServer]:
    """A server until the block ends. `delay`: seconds that each piece of work of a guest takes. `lag`: seconds that the
    list of the cluster's guests is late with names, as a real one is.

    `vm_templates`: with a virtual machine `debian-12-cloud` to clone on each node, ids from 9001.
    """
    if driver != "memory":
        raise ValueError(f"driver '{driver}' is not for tests without a machine; use 'memory'")
    access = Access()
    accounts(access, ROOT_PASSWORD, SECRETS["lab"])
    memory, machines = MemoryDriver(delay=delay), MemoryDriver("qemu", delay)
    faults = Faults()
    cluster = Cluster(nodes, {"lxc": memory, "qemu": machines}, access, faults, lag=lag)
    cluster.conform = True
    if vm_templates:
        cluster.provide_templates()
    with tempfile.TemporaryDirectory(prefix="lab-api-") as directory:
        running = Server(cluster, Path(directory) / "tls")
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield TestServer(
                host="127.0.0.1",
                port=running.port,
                user="root@pam",
                password=ROOT_PASSWORD,
                token_id="lab",  # noqa: S106
                token_secret=SECRETS["lab"],
                ca_path=str(running.ca_path),
                faults=faults,
                cluster=cluster,
                driver=memory,
                vm_driver=machines,
                limited=Account("root@pam", "limited", SECRETS["limited"]),
                auditor=Account("auditor@pve", "ro", SECRETS["ro"]),
                operator=Account("operator@pve", "op", SECRETS["op"]),
                vmadmin=Account("vmadmin@pve", "vm", SECRETS["vm"]),
                _server=running,
            )
        finally:
            running.stop()
            thread.join(5)
