# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a host has of all components. Reads only.

This file is also sent as it is to a host and run there from standard input, so it imports nothing of ours and
nothing that is slow to import.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = "/opt/luxima"
UNITS = "/etc/systemd/system"
SALT = ROOT + "/.salt"
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
PROPERTIES = [
    "Id",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "MainPID",
    "NRestarts",
    "NeedDaemonReload",
    "Result",
    "ExecMainStatus",
]


def digest(content: bytes, secret: bool = False, salt: str = "") -> str:
    """SHA-256; of a secret, keyed with the host's salt, so that a short secret cannot be guessed from it."""
    if secret:
        return hmac.new(salt.encode(), content, "sha256").hexdigest()
    return hashlib.sha256(content).hexdigest()


def file_digest(path: str) -> str:
    sha = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


def read_bytes(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def read_json(path: str) -> Any:
    text = read_bytes(path)
    try:
        return json.loads(text) if text is not None else None
    except ValueError:
        return None


def entries(folder: str) -> list[str]:
    """Names in a folder but hidden ones; none when there is no folder."""
    try:
        return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def link_target(path: str) -> str:
    """Where a link points to; empty when there is no link."""
    try:
        return os.fspath(Path(path).readlink())
    except OSError:
        return ""


def installed_path(name: str, path: str) -> str:
    """Where a file of a manifest is while its release is the current one."""
    kind, _, rest = path.partition("/")
    if kind == "unit":
        return f"{UNITS}/{rest}"
    if kind == "live":
        return f"{ROOT}/{name}/live/{rest}"
    return f"{ROOT}/{name}/current/{path}"


def mark(path: str, name: str) -> str:
    """The file that says that a directory is the one with the data of a component."""
    return f"{path}/.luxima-{name}"


def lost(name: str, manifest: Json) -> list[str]:
    """Directories in which this component had data and has it no more: a disk is not mounted, or somebody removed it."""
    made = read_json(f"{ROOT}/{name}/made.json") or {}
    marked = made.get("marked", [])
    found = [path for path in marked if not os.path.lexists(mark(path, name))]
    for item in manifest["directories"]:
        # Of a release without marks: what is as empty as a mount point, and not as it was left.
        if item["path"] not in marked and not os.path.lexists(mark(item["path"], name)) and _bare(item):
            found.append(item["path"])
    return sorted(found)


def _bare(item: Json) -> bool:
    try:
        names, info = list(Path(item["path"]).iterdir()), Path(item["path"]).stat()
    except OSError:
        return True
    return not names and not _user_is(info.st_uid, item["owner"])


def unmet(manifest: Json) -> list[str]:
    """Paths that the component needs of its host and that are not there."""
    needs = manifest["service"].get("needs", [])
    return [need["path"] for need in needs if "path" in need and not os.path.lexists(need["path"])]


def stamp(path: str) -> list[int] | None:
    """What changes when a file's content changes; of a directory, one number over everything below it."""
    try:
        info = Path(path).stat()
    except OSError:
        return None
    if not stat.S_ISDIR(info.st_mode):
        return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]
    sha = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for entry in sorted(files):
            item = os.lstat(f"{folder}/{entry}")
            sha.update(
                f"{folder[len(path) :]}/{entry} {item.st_size} {item.st_mtime_ns} {item.st_mode}\n".encode()
            )
    return [int(sha.hexdigest()[:15], 16)]


def artifact_path(release: str, name: str, kind: str) -> str:
    return f"{release}/bin/{name}" if kind == "file" else f"{release}/share/{name}"


def links(name: str, manifest: Json) -> dict[str, str]:
    """Link -> target of a component whose current release is in place."""
    current = f"{ROOT}/{name}/current"
    found = {f"/etc/{name}": f"{current}/etc"}
    for artifact in manifest["artifacts"]:
        if os.path.lexists(f"{current}/bin/{artifact}"):
            found[f"/usr/local/bin/{artifact}"] = f"{current}/bin/{artifact}"
    return found


