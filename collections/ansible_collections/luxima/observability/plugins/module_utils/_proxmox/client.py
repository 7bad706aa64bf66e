# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The hypervisor's API: one session, errors with three meanings, tasks waited for. The only file that talks to it."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import Absent, Conflict, Expired, Failed, ProxmoxError, Unreachable
from .patience import Patience

try:
    import requests
    import urllib3
    from proxmoxer import ProxmoxAPI
    from proxmoxer.core import AuthenticationError, ResourceException

    IMPORT_ERROR = ""
except ImportError as error:  # reported by the module, with the name of the library
    IMPORT_ERROR = str(error)

_UPID = re.compile(r"UPID:(?P<node>[^:]+):(?:[0-9A-Fa-f]+:){3}(?P<type>[^:\s]+):[^:\s]*:[^:\s]+:")
# The server's own words decide between the meanings, where the status alone does not.
_EXISTS = re.compile(r"already exists|config file already exists", re.I)
_DIGEST = re.compile(r"checksum mismatch|detected modified configuration", re.I)
_LOCK = re.compile(
    r"is locked|can't lock file|can't acquire lock|cfs-lock|got lock timeout|lock request timeout",
    re.I,
)
_POWER = re.compile(r"already running|not running|already at specified size", re.I)
_ABSENT = re.compile(
    r"does not exist|no such (vm|ct|container|task|volume|storage|pool|job)|unable to find configuration file",
    re.I,
)
_GATEWAY = (595, 596, 599)


