# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The record of a component: which keys it may have, of which type, and their defaults. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import places

Json = dict[str, Any]

STATES = ("present", "absent", "previous")
ON_CHANGE = ("restart", "reload", "none")
HARDENING = ("strict", "host")
# How a store writes its periods; read by _retention/rendered.py.
STORES = ("prometheus", "loki", "tempo", "tables", "copies")
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*\Z")
MODE = re.compile(r"0?[0-7]{3}\Z")
SIGNAL = re.compile(r"(SIG)?[A-Z][A-Z0-9]*\Z")
# Go's spelling of a limit.
MEMORY = re.compile(r"([0-9]+)(B|KiB|MiB|GiB|TiB)?\Z")
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

RECORD_KEYS = frozenset(
    [
        "name",
        "state",
        "artifacts",
        "tools",
        "user",
        "groups",
        "directories",
        "files",
        "live",
        "environment",
        "secret_environment",
        "memory",
        "needs",
        "stored_data_keys",
        "unit",
        "validate",
        "reload",
        "ready",
        "proof",
        "purge",
        "data",
    ]
)
FILE_KEYS = frozenset(["path", "content", "template", "source", "on_change", "secret", "mode", "revision"])
DIRECTORY_KEYS = frozenset(["path", "mode", "owner", "group", "data"])
UNIT_KEYS = frozenset(["description", "exec_start", "settings", "writable", "readable", "hardening", "after"])
COMMAND_KEYS = frozenset(["run", "about"])
CLIENT_KEYS = frozenset(["ca_file", "cert_file", "key_file", "username", "password_file", "headers"])
RELOAD_KEYS = frozenset(["signal", "url", "method", "timeout"]) | CLIENT_KEYS
READY_KEYS = frozenset(["url", "status", "timeout", "settle"]) | CLIENT_KEYS
NEED_KEYS = frozenset(["url", "path", "words"]) | CLIENT_KEYS
PROOF_KEYS = (
    frozenset(
        ["url", "status", "contains", "json", "only", "metric", "labels", "value", "changes", "follows"]
    )
    | frozenset(["sign", "within", "hopeless", "hint"])
    | CLIENT_KEYS
)
SIGN_KEYS = frozenset(["file", "access_key", "secret_key", "region"])
STORED_DATA_KEYS = frozenset(["variable", "data"])
DATA_KEYS = frozenset(["store", "files", "connection", "report", "fixed", "together"])
FIXED_KEYS = frozenset(["file", "key", "grows", "unit", "variable", "instead"])


class RecordError(ValueError):
    """A record that cannot be used; the message says which key, what was found and what is expected."""


@dataclass(frozen=True)
class FileSpec:
    """One entry of `files`; exactly one of content, template and source is set."""

    path: str
    content: Any = None
    template: str = ""
    source: str = ""
    on_change: str = "restart"
    secret: bool = False
    mode: str = ""
    revision: bool = False


@dataclass(frozen=True)
class Directory:
    path: str
    mode: str
    owner: str
    group: str
    # Whether what is lost with it cannot be made again: it is marked, and the service never starts without its mark.
    data: bool = False


