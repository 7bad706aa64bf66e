# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Gets artifacts into the store: cache, directory, mirror, release, build, in the order asked for.

Each source is asked for all that is still missing before the next one. What several artifacts share, an archive
or a module, is fetched or built once. A wrong digest stops; anything else is kept as the reason why that source
did not serve, and told when no source did.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._artifacts import build as gobuild
from ansible_collections.luxima.observability.plugins.module_utils._artifacts import (
    fetch,
    lock,
    packages,
    unpack,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.fetch import (
    Unavailable,
    WrongDigest,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.lock import (
    Build,
    Entry,
    Release,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.progress import (
    Progress,
    megabytes,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import (
    Artifact,
    Store,
    digest,
)

SOURCES = ("cache", "directory", "mirror", "release", "build")
_MACHINES = {b"\x3e\x00": "amd64", b"\xb7\x00": "arm64"}
_DOWNLOADS = 4
_WEEK = 7 * 24 * 3600

Want = tuple[str, str]


class ArtifactsError(Exception):
    """What cannot be had, and why each source did not serve; or bad arguments."""


@dataclass(frozen=True)
class Options:
    """Arguments of the module; `timeout` in seconds, see fetch.Client."""

    names: Sequence[str] | None = None
    architectures: Sequence[str] = ("amd64",)
    sources: Sequence[str] = SOURCES
    cache_dir: str = ""
    lock_file: str = ""
    directory: str = ""
    mirror_url: str = ""
    timeout: float = 20.0
    check: bool = False


@dataclass
class _State:
    """What one run knows."""

    have: dict[Want, Artifact] = field(default_factory=dict)
    missing: list[Want] = field(default_factory=list)
    reasons: dict[Want, dict[str, str]] = field(default_factory=dict)
    wrong: list[WrongDigest] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    record: dict[tuple[str, ...], Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Engine:
    """One run. `say` gets the lines for the operator."""

    def __init__(self, options: Options, say: Callable[[str], None] = lambda line: None) -> None:
        self.options = options
        _check(options)
        self.store = Store(options.cache_dir, options.lock_file)
        self.progress = Progress(say)
        self.client = fetch.Client(options.timeout)
        self.state = _State()
        self._builds: list[gobuild.GoBuild] = []
        # Two compilations overlap one's linking, which uses one core, with the other's compiling.
        self._build_slots = max(1, min(2, os.cpu_count() or 1))

    def run(self) -> dict[str, Any]:
        """Returns `changed`, `artifacts`, `msg` and `notes`. Raises ArtifactsError."""
        started = time.monotonic()
        state = self.state
        try:
            given = self.options.names
            names = self.store.lock.names if given is None else list(dict.fromkeys(given))
            wants = [(name, arch) for arch in dict.fromkeys(self.options.architectures) for name in names]
            for want in wants:
                found = self.store.lookup(*want) if "cache" in self.options.sources else None
                if found:
                    self._have(want, found, "cache")
                else:
                    self._entry(want)
                    state.missing.append(want)
                    if "cache" in self.options.sources:
                        state.reasons[want] = {"cache": "not there"}
            if not state.missing:
                return self._result(wants, changed=False, msg=f"{len(wants)} ready, all from the cache")
            if self.options.check:
                return self._predict(wants)
            self._get()
        except lock.LockError as error:
            raise ArtifactsError(str(error)) from None
        except OSError as error:
            raise ArtifactsError(
                f"{error.filename or self.store.root}: {error.strerror}; platform_cache_dir names the folder of the store"
            ) from None
        if state.missing:
            raise ArtifactsError(self._why())
        seconds = time.monotonic() - started
        counts = ", ".join(f"{count} {_VERBS[source]}" for source, count in state.counts.items())
        msg = f"{len(wants)} ready: {counts}; {seconds:.0f} s"
        self.progress.say(msg)
        return self._result(wants, changed=True, msg=msg)

    def _get(self) -> None:
        state = self.state
        later = [source for source in self.options.sources if source != "cache"]
        total = len(state.missing)
        self.progress.say(f"{total} to get ({', '.join(later)}), {len(state.have)} in the cache")
        self._sweep()
        try:
            with self.progress.ticking():
                for position, source in enumerate(later):
                    if not state.missing:
                        break
                    getattr(self, f"_from_{source}")(later[position + 1 :])
                    if state.wrong:
                        raise ArtifactsError("\n".join(str(error) for error in state.wrong))
        finally:
            for running in self._builds:
                running.stop()
            self._record()

    # --- the sources -----------------------------------------------------------------------------------------

    def _from_directory(self, _later: Sequence[str]) -> None:
        if not self.options.directory:
            return self._all_refused("directory", "platform_artifact_directory is not set")
        folder = Path(self.options.directory).expanduser()
        if not folder.is_dir():
            return self._all_refused("directory", f"{folder} is not a directory")
        for want in list(self.state.missing):
            with self._reason(want, "directory"), self._scratch() as scratch:
                self._take(want, folder, scratch)
        return None

    def _take(self, want: Want, folder: Path, scratch: Path) -> None:
        name, arch = want
        entry = self._entry(want)
        first = next(iter(_versions(entry)))
        files = [
            (f"{name}-{version}-{arch}", version, tested) for version, tested in _versions(entry).items()
        ]
        # A bare name says nothing about its version.
        for file, version, tested in [
            *((folder / file, v, t) for file, v, t in files),
            (folder / name, first, False),
        ]:
            if file.is_file():
                found = digest(file)
                pinned = entry.sha256.get(arch)
                if pinned and found != pinned:
                    raise Unavailable(f"{file} has sha256 {found}, the lock wants {pinned}")
                machine = _machine(file)
                if machine not in ("", arch):
                    raise Unavailable(f"{file} is built for {machine}, not for {arch}")
                shutil.copyfile(file, scratch / "content")
                self._put(want, scratch / "content", version, tested, "directory")
                return
        release = entry.release
        if release is not None:
            file = folder / _file(release.address(arch))
            if file.is_file():
                pinned = release.sha256.get(arch)
                if pinned and digest(file) != pinned:
                    raise Unavailable(f"{file} has sha256 {digest(file)}, the lock wants {pinned}")
                self._unpack([want], release, file, scratch, "directory")
                return
        raise Unavailable(f"{folder} holds no file for it (name-version-arch, name, or upstream's archive)")

    def _from_mirror(self, _later: Sequence[str]) -> None:
        base = self.options.mirror_url.rstrip("/")
        if not base:
            return self._all_refused("mirror", "platform_artifact_mirror_url is not set")
        silent = self.client.reachable([base])
        if silent:
            return self._all_refused("mirror", "; ".join(f"{host}: {why}" for host, why in silent.items()))
        units = [(release, arch, wants) for release, arch, wants in self._archives() if release]
        self._parallel(units, lambda unit: self._mirrored(base, *unit))
        rest = [want for want in self.state.missing if self._entry(want).release is None]
        self._parallel(rest, lambda want: self._mirrored_file(base, want))
        return None

    def _mirrored(self, base: str, release: Release, arch: str, wants: list[Want]) -> None:
        upstream = urllib.parse.urlsplit(release.address(arch)).path.lstrip("/")
        sums = release.checksums_address(arch)
        listed = [f"{base}/{urllib.parse.urlsplit(sums).path.lstrip('/')}"] if sums else []
        file = _file(upstream)
        refusals = []
        with self._reason(wants, "mirror"):
            for url in (f"{base}/{upstream}", f"{base}/{file}"):
                lists = [*listed, f"{url}.sha256"] if url.endswith(upstream) else [f"{url}.sha256"]
                try:
                    self._archive("mirror", url, lists, release, arch, wants)
                    return
                except Unavailable as error:
                    refusals.append(str(error))
            raise Unavailable("; ".join(refusals))

    def _mirrored_file(self, base: str, want: Want) -> None:
        name, arch = want
        entry = self._entry(want)
        version, tested = next(iter(_versions(entry).items()))
        url = f"{base}/{name}-{version}-{arch}"
        with (
            self._reason(want, "mirror"),
            self._unit(f"fetching {name} from the mirror", f"mirror-{name}-{arch}", [want]) as at,
        ):
            if at is None:
                return
            expected, origin = entry.sha256.get(arch) or "", "lock file"
            if not expected:
                expected, origin = self._published([f"{url}.sha256"], _file(url))
            part = fetch.part_of(self.store.root / "tmp", url)
            self.client.fetch(name, url, part, expected, origin, _moved(at))
            if not expected:
                self._note(f"{url}: no checksum published beside it, accepted as it is")
            self._put(want, part, version, tested, "mirror")

    def _from_release(self, later: Sequence[str]) -> None:
        units = list(self._archives())
        urls = [release.address(arch) for release, arch, _ in units if release]
        silent = self.client.reachable(urls) if urls else {}
        if silent:
            refused = [
                w for r, a, wants in units if r and fetch.origin(r.address(a)) in silent for w in wants
            ]
            hosts = "; ".join(
                f"{urllib.parse.urlsplit(host).netloc}: {why}" for host, why in sorted(silent.items())
            )
            then = f"building {len(refused)} instead" if "build" in later else "no source is left for them"
            self.progress.say(f"upstream's releases cannot be reached ({hosts}); {then}")
            for release, arch, wants in units:
                if release and fetch.origin(release.address(arch)) in silent:
                    host = fetch.origin(release.address(arch))
                    for want in wants:
                        self._refused(want, "release", f"{host}: {silent[host]}")
        for want in self.state.missing:
            entry = self._entry(want)
            if entry.release is None and entry.kind in ("binary", "tree"):
                self._refused(want, "release", "upstream publishes none")
        open_ = [u for u in units if u[0] and fetch.origin(u[0].address(u[1])) not in silent]
        self._parallel(open_, lambda unit: self._released(*unit))
        registry = [w for w in self.state.missing if self._entry(w).kind in ("deb", "wheelhouse")]
        self._parallel(registry, self._registry)

    def _released(self, release: Release, arch: str, wants: list[Want]) -> None:
        with self._reason(wants, "release"):
            sums = release.checksums_address(arch)
            self._archive("release", release.address(arch), [sums] if sums else [], release, arch, wants)

    def _registry(self, want: Want) -> None:
        name, arch = want
        entry = self._entry(want)
        with (
            self._reason(want, "release"),
            self._unit(f"fetching {name}", f"registry-{name}-{arch}", [want]) as at,
            self._scratch() as scratch,
        ):
            if at is None:
                return
            target = scratch / "content"
            work = scratch / "work"
            work.mkdir()
            raw = entry.raw[entry.kind]
            if entry.kind == "deb":
                files = (raw.get("files") or {}).get(arch)
                if not files:
                    files = packages.closure(raw["packages"], arch, scratch)
                    self.state.record["artifacts", name, "deb", "files", arch] = files
                unpack.pack(packages.debs(files, arch, work), target)
                version = next(
                    (f["version"] for f in files if f["name"] == raw["packages"][0]), files[0]["version"]
                )
            else:
                requirements = self.store.lock.path.parent / raw["requirements"]
                unpack.pack(packages.wheelhouse(raw, requirements, arch, work), target)
                version = str(raw.get("version", ""))
            self._put(want, target, version, True, "release")

    def _from_build(self, later: Sequence[str]) -> None:
        groups: dict[tuple[str, str], list[Want]] = {}
        for want in self.state.missing:
            entry = self._entry(want)
            if entry.build is None:
                self._refused(want, "build", "the lock names no build")
            else:
                groups.setdefault((entry.build.name, want[1]), []).append(want)
        units = [(self.store.lock.build(name), arch, wants) for (name, arch), wants in groups.items()]
        # What is missing to build at all is told before anything is built for half an hour.
        ready = []
        for build, arch, wants in units:
            with self._reason(wants, "build"):
                gobuild.toolchain(build)
                gobuild.c_compiler(build, arch)
                ready.append((build, arch, wants))
        if len(ready) < len(units) and not later:
            raise ArtifactsError(self._why({want for unit in units if unit not in ready for want in unit[2]}))
        units = ready
        # The long ones first, so that none of them is alone at the end.
        units.sort(key=lambda unit: (not unit[0].copy, -(unit[0].directory / "go.sum").stat().st_size))
        numbered = [(position, len(units), *unit) for position, unit in enumerate(units, 1)]
        self._parallel(numbered, lambda unit: self._built(*unit), self._build_slots)

    def _built(self, position: int, total: int, build: Build, arch: str, wants: list[Want]) -> None:
        what = f"building {build.name} {build.version} for {arch} ({position}/{total})"
        started = time.monotonic()
        with (
            self._reason(wants, "build"),
            self._unit(what, f"build-{build.name}-{arch}", wants) as at,
            self._scratch() as scratch,
        ):
            if at is None:
                return
            running = gobuild.GoBuild(build, arch, scratch, self.store.root / "go", _compiled(at))
            self._builds.append(running)
            try:
                made = running.run({want[0]: self._entry(want).main for want in wants})
            finally:
                self._builds.remove(running)
            sizes = []
            for want in wants:
                content = made[want[0]]
                if self._entry(want).kind == "tree":
                    content = scratch / f"{want[0]}.tar"
                    unpack.pack(running.tree(want[0], made[want[0]]), content)
                artifact = self._put(want, content, build.version, build.tested, "build", go=running.version)
                sizes.append(f"{want[0]} {megabytes(artifact.size)}")
            self.progress.say(f"built {', '.join(sizes)} in {time.monotonic() - started:.0f} s")

    # --- what the sources share ------------------------------------------------------------------------------

    def _archives(self) -> Iterator[tuple[Release | None, str, list[Want]]]:
        groups: dict[tuple[str, str], list[Want]] = {}
        for want in self.state.missing:
            release = self._entry(want).release
            if release:
                groups.setdefault((release.name, want[1]), []).append(want)
        for (name, arch), wants in groups.items():
            yield self.store.lock.release(name), arch, wants

    def _archive(
        self, source: str, url: str, lists: Sequence[str], release: Release, arch: str, wants: list[Want]
    ) -> None:
        """Fetch one archive, check it and store what is wanted of it. Raises Unavailable or WrongDigest."""
        what = f"fetching {release.name} {release.version} for {arch}"
        with self._unit(what, f"release-{release.name}-{arch}", wants) as at, self._scratch() as scratch:
            if at is None:
                return
            expected, origin = (
                release.sha256.get(arch) or "",
                f"lock file, releases.{release.name}.sha256.{arch}",
            )
            if not expected:
                expected, origin = self._published(lists, _file(url))
            if not expected and source == "release" and lists:
                raise Unavailable(origin)
            part = fetch.part_of(self.store.root / "tmp", url)
            found = self.client.fetch(release.name, url, part, expected, origin, _moved(at))
            if not expected:
                self._note(f"{url}: no checksum is published for it, accepted as it is with sha256 {found}")
            try:
                self._unpack(wants, release, part, scratch, source, archive=found)
            finally:
                part.unlink(missing_ok=True)
            if source == "release" and not release.sha256.get(arch):
                self.state.record["releases", release.name, "sha256", arch] = found

    def _published(self, lists: Sequence[str], file: str) -> tuple[str, str]:
        """(digest, where it was published), or ('', why there is none)."""
        why = []
        for url in lists:
            try:
                found = fetch.published(self.client.text(url), file)
            except Unavailable as error:
                why.append(str(error))
                continue
            if found:
                return found, url
            why.append(f"{url} does not list {file}")
        return "", "; ".join(why)

    def _unpack(
        self, wants: list[Want], release: Release, file: Path, scratch: Path, source: str, archive: str = ""
    ) -> None:
        about = {"archive": archive} if archive else {}
        name_of_file = _file(release.address(wants[0][1]))
        for name, arch in wants:
            entry = self._entry((name, arch))
            target = scratch / name
            if entry.kind == "tree":
                folder = scratch / f"{name}.files"
                unpack.pack(unpack.subtree(file, name_of_file, entry.keep, entry.drop, folder), target)
            else:
                unpack.member(
                    file, name_of_file, entry.member.format(version=release.version, arch=arch), target
                )
            self._put((name, arch), target, release.version, release.tested, source, **about)

    @contextlib.contextmanager
    def _unit(self, what: str, key: str, wants: list[Want]) -> Iterator[Callable[[str], None] | None]:
        """Hold the lock of one thing to make and show that it runs; None when another run made it meanwhile."""
        with (
            self.progress.running(what) as at,
            self.store.exclusive(key, lambda: at("waiting for another run that does the same")),
        ):
            if "cache" in self.options.sources:
                for want in list(wants):
                    found = self.store.lookup(*want)
                    if found:
                        self._have(want, found, "cache")
                        wants.remove(want)
            yield at if wants else None

    def _parallel(self, units: Sequence[Any], work: Callable[[Any], None], slots: int = _DOWNLOADS) -> None:
        with concurrent.futures.ThreadPoolExecutor(max_workers=slots) as pool:
            futures = [pool.submit(work, unit) for unit in units]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                for running in list(self._builds):
                    running.stop()
                raise

    @contextlib.contextmanager
    def _reason(self, wants: Want | list[Want], source: str) -> Iterator[None]:
        """A source that does not serve leaves its reason with what it was asked for."""
        try:
            yield
        except Unavailable as error:
            for want in wants if isinstance(wants, list) else [wants]:
                self._refused(want, source, str(error))
        except WrongDigest as error:
            self.state.wrong.append(error)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self.store.scratch()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _entry(self, want: Want) -> Entry:
        return self.store.lock.entry(want[0])

    def _put(
        self, want: Want, content: Path, version: str, tested: bool, source: str, **about: Any
    ) -> Artifact:
        entry = self._entry(want)
        artifact = self.store.put(
            *want, content, format=entry.format, version=version, tested=tested, source=source, **about
        )
        self._have(want, artifact, source)
        return artifact

    def _have(self, want: Want, artifact: Artifact, source: str) -> None:
        self.state.have[want] = artifact
        if want in self.state.missing:
            self.state.missing.remove(want)
        self.state.counts[source] = self.state.counts.get(source, 0) + 1

    def _refused(self, want: Want, source: str, why: str) -> None:
        self.state.reasons.setdefault(want, {})[source] = why

    def _all_refused(self, source: str, why: str) -> None:
        for want in self.state.missing:
            self._refused(want, source, why)

    def _note(self, text: str) -> None:
        self.state.notes.append(text)
        self.progress.say(text)

    def _record(self) -> None:
        """Write digests seen at first use into the lock file, for everybody after us."""
        if not self.state.record:
            return
        with self.store.exclusive("lock-file"):
            try:
                lock.record(self.store.lock_file, self.state.record)
            except OSError as error:
                self._note(f"digests could not be recorded in {self.store.lock_file}: {error.strerror}")
                return
        self.progress.say(f"recorded {len(self.state.record)} new digests in {self.store.lock_file}")

    def _sweep(self) -> None:
        """Remove what killed runs left behind; started downloads are kept for a week, to be gone on with."""
        for path in (self.store.root / "tmp").glob("*"):
            host, _, pid = path.name.rpartition("-")[0].rpartition(".")
            if path.is_dir() and host == os.uname().nodename and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file() and path.stat().st_mtime < time.time() - _WEEK:
                path.unlink(missing_ok=True)

    # --- what is told ----------------------------------------------------------------------------------------

    def _result(self, wants: Sequence[Want], changed: bool, msg: str) -> dict[str, Any]:
        have = self.state.have
        return {
            "changed": changed,
            "artifacts": [have[want].as_dict() for want in wants if want in have],
            "counts": dict(self.state.counts),
            "notes": list(self.state.notes),
            "msg": msg,
        }

    def _predict(self, wants: Sequence[Want]) -> dict[str, Any]:
        lines = []
        for want in self.state.missing:
            entry = self._entry(want)
            ways = []
            for source in self.options.sources:
                if source == "directory" and self.options.directory:
                    ways.append(f"taken from {self.options.directory}")
                elif source == "mirror" and self.options.mirror_url:
                    ways.append(f"fetched from {self.options.mirror_url}")
                elif source == "release" and entry.release:
                    ways.append(f"fetched from {entry.release.address(want[1])}")
                elif source == "release" and entry.kind in ("deb", "wheelhouse"):
                    ways.append("fetched from its registry")
                elif source == "build" and entry.build:
                    ways.append(f"built from {entry.build.module} {entry.build.module_version}")
            lines.append(
                f"{want[0]} ({want[1]}): would be {', else '.join(ways) or 'missing: no source has it'}"
            )
        result = self._result(wants, changed=True, msg=f"{len(self.state.missing)} would be got")
        result["predicted"] = lines
        return result

    def _why(self, of: Collection[Want] | None = None) -> str:
        missing = [want for want in self.state.missing if of is None or want in of]
        groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for want in missing:
            reasons = tuple(self.state.reasons.get(want, {}).items())
            groups.setdefault(reasons, []).append(f"{want[0]} ({want[1]})")
        asked = len(self.state.missing) + len(self.state.have)
        lines = [f"{len(missing)} of {asked} artifacts cannot be had."]
        for reasons, names in groups.items():
            lines.append(f"{', '.join(names)}:")
            lines += [f"  {source}: {why}" for source, why in reasons]
        lines.append("platform_artifact_sources is the list of sources and their order.")
        return "\n".join(lines)


_VERBS = {
    "cache": "from the cache",
    "directory": "from the directory",
    "mirror": "fetched from the mirror",
    "release": "fetched",
    "build": "built",
}


def _check(options: Options) -> None:
    for key, given, known in (
        ("sources", options.sources, SOURCES),
        ("architectures", options.architectures, lock.ARCHITECTURES),
    ):
        wrong = [value for value in given if value not in known]
        if wrong:
            raise ArtifactsError(f"{key}: {wrong[0]!r} is not one of {', '.join(known)}")
        if not given:
            raise ArtifactsError(f"{key}: needs at least one of {', '.join(known)}")
    if not options.cache_dir:
        raise ArtifactsError("cache_dir: is empty; platform_cache_dir sets it")


def _versions(entry: Entry) -> dict[str, bool]:
    """The versions that files of a directory or a mirror may carry in their names, and whether each is tested."""
    return {part.version: part.tested for part in (entry.build, entry.release) if part is not None} or {
        "0": False
    }


def _file(url: str) -> str:
    return urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1]


def _machine(file: Path) -> str:
    """The architecture of an ELF executable, '' for anything else."""
    with file.open("rb") as handle:
        head = handle.read(20)
    return _MACHINES.get(head[18:20], "another machine") if head[:4] == b"\x7fELF" else ""


def _moved(at: Callable[[str], None]) -> Callable[[int, int], None]:
    def moved(have: int, total: int) -> None:
        at(f"{megabytes(have)} of {megabytes(total)}" if total else megabytes(have))

    return moved


def _compiled(at: Callable[[str], None]) -> Callable[[str, int, int], None]:
    def compiled(step: str, done: int, total: int) -> None:
        count = f" {done} of {total} packages" if total else f" {done}" if done else ""
        at("linking" if total and done >= total else f"{step}{count}")

    return compiled
