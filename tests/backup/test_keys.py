# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a MinIO that was started with another key says, and how it is told from one that reads its data."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._bucket.run import ensure
from ansible_collections.luxima.observability.plugins.module_utils._bucket.server import Refused
from ansible_collections.luxima.observability.plugins.module_utils._component import probe
from ansible_collections.luxima.observability.plugins.module_utils._component.unit import environment_text
from minio.error import S3Error

from .conftest import KEY, ROOT, SECRET, ObjectServer

Json = dict[str, Any]
OTHER = "objects:YW5vdGhlciBrZXksIHRoaXJ0eS10d28gY2hhcmFjdGU="


def buckets(server: ObjectServer, *wanted: Json) -> Json:
    connection = {"url": server.url, "username": KEY, "password": SECRET}
    return ensure({"connection": connection, "timeout": 4, "buckets": list(wanted)}, False)


LOGS = {"name": "logs", "access_key": "logs", "secret_key": "of the logs only", "encryption": "AES256"}


def proofs(server: ObjectServer, folder: Path) -> list[Json]:
    """As the role has them."""
    role = yaml.safe_load((ROOT / "roles" / "minio" / "vars" / "main.yml").read_text())
    file = folder / "environment"
    file.write_text(environment_text({"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET}))
    reads = role["__minio_reads"]
    paths = [
        entry.partition("~ '")[2].partition("'")[0]
        for entry in role["__minio_component"]["proof"]
        if "__minio_reads" in entry
    ]
    assert len(paths) == 2
    sign = {**reads["sign"], "file": str(file), "region": "us-east-1"}
    return [{"url": server.url + path, "sign": sign, "hint": reads["hint"]} for path in paths]


def restarted(server: ObjectServer, key: str) -> None:
    server.process.environment["MINIO_KMS_SECRET_KEY"] = key
    server.process.start()


def refusals(server: ObjectServer, folder: Path) -> list[str]:
    return [probe.refusal(item, probe.ask(item, timeout=2)) for item in proofs(server, folder)]


def reads_what_it_wrote(server: ObjectServer, folder: Path) -> None:
    """Waits for it: a server answers before it has written what it keeps of its own."""
    end = time.monotonic() + 30
    while (found := refusals(server, folder)) != ["", ""]:
        assert time.monotonic() < end, found
        time.sleep(0.2)


@pytest.mark.parametrize("used", [True, False])
def test_a_server_with_another_key_is_told_from_one_that_reads(
    live: ObjectServer, tmp_path: Path, used: bool
) -> None:
    """Also one that nobody has stored anything in yet: it wrote something of its own."""
    if used:
        buckets(live, LOGS)
        live.client.put_object("logs", "one", io.BytesIO(b"line"), 4)
    reads_what_it_wrote(live, tmp_path)
    key = live.process.environment["MINIO_KMS_SECRET_KEY"]
    restarted(live, OTHER)
    policies, users = refusals(live, tmp_path)
    assert "is minio_kms_secret_key the one it was written with?" in users
    assert ("failed to decrypt" in policies) == used
    if used:
        with pytest.raises(S3Error, match="InvalidCiphertextException"):
            live.client.get_object("logs", "one")
    restarted(live, key)
    reads_what_it_wrote(live, tmp_path)


@pytest.mark.parametrize("used", [True, False])
def test_buckets_say_that_the_key_is_another_one(live: ObjectServer, tmp_path: Path, used: bool) -> None:
    if used:
        buckets(live, LOGS)
    reads_what_it_wrote(live, tmp_path)
    restarted(live, OTHER)
    start = time.monotonic()
    with pytest.raises(Refused, match="is minio_kms_secret_key the one it was written with"):
        buckets(live, LOGS)
    assert time.monotonic() - start < 10


def test_a_wrong_password_is_no_wrong_key(live: ObjectServer, tmp_path: Path) -> None:
    for item in proofs(live, tmp_path):
        (tmp_path / "environment").write_text(
            'MINIO_ROOT_PASSWORD="another one"\nMINIO_ROOT_USER="' + KEY + '"\n'
        )
        answer = probe.ask(item)
        assert answer.status == 403
        assert not probe.hopeless({**item, "hopeless": "failed to decrypt"}, answer, 1)
