# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Who may do what: users, tickets, API tokens, roles and access lists."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import ApiError
from lab.schema import Method

TICKET_LIFETIME = 7200.0

_VM_USER = frozenset(
    {"VM.Audit", "VM.Backup", "VM.Config.CDROM", "VM.Config.Cloudinit", "VM.Console", "VM.PowerMgmt"}
)
_VM_ADMIN = _VM_USER | {
    "VM.Allocate",
    "VM.Clone",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
}
_AUDITOR = frozenset(
    {
        "Datastore.Audit",
        "Mapping.Audit",
        "Pool.Audit",
        "SDN.Audit",
        "Sys.Audit",
        "VM.Audit",
        "VM.GuestAgent.Audit",
    }
)
_EVERYTHING = (
    _VM_ADMIN
    | _AUDITOR
    | {
        "Datastore.Allocate",
        "Datastore.AllocateSpace",
        "Datastore.AllocateTemplate",
        "Group.Allocate",
        "Mapping.Modify",
        "Mapping.Use",
        "Permissions.Modify",
        "Pool.Allocate",
        "Realm.Allocate",
        "Realm.AllocateUser",
        "SDN.Allocate",
        "SDN.Use",
        "Sys.AccessNetwork",
        "Sys.Console",
        "Sys.Incoming",
        "Sys.Modify",
        "Sys.PowerMgmt",
        "Sys.Syslog",
        "User.Modify",
    }
)
ROLES: Mapping[str, frozenset[str]] = {
    "Administrator": frozenset(_EVERYTHING),
    "NoAccess": frozenset(),
    "PVEAuditor": _AUDITOR,
    "PVEDatastoreAdmin": frozenset(name for name in _EVERYTHING if name.startswith("Datastore.")),
    "PVEDatastoreUser": frozenset({"Datastore.Audit", "Datastore.AllocateSpace"}),
    "PVEPoolAdmin": frozenset({"Pool.Allocate", "Pool.Audit"}),
    "PVESDNUser": frozenset({"SDN.Audit", "SDN.Use"}),
    "PVESysAdmin": frozenset({"Permissions.Modify", "Sys.Audit", "Sys.Console", "Sys.Syslog"}),
    "PVEVMAdmin": frozenset(_VM_ADMIN),
    "PVEVMUser": _VM_USER,
}
_TOP_PATHS = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")


@dataclass(frozen=True)
class Token:
    secret: str
    # A separated token has only what both it and its user have.
    privsep: bool = True


@dataclass
class User:
    password: str
    tokens: dict[str, Token] = field(default_factory=dict)
    comment: str = ""
    enabled: bool = True
    # A password is then only the first half of a login, and the lab accepts no second one.
    second_factor: bool = False


@dataclass(frozen=True)
class Identity:
    """Who asks: `user` is root@pam, `owner` what tasks record (root@pam!lab for a token)."""

    user: str
    token: str = ""

    @property
    def owner(self) -> str:
        return f"{self.user}!{self.token}" if self.token else self.user

    @property
    def is_root(self) -> bool:
        """The superuser himself; a token of his is not."""
        return self.owner == "root@pam"


