# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Controller side of `component`: renders, compares, and calls the module only when a host must change."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import secrets
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible.utils.display import Display
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Artifact, Store
from ansible_collections.luxima.observability.plugins.module_utils._component import kept, story
from ansible_collections.luxima.observability.plugins.module_utils._component import manifest as building
from ansible_collections.luxima.observability.plugins.module_utils._component import state as host_state
from ansible_collections.luxima.observability.plugins.module_utils._component.plan import Plan, make_plan
from ansible_collections.luxima.observability.plugins.module_utils._component.record import (
    Record,
    RecordError,
    parse,
)
from ansible_collections.luxima.observability.plugins.module_utils._component.rollout import Rollout, Stopped
from ansible_collections.luxima.observability.plugins.module_utils._component.words import said
from ansible_collections.luxima.observability.plugins.module_utils._config import limits, overlay
from ansible_collections.luxima.observability.plugins.module_utils._validate.inspect import explain
from ansible_collections.luxima.observability.plugins.plugin_utils import (
    confirmations,
    run_folder,
    spelling,
    vaulted,
)
from ansible_collections.luxima.observability.plugins.plugin_utils.alone import refuse_second
from ansible_collections.luxima.observability.plugins.plugin_utils.checked import refuse_wrong
from ansible_collections.luxima.observability.plugins.plugin_utils.evaluate import evaluate
from ansible_collections.luxima.observability.plugins.plugin_utils.leftovers import leftovers, tell
from ansible_collections.luxima.observability.plugins.plugin_utils.protection import Protection
from ansible_collections.luxima.observability.plugins.plugin_utils.ready import wait_until_managed
from ansible_collections.luxima.observability.plugins.plugin_utils.spelling import refuse_unknown

Json = dict[str, Any]

MODULE = "luxima.observability.component"
MARK = "luxima-state:"
ADD_PLATFORM = "add 00-platform.yml with `plugin: luxima.observability.platform` beside hosts.yml"
NOBODY: Json = {"users": {}, "groups": []}
# Smaller ones travel as they are: compressing them saves less than it costs.
COMPRESS_FROM = 1 << 20