def runs_current(pid: int, name: str, program: str) -> bool:
    """Whether the process runs the program of the current release; by inode, for releases share unchanged binaries."""
    path = os.fspath(Path(program).resolve())
    if not path.startswith(f"{ROOT}/{name}/current/"):
        return True
    try:
        with Path(path).open("rb") as stream:
            if stream.read(2) == b"#!":
                return True
        running, wanted = Path(f"/proc/{pid}/exe").stat(), Path(path).stat()
    except OSError:
        return False
    return (running.st_dev, running.st_ino) == (wanted.st_dev, wanted.st_ino)


def show_units(names: list[str]) -> dict[str, Json]:
    """Service name (without suffix) -> properties as systemd shows them."""
    if not names:
        return {}
    command = [
        "systemctl",
        "show",
        "--property=" + ",".join(PROPERTIES),
        *[f"{name}.service" for name in names],
    ]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    found: dict[str, Json] = {}
    for block in answer.stdout.decode("utf-8", "replace").split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if "Id" in values:
            found[values["Id"][: -len(".service")]] = values
    return found


def service_state(name: str, program: str, shown: Json) -> Json:
    pid = int(shown.get("MainPID", "0") or 0)
    return {
        "active": shown.get("ActiveState", "inactive"),
        "enabled": shown.get("UnitFileState", ""),
        "pid": pid,
        # Without a process: a unit that did its work at its start and stays active.
        "exe_ok": runs_current(pid, name, program) if pid else shown.get("SubState") == "exited",
        "need_daemon_reload": shown.get("NeedDaemonReload") == "yes",
    }


def drift(name: str, manifest: Json, salt: str) -> list[Json]:
    """Where the host differs from what the last run left there."""
    base = f"{ROOT}/{name}"
    directories = [(item["path"], item) for item in manifest["directories"]]
    directories += [(f"{base}/live/{item['path']}", item) for item in manifest["live"]]
    differing = {
        "file": [
            *(path for path, spec in manifest["files"].items() if not _file_is(name, path, spec, salt)),
            *_foreign(base, manifest),
        ],
        "artifact": _other_artifacts(base, manifest),
        "link": [link for link, target in links(name, manifest).items() if link_target(link) != target],
        "directory": [place for place, item in directories if not _directory_is(place, item)],
    }
    return [{"kind": kind, "path": path} for kind, paths in differing.items() for path in paths]


def _file_is(name: str, path: str, spec: Json, salt: str) -> bool:
    place = installed_path(name, path)
    content = read_bytes(place)
    if content is None or Path(place).is_symlink() or digest(content, spec["secret"], salt) != spec["sha256"]:
        return False
    info = os.lstat(place)
    return (
        stat.S_IMODE(info.st_mode) == int(spec["mode"], 8)
        and info.st_uid == 0
        and _group_is(info.st_gid, spec["group"])
    )


def _foreign(base: str, manifest: Json) -> list[str]:
    """Files of the release's configuration that nobody of us put there."""
    live = {item["path"] for item in manifest["live"]}
    found: list[str] = []
    for folder, folders, files in os.walk(f"{base}/current/etc"):
        for entry in files + [item for item in folders if Path(folder, item).is_symlink()]:
            path = f"{folder}/{entry}"[len(f"{base}/current/") :]
            if path not in manifest["files"] and path[len("etc/") :] not in live:
                found.append(path)
    return found


def _other_artifacts(base: str, manifest: Json) -> list[str]:
    """Artifacts with another content. One whose size and times are as they were left is not read again."""
    known = read_json(f"{base}/stat.json") or {}
    found: list[str] = []
    for artifact, spec in manifest["artifacts"].items():
        place = artifact_path(f"{base}/current", artifact, spec["format"])
        now = stamp(place)
        if now is not None and known.get(artifact) == now:
            continue
        if now is None or spec["format"] != "file" or file_digest(place) != spec["sha256"]:
            found.append(artifact)
    return found


