# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Lifecycle, encryption, quota, versions and the rotation of keys, on a real server."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._bucket import lifecycle
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.minioadmin import MinioAdmin

from .test_bucket import bucket, client, put

if TYPE_CHECKING:
    from .conftest import Outcome, Server

Run = Callable[..., "Outcome"]
AUDIT = {"id": "audit", "prefix": "audit/", "days": 180, "noncurrent_days": 14}
WEB = {"id": "web", "prefix": "web/", "days": 60}


def root(server: Server) -> Minio:
    return client(server, server.user, server.password)


def administrator(server: Server) -> MinioAdmin:
    from urllib.parse import urlsplit

    from minio.credentials.providers import StaticProvider

    return MinioAdmin(
        endpoint=urlsplit(server.url).netloc,
        credentials=StaticProvider(server.user, server.password),
        region="us-east-1",
        secure=False,
    )


def rules(server: Server, name: str) -> dict[str, int | None]:
    config = root(server).get_bucket_lifecycle(name)
    return {
        str(rule.rule_id): rule.expiration.days if rule.expiration else None
        for rule in (config.rules if config else [])
    }


def by_hand(server: Server, name: str, *more: Rule) -> None:
    have = root(server).get_bucket_lifecycle(name)
    root(server).set_bucket_lifecycle(name, LifecycleConfig([*(have.rules if have else []), *more]))


def expiry(name: str, days: int, prefix: str = "") -> Rule:
    return Rule(ENABLED, rule_filter=Filter(prefix=prefix), rule_id=name, expiration=Expiration(days=days))


def test_every_property_is_written_once_and_read_back(minio: Server, run: Run) -> None:
    wanted = [
        {
            "name": "whole",
            "versioning": True,
            "encryption": "AES256",
            "quota": "1GiB",
            "lifecycle": [WEB, AUDIT],
        }
    ]
    predicted = run(check=True, connection=minio.connection, buckets=wanted)
    done = run(connection=minio.connection, buckets=wanted)
    assert done.rc == 0, done.text
    assert predicted.result["actions"] == done.result["actions"]
    assert predicted.result["diff"] == done.result["diff"]
    assert {one.removeprefix("whole: ") for one in done.result["actions"]} == {
        "create bucket",
        "set versioning",
        "set encryption",
        "write lifecycle",
        "set quota",
    }
    assert rules(minio, "whole") == {"platform-audit": 180, "platform-web": 60}
    assert "1073741824" in administrator(minio).bucket_quota_get("whole")
    assert run(connection=minio.connection, buckets=wanted).result["changed"] is False


def test_a_changed_period_is_one_change_and_the_diff_says_which(minio: Server, run: Run) -> None:
    run(connection=minio.connection, buckets=[{"name": "period", "lifecycle": [WEB]}])
    done = run(connection=minio.connection, buckets=[{"name": "period", "lifecycle": [{**WEB, "days": 61}]}])
    assert done.result["actions"] == ["period: write lifecycle"]
    assert done.result["diff"]["before"]["period"]["lifecycle"] == ["web/: 60d"]
    assert done.result["diff"]["after"]["period"]["lifecycle"] == ["web/: 61d"]


def test_foreign_rules_stay_whole_and_are_reported(minio: Server, run: Run) -> None:
    run(connection=minio.connection, buckets=[{"name": "shared", "lifecycle": [WEB]}])
    # An extension of MinIO that the SDK does not know: it would be lost on the way through its classes.
    document = (
        "<LifecycleConfiguration><Rule><ID>theirs</ID><Status>Enabled</Status><Filter><And><Prefix>tmp/</Prefix>"
        "<ObjectSizeGreaterThan>1024</ObjectSizeGreaterThan></And></Filter>"
        "<Expiration><Days>400</Days></Expiration></Rule></LifecycleConfiguration>"
    )
    put_rules(minio, "shared", document)
    before = lifecycle.parse(raw_rules(minio, "shared")).foreign
    done = run(
        connection=minio.connection,
        buckets=[{"name": "shared", "lifecycle": [WEB, AUDIT], "versioning": True}],
    )
    assert done.rc == 0, done.text
    found = lifecycle.parse(raw_rules(minio, "shared"))
    assert [one.id for one in found.ours] == ["audit", "web"]
    assert found.foreign == before
    assert "ObjectSizeGreaterThan>1024" in found.foreign[0].xml
    assert done.result["foreign_rules"] == {"shared": ["theirs: tmp/: 400d"]}


