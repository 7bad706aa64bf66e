# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What is wrong with the sources of log lines, and that every pipeline ends alike."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.filter.logs import log_scrapes

SETTINGS: dict[str, Any] = {
    "environment": "dev",
    "host": "web-1",
    "classes": ["application", "audit", "web"],
    "reserved_classes": ["audit"],
    "levels": ["info"],
    "redact_keys": ["password"],
    "redact_text": "-",
}


def group(**more: Any) -> dict[str, Any]:
    return {"job": "shop", "log_class": "web", "paths": ["/var/log/shop.log"], **more}


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"files": [group(log_class="wep")]}, "promtail_files: shop: log_class wep is no class"),
        ({"files": [group(log_classes=["audit"])]}, "no record may choose class audit"),
        ({"files": [group(log_classes=["wep"])]}, "log_classes names wep"),
        ({"files": [group(multiline="(")]}, "multiline '(' is no regular expression"),
        ({"files": [group(tenants=["ok", "[a"])]}, "tenants '[a' is no regular expression"),
        ({"files": [group(labels={"environment": "x"})]}, "label environment is not set by labels"),
        ({"files": [group(labels={"a-b": "x"})]}, "'a-b' is no name of a label"),
        ({"files": [group()], "extra_files": [group(paths=["/x"])]}, "two groups are job shop"),
        (
            {"files": [group()], "extra_files": [group(job="all", paths=["/var/log/*.log"])]},
            "/var/log/*.log of all is read by shop as well",
        ),
        (
            {"units": {"shop": {"tenant": ["a"]}}},
            "promtail_units: shop: tenant is no key; did you mean tenants?",
        ),
        ({"units": {"sh(op": {}}}, "pattern 'sh(op' is no regular expression"),
        ({"containers": {"x": {"log_classes": ["audit"]}}}, "promtail_containers: x: no record may choose"),
        ({"extra_scrape_configs": [{"static_configs": []}]}, "has no job_name"),
        ({"extra_scrape_configs": [{"job_name": "x", "claims": {"level": 1}}]}, "x: level is no key"),
        ({"config": {"scrape_configs": []}}, "promtail_config: scrape_configs would replace"),
    ],
)
def test_a_fault_names_the_variable_and_the_way_out(sources: dict[str, Any], says: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        log_scrapes(sources, SETTINGS)
    assert says in str(caught.value)


def test_a_file_that_one_group_leaves_out_is_read_once() -> None:
    files = [group(), group(job="all", paths=["/var/log/*.log"], exclude="/var/log/shop.log")]
    found = log_scrapes({"files": files}, SETTINGS)
    assert found[1]["static_configs"][0]["labels"]["__path_exclude__"] == "/var/log/shop.log"


def test_every_pipeline_is_masked_and_ends_with_the_host() -> None:
    sources = {
        "journal": True,
        "journal_max_age": "1h",
        "docker": True,
        "docker_socket": "/s",
        "files": [group(stages=[{"docker": {}}])],
        "extra_scrape_configs": [
            {"job_name": "a", "pipeline_stages": [{"static_labels": {"service": "own"}}]},
            {"job_name": "b"},
        ],
    }
    found = log_scrapes(sources, {**SETTINGS, "extra_stages": [{"decolorize": {}}]})
    assert [one["job_name"] for one in found] == ["journal", "shop", "docker", "a", "b"]
    for one in found:
        stages = one["pipeline_stages"]
        kinds = [next(iter(stage)) for stage in stages]
        assert stages[-1] == {"static_labels": {"environment": "dev", "host": "web-1"}}
        # Nothing but the end stands after the last masking.
        assert set(kinds[max(i for i, kind in enumerate(kinds) if kind == "replace") + 1 :]) <= {
            "labeldrop",
            "static_labels",
        }
    said = {stage["template"]["source"] for stage in found[3]["pipeline_stages"] if "template" in stage}
    # What a stage fixes is not said again.
    assert "service" not in said
    assert {"job", "log_class"} <= said