class Access:
    """The user directory of one hypervisor cluster."""

    def __init__(self, key: bytes | None = None, state: Path | None = None) -> None:
        self._state = state
        self._key = key or secrets.token_bytes(32)
        self._epoch = 0
        self._lock = threading.Lock()
        self.users: dict[str, User] = {}
        # (path, user or token) -> names of roles, joined by commas.
        self.acl: dict[tuple[str, str], str] = {}
        # Entries that are for their path only, and not for those below.
        self.flat: set[tuple[str, str]] = set()
        if state and state.exists():
            known = json.loads(state.read_text(encoding="utf-8"))
            for name, user in known["users"].items():
                tokens = {token: Token(**entry) for token, entry in user.pop("tokens").items()}
                self.users[name] = User(**user, tokens=tokens)
            self.acl = {(path, who): roles for path, who, roles in known["acl"]}
            self.flat = {(path, who) for path, who in known["flat"]}

    def save(self) -> None:
        """Keep users and lists for the next life of the server."""
        if self._state is None:
            return
        with self._lock:
            document = {
                "users": {name: asdict(user) for name, user in self.users.items()},
                "acl": [[*key, roles] for key, roles in sorted(self.acl.items())],
                "flat": sorted(self.flat),
            }
            scratch = self._state.with_name(f".{self._state.name}.{secrets.token_hex(4)}")
            scratch.touch(mode=0o600)
            scratch.write_text(json.dumps(document), encoding="utf-8")
            scratch.replace(self._state)

    # -- tickets

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, f"{self._epoch}:{text}".encode(), hashlib.sha256).hexdigest().upper()

    def expire_tickets(self) -> None:
        """Every ticket given so far stops working."""
        with self._lock:
            self._epoch += 1

    def issue(self, user: str) -> dict[str, Any]:
        stamp = f"{int(time.time()):08X}"
        plain = f"PVE:{user}:{stamp}"
        csrf = f"{stamp}:{self._sign('csrf' + user + stamp)[:43]}"
        return {"username": user, "ticket": f"{plain}::{self._sign(plain)}", "CSRFPreventionToken": csrf}

    def login(self, user: str, password: str) -> dict[str, Any]:
        """A ticket for a password, or for a ticket that is still good."""
        known = self.users.get(user)
        good = (
            known is not None
            and known.enabled
            and hmac.compare_digest(known.password.encode(), password.encode())
        )
        if not good and password.startswith("PVE:"):
            good = known is not None and self._ticket_user(password) == user
        if not good:
            raise ApiError(401, "authentication failure")
        if known is not None and known.second_factor:
            return {**self.issue(user), "ticket": f"PVE:!tfa!{user}:::", "NeedTFA": 1}
        return self.issue(user)

    def _ticket_user(self, ticket: str) -> str | None:
        plain, sign, signature = ticket.partition("::")
        parts = plain.split(":")
        if not sign or len(parts) != 3 or not hmac.compare_digest(signature, self._sign(plain)):
            return None
        try:
            age = time.time() - int(parts[2], 16)
        except ValueError:
            return None
        return parts[1] if -300 < age < TICKET_LIFETIME else None

    def by_ticket(self, ticket: str, csrf: str | None, needs_csrf: bool) -> Identity:
        user = self._ticket_user(ticket)
        if user is None or user not in self.users or not self.users[user].enabled:
            raise ApiError(401, "permission denied - invalid PVE ticket")
        if needs_csrf:
            stamp, _, signature = (csrf or "").partition(":")
            if not signature or not hmac.compare_digest(signature, self._sign("csrf" + user + stamp)[:43]):
                raise ApiError(401, "Permission denied - invalid csrf token")
        return Identity(user)

    def by_token(self, text: str) -> Identity:
        """`USER@REALM!TOKENID=SECRET`."""
        full, _, secret = text.partition("=")
        user, _, name = full.partition("!")
        token = self.users[user].tokens.get(name) if user in self.users else None
        if token is None or not self.users[user].enabled:
            raise ApiError(401, f"no such token '{name}' for user '{user}'")
        if not hmac.compare_digest(token.secret.encode(), secret.encode()):
            raise ApiError(401, "Authentication failed!")
        return Identity(user, name)

    # -- privileges

    def _of(self, who: str, path: str) -> frozenset[str]:
        if who == "root@pam":
            return ROLES["Administrator"]
        # The most specific entry wins.
        current = path.rstrip("/") or "/"
        while True:
            roles = self.acl.get((current, who))
            if roles is not None and (
                current == (path.rstrip("/") or "/") or (current, who) not in self.flat
            ):
                return frozenset().union(*(ROLES[role] for role in roles.split(",")))
            if current == "/":
                return frozenset()
            current = current.rsplit("/", 1)[0] or "/"

    def privileges(self, who: Identity, path: str) -> frozenset[str]:
        own = self._of(who.user, path)
        if not who.token:
            return own
        token = self.users[who.user].tokens[who.token]
        return own & self._of(who.owner, path) if token.privsep else own

    def has(self, who: Identity, path: str, needed: Iterable[str], any_of: bool = False) -> bool:
        have = self.privileges(who, path)
        return any(p in have for p in needed) if any_of else all(p in have for p in needed)

    def require(self, who: Identity, path: str, needed: Iterable[str], any_of: bool = False) -> None:
        wanted = list(needed)
        if not self.has(who, path, wanted, any_of):
            have = self.privileges(who, path)
            missing = "|".join(wanted) if any_of else ", ".join(p for p in wanted if p not in have)
            raise ApiError(403, f"Permission check failed ({path}, {missing})")

    def table(self, who: Identity, path: str | None = None) -> dict[str, dict[str, int]]:
        """What GET /access/permissions answers: {path: {privilege: propagates}}."""
        paths = [path] if path else sorted({*_TOP_PATHS, *(entry for entry, _ in self.acl)})
        found = {p: dict.fromkeys(sorted(self.privileges(who, p)), 1) for p in paths}
        return {p: names for p, names in found.items() if names or path}

    def authorize(self, who: Identity, method: Method, params: Mapping[str, Any]) -> None:
        """The check that the schema itself demands; finer ones are with the handlers."""
        if who.token and not method.allow_token:
            raise ApiError(403, "Permission check failed (not available with API token, need proper ticket)")
        rule = method.permissions
        if rule.get("user") in ("all", "world") or who.is_root:
            return
        check = rule.get("check")
        if check is None:
            raise ApiError(403, "Permission check failed (user != root@pam)")
        self._evaluate(who, check, params)

    def _evaluate(self, who: Identity, check: list[Any], params: Mapping[str, Any]) -> None:
        operator = check[0]
        if operator == "and":
            for part in check[1:]:
                self._evaluate(who, part, params)
        elif operator == "or":
            failure: ApiError | None = None
            for part in check[1:]:
                try:
                    self._evaluate(who, part, params)
                except ApiError as error:
                    failure = error
                else:
                    return
            raise failure or ApiError(403, "Permission check failed")
        elif operator == "perm":
            path = check[1]
            for name, value in params.items():
                path = path.replace("{" + name + "}", str(value))
            options = dict(zip(check[3::2], check[4::2]))
            self.require(who, path, check[2], any_of=bool(options.get("any")))
        elif operator == "perm-modify":
            self.require(who, str(params["path"]), ["Permissions.Modify"])
        elif operator == "userid-group":
            self.require(who, "/access/groups", check[1], any_of=True)
        elif operator == "userid-param" and check[1] == "self":
            if who.user != params["userid"]:
                raise ApiError(403, f"Permission check failed ({params['userid']})")
        elif operator == "userid-param":
            realm = str(params["userid"]).rpartition("@")[2]
            self.require(who, f"/access/realm/{realm}", [check[1]])
        else:
            raise ApiError(403, "Permission check failed (user != root@pam)")