def test_foreign_rules_go_where_that_was_asked(minio: Server, run: Run) -> None:
    run(connection=minio.connection, buckets=[{"name": "strict", "lifecycle": [WEB]}])
    by_hand(minio, "strict", expiry("theirs", 3))
    done = run(
        connection=minio.connection,
        buckets=[{"name": "strict", "lifecycle": [WEB], "foreign_rules": "replace"}],
    )
    assert done.result["actions"] == ["strict: write lifecycle"]
    assert rules(minio, "strict") == {"platform-web": 60}


def test_rules_of_ours_that_nobody_wants_any_more_are_removed(minio: Server, run: Run) -> None:
    run(connection=minio.connection, buckets=[{"name": "emptied", "lifecycle": [WEB]}])
    done = run(connection=minio.connection, buckets=[{"name": "emptied", "lifecycle": []}])
    assert done.result["actions"] == ["emptied: write lifecycle"]
    assert rules(minio, "emptied") == {}
    # Unnamed is not empty: what somebody set stays.
    by_hand(minio, "emptied", expiry("theirs", 3))
    assert run(connection=minio.connection, buckets=[{"name": "emptied"}]).result["changed"] is False
    assert rules(minio, "emptied") == {"theirs": 3}


def test_drift_of_every_property_is_repaired(minio: Server, run: Run) -> None:
    wanted = [
        {"name": "drifting", "versioning": True, "encryption": "AES256", "quota": "1GB", "lifecycle": [WEB]}
    ]
    run(connection=minio.connection, buckets=wanted)
    from minio.versioningconfig import SUSPENDED, VersioningConfig

    root(minio).set_bucket_versioning("drifting", VersioningConfig(SUSPENDED))
    root(minio).delete_bucket_encryption("drifting")
    root(minio).set_bucket_lifecycle("drifting", LifecycleConfig([expiry("platform-web", 1, "web/")]))
    administrator(minio).bucket_quota_clear("drifting")
    repaired = run(connection=minio.connection, buckets=wanted)
    assert sorted(repaired.result["actions"]) == [
        "drifting: set encryption",
        "drifting: set quota",
        "drifting: set versioning",
        "drifting: write lifecycle",
    ]
    assert run(connection=minio.connection, buckets=wanted).result["changed"] is False


def test_an_object_on_the_disk_is_ciphertext(minio: Server, run: Run) -> None:
    words = b"who did what on which record" * 64
    run(
        connection=minio.connection,
        buckets=[{"name": "sealed", "encryption": "AES256"}, {"name": "unsealed", "encryption": "none"}],
    )
    for name in ("sealed", "unsealed"):
        root(minio).put_object(name, "object", io.BytesIO(words), len(words))
        assert root(minio).get_object(name, "object").read() == words
    on_disk = {
        name: b"".join(file.read_bytes() for file in (minio.data / name).rglob("*") if file.is_file())
        for name in ("sealed", "unsealed")
    }
    assert words[:28] in on_disk["unsealed"]
    assert len(on_disk["sealed"]) > len(words)
    assert words[:28] not in on_disk["sealed"]


def test_encryption_without_a_key_on_the_server_names_the_variable(keyless: Server, run: Run) -> None:
    refused = run(connection=keyless.connection, buckets=[{"name": "sealed", "encryption": "AES256"}])
    assert refused.rc != 0
    assert "minio_kms_secret_key" in refused.result["msg"]


def test_a_quota_is_set_and_taken_away(minio: Server, run: Run) -> None:
    run(connection=minio.connection, buckets=[{"name": "bounded", "quota": "2GB"}])
    assert "2000000000" in administrator(minio).bucket_quota_get("bounded")
    done = run(connection=minio.connection, buckets=[{"name": "bounded", "quota": "0"}])
    assert done.result["actions"] == ["bounded: set quota"]
    assert (
        run(connection=minio.connection, buckets=[{"name": "bounded", "quota": "0"}]).result["changed"]
        is False
    )


