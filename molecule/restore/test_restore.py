# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Guests are lost one after the other; site.yml makes them anew, restore.yml brings their data back, and nothing is missing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error

from tests.platform import LAB, ROOT, Platform, get, until

RECORDS = ROOT / "reports" / "runs" / "restore"
# A copy: the tests write secrets into it.
HOME = RECORDS / "inventory"
SECRETS = HOME / "group_vars" / "all" / "secrets.yml"
VAULT = RECORDS / "vault-password"


def site() -> Platform:
    """The site as its inventory is now: what a Platform has read, it remembers."""
    return Platform(
        LAB / "00-platform.yml",
        LAB / "10-instance",
        HOME / "hosts.yml",
        options=("-e", "platform_verify=passive", "--vault-id", f"drill@{VAULT}"),
    )


SITE = site()
PLACES = {
    "store": ("pve1", 111, 11),
    "copies": ("pve2", 112, 12),
    "obs": ("pve3", 113, 13),
    "db": ("pve1", 114, 14),
}
TRACE = "5b8aa5a2d2c872e8321cf37308d69df2"
ROWS = "SELECT count(*) || ' ' || md5(string_agg(md5(t::text), '' ORDER BY id)) FROM core.audit_log t"
BALLAST = os.urandom(1 << 20) * 48
LINES = 500


def address(guest: str) -> str:
    return SITE.address(PLACES[guest][2])


def post(url: str, body: Any = None, login: str = "") -> bytes:
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    data = b"" if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return bytes(answer.read())


