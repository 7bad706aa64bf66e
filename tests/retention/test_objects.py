# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""MinIO: objects with old dates in the archive, whose lifecycle follows from the policy."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

from .conftest import Platform, until


def put_aged(platform: Platform, bucket: str, name: str, days: float) -> None:
    """The date of an object that is replicated from elsewhere is that of its source."""
    then = datetime.now(timezone.utc) - timedelta(days=days)
    platform.minio._execute(
        "PUT",
        bucket,
        name,
        body=b"a line",
        headers={
            "X-Minio-Source-Mtime": then.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "X-Minio-Source-Replication-Request": "true",
        },
    )


def test_the_archive_keeps_and_loses_what_each_class_must(platform: Platform) -> None:
    archive = platform.variables["platform_buckets"][2]["name"]
    periods = {rule["prefix"]: rule["days"] for rule in platform.plan["lifecycles"]["archive"]}
    assert periods["audit/"] == 90
    assert periods["web/"] == 60
    platform.minio.put_object(archive, "audit/today", io.BytesIO(b"x"), 1)
    kept, lost = {"audit/today"}, set()
    for prefix, days in periods.items():
        # A day beside the edge: lifecycles count whole days, from midnight to midnight.
        put_aged(platform, archive, f"{prefix}kept", days - 2)
        put_aged(platform, archive, f"{prefix}lost", days + 2)
        kept.add(f"{prefix}kept")
        lost.add(f"{prefix}lost")
    ages = {
        str(one.object_name): one.last_modified
        for one in platform.minio.list_objects(archive, recursive=True)
    }
    aged = ages.get("audit/kept")
    assert aged is not None
    assert (datetime.now(timezone.utc) - aged).days in (87, 88)
    left = until(
        "what is past its period is gone",
        lambda: not (found := platform.objects(archive, "")) & lost and found,
        120,
    )
    assert left & (kept | lost) == kept