def _directory_is(place: str, item: Json) -> bool:
    try:
        info = Path(place).stat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(info.st_mode)
        and stat.S_IMODE(info.st_mode) == int(item["mode"], 8)
        and _user_is(info.st_uid, item["owner"])
        and _group_is(info.st_gid, item["group"])
    )


def _user_is(uid: int, name: str) -> bool:
    try:
        return pwd.getpwnam(name).pw_uid == uid
    except KeyError:
        return False


def _group_is(gid: int, name: str) -> bool:
    try:
        return grp.getgrnam(name).gr_gid == gid
    except KeyError:
        return False


def accounts() -> Json:
    """Users with their groups (the primary one too), and all groups."""
    groups = grp.getgrall()
    names = {group.gr_gid: group.gr_name for group in groups}
    users = {user.pw_name: [names.get(user.pw_gid, "")] for user in pwd.getpwall()}
    for group in groups:
        for member in group.gr_mem:
            users.setdefault(member, []).append(group.gr_name)
    return {"users": users, "groups": [group.gr_name for group in groups]}


def blobs(name: str) -> list[str]:
    """Digests of the artifacts that lie in any release of a component."""
    base = f"{ROOT}/{name}"
    found = set()
    for release in [f"{base}/current", *_releases(base)]:
        manifest = read_json(f"{release}/manifest.json") or {}
        for artifact, spec in manifest.get("artifacts", {}).items():
            if Path(artifact_path(release, artifact, spec["format"])).exists():
                found.add(spec["sha256"])
    return sorted(found)


def _releases(base: str) -> list[str]:
    return [f"{base}/releases/{entry}" for entry in entries(f"{base}/releases")]


def previous_release(base: str, serving: str) -> str:
    """The release that served before the present one and is still there."""
    for name in reversed(read_json(f"{base}/history.json") or []):
        place = f"{base}/releases/{name}"
        if name != serving and Path(place).is_dir() and not Path(place, "failed").exists():
            return str(name)
    return ""


def component_state(name: str, salt: str, shown: Json) -> Json:
    base = f"{ROOT}/{name}"
    manifest = read_json(f"{base}/current/manifest.json")
    state: Json = {
        "manifest": manifest,
        "release": manifest["release"] if manifest else "",
        "previous": previous_release(base, manifest["release"] if manifest else ""),
        "unfinished": Path(base, "journal.json").exists(),
        "drift": drift(name, manifest, salt) if manifest else [],
        "lost": lost(name, manifest) if manifest else [],
        "unmet": unmet(manifest) if manifest else [],
        "blobs": blobs(name),
        "service": service_state(name, manifest["exec"] if manifest else "", shown),
    }
    return state


def read_salt() -> str:
    return (read_bytes(SALT) or b"").decode()


def read_state(only: str = "") -> Json:
    """The state of all components, or of one."""
    names = [name for name in entries(ROOT) if not only or name == only]
    salt = read_salt() if os.geteuid() == 0 else ""
    shown = show_units(names)
    machine = os.uname().machine
    answer: Json = {
        "exists": True,
        "root": os.geteuid() == 0,
        "architecture": ARCHITECTURES.get(machine, machine),
        "python": sys.executable,
        "systemd": Path("/run/systemd/system").is_dir(),
        "salt": salt,
        "components": {},
    }
    if answer["root"]:
        answer.update(accounts())
        answer["components"] = {name: component_state(name, salt, shown.get(name, {})) for name in names}
    return answer


def read_texts(name: str, paths: list[str], release: str = "") -> dict[str, str | None]:
    """Contents of installed files, for a diff; of a release that is not the current one, as it keeps them."""
    found: dict[str, str | None] = {}
    for path in paths:
        place = f"{ROOT}/{name}/releases/{release}/{path}" if release else installed_path(name, path)
        content = read_bytes(place)
        found[path] = None if content is None else content.decode("utf-8", "replace")
    return found
