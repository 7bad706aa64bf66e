# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The archive: lines of a real Loki in a real bucket, by class and day, with a key that cannot delete."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error

from .conftest import JOBS, Platform, ask, module, until

BUCKET = "logs-archive"
DAY = 86400
# More lines of one day than Loki gives at once, some of them of one moment.
MANY = 2500
PAGE = 1000


@pytest.fixture(scope="module")
def home(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the job, beside a Loki with lines of the last days."""
    entry = next(one for one in platform.variables["platform_buckets"] if one["name"] == BUCKET)
    folder = tmp_path_factory.mktemp("archive")
    (folder / "textfile").mkdir()
    target = {
        "url": platform.urls["minio"],
        "bucket": BUCKET,
        "access_key": entry["access_key"],
        "region": "us-east-1",
    }
    job = {
        "loki": {"url": platform.urls["loki"]}, "tenants": [], "partition": "day", "settle": 0, "page": PAGE, "target": target,
        "classes": {"web": {"selector": '{log_class="web", host="archive"}', "days": 4, "kept_days": 30}, "audit": {"selector": '{log_class="audit", host="archive"}', "days": 4, "kept_days": 90}},
        "schedule": "daily", "delay": "0", "max_age": 97200, "locks": {},
    }  # fmt: skip
    config = {"state_dir": str(folder / "state"), "textfile_dir": str(folder / "textfile"), "jobs": {"archive": job}}  # fmt: skip
    (folder / "retention.json").write_text(json.dumps(config))
    (folder / "secrets.json").write_text(json.dumps({"archive": {"target": entry["secret_key"]}}))
    loki = platform.processes["loki"]
    loki.start()
    try:
        push(platform, "web", [(noon(2) + min(n, MANY - 300) * 1000, f"line {n}") for n in range(MANY)])
        push(platform, "audit", [(noon(1), "who did what ü"), (int(time.time() * 1e9), "today")])
        ask(f"{platform.urls['loki']}/flush", "POST")
        until("the lines in object storage", lambda: len(platform.objects("loki", "fake/")) >= 2)
        loki.stop()
        loki.start()
        yield folder
    finally:
        loki.stop()


def noon(days: int) -> int:
    """Nanoseconds of a noon some days ago."""
    return int((time.time() // DAY - days) * DAY + DAY / 2) * 10**9


def push(platform: Platform, name: str, lines: list[tuple[int, str]]) -> None:
    stream = {"log_class": name, "host": "archive", "job": "test"}
    body = {"streams": [{"stream": stream, "values": [[str(at), line] for at, line in lines]}]}
    url = f"{platform.urls['loki']}/loki/api/v1/push"
    ask(url, "POST", json.dumps(body).encode(), Content_Type="application/json")


def upkeep(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", "upkeep", "--folder", str(home), *words],
        env=JOBS,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def day(days: int) -> str:
    return datetime.fromtimestamp(noon(days) / 1e9, timezone.utc).strftime("%Y/%m/%d")


def content(platform: Platform, name: str) -> bytes:
    answer = platform.minio.get_object(BUCKET, name)
    try:
        return bytes(answer.read())
    finally:
        answer.release_conn()


def archived(platform: Platform, place: str) -> list[dict[str, Any]]:
    names = sorted(name for name in platform.objects(BUCKET, f"{place}/") if name.endswith(".gz"))
    text = b"".join(gzip.decompress(content(platform, name)) for name in names)
    return [json.loads(line) for line in text.decode().splitlines()]


def test_every_line_of_a_day_that_is_over_is_in_the_archive_once(platform: Platform, home: Path) -> None:
    done = upkeep(home, "run", "archive")
    assert done.returncode == 0, done.stderr
    lines = archived(platform, f"web/{day(2)}")
    assert sorted(int(one["line"].split()[1]) for one in lines) == list(range(MANY))
    (one,) = archived(platform, f"audit/{day(1)}")
    assert one["line"] == "who did what ü"
    assert one["timestamp"] == str(noon(1))
    assert one["labels"]["log_class"] == "audit"
    # The present day is not over.
    assert not platform.objects(BUCKET, f"audit/{day(0)}/")
    manifest = json.loads(content(platform, f"web/{day(2)}/manifest.json"))
    assert manifest["lines"] == sum(file["lines"] for file in manifest["files"]) == MANY
    assert manifest["class"] == "web"
    assert "Loki" in manifest["source"]
    assert json.loads(upkeep(home, "check", f"web/{day(2)}").stdout)["lines"] == MANY
    told = (home / "textfile" / "retention-archive.prom").read_text()
    assert 'platform_retention_last_run_success{job_name="archive"} 1' in told


def test_a_second_run_copies_nothing_and_one_after_a_kill_goes_on(platform: Platform, home: Path) -> None:
    assert json.loads(upkeep(home, "run", "archive").stdout) == {"partitions": 0, "lines": 0, "bytes": 0}
    # What a run leaves that is killed between a file and its manifest.
    place = f"web/{day(2)}"
    platform.minio.remove_object(BUCKET, f"{place}/manifest.json")
    platform.minio.put_object(BUCKET, f"{place}/0001.jsonl.gz", io.BytesIO(b"half"), 4)
    done = json.loads(upkeep(home, "run", "archive").stdout)
    assert (done["partitions"], done["lines"]) == (1, MANY)
    assert len(archived(platform, place)) == MANY
    # The former content is still there as a version.
    versions = platform.minio.list_objects(BUCKET, f"{place}/0001", include_version=True)
    assert len(list(versions)) >= 3


def test_damage_is_found(platform: Platform, home: Path) -> None:
    place = f"audit/{day(1)}"
    good = content(platform, f"{place}/0001.jsonl.gz")
    platform.minio.put_object(BUCKET, f"{place}/0001.jsonl.gz", io.BytesIO(b"damaged"), 7)
    done = upkeep(home, "check", place)
    assert done.returncode == 1
    assert f"{place}/0001.jsonl.gz is not what its manifest says" in done.stderr
    platform.minio.put_object(BUCKET, f"{place}/0001.jsonl.gz", io.BytesIO(good), len(good))


def test_the_key_of_the_job_adds_to_the_archive_and_takes_nothing_away(
    platform: Platform, home: Path
) -> None:
    entry = next(one for one in platform.variables["platform_buckets"] if one["name"] == BUCKET)
    own = Minio(
        platform.urls["minio"].removeprefix("http://"), entry["access_key"], entry["secret_key"], secure=False
    )
    some = next(iter(platform.objects(BUCKET, "web/")))
    with pytest.raises(S3Error) as refused:
        own.remove_object(BUCKET, some)
    assert refused.value.code == "AccessDenied"
    with pytest.raises(S3Error):
        list(own.list_objects("loki"))
    assert some in platform.objects(BUCKET, "web/")


def test_a_loki_that_is_away_fails_the_run_and_the_archive_stays(platform: Platform, home: Path) -> None:
    before = platform.objects(BUCKET, "")
    platform.minio.remove_object(BUCKET, f"audit/{day(1)}/manifest.json")
    loki = platform.processes["loki"]
    loki.stop()
    try:
        done = upkeep(home, "run", "archive")
    finally:
        loki.start()
    assert done.returncode == 1
    assert f"{platform.urls['loki']} does not answer" in done.stderr
    assert (
        'last_run_success{job_name="archive"} 0' in (home / "textfile" / "retention-archive.prom").read_text()
    )
    assert before - platform.objects(BUCKET, "") == {f"audit/{day(1)}/manifest.json"}
    assert upkeep(home, "run", "archive").returncode == 0
    assert platform.objects(BUCKET, "") == before


def test_archived_lines_of_a_locked_class_stay_until_their_period_is_over(
    platform: Platform, home: Path
) -> None:
    entry = {"name": "locked-archive", "access_key": "locker", "secret_key": "a secret of its own"}
    done = module(
        "bucket",
        connection=platform.storage,
        buckets=[{**entry, "key_deletes": False, "object_lock": True}],
    )
    assert done["changed"], done
    config, secrets = home / "retention.json", home / "secrets.json"
    former = config.read_text(), secrets.read_text()
    changed = json.loads(former[0])
    changed["jobs"]["archive"]["target"] |= {"bucket": entry["name"], "access_key": entry["access_key"]}
    changed["jobs"]["archive"]["locks"] = {"audit": "compliance"}
    secrets.write_text(json.dumps({"archive": {"target": entry["secret_key"]}}))
    try:
        config.write_text(json.dumps(changed))
        assert upkeep(home, "run", "archive").returncode == 0
        changed["jobs"]["archive"]["locks"] = {"nobody": "governance"}
        config.write_text(json.dumps(changed))
        assert (
            "platform_archive_locks.nobody: the archive keeps no such class"
            in upkeep(home, "validate").stderr
        )
    finally:
        config.write_text(former[0])
        secrets.write_text(former[1])
    found = list(platform.minio.list_objects(entry["name"], recursive=True, include_version=True))
    locked = [one for one in found if one.object_name.startswith("audit/")]
    assert {one.object_name.split("/")[0] for one in found} == {"audit", "web"}
    for one in locked:
        kept = platform.minio.get_object_retention(entry["name"], one.object_name, one.version_id)
        days = (kept.retain_until_date - datetime.now(timezone.utc)).total_seconds() / DAY
        assert (kept.mode, 89.9 < days <= 90) == ("COMPLIANCE", True)
        with pytest.raises(S3Error):
            platform.minio.remove_object(entry["name"], one.object_name, one.version_id)
    free = next(one for one in found if one.object_name.startswith("web/"))
    platform.minio.remove_object(entry["name"], free.object_name, free.version_id)
