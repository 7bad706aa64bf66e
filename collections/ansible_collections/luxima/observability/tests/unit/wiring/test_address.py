# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Hosts and ports in URLs: names, IPv4 and IPv6."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._wiring import address
from hypothesis import given
from hypothesis import strategies as st

PORTS = st.integers(1, 65535)
HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda one: one.exploded.upper()),
    st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?", fullmatch=True),
)


@given(HOSTS, PORTS)
def test_a_url_has_the_host_and_the_port_again(host: str, port: int) -> None:
    place = address.hostport(host, port)
    parts = urlsplit(f"http://{place}/x")
    assert parts.port == port
    assert parts.hostname == address.bare(host)
    assert address.parted(place) == (address.bare(host), str(port))
    assert address.hostport(f"[{host}]" if address.is_ipv6(host) else host, port) == place


@given(st.ip_addresses(v=6), PORTS)
def test_one_address_is_one_text(one: ipaddress.IPv6Address, port: int) -> None:
    assert address.hostport(one.exploded, port) == address.hostport(one.compressed, port)


@pytest.mark.parametrize(
    ("listen", "reached"),
    [
        ("", "127.0.0.1:1"),
        ("0.0.0.0", "127.0.0.1:1"),
        ("::", "[::1]:1"),
        ("[::]", "[::1]:1"),
        ("2001:db8::7", "[2001:db8::7]:1"),
        ("192.0.2.7", "192.0.2.7:1"),
    ],
)
def test_where_a_host_reaches_its_own_listener(listen: str, reached: str) -> None:
    assert address.local_hostport(listen, 1) == reached


@pytest.mark.parametrize("place", ["2001:db8::1", "web-1", "[2001:db8::1]"])
def test_a_place_without_a_port(place: str) -> None:
    assert address.parted(place) == (place.strip("[]"), "")


def test_every_interface_stays_every_interface() -> None:
    assert address.hostport("", 9100) == ":9100"
