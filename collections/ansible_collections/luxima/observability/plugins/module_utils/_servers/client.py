# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""HTTP to one server of the platform."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Any

TIMEOUT = 10.0


class Unreachable(Exception):
    """Nothing answered: no name, no route, refused, timed out, or no TLS."""


class Refused(Exception):
    """The server answered, and not with success. `status` is the HTTP status, `body` the server's own words."""

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        self.status = status
        self.body = body.strip()
        words = " ".join(self.body.split())[:300]
        super().__init__(f"{method} {url} answered {status}" + (f": {words}" if words else ""))


class Client:
    """One server as a connection of the inventory describes it (url, ca_file, username, password, client_cert, client_key, tenant)."""

    def __init__(self, connection: Mapping[str, Any], url: str = "") -> None:
        self.url = (url or str(connection["url"])).rstrip("/")
        self._headers = {"User-Agent": "luxima.observability", "Accept": "application/json"}
        if connection.get("username"):
            pair = f"{connection['username']}:{connection.get('password') or ''}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if connection.get("tenant"):
            self._headers["X-Scope-OrgID"] = str(connection["tenant"])
        self._connection = connection

    def _open(self, timeout: float) -> http.client.HTTPConnection:
        # Not urllib's opener: it follows redirects and the environment's proxies, and both would hide who answered.
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(
                f"{self.url!r} is no URL of a server; write http://host:port or https://host:port"
            )
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        context = tls_context(self._connection)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context)

    def text(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        method: str = "",
        timeout: float = TIMEOUT,
    ) -> str:
        """The body of an answer with status 2xx. Raises Unreachable or Refused. `timeout` in seconds."""
        target = path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")
        method = method or ("GET" if body is None else "POST")
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = self._open(timeout)
        try:
            connection.request(method, urllib.parse.urlsplit(self.url).path + target, data, headers)
            answer = connection.getresponse()
            words = answer.read().decode("utf-8", "replace")
        except (http.client.HTTPException, OSError) as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise Refused(method, self.url + target, answer.status, words)
        return words

    def json(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        """The same, parsed. Raises Refused (status 200) when the answer is no JSON."""
        answer = self.text(path, query, body, timeout=timeout)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise Refused("GET", self.url + path, 200, f"not JSON: {answer[:120]}") from error


def tls_context(connection: Mapping[str, Any]) -> ssl.SSLContext:
    """The trust and identity of a connection. Raises Unreachable naming the file that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=str(connection.get("ca_file") or "") or None)
        if connection.get("client_cert"):
            context.load_cert_chain(
                str(connection["client_cert"]), str(connection.get("client_key") or "") or None
            )
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(
            str(connection[k]) for k in ("ca_file", "client_cert", "client_key") if connection.get(k)
        )
        raise Unreachable(f"cannot read the certificates {files}: {error}") from error
    return context