def test_a_key_of_a_prefix_opens_that_prefix_only(minio: Server, run: Run) -> None:
    done = run(connection=minio.connection, buckets=[bucket("parts", prefix="mine/")])
    assert done.rc == 0, done.text
    put(root(minio), "parts", "theirs/object")
    mine = client(minio, "key-parts", "first-secret")
    put(mine, "parts", "mine/object")
    assert mine.get_object("parts", "mine/object").read() == b"content"
    assert [one.object_name for one in mine.list_objects("parts", prefix="mine/")] == ["mine/object"]
    for attempt in (
        lambda: mine.get_object("parts", "theirs/object"),
        lambda: put(mine, "parts", "theirs/x"),
        lambda: list(mine.list_objects("parts")),
        lambda: list(mine.list_objects("parts", prefix="theirs/")),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            attempt()
    assert (
        run(connection=minio.connection, buckets=[bucket("parts", prefix="mine/")]).result["changed"] is False
    )


def test_a_key_is_rotated_without_a_moment_in_which_none_works(minio: Server, run: Run) -> None:
    former, new = bucket("turning"), {**bucket("turning", "second-secret"), "access_key": "key-turning-2"}
    run(connection=minio.connection, buckets=[former, bucket("bystander")])
    put(client(minio, "key-turning", "first-secret"), "turning", "x")
    made = run(connection=minio.connection, buckets=[new])
    assert made.result["actions"] == ["turning: create key", "turning: attach policy"]
    assert made.result["diff"]["after"]["turning"]["former_keys"] == ["key-turning"]
    for key, secret in (("key-turning", "first-secret"), ("key-turning-2", "second-secret")):
        assert client(minio, key, secret).get_object("turning", "x").read() == b"content"
    retired = run(connection=minio.connection, buckets=[{**new, "retire_keys": True}])
    assert retired.result["actions"] == ["turning: retire keys"]
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        client(minio, "key-turning", "first-secret").get_object("turning", "x")
    assert client(minio, "key-turning-2", "second-secret").get_object("turning", "x").read() == b"content"
    put(client(minio, "key-bystander", "first-secret"), "bystander", "x")
    assert run(connection=minio.connection, buckets=[{**new, "retire_keys": True}]).result["changed"] is False


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"lifecycle": [{"id": "x"}]}, "deletes nothing|delete nothing"),
        ({"lifecycle": [WEB, WEB]}, "id of its own"),
        ({"lifecycle": [{"id": "x", "days": -1}]}, "minimum is 1 day"),
        ({"lifecycle": [AUDIT]}, "versioning is not true"),
        ({"quota": "much"}, "50GiB"),
        ({"access_key": "abc"}, "secret_key"),
    ],
)
def test_contradictions_are_refused_with_the_way_out(
    minio: Server, run: Run, wanted: dict[str, Any], words: str
) -> None:
    import re

    refused = run(connection=minio.connection, buckets=[{"name": "contrary", **wanted}])
    assert refused.rc != 0
    assert re.search(words, refused.result["msg"]), refused.text
    assert not root(minio).bucket_exists("contrary")


def test_what_we_never_write_counts_as_altered() -> None:
    document = (
        "<LifecycleConfiguration><Rule><ID>platform-web</ID><Status>Enabled</Status><Filter><And><Prefix>web/</Prefix>"
        "<Tag><Key>keep</Key><Value>no</Value></Tag></And></Filter><Expiration><Days>60</Days></Expiration></Rule>"
        "</LifecycleConfiguration>"
    )
    (one,) = lifecycle.parse(document).ours
    assert one.altered
    assert one != lifecycle.from_arguments([WEB], "here")[0]
    for text in ("<LifecycleConfiguration>", '<!DOCTYPE x [<!ENTITY a "b">]><x/>'):
        with pytest.raises(ValueError, match="the lifecycle"):
            lifecycle.parse(text)


def raw_rules(server: Server, name: str) -> str:
    return str(root(server)._execute("GET", name, query_params={"lifecycle": ""}).data.decode())


def put_rules(server: Server, name: str, document: str) -> None:
    from minio.helpers import md5sum_hash

    body = document.encode()
    root(server)._execute(
        "PUT", name, body=body, headers={"Content-MD5": md5sum_hash(body)}, query_params={"lifecycle": ""}
    )