@dataclass(frozen=True)
class UnitSpec:
    exec_start: tuple[str, ...]
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    hardening: str = "strict"
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What one component should be on one host."""

    name: str
    state: str = "present"
    artifacts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    user: str = "root"
    groups: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[FileSpec, ...] = ()
    live: tuple[Directory, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)
    # Bytes; 0 for no limit.
    memory: int = 0
    needs: tuple[Json, ...] = ()
    stored_data_keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unit: UnitSpec | None = None
    validate: tuple[tuple[str, ...], ...] = ()
    # What each of those commands looks at, in an operator's words; empty: the whole.
    about: tuple[str, ...] = ()
    reload: Json = field(default_factory=dict)
    ready: Json = field(default_factory=dict)
    proof: tuple[Json, ...] = ()
    purge: bool = False
    data: Json = field(default_factory=dict)


def parse(arguments: Mapping[str, Any]) -> Record:
    """The record in its complete form. Raises RecordError at the first key that cannot be used."""
    args = {str(key): value for key, value in arguments.items()}
    name = args.get("name")
    if not isinstance(name, str) or not NAME.match(name):
        raise RecordError(f"name: expected a lower-case word such as `loki`, found {name!r}")
    _known("", args, RECORD_KEYS)
    state = _choice("state", args.get("state", "present"), STATES)
    user = _text("user", args.get("user", "root"))
    commands = _commands("validate", args.get("validate"))
    return Record(
        name=str(name),
        state=state,
        artifacts=_texts("artifacts", args.get("artifacts")),
        tools=_texts("tools", args.get("tools")),
        user=user,
        groups=_texts("groups", args.get("groups")),
        directories=_directories("directories", args.get("directories"), user, absolute=True),
        files=_files(args.get("files")),
        live=_directories("live", args.get("live"), user, absolute=False),
        environment=_environment("environment", args.get("environment")),
        secret_environment=_environment("secret_environment", args.get("secret_environment")),
        memory=_memory(f"memory ({name}_memory_limit)", args.get("memory")),
        needs=_needs(args.get("needs")),
        stored_data_keys=_stored_data_keys(args.get("stored_data_keys")),
        unit=_unit(args.get("unit"), required=state == "present"),
        validate=tuple(words for words, _about in commands),
        about=tuple(about for _words, about in commands),
        reload=_reload(args.get("reload")),
        ready=_ready(args.get("ready")),
        proof=_proof(args.get("proof")),
        purge=_flag("purge", args.get("purge", False)),
        data=_data(args.get("data")),
    )


def _known(where: str, value: Mapping[str, Any], keys: frozenset[str]) -> None:
    unknown = sorted(set(value) - keys)
    if unknown:
        place = f"{where}: " if where else ""
        raise RecordError(f"{place}unknown key `{unknown[0]}`; known are: {', '.join(sorted(keys))}")


def _wrong(where: str, expected: str, value: Any) -> RecordError:
    return RecordError(f"{where}: expected {expected}, found {type(value).__name__} {str(value)[:60]!r}")


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\n" in value or "\0" in value:
        raise _wrong(where, "one line of text", value)
    return str(value)


def _flag(where: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    raise _wrong(where, "true or false", value)


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool):
        raise _wrong(where, "a number", value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _wrong(where, "a number", value) from None


def _choice(where: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _wrong(where, f"one of {', '.join(choices)}", value)
    return str(value)


def _list(where: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise _wrong(where, "a list", value)
    return list(value)


def _mapping(where: str, value: Any) -> Json:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(where, "a dictionary", value)
    return {str(key): item for key, item in value.items()}


def _texts(where: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(f"{where}[{i}]", item) for i, item in enumerate(_list(where, value)))


def _argument(where: str, value: Any) -> str:
    """An argument of a command: text, or a number that YAML read as one."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _wrong(where, "text", value)
    text = str(value)
    if "\n" in text or "\0" in text:
        raise _wrong(where, "one line of text", value)
    return text


def _commands(where: str, value: Any) -> list[tuple[tuple[str, ...], str]]:
    """Commands with what they look at: lists of words, or {run, about}."""
    commands = []
    for i, command in enumerate(_list(where, value)):
        place, about = f"{where}[{i}]", ""
        if isinstance(command, Mapping):
            entry = _mapping(place, command)
            _known(place, entry, COMMAND_KEYS)
            about, command = _text(f"{place}.about", entry.get("about")), entry.get("run")
        words = tuple(_argument(f"{place}[{j}]", word) for j, word in enumerate(_list(place, command)))
        if not words:
            raise _wrong(place, "a command and its arguments", command)
        commands.append((words, about))
    return commands


def _relative(where: str, value: Any) -> str:
    path = _text(where, value).rstrip("/")
    if path.startswith("/") or path != posixpath.normpath(path) or path.split("/")[0] in ("..", "."):
        raise RecordError(f"{where}: expected a path below /etc/<name>, found {value!r}")
    return path


def _absolute(where: str, value: Any) -> str:
    path = _text(where, value)
    if not path.startswith("/") or path != posixpath.normpath(path) or path.count("/") < 2:
        raise RecordError(f"{where}: expected an absolute path at least two levels deep, found {value!r}")
    return path


def _mode(where: str, value: Any) -> str:
    if isinstance(value, str) and MODE.match(value):
        return value.zfill(4)
    raise RecordError(f'{where}: expected a quoted octal mode such as "0640", found {value!r}')


