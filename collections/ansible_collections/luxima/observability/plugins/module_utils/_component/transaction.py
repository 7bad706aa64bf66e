# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One component on one host: compare, stage, validate, activate, prove, then commit or revert.

On disk below /opt/luxima/<name>: `current` (a directory, exchanged whole), `releases/<id>`, `live`, `journal.json` while an
activation is under way, `history.json` (ids in the order in which they served), `stat.json` (stamps of the
artifacts of `current`), `made.json` (what outside of this folder is ours), `lock`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

from . import keys, needs, probe, state, story
from .host import Host, HostError
from .plan import Plan, former_groups, make_plan, missing_groups
from .words import said

Json = dict[str, Any]

KEEP = 3
# Bytes kept free for the way back: journal, unit, links and stamps, each written beside the old one.
RESERVE = 256 << 10
SETTLE = 1.0
# A new program gets more time to show that it stays alive: there is an old one to go back to.
SETTLE_PROGRAM = 4.0
# Seconds a server is given for one answer.
SHORTEST, LONGEST = 0.5, 10.0


class Missing(Exception):
    """Content is needed that is neither on the host nor in the bundle."""

    def __init__(self, digests: list[str]) -> None:
        super().__init__(", ".join(digests))
        self.digests = digests


class Refused(Exception):
    """The staged set was refused before anything was activated."""


class Unproven(Exception):
    """The activated release did not do what it should."""


