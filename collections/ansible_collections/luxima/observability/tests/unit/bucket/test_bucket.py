# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

import io
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from minio import Minio
from minio.commonconfig import COMPLIANCE
from minio.error import S3Error
from minio.retention import Retention

if TYPE_CHECKING:
    from .conftest import Outcome, Server


def bucket(name: str, secret: str = "first-secret", **more: Any) -> dict[str, Any]:
    return {"name": name, "access_key": f"key-{name}", "secret_key": secret, **more}


def client(server: Server, access_key: str, secret_key: str) -> Minio:
    return Minio(
        urlsplit(server.url).netloc,
        access_key=access_key,
        secret_key=secret_key,
        secure=False,
        region="us-east-1",
    )


def put(who: Minio, name: str, key: str) -> None:
    who.put_object(name, key, io.BytesIO(b"content"), 7)


def test_a_second_run_changes_nothing(minio: Server, run: Callable[..., Outcome]) -> None:
    buckets = [bucket("twice-a"), bucket("twice-b", versioning=True)]
    first = run(connection=minio.connection, buckets=buckets)
    assert first.rc == 0, first.text
    assert first.result["changed"]
    second = run(connection=minio.connection, buckets=buckets)
    assert second.result["changed"] is False, second.text
    assert second.result["actions"] == []
    assert second.result["diff"]["before"] == second.result["diff"]["after"]


def test_check_mode_predicts_and_leaves_all_alone(minio: Server, run: Callable[..., Outcome]) -> None:
    predicted = run(check=True, connection=minio.connection, buckets=[bucket("checked")])
    assert predicted.result["predicted"] is False
    assert not client(minio, minio.user, minio.password).bucket_exists("checked")
    done = run(connection=minio.connection, buckets=[bucket("checked")])
    assert done.result["actions"] == predicted.result["actions"] != []
    assert done.result["diff"] == predicted.result["diff"]


