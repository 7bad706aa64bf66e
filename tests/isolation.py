# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A network in which a command reaches the lab's guests and its API, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
# Of the lab's subnet; no guest has it.
ADDRESS = 250


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Network:
    """`command` puts a command into it; `refused` counts what it was asked to send elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def refused(self) -> int:
        """Connections and datagrams for which there was no route (IpOutNoRoutes)."""
        told = subprocess.run(
            self.command("cat", "/proc/net/snmp"), check=True, capture_output=True, text=True
        )
        names, numbers = [line.split() for line in told.stdout.splitlines() if line.startswith("Ip:")]
        return int(dict(zip(names, numbers, strict=True))["OutNoRoutes"])


@contextlib.contextmanager
def isolated(bridge: str, subnet: str, port: int) -> Iterator[Network]:
    """Only `bridge` and, through a relay, this machine's 127.0.0.1:`port`."""
    # 15 characters are what an interface may be called.
    name = f"{bridge[:12]}-cut"
    inside = f"{bridge[:12]}-in"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("link", "set", name, "master", bridge, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{subnet}.{ADDRESS}/24", "dev", inside),
            ("link", "set", inside, "up"),
        ):
            _ip("-n", name, *words)
        listener = _listen_inside(name, port)
        threading.Thread(target=_relay, args=(listener, port), daemon=True).start()
        yield Network(name)
    finally:
        # Connections that Ansible keeps open for later.
        for pid in _ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", name)
        _ip("netns", "delete", name)


def _listen_inside(name: str, port: int) -> socket.socket:
    """A socket belongs to the network of the thread that makes it."""
    made: list[socket.socket] = []

    def make() -> None:
        with Path("/run/netns", name).open() as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def _relay(listener: socket.socket, port: int) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
