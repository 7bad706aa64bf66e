# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a change would take from stored data, refused where the change is made, whatever playbook, tag or limit led to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display
from ansible_collections.luxima.observability.plugins.module_utils._component import kept
from ansible_collections.luxima.observability.plugins.module_utils._component.manifest import plain
from ansible_collections.luxima.observability.plugins.module_utils._retention import rendered, shorten, task
from ansible_collections.luxima.observability.plugins.plugin_utils import confirmations

Json = dict[str, Any]

# A server that does not answer in this time (seconds) is not waited for: its installed files say what it would.
TIMEOUT = 5.0
# What is asked of the servers, before any is named.
NOBODY: Json = {
    **{store: [] for store in ("prometheus", "loki", "tempo", "minio", "postgresql", "backup")},
    "timeout": TIMEOUT,
}


@dataclass(frozen=True)
class Protection:
    """Of one host's data in one task. `evaluate` gives a variable's value among `variables`, `command` the host's answer to words."""

    subject: str
    variables: Mapping[str, Any]
    evaluate: Callable[[Any], Any]
    check: bool
    loader: Any
    command: Callable[[list[str]], str] = lambda words: ""

    # What the inventory says

    def value(self, name: str, default: Any = None) -> Any:
        """A variable's value, plain."""
        return plain(self.evaluate(self.variables[name])) if name in self.variables else default

    def said(self, name: str) -> Any:
        """A confirmation that this run gives; empty when there is none."""
        standing = confirmations.standing(name, self.variables, self.subject, self.loader)
        return "" if standing else self.value(name, "")

    @property
    def protected(self) -> bool:
        return bool(boolean(self.value("platform_protected", False) or False, strict=False))

    @property
    def confirmed(self) -> bool:
        """Whether a run says that data may be deleted earlier."""
        said = self.said("platform_retention_shorten_confirmed")
        return bool(said) and said == self.value("platform_environment")

    def storage(self) -> list[Json]:
        """The object storage that holds the data, as its administrator sees it; whatever is selected by tags."""
        hosts = (self.variables.get("groups") or {}).get("minio") or []
        try:
            own = self.variables["hostvars"][hosts[0]] if hosts else {}
            connection, buckets = plain(own["minio_connection"]), plain(own["platform_buckets"])
        except (AnsibleError, KeyError):
            return []
        return [{**connection, "buckets": [_bucket(one) for one in buckets]}]

    def _storage_of(self, name: str) -> list[Json]:
        """The same as far as this consumer knows it, where its bucket is on somebody else's server."""
        storage = self.storage()
        try:
            url = str(self.value(f"{name}_s3_url", "") or "").rstrip("/")
            if not url or any(str(one["url"]).rstrip("/") == url for one in storage):
                return storage
            bucket = {"name": self.value(f"{name}_bucket", name), "consumer": name}
            return [
                {
                    "url": url,
                    "region": self.value(f"{name}_s3_region", ""),
                    "ca_file": self.value(f"{name}_s3_ca_file", ""),
                    "username": self.value(f"{name}_s3_access_key", ""),
                    "password": self.value(f"{name}_s3_secret_key", ""),
                    "buckets": [_bucket(bucket)],
                }
            ]
        except AnsibleError:
            return storage

    # A component

    def purge(self, name: str) -> None:
        """Refuses to remove data of a protected environment."""
        if self.protected:
            raise AnsibleActionFail(
                f"component {name} on {self.subject}: environment {self.value('platform_environment', '')} is protected; "
                "to remove data all the same, add: -e platform_protected=false"
            )

    def first(self, name: str, data: Json, after: kept.Release) -> None:
        """Refuses to begin on data that somebody left, where it would be deleted or nobody knows how long it was to be kept."""
        store = data.get("store", "")
        if not self.protected or self.confirmed:
            return
        if store == "prometheus":
            self._left(name, data, after)
        if store not in ("loki", "tempo"):
            return
        stores = task.Stores({**NOBODY, "minio": self._storage_of(name)})
        if task.holds_data(stores, store):
            self._refuse(
                f"component {name} on {self.subject}: bucket {stores.bucket(store)} holds data, and no release on this host says how long it is kept; "
                f"what would be deployed may delete it earlier.\n{self._way_out()}"
            )

    def _left(self, name: str, data: Json, after: kept.Release) -> None:
        """The same of blocks of metrics that a removal left, for example."""
        try:
            time = self._periods(name, data, after)["prometheus"]["time"]
        except ValueError as error:
            raise AnsibleActionFail(
                f"component {name} on {self.subject}: {error}. Nothing was touched."
            ) from None
        found = []
        for directory in after.directories:
            script = 'for one in "$1"/*/meta.json; do test ! -f "$one" || cat "$one"; done'
            metas = _documents(self.command(["sh", "-c", script, "sh", directory]))
            found += shorten.blocks(directory, metas, time, self.subject)
        self.refuse_shorter(f"component {name} on {self.subject}", found, {})

    def change(self, name: str, data: Json, before: kept.Release, after: kept.Release) -> None:
        """Refuses what would make stored data unreadable and, in a protected environment, what would delete it earlier."""
        today = time.strftime("%Y-%m-%d", time.gmtime())
        broken = kept.broken(name, data, before, after, today)
        # The variable that says where the directory is to be now.
        moved = [path for path in after.directories if path not in before.directories]
        said = [own for own, value in self.variables.items() if own.startswith(f"{name}_") and value in moved]
        broken = [
            one.replace("directories:", f"{said[0]}:", 1) if said and one.startswith("directories:") else one
            for one in broken
        ]
        said_of = confirmations.names(self.said("platform_data_change_confirmed"))
        if broken and not {name, f"{name}@{self.subject}"} & set(said_of):
            self._refuse(
                f"component {name} on {self.subject}: stored data could not be found or read any more:\n"
                + "".join(f"- {one}\n" for one in broken)
                + f"Where nothing was stored yet, or it was moved or may be lost, add: -e platform_data_change_confirmed={name}"
            )
        if not data.get("store"):
            return
        try:
            want = self._periods(name, data, after)
        except ValueError as error:
            raise AnsibleActionFail(
                f"component {name} on {self.subject}: {error}. Nothing was touched."
            ) from None
        try:
            have = self._periods(name, data, before)
        except ValueError:
            # What cannot be read, its server says.
            have = None
        if have is not None and have != want:
            self._together(name, data)
        if self.protected:
            self._shorter(name, data, want, have)

    def _periods(self, name: str, data: Json, release: kept.Release) -> Json:
        texts = [release.texts.get(f"etc/{path}") for path in data["files"]]
        return rendered.periods(
            data["store"], texts, release.texts.get(kept.unit_path(name)) or "", release.hidden
        )

    def _shorter(self, name: str, data: Json, want: Json, have: Json | None) -> None:
        arguments: Json = {**NOBODY}
        found = (
            self._reported(data, want, arguments)
            if data.get("report")
            else self._asked(data, want, have, arguments)
        )
        if found is None:
            # Nobody who could say what goes.
            found, arguments = rendered.shortened(data["store"], want, have, self.subject) if have else [], {}
        if found:
            self.refuse_shorter(f"component {name} on {self.subject}", found, arguments)

    def _asked(
        self, data: Json, want: Json, have: Json | None, arguments: Json
    ) -> list[shorten.Shortening] | None:
        """What the running server would keep shorter; None when it does not answer."""
        try:
            connection = self.value(data.get("connection", ""))
        except AnsibleError:
            connection = None
        if not connection:
            return None
        store = data["store"]
        arguments[store] = [connection]
        if store == "loki" and have:
            # Loki has no page that lists its tenants.
            names = {*want["loki"]["tenants"], *have["loki"]["tenants"]}
            want = {"loki": {**want["loki"], "tenants": sorted(names)}}
        return task.in_force(store, want, connection, TIMEOUT)

    def _reported(self, data: Json, want: Json, arguments: Json) -> list[shorten.Shortening] | None:
        """The same of a job of the host, which counts what would go; None when it cannot say."""
        asked = [f"--period={one['table']}={one['period']}" for one in want.get("tables", [])]
        try:
            report = json.loads(self.command([*data["report"], *asked]))
        except ValueError:
            return None
        store, compare = ("postgresql", shorten.tables) if "tables" in want else ("backup", shorten.copies)
        arguments[store] = [{"server": self.subject, "report": report}]
        return compare(want, self.subject, report)

    def _together(self, name: str, data: Json) -> None:
        """Says before anything begins that others keep the same data, when this run leaves them out."""
        run, skipped = (set(self.variables.get(f"ansible_{kind}_tags") or []) for kind in ("run", "skip"))
        groups = self.variables.get("groups") or {}
        others = [one for one in data.get("together", []) if groups.get(one)]
        left = [one for one in others if one in skipped or not {"all", one} & run]
        limited = [] if left or not self.variables.get("ansible_limit") else others
        if left or limited:
            why = "which these tags leave out" if left else "which --limit may leave out"
            Display().warning(
                f"{name} on {self.subject}: periods change, and {', '.join(left or limited)} keeps the same data for them, {why}; "
                f"run them too (--tags {','.join([name, *others])}), or playbooks/retention.yml will find the difference"
            )

    # Both

    def refuse_shorter(self, what: str, found: list[shorten.Shortening], arguments: Json) -> None:
        """Refuses shortenings unless the run confirms them; with what they take, as the stores in `arguments` (if any) can say."""
        if self.confirmed or not self.protected:
            return
        if arguments:
            stores = task.Stores({**arguments, "minio": arguments["minio"] or self.storage()})
            rows = [row for one in found for row in task.priced(stores, one)]
        else:
            rows = [shorten.described(one, "unknown (it does not answer)") for one in found]
        if rows:
            self._refuse(
                f"{what}: what would be deployed deletes data earlier than what is in force:\n{shorten.table(rows)}\n{self._way_out()}"
            )

    def _way_out(self) -> str:
        return shorten.way_out(str(self.value("platform_environment") or "<platform_environment>"))

    def _refuse(self, words: str) -> None:
        if not self.check:
            raise AnsibleActionFail(f"{words}\nNothing was touched.")
        Display().warning(f"the run itself will be refused: {words}")


def _documents(text: str) -> list[Json]:
    """Blocks as they describe themselves, one document after the other; what is none ends it."""
    found: list[Json] = []
    decoder, rest = json.JSONDecoder(), text.lstrip()
    while rest:
        try:
            one, end = decoder.raw_decode(rest)
        except ValueError:
            break
        if isinstance(one, dict) and {"minTime", "maxTime"} <= one.keys():
            found.append(one)
        rest = rest[end:].lstrip()
    return found


def _bucket(one: Mapping[str, Any]) -> Json:
    """Without the consumer's secret."""
    return {"name": one["name"], "consumer": one.get("consumer", ""), "lifecycle": one.get("lifecycle")}
