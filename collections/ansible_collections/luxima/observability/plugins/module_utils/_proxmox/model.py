# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What is wanted, what is there, and the changes between them: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .disks import settled

#: The API's word for a kind of guest.
API_KIND = {"lxc": "lxc", "vm": "qemu"}
#: What people call it, in messages.
NOUN = {"lxc": "container", "vm": "VM"}


@dataclass(frozen=True)
class Want:
    """One record of the module's ``guests``, checked. ``options`` holds what was given, and nothing else."""

    name: str
    kind: str = "lxc"
    state: str = "started"
    vmid: int = 0
    node: str = ""
    template: str = ""
    #: ``template`` is a guest to copy, and not the volume of a container template.
    clone: bool = False
    linked: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cloned(self) -> bool:
        """Whether it comes from another guest: VMs always do."""
        return self.clone or self.kind == "vm"

    @property
    def label(self) -> str:
        return f"{NOUN[self.kind]} {self.name}"


@dataclass(frozen=True)
class Guest:
    """A guest as the server describes it. ``config`` has pending values overlaid: it is what will hold after a reboot."""

    vmid: int
    name: str
    kind: str
    node: str
    running: bool = False
    template: bool = False
    pool: str = ""
    lock: str = ""
    #: What the HA manager was asked for; empty: it does not keep this guest.
    ha: str = ""
    #: Seconds since it was started.
    uptime: int = 0
    digest: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    #: What waits for a reboot: key and the value that holds until then (None: there is none).
    pending: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asleep(self) -> bool:
        """Whether its memory lies on a disk: a start resumes it, and until then it takes no change."""
        return self.lock == "suspended" and not self.running

    @property
    def layout(self) -> Mapping[str, Any]:
        """``config`` with the volumes as they are."""
        return settled(self.config, self.pending)


@dataclass(frozen=True)
class Change:
    """One step. ``action`` is the word of the report, ``verb`` the one of messages."""

    action: ClassVar[str] = ""
    verb: ClassVar[str] = ""
    #: Name of the deadline that bounds it.
    deadline: ClassVar[str] = "configure"


@dataclass(frozen=True)
class Create(Change):
    action, verb, deadline = "created", "create", "create"
    params: Mapping[str, str | int] = field(default_factory=dict)
    storage: str = ""


@dataclass(frozen=True)
class Clone(Change):
    action, verb, deadline = "cloned", "clone", "clone"
    source: int = 0
    source_node: str = ""
    params: Mapping[str, str | int] = field(default_factory=dict)
    storage: str = ""


@dataclass(frozen=True)
class Configure(Change):
    action, verb = "configured", "configure"
    values: Mapping[str, str | int] = field(default_factory=dict)
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move(Change):
    action, verb, deadline = "moved", "move a volume of", "clone"
    disk: str = ""
    storage: str = ""


@dataclass(frozen=True)
class Grow(Change):
    action, verb, deadline = "grown", "grow a volume of", "resize"
    disk: str = ""
    size_gb: float = 0


@dataclass(frozen=True)
class Join(Change):
    action, verb = "pooled", "add to its pool"
    pool: str = ""


@dataclass(frozen=True)
class Guard(Change):
    """``state``: what the HA manager shall keep it in."""

    action, verb = "ha_added", "hand to the HA manager"
    state: str = "started"


@dataclass(frozen=True)
class Unguard(Change):
    action, verb = "ha_removed", "take from the HA manager"


@dataclass(frozen=True)
class Convert(Change):
    action, verb, deadline = "templated", "make a template of", "create"


@dataclass(frozen=True)
class Start(Change):
    action, verb, deadline = "started", "start", "start"


@dataclass(frozen=True)
class Stop(Change):
    """``hard``: without asking the guest, because it is destroyed next."""

    action, verb, deadline = "stopped", "stop", "stop"
    hard: bool = False


@dataclass(frozen=True)
class Reboot(Change):
    action, verb, deadline = "rebooted", "reboot", "stop"


@dataclass(frozen=True)
class Destroy(Change):
    action, verb, deadline = "destroyed", "destroy", "destroy"


@dataclass(frozen=True)
class Plan:
    """Ordered changes, and what they turn ``before`` into. ``refusals``: why nothing may be done."""

    changes: tuple[Change, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    needs_reboot: bool = False
    refusals: tuple[str, ...] = ()
    privileges: frozenset[str] = frozenset()
    #: What else is needed: storages to allocate on, bridges to use with the VLAN tag or none.
    storages: frozenset[str] = frozenset()
    bridges: frozenset[tuple[str, str]] = frozenset()
    #: What nobody but root@pam with a password may do.
    root_only: tuple[str, ...] = ()
    #: What will not be as one may think, although nothing fails.
    warnings: tuple[str, ...] = ()

    @property
    def actions(self) -> list[str]:
        return list(dict.fromkeys(change.action for change in self.changes))

    def difference(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Before and after, reduced to what differs."""
        keys = [key for key in {**self.before, **self.after} if self.before.get(key) != self.after.get(key)]
        return (
            {key: self.before[key] for key in keys if key in self.before},
            {key: self.after[key] for key in keys if key in self.after},
        )
