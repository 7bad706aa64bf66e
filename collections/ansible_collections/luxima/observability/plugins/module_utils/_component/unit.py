# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The systemd unit and the environment file of a component, as text. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from . import places
from .record import Record, UnitSpec
from .state import mark

# All of these start, and hold, in an unprivileged LXC guest (systemd 252, its own user namespace) as in a VM.
# Left out: ProcSubset=pid (hides /proc/stat, from which servers take their own start time), PrivateUsers (takes
# away CAP_NET_BIND_SERVICE and CAP_DAC_READ_SEARCH given by `settings`), IPAddressDeny (needs BPF, which
# an unprivileged guest lacks: accepted there and silently without effect), SystemCallFilter=~@resources (Go raises RLIMIT_NOFILE).
STRICT: tuple[tuple[str, str], ...] = (
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectProc", "invisible"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallErrorNumber", "EPERM"),
    ("CapabilityBoundingSet", ""),
    ("UMask", "0027"),
)
# Sees the host's processes, mounts and devices; may still change nothing outside its own directories.
HOST: tuple[tuple[str, str], ...] = (
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "full"),
    ("ProtectHome", "read-only"),
    ("ProtectKernelModules", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("SystemCallArchitectures", "native"),
    ("UMask", "0027"),
)


def unit_text(record: Record) -> str:
    """The text of `<name>.service`; the record must have a unit."""
    spec = record.unit
    if spec is None:
        raise ValueError(f"{record.name} has no unit")
    service = _service(record, spec)
    after = " ".join(dict.fromkeys(["network-online.target", *spec.after]))
    lines = [
        "# Written by Ansible; changes made here are undone by the next run.",
        "[Unit]",
        f"Description={(spec.description or record.name).replace('%', '%%')}",
        f"After={after}",
        "Wants=network-online.target",
        # A server that cannot start is tried again for ever: its cause may pass (a disk, another server).
        "StartLimitIntervalSec=0",
        # Where these are on disks of their own, those are mounted first, and are not taken away while it runs.
        *[f"RequiresMountsFor={_word(path)}" for path in _writable(record)],
        "",
        "[Service]",
    ]
    for key, value in service.items():
        for item in value if isinstance(value, list) else [value]:
            lines.append(f"{key}={item}")
    lines += ["", "[Install]", "WantedBy=multi-user.target", ""]
    return "\n".join(lines)


def _service(record: Record, spec: UnitSpec) -> dict[str, Any]:
    """The keys of `[Service]`; a list is a key that stands there several times."""
    service: dict[str, Any] = {"Type": "exec"}
    if record.user != "root":
        service["User"] = record.user
        service["Group"] = record.user
    service["ExecStart"] = " ".join(_word(word, command=True) for word in spec.exec_start)
    variables = _variables(record)
    if variables:
        service["Environment"] = [_word(f"{key}={value}") for key, value in sorted(variables.items())]
    if record.secret_environment:
        service["EnvironmentFile"] = f"/etc/{record.name}/environment"
    service.update(Restart="always", RestartSec="2s", TimeoutStopSec="60s", LimitNOFILE="65536")
    service.update(STRICT if spec.hardening == "strict" else HOST)
    if record.user == "root" and spec.hardening == "strict":
        # Without any capability root cannot even read the files of other users.
        service.pop("CapabilityBoundingSet")
    if record.memory:
        # No MemoryHigh: a server that is only slowed down is neither well nor started again.
        service["MemoryMax"] = str(record.memory)
    service.update(_seen(record))
    service = _with_settings(service, spec.settings)
    guards = [_guard(record.name, directory.path) for directory in record.directories if directory.data]
    own = service.pop("ExecStartPre", [])
    if guards or own:
        service["ExecStartPre"] = [*guards, *(own if isinstance(own, list) else [own])]
    return service


def _with_settings(service: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record's own keys laid over the engine's; null takes one away."""
    own = {
        key: [_setting(item) for item in value] if isinstance(value, (list, tuple)) else _setting(value)
        for key, value in settings.items()
        if value is not None
    }
    return {key: value for key, value in {**service, **own}.items() if settings.get(key, "") is not None}


def _variables(record: Record) -> dict[str, str]:
    """The environment, with what Go's collector should stay below where there is a limit: what is not heap needs room too."""
    variables = dict(record.environment)
    if record.memory:
        variables.setdefault("GOMEMLIMIT", f"{record.memory * 9 // 10 >> 20}MiB")
    return variables


def _writable(record: Record) -> list[str]:
    paths = [directory.path for directory in record.directories]
    return list(dict.fromkeys([*paths, *(record.unit.writable if record.unit else ())]))


def _seen(record: Record) -> dict[str, str]:
    """What may be written, and as much less hardening as it takes to see it and what is to be read."""
    found: dict[str, str] = {}
    writable, spec = _writable(record), record.unit
    if writable:
        found["ReadWritePaths"] = " ".join(_word(path) for path in writable)
    if spec is None or spec.hardening != "strict":
        return found
    readable = [places.fixed_part(path) for path in spec.readable]
    at_home = [path for path in writable if places.below(path, places.HOMES)]
    if any(places.below(path, places.HOMES) for path in readable):
        found["ProtectHome"] = "read-only"
    elif at_home:
        # The rest stays hidden.
        found["ProtectHome"] = "tmpfs"
        found["BindPaths"] = " ".join(_word(path) for path in at_home)
    if any(places.below(path, places.TEMPORARY) for path in readable):
        found["PrivateTmp"] = "no"
    return found


def _guard(name: str, path: str) -> str:
    """A command that fails, with a reason for the journal, where the data of the component is not; with root's eyes."""
    words = f"{path} does not hold the data of {name} that was there. Is its disk mounted? It is not started empty."
    script = f"test -e {shlex.quote(mark(path, name))} || {{ echo {shlex.quote(words)} >&2; exit 1; }}"
    return "+/bin/sh -c " + _word(script, command=True)


def environment_text(variables: Mapping[str, str]) -> str:
    """The content of an EnvironmentFile."""
    lines = []
    for key, value in sorted(variables.items()):
        for char in '\\"$`':
            value = value.replace(char, "\\" + char)
        lines.append(f'{key}="{value}"\n')
    return "".join(lines)


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _word(word: str, *, command: bool = False) -> str:
    """One word as systemd reads it back literally."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    if not text or any(char in " \t;'\"\\" for char in text):
        return f'"{text}"'
    return text