@dataclass(frozen=True)
class Settings:
    """How to reach the API. Seconds: ``timeout`` of one request, ``deadlines`` of the operations."""

    host: str
    port: int = 8006
    user: str = "root@pam"
    password: str = field(default="", repr=False)
    token_id: str = ""
    token_secret: str = field(default="", repr=False)
    validate_certs: bool = True
    ca_path: str = ""
    timeout: int = 60
    deadlines: Mapping[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Who acts, as access control names it."""
        return f"{self.user}!{self.token_id}" if self.token_id else self.user

    @property
    def endpoint(self) -> str:
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def meaning(status: int, text: str, subject: str) -> ProxmoxError:
    """The error for an answer or for the end of a task (status 500)."""
    message = f"{subject}: {text}"
    if status in (400, 500):
        for pattern, reason in ((_DIGEST, "digest"), (_EXISTS, "exists"), (_LOCK, "lock")):
            if pattern.search(text):
                return Conflict(message, reason)
    if status == 404 or (status in (400, 500) and _ABSENT.search(text)):
        return Absent(message)
    if status == 500 and _POWER.search(text):
        return Conflict(message, "power")
    return Failed(message)


class Client:
    """One session; not shared between threads. ``subject`` arguments say what is being done, for messages."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.requests = 0
        self._api: Any = None

    def get(self, path: str, subject: str, **params: Any) -> Any:
        """GET, repeated when the answer was lost on the way."""
        for pause in (0.2, 1.0, None):
            try:
                return self._request("GET", path, subject, params)
            except Conflict as conflict:
                if conflict.reason != "lost" or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def write(self, method: str, path: str, subject: str, **data: Any) -> Any:
        """POST, PUT or DELETE, once. A lost reply is Conflict("lost"): the caller looks before it repeats."""
        return self._request(method, path, subject, data)

    def upload(self, path: str, subject: str, file: str, **data: Any) -> Any:
        """POST of a local file as ``filename``, streamed; its name on the server is ``data["filename"]``."""

        def call() -> Any:
            raw = io.FileIO(file)
            raw.name = str(data["filename"])
            with io.BufferedReader(raw) as stream:
                return self._send("POST", path, {**data, "filename": stream})

        return self._guarded(call, "POST", path, subject)

    def wait(self, upid: Any, subject: str, seconds: float) -> list[str]:
        """Wait for a task; its warnings. Failed, Conflict or Absent by the task's own words."""
        match = _UPID.fullmatch(str(upid))
        if not match:
            return []
        base = f"nodes/{match['node']}/tasks/{upid}"
        result = self._end(base, str(upid), subject, seconds)
        if result == "OK":
            return []
        if result.startswith("WARNINGS"):
            lines = [
                line
                for line in self._log(base, subject)
                if "WARN" in line and not line.startswith("TASK WARNINGS")
            ]
            return [f"{subject}: {line}" for line in lines or [result]]
        error = meaning(500, result, subject)
        if isinstance(error, Failed):
            raise Failed(f"{error} (task {upid}; its log ends: {self._tail(base, subject)})")
        raise error

    def outlast(self, upid: str, subject: str, seconds: float) -> None:
        """Wait for a task that somebody else began, however it ends."""
        self._end(f"nodes/{upid.split(':')[1]}/tasks/{upid}", upid, subject, seconds)

    def _end(self, base: str, upid: str, subject: str, seconds: float) -> str:
        """How a task ended. Failed when it goes on."""
        patience = Patience(seconds)
        while True:
            status = self.get(f"{base}/status", subject)
            if status.get("status") == "stopped":
                return str(status.get("exitstatus", ""))
            if not patience.again():
                raise Failed(
                    f"{subject}: not finished after {seconds:g} s; it goes on as task {upid}, last words: "
                    f"{self._tail(base, subject)}; raise the deadline, or look at the task on the hypervisor"
                )

    def _log(self, base: str, subject: str) -> list[str]:
        # Without a limit the server sends the first 50 lines only.
        return [str(line.get("t", "")) for line in self.get(f"{base}/log", subject, limit=5000)]

    def _tail(self, base: str, subject: str) -> str:
        lines = [line for line in self._log(base, subject) if line.strip()]
        return " | ".join(lines[-3:]) or "nothing"

    def _connect(self) -> Any:
        settings = self.settings
        if not settings.validate_certs:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        verify: bool | str = (settings.ca_path or True) if settings.validate_certs else False
        secret: dict[str, Any] = (
            {"token_name": settings.token_id, "token_value": settings.token_secret}
            if settings.token_id
            else {"password": settings.password}
        )
        return ProxmoxAPI(
            settings.host,
            port=settings.port,
            user=settings.user,
            verify_ssl=verify,
            timeout=(min(10, settings.timeout), settings.timeout),
            **secret,
        )

    def _request(self, method: str, path: str, subject: str, values: Mapping[str, Any]) -> Any:
        def call() -> Any:
            return self._send(method, path, values)

        try:
            return self._guarded(call, method, path, subject)
        except Expired:
            # Refused without effect: one new login, and the same request again.
            self._api = None
            return self._guarded(call, method, path, subject)

    def _send(self, method: str, path: str, values: Mapping[str, Any]) -> Any:
        if self._api is None:
            self._api = self._connect()
        self.requests += 1
        resource = self._api(path)
        verb: Callable[..., Any] = getattr(
            resource, {"GET": "get", "POST": "post", "PUT": "put", "DELETE": "delete"}[method]
        )
        return verb(**values)

    def _guarded(self, call: Callable[[], Any], method: str, path: str, subject: str) -> Any:
        try:
            answer = call()
        except ResourceException as error:
            raise self._refused(error, path, subject) from error
        except AuthenticationError as error:
            if self._api is not None:
                # A session that idled for longer than its ticket lived, and could not renew it.
                raise Expired(str(error)) from error
            raise self._no_login(str(error)) from error
        except (KeyError, requests.exceptions.InvalidJSONError) as error:
            # JSON of somebody else, or a page in the place of a ticket.
            raise self._stranger("") from error
        except requests.exceptions.RequestException as error:
            raise self._untransported(error, method, path, subject) from error
        # How the library hands on what is no JSON.
        if isinstance(answer, Mapping) and isinstance(answer.get("errors"), bytes) and len(answer) == 1:
            raise self._stranger(answer["errors"].decode("utf-8", "replace"))
        return answer

    def _stranger(self, page: str) -> Failed:
        begins = f" (it begins with {page.strip()[:40]!r})" if page.strip() else ""
        return Failed(
            f"{self.settings.endpoint} answers, but not as the API of Proxmox VE does{begins}: are api_host and api_port those "
            "of a node, and not of a web page or a proxy in front of it?"
        )

    def _no_login(self, text: str) -> Failed:
        settings, status = self.settings, re.search(r"code: (\d+)", text)
        if "Two Factor" in text:
            return Failed(
                f"{settings.identity} has a second factor, which nobody can give here: use an API token of it (api_token_id and "
                "api_token_secret), which needs none"
            )
        if status and status[1] not in ("401", "403"):
            return self._stranger(f"status {status[1]}")
        return Failed(
            f"{settings.endpoint} refused the login of {settings.identity}: check api_user and api_password "
            "(a login is tried once, repeated failures lock accounts out)"
        )

    def _untransported(self, error: Any, method: str, path: str, subject: str) -> ProxmoxError:
        """The error for a request that got no answer at all."""
        endpoint, text = self.settings.endpoint, repr(error)
        if isinstance(error, requests.exceptions.SSLError):
            if re.search(r"WRONG_VERSION_NUMBER|wrong version number|RECORD_LAYER|record layer", text):
                return Failed(
                    f"{endpoint} does not speak TLS: the API of Proxmox VE does, so something else is there: are api_host "
                    "and api_port right?"
                )
            if "mismatch" in text or "doesn't match" in text:
                return Failed(
                    f"{endpoint} shows a certificate for another name: write the name that is in it in api_host, or "
                    "validate_certs: false"
                )
            return Failed(
                f"{endpoint} shows a certificate that is not trusted ({_cause(error)}): set ca_path to its "
                "authority (/etc/pve/pve-root-ca.pem of the cluster), or validate_certs: false"
            )
        if (
            isinstance(error, requests.exceptions.ConnectTimeout)
            or "NewConnectionError" in text
            or "NameResolutionError" in text
        ):
            return Failed(
                f"no Proxmox VE API at {endpoint} ({_cause(error)}): is it running, and are api_host and api_port right?"
            )
        return Conflict(f"{subject}: no reply to {method} {path} ({_cause(error)})", "lost")

    def _refused(self, error: Any, path: str, subject: str) -> ProxmoxError:
        status, text = int(error.status_code), str(error.content).strip()
        details = error.errors
        page = details.get("errors") if isinstance(details, Mapping) and len(details) == 1 else None
        if isinstance(page, bytes):
            # No JSON: nothing, or a page of somebody else.
            if page.lstrip().startswith(b"<") and status not in _GATEWAY:
                return self._stranger(f"{status} {page.decode('utf-8', 'replace').strip()}")
            details = None
        if isinstance(details, Mapping) and details:
            text += " " + "; ".join(f"{key}: {str(value).strip()}" for key, value in details.items())
        if status == 401:
            return (Failed if self.settings.token_id else Expired)(
                f"{self.settings.endpoint} refused {self.settings.identity} ({text}): check api_user and api_password, "
                "or api_token_id and api_token_secret"
            )
        if status == 403 and "only allowed for root@pam" in text:
            return Failed(
                f"{subject}: the server says: {text}; that takes root@pam with a password, and no token will do: give api_user "
                "root@pam and api_password without api_token_id, or leave it out"
            )
        if status == 403:
            return Failed(
                f"{subject}: {self.settings.identity} lacks a privilege, the server says: {text}; grant it "
                "(Datacenter, Permissions), for a token with privilege separation to the token too"
            )
        if status in (596, 599):
            return Conflict(f"{subject}: no reply from the node ({status} {text})", "lost")
        if status == 595:
            reason = f"{status} {text}"
            return Unreachable(
                f"{subject}: the node cannot be reached from {self.settings.host} ({reason})", reason
            )
        return meaning(status, text, subject)


def _cause(error: BaseException) -> str:
    """The innermost reason in few words."""
    text = repr(error)
    for known in (
        "Connection refused",
        "Name or service not known",
        "No route to host",
        "timed out",
        "Connection reset",
    ):
        if known in text:
            return known.lower()
    match = re.search(r"\[SSL[^\]]*\] ([^\(\)']+)", text)
    return match[1].strip() if match else type(error).__name__