class ActionModule(ActionBase):
    """One component on one host."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> Json:
        super().run(tmp, task_vars)
        self._vars: dict[str, Any] = task_vars or {}
        self._subject = str(self._task.delegate_to or self._vars.get("inventory_hostname", "?"))
        name = self._name()
        if self._task.async_val:
            raise AnsibleActionFail(
                f"component {name} on {self._subject}: a transaction cannot run in the background; remove `async`"
            )
        refuse_unknown(self._vars, self._subject)
        refuse_wrong(self._vars, self._subject, name, self._evaluate, self._load)
        try:
            record = parse(building.plain(vaulted.revealed(self._arguments(name))))
            if record.state == "present":
                refuse_second(record.name, self._vars, self._subject)
                self._refuse_patches(record.name)
            result = self._run(record)
        except (RecordError, Stopped, OSError) as error:
            raise AnsibleActionFail(f"component {name} on {self._subject}: {_reason(error)}") from None
        # The arguments hold rendered content, and with it secrets.
        result.pop("invocation", None)
        result["component"] = record.name
        return result

    # The record

    def _name(self) -> str:
        """Of the component; a record that is named by its variable is looked at before its templates are evaluated."""
        named = self._task.args.get("record")
        record = self._vars.get(named) if isinstance(named, str) else None
        if named is not None and (len(self._task.args) > 1 or not isinstance(record, dict)):
            raise AnsibleActionFail(
                f"component on {self._subject}: record: expected the name of a variable that holds the record, and no other option; found {named!r}"
            )
        return str((record or self._task.args).get("name", "?"))

    def _arguments(self, name: str) -> Json:
        named = self._task.args.get("record")
        if named is None:
            return dict(self._task.args)
        try:
            record: Json = self._evaluate(self._vars, self._vars[named])
        except AnsibleError as error:
            reason = explain(error, self._vars[named])
            host = self._vars["hostvars"].get(self._subject) or {}
            if "platform_components" not in host:
                # What other hosts say of themselves, and the platform's own facts, come with the inventory.
                reason = f"the inventory has no source luxima.observability.platform, and this needs it ({reason}); {ADD_PLATFORM}"
            raise AnsibleActionFail(f"component {name} on {self._subject}: {reason}") from None
        return record

    def _evaluate(self, variables: Json, value: Any) -> Any:
        return evaluate(self._templar, variables, value)

    def _load(self, file: str) -> Any:
        return self._loader.load_from_file(file, cache="all", unsafe=True, trusted_as_template=True)

    def _refuse_patches(self, name: str) -> None:
        """What an inventory lays over the role's configuration and must not, whether or not the inventory was validated."""
        patch, tenants = (
            building.plain(self._templar.template(self._vars.get(f"{name}_{part}") or {}))
            for part in ("config", "tenant_limits")
        )
        told = [*overlay.of_role(name, self._vars, patch), *limits.periods(name, tenants)]
        if told:
            raise RecordError(
                "; ".join(f"{where} {words}" for where, words in told) + ". Nothing was touched."
            )

    def _run(self, record: Record) -> Json:
        render_dir = self._variable("platform_render_dir", "")
        if render_dir:
            return self._write_out(record, Path(render_dir).expanduser() / self._subject / record.name)
        fact = self._vars.get("ansible_facts", {}).get("luxima_state") or {}
        if fact.get("exists") is False and self._task.check_mode:
            answer: Json = {
                "exists": False,
                **NOBODY,
                "salt": "",
                "components": {},
                "architecture": self._architectures()[0],
            }
        else:
            answer = self._state()
        self._answer = answer
        have: Json = answer["components"].get(record.name, {})
        if record.state == "absent":
            return self._leave(record, have)
        if record.state == "previous":
            return self._go_back(record, have)
        return self._present(record, have)

    # What the record asks for

    def _present(self, record: Record, have: Json) -> Json:
        artifacts = self._artifacts(record, str(self._answer["architecture"]))
        salt = str(self._answer["salt"]) or secrets.token_hex(16)
        known = {name: _entry(item, name in record.tools) for name, item in artifacts.items()}
        # What is to be changed is looked through for secrets; a host that has all of it was looked through before.
        for building_of in (self._built, self._closed):
            record, files = building_of(record)
            want = building.manifest(record, files, known, salt)
            plan = make_plan(want, have, self._answer)
            if not plan.changed:
                break
        confirmed = f"{record.name}@{self._subject}" in self._confirmed()
        if plan.lost and not confirmed:
            raise RecordError(story.lost(record.name, self._subject, plan.lost))
        if plan.unmet:
            raise RecordError(story.unmet(plan.unmet))
        if not plan.changed:
            return self._answered({"changed": False, "actions": [], "release": have.get("release", "")}, plan)
        lacking = [name for name, item in artifacts.items() if item is None]
        if lacking and not self._task.check_mode:
            raise RecordError(
                f"artifacts: {', '.join(lacking)} for {self._answer['architecture']} not in {self._variable('platform_cache_dir', '')}; "
                f"run with --tags artifacts (or the whole site.yml) first"
            )
        self._protect(record, plan, have, files)
        self._tell(record, story.one_line(plan, want, have))
        diff = self._diff(record, plan, files, have)
        request = {
            "name": record.name,
            "state": "present",
            "manifest": want,
            "salt": salt,
            "validate": [list(command) for command in record.validate],
            "about": list(record.about),
            "environment": {**record.environment, **record.secret_environment},
            "host": self._subject,
            "lost_confirmed": confirmed,
        }
        blobs = [
            item
            for item in artifacts.values()
            if item is not None and item.sha256 not in have.get("blobs", [])
        ]
        edited = [building.shown_path(record.name, path) for path in story.edited(plan)]
        if self._task.check_mode:
            unsent = [item.name for item in blobs]
            predicted = self._predicted(record, plan, diff, request, files, have, lacking, unsent)
            return {**predicted, "edited": edited}
        objects = {item["sha256"] for path, item in want["files"].items() if not _same(item, have, path)}
        result = self._apply(record, request, files, objects, blobs, bool(have.get("manifest")))
        if "missing" in result:
            # The host lost content since it was asked: send everything it says it lacks.
            missing = set(result["missing"])
            every = [item for item in artifacts.values() if item is not None and item.sha256 in missing]
            result = self._apply(record, request, files, missing, every, bool(have.get("manifest")))
        return {**self._finished(record, result, diff), "edited": edited}

    def _predicted(
        self,
        record: Record,
        plan: Plan,
        diff: list[Json],
        request: Json,
        files: Mapping[str, building.Content],
        have: Json,
        lacking: list[str],
        unsent: list[str],
    ) -> Json:
        result: Json = {
            "changed": True,
            "actions": plan.actions,
            "release": have.get("release", ""),
            "validation": "not needed",
        }
        if plan.validate and (lacking or unsent or not self._answer["exists"]):
            result["validation"] = (
                f"predicted only: not on the host yet: {', '.join(lacking or unsent) or 'the host itself'}"
            )
        elif plan.validate:
            objects = {
                item["sha256"]
                for path, item in request["manifest"]["files"].items()
                if not _same(item, have, path)
            }
            checked = self._call(record, request, files, objects, [])
            if checked.get("failed"):
                return self._finished(record, checked, diff)
            result["validation"] = checked.get("validation", "not needed")
            result["warnings"] = checked.get("warnings", [])
        result["diff"] = diff
        return self._answered(result, plan)

    def _leave(self, record: Record, have: Json) -> Json:
        if not have:
            return {"changed": False, "actions": [], "release": "", "restarted": False, "reloaded": False}
        if record.purge:
            self._protection().purge(record.name)
        self._tell(record, "remove" + (" with its data" if record.purge else "; its data stays"))
        return self._without_files(record, {"name": record.name, "state": "absent", "purge": record.purge})

    def _go_back(self, record: Record, have: Json) -> Json:
        if not have.get("manifest"):
            raise RecordError(f"state: {record.name} is not installed on this host")
        if not have.get("previous"):
            raise RecordError(
                f"state: release {have['release']} is the only one on this host; there is no previous one to return to"
            )
        self._protect_way_back(record.name, have)
        self._tell(record, f"back from release {have['release']} to {have['previous']}")
        request = {"name": record.name, "state": "previous", "host": self._subject}
        return self._without_files(record, request)

    def _without_files(self, record: Record, request: Json) -> Json:
        """The host has all that is needed; in check mode it only says what it would do."""
        if self._task.check_mode:
            result = self._call(record, request, {}, set(), [])
        else:
            result = self._apply(record, request, {}, set(), [], True)
        return self._finished(record, result, [])

    # Data

    def _protection(self) -> Protection:
        return Protection(
            self._subject,
            self._vars,
            lambda value: self._evaluate(self._vars, value),
            bool(self._task.check_mode),
            self._loader,
            self._said,
        )

    def _protect(self, record: Record, plan: Plan, have: Json, files: Mapping[str, building.Content]) -> None:
        """Asks the host for what it has only when something changes that its data depends on."""
        old = have.get("manifest")
        if not record.data:
            return
        hidden = kept.hidden(record.data, record.secret_environment)
        if hidden:
            raise RecordError(f"{hidden}. Nothing was touched.")
        paths = kept.paths(record.name, record.data)
        directories = [entry.path for entry in record.directories]
        texts = {path: files[path].data.decode() if path in files else None for path in paths}
        after = kept.Release(texts, directories, sorted(record.secret_environment))
        if not old:
            self._protection().first(record.name, record.data, after)
            return
        former = [entry["path"] for entry in old["directories"]]
        if not plan.files.keys() & set(paths) and directories == former:
            return
        before = kept.Release(self._texts(record.name, paths), former)
        self._protection().change(record.name, record.data, before, after)

    def _protect_way_back(self, name: str, have: Json) -> None:
        data = have["manifest"].get("data")
        if not data:
            return
        paths = kept.paths(name, data)
        there = self._texts(name, [*paths, "manifest.json"], have["previous"])
        former = json.loads(there.pop("manifest.json") or "{}").get("directories", [])
        before = kept.Release(
            self._texts(name, paths), [entry["path"] for entry in have["manifest"]["directories"]]
        )
        after = kept.Release(there, [entry["path"] for entry in former])
        if before != after:
            self._protection().change(name, data, before, after)

    def _texts(self, name: str, paths: list[str], release: str = "") -> dict[str, str | None]:
        """Installed files, none of which is a secret; of another release than the current one when it is named."""
        if self._connection.has_pipelining:
            found = self._ask(f"read_texts({name!r}, {paths!r}, {release!r})")
        else:
            arguments = {"name": name, "texts": paths, "release": release}
            done = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=self._vars)
            found = done.get("texts")
        if not isinstance(found, dict):
            raise RecordError(f"could not read the files of {name} that its data depends on")
        return found

    def _said(self, words: list[str]) -> str:
        if not self._answer["exists"]:
            return ""
        done = self._low_level_execute_command(shlex.join(words))
        return str(done["stdout"]) if done["rc"] == 0 else ""

    # Rendering

    def _built(self, record: Record) -> tuple[Record, dict[str, building.Content]]:
        return building.revised(record, building.contents(record, self._rendered(record)))

    def _closed(self, record: Record) -> tuple[Record, dict[str, building.Content]]:
        """The same, with every file closed that holds a secret this host knows: text that was put together says nothing of its parts."""
        secrets_of_host = vaulted.worth_hiding([*vaulted.known(self._vars), *self._declared_values()])
        record = vaulted.moved(record, secrets_of_host)
        files = building.contents(record, self._rendered(record))
        return building.revised(record, building.closed(files, secrets_of_host))

    def _declared_values(self) -> list[str]:
        """The declared secrets of the host, wherever their values come from."""
        found = []
        for name in spelling.secrets():
            if name in self._vars:
                with contextlib.suppress(AnsibleError):
                    found.append(str(self._templar.template(self._vars[name])))
        return found

    def _rendered(self, record: Record) -> dict[int, dict[str, bytes]]:
        found: dict[int, dict[str, bytes]] = {}
        for index, spec in enumerate(record.files):
            if spec.template:
                found[index] = {"": self._template(spec.template)}
            elif spec.source:
                found[index] = building.tree(Path(self._needle("files", spec.source)))
            else:
                found[index] = {"": building.dumped(spec.path, spec.content)}
        return found

    def _template(self, name: str) -> bytes:
        path = self._needle("templates", name)
        search = []
        for folder in [
            *self._vars.get("ansible_search_path", []),
            self._loader.get_basedir(),
            str(Path(path).parent),
        ]:
            search += [f"{folder}/templates", str(folder)]
        templar = self._templar.copy_with_new_env(searchpath=search, available_variables=self._vars)
        text = trust_as_template(self._loader.get_text_file_contents(path))
        try:
            rendered = templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True})
        except AnsibleError as error:
            raise AnsibleActionFail(
                f"component {self._name()} on {self._subject}: template {name}: {error}"
            ) from error
        return str(rendered).encode()

    def _needle(self, folder: str, name: str) -> str:
        try:
            return str(self._find_needle(folder, name))
        except AnsibleError as error:
            raise RecordError(f"files: {error}") from None

    def _artifacts(self, record: Record, architecture: str) -> dict[str, Artifact | None]:
        if not record.artifacts and not record.tools:
            return {}
        store = Store(
            self._variable("platform_cache_dir", "~/.cache/luxima-observability"),
            self._variable("platform_lock_file", ""),
        )
        return {name: store.lookup(name, architecture) for name in [*record.artifacts, *record.tools]}

    def _variable(self, name: str, default: str) -> str:
        value = self._templar.template(self._vars.get(name, default))
        return str(value) if value else default

    def _confirmed(self) -> list[str]:
        """Whose lost data may be lost, as component@host."""
        name = "platform_data_lost_confirmed"
        if confirmations.standing(name, self._vars, self._subject, self._loader):
            return []
        return confirmations.names(self._templar.template(self._vars.get(name, [])))

    def _architectures(self) -> list[str]:
        value = self._templar.template(self._vars.get("platform_architectures", ["amd64"]))
        return [str(item) for item in value] or ["amd64"]

    def _write_out(self, record: Record, folder: Path) -> Json:
        """Files, unit and record of what would be deployed, below `folder`, without any connection."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if record.state != "present":
            return {"changed": False, "actions": ["rendered"], "release": ""}
        record, files = self._closed(record)
        for path, item in files.items():
            kind, _, rest = path.partition("/")
            place = folder / ("unit" if kind == "unit" else f"etc/{rest}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"<secret>\n" if item.secret else item.data)
        artifacts = self._artifacts(record, self._architectures()[0])
        known = {name: _entry(item, name in record.tools) for name, item in artifacts.items()}
        shown = building.manifest(record, files, known, "")
        for item in shown["files"].values():
            if item["secret"]:
                item["sha256"] = "<secret>"
        shown["validate"] = [list(command) for command in record.validate]
        shown["environment"] = dict(record.environment)
        (folder / "record.json").write_text(
            json.dumps(shown, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        return {"changed": False, "actions": ["rendered"], "release": ""}

    # Asking the host

    def _state_file(self) -> Path:
        return run_folder.path() / f"state-{self._subject.replace('/', '_')}.json"

    def _state(self) -> Json:
        try:
            known: Json = json.loads(self._state_file().read_text(encoding="utf-8"))
            return known
        except (FileNotFoundError, ValueError):
            pass
        if self._variable("guest_ready_at", "provision") == "use":
            # Other hosts were worked on while this one was starting.
            wait_until_managed(self, float(self._variable("guest_ready_deadline", "300")))
        if self._connection.has_pipelining:
            answer: Json = self._ask("read_state()")
        else:
            done = self._execute_module(
                module_name=MODULE, module_args={"name": "state"}, task_vars=self._vars
            )
            if "state" not in done:
                raise AnsibleActionFail(
                    f"could not read the state of {self._subject}: {done.get('msg', done)}"
                )
            answer = done["state"]
        if not answer["root"]:
            raise RecordError("root is needed on the host: set `become: true` in the play")
        if not answer["systemd"]:
            raise RecordError("systemd does not run on this host; a component is a systemd service")
        self._remember(answer)
        self._tell_leftovers(answer)
        return answer

    def _tell_leftovers(self, answer: Json) -> None:
        """Once in a run; the state is asked again after every change."""
        if self._task.args.get("state", "present") != "present":
            return
        told = run_folder.path() / f"leftovers-{self._subject.replace('/', '_')}"
        if not told.exists():
            told.touch()
            installed = [name for name, have in answer["components"].items() if have.get("manifest")]
            tell(self._subject, leftovers(installed, self._vars))

    def _remember(self, answer: Json) -> None:
        run_folder.write(self._state_file(), json.dumps(answer))

    def _ask(self, expression: str) -> Any:
        """Runs the state reader from standard input: no file, no module, nothing in the host's journal."""
        source = Path(host_state.__file__).read_text(encoding="utf-8")
        script = f"{source}\nprint({MARK!r} + json.dumps({expression}))\n"
        python = self._vars.get("ansible_python_interpreter") or ""
        python = str(self._templar.template(python)) if python else ""
        command = (
            f"{python} -S -E -"
            if python and not python.startswith("auto")
            else "/usr/bin/env python3 -S -E -"
        )
        done = self._low_level_execute_command(command, in_data=script.encode())
        for line in reversed(done["stdout"].splitlines()):
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :])
        words = (done["stderr"] or done["stdout"]).strip().splitlines()
        raise AnsibleActionFail(
            f"component {self._name()} on {self._subject}: could not read the host's state with "
            f"`{command}` (exit code {done['rc']}): {' | '.join(words[-5:])}"
        )

    def _diff(
        self, record: Record, plan: Plan, files: Mapping[str, building.Content], have: Json
    ) -> list[Json]:
        if not self._task.diff:
            return []
        old = (have.get("manifest") or {}).get("files", {})
        secret = {path for path, item in old.items() if item["secret"]}
        open_ones = [
            path for path in plan.files if path not in secret and not (path in files and files[path].secret)
        ]
        before: Json = {}
        if old and open_ones:
            if self._connection.has_pipelining:
                before = self._ask(f"read_texts({record.name!r}, {open_ones!r})")
            else:
                before = dict.fromkeys(open_ones, "(not shown: this connection has no pipelining)\n")
        return building.differences(record.name, plan.files, files, before, secret)

    # Changing the host

    def _apply(
        self,
        record: Record,
        request: Json,
        files: Mapping[str, building.Content],
        objects: set[str],
        blobs: list[Artifact],
        serves: bool,
    ) -> Json:
        slots = int(self._variable("platform_rollout_slots", "1"))
        queue = Rollout(run_folder.path() / "rollout", record.name, slots)
        # The state is asked again whatever happens from here on.
        self._state_file().unlink(missing_ok=True)
        hosts = self._vars.get("ansible_play_hosts_all") or []
        position = hosts.index(self._subject) if self._subject in hosts else 0
        with (
            self._sent(request, files, objects, blobs) as bundle,
            queue.turn(self._subject, serves, position),
        ):
            result = self._module(record.name, bundle)
            if result.get("failed"):
                queue.stop(self._subject)
        return result

    def _call(
        self,
        record: Record,
        request: Json,
        files: Mapping[str, building.Content],
        objects: set[str],
        blobs: list[Artifact],
    ) -> Json:
        with self._sent(request, files, objects, blobs) as bundle:
            return self._module(record.name, bundle)

    def _module(self, name: str, bundle: str) -> Json:
        variables = dict(self._vars)
        if "ansible_python_interpreter" not in variables and self._answer.get("python"):
            # Spares the discovery: the host has just said what it runs.
            variables["ansible_python_interpreter"] = self._answer["python"]
        done: Json = self._execute_module(
            module_name=MODULE, module_args={"name": name, "bundle": bundle}, task_vars=variables
        )
        return done

    def _sent(
        self, request: Json, files: Mapping[str, building.Content], objects: set[str], blobs: list[Artifact]
    ) -> _Bundle:
        wanted = {
            path: item.data
            for path, item in files.items()
            if request["manifest"]["files"][path]["sha256"] in objects
        }
        packed = [(blob, self._packed(blob)) for blob in blobs]
        return _Bundle(self, request, wanted, packed)

    def _packed(self, blob: Artifact) -> Path:
        """The artifact as it travels; compressed once for all hosts and runs."""
        if blob.size < COMPRESS_FROM:
            return Path(blob.path)
        folder = Path(blob.path).parent.parent / "transfer"
        folder.mkdir(exist_ok=True)
        target = folder / f"{blob.sha256}.gz"
        with (folder / f".{blob.sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                Display().display(
                    f"compressing {blob.name} {blob.version} ({blob.size >> 20} MB), once for all hosts"
                )
                temporary = target.with_suffix(f".{os.getpid()}")
                with Path(blob.path).open("rb") as source, gzip.open(temporary, "wb", compresslevel=1) as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                temporary.replace(target)
        return target

    # Results

    def _tell(self, record: Record, words: str) -> None:
        """One line before the work begins: it may take a while."""
        mode = " (check)" if self._task.check_mode else ""
        Display().display(f"{self._subject}: {record.name}{mode}: {words}")

    def _answered(self, result: Json, plan: Plan) -> Json:
        result.setdefault("restarted", False)
        result.setdefault("reloaded", False)
        if self._answer["exists"]:
            result["ansible_facts"] = {"luxima_state": self._fact(self._answer)}
        return result

    def _fact(self, answer: Json) -> Json:
        """The answer for other tasks, without anything from which a secret could be guessed."""
        return {
            "run": Path(C.DEFAULT_LOCAL_TMP).name,
            "exists": True,
            "architecture": answer["architecture"],
            "components": {
                name: {
                    "release": item["release"],
                    "active": item["service"]["active"],
                    "enabled": item["service"]["enabled"],
                }
                for name, item in answer["components"].items()
            },
        }

    def _finished(self, record: Record, result: Json, diff: list[Json]) -> Json:
        after = result.pop("state", None)
        if result.get("failed"):
            words = str(result.get("msg", "")) or str(result.get("module_stderr", "")) or "no answer"
            result["msg"] = f"component {record.name} on {self._subject}: {words}"
        if after:
            self._answer = after
            self._remember(after)
            result["ansible_facts"] = {"luxima_state": self._fact(after)}
        if diff:
            result["diff"] = diff
        return result


