# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""HTTPS in the hypervisor's manner: errors are told in the reason phrase.

ASGI has no place for a reason phrase, so this stands on the standard library's HTTP server: one thread per
connection, which is what blocking handlers want anyway.
"""

from __future__ import annotations

import email.message
import email.parser
import email.policy
import http.server
import json
import logging
import mmap
import secrets
import socket
import ssl
import tempfile
import threading
import time
import traceback
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from lab import tls
from lab.access import Identity
from lab.api import dispatch
from lab.api.cluster import facts
from lab.cluster import Cluster
from lab.errors import ApiError

LOG = logging.getLogger("lab.api")
_MAX_BODY = 64 << 20
# Beside the API: switches of faults.
FAULTS = "/lab/faults"
_UPLOADS = Path("/var/tmp")  # noqa: S108


@dataclass(frozen=True)
class LogEntry:
    """A request as it arrived, with the status it got (0: the reply was dropped)."""

    method: str
    path: str
    status: int
    params: dict[str, Any]


def one_line(text: str) -> str:
    """The first line, in what an HTTP status line may carry."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    return first.encode("latin-1", "replace").decode("latin-1")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    # A status line, headers and body in one packet; no waiting for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 300

    def version_string(self) -> str:
        return "pve-api-daemon/3.0"

    def log_message(self, format: str, *args: Any) -> None:
        LOG.debug("%s " + format, self.client_address[0], *args)

    # -- request

    def _cookie(self) -> str:
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get("PVEAuthCookie")
        except CookieError:
            morsel = None
        return urllib.parse.unquote(morsel.value) if morsel else ""

    def _identify(self, world: bool) -> Identity:
        access = self.server.cluster.access
        authorization = self.headers.get("Authorization", "")
        if world:
            return Identity("")
        if authorization.startswith("PVEAPIToken="):
            return access.by_token(authorization[len("PVEAPIToken=") :])
        ticket = self._cookie() or authorization.removeprefix("PVEAuthCookie=")
        if not ticket:
            raise ApiError(401, "No ticket")
        upload = self.path.partition("?")[0].endswith("/upload")
        return access.by_ticket(
            ticket, self.headers.get("CSRFPreventionToken"), self.command != "GET" and not upload
        )

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY:
            self.close_connection = True
            raise ApiError(413, "request entity too large")
        return self.rfile.read(length) if length else b""

    def _values(self, query: str, body: bytes) -> dict[str, Any]:
        if self.command in ("GET", "DELETE"):
            if body:
                raise ApiError(501, f"Unexpected content for method '{self.command}'")
            return _form(query)
        kind = self.headers.get_content_type() if "Content-Type" in self.headers else ""
        values = _form(query)
        if not body:
            return values
        if kind == "application/json":
            try:
                document = json.loads(body)
            except ValueError as error:
                raise ApiError(400, f"malformed JSON string: {error}") from None
            if not isinstance(document, dict):
                raise ApiError(400, "malformed JSON string: not an object")
            return {**values, **document}
        if kind == "application/x-www-form-urlencoded":
            return {**values, **_form(body.decode("utf-8", "replace"))}
        raise ApiError(400, f"unsupported content type '{kind}'")

    def _upload(self) -> tuple[dict[str, Any], Path | None]:
        """A form with a file, which may be as big as the disk: it is kept where the real server keeps it."""
        length = int(self.headers.get("Content-Length") or 0)
        boundary = str(self.headers.get_param("boundary") or "")
        if not length or not boundary:
            return {}, None
        values: dict[str, Any] = {}
        received: Path | None = None
        with tempfile.TemporaryFile(dir=_UPLOADS) as spool:
            while length:
                chunk = self.rfile.read(min(length, 1 << 20))
                if not chunk:
                    raise ApiError(400, "the upload was cut off")
                spool.write(chunk)
                length -= len(chunk)
            spool.flush()
            with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as form:
                for head, start, end in _parts(form, b"--" + boundary.encode()):
                    name, file = head.get_param("name", header="content-disposition"), head.get_filename()
                    if file is None:
                        values[str(name)] = form[start:end].decode()
                        continue
                    values["filename"] = file
                    received = _UPLOADS / f"pveupload-{secrets.token_hex(16)}"
                    with received.open("wb") as out:
                        for at in range(start, end, 1 << 20):
                            out.write(form[at : min(end, at + (1 << 20))])
        return values, received

    # -- reply

    def _reply(self, status: int, reason: str, document: dict[str, Any]) -> None:
        payload = json.dumps(document).encode()
        self.send_response(status, one_line(reason) or None)
        self.send_header("Cache-Control", "max-age=0")
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        self.wfile.flush()

    def _handle(self) -> None:
        faults = self.server.cluster.faults
        target = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(target.path)
        parts = path.split("/", 3)
        extjs = parts[:3] == ["", "api2", "extjs"]
        short = "/" + parts[3].rstrip("/") if len(parts) == 4 else "/"
        status, reason = 200, "OK"
        document: dict[str, Any] = {"data": None}
        values: dict[str, Any] = {}
        received: Path | None = None
        try:
            if self.command == "POST" and self.headers.get_content_type() == "multipart/form-data":
                values, received = self._upload()
            else:
                values = self._values(target.query, self._body())
            # Where a file was received is never what the client says.
            values.pop("tmpfilename", None)
            if received:
                values["tmpfilename"] = str(received)
            if path == FAULTS:
                self._reply(*self._faults(values))
                return
            if parts[:2] != ["", "api2"] or len(parts) < 4 or parts[2] not in ("json", "extjs"):
                raise ApiError(501, f"no such uri: '{path}'")
            failure = faults.failure(self.command, short)
            if failure:
                raise ApiError(*failure)
            document = {"data": dispatch(self.server.cluster, self._identify, self.command, short, values)}
        except ApiError as error:
            status, reason = error.status, error.message
            document = {"data": None, "message": error.message + "\n"}
            if error.errors:
                document["errors"] = error.errors
        except Exception as error:
            LOG.error("%s %s\n%s", self.command, path, traceback.format_exc())
            status, reason = 500, str(error) or type(error).__name__
            document = {"data": None, "message": reason + "\n"}
        if received:
            received.unlink(missing_ok=True)
        if status == 401:
            time.sleep(faults.auth_delay)
        dropped = faults.dropped(self.command, short)
        self.server.record(LogEntry(self.command, short, 0 if dropped else status, values))
        faults.answering()
        if dropped:
            self.close_connection = True
            self.connection.close()
            return
        if extjs:
            document |= {"success": int(status == 200), "status": status}
            status, reason = 200, "OK"
        self._reply(status, reason, document)

    def _faults(self, values: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        """GET lists the switches that are on, POST switches one; for root, and no part of the official API."""
        cluster = self.server.cluster
        if self._identify(False).user != "root@pam":
            raise ApiError(403, "only root@pam switches faults")
        if self.command == "POST":
            name, on = str(values.pop("name", "")), str(values.pop("on", "1")) == "1"
            try:
                cluster.switch(name, values, on)
            except ValueError as error:
                raise ApiError(400, str(error)) from None
        return 200, "OK", {"data": cluster.troubles()}

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_DELETE = do_GET


def _form(text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in urllib.parse.parse_qsl(text, keep_blank_values=True):
        if key in values:
            values[key] = [*(values[key] if isinstance(values[key], list) else [values[key]]), value]
        else:
            values[key] = value
    return values


def _parts(form: mmap.mmap, boundary: bytes) -> Iterator[tuple[email.message.EmailMessage, int, int]]:
    """Head, first and last byte of each part of a form."""
    at = form.find(boundary)
    while at >= 0:
        head_start = at + len(boundary) + 2
        following = form.find(b"\r\n" + boundary, head_start)
        head_end = form.find(b"\r\n\r\n", head_start)
        if following < 0 or head_end < 0 or head_end > following:
            return
        parser = email.parser.BytesParser(email.message.EmailMessage, policy=email.policy.HTTP)
        yield parser.parsebytes(form[head_start : head_end + 4]), head_end + 4, following
        at = following + 2


class Server(http.server.ThreadingHTTPServer):
    """The API on 127.0.0.1; `port` 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, cluster: Cluster, tls_directory: Path, port: int = 0) -> None:
        self.cluster = cluster
        self.requests: list[LogEntry] = []
        self.ca_path, certificate, key = tls.make(tls_directory)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(certificate, key)
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)
        self.broadcast()
        threading.Thread(target=cluster.statd.run, args=(self.broadcast,), daemon=True).start()

    def broadcast(self) -> None:
        """What every node's pvestatd does now and then."""
        cluster = self.cluster
        cluster.statd.tell(list(cluster.guests.values()), lambda guest: facts(cluster, guest))

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def record(self, entry: LogEntry) -> None:
        self.requests.append(entry)
        # A daemon runs for days; nobody reads what is older.
        if len(self.requests) > 20000:
            del self.requests[:10000]
        LOG.info("%s %s %s", entry.method, entry.path, entry.status)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs to the connection's own thread: a silent client blocks nobody.
        request.settimeout(30)
        try:
            secured = self._context.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError) as error:
            LOG.debug("%s: %s", client_address, error)
            return
        with self._connections_lock:
            self._connections.add(secured)
        try:
            super().finish_request(secured, client_address)
        except OSError as error:
            LOG.debug("%s: %s", client_address, error)
        finally:
            with self._connections_lock:
                self._connections.discard(secured)
            secured.close()

    def stop(self) -> None:
        """End serving and every open connection."""
        self.cluster.statd.stop()
        self.shutdown()
        self.server_close()
        with self._connections_lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
