# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A lifecycle that deletes earlier is refused by the task that would write it, in a playbook of somebody's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.luxima.observability.plugins.module_utils._bucket.lifecycle import Rules
from ansible_collections.luxima.observability.plugins.module_utils._bucket.server import Server
from ansible_collections.luxima.observability.plugins.module_utils._component.kept import Release
from ansible_collections.luxima.observability.plugins.module_utils._retention import measure, shorten, task
from ansible_collections.luxima.observability.plugins.plugin_utils.protection import NOBODY, Protection
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from .conftest import ROOT, Platform


def told(
    platform: Platform, rules: list[dict[str, Any]], *words: str, standing: str = "", **variables: Any
) -> tuple[int, str]:
    """Exit code and output of one task on one bucket; `standing` is written in the inventory."""
    bucket = {"name": "transactions", "consumer": "archive", "versioning": True, "lifecycle": rules}
    task = {"connection": platform.storage, "buckets": [bucket]}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"luxima.observability.bucket": task}]}
    book = platform.folder / "own.yml"
    book.write_text(json.dumps([play]))
    hosts = platform.folder / "own-hosts.yml"
    hosts.write_text(f"all: {{hosts: {{localhost: {{ansible_connection: local}}}}, vars: {{{standing}}}}}\n")
    given = {"platform_environment": "shop", **variables}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(book), "-i", str(hosts), *words, "-e", json.dumps(given)],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def rule(days: int, versions: int = 10) -> list[dict[str, Any]]:
    return [{"id": "audit", "prefix": "audit/", "days": days, "noncurrent_days": versions}]


def days(platform: Platform) -> list[tuple[int, int]]:
    found = platform.minio.get_bucket_lifecycle("transactions")
    assert found is not None
    return [
        (one.expiration.days, one.noncurrent_version_expiration.noncurrent_days)
        for one in found.rules
        if one.expiration and one.noncurrent_version_expiration
    ]


def test_a_lifecycle_becomes_shorter_only_when_that_is_confirmed(platform: Platform) -> None:
    protected = {"platform_protected": True}
    # A first run takes nothing, and what becomes longer is nobody's loss.
    for wanted in (rule(30), rule(40, 14)):
        code, output = told(platform, wanted, **protected)
        assert code == 0, output
    code, output = told(platform, rule(20, 14), **protected)
    assert code != 0, output
    assert "deletes data earlier than what is in force: - minio" in output.replace("\\n", " ")
    assert "archive: audit: 40d -> 20d; goes: nothing" in output
    assert "platform_retention_shorten_confirmed=shop" in output
    code, output = told(platform, rule(40, 5), **protected)
    assert code != 0, output
    assert "archive: audit, replaced versions: 14d -> 5d; goes: nothing" in output
    code, output = told(platform, rule(20), "--check", **protected)
    assert code == 0, output
    assert "the run itself will be refused" in output
    assert days(platform) == [(40, 14)]
    # A word for another environment, or none for none, confirms nothing.
    for word in ("staging", ""):
        assert told(platform, rule(20), **protected, platform_retention_shorten_confirmed=word)[0] != 0
    # One that stands in the inventory would hold for all that ever comes.
    assert (
        told(platform, rule(20), standing="platform_retention_shorten_confirmed: shop", **protected)[0] != 0
    )
    nameless = {"platform_environment": "", "platform_retention_shorten_confirmed": ""}
    assert told(platform, rule(20), **{**protected, **nameless})[0] != 0
    assert days(platform) == [(40, 14)]
    code, output = told(platform, rule(20), **protected, platform_retention_shorten_confirmed="shop")
    assert code == 0, output
    assert days(platform) == [(20, 10)]
    code, output = told(platform, rule(5, 5), platform_protected=False)
    assert code == 0, output
    assert days(platform) == [(5, 5)]


def test_replaced_versions_are_counted_from_when_they_were_replaced(platform: Platform) -> None:
    """A rule that comes again where somebody took it away deletes them as a shorter one would."""
    bucket = "versions"
    platform.minio.make_bucket(bucket)
    platform.minio.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    for name, contents in {
        "audit/1": (b"a", b"bb", b"ccc"),
        "audit/2": (b"d",),
        "web/1": (b"e", b"f"),
    }.items():
        for content in contents:
            platform.minio.put_object(bucket, name, BytesIO(content), len(content))
    platform.minio.remove_object(bucket, "audit/2")
    storage = Server(platform.storage, 15)
    assert measure.versions_beyond(storage, bucket, "audit/", 0) == {"versions": 3, "bytes": 4}
    assert measure.versions_beyond(storage, bucket, "audit/", 60) == {"versions": 0, "bytes": 0}
    [found] = shorten.lifecycle("x", {"name": bucket, "lifecycle": rule(0, 10)}, Rules())
    assert (found.versions, found.old, found.new) == (True, None, 864000)
    assert list(task.priced(task.Stores({**NOBODY, "minio": [platform.storage]}), found)) == []
    [row] = task.priced(task.Stores({**NOBODY, "minio": [platform.storage]}), replace(found, new=0))
    assert row["goes"] == "3 versions, 4 B"


def test_a_first_installation_on_a_bucket_of_somebody_elses_server(platform: Platform) -> None:
    variables = {
        "platform_protected": True,
        "platform_environment": "shop",
        "loki_s3_url": f"{platform.storage['url']}/",
        "loki_s3_access_key": platform.storage["username"],
        "loki_s3_secret_key": platform.storage["password"],
        "loki_bucket": "elsewhere",
    }
    protection = Protection("obs1", variables, lambda value: value, check=False, loader=None)
    platform.minio.make_bucket("elsewhere")
    protection.first("loki", {"store": "loki"}, Release())
    platform.minio.put_object("elsewhere", "index/1", BytesIO(b"x"), 1)
    with pytest.raises(AnsibleActionFail, match="bucket elsewhere holds data"):
        protection.first("loki", {"store": "loki"}, Release())
    protection = Protection(
        "obs1", {**variables, "platform_protected": False}, lambda value: value, check=False, loader=None
    )
    protection.first("loki", {"store": "loki"}, Release())