def _reason(error: Exception) -> str:
    """What is told of a file on the controller must not be looked for on the host."""
    return f"on the controller: {said(error)}" if isinstance(error, OSError) else str(error)


class _Bundle:
    """The transfer to a host: a directory with the request, small contents in one archive, and big ones; removed at the end."""

    def __init__(
        self,
        action: ActionModule,
        request: Json,
        contents: Mapping[str, bytes],
        blobs: list[tuple[Artifact, Path]],
    ) -> None:
        self.action, self.request, self.contents, self.blobs = action, request, contents, blobs

    def __enter__(self) -> str:
        action, shell = self.action, self.action._connection._shell
        if not shell.tmpdir:
            action._make_tmp_path()
        self.remote = str(shell.tmpdir)
        with tempfile.TemporaryDirectory(dir=C.DEFAULT_LOCAL_TMP) as scratch:
            local = Path(scratch)
            (local / "request.json").write_text(json.dumps(self.request), encoding="utf-8")
            sent = [(local / "request.json", "request.json")]
            if self.contents:
                with tarfile.open(local / "objects.tar", "w") as tar:
                    for number, data in enumerate(self.contents.values()):
                        member = tarfile.TarInfo(str(number))
                        member.size, member.mode = len(data), 0o600
                        tar.addfile(member, BytesIO(data))
                sent.append((local / "objects.tar", "objects.tar"))
            for path, _ in sent:
                path.chmod(0o600)
            sent += [
                (path, blob.sha256 + (".gz" if path.suffix == ".gz" else "")) for blob, path in self.blobs
            ]
            remote = []
            for path, name in sent:
                action._transfer_file(str(path), f"{self.remote}/{name}")
                remote.append(f"{self.remote}/{name}")
            action._fixup_perms2([self.remote, *remote], execute=False)
        return self.remote

    def __exit__(self, *_: object) -> None:
        self.action._remove_tmp_path(self.action._connection._shell.tmpdir)


def _entry(item: Artifact | None, tool: bool) -> Json:
    if item is None:
        return {"sha256": "unknown", "size": 0, "format": "file", "version": "", "tool": tool}
    return {
        "sha256": item.sha256,
        "size": item.size,
        "format": item.format,
        "version": item.version,
        "tool": tool,
    }


def _same(item: Json, have: Json, path: str) -> bool:
    """Whether the host has this content, in this place and unspoilt."""
    old = (have.get("manifest") or {}).get("files", {}).get(path, {})
    spoilt = any(entry["kind"] == "file" and entry["path"] == path for entry in have.get("drift", []))
    return bool(old.get("sha256") == item["sha256"] and not spoilt)