def test_check_mode_without_a_server_predicts_creation(run: Callable[..., Outcome]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        connection = {
            "url": f"http://127.0.0.1:{probe.getsockname()[1]}",
            "username": "root-user",
            "password": "root-password",
        }
        predicted = run(check=True, connection=connection, buckets=[bucket("later")])
        refused = run(connection=connection, buckets=[bucket("later")])
    assert predicted.rc == 0
    assert predicted.result["predicted"]
    assert predicted.result["actions"][0] == "later: create bucket"
    assert refused.rc != 0
    assert "does not answer" in refused.result["msg"]


def test_a_key_opens_its_own_bucket_and_no_other(minio: Server, run: Callable[..., Outcome]) -> None:
    run(connection=minio.connection, buckets=[bucket("mine"), bucket("theirs")])
    mine = client(minio, "key-mine", "first-secret")
    theirs = client(minio, "key-theirs", "first-secret")
    put(mine, "mine", "a/b")
    put(theirs, "theirs", "secret")
    assert mine.get_object("mine", "a/b").read() == b"content"
    for attempt in (
        lambda: mine.get_object("theirs", "secret"),
        lambda: list(mine.list_objects("theirs")),
        lambda: put(mine, "theirs", "x"),
        lambda: mine.remove_object("theirs", "secret"),
        lambda: mine.make_bucket("another"),
        lambda: mine.remove_bucket("mine"),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            attempt()
    # The server lists what a key may open, and nothing beside it.
    assert {one.name for one in mine.list_buckets()} == {"mine"}
    mine.remove_object("mine", "a/b")


def test_a_locked_object_is_deleted_by_nobody(minio: Server, run: Callable[..., Outcome]) -> None:
    wanted = bucket("locked", object_lock=True, key_deletes=False, encryption="AES256")
    predicted = run(check=True, connection=minio.connection, buckets=[wanted])
    done = run(connection=minio.connection, buckets=[wanted])
    assert done.rc == 0, done.text
    assert predicted.result["diff"] == done.result["diff"]
    assert run(connection=minio.connection, buckets=[wanted]).result["changed"] is False
    until = datetime.now(timezone.utc) + timedelta(days=1)
    mine, root = client(minio, "key-locked", "first-secret"), client(minio, minio.user, minio.password)
    mine.put_object("locked", "a", io.BytesIO(b"content"), 7, retention=Retention(COMPLIANCE, until))
    (kept,) = root.list_objects("locked", include_version=True)
    for who in (mine, root):
        with pytest.raises(S3Error):
            who.remove_object("locked", "a", version_id=kept.version_id)
    assert root.get_object("locked", "a", version_id=kept.version_id).read() == b"content"


def test_an_object_lock_comes_with_a_bucket_or_never(minio: Server, run: Callable[..., Outcome]) -> None:
    run(connection=minio.connection, buckets=[bucket("unlocked")])
    for check in (True, False):
        late = run(check=check, connection=minio.connection, buckets=[bucket("unlocked", object_lock=True)])
        assert late.rc != 0
        assert "unlocked: object_lock is given to a bucket only when it is made" in late.result["msg"]
    contrary = run(connection=minio.connection, buckets=[bucket("other", object_lock=True, versioning=False)])
    assert "object_lock needs versioning" in contrary.result["msg"]


def test_nobody_reads_without_a_key(minio: Server, run: Callable[..., Outcome]) -> None:
    run(connection=minio.connection, buckets=[bucket("shut")])
    root = client(minio, minio.user, minio.password)
    put(root, "shut", "file")
    root.set_bucket_policy(
        "shut",
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": ["*"]},
                        "Action": ["s3:GetObject"],
                        "Resource": ["arn:aws:s3:::shut/*"],
                    }
                ],
            }
        ),
    )
    with urllib.request.urlopen(f"{minio.url}/shut/file") as answer:
        assert answer.read() == b"content"
    repaired = run(connection=minio.connection, buckets=[bucket("shut")])
    assert repaired.result["actions"] == ["shut: remove anonymous access"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{minio.url}/shut/file")


def test_a_new_secret_replaces_the_old_one(minio: Server, run: Callable[..., Outcome]) -> None:
    run(connection=minio.connection, buckets=[bucket("rotated")])
    put(client(minio, "key-rotated", "first-secret"), "rotated", "x")
    predicted = run(check=True, connection=minio.connection, buckets=[bucket("rotated", "second-secret")])
    done = run(connection=minio.connection, buckets=[bucket("rotated", "second-secret")])
    assert predicted.result["actions"] == done.result["actions"] == ["rotated: replace secret"]
    assert client(minio, "key-rotated", "second-secret").get_object("rotated", "x").read() == b"content"
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        client(minio, "key-rotated", "first-secret").get_object("rotated", "x")
    assert (
        run(connection=minio.connection, buckets=[bucket("rotated", "second-secret")]).result["changed"]
        is False
    )


def test_drift_made_by_hand_is_repaired(minio: Server, run: Callable[..., Outcome]) -> None:
    from minio.credentials.providers import StaticProvider
    from minio.minioadmin import MinioAdmin

    run(connection=minio.connection, buckets=[bucket("drift", versioning=True)])
    admin = MinioAdmin(
        endpoint=urlsplit(minio.url).netloc,
        credentials=StaticProvider(minio.user, minio.password),
        region="us-east-1",
        secure=False,
    )
    admin.policy_set("readwrite", user="key-drift")
    admin.user_disable("key-drift")
    repaired = run(connection=minio.connection, buckets=[bucket("drift", versioning=False)])
    assert sorted(repaired.result["actions"]) == [
        "drift: attach policy",
        "drift: enable key",
        "drift: replace secret",
        "drift: set versioning",
    ]
    with pytest.raises(S3Error, match="AccessDenied"):
        client(minio, "key-drift", "first-secret").make_bucket("elsewhere")
    assert (
        run(connection=minio.connection, buckets=[bucket("drift", versioning=False)]).result["changed"]
        is False
    )


def test_what_is_not_ours_is_left_alone(minio: Server, run: Callable[..., Outcome]) -> None:
    root = client(minio, minio.user, minio.password)
    root.make_bucket("foreign")
    put(root, "foreign", "kept")
    run(connection=minio.connection, buckets=[bucket("neighbour")])
    assert root.get_object("foreign", "kept").read() == b"content"


def test_no_output_holds_a_secret(minio: Server, run: Callable[..., Outcome]) -> None:
    secrets = ("very-secret-value", minio.password)
    for arguments in ({}, {"check": True}):
        done = run(connection=minio.connection, buckets=[bucket("silent", "very-secret-value")], **arguments)
        assert done.rc == 0
        assert not [secret for secret in secrets if secret in done.text]


@pytest.mark.parametrize(
    ("buckets", "words"),
    [
        ([bucket("same"), bucket("same")], "stands there twice"),
        ([bucket("one"), {**bucket("two"), "access_key": "key-one"}], "its own key"),
        ([bucket("short", "1234567")], "at least 8"),
        ([bucket("Not_A_Bucket")], "Not_A_Bucket"),
    ],
)
def test_bad_input_is_refused_with_its_name(
    minio: Server, run: Callable[..., Outcome], buckets: list[dict[str, Any]], words: str
) -> None:
    refused = run(connection=minio.connection, buckets=buckets)
    assert refused.rc != 0
    assert words in refused.result["msg"]


def test_a_wrong_root_password_says_where_to_look(minio: Server, run: Callable[..., Outcome]) -> None:
    refused = run(connection={**minio.connection, "password": "not-the-password"}, buckets=[bucket("wrong")])
    assert refused.rc != 0
    assert "minio_root_password" in refused.result["msg"]