class Data:
    """What is on the guests, written once and looked at before and after each loss."""

    def __init__(self) -> None:
        self.obs = address("obs")
        self.loki, self.tempo = f"http://{self.obs}:3100", f"http://{self.obs}:3200"
        self.prometheus, self.grafana = f"http://{self.obs}:9090", f"http://{self.obs}:3000"
        self.start = time.time()
        self.log_in()

    def log_in(self) -> None:
        """With the administrators' passwords of the inventory."""
        values = site().values("minio_connection", "grafana_connection")
        key = values["store"]["minio_connection"]
        self.minio = Minio(key["url"].removeprefix("http://"), key["username"], key["password"], secure=False)
        login = values["obs"]["grafana_connection"]
        self.login = f"{login['username']}:{login['password']}"

    def write(self) -> None:
        SITE.on(address("db"), "runuser -u postgres -- createdb shop")
        fill = (
            "CREATE SCHEMA core; CREATE TABLE core.audit_log (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), what text);"
            " INSERT INTO core.audit_log (what) SELECT md5(random()::text) || md5(random()::text) FROM generate_series(1, 300000)"
        )
        SITE.on(address("db"), f'runuser -u postgres -- psql -q -d shop -c "{fill}"')
        for number in range(20):
            board = {"title": f"Made by hand {number}", "panels": []}
            post(f"{self.grafana}/api/dashboards/db", {"dashboard": board, "overwrite": True}, self.login)
        post(f"{self.grafana}/api/admin/users", {"login": "ann", "password": "of-ann-only"}, self.login)
        labels = {
            "job": "drill",
            "service": "drill",
            "log_class": "application",
            "environment": "dev",
            "host": "obs",
        }
        lines = [[str(int(self.start * 1e9) + number), f"line {number}"] for number in range(LINES)]
        post(f"{self.loki}/loki/api/v1/push", {"streams": [{"stream": labels, "values": lines}]})
        span = {
            "traceId": TRACE,
            "spanId": "5fb397be34d26b51",
            "name": "pay",
            "kind": 2,
            "startTimeUnixNano": str(int(self.start * 1e9)),
            "endTimeUnixNano": str(int(self.start * 1e9) + 5_000_000),
        }
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "drill"}}]}
        post(
            f"http://{self.obs}:4318/v1/traces",
            {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]},
        )
        self.minio.put_object("logs-archive", "application/ballast", io.BytesIO(BALLAST), len(BALLAST))
        # Both write what they hold; a loss without warning costs what was only in memory and in their logs.
        with contextlib.suppress(urllib.error.URLError, OSError):
            post(f"{self.loki}/ingester/shutdown?flush=true&terminate=true")
        assert until(self.trace, 60)
        post(f"{self.tempo}/flush")
        assert until(lambda: self.stored("loki", "index/", ".tsdb.gz"), 120, 1), (
            "Loki has not written its index"
        )
        assert until(lambda: self.stored("tempo", "", "/meta.json"), 120, 1), (
            "Tempo has not written its block"
        )
        assert until(lambda: len(self.lines()) == LINES, 90)
        self.minute = time.time()
        time.sleep(12)

    def stored(self, bucket: str, prefix: str, end: str) -> bool:
        """Whether object storage has an object of that kind."""
        found = self.minio.list_objects(bucket, prefix, recursive=True)
        return any(str(one.object_name).endswith(end) for one in found)

    def rows(self) -> str:
        return SITE.on(address("db"), f'runuser -u postgres -- psql -qAt -d shop -c "{ROWS}"')

    def lines(self) -> list[Any]:
        """Nothing while Loki cannot answer."""
        try:
            found = get(
                f"{self.loki}/loki/api/v1/query_range",
                query='{job="drill"}',
                start=str(int(self.start) - 5),
                end=str(int(self.start) + 60),
                limit="1000",
            )
        except (urllib.error.URLError, OSError):
            return []
        return sorted(value for stream in found["data"]["result"] for value in stream["values"])

    def trace(self) -> Any:
        try:
            found = get(f"{self.tempo}/api/traces/{TRACE}")
        except (urllib.error.URLError, OSError):
            return None
        return [
            span["name"]
            for batch in found["batches"]
            for scope in batch["scopeSpans"]
            for span in scope["spans"]
        ]

    def samples(self) -> dict[str, Any]:
        """Of the minutes before the copies were taken."""
        span = {"start": str(int(self.minute)), "end": str(int(self.minute) + 10), "step": "5"}
        found = get(f"{self.prometheus}/api/v1/query_range", query="node_boot_time_seconds", **span)["data"][
            "result"
        ]
        return {row["metric"]["host"]: row["values"] for row in found}

    def boards(self) -> tuple[set[str], set[str]]:
        login = {"Authorization": "Basic " + base64.b64encode(self.login.encode()).decode()}
        boards = get(f"{self.grafana}/api/search?type=dash-db", headers=login)
        users = get(f"{self.grafana}/api/users", headers=login)
        return {one["title"] for one in boards}, {one["login"] for one in users}

    def objects(self) -> dict[str, str]:
        """Digest of every object that is there and does not change by itself."""
        found = {}
        for bucket in ("loki", "tempo", "logs-archive"):
            for one in self.minio.list_objects(bucket, recursive=True):
                name = str(one.object_name)
                if not name.endswith(("_cluster_seed.json", "index.json.gz", "index.pb.zst", ".json")):
                    with self.minio.get_object(bucket, name) as answer:
                        found[f"{bucket}/{name}"] = hashlib.sha256(answer.read()).hexdigest()
        return found


def lose(guest: str) -> None:
    """The guest is gone with its disk, as after the loss of its node."""
    node, vmid, _last = PLACES[guest]
    SITE.api("DELETE", f"nodes/{node}/lxc/{vmid}?force=1&purge=1")

    def gone() -> bool:
        return vmid not in [one["vmid"] for one in SITE.api("GET", f"nodes/{node}/lxc")]

    assert until(gone, 60), f"{guest} is still there"
    state = Path(SITE.lab["lab_state_dir"])
    # The tests' own connections to the guest that is gone.
    for socket in state.glob("test-*"):
        socket.unlink()
    # Its host key stays remembered, as it does on anybody's controller.


def set_key(guest: str, variable: str) -> None:
    """Another key of stored data than the site's, for one guest."""
    place = HOME / "host_vars" / f"{guest}.yml"
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"{variable}: {'s' * 32}\n")


def play(*words: str) -> tuple[float, str]:
    done = SITE.playbook(*words, records=RECORDS, timeout=420)
    assert done.code == 0, done.output
    return done.seconds, done.output


