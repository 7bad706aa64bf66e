# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What reaches Loki: masked, with the host's labels, whatever a line says of itself and whichever way it came."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Line, Logs, rendered, shipping, until

#: Labels that Promtail adds to what it reads of files.
OWN = {"filename"}


def said(word: str, **fields: Any) -> str:
    return json.dumps({"message": word, **fields})


LINES = {
    # Its records may name a service, tenants of a shape and one class.
    "declared.log": [
        said("accepted", service="auth-api", tenant_id="tenant_001", log_class="web", level="WARNING"),
        said("other-tenant", service="billing", tenant_id="tenant_001; drop", level="info"),
        said("other-class", service="auth-api", log_class="security"),
        said("long-claim", tenant_id="x" * 70_000),
        said("own-environment", environment="staging"),
        said("strange-level", level="level-4711"),
        said("nested", payload=json.dumps({"password": 'hid"den\\1', "x": 1})),
        said("nothing"),
    ],
    "plain.log": [
        said("undeclared", service="auth-api", tenant_id="tenant_001", log_class="audit", environment="production"),
        'quoted password="abc123 def" user=7',
        "not a record at all",
        said("within", text="user=7 password=abc123", more='login password="abc123 def" of 7'),
        said("after a line feed", text="a\npassword=abc123"),
        said("as headers are written", headers={"Authorization": ["Bearer abc123", "abc123"]}, token={"id": "abc123"}),
        said("three deep", payload=json.dumps({"inner": json.dumps({"token": "abc123"}), "secret": [123, "abc123"]})),
        "(password=abc123) [db.password=abc123] --token=abc123 secret = abc123",
        "{'password': 'abc123', 'x': 1} postgres://user:abc123@db/shop",
        'cut off {"secret":"abc123',
    ],
    # Entries of several lines.
    "java.log": [
        "2026-01-01 boom password=abc123 of tenant\n\tat shop.Main(Main.java:7)\n\tat shop.Start token=abc123",
        "2026-01-01 next",
    ],
    "cri.log": [time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime()) + ' stdout F {"message":"unpacked","password":"abc123"}'],
    "raw.log": [
        "# begins\npassword=abc123\nends here",
        said("raw-record", service="elsewhere", environment="production", level="error", token="abc123"),
    ],
}  # fmt: skip


@pytest.fixture
def shipped(tmp_path: Path, loki: Logs, programs: dict[str, str]) -> Any:
    def start(**variables: Any) -> Any:
        folder = tmp_path / "var"
        folder.mkdir()
        for name, lines in LINES.items():
            (folder / name).write_text("".join(f"{line}\n" for line in lines))
        group: dict[str, Any] = {"log_class": "application"}
        files = [
            {
                **group,
                "job": "declared",
                "paths": [str(folder / "declared.log")],
                "services": ["auth-.+"],
                "tenants": [r"tenant_\d+"],
                "log_classes": ["web"],
                "labels": {"team": "shop"},
            },
            {**group, "job": "plain", "service": "plain-service", "paths": [str(folder / "plain.log")]},
            {
                **group,
                "job": "java",
                "paths": [str(folder / "java.log")],
                "multiline": r"^\d{4}-\d\d-\d\d ",
                "stages": [
                    {"regex": {"expression": r"password=(?P<found>\S+)"}},
                    {"labels": {"found": None}},
                ],
            },
            {**group, "job": "cri", "paths": [str(folder / "cri.log")], "stages": [{"cri": {}}]},
        ]
        extra = {
            "job_name": "raw",
            "static_configs": [{"targets": ["localhost"], "labels": {"__path__": str(folder / "raw.log")}}],
            "pipeline_stages": [{"multiline": {"firstline": "^[#{]", "max_wait_time": "1s"}}],
        }
        return rendered(
            tmp_path,
            promtail_journal=False,
            promtail_files=[],
            promtail_extra_files=files,
            promtail_extra_scrape_configs=[extra],
            **variables,
        )

    return start


def check(line: Line, labels: dict[str, str], metadata: dict[str, str]) -> None:
    fixed = {"environment": "staging", "host": line.labels["host"]}
    assert {key: value for key, value in line.labels.items() if key not in OWN} == {**fixed, **labels}
    assert line.metadata == metadata


