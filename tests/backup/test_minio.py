# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Objects of one real server, copied to another target and put into a third that is empty."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.backup.conftest import KEY, SECRET, Guest, ObjectServer, object_server
from tests.retention.conftest import until

BIG = os.urandom(40 << 20)
STRANGE = "fake/a b+c%20d/é=?&'\"~.json"


def put(server: ObjectServer, bucket: str, key: str, content: bytes, **more: Any) -> None:
    server.client.put_object(bucket, key, io.BytesIO(content), len(content), **more)


def filled(server: ObjectServer) -> ObjectServer:
    for bucket in ("loki", "tempo", "empty"):
        server.client.make_bucket(bucket)
    put(
        server,
        "loki",
        "index/1.gz",
        b"one" * 1000,
        content_type="application/gzip",
        metadata={"x-amz-meta-Who": "loki"},
    )
    put(server, "loki", STRANGE, b"strange")
    put(server, "loki", "nothing", b"")
    put(server, "tempo", "data.parquet", BIG)
    for number in range(40):
        put(server, "loki", f"fake/{number}", b"%d" % number * 500)
    # The listing of a copy stops at its own second.
    time.sleep(1.1)
    return server


def job(guest: Guest, server: ObjectServer, target: dict[str, Any], **more: Any) -> None:
    source = {
        "connection": {"url": server.url, "access_key": KEY, "region": ""},
        "buckets": [],
        "program": "",
    }
    guest.add("minio", source, target, SECRET, SECRET, **more)


def everything(server: ObjectServer) -> dict[str, dict[str, str]]:
    return {
        bucket.name: {
            key: hashlib.sha256(content).hexdigest() for key, content in server.objects(bucket.name).items()
        }
        for bucket in server.client.list_buckets()
    }


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_a_lost_server_comes_back_from_either_kind_of_target(
    kind: str, live: ObjectServer, storage: ObjectServer, minio_program: Path, guest: Guest, tmp_path: Path
) -> None:
    filled(live)
    guest.name = f"lost-{kind}"
    target = {"directory": str(tmp_path / "copies")} if kind == "directory" else storage.target("backups")
    job(guest, live, target)
    told = guest.do("run", "minio")
    before = everything(live)
    assert told["size"] == 40 * 1000 - 10 * 500 + 3000 + 7 + len(BIG)
    again = guest.do("run", "minio") if kind == "bucket" else None
    assert again is None or again["added"] == 0

    (tmp_path / "new").mkdir()
    empty = object_server(minio_program, tmp_path / "new")
    empty.process.start()
    try:
        # The new server's consumers have begun to write: what is theirs stays.
        empty.client.make_bucket("loki")
        put(empty, "loki", "index/1.gz", b"of the new one")
        new = guest.lose("new-guest")
        job(new, empty, target)
        done = new.do("restore", "minio")
        assert (done["kept"], done["size"]) == (1, told["size"] - 3000)
        after = everything(empty)
        assert after["loki"].pop("index/1.gz") != before["loki"].pop("index/1.gz")
        assert after == before
        new.do("restore", "--overwrite", "minio")
        assert empty.objects("loki", "index/")["index/1.gz"] == b"one" * 1000
        stat = empty.client.stat_object("loki", "index/1.gz")
        assert (stat.content_type, stat.metadata["x-amz-meta-who"]) == ("application/gzip", "loki")
    finally:
        empty.process.stop()


def test_every_copy_is_a_state_of_its_own(live: ObjectServer, guest: Guest, tmp_path: Path) -> None:
    filled(live)
    job(guest, live, {"directory": str(tmp_path / "copies")}, keep_days=14)
    first = guest.do("run", "minio")
    live.client.remove_object("loki", "fake/1")
    put(live, "loki", "fake/2", b"changed")
    time.sleep(1.2)
    second = guest.do("run", "minio")
    # What the controller is told of it.
    kept = guest.do("report")["minio"]
    assert (kept["keep_days"], kept["copies"], kept["oldest"] < kept["last_success"]) == (14, 2, True)
    # Only what changed was sent.
    assert (second["added"], second["files"]) == (len(b"changed"), first["files"] - 1)
    guest.do("restore", "--overwrite", "--copy", first["id"], "minio")
    assert live.objects("loki", "fake/2")["fake/2"] == b"2" * 500
    assert live.objects("loki", "fake/1") != {}
    assert "there is no copy 20000101T000000Z" in guest.refused(
        "restore", "--overwrite", "--copy", "20000101T000000Z", "minio"
    )


def test_copies_that_are_not_there_any_more_are_missed(
    live: ObjectServer, guest: Guest, tmp_path: Path
) -> None:
    """The disk of the copies is not mounted: a run that began anew would fill the one below it."""
    filled(live)
    disk, place = tmp_path / "disk", tmp_path / "copies"
    job(guest, live, {"directory": str(place)})
    guest.do("run", "minio")
    place.rename(disk)
    place.mkdir()
    told = guest.refused("run", "minio")
    assert f"{place}/minio/guest1 held 1 copies after the last run and holds none now" in told
    assert "backup_adopt=true" in told
    assert list(place.iterdir()) == []
    place.rmdir()
    disk.rename(place)
    time.sleep(1.1)
    guest.do("run", "minio")
    assert guest.do("report")["minio"]["copies"] == 2
    # Another target has none yet, which is as it should be; and what is gone for good is said to be.
    job(guest, live, {"directory": str(disk)})
    guest.do("run", "minio")
    shutil.rmtree(disk)
    guest.do("run", "--adopt", "minio")