class Report:
    def __init__(self) -> None:
        self.rows: list[str] = []

    def restored(self, component: str, output: str, host: str) -> None:
        size = float(
            SITE.on(
                SITE.address({"store": 11, "obs": 13, "db": 14}[host]),
                f"cd /etc/backup && python3 -B -m backups list {component} | tail -1 | python3 -c 'import json,sys; print(json.load(sys.stdin)[-1][\"size\"])'",
            )
        )
        (told,) = [line for line in output.splitlines() if f"{component}: copy " in line]
        seconds = float(told.partition(" in ")[2].split(" s")[0].rsplit(" ", 1)[-1])
        self.rows.append(
            f"| {component} | {size / 1e6:.1f} MB | {seconds:.1f} s | {seconds / size * 1e9:.0f} s |"
        )

    def event(self, what: str, seconds: float) -> None:
        self.rows.append(f"| {what} | | {seconds:.1f} s | |")


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    made = Report()
    yield made
    head = [
        "# Restore drills",
        "",
        "Guests were lost with their disks, made anew by `site.yml`, and what they held was put back and compared. Seconds per GB are measured",
        "on what the drill holds; with so little data most of it is the stop and the start of the server.",
        "",
        "| what | size | time | per GB |",
        "| --- | --- | --- | --- |",
    ]
    (ROOT / "reports" / "restore.md").write_text("\n".join([*head, *made.rows]) + "\n")


@pytest.fixture(scope="module")
def data(report: Report) -> Data:
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.copytree(Path(__file__).parent / "inventory", HOME)
    VAULT.write_text("of the drill only\n")
    found = Data()
    found.write()
    seconds, _output = play("playbooks/backup.yml")
    report.event("all copies taken (`backup.yml`)", seconds)
    return found


def test_copies_are_measured_and_no_alert_is_due(data: Data) -> None:
    wanted = {("minio", "store"), ("prometheus", "obs"), ("grafana", "obs"), ("postgresql", "db")}

    def told() -> set[tuple[str, str]]:
        rows = SITE.query("platform_backup_last_run_success == 1")
        return {(one["metric"]["backup"], one["metric"]["host"]) for one in rows}

    assert until(lambda: told() == wanted, 60, 1), told()
    assert SITE.query('ALERTS{alertname=~"Backup.*"}') == []


def test_timers_stand_and_a_second_run_changes_nothing(data: Data) -> None:
    timers = SITE.on(address("obs"), "systemctl list-timers --no-legend 'backup-*'")
    assert len(timers.splitlines()) == 2
    # A deployment is not stopped by a run that is under way.
    SITE.on(address("obs"), "flock /var/lib/backup/grafana/lock systemctl restart backup")
    # The unit of a timer does what the playbook does.
    SITE.on(address("obs"), "systemctl start backup-grafana.service")
    assert SITE.playbook("playbooks/deploy.yml", "--tags", "backup").effects() == {}
    _seconds, table = play("playbooks/retention.yml", "--tags", "backup")
    kept = [line for line in table.splitlines() if "timer, backup of" in line and "copies of" not in line]
    assert len([line for line in kept if time.strftime("%Y-%m-%d", time.gmtime(data.start)) in line]) == 4, (
        table
    )