def test_what_reaches_loki(shipped: Any, tmp_path: Path, loki: Logs, programs: dict[str, str]) -> None:
    config = shipped()
    with shipping(config, tmp_path, programs, loki):
        declared = {"job": "declared", "log_class": "application", "service": "declared", "team": "shop"}
        check(
            loki.having("accepted"),
            {
                **declared,
                "service": "auth-api",
                "tenant_id": "tenant_001",
                "log_class": "web",
                "level": "warn",
            },
            {},
        )
        check(
            loki.having("other-tenant"),
            {**declared, "level": "info"},
            {"refused": "true", "refused_service": "billing", "refused_tenant_id": "tenant_001; drop"},
        )
        check(
            loki.having("other-class"),
            {**declared, "service": "auth-api"},
            {"refused": "true", "refused_log_class": "security"},
        )
        check(loki.having("long-claim"), declared, {"refused": "true", "refused_tenant_id": "x" * 128})
        check(loki.having("own-environment"), declared, {})
        check(
            loki.having("strange-level"),
            {**declared, "level": "unknown"},
            {"refused": "true", "refused_level": "level-4711"},
        )
        check(loki.having("nothing"), declared, {})
        assert "hid" not in loki.having("nested").text
        # Nothing is declared for this one.
        plain = {"job": "plain", "log_class": "application", "service": "plain-service"}
        refused = {
            "refused_service": "auth-api",
            "refused_tenant_id": "tenant_001",
            "refused_log_class": "audit",
            "refused_environment": "production",
        }
        check(loki.having("undeclared"), plain, {"refused": "true", **refused})
        check(loki.having("not a record"), plain, {})
        # An entry of several lines is one, and masked as a whole; so is what a stage of the inventory makes of it.
        entry = loki.having("boom")
        assert "at shop.Start token=***REDACTED***" in entry.text
        assert entry.labels["found"] == "***REDACTED***"
        assert loki.having("unpacked").text == '{"message":"unpacked","password":"***REDACTED***"}'
        # A configuration in Promtail's own format.
        raw = {"job": "raw", "log_class": "application", "service": "raw"}
        check(loki.having("begins"), raw, {})
        assert "ends here" in loki.having("begins").text
        check(
            loki.having("raw-record"),
            {**raw, "level": "error"},
            {"refused": "true", "refused_service": "elsewhere", "refused_environment": "production"},
        )
        # The last entry of several lines ends when nothing follows it.
        count = sum(len(texts) for texts in LINES.values())
        lines = until("every line", lambda: len(found := loki.lines()) >= count and found)
    assert len(lines) == count
    assert [line for line in lines if "abc123" in line.text + str(line.labels) + str(line.metadata)] == []


def test_the_inventorys_stages_are_masked_and_cannot_move_a_host(
    shipped: Any, tmp_path: Path, loki: Logs, programs: dict[str, str]
) -> None:
    stages = [
        {"json": {"expressions": {"payload": "payload"}}},
        {"output": {"source": "payload"}},
        {"static_labels": {"environment": "production", "area": "eu"}},
    ]
    config = shipped(promtail_extra_stages=stages)
    with shipping(config, tmp_path, programs, loki):
        line = loki.having('{"password"')
    assert line.text == '{"password": "***REDACTED***", "x": 1}'
    assert (line.labels["environment"], line.labels["area"]) == ("staging", "eu")


def test_a_unit_says_what_is_declared_for_it(tmp_path: Path, loki: Logs, programs: dict[str, str]) -> None:
    """The stages of the journal; what the journal itself says stands here as labels of a file."""
    config = rendered(
        tmp_path,
        promtail_units={"shop-(api|web)": {"log_class": "web", "services": ["auth-api"], "tenants": ["t.+"]}},
    )
    journal = next(one for one in config["scrape_configs"] if one["job_name"] == "journal")
    targets = []
    for unit in ("shop-api", "shop-apis", "auth-api"):
        path = tmp_path / f"{unit}.log"
        path.write_text(said(f"by {unit}", service="auth-api", tenant_id="t1") + "\n")
        labels = {
            "service": unit,
            "unit": unit,
            "log_class": "syslog",
            "job": "journal",
            "__path__": str(path),
        }
        targets.append({"targets": ["localhost"], "labels": labels})
    config["scrape_configs"] = [
        {"job_name": "journal", "static_configs": targets, "pipeline_stages": journal["pipeline_stages"]}
    ]
    with shipping(config, tmp_path, programs, loki):
        found = {unit: loki.having(f'by {unit}"') for unit in ("shop-api", "shop-apis", "auth-api")}
    assert found["shop-api"].labels["service"] == "auth-api"
    assert found["shop-api"].labels["tenant_id"] == "t1"
    assert found["shop-api"].metadata == {}
    assert found["shop-apis"].labels["service"] == "shop-apis"
    assert found["shop-apis"].metadata["refused_service"] == "auth-api"
    # What it calls itself anyway needs no declaration; the tenant does.
    assert found["auth-api"].metadata == {"refused": "true", "refused_tenant_id": "t1"}
    for line in found.values():
        assert "unit" not in line.labels
    rules = [rule for rule in journal["relabel_configs"] if rule["target_label"] == "log_class"]
    assert [rule["replacement"] for rule in rules] == ["web", "security"]
    assert rules[0]["regex"] == r"(?:shop-(api|web))\.service"


@pytest.mark.parametrize("journal", [True, False])
def test_what_the_journal_has_is_read_once(journal: bool, tmp_path: Path) -> None:
    config = rendered(tmp_path, promtail_journal=journal, promtail_docker=True)
    scrapes = {one["job_name"]: one for one in config["scrape_configs"]}
    assert {"journal", "syslog", "auth"} & scrapes.keys() == ({"journal"} if journal else {"syslog", "auth"})
    assert "audit" in scrapes
    if journal:
        # Docker can write to the journal; its API is read.
        assert scrapes["journal"]["relabel_configs"][0] == {
            "source_labels": ["__journal_container_name"],
            "regex": ".+",
            "action": "drop",
        }