def test_a_killed_run_leaves_no_copy_and_the_next_goes_on(
    live: ObjectServer, guest: Guest, tmp_path: Path
) -> None:
    live.client.make_bucket("loki")
    for number in range(60):
        put(live, "loki", f"fake/{number:02}", os.urandom(2 << 20))
    time.sleep(1.1)
    copies = tmp_path / "copies"
    job(guest, live, {"directory": str(copies)})
    process = guest.start("run", "minio")
    journal = guest.folder / "state" / "minio" / "progress.jsonl"

    def copied() -> int:
        lines = journal.read_text().splitlines() if journal.exists() else []
        return sum(line.endswith("}") and "fake/" in line for line in lines)

    until("some objects copied", lambda: copied() >= 10, 30)
    process.kill()
    process.communicate()
    done = copied()
    assert 10 <= done < 60, "killed too late to show anything"
    assert guest.do("list", "minio") == []
    told = guest.do("run", "minio")
    # 2 MB each; at most four were on their way.
    assert told["added"] <= (60 - done) * (2 << 20)
    assert told["size"] == 60 * (2 << 20)
    assert guest.do("check", "minio")["id"] == told["id"]
    assert not journal.exists()


def test_old_copies_go_and_the_last_good_one_stays(live: ObjectServer, guest: Guest, tmp_path: Path) -> None:
    live.client.make_bucket("loki")
    put(live, "loki", "a", b"first")
    time.sleep(1.1)
    copies = tmp_path / "copies"
    folder = copies / "minio" / guest.name / "copies"
    job(guest, live, {"directory": str(copies)}, keep_days=14)
    first = guest.do("run", "minio")
    # As if it had been taken long ago.
    old = folder / "20200101T000000Z.json.gz"
    (folder / f"{first['id']}.json.gz").rename(old)
    put(live, "loki", "a", b"second")
    time.sleep(1.1)
    live.process.stop()
    assert "Connection refused" in guest.refused("run", "minio")
    assert old.exists(), "the last good copy went although there is no new one"
    live.process.start()
    second = guest.do("run", "minio")
    assert [copy["id"] for copy in guest.do("list", "minio")] == [second["id"]]
    blobs = [path for path in (copies / "minio" / guest.name / "blobs").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in blobs) == len(b"second")
    metrics = guest.metrics("minio")
    assert (metrics["copies"], metrics["size_bytes"], metrics["last_run_success"]) == (1, 6, 1)
    assert abs(metrics["last_success_timestamp_seconds"] - time.time()) < 60


def test_damage_is_found_and_no_damaged_copy_is_put_back(
    live: ObjectServer, guest: Guest, tmp_path: Path
) -> None:
    live.client.make_bucket("loki")
    put(live, "loki", "a", b"content")
    time.sleep(1.1)
    job(guest, live, {"directory": str(tmp_path / "copies")})
    guest.do("run", "minio")
    (blob,) = [path for path in (tmp_path / "copies").rglob("blobs/*/*") if path.is_file()]
    blob.write_bytes(b"CONTENT")
    live.client.remove_object("loki", "a")
    assert "is damaged" in guest.refused("check", "minio")
    assert "is damaged" in guest.refused("restore", "--overwrite", "minio")
    assert live.objects("loki") == {}
    blob.unlink()
    assert "is not whole" in guest.refused("restore", "--overwrite", "minio")


def test_emptiness_does_not_take_the_place_of_copies(
    live: ObjectServer, guest: Guest, tmp_path: Path
) -> None:
    live.client.make_bucket("loki")
    put(live, "loki", "a", b"content")
    time.sleep(1.1)
    job(guest, live, {"directory": str(tmp_path / "copies")})
    first = guest.do("run", "minio")
    new = guest.lose("made-anew")
    told = new.refused("run", "minio")
    assert first["id"] in told
    assert "playbooks/restore.yml -e component=minio" in told
    assert new.metrics("minio")["last_run_success"] == 0
    assert new.do("run", "--adopt", "minio")["files"] == 2
    assert new.do("run", "minio")["files"] == 2


def test_one_run_at_a_time(live: ObjectServer, guest: Guest, tmp_path: Path) -> None:
    live.client.make_bucket("loki")
    job(guest, live, {"directory": str(tmp_path / "copies")})
    guest.do("run", "minio")
    with (guest.folder / "state" / "minio" / "lock").open("a") as other:
        # What a run holds as long as it lives, and no longer.
        fcntl.flock(other, fcntl.LOCK_EX)
        for verb in ("run", "restore"):
            assert "another run of minio is under way (process" in guest.refused(verb, "minio")
    time.sleep(1.1)
    guest.do("run", "minio")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "http://127.0.0.1:1"}, "Connection refused"),
        ({"access_key": "nobody"}, "InvalidAccessKeyId"),
        ({"bucket": "not-there"}, "NoSuchBucket"),
        ({"url": "ftp://x"}, "is no URL of an S3 server"),
    ],
)
def test_a_target_that_cannot_be_used_is_said_in_a_line(
    live: ObjectServer, storage: ObjectServer, guest: Guest, change: dict[str, str], words: str
) -> None:
    job(guest, live, {**storage.target("backups"), **change})
    told = guest.refused("run", "minio")
    assert words in told
    assert SECRET not in told
