# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Who may read what, and what lies on the disk: each key its own bucket, nobody without a key, ciphertext."""

from __future__ import annotations

import io
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from .conftest import Platform, Process, ask, free_ports, module

WORDS = b"these words must not be readable on any disk " * 200


def key_of(platform: Platform, consumer: str) -> Minio:
    own = next(one for one in platform.variables["platform_buckets"] if one["consumer"] == consumer)
    address = platform.urls["minio"].removeprefix("http://")
    return Minio(address, own["access_key"], own["secret_key"], secure=False)


@pytest.mark.parametrize(("mine", "other"), [("loki", "tempo"), ("tempo", "loki")])
def test_a_key_opens_its_own_bucket_and_no_other(platform: Platform, mine: str, other: str) -> None:
    own = key_of(platform, mine)
    own.put_object(mine, "access/mine", io.BytesIO(b"x"), 1)
    platform.minio.put_object(other, "access/theirs", io.BytesIO(b"x"), 1)
    refused: list[Callable[[], object]] = [
        lambda: own.get_object(other, "access/theirs"),
        lambda: own.stat_object(other, "access/theirs"),
        lambda: own.put_object(other, "access/new", io.BytesIO(b"x"), 1),
        lambda: own.remove_object(other, "access/theirs"),
        lambda: list(own.list_objects(other)),
        lambda: own.get_bucket_policy(mine),
        lambda: own.make_bucket("another"),
        lambda: list(own.list_objects("logs-archive")),
    ]
    for call in refused:
        with pytest.raises(S3Error) as error:
            call()
        assert error.value.code == "AccessDenied"
    # What a server shows of buckets is what the key opens.
    assert [one.name for one in own.list_buckets()] == [mine]
    own.remove_object(mine, "access/mine")


def test_without_a_key_everything_is_refused(platform: Platform) -> None:
    platform.minio.put_object("loki", "access/closed", io.BytesIO(b"x"), 1)
    url = platform.urls["minio"]
    for method, path in [
        ("GET", "/"),
        *((method, f"/{bucket}{rest}") for bucket in ("loki", "tempo", "logs-archive") for method, rest in (("GET", ""), ("GET", "/access/closed"), ("PUT", "/access/new"), ("DELETE", "/access/closed"))),
    ]:  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(url + path, method, b"x" if method == "PUT" else None)
        assert error.value.code == 403, (method, path)


def on_disk(folder: Path, words: bytes) -> list[Path]:
    # The server's trash is emptied in its own time.
    return [
        path
        for path in folder.rglob("*")
        if ".trash" not in path.parts and path.is_file() and words in path.read_bytes()
    ]


def test_what_lies_on_the_disk_is_ciphertext(platform: Platform) -> None:
    disk = Path(platform.variables["minio_data_dir"])
    for bucket, client in (("loki", key_of(platform, "loki")), ("tempo", key_of(platform, "tempo"))):
        client.put_object(bucket, "access/words", io.BytesIO(WORDS), len(WORDS))
        client.put_object(bucket, "access/small", io.BytesIO(WORDS[:45]), 45)
        answer = client.get_object(bucket, "access/words")
        assert answer.read() == WORDS
        assert answer.headers["x-amz-server-side-encryption"] == "AES256"
        assert list((disk / bucket / "access").rglob("xl.meta"))
    assert on_disk(disk, WORDS[:45]) == []


def test_a_key_that_comes_later_encrypts_what_comes_later(platform: Platform, tmp_path: Path) -> None:
    """What roles/minio/README.md says of a server that has data in the clear."""
    port, console = free_ports(2)
    record = platform.processes["minio"]
    disk = tmp_path / "disk"
    words = [*record.command[:2], f"--address=127.0.0.1:{port}", f"--console-address=127.0.0.1:{console}", str(disk)]  # fmt: skip
    keyed = record.environment
    plain = {name: value for name, value in keyed.items() if "KMS" not in name}
    connection = {**platform.storage, "url": f"http://127.0.0.1:{port}"}
    client = Minio(f"127.0.0.1:{port}", connection["username"], connection["password"], secure=False)

    def served(environment: dict[str, str]) -> Process:
        made = Process("minio-later", words, f"{connection['url']}/minio/health/ready", tmp_path, environment)
        made.start()
        return made

    server = served(plain)
    try:
        client.make_bucket("later")
        client.put_object("later", "before", io.BytesIO(WORDS), len(WORDS))
        refused = module("bucket", connection=connection, buckets=[{"name": "later", "encryption": "AES256"}])
        assert refused["failed"]
        assert "minio_kms_secret_key" in refused["msg"]
        server.stop()
        server = served(keyed)
        assert not module("bucket", connection=connection, buckets=[{"name": "later", "encryption": "AES256"}]).get("failed")  # fmt: skip
        client.put_object("later", "after", io.BytesIO(WORDS), len(WORDS))
        # The old object is read as before and stays in the clear until it is written again.
        assert client.get_object("later", "before").read() == WORDS
        assert {path.parts[-2 if path.name == "xl.meta" else -3] for path in on_disk(disk, WORDS[:45])} == {"before"}  # fmt: skip
        client.put_object("later", "before", io.BytesIO(WORDS), len(WORDS))
        assert on_disk(disk, WORDS[:45]) == []
        server.stop()
        # Without its key a server still starts, and gives no encrypted object away.
        server = served(plain)
        with pytest.raises(S3Error):
            client.get_object("later", "after")
    finally:
        server.stop()
