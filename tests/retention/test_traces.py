# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Tempo: traces with old timestamps, for two tenants; one of them has a period of its own."""

from __future__ import annotations

import json
import secrets
import shutil
import time
import urllib.error
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .conftest import Platform, ask, until

DAY = 86400


@dataclass(frozen=True)
class Trace:
    tenant: str
    age: float
    kept: bool
    id: str


def wanted() -> list[Trace]:
    # The policy says 7 days, 3 for tenant_001.
    cases = (
        ("tenant_001", 2.5, True),
        ("tenant_001", 3.5, False),
        ("tenant_001", 8.0, False),
        ("other", 3.5, True),
        ("other", 6.5, True),
        ("other", 7.5, False),
    )
    return [Trace(tenant, age, kept, secrets.token_hex(16)) for tenant, age, kept in cases]


def send(platform: Platform, one: Trace, now: float) -> None:
    start = int((now - one.age * DAY) * 1e9)
    span = {
        "traceId": one.id,
        "spanId": secrets.token_hex(8),
        "name": "test",
        "kind": 1,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 10**6),
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "test"}}]}
    document = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    ask(
        f"{platform.receiver}/v1/traces",
        "POST",
        json.dumps(document).encode(),
        Content_Type="application/json",
        X_Scope_OrgID=one.tenant,
    )


def found(platform: Platform, one: Trace) -> bool:
    try:
        ask(f"{platform.urls['tempo']}/api/traces/{one.id}", X_Scope_OrgID=one.tenant)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise
    return True


def blocks(platform: Platform, tenant: str) -> set[str]:
    """Blocks of which anything is stored; one that is only marked for deletion still answers."""
    bucket = platform.variables["platform_buckets"][1]["name"]
    parts = [name.split("/") for name in platform.objects(bucket, f"{tenant}/")]
    return {part[1] for part in parts if len(part) > 2}


def stored(platform: Platform, count: int) -> bool:
    return sum(len(blocks(platform, tenant)) for tenant in ("tenant_001", "other")) == count


def test_each_tenant_keeps_and_loses_what_it_must(platform: Platform) -> None:
    tempo = platform.processes["tempo"]
    # Blocks are written first, by a Tempo that deletes nothing; the one under test starts with them there.
    compaction = platform.file("tempo", "tempo.yml")
    rendered = compaction.read_text()
    overrides = platform.folder / "overrides.yml"
    own = overrides.read_text()
    now, traces = time.time(), wanted()
    compaction.write_text(
        rendered.replace(
            f"block_retention: {platform.plan['tempo']['block_retention']}", "block_retention: 9000h"
        )
    )
    overrides.write_text("overrides: {}\n")
    try:
        tempo.start()
        for number, one in enumerate(traces, 1):
            send(platform, one, now)
            # A block of its own for each trace: a block is deleted as a whole, by its newest span.
            time.sleep(2)
            ask(f"{platform.urls['tempo']}/flush", "POST")
            until(f"block {number} in object storage", partial(stored, platform, number), 40)
    finally:
        tempo.stop()
        compaction.write_text(rendered)
        overrides.write_text(own)
    tempo.start()
    until(
        "the blocks past their periods are gone from object storage",
        lambda: (len(blocks(platform, "tenant_001")), len(blocks(platform, "other"))) == (1, 2),
        90,
    )
    # The ingester's own copies outlive the flush for a while; a Tempo on an empty disk knows only what is stored.
    tempo.stop()
    shutil.rmtree(platform.variables["tempo_data_dir"])
    Path(platform.variables["tempo_data_dir"]).mkdir()
    tempo.start()
    assert {one.id: found(platform, one) for one in traces} == {one.id: one.kept for one in traces}
    tempo.stop()
