# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Around each start of Grafana: what its own configuration does only when it makes its database.

`before`: data sources that were provisioned and are no longer declared are named for deletion, which only provisioning
may do; the administrator's password is set. `after`: the administrator gets the name of the configuration.
Runs as Grafana's user, with the standard library. Reads /etc/grafana/start.json.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import sqlite3
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]

HOME = Path("/etc/grafana")
# Grafana's first account. Its password and its name are the configuration's.
ADMIN = 1
# How Grafana names and addresses that account when nothing else was said.
USUAL = ("admin", "admin@localhost")


class Start:
    """`data`, `home` (of the program), `url`, `ca_file`, `admin_user`, `datasources` (names) and the password's file."""

    def __init__(self, settings: Json, home: Path = HOME) -> None:
        self._settings = settings
        self._home = home
        self._data = Path(settings["data"])
        self._known = self._data / "provisioned.json"
        self._password = (home / "secrets" / "admin-password").read_text(encoding="utf-8").strip("\n")

    # Before

    def before(self) -> None:
        self._provision()
        self._set_password()

    def _provision(self) -> None:
        """The folder that Grafana provisions from: links to what is declared, and what is to be deleted."""
        folder = self._data / "provisioning"
        shutil.rmtree(folder, ignore_errors=True)
        for file in sorted((self._home / "provisioning").rglob("*.yml")):
            place = folder / file.relative_to(self._home / "provisioning")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
        for kind in ("alerting", "notifiers", "plugins"):
            # Grafana complains of a folder that is missing.
            (folder / kind).mkdir(parents=True, exist_ok=True)
        declared = self._declared()
        gone = sorted(self._provisioned() - declared)
        self._remember(declared | set(gone))
        if gone:
            # A dollar would name a variable.
            entries = [{"name": name.replace("$", "$$"), "orgId": 1} for name in gone]
            text = json.dumps({"apiVersion": 1, "deleteDatasources": entries})
            (folder / "datasources" / "00-removed.yml").write_text(text, encoding="utf-8")
            print(f"no longer declared, deleted: {', '.join(gone)}")

    def _declared(self) -> set[str]:
        # As provisioning writes a dollar.
        return {str(name).replace("$$", "$") for name in self._settings["datasources"]}

    def _provisioned(self) -> set[str]:
        """Names of the data sources that came by provisioning: what this program knows, and what the database says."""
        found: set[str] = set()
        with contextlib.suppress(FileNotFoundError, ValueError):
            found |= set(json.loads(self._known.read_text(encoding="utf-8")))
        rows = self._rows("SELECT name FROM data_source WHERE read_only = 1 AND org_id = 1")
        return found | {str(row[0]) for row in rows}

    def _remember(self, names: set[str]) -> None:
        temporary = self._known.with_suffix(".new")
        temporary.write_text(json.dumps(sorted(names)), encoding="utf-8")
        temporary.replace(self._known)

    def _rows(self, query: str) -> list[Any]:
        """Of Grafana's own database file; nothing where there is none (yet)."""
        file = self._data / "grafana.db"
        if not file.is_file():
            return []
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=10)
            ) as database:
                return database.execute(query).fetchall()
        except sqlite3.Error:
            return []

    def _set_password(self) -> None:
        """By Grafana's own program. It makes the database too, and fails at that when the second ends between its first
        organization and the look for it; the next attempt succeeds."""
        program, home = f"{self._settings['home']}/bin/grafana", str(self._settings["home"])
        command = [
            program,
            "cli",
            "--homepath",
            home,
            "--config",
            str(self._home / "grafana.ini"),
            "admin",
            "reset-admin-password",
            "--password-from-stdin",
        ]
        for last in (False, True):
            done = subprocess.run(command, input=f"{self._password}\n".encode(), check=False)
            if not done.returncode:
                return
            if last:
                raise SystemExit(f"{program} could not set the administrator's password")

    # After

    def after(self, patience: float) -> None:
        self._wait(patience)
        self._remember(self._declared())
        wanted = str(self._settings["admin_user"])
        status, _answer = self._ask("GET", "/api/user", wanted)
        if status == 200:
            return
        rows = self._rows("SELECT login FROM user WHERE id = 1")
        for name in dict.fromkeys([*(str(row[0]) for row in rows), *USUAL]):
            status, account = self._ask("GET", f"/api/users/{ADMIN}", name)
            if status == 200:
                self._rename(name, account, wanted)
                return
        raise SystemExit(
            f"the administrator's account was found neither as {wanted} nor as {', '.join(USUAL)}"
        )

    def _wait(self, patience: float) -> None:
        end = time.monotonic() + patience
        # Named by systemd, which waits for this program before it says that the server has ended.
        server = os.environ.get("MAINPID", "")
        while True:
            if server and not Path("/proc", server).exists():
                raise SystemExit("Grafana has ended")
            status, answer = self._ask("GET", "/api/health")
            if status == 200 and answer.get("database") == "ok":
                return
            if time.monotonic() > end:
                raise SystemExit(f"Grafana does not answer after {patience:g} s")
            time.sleep(0.2)

    def _rename(self, name: str, account: Json, wanted: str) -> None:
        body = {"login": wanted, "name": account.get("name") or "", "email": account.get("email") or ""}
        status, answer = self._ask("PUT", f"/api/users/{ADMIN}", name, body)
        if status != 200:
            raise SystemExit(
                f"grafana_admin_user: {name} could not be renamed to {wanted}: {status} {answer.get('message', '')}; "
                f"if {wanted} is the name of another account, delete that account or choose another name"
            )
        print(f"the administrator {name} is called {wanted} from now on")

    def _ask(self, method: str, path: str, name: str = "", body: Json | None = None) -> tuple[int, Json]:
        """Status (0: nobody answered) and answer."""
        parts = urlsplit(str(self._settings["url"]))
        connection: http.client.HTTPConnection
        try:
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=self._settings.get("ca_file") or None)
                # Asked over loopback, by an address that no certificate names.
                context.check_hostname = False
                connection = http.client.HTTPSConnection(
                    str(parts.hostname), parts.port, timeout=10, context=context
                )
            else:
                connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
            headers = {"Content-Type": "application/json"}
            if name:
                pair = base64.b64encode(f"{name}:{self._password}".encode()).decode()
                headers["Authorization"] = f"Basic {pair}"
            with contextlib.closing(connection):
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                response = connection.getresponse()
                answer = json.loads(response.read() or b"{}")
                return response.status, answer if isinstance(answer, dict) else {}
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}


def main() -> None:
    settings = json.loads((HOME / "start.json").read_text(encoding="utf-8"))
    start = Start(settings)
    if sys.argv[1] == "before":
        start.before()
    else:
        start.after(float(settings["patience"]))


if __name__ == "__main__":
    main()