def test_servers_and_database_are_lost(data: Data, report: Report) -> None:
    before = {
        "rows": data.rows(),
        "lines": data.lines(),
        "trace": data.trace(),
        "samples": data.samples(),
        "boards": data.boards(),
    }
    assert before["rows"].startswith("300000 ")
    assert len(before["lines"]) == LINES
    assert before["trace"] == ["pay"]
    assert set(before["samples"]) == {"store", "copies", "obs", "db"}
    assert len([title for title in before["boards"][0] if title.startswith("Made by hand")]) == 20
    lose("obs")
    lose("db")
    # A new server may have a key of its own; what the copy holds is people's, and readable.
    set_key("obs", "grafana_secret_key")
    seconds, _output = play("site.yml")
    report.event("two lost guests made anew (`site.yml`)", seconds)
    # Loki's and Tempo's data were never on the guest.
    assert until(lambda: len(data.lines()) == LINES, 90)
    assert data.lines() == before["lines"]
    assert until(data.trace, 90) == before["trace"]
    # What was on it is gone, and the first copy of the empty guest is refused.
    assert data.samples() == {}
    refused = SITE.playbook("playbooks/backup.yml", "-e", "component=postgresql")
    assert refused.code != 0
    assert "Put it back: playbooks/restore.yml -e component=postgresql" in refused.output
    for component, host in (("postgresql", "db"), ("grafana", "obs"), ("prometheus", "obs")):
        _seconds, output = play("playbooks/restore.yml", "-e", f"component={component}")
        report.restored(component, output, host)
    assert data.rows() == before["rows"]
    assert data.boards() == before["boards"]
    assert data.samples() == before["samples"]


def test_object_storage_is_lost(data: Data, report: Report) -> None:
    before = data.objects()
    assert any(name.startswith("loki/") for name in before)
    assert any(name.startswith("tempo/") for name in before)
    # What Loki and Tempo wrote since the first copy is in this one.
    play("playbooks/backup.yml", "-e", "component=minio")
    # Both compact now and then; what went meanwhile is in no copy that must have it.
    later = data.objects()
    before = {name: digest for name, digest in before.items() if name in later}
    assert "logs-archive/application/ballast" in before
    lose("store")
    # Objects are copied in clear, and encrypted anew.
    set_key("store", "minio_kms_secret_key")
    seconds, _output = play("site.yml")
    report.event("the lost object storage made anew (`site.yml`)", seconds)
    assert data.objects().keys().isdisjoint(before)
    _seconds, output = play("playbooks/restore.yml", "-e", "component=minio")
    report.restored("minio", output, "store")
    after = data.objects()
    assert {name: after.get(name) for name in before} == before
    SITE.on(address("obs"), "systemctl restart loki tempo")
    assert until(lambda: len(data.lines()) == LINES, 120)
    assert until(data.trace, 90) == ["pay"]
    # And the copies of the others came back with it.
    play("playbooks/backup.yml", "-e", "component=grafana")


@contextlib.contextmanager
def lines_written() -> Iterator[list[int]]:
    """A service writes a line five times a second; afterwards the list holds how many there were."""
    count: list[int] = []
    loop = 'n=0; while :; do echo "rotation-line $n"; n=$((n+1)); echo $n >/run/rotation; sleep 0.2; done'
    code = base64.b64encode(loop.encode()).decode()
    start = "systemd-run --collect --quiet --unit=rotation sh /run/rotation.sh"
    SITE.on(address("db"), f"echo {code} | base64 -d >/run/rotation.sh; {start}")
    try:
        yield count
    finally:
        SITE.on(address("db"), "systemctl stop rotation", check=False)
    count.append(int(SITE.on(address("db"), "cat /run/rotation")))


def opens(server: str, pair: dict[str, str], bucket: str) -> bool:
    """Whether a key still opens its bucket."""
    client = Minio(f"{address(server)}:9000", pair["access"], pair["secret"], secure=False)
    with contextlib.suppress(S3Error):
        return next(iter(client.list_objects(bucket)), None) is not None
    return False


def loki_pair() -> dict[str, str]:
    found = site().values("loki_s3_access_key", "platform_buckets")["store"]
    (secret,) = [one["secret_key"] for one in found["platform_buckets"] if one["name"] == "loki"]
    return {"access": found["loki_s3_access_key"], "secret": secret}


