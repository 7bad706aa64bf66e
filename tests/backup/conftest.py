# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Real servers on loopback, and the program that the role installs, run as the guest's Python runs it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.retention.conftest import JOBS, PLACE, ROOT, Process, free_ports

sys.path.insert(0, str(ROOT / "collections"))
sys.path.insert(0, str(ROOT / "roles/platform/files"))
sys.path.insert(0, str(ROOT / "roles/backup/files"))
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

Json = dict[str, Any]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
KEY, SECRET = "administrator", "a password: for this test"
# Another one that guests may have: GUEST_PYTHON=python3.9
PYTHON = os.environ.get("GUEST_PYTHON", "/usr/bin/python3")


def artifact(name: str, folder: Path) -> Path:
    found = Store(str(CACHE), str(ROOT / "components/lock.yml")).lookup(name, "amd64")
    assert found is not None, f"no artifact {name}: `python tests/suite.py artifacts` fetches it"
    if found.format == "tree":
        place = folder / name
        place.mkdir()
        subprocess.run(["tar", "-xf", str(found.path), "-C", str(place)], check=True)
        return place
    program = folder / name
    shutil.copyfile(found.path, program)
    program.chmod(0o755)
    return program


@dataclass
class Guest:
    """One host in group backup: its folder, its configuration, the program."""

    folder: Path
    name: str = "guest1"
    jobs: Json = field(default_factory=dict)
    secrets: Json = field(default_factory=dict)

    @property
    def textfiles(self) -> Path:
        return self.folder / "textfile"

    def add(
        self,
        job: str,
        source: Json,
        target: Json,
        source_secret: str = "",
        target_secret: str = "",
        **more: Any,
    ) -> None:
        self.jobs[job] = {
            "schedule": "daily",
            "keep_days": 30,
            "max_age": 90000,
            "source": source,
            "target": target,
            **more,
        }
        self.secrets[job] = {"source": source_secret, "target": target_secret}

    def write(self) -> None:
        self.textfiles.mkdir(parents=True, exist_ok=True)
        config = {
            "host": self.name,
            "state_dir": str(self.folder / "state"),
            "textfile_dir": str(self.textfiles),
            "jobs": self.jobs,
        }
        (self.folder / "backup.json").write_text(json.dumps(config))
        (self.folder / "secrets.json").write_text(json.dumps(self.secrets))

    def start(self, *words: str) -> subprocess.Popen[str]:
        self.write()
        return subprocess.Popen(
            [PYTHON, "-B", "-m", "backups", "--folder", str(self.folder), *words],
            env=JOBS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def try_(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def do(self, *words: str) -> Any:
        code, out, err = self.try_(*words)
        assert code == 0, err
        return json.loads(out) if out else None

    def refused(self, *words: str) -> str:
        code, _out, err = self.try_(*words)
        assert code == 1, err
        assert "Traceback" not in err
        return err

    def metrics(self, job: str) -> dict[str, float]:
        found = {}
        for line in (self.textfiles / f"backup-{job}.prom").read_text().splitlines():
            if not line.startswith("#"):
                name, value = line.split()
                assert name.endswith(f'{{backup="{job}"}}')
                found[name.partition("{")[0].removeprefix("platform_backup_")] = float(value)
        return found

    def lose(self, name: str) -> Guest:
        """The guest that was made anew in its place: same name, same jobs, nothing on its disk."""
        folder = self.folder.parent / name
        folder.mkdir()
        return Guest(folder, self.name, dict(self.jobs), dict(self.secrets))


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    folder = tmp_path / "guest1"
    folder.mkdir()
    return Guest(folder)


@dataclass
class ObjectServer:
    url: str
    process: Process

    @property
    def client(self) -> Minio:
        return Minio(self.url.removeprefix("http://"), KEY, SECRET, secure=False)

    def target(self, bucket: str) -> Json:
        return {"url": self.url, "bucket": bucket, "access_key": KEY, "region": ""}

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        return {
            str(one.object_name): self.client.get_object(bucket, str(one.object_name)).read()
            for one in self.client.list_objects(bucket, prefix, recursive=True)
        }


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


def object_server(program: Path, folder: Path) -> ObjectServer:
    port, console = free_ports(2)
    url = f"http://{PLACE}:{port}"
    command = [
        str(program),
        "server",
        f"--address={PLACE}:{port}",
        f"--console-address={PLACE}:{console}",
        str(folder / "data"),
    ]
    environment = {
        "MINIO_ROOT_USER": KEY,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_KMS_SECRET_KEY": "objects:dGhpcnR5LXR3byBjaGFyYWN0ZXJzIG9mIGEga2V5ISE=",
        "MINIO_KMS_AUTO_ENCRYPTION": "on",
        "MINIO_UPDATE": "off",
    }
    return ObjectServer(url, Process("minio", command, f"{url}/minio/health/ready", folder, environment))


@pytest.fixture(scope="session")
def minio_program(programs: Path) -> Path:
    return artifact("minio", programs)


@pytest.fixture(scope="session")
def storage(minio_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """The second server: what copies are sent to."""
    server = object_server(minio_program, tmp_path_factory.mktemp("storage"))
    server.process.start()
    server.client.make_bucket("backups")
    yield server
    server.process.stop()


@pytest.fixture
def live(minio_program: Path, tmp_path: Path) -> Iterator[ObjectServer]:
    """The server whose objects are copied."""
    (tmp_path / "live").mkdir()
    server = object_server(minio_program, tmp_path / "live")
    server.process.start()
    yield server
    server.process.stop()


@dataclass
class Cluster:
    """A PostgreSQL server of its own, with passwords and without the local socket's trust."""

    folder: Path
    port: int
    password: str = "pass:word\\ of a test"

    def source(self, **more: Any) -> Json:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "username": "keeper",
            "user": "",
            "databases": [],
            **more,
        }

    def ask(self, statement: str, database: str = "postgres") -> list[str]:
        words = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "keeper", "-qAt", "-d", database]
        done = subprocess.run(
            [*words, "-v", "ON_ERROR_STOP=1", "-c", statement],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PGPASSWORD": self.password},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def start(self) -> None:
        entry = pwd.getpwnam("postgres")
        os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        file = self.folder / "password"
        file.write_text(self.password)
        file.chmod(0o644)
        self._as_postgres(
            "initdb",
            "-D",
            str(self.folder / "data"),
            "-U",
            "keeper",
            "-A",
            "scram-sha-256",
            f"--pwfile={file}",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        self.run()

    def run(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._as_postgres(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-l",
            str(self.folder / "log"),
            "-o",
            options,
            "-w",
            "start",
        )

    def stop(self, how: str = "immediate") -> None:
        self._as_postgres("pg_ctl", "-D", str(self.folder / "data"), "-m", how, "stop")

    def _as_postgres(self, program: str, *words: str) -> None:
        entry = pwd.getpwnam("postgres")
        done = subprocess.run(
            [str(POSTGRES / program), *words],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def clusters() -> Iterator[Any]:
    """Makes clusters; each is gone at the end. Not below pytest's folder: another user must reach it."""
    made: list[Cluster] = []

    def make() -> Cluster:
        folder = Path(
            subprocess.run(
                ["mktemp", "-d", "/var/tmp/backup-test-XXXXXX"], capture_output=True, text=True, check=True
            ).stdout.strip()
        )
        folder.chmod(0o755)
        cluster = Cluster(folder, free_ports(1)[0])
        cluster.start()
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.stop()
        shutil.rmtree(cluster.folder)