class Transaction:
    """Runs once. `result` is what the module returns."""

    def __init__(self, request: Json, bundle: Path) -> None:
        self.request = request
        self.bundle = bundle
        self.name: str = request["name"]
        self.host = Host(self.name)
        self.result: Json = {
            "changed": False,
            "actions": [],
            "release": "",
            "restarted": False,
            "reloaded": False,
        }
        self.salt = state.read_salt()
        self.cursor = ""

    # Entry points

    def run(self) -> Json:
        os.umask(0o022)
        if self.request.get("check"):
            return self._predict()
        with self.host.locked():
            self._recover()
            getattr(self, f"_{self.request['state']}")()
        return self.result

    def _present(self) -> None:
        want: Json = self.request["manifest"]
        self._adopt_salt()
        answer = state.read_state(self.name)
        have = answer["components"].get(self.name, {})
        plan = make_plan(want, have, answer)
        if self._unfinished_first:
            plan.recover, plan.activation = True, plan.activation or "restart"
            plan.actions = plan.actions or ["restarted"]
        self.result["release"] = have.get("release", "")
        self._refuse_lost(plan)
        if not plan.changed:
            self._done([])
            return
        staged: Path | None = None
        if plan.release:
            staged = self.host.releases / f".stage-{secrets.token_hex(4)}"
            try:
                self._stage(staged, want)
                self._refuse_other_keys(want, staged)
                self._validate(staged, want)
                self._refuse_unmet(plan, want)
                self._accounts(want, answer)
                self._own(staged, want)
            except BaseException:
                self.host.remove(staged)
                self._install_debs(self.host.current)
                raise
        else:
            self._refuse_unmet(plan, want)
            self._accounts(want, answer)
        self._switch(plan, want, staged)

    def _previous(self) -> None:
        answer = state.read_state(self.name)
        plan, want, target = self._way_back(answer)
        self._refuse_unmet(plan, want)
        if plan.user:
            self._accounts(want, answer)
        self._switch(plan, want, target)
        self.result["actions"] = _back_words(self.result["actions"])

    def _way_back(self, answer: Json) -> tuple[Plan, Json, Path]:
        """The release before, its manifest, and what it takes to activate it."""
        have = answer["components"].get(self.name, {})
        if not have.get("manifest") or not have["previous"]:
            raise Refused(f"{self.name} has no previous release on this host")
        target = self.host.releases / have["previous"]
        want: Json = state.read_json(str(target / "manifest.json"))
        self._refuse_other_keys(want, target)
        plan = make_plan(want, {**have, "drift": []}, answer)
        plan.release = True
        self._refuse_lost(plan)
        return plan, want, target

    def _refuse_lost(self, plan: Plan) -> None:
        confirmed = self.request.get("lost_confirmed", "")
        if plan.lost and not confirmed:
            raise Refused(story.lost(self.name, self.request.get("host", "<host>"), plan.lost))

    def _refuse_unmet(self, plan: Plan, want: Json) -> None:
        """What serves goes on serving while what a start needs is not there."""
        if plan.activation not in ("restart", "start"):
            return
        reason = needs.unmet(want["service"].get("needs", []))
        if reason:
            raise Refused(f"{reason}. It would not start now")

    def _absent(self) -> None:
        self._done(self._remove(really=True))

    def _remove(self, really: bool) -> list[str]:
        """What it takes to remove the component, in words; done only when `really`."""
        host, actions = self.host, []
        made = state.read_json(str(host.base / "made.json")) or {}
        manifest = state.read_json(str(host.current / "manifest.json")) or {}
        unit = Path(state.UNITS) / host.service
        # A unit of the same name that we did not write is not ours to remove.
        if manifest and unit.exists():
            actions += ["stopped", "disabled"]
            if really:
                host.attempt(["systemctl", "disable", "--now", host.service])
                unit.unlink(missing_ok=True)
                host.systemctl("daemon-reload")
                host.attempt(["systemctl", "reset-failed", host.service])
        if really:
            self._remove_links(made)
        purge = bool(self.request.get("purge"))
        for place in made.get("directories", []) if purge else []:
            if Path(place).is_dir():
                actions.append("purged")
                if really:
                    shutil.rmtree(place)
        if made.get("user") and (purge or not self._data_left(made)):
            actions.append("user")
            if really:
                host.attempt(["userdel", made["user"]])
                host.attempt(["groupdel", made["user"]])
        if manifest or host.releases.exists() or made:
            actions.append("removed")
        if really:
            shutil.rmtree(host.base)
            if purge:
                keys.forget(self.name)
            with contextlib.suppress(OSError):
                (Path(state.ROOT)).rmdir()
        return list(dict.fromkeys(actions))

    def _remove_links(self, made: Json) -> None:
        for link, target in made.get("links", {}).items():
            path = Path(link)
            if state.link_target(link) == target:
                path.unlink()
                kept = path.with_name(path.name + ".before-luxima")
                if kept.exists() or kept.is_symlink():
                    kept.rename(path)

    def _data_left(self, made: Json) -> bool:
        """A user whose data stays must stay too: another user would get its number, and with it the data."""
        return any(Path(place).is_dir() for place in made.get("directories", []))

    # Compare and predict

    def _predict(self) -> Json:
        """Check mode: what `run` would do. Validates in a scratch directory when the programs are already here."""
        if self.request["state"] == "absent":
            self._done(self._remove(really=False))
            return self.result
        if self.request["state"] == "previous":
            plan, want, target = self._way_back(state.read_state(self.name))
            self._done(_back_words(plan.actions))
            self.result["release"] = target.name
            self.result.update(_activated(plan))
            return self.result
        want = self.request["manifest"]
        answer = state.read_state(self.name)
        self.salt = self.salt or self.request["salt"]
        plan = make_plan(want, answer["components"].get(self.name, {}), answer)
        self.result["validation"] = "not needed"
        if plan.validate:
            scratch = self.host.base / f".check-{secrets.token_hex(4)}"
            try:
                self._stage(scratch, want, owned=False)
                self._refuse_other_keys(want, scratch)
                self._validate(scratch, want)
                self.result["validation"] = "passed"
            except Missing:
                self.result["validation"] = "predicted only: the programs are not on the host yet"
            finally:
                self.host.remove(scratch)
        self._refuse_lost(plan)
        if plan.activation in ("restart", "start"):
            # Another component of the same run may be what puts it right.
            reason = needs.unmet(want["service"].get("needs", []), 0)
            self.result["warnings"] = [f"{self.name}: {reason}; now it would not start"] if reason else []
        self._done(plan.actions)
        return self.result

    def _done(self, actions: list[str]) -> None:
        words = ["recovered", *actions] if self.result.pop("recovered", False) else actions
        self.result["changed"] = bool(words)
        self.result["actions"] = words

    def _adopt_salt(self) -> None:
        if not self.salt:
            self.salt = self.request["salt"]
            self.host.write(Path(state.SALT), self.salt.encode())
        elif self.salt != self.request["salt"]:
            raise HostError("the host's salt is not the one this request was made with; run again")

    # Recover

    def _recover(self) -> None:
        """Puts right what a killed run left. Afterwards `current` is a release that was proven, or the first one."""
        host = self.host
        self._unfinished_first = False
        host.folder(host.releases, 0o700)
        for left in [*host.releases.glob(".stage-*"), *host.base.glob(".check-*"), *host.base.glob(".*.new")]:
            host.remove(left)
        entry = state.read_json(str(host.journal_file))
        if entry is None:
            if host.journal_file.exists():
                host.journal(None)  # not even written whole: nothing was done yet
            return
        new, old = entry["new"], entry["old"]
        for aside in host.releases.glob(".swap-*"):
            # Two of three renames of an exchange without RENAME_EXCHANGE.
            if not host.current.exists():
                aside.rename(host.current)
            else:
                aside.rename(host.releases / aside.name[len(".swap-") :])
        if not old:
            if not host.current.exists() and (host.releases / new).exists():
                host.journal(None)
                return
            self._unfinished_first = host.current.exists()
            if not self._unfinished_first:
                host.journal(None)
            return
        serving = self._release_in(host.current)
        parked = host.releases / new
        if serving == new and self._release_in(parked) == old:
            self._put_back(entry, parked)
        else:
            # Killed before the exchange, or after everything but the last clean-up.
            self._put_unit(host.current)
            if serving == new:
                self._commit(entry)
        host.journal(None)
        self.result["recovered"] = True

    def _release_in(self, folder: Path) -> str:
        manifest = state.read_json(str(folder / "manifest.json"))
        return str(manifest["release"]) if manifest else ""

    def _put_back(self, entry: Json, parked: Path) -> None:
        """The old release into its place again; its service restarted when it may have seen the new one."""
        host = self.host
        host.exchange(host.current, parked)
        old: Json = state.read_json(str(host.current / "manifest.json"))
        new: Json = state.read_json(str(parked / "manifest.json"))
        self._install_debs(host.current)
        self._put_live(host.current, old, new)
        if self._put_unit(host.current) or host.shown().get("NeedDaemonReload") == "yes":
            host.systemctl("daemon-reload")
        self._write_links(old)
        if entry["phase"] == "activating":
            self._reactivate(entry, old)
        self._write_stamps(old)

    def _reactivate(self, entry: Json, old: Json) -> None:
        host = self.host
        alive = host.shown().get("ActiveState") == "active"
        if alive and not entry["activation"]:
            return
        if alive and entry["activation"] == "reload":
            with contextlib.suppress(Unproven, HostError):
                self._reload(old)
                return
        self._restart()

    # Stage

    def _stage(self, folder: Path, want: Json, owned: bool = True) -> None:
        """A complete release in `folder`. In check mode (not owned) programs are links to where they already are."""
        host, lacking = self.host, []
        objects = self._objects()
        for part in ("bin", "etc", "share", "unit", "live"):
            host.folder(folder / part)
        folder.chmod(0o700)
        known = self._known_files()
        for path, spec in want["files"].items():
            content = objects.get(spec["sha256"])
            if content is None:
                content = self._known_content(known, spec)
            if content is None:
                lacking.append(spec["sha256"])
                continue
            place = folder / path
            host.folder(place.parent)
            host.write(place, content, 0o600 if spec["secret"] else 0o644, durable=False)
        for entry in want["live"]:
            place = folder / "etc" / entry["path"]
            host.folder(place.parent)
            place.symlink_to(host.live / entry["path"])
        for artifact, spec in want["artifacts"].items():
            if not self._place_artifact(folder, artifact, spec, owned):
                lacking.append(spec["sha256"])
        if lacking:
            raise Missing(sorted(set(lacking)))
        host.write_json(folder / "manifest.json", want, durable=False)

    def _objects(self) -> dict[str, bytes]:
        """What came in the bundle, by the digest a manifest uses for it."""
        found: dict[str, bytes] = {}
        archive = self.bundle / "objects.tar"
        if not archive.is_file():
            return found
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                stream = tar.extractfile(member)
                if stream is None:
                    continue
                content = stream.read()
                found[state.digest(content)] = content
                found[state.digest(content, True, self.salt)] = content
        return found

    def _known_files(self) -> dict[str, list[Path]]:
        """Digest -> files of releases that had that content."""
        found: dict[str, list[Path]] = {}
        for folder in self._folders():
            manifest = state.read_json(str(folder / "manifest.json")) or {}
            for path, spec in manifest.get("files", {}).items():
                found.setdefault(spec["sha256"], []).append(folder / path)
        return found

    def _known_content(self, known: dict[str, list[Path]], spec: Json) -> bytes | None:
        for path in known.get(spec["sha256"], []):
            content = state.read_bytes(str(path))
            if content is not None and state.digest(content, spec["secret"], self.salt) == spec["sha256"]:
                return content
        return None

    def _folders(self) -> list[Path]:
        folders = [self.host.current] if self.host.current.is_dir() else []
        if self.host.releases.is_dir():
            folders += sorted(path for path in self.host.releases.iterdir() if not path.name.startswith("."))
        return folders

    def _place_artifact(self, folder: Path, artifact: str, spec: Json, owned: bool) -> bool:
        host, kind = self.host, spec["format"]
        place = Path(state.artifact_path(str(folder), artifact, kind))
        source = self._have_artifact(artifact, spec)
        if source is not None:
            if not owned:
                place.symlink_to(source)
            elif kind == "file":
                host._same_file(str(source), str(place))
            else:
                host.same_tree(source, place)
                if kind == "debs":
                    host.install_debs(place)
            self._program(folder, artifact, kind)
            return True
        sent = [self.bundle / (spec["sha256"] + suffix) for suffix in ("", ".gz")]
        arrived = next((path for path in sent if path.is_file()), None)
        if arrived is None:
            return False
        if kind == "file":
            host.unpack(arrived, place, spec)
            place.chmod(0o755)
            return True
        archive = folder / f".{artifact}.tar"
        try:
            host.unpack(arrived, archive, spec)
            if kind == "wheelhouse":
                scratch = folder / f".{artifact}"
                host.extract(archive, scratch)
                host.install_wheels(scratch, artifact, folder)
                host.remove(scratch)
            else:
                host.extract(archive, place)
            os.sync()
            if kind == "debs":
                # Already here: the checkers of a package come with it. What fails later puts the old ones back.
                host.install_debs(place)
        finally:
            archive.unlink(missing_ok=True)
        self._program(folder, artifact, kind)
        return True

    def _install_debs(self, folder: Path) -> None:
        """The packages of a release, those that are not installed in that version."""
        manifest = state.read_json(str(folder / "manifest.json")) or {}
        for artifact, spec in manifest.get("artifacts", {}).items():
            if spec["format"] == "debs":
                self.host.install_debs(Path(state.artifact_path(str(folder), artifact, "debs")))

    def _program(self, folder: Path, artifact: str, kind: str) -> None:
        """A tree or an environment with a program of its own name offers it like a single file."""
        inner = {
            "tree": f"share/{artifact}/bin/{artifact}",
            "wheelhouse": f"share/{artifact}/venv/bin/{artifact}",
        }.get(kind, "")
        link = folder / "bin" / artifact
        if inner and (folder / inner).exists() and not link.is_symlink():
            link.symlink_to(f"../{inner}")

    def _have_artifact(self, artifact: str, spec: Json) -> Path | None:
        """An unspoilt copy in a release of this component."""
        kind = spec["format"]
        stamps = state.read_json(str(self.host.base / "stat.json")) or {}
        for folder in self._folders():
            manifest = state.read_json(str(folder / "manifest.json")) or {}
            if manifest.get("artifacts", {}).get(artifact, {}).get("sha256") != spec["sha256"]:
                continue
            place = state.artifact_path(str(folder), artifact, kind)
            now = state.stamp(place)
            trusted = folder == self.host.current and stamps.get(artifact) == now
            if now is None or (kind != "file" and folder == self.host.current and not trusted):
                continue
            if trusted or kind != "file" or state.file_digest(place) == spec["sha256"]:
                return Path(place)
        return None

    def _own(self, folder: Path, want: Json) -> None:
        """Final modes; before this only root can read the staged release."""
        for path, spec in want["files"].items():
            os.chown(folder / path, 0, self.host.gid(spec["group"]))
            (folder / path).chmod(int(spec["mode"], 8))
        folder.chmod(0o755)

    # Validate

    def _refuse_other_keys(self, want: Json, folder: Path) -> None:
        """Raises Refused for a release with which the data of this host could not be read."""
        reason = keys.changed(self.name, want, folder, self.salt)
        if reason:
            raise Refused(reason)

    def _validate(self, folder: Path, want: Json) -> None:
        """Raises Refused with the server's own words. What looks for absent programs raises Missing."""
        host = self.host
        scratch = folder / ".scratch"
        host.folder(scratch, 0o700)
        places = {
            "{bin}": f"{folder}/bin",
            "{etc}": f"{folder}/etc",
            "{share}": f"{folder}/share",
            "{scratch}": str(scratch),
        }
        try:
            for command, about in zip(self.request["validate"], self.request["about"]):
                words = [_replace(word, places) for word in command]
                code, output = host.attempt(words, cwd=folder / "etc", variables=self.request["environment"])
                if code:
                    shown = " ".join(command).replace("{bin}/", "").replace("{etc}", f"/etc/{self.name}")
                    told = output.replace(f"{folder}/etc", f"/etc/{self.name}").replace(str(folder), "")
                    what = f"the new configuration ({about})" if about else "the new configuration"
                    raise Refused(f"{what} was refused by `{shown}` (exit code {code}):\n{told}")
            self._verify_unit(folder, scratch, want)
        finally:
            host.remove(scratch)

    def _verify_unit(self, folder: Path, scratch: Path, want: Json) -> None:
        unit = folder / "unit" / self.host.service
        if not unit.exists():
            return
        text = unit.read_text(encoding="utf-8")
        # The program and its environment are where they will be only after activation.
        staged = (folder / "bin" / Path(want["exec"]).name).resolve()
        if want["exec"] == f"/usr/local/bin/{Path(want['exec']).name}" and staged.exists():
            text = text.replace(f"ExecStart={want['exec']}", f"ExecStart={staged}")
        elif not Path(want["exec"]).exists():
            text = text.replace(f"ExecStart={want['exec']}", "ExecStart=/bin/true")
        copy = scratch / self.host.service
        copy.write_text(text, encoding="utf-8")
        code, output = self.host.attempt(["systemd-analyze", "verify", "--man=no", str(copy)], 60)
        told = [line for line in output.splitlines() if self.host.service in line]
        if code != 127 and told:
            raise Refused(
                "systemd does not accept the unit:\n" + "\n".join(told).replace(str(copy), self.host.service)
            )

    # Activate

    def _accounts(self, want: Json, answer: Json) -> None:
        host, user = self.host, want["user"]
        made = state.read_json(str(host.base / "made.json")) or {}
        if user != "root":
            if host.make_user(user):
                made["user"] = user
                host.write_json(host.base / "made.json", made)
            groups = missing_groups(want, answer)
            if groups:
                host.join(user, groups)
            old = answer["components"].get(self.name, {}).get("manifest") or {}
            for group in former_groups(want, old, answer):
                host.leave(user, group)
        ours = {
            *made.get("directories", []),
            *[spec["path"] for spec in want["directories"] if not Path(spec["path"]).exists()],
        }
        if sorted(ours) != made.get("directories"):
            made["directories"] = sorted(ours)
            host.write_json(host.base / "made.json", made)
        for spec in want["directories"]:
            host.directory(Path(spec["path"]), spec)
        marked = [spec["path"] for spec in want["directories"] if spec["data"]]
        for path in marked:
            host.mark(Path(path))
        if marked != made.get("marked", []):
            made["marked"] = marked
            host.write_json(host.base / "made.json", made)
        for spec in want["live"]:
            host.directory(host.live / spec["path"], spec)

    def _switch(self, plan: Plan, want: Json, staged: Path | None) -> None:
        """Activates and proves; on failure puts the old release back and raises Unproven."""
        host = self.host
        old: Json = state.read_json(str(host.current / "manifest.json")) or {}
        entry: Json = {
            "new": old.get("release", ""),
            "old": old.get("release", ""),
            "activation": plan.activation,
            "phase": "exchanging",
        }
        before = self._before(plan, want)
        self.cursor = host.journal_end()
        if staged is not None:
            parked = self._park(entry, want, staged)
            if old:
                host.exchange(host.current, parked)
            else:
                parked.rename(host.current)
                host.sync_folder(host.base)
        else:
            host.write_json(host.current / "manifest.json", {**want, "release": entry["old"]})
        try:
            if staged is not None:
                self._install_debs(host.current)
                self._put_live(host.current, want, old)
                self._put_unit(host.current)
                self._write_stamps(want)
            self._write_links(want)
            if plan.enable:
                # Reloads systemd too; without that it would go on saying "disabled".
                host.systemctl("enable", host.service)
            elif plan.daemon_reload:
                host.systemctl("daemon-reload")
            if staged is not None:
                entry["phase"] = "activating"
                host.journal(entry)
            self._activate(plan, want)
            self._prove(plan, want, before, bool(old))
        except (Unproven, HostError, OSError) as error:
            raise Unproven(self._revert(entry, want, old, said(error))) from None
        self._done(plan.actions)
        self.result.update(_activated(plan), release=entry["new"])
        try:
            host.reserve(0)
            self._commit(entry)
            host.journal(None)
        except OSError as error:
            raise Unproven(
                f"{said(error)}\nState of the host: release {entry['new']} is proven and serves; the next run finishes the books"
            ) from None

    def _park(self, entry: Json, want: Json, staged: Path) -> Path:
        """The staged release under its own name, and the journal: from here on a killed run is put right by the next."""
        host = self.host
        # A release that served before keeps its name and lies where it belongs already.
        entry["new"] = want.get("release") or self._next_release()
        parked: Path = host.releases / entry["new"]
        try:
            # A disk that fills up from here on must not stand in the way back.
            host.reserve(RESERVE)
            if staged != parked:
                host.write_json(staged / "manifest.json", {**want, "release": entry["new"]}, durable=False)
                # Programs are on disk since they came.
                for part in ("etc", "unit", "live"):
                    host.sync_tree(staged / part)
                for place in (staged / "bin", staged / "manifest.json", staged):
                    host.sync_folder(place)
                staged.rename(parked)
            host.journal(entry)
        except OSError:
            if staged != parked:
                host.remove(staged)
                host.remove(parked)
            host.reserve(0)
            raise
        return parked

    def _next_release(self) -> str:
        numbers = [
            int(self._release_in(folder).partition("-")[0][1:] or 0)
            for folder in self._folders()
            if self._release_in(folder)
        ]
        return f"r{max(numbers, default=0) + 1:05d}-{secrets.token_hex(3)}"

    def _before(self, plan: Plan, want: Json) -> list[str | float | None]:
        """What a reload, or a file that the server reads by itself, must change of its metrics."""
        found: list[str | float | None] = []
        for item in want["service"]["proof"]:
            # Who is started anew reads everything at its start.
            due = plan.activation == "reload"
            if "follows" in item:
                due = plan.activation in ("", "reload") and f"etc/{item['follows']}" in plan.files
            due = due and bool(item.get("changes"))
            found.append(probe.moving(item, probe.ask(item).text) if due else None)
        return found

    def _put_unit(self, folder: Path) -> bool:
        """Whether the unit's text in place had to be replaced."""
        content = state.read_bytes(str(folder / "unit" / self.host.service))
        place = Path(state.UNITS) / self.host.service
        if content is None or (state.read_bytes(str(place)) == content and not place.is_symlink()):
            return False
        if place.is_symlink():
            place.unlink()
        self.host.write(place, content, 0o644)
        return True

    def _put_live(self, folder: Path, new: Json, old: Json) -> None:
        """The managed files of live directories, one rename each; files of others stay."""
        host = self.host
        for path in old.get("files", {}):
            if path.startswith("live/") and path not in new["files"]:
                (host.base / path).unlink(missing_ok=True)
        for path, spec in new["files"].items():
            if not path.startswith("live/"):
                continue
            content = (folder / path).read_bytes()
            place = host.base / path
            if state.read_bytes(str(place)) != content or old.get("files", {}).get(path) != spec:
                host.folder(place.parent)
                host.write(place, content, int(spec["mode"], 8), spec["group"])

    def _write_links(self, manifest: Json) -> None:
        made = state.read_json(str(self.host.base / "made.json")) or {}
        wanted = state.links(self.name, manifest)
        for link, target in made.get("links", {}).items():
            path = Path(link)
            if link not in wanted and state.link_target(link) == target:
                path.unlink()
        if made.get("links") != wanted:
            made["links"] = wanted
            self.host.write_json(self.host.base / "made.json", made)
        for link, target in wanted.items():
            self.host.link(Path(link), target)

    def _write_stamps(self, manifest: Json) -> None:
        stamps = {
            artifact: state.stamp(state.artifact_path(str(self.host.current), artifact, spec["format"]))
            for artifact, spec in manifest["artifacts"].items()
        }
        self.host.write_json(self.host.base / "stat.json", stamps)

    def _activate(self, plan: Plan, want: Json) -> None:
        if plan.activation == "reload":
            self._reload(want)
        elif plan.activation:
            self._restart()

    def _reload(self, want: Json) -> None:
        how = want["service"]["reload"]
        if not how:
            self._restart()
        elif "signal" in how:
            name = how["signal"] if how["signal"].startswith("SIG") else "SIG" + how["signal"]
            if name not in signal.Signals.__members__:
                raise HostError(f"reload.signal: {name} is no signal of this host")
            self.host.systemctl("kill", "--kill-who=main", f"--signal={name}", self.host.service)
        else:
            answer = probe.ask(how, how["method"], how["timeout"])
            if not 200 <= answer.status < 300:
                raise Unproven(
                    f"the server refused to reload: {how['method']} {how['url']} answered {answer}"
                )

    def _restart(self) -> None:
        self.host.attempt(["systemctl", "reset-failed", self.host.service])
        code, words = self.host.attempt(["systemctl", "restart", self.host.service], 300)
        if code:
            raise Unproven(f"systemd could not start it: {words}")

    # Prove

    def _prove(self, plan: Plan, want: Json, before: list[str | float | None], replaces: bool) -> None:
        """Returns when the service does what it should; raises Unproven when it will not."""
        if not plan.activation and not plan.release:
            return
        if f"unit/{self.host.service}" not in want["files"]:
            return
        ready = want["service"]["ready"]
        settle = 0.0
        if plan.activation in ("restart", "start"):
            programs = [name for name in plan.artifacts if not want["artifacts"].get(name, {}).get("tool")]
            settle = ready.get("settle", SETTLE_PROGRAM if replaces and programs else SETTLE)
        self._wait(want, before, settle, ready["timeout"])

    def _wait(self, want: Json, before: list[str | float | None], settle: float, timeout: float) -> None:
        start = time.monotonic()
        # When each question was first answered wrongly.
        self.unanswered: dict[str, float] = {}
        pid, since, pause, reason = 0, start, 0.05, ""
        while True:
            shown = self.host.shown()
            now = time.monotonic()
            main = int(shown.get("MainPID", "0") or 0)
            if (
                shown.get("ActiveState") in ("failed", "inactive")
                or shown.get("SubState") == "auto-restart"
                or (pid and main != pid)
            ):
                raise Unproven(
                    f"the service ended by itself {now - start:.1f} s after activation "
                    f"(result {shown.get('Result')}, exit status {shown.get('ExecMainStatus')})"
                )
            if main and not pid:
                pid, since = main, now
            reason = self._reason(want, shown, main, before, start + timeout)
            if not reason and now - since >= settle:
                return
            if now - start > timeout:
                raise Unproven(f"not ready after {timeout:g} s: {reason or 'it has not settled'}")
            time.sleep(pause)
            # Asking costs the host something as well: who is slow is asked less often.
            pause = min(pause * 1.3, max(0.25, (now - start) / 20))

    def _reason(self, want: Json, shown: Json, pid: int, before: list[str | float | None], end: float) -> str:
        """Why the service cannot be trusted yet; Unproven when it never will. No question outlasts `end` (monotonic) by more than a moment."""
        # A unit that did its work at its start (Type=oneshot, RemainAfterExit=yes) stays active without a process.
        finished = shown.get("SubState") == "exited"
        if shown.get("ActiveState") != "active" or not (pid or finished):
            return f"systemd says {shown.get('ActiveState')}/{shown.get('SubState')}"
        if not finished and not state.runs_current(pid, self.name, want["exec"]):
            return f"process {pid} does not run {want['exec']} of the new release"
        ready, proofs = want["service"]["ready"], want["service"]["proof"]
        asked = [(ready, None)] if "url" in ready else []
        for item, value in [*asked, *zip(proofs, before)]:
            patience = min(max(end - time.monotonic(), SHORTEST), LONGEST)
            answer = probe.ask(item, timeout=patience)
            reason = probe.refusal(item, answer, value)
            if reason:
                now = time.monotonic()
                if probe.hopeless(item, answer, now - self.unanswered.setdefault(item["url"], now)):
                    raise Unproven(reason)
                return reason
        return ""

    # Commit or revert

    def _commit(self, entry: Json) -> None:
        """The old release under its own name, history, the last releases kept."""
        host = self.host
        if entry["new"] != entry["old"]:
            parked = host.releases / entry["new"]
            if entry["old"] and parked.exists():
                home = host.releases / entry["old"]
                if home != parked:
                    host.remove(home)
                    parked.rename(home)
            history = [
                item
                for item in state.read_json(str(host.base / "history.json")) or []
                if item != entry["new"]
            ]
            host.write_json(host.base / "history.json", [*history, entry["new"]][-20:])
            self._prune()
        manifest = state.read_json(str(host.current / "manifest.json"))
        if manifest:
            self._write_stamps(manifest)
            keys.remember(self.name, manifest, host.current)

    def _prune(self) -> None:
        history = state.read_json(str(self.host.base / "history.json")) or []
        order = {name: i for i, name in enumerate(history)}
        folders = [path for path in self.host.releases.iterdir() if not path.name.startswith(".")]
        failed = sorted((path for path in folders if (path / "failed").exists()), key=lambda path: path.name)
        served = sorted(
            (path for path in folders if path not in failed), key=lambda path: order.get(path.name, -1)
        )
        for path in [*served[:-KEEP], *failed[:-1]]:
            self.host.remove(path)

    def _revert(self, entry: Json, want: Json, old: Json, reason: str) -> str:
        """Undoes an activation and says what happened and what serves now."""
        host = self.host
        words = host.last_lines(self.cursor)
        self.result["journal"] = words
        host.reserve(0)
        if entry["new"] == entry["old"]:
            # Nothing was exchanged: the same release was only started or repaired.
            host.journal(None)
            return self._story(reason, f"release {entry['old']} is in place; nothing was exchanged", words)
        if not old:
            return self._story(reason, self._withdraw(entry), words)
        try:
            parked = host.releases / entry["new"]
            self._put_back(entry, parked)
            (parked / "failed").touch()
            self._wait(old, [None] * len(old["service"]["proof"]), 0.0, old["service"]["ready"]["timeout"])
            now = f"release {entry['old']} was put back, is proven and serves"
        except (Unproven, HostError, OSError) as error:
            now = f"release {entry['old']} was put back but could not be proven either: {said(error)}"
        self._prune()
        host.journal(None)
        self.result.update(actions=["reverted"], release=entry["old"])
        return self._story(reason, now, words)

    def _withdraw(self, entry: Json) -> str:
        """A first release that failed: nothing served before, nothing serves now, its content is kept for the next try."""
        host = self.host
        host.attempt(["systemctl", "disable", "--now", host.service])
        unit = Path(state.UNITS) / host.service
        unit.unlink(missing_ok=True)
        host.attempt(["systemctl", "daemon-reload"])
        host.attempt(["systemctl", "reset-failed", host.service])
        made = state.read_json(str(host.base / "made.json")) or {}
        for link, target in made.get("links", {}).items():
            if state.link_target(link) == target:
                Path(link).unlink()
        home = host.releases / entry["new"]
        if host.current.exists():
            host.remove(home)
            host.current.rename(home)
            (home / "failed").touch()
        host.journal(None)
        self._prune()
        self.result.update(actions=["reverted"], release="")
        return "it was the first release, so nothing serves; the service was stopped and its unit removed"

    def untouched(self) -> str:
        """What an operator reads when it failed before the activation."""
        serving = self._release_in(self.host.current)
        return "Nothing was activated" + (f"; release {serving} is in place as before." if serving else ".")

    def _story(self, reason: str, now: str, words: list[str]) -> str:
        told = "\n".join(words) if words else "(its journal is empty)"
        return f"{reason}\nState of the host: {now}.\nLast lines of {self.host.service}:\n{told}"


def _replace(word: str, places: dict[str, str]) -> str:
    for key, value in places.items():
        word = word.replace(key, value)
    return word


def _activated(plan: Plan) -> Json:
    return {
        "restarted": plan.activation in ("restart", "start"),
        "reloaded": plan.activation == "reload",
    }


def _back_words(actions: list[str]) -> list[str]:
    """Of a return to a release that was staged and validated when it first served."""
    return ["rolled_back", *[word for word in actions if word not in ("staged", "validated")]]