def test_secrets_of_every_kind_are_rotated_while_lines_are_written(
    data: Data, report: Report, tmp_path: Path
) -> None:
    before = {"rows": data.rows(), "lines": data.lines(), "trace": data.trace(), "boards": data.boards()}
    minute, samples = data.minute, data.samples()
    held = Path(SITE.lab["lab_state_dir"]) / "secrets"
    given = tmp_path / "given.json"
    given.write_text(json.dumps({file.name: file.read_text().strip() for file in held.iterdir()}))
    place = ("-e", f"platform_secrets_file={SECRETS}")
    # What was made elsewhere moves into the file as it is; nothing changes.
    play("playbooks/secrets.yml", *place, "-e", f"@{given}")
    assert SITE.playbook("playbooks/deploy.yml").effects() == {}
    former, old_login, old_minio = loki_pair(), data.login, data.minio
    with lines_written() as count:
        _seconds, told = play("playbooks/secrets.yml", *place, "-e", "platform_secrets_replace=true")
        assert "minio_kms_secret_key: kept: it protects stored data" in told
        assert "loki_s3_secret_key: made" in told
        done = SITE.playbook("site.yml", records=RECORDS, timeout=420)
        assert done.code == 0, done.output
        report.event("every secret rotated (`secrets.yml`, `site.yml`)", done.seconds)
        restarted = {component for (_host, component), _effect in done.effects().items()}
        assert restarted == {"minio", "loki", "tempo", "grafana", "backup"}
        data.log_in()
        assert until(lambda: data.lines() == before["lines"], 90)
        assert until(data.trace, 90) == before["trace"]
        # The former key opens its bucket until it is retired, so that no consumer is ever without one.
        assert loki_pair()["access"] != former["access"]
        assert opens("store", former, "loki")
        play("playbooks/deploy.yml", "--tags", "minio", "-e", "minio_retire_former_keys=true")
        assert not opens("store", former, "loki")
        assert opens("store", loki_pair(), "loki")
    # Logins change at once.
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post(f"{data.grafana}/api/admin/users", {"login": "eve", "password": "of-eve-only"}, old_login)
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        old_minio.list_buckets()
    assert data.boards() == before["boards"]
    assert (data.minute, data.samples()) == (minute, samples)
    # The copy that was taken with the former keys is read with the present ones.
    play("playbooks/restore.yml", "-e", "component=postgresql", "-e", "restore_overwrite=true")
    assert data.rows() == before["rows"]

    def missing() -> set[int]:
        found = get(
            f"{data.loki}/loki/api/v1/query_range",
            query='{host="db"} |= "rotation-line"',
            since="15m",
            limit="5000",
        )
        texts = [line for stream in found["data"]["result"] for _time, line in stream["values"]]
        numbers = {int(number) for text in texts for number in re.findall(r"rotation-line (\d+)", text)}
        return set(range(count[0])) - numbers

    assert count[0] > 100
    assert until(lambda: not missing(), 60), missing()


def test_a_key_of_stored_data_is_neither_replaced_nor_lost(data: Data) -> None:
    place = address("copies")
    pid = SITE.pids(place, ["minio"])
    other = ("-e", f"minio_kms_secret_key={'0' * 32}", "--limit", "copies")
    for words in (
        ("site.yml", "--check"),
        ("playbooks/deploy.yml",),
        ("playbooks/deploy.yml", "--tags", "minio"),
    ):
        refused = SITE.playbook(*words, *other)
        assert refused.code != 0
        assert (
            "minio_kms_secret_key: what is stored in /var/lib/minio was written with another"
            in refused.output
        )
        assert "Nothing was activated" in refused.output
    assert SITE.pids(place, ["minio"]) == pid
    # Where nobody knows any more which key it was, the server itself cannot read what is there.
    SITE.on(place, "rm -r /opt/luxima/.data-keys; echo >>/etc/minio/environment")
    refused = SITE.playbook("playbooks/deploy.yml", "--tags", "minio", *other)
    assert refused.code != 0
    assert "what is stored cannot be read; is minio_kms_secret_key the one" in " ".join(
        refused.output.split()
    )
    assert "was put back, is proven and serves" in refused.output
    assert SITE.playbook("playbooks/deploy.yml", "--limit", "copies").effects() == {
        ("copies", "minio"): "restarted"
    }
    play("playbooks/backup.yml", "-e", "component=minio")


def test_a_second_run_of_the_site_changes_nothing(data: Data) -> None:
    assert SITE.playbook("playbooks/deploy.yml").effects() == {}
