# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Everything the transaction does to a host: files, accounts, systemd. The only place that changes something."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import grp
import gzip
import json
import os
import pwd
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import state

Json = dict[str, Any]

AT_FDCWD = -100
RENAME_EXCHANGE = 2
DPKG_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


class HostError(Exception):
    """Something could not be done; the message is for the operator."""


class Host:
    """One component's place on this host. Paths are absolute; errors are OSError or HostError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.base = Path(state.ROOT) / name
        self.current = self.base / "current"
        self.releases = self.base / "releases"
        self.live = self.base / "live"
        self.journal_file = self.base / "journal.json"
        self.service = f"{name}.service"

    # Files

    def write(
        self, path: Path, content: bytes, mode: int = 0o600, group: str = "root", durable: bool = True
    ) -> None:
        """Whole or not at all, and when `durable` on disk when this returns; else sync_tree() must follow."""
        temporary = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchown(stream.fileno(), 0, self.gid(group))
                os.fchmod(stream.fileno(), mode)
                if durable:
                    os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        if durable:
            self.sync_folder(path.parent)

    def write_json(self, path: Path, value: Any, durable: bool = True) -> None:
        self.write(path, json.dumps(value, indent=1, sort_keys=True).encode(), durable=durable)

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_tree(self, folder: Path) -> None:
        """All files below, and the folders. After many writes this is one wait for the disk instead of one for each."""
        for place, _folders, files in os.walk(folder):
            for name in files:
                path = Path(place, name)
                if not path.is_symlink():
                    self.sync_folder(path)
            self.sync_folder(Path(place))

    def folder(self, path: Path, mode: int = 0o755) -> None:
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(mode)

    def remove(self, path: Path) -> None:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)

    def exchange(self, left: Path, right: Path) -> None:
        """Both directories change places in one step where the file system can, else in three renames."""
        libc = ctypes.CDLL(None, use_errno=True)
        call = getattr(libc, "renameat2", None)
        code = errno.ENOSYS
        if call is not None:
            if call(AT_FDCWD, os.fsencode(left), AT_FDCWD, os.fsencode(right), RENAME_EXCHANGE) == 0:
                self._sync_parents(left, right)
                return
            code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(left))
        # An old ZFS. The journal is written before: a kill in between is put right by the next run.
        aside = right.with_name(f".swap-{right.name}")
        left.rename(aside)
        right.rename(left)
        aside.rename(right)
        self._sync_parents(left, right)

    def _sync_parents(self, *paths: Path) -> None:
        for folder in {path.parent for path in paths}:
            self.sync_folder(folder)

    def link(self, link: Path, target: str) -> None:
        """A link that is ours. What stands in its place is kept beside it."""
        if link.is_symlink():
            if state.link_target(str(link)) == target:
                return
        elif link.exists():
            kept = link.with_name(link.name + ".before-luxima")
            if kept.exists():
                raise HostError(f"{link} is not ours and {kept} exists already: move one of them away")
            link.rename(kept)
        self.folder(link.parent)
        temporary = link.with_name(f".{link.name}.new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(target)
        temporary.replace(link)

    def unpack(self, source: Path, target: Path, spec: Json) -> None:
        """A transferred, compressed artifact into a file, its digest checked on the way."""
        import hashlib

        sha = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(source.open("rb"))
            stream: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if source.suffix == ".gz" else raw
            out = stack.enter_context(target.open("wb"))
            for block in iter(lambda: stream.read(1 << 20), b""):
                sha.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if sha.hexdigest() != spec["sha256"]:
            raise HostError(
                f"{target.name}: transferred content has digest {sha.hexdigest()}, expected {spec['sha256']}"
            )

    def extract(self, archive: Path, target: Path) -> None:
        """A tar below target; refuses members that would leave it."""
        self.folder(target)
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(target, filter="data")
                return
            for member in tar.getmembers():
                if member.name.startswith("/") or ".." in member.name.split("/") or member.isdev():
                    raise HostError(f"{archive.name}: refuses member {member.name}")
            for member in tar.getmembers():
                tar.extract(member, target)

    def same_tree(self, source: Path, target: Path) -> None:
        """A second name for every file of a tree: costs no space."""
        shutil.copytree(source, target, symlinks=True, copy_function=self._same_file)

    def _same_file(self, source: str, target: str) -> None:
        if Path(source).is_symlink():
            Path(target).symlink_to(Path(source).readlink())
            return
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    def reserve(self, size: int) -> None:
        """Keeps `size` bytes of the disk for this component; 0 gives them back. Raises OSError when they are not there."""
        place = self.base / ".reserve.new"
        if not size:
            place.unlink(missing_ok=True)
            return
        with place.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)

    # Lock and journal

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one run works on a component of a host. The kernel gives the lock back when the process dies."""
        self.folder(self.base)
        self.base.chmod(0o755)
        with (self.base / "lock").open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                stream.seek(0)
                holder = stream.read().strip() or "somebody"
                raise HostError(
                    f"another run is changing {self.name} on this host ({holder}); run again when it is done"
                ) from None
            stream.seek(0)
            stream.truncate()
            stream.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            stream.flush()
            yield

    def journal(self, entry: Json | None) -> None:
        if entry is None:
            with contextlib.suppress(FileNotFoundError):
                self.journal_file.unlink()
                self.sync_folder(self.base)
        else:
            self.write_json(self.journal_file, entry)

    # Accounts

    def gid(self, group: str) -> int:
        if group == "root":
            return 0
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            raise HostError(f"group {group} does not exist on this host") from None

    def uid(self, user: str) -> int:
        try:
            return pwd.getpwnam(user).pw_uid
        except KeyError:
            raise HostError(f"user {user} does not exist on this host") from None

    def make_user(self, user: str) -> bool:
        """Whether the user had to be made."""
        try:
            pwd.getpwnam(user)
            return False
        except KeyError:
            pass
        home = f"/var/lib/{self.name}"
        group = ["--user-group"]
        with contextlib.suppress(KeyError):
            grp.getgrnam(user)
            group = ["--gid", user]
        self.run(
            [
                "useradd",
                "--system",
                *group,
                "--no-create-home",
                "--home-dir",
                home,
                "--shell",
                "/usr/sbin/nologin",
                user,
            ]
        )
        return True

    def join(self, user: str, groups: list[str]) -> None:
        self.run(["usermod", "--append", "--groups", ",".join(groups), user])

    def leave(self, user: str, group: str) -> None:
        self.run(["gpasswd", "--delete", user, group])

    def directory(self, path: Path, spec: Json) -> None:
        self.folder(path)
        os.chown(path, self.uid(spec["owner"]), self.gid(spec["group"]))
        path.chmod(int(spec["mode"], 8))

    def mark(self, path: Path) -> None:
        """Says in a directory that it is the one with this component's data; its service user may write there, so no link is followed."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            name = Path(state.mark(str(path), self.name)).name
            with contextlib.suppress(FileExistsError):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=folder))
                os.fsync(folder)
        finally:
            os.close(folder)

    # Programs

    def run(self, command: list[str], timeout: float = 120, **options: Any) -> str:
        """Standard output; raises HostError with the program's own words."""
        code, words = self.attempt(command, timeout, **options)
        if code:
            raise HostError(f"`{' '.join(command)}` ended with {code}: {words}")
        return words

    def attempt(
        self,
        command: list[str],
        timeout: float = 120,
        cwd: Path | None = None,
        variables: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """Exit code and both outputs together."""
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        }
        environment.update(variables or {})
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return (
                124,
                f"no end after {timeout:g} s: {(error.output or b'').decode('utf-8', 'replace')[-2000:]}",
            )
        except OSError as error:
            return 127, str(error)
        return done.returncode, done.stdout.decode("utf-8", "replace").strip()

    def systemctl(self, *words: str) -> None:
        self.run(["systemctl", *words])

    def shown(self) -> Json:
        return state.show_units([self.name]).get(self.name, {})

    def journal_end(self) -> str:
        """Where the host's journal ends now, for `last_lines`. Not a time: a clock may jump."""
        _code, words = self.attempt(["journalctl", "--lines=0", "--show-cursor", "--no-pager"], 20)
        return words.partition("-- cursor: ")[2].strip()

    def last_lines(self, after: str, count: int = 20) -> list[str]:
        """The newest lines of the service's journal after `after`, which `journal_end` gave; all of them count when it gave none."""
        # Not --lines: with a starting point it means the first ones (systemd 252).
        command = ["journalctl", "--unit", self.service, "--no-pager", "--output", "cat", "--quiet"]
        command += [f"--after-cursor={after}"] if after else ["--boot"]
        ended = self.shown().get("SubState") != "running"
        self.attempt(["journalctl", "--sync"], 10)
        end = time.monotonic() + 0.5
        while True:
            code, words = self.attempt(command, 20)
            # What a process said last may arrive after it has ended; systemd's word about its end comes after it.
            if code or not ended or "Main process exited" in words or time.monotonic() > end:
                return words.splitlines()[-count:] if code == 0 else []
            time.sleep(0.05)

    def install_debs(self, folder: Path) -> list[str]:
        """Installs those packages that are not there in that version; returns their names."""
        due, names = [], []
        for package in sorted(folder.rglob("*.deb")):
            name, version = self.run(
                ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(package)]
            ).split()
            code, have = self.attempt(
                ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", name]
            )
            if code or have.split() != ["ii", version]:
                due.append(str(package))
                names.append(name)
        if due:
            self.run(["dpkg", "--install", *due], timeout=600, variables=DPKG_ENVIRONMENT)
        return names

    def install_wheels(self, folder: Path, artifact: str, release: Path) -> None:
        """A virtual environment in the release, from locked wheels, whose scripts name its final place.

        A wheelhouse that holds pip needs nothing of the host but Python; else the host's python3-venv is needed.
        """
        venv = release / "share" / artifact / "venv"
        requirements = next(iter(sorted(folder.rglob("requirements.txt"))), None)
        if requirements is None:
            raise HostError(f"{artifact}: the wheelhouse has no requirements.txt")
        pip = next(iter(sorted(requirements.parent.glob("pip-*.whl"))), None)
        code, words = self.attempt(
            ["python3", "-m", "venv", *(["--without-pip"] if pip else []), str(venv)], timeout=300
        )
        if code:
            raise HostError(
                f"{artifact}: no virtual environment ({words.splitlines()[0] if words else code}); "
                "lock pip itself in the requirements, or install python3-venv on the host"
            )
        command = [
            str(venv / "bin/python"),
            *([f"{pip}/pip"] if pip else ["-m", "pip"]),
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--no-index",
            "--find-links",
            str(requirements.parent),
        ]
        if "--hash=" in requirements.read_text(encoding="utf-8"):
            command.append("--require-hashes")
        self.run([*command, "--requirement", str(requirements)], timeout=600)
        final = str(self.current / "share" / artifact / "venv")
        for script in (venv / "bin").iterdir():
            if script.is_symlink() or not script.is_file():
                continue
            content = script.read_bytes()
            if content[:2] == b"#!" or script.name.startswith("activate"):
                script.write_bytes(content.replace(str(venv).encode(), final.encode()))
