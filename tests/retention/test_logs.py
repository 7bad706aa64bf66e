# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Loki: lines written with old timestamps; each class keeps what it must and loses what it must."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from .conftest import Platform, ask, until

HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True)
class Stream:
    """One stream with one line of that age; `kept` says what must have happened to it."""

    labels: tuple[tuple[str, str], ...]
    age: int
    kept: bool

    def selector(self) -> str:
        return "{" + ", ".join(f'{name}="{value}"' for name, value in self.labels) + "}"


def stream(name: str, age: int, kept: bool, **labels: str) -> Stream:
    own = {"job": "test", "host": f"{name}-{age // HOUR}h", **labels}
    return Stream(tuple(sorted(own.items())), age, kept)


def streams() -> list[Stream]:
    periods = {"application": 30, "docker": 15, "web": 14, "syslog": 30, "security": 60, "audit": 90}
    found = []
    for name, days in periods.items():
        # Hours beside the edge: what a store deletes early or late by a day is caught.
        found.append(stream(name, days * DAY - 6 * HOUR, True, log_class=name))
        found.append(stream(name, days * DAY + 6 * HOUR, False, log_class=name))
    for tenant, age, kept in (("tenant_001", 45, True), ("tenant_001", 61, False), ("tenant_003", 45, False)):
        found.append(stream(tenant, age * DAY, kept, log_class="application", tenant_id=tenant))
    for tenant, kept in (("tenant_002", False), ("tenant_003", True)):
        found.append(stream(tenant, 5 * DAY, kept, log_class="web", tenant_id=tenant))
    found.append(stream("tenant_002", 25 * DAY, True, log_class="application", tenant_id="tenant_002"))
    # Without a class nothing is lost before the longest period.
    found.append(stream("unclassified", 85 * DAY, True))
    found.append(stream("unclassified", 91 * DAY, False))
    return found


def lines(platform: Platform, one: Stream, now: float) -> int:
    query = urllib.parse.urlencode(
        {
            "query": one.selector(),
            "start": int((now - one.age - HOUR) * 1e9),
            "end": int((now - one.age + HOUR) * 1e9),
        }
    )
    answer = json.loads(ask(f"{platform.urls['loki']}/loki/api/v1/query_range?{query}"))
    return sum(len(found["values"]) for found in answer["data"]["result"])


def test_every_class_keeps_and_loses_what_it_must(platform: Platform) -> None:
    loki = platform.processes["loki"]
    loki.start()
    now, wanted = time.time(), streams()
    bucket = platform.variables["platform_buckets"][0]["name"]
    # Of the tests before.
    others = platform.objects(bucket, "fake/")
    body = {
        "streams": [
            {"stream": dict(one.labels), "values": [[str(int((now - one.age) * 1e9)), f"a line {one.age}"]]}
            for one in wanted
        ]
    }
    ask(
        f"{platform.urls['loki']}/loki/api/v1/push",
        "POST",
        json.dumps(body).encode(),
        Content_Type="application/json",
    )
    ask(f"{platform.urls['loki']}/flush", "POST")
    stored = until(
        "all chunks in object storage",
        lambda: len(found := platform.objects(bucket, "fake/") - others) == len(wanted) and found,
    )
    # At the start the index of what was flushed goes to object storage, where the compactor finds it.
    loki.stop()
    loki.start()
    lost = [one for one in wanted if not one.kept]
    kept = [one for one in wanted if one.kept]
    left = until(
        "the chunks of what is past its period are gone from object storage",
        lambda: len(found := platform.objects(bucket, "fake/") - others) <= len(kept) and found,
        100,
    )
    assert left < stored
    # Several more rounds of the compactor must not take anything else.
    time.sleep(10)
    assert platform.objects(bucket, "fake/") - others == left
    # What was answered before may still be in a cache; a Loki on an empty disk knows only what is stored.
    loki.stop()
    shutil.rmtree(platform.variables["loki_data_dir"])
    Path(platform.variables["loki_data_dir"]).mkdir()
    loki.start()
    assert [one for one in kept if lines(platform, one, now) != 1] == []
    assert [one for one in lost if lines(platform, one, now) != 0] == []