def narrow(mode: str) -> str:
    """The mode without what it gives to everybody."""
    return f"{int(mode, 8) & ~0o007:04o}"


def _directories(where: str, value: Any, user: str, *, absolute: bool) -> tuple[Directory, ...]:
    found: list[Directory] = []
    for i, raw in enumerate(_list(where, value)):
        place = f"{where}[{i}]"
        entry = _mapping(place, raw)
        _known(place, entry, DIRECTORY_KEYS)
        check = _absolute if absolute else _relative
        path = check(f"{place}.path", entry.get("path"))
        data = _flag(f"{place}.data", entry.get("data", absolute))
        unfit = places.unfit(path) if absolute else ""
        if unfit:
            raise RecordError(f"{place}.path: {path} {unfit}")
        if path in [other.path for other in found]:
            raise RecordError(f"{place}.path: {path} is declared twice")
        # A live directory is read by the server and written by others: root owns it unless the record says more.
        owner = user if absolute else "root"
        found.append(
            Directory(
                path=path,
                mode=_mode(f"{place}.mode", entry.get("mode", "0750" if absolute else "0755")),
                owner=_text(f"{place}.owner", entry.get("owner", owner)),
                group=_text(f"{place}.group", entry.get("group", entry.get("owner", owner))),
                data=data,
            )
        )
    return tuple(found)


def _files(value: Any) -> tuple[FileSpec, ...]:
    found: list[FileSpec] = []
    for i, raw in enumerate(_list("files", value)):
        place = f"files[{i}]"
        entry = _mapping(place, raw)
        _known(place, entry, FILE_KEYS)
        path = _relative(f"{place}.path", entry.get("path"))
        place = f"files[{i}] ({path})"
        origins = [key for key in ("content", "template", "source") if entry.get(key) is not None]
        if len(origins) != 1:
            raise RecordError(
                f"{place}: exactly one of content, template and source is needed, found {origins}"
            )
        secret = _flag(f"{place}.secret", entry.get("secret", False))
        content = entry.get("content")
        if isinstance(content, (bool, list, tuple)) and secret:
            # The value is not shown: it is a secret.
            raise RecordError(f"{place}.content: expected text, found {type(content).__name__}")
        mode = entry.get("mode")
        found.append(
            FileSpec(
                path=path,
                # A number that YAML read as one is text like any other.
                content=str(content)
                if isinstance(content, (int, float)) and not isinstance(content, bool)
                else content,
                template=_text(f"{place}.template", entry["template"]) if "template" in origins else "",
                source=_text(f"{place}.source", entry["source"]) if "source" in origins else "",
                on_change=_choice(f"{place}.on_change", entry.get("on_change", "restart"), ON_CHANGE),
                secret=secret,
                mode=_mode(f"{place}.mode", mode) if mode is not None else ("0640" if secret else "0644"),
                revision=_flag(f"{place}.revision", entry.get("revision", False)),
            )
        )
    return tuple(found)


