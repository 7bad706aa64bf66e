# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What one lab on this machine is called and where it is: all derived from the checkout's path.

Standard library only: the inventory script runs this with any Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
# Two checkouts can hash to the same range; later candidates are tried in this number.
CANDIDATES = 64


def state_directory() -> Path:
    """`.lab/` of the checkout; LAB_STATE_DIR names another one, which is then an instance of its own."""
    override = os.environ.get("LAB_STATE_DIR")
    return Path(override).resolve() if override else CHECKOUT / ".lab"


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "luxima-observability" / "lab"


@dataclass(frozen=True)
class Instance:
    """Names and numbers of one lab."""

    name: str
    state: Path
    subnet: str
    port: int

    @property
    def subnet6(self) -> str:
        """The first four groups of the IPv6 network beside the IPv4 one."""
        return prefix6(self.subnet).removesuffix("::")

    @property
    def bridge(self) -> str:
        return f"{self.name}br"

    @property
    def run(self) -> Path:
        """Mount points; outside the checkout because mapped users must be able to reach them."""
        return Path("/run") / f"lab-{self.name}"

    @property
    def lxc_path(self) -> Path:
        return self.run / "lxc"

    @property
    def ssh_key(self) -> Path:
        return self.state / "ssh" / "id_ed25519"

    @property
    def ca_path(self) -> Path:
        return self.state / "tls" / "ca.pem"

    @property
    def secrets_path(self) -> Path:
        return self.state / "secrets.json"

    @property
    def pid_path(self) -> Path:
        return self.state / "daemon.pid"

    @property
    def log_path(self) -> Path:
        return self.state / "lab.log"

    def container(self, vmid: int) -> str:
        return f"{self.name}-{vmid}"

    def veth(self, vmid: int, index: int) -> str:
        """At most 15 characters, as the kernel wants."""
        return f"{self.name}{vmid:x}i{index:x}"

    def subnets(self) -> Iterator[str]:
        """First three octets of ranges to try, best first."""
        for number in range(CANDIDATES):
            seed = hashlib.sha256(f"{self.name}:subnet:{number}".encode()).digest()
            yield f"10.{64 + seed[0] % 128}.{seed[1]}"

    def ports(self) -> Iterator[int]:
        """Ports below the range that the kernel gives to clients."""
        for number in range(CANDIDATES):
            seed = hashlib.sha256(f"{self.name}:port:{number}".encode()).digest()
            yield 18000 + int.from_bytes(seed[:2], "big") % 12000

    def save(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        document = {"name": self.name, "subnet": self.subnet, "port": self.port}
        (self.state / "instance.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def prefix6(subnet: str) -> str:
    """The IPv6 network beside an IPv4 one, without its length of 64 bits."""
    return f"fd00:{subnet.replace('.', ':')}::"


def load(state: Path | None = None) -> Instance:
    """This checkout's instance; what `up` has chosen is kept in the state folder."""
    state = state or state_directory()
    name = "lx" + hashlib.sha256(str(state).encode()).hexdigest()[:6]
    first = Instance(name, state, "", 0)
    chosen: dict[str, Any] = {"subnet": next(first.subnets()), "port": next(first.ports())}
    try:
        stored = json.loads((state / "instance.json").read_text(encoding="utf-8"))
        # A copied checkout brings the state of another instance with it.
        if stored.get("name") == name:
            chosen = stored
    except (OSError, ValueError):
        pass
    return Instance(name, state, str(chosen["subnet"]), int(chosen["port"]))


def inventory(instance: Instance) -> dict[str, Any]:
    """Variables that tie an inventory to this lab, in the form of an inventory script."""
    known = dict.fromkeys(("token", "password"), "lab-is-down")
    with contextlib.suppress(OSError, ValueError):
        known |= json.loads(instance.secrets_path.read_text(encoding="utf-8"))
    try:
        keys = [instance.ssh_key.with_suffix(".pub").read_text(encoding="utf-8").strip()]
    except OSError:
        keys = []
    variables = {
        "platform_subnet": instance.subnet,
        "platform_subnet6": instance.subnet6,
        "proxmox_api_host": "127.0.0.1",
        "proxmox_api_port": instance.port,
        "proxmox_api_user": "root@pam",
        "proxmox_api_token_id": "lab",
        "proxmox_api_token_secret": known["token"],
        "proxmox_api_password": known["password"],
        "proxmox_ca_path": str(instance.ca_path),
        "guest_ssh_public_keys": keys,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(instance.ssh_key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile='{instance.state / 'known_hosts'}'",
        "lab_state_dir": str(instance.state),
    }
    return {"all": {"vars": variables}, "_meta": {"hostvars": {}}}
