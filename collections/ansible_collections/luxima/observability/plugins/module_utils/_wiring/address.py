# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Hosts and ports as parts of URLs, targets and listeners, for names, IPv4 and IPv6. Pure."""

from __future__ import annotations

import ipaddress

#: What stands for every interface, and where the host itself then reaches the listener.
_EVERYWHERE = {"": "127.0.0.1", str(ipaddress.IPv4Address(0)): "127.0.0.1", "::": "::1"}


def bare(host: str) -> str:
    """Without brackets; of addresses the one way that servers write them, so that texts can be compared."""
    text = str(host).strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(bare(host))
    except ValueError:
        return False
    return True


def is_ipv6(host: str) -> bool:
    return is_address(host) and ":" in bare(host)


def hostport(host: str, port: object) -> str:
    """``name:9090``, ``192.0.2.1:9090``, ``[2001:db8::1]:9090``; an empty host stays empty (every interface)."""
    text = bare(host)
    return f"[{text}]:{port}" if is_ipv6(text) else f"{text}:{port}"


def local_hostport(listen: str, port: object) -> str:
    """Where the host itself reaches a listener on this address."""
    text = bare(listen)
    return hostport(_EVERYWHERE.get(text, text), port)


def parted(place: str) -> tuple[str, str]:
    """Host without brackets, and port, of ``host:port``; a port that is not there is empty."""
    host, colon, port = str(place).rpartition(":")
    if not colon or not port.isdigit() or (is_ipv6(place) and not place.startswith("[")):
        return bare(place), ""
    return bare(host), port