def _environment(where: str, value: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, item in _mapping(where, value).items():
        if not VARIABLE.match(key):
            raise RecordError(f"{where}: {key!r} is no name of an environment variable")
        if isinstance(item, bool) or not isinstance(item, (str, int, float)) or "\0" in str(item):
            # The value is not shown: it may be a secret.
            raise RecordError(f"{where}.{key}: expected text, found {type(item).__name__}")
        found[key] = str(item)
    return found


def _memory(where: str, value: Any) -> int:
    if value is None or value in ("", "off"):
        return 0
    match = None if isinstance(value, bool) else MEMORY.match(str(value))
    if match is None:
        raise _wrong(where, "a whole number and B, KiB, MiB, GiB or TiB, such as 512MiB", value)
    return int(match.group(1)) * UNITS[match.group(2) or ""]


def _needs(value: Any) -> tuple[Json, ...]:
    found: list[Json] = []
    for i, raw in enumerate(_list("needs", value)):
        place = f"needs[{i}]"
        entry = _mapping(place, raw)
        _known(place, entry, NEED_KEYS)
        if ("url" in entry) == ("path" in entry):
            raise RecordError(f"{place}: exactly one of url and path is needed")
        need: Json = {"words": _text(f"{place}.words", entry.get("words"))}
        if "path" in entry:
            need["path"] = _absolute(f"{place}.path", entry["path"])
        else:
            need.update(url=_url(f"{place}.url", entry["url"]), **_client(place, entry))
        found.append(need)
    return tuple(found)


def _stored_data_keys(value: Any) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, raw in _mapping("stored_data_keys", value).items():
        place = f"stored_data_keys.{name}"
        entry = _mapping(place, raw)
        _known(place, entry, STORED_DATA_KEYS)
        found[name] = {
            "variable": _text(f"{place}.variable", entry.get("variable")),
            "data": _absolute(f"{place}.data", entry.get("data")),
        }
    return found


def _unit(value: Any, *, required: bool) -> UnitSpec | None:
    if value is None:
        if required:
            raise RecordError("unit: is missing; a component is a service and needs at least unit.exec_start")
        return None
    entry = _mapping("unit", value)
    _known("unit", entry, UNIT_KEYS)
    start = _list("unit.exec_start", entry.get("exec_start"))
    command = tuple(_argument(f"unit.exec_start[{i}]", word) for i, word in enumerate(start))
    if not command or not command[0].startswith("/"):
        raise _wrong("unit.exec_start", "a list that begins with an absolute path", entry.get("exec_start"))
    settings = _mapping("unit.settings", entry.get("settings"))
    for key, item in settings.items():
        items = item if isinstance(item, (list, tuple)) else [item]
        if not key.isalnum() or any(_unsettable(x) for x in items) or (None in items and item is not None):
            raise _wrong(f"unit.settings.{key}", "a value, a list of values or null", item)
    return UnitSpec(
        exec_start=command,
        description=_text("unit.description", entry["description"]) if entry.get("description") else "",
        settings=settings,
        writable=tuple(
            _absolute("unit.writable", path) for path in _texts("unit.writable", entry.get("writable"))
        ),
        readable=_texts("unit.readable", entry.get("readable")),
        hardening=_choice("unit.hardening", entry.get("hardening", "strict"), HARDENING),
        after=_texts("unit.after", entry.get("after")),
    )


def _unsettable(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or "\n" in str(value)


def _url(where: str, value: Any) -> str:
    url = _text(where, value)
    if not url.startswith(("http://", "https://")):
        raise RecordError(f"{where}: expected a URL that begins with http:// or https://, found {url!r}")
    return url


def _reload(value: Any) -> Json:
    entry = _mapping("reload", value)
    _known("reload", entry, RELOAD_KEYS)
    if not entry:
        return {}
    if ("signal" in entry) == ("url" in entry):
        raise RecordError("reload: exactly one of signal and url is needed")
    if "signal" in entry:
        signal = _text("reload.signal", entry["signal"])
        if not SIGNAL.match(signal):
            raise _wrong("reload.signal", "the name of a signal such as HUP", signal)
        return {"signal": signal}
    return {
        "url": _url("reload.url", entry["url"]),
        "method": _choice("reload.method", entry.get("method", "POST"), ("POST", "PUT", "GET")),
        "timeout": _number("reload.timeout", entry.get("timeout", 30)),
        **_client("reload", entry),
    }


def _client(where: str, entry: Json) -> Json:
    found: Json = {
        key: _text(f"{where}.{key}", entry[key])
        for key in sorted(CLIENT_KEYS - {"headers"})
        if entry.get(key)
    }
    headers = _mapping(f"{where}.headers", entry.get("headers"))
    if headers:
        found["headers"] = {key: _text(f"{where}.headers.{key}", item) for key, item in headers.items()}
    return found


def _ready(value: Any) -> Json:
    entry = _mapping("ready", value)
    _known("ready", entry, READY_KEYS)
    ready: Json = {"timeout": _number("ready.timeout", entry.get("timeout", 60))}
    if "settle" in entry:
        ready["settle"] = _number("ready.settle", entry["settle"])
    if "url" in entry:
        ready.update(
            url=_url("ready.url", entry["url"]),
            status=int(_number("ready.status", entry.get("status", 200))),
            **_client("ready", entry),
        )
    return ready


def _patience(place: str, entry: Json) -> Json:
    """How a proof is asked, and how long."""
    found: Json = {key: _text(f"{place}.{key}", entry[key]) for key in ("hint", "hopeless") if entry.get(key)}
    if "within" in entry:
        found["within"] = _number(f"{place}.within", entry["within"])
    if entry.get("sign"):
        sign = _mapping(f"{place}.sign", entry["sign"])
        _known(f"{place}.sign", sign, SIGN_KEYS)
        needed = {
            key: _text(f"{place}.sign.{key}", sign.get(key)) for key in ("file", "access_key", "secret_key")
        }
        found["sign"] = {**needed, "region": str(sign.get("region") or "us-east-1")}
    return found


def _proof(value: Any) -> tuple[Json, ...]:
    found: list[Json] = []
    for i, raw in enumerate(_list("proof", value)):
        place = f"proof[{i}]"
        entry = _mapping(place, raw)
        _known(place, entry, PROOF_KEYS)
        proof: Json = {
            "url": _url(f"{place}.url", entry.get("url")),
            "status": int(_number(f"{place}.status", entry.get("status", 200))),
            **_client(place, entry),
            **_patience(place, entry),
        }
        if "contains" in entry:
            if not isinstance(entry["contains"], str):
                raise _wrong(f"{place}.contains", "text", entry["contains"])
            proof["contains"] = str(entry["contains"])
        if "json" in entry:
            proof["json"] = entry["json"]
            proof["only"] = _flag(f"{place}.only", entry.get("only", False))
        elif "only" in entry:
            raise RecordError(f"{place}: only needs `json`")
        if "metric" in entry:
            proof.update(_measured(place, entry))
        elif {"value", "labels", "changes", "follows"} & set(entry):
            raise RecordError(f"{place}: value, labels, changes and follows need `metric`")
        found.append(proof)
    return tuple(found)


def _measured(place: str, entry: Json) -> Json:
    """The part of a proof that is about a metric."""
    metric = _text(f"{place}.metric", entry["metric"])
    if not METRIC.match(metric):
        raise _wrong(f"{place}.metric", "the name of a metric", metric)
    labels = _mapping(f"{place}.labels", entry.get("labels"))
    changes = entry.get("changes", False)
    if not isinstance(changes, str) or changes.lower() in ("true", "yes", "false", "no"):
        changes = _flag(f"{place}.changes", changes)
    found: Json = {
        "metric": metric,
        "labels": {key: str(item) for key, item in labels.items()},
        "changes": changes,
    }
    if "value" in entry:
        found["value"] = _number(f"{place}.value", entry["value"])
    elif not changes:
        raise RecordError(f"{place}: a metric needs `value` or `changes`")
    if "follows" in entry:
        found["follows"] = _relative(f"{place}.follows", entry["follows"])
        if not changes:
            raise RecordError(f"{place}: follows needs `changes`")
    return found


def _data(value: Any) -> Json:
    """What the component's data depends on. It is kept on the host, so nothing in it is a secret."""
    entry = _mapping("data", value)
    _known("data", entry, DATA_KEYS)
    found: Json = {}
    if "store" in entry:
        found["store"] = _choice("data.store", entry["store"], STORES)
        found["files"] = [_relative("data.files", path) for path in _texts("data.files", entry.get("files"))]
        if not found["files"]:
            raise RecordError("data.files: is missing; name the files that say how long the store keeps data")
    if "connection" in entry:
        found["connection"] = _text("data.connection", entry["connection"])
        if not VARIABLE.match(found["connection"]):
            raise _wrong("data.connection", "the name of a variable", entry["connection"])
    for key in ("report", "together"):
        if entry.get(key):
            found[key] = list(_texts(f"data.{key}", entry[key]))
    if value is not None:
        found["fixed"] = [
            _fixed(f"data.fixed[{i}]", raw) for i, raw in enumerate(_list("data.fixed", entry.get("fixed")))
        ]
    return found


def _fixed(where: str, value: Any) -> Json:
    entry = _mapping(where, value)
    _known(where, entry, FIXED_KEYS)
    if ("unit" in entry) == ("file" in entry) or ("key" in entry) != ("file" in entry):
        raise RecordError(f"{where}: either file and key or unit is needed")
    if "unit" in entry:
        try:
            re.compile(_text(f"{where}.unit", entry["unit"]))
        except re.error as error:
            raise RecordError(f"{where}.unit: {error}") from None
    if "variable" not in entry:
        raise RecordError(f"{where}.variable: is missing; name what people write")
    return {key: _text(f"{where}.{key}", item) for key, item in entry.items()}
