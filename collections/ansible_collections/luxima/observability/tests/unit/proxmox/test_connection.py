# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What people write for the way to the API, and what may be there instead of it: one clear message each."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import tls

from .conftest import Site, record


class Page(http.server.BaseHTTPRequestHandler):
    """A web server that knows nothing of the API."""

    status, body = 200, b"<!DOCTYPE html><title>Welcome</title>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def elsewhere(folder: Path, secure: bool = True, **answer: Any) -> Iterator[dict[str, Any]]:
    """Another server's port, in the module's words."""
    handler = type("Answer", (Page,), answer)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    ca, certificate, key = tls.make(folder)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield {"api_host": "127.0.0.1", "api_port": server.server_address[1], "ca_path": str(ca)}
    finally:
        server.shutdown()
        server.server_close()


PASSWORD = {"api_password": "secret", "api_token_id": "", "api_token_secret": ""}


@pytest.mark.parametrize(
    ("host", "way_out"),
    [
        ("https://pve:8006", "write api_host: pve, and api_port: 8006"),
        ("https://pve.example.org/", "write api_host: pve.example.org"),
        ("http://pve", "write api_host: pve"),
        ("pve:8006", "write api_host: pve, and api_port: 8006"),
        ("https://[::1]:8006", "write api_host: ::1, and api_port: 8006"),
        ("pve 1", "neither a host name nor an address"),
        ("", "api_host is empty"),
    ],
)
def test_a_host_is_a_host(site: Site, host: str, way_out: str) -> None:
    message = site.fails(record(), api_host=host)
    assert message.startswith("api_host")
    assert way_out in message
    assert site.server.requests == []


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_is_one(site: Site, host: str) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = probe.getsockname()[1]
    message = site.fails(record(), api_host=host, api_port=port)
    assert f"no Proxmox VE API at https://[::1]:{port} (connection refused)" in message


def test_an_authority_that_is_not_there(site: Site, tmp_path: Path) -> None:
    assert f"ca_path: there is no file {tmp_path}/none.pem" in site.fails(
        record(), ca_path=str(tmp_path / "none.pem")
    )
    (tmp_path / "notes.txt").write_text("not a certificate\n")
    message = site.fails(record(), ca_path=str(tmp_path / "notes.txt"))
    assert f"ca_path: {tmp_path}/notes.txt holds no certificate" in message


@pytest.mark.parametrize("login", [{}, PASSWORD], ids=["token", "password"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, Page.body),
        (200, b'{"welcome": true}'),
        (404, b"<html><h1>404 Not Found</h1></html>"),
        (502, b"<html><h1>502 Bad Gateway</h1></html>"),
    ],
)
def test_a_page_is_not_the_api(
    site: Site, tmp_path: Path, status: int, body: bytes, login: dict[str, str]
) -> None:
    with elsewhere(tmp_path, status=status, body=body) as there:
        message = site.fails(record(), **there, **login)
    assert "answers, but not as the API of Proxmox VE does" in message
    assert "are api_host and api_port those of a node" in message


def test_a_server_without_tls(site: Site, tmp_path: Path) -> None:
    with elsewhere(tmp_path, secure=False) as there:
        message = site.fails(record(), **there)
    assert f"https://127.0.0.1:{there['api_port']} does not speak TLS" in message
    assert "trusted" not in message


def test_a_second_factor_cannot_be_given(site: Site) -> None:
    site.server.cluster.access.users["root@pam"].second_factor = True
    message = site.fails(record(), api_password=site.server.password, api_token_id="", api_token_secret="")
    assert "root@pam has a second factor" in message
    assert "use an API token" in message
    assert "check api_user" not in message


def test_a_session_that_idled_too_long_logs_in_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ticket has ended, so that it cannot be renewed by it either."""
    account = {"api_password": site.server.password, "api_token_id": None, "api_token_secret": None}
    site.ok(record(), **account)
    monkeypatch.setattr("proxmoxer.backends.https.ProxmoxHTTPAuth.renew_age", 0)
    site.server.faults.after(6, site.server.expire_tickets)
    assert site.ok(record(), **account)["changed"] is False
    assert "refused the login" in site.fails(record(), **{**account, "api_password": "wrong"})
