# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What must stay as it is while there is data: read out of two releases as the roles' own records say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._component.kept import (
    Release,
    broken,
    hidden,
    paths,
)
from ansible_collections.luxima.observability.plugins.module_utils._component.record import RecordError, parse

ROOT = next(parent for parent in Path(__file__).resolve().parents if (parent / "roles" / "platform").exists())
TODAY = "2026-06-15"
FIRST = {"from": "2024-04-01", "store": "tsdb", "schema": "v13"}


def data_of(role: str) -> dict[str, Any]:
    """As the engine reads it out of the role's record."""
    variables = yaml.safe_load((ROOT / "roles" / role / "vars" / "main.yml").read_text())
    data = variables[f"__{role}_component"]["data"]
    return parse({"name": role, "data": data, "unit": {"exec_start": ["/bin/x"]}}).data


def told(role: str, path: str, before: Any, after: Any) -> list[str]:
    old, new = (
        Release({path: one if isinstance(one, str) or one is None else yaml.safe_dump(one)}, ["/var/lib/x"])
        for one in (before, after)
    )
    return broken(role, data_of(role), old, new, TODAY)


def schema(*periods: dict[str, Any]) -> dict[str, Any]:
    return {"schema_config": {"configs": list(periods)}}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((FIRST,), (FIRST,), ""),
        ((FIRST,), ({**FIRST, "from": "2025-01-01"},), "what holds since 2024-04-01 differs"),
        ((FIRST,), ({**FIRST, "schema": "v14"},), "what holds since 2024-04-01 differs"),
        ((FIRST,), ({**FIRST, "object_store": "filesystem"},), "what holds since 2024-04-01 differs"),
        ((FIRST,), (), "what holds since 2024-04-01 differs"),
        # A period is added before its day comes.
        ((FIRST,), (FIRST, {**FIRST, "from": "2026-06-16"}), ""),
        ((FIRST,), (FIRST, {**FIRST, "from": "2026-06-15"}), "a period from 2026-06-15 would change how data is read"),
        ((FIRST,), (FIRST, {**FIRST, "from": "2025-01-01"}), "a period from 2025-01-01 would change"),
        # What does not hold yet may still be taken back; what does, may not.
        ((FIRST, {**FIRST, "from": "2026-12-01"}), (FIRST,), ""),
        ((FIRST, {**FIRST, "from": "2026-06-01"}), (FIRST,), "what holds since 2026-06-01 differs"),
    ],
)  # fmt: skip
def test_the_schema_of_logs_only_grows(before: Any, after: Any, words: str) -> None:
    found = told("loki", "etc/loki.yml", schema(*before), schema(*after))
    assert [words in one for one in found] == ([True] if words else []), found
    assert all(one.startswith("loki_schema_from: ") and "loki_schema_periods" in one for one in found)


def test_a_day_is_the_same_with_and_without_quotes() -> None:
    quoted = "schema_config: {configs: [{from: '2024-04-01', schema: v13}]}"
    assert told("loki", "etc/loki.yml", quoted, quoted.replace("'", "")) == []


@pytest.mark.parametrize(
    ("role", "path", "before", "after", "variable"),
    [
        ("loki", "etc/loki.yml", {"auth_enabled": False}, {"auth_enabled": True}, "loki_auth_enabled"),
        (
            "loki",
            "etc/loki.yml",
            {"common": {"storage": {"s3": {"bucketnames": "a"}}}},
            {"common": {"storage": {"s3": {"bucketnames": "b"}}}},
            "loki_bucket",
        ),
        (
            "tempo",
            "etc/tempo.yml",
            {"storage": {"trace": {"s3": {"bucket": "a"}}}},
            {"storage": {"trace": {"s3": {"bucket": "b"}}}},
            "tempo_bucket",
        ),
        (
            "tempo",
            "etc/tempo.yml",
            {"storage": {"trace": {"backend": "s3"}}},
            {"storage": {"trace": {"backend": "local"}}},
            "tempo_config",
        ),
        (
            "tempo",
            "etc/tempo.yml",
            {"multitenancy_enabled": False},
            {"multitenancy_enabled": True},
            "tempo_multitenancy_enabled",
        ),
        (
            "tempo",
            "etc/tempo.yml",
            {"storage": {"trace": {"s3": {"bucket": "a"}}}},
            {"storage": {"trace": {"s3": {"bucket": "a", "prefix": "new"}}}},
            "tempo_config",
        ),
        (
            "tempo",
            "etc/tempo.yml",
            {"storage": {"trace": {"wal": {"path": "/var/lib/tempo/wal"}}}},
            {"storage": {"trace": {"wal": {"path": "/var/lib/tempo/other"}}}},
            "tempo_config",
        ),
        ("loki", "etc/loki.yml", {"common": {}}, {"storage_config": {"object_prefix": "x/"}}, "loki_config"),
        (
            "loki",
            "etc/loki.yml",
            {"common": {"storage": {"s3": {"bucketnames": "a"}}}},
            {
                "common": {"storage": {"s3": {"bucketnames": "a"}}},
                "storage_config": {"aws": {"bucketnames": "b"}},
            },
            "loki_config",
        ),
        (
            "loki",
            "etc/loki.yml",
            {"ingester": {"wal": {"dir": "/var/lib/loki/wal"}}},
            {"ingester": {"wal": {"dir": "/var/lib/loki/other"}}},
            "loki_config",
        ),
        (
            "grafana",
            "etc/grafana.ini",
            "app_mode = x\n[paths]\ndata = /var/lib/grafana\n[auth.anonymous]\nenabled = false\n",
            "app_mode = x\n[paths]\ndata = /var/lib/grafana/new\n[auth.anonymous]\nenabled = true\n",
            "grafana_config",
        ),
        ("grafana", "etc/grafana.ini", "[database]\n", "[database]\npath = other.db\n", "grafana_config"),
        (
            "grafana",
            "unit/grafana.service",
            "[Service]\n",
            "[Service]\nEnvironment=GF_PATHS_DATA=/var/lib/grafana/new\n",
            "grafana_environment",
        ),
        (
            "minio",
            "unit/minio.service",
            "[Service]\n",
            "[Service]\nEnvironment=MINIO_CONFIG_ENV_FILE=/var/lib/minio/env\n",
            "minio_environment",
        ),
        (
            "minio",
            "unit/minio.service",
            "[Service]\nEnvironment=HOME=/var/lib/minio\n",
            "[Service]\nEnvironment=HOME=/var/lib/minio\nEnvironment=MINIO_VOLUMES=/srv/{1...4}\n",
            "minio_environment",
        ),
    ],
)
def test_what_stored_data_depends_on_is_named_by_its_variable(
    role: str, path: str, before: Any, after: Any, variable: str
) -> None:
    assert path in paths(role, data_of(role))
    (one,) = told(role, path, before, after)
    assert one.startswith(f"{variable}: ")
    assert told(role, path, before, before) == []
    # A release that did not have the file says nothing.
    assert told(role, path, None, after) == []


@pytest.mark.parametrize(("role", "name"), [("minio", "MINIO_VOLUMES"), ("grafana", "GF_PATHS_DATA")])
def test_what_decides_where_data_is_cannot_hide_among_secrets(role: str, name: str) -> None:
    told = hidden(data_of(role), ["MINIO_ROOT_PASSWORD", "GF_DATABASE_PASSWORD", name])
    assert told.startswith(f"{role}_environment: {name} ")
    assert hidden(data_of(role), ["MINIO_ROOT_PASSWORD", "GF_DATABASE_PASSWORD"]) == ""


@pytest.mark.parametrize("role", ["minio", "loki", "tempo", "prometheus", "grafana"])
def test_a_directory_of_data_that_moves_is_named(role: str) -> None:
    before, after = Release({}, ["/var/lib/old", "/var/lib/same"]), Release({}, ["/srv/new", "/var/lib/same"])
    (one,) = broken(role, data_of(role), before, after, TODAY)
    assert "/var/lib/old -> /srv/new, /var/lib/same" in one
    assert broken(role, data_of(role), before, Release({}, [*before.directories, "/srv/more"]), TODAY) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"stores": "loki"}, "data: unknown key `stores`"),
        ({"store": "redis", "files": ["x"]}, "data.store: expected one of prometheus, loki"),
        ({"store": "loki"}, "data.files: is missing"),
        ({"connection": "{{ loki_connection }}"}, "data.connection: expected the name of a variable"),
        ({"fixed": [{"file": "x", "variable": "y"}]}, "data.fixed[0]: either file and key or unit"),
        ({"fixed": [{"unit": "(", "variable": "y"}]}, "data.fixed[0].unit: "),
        ({"fixed": [{"file": "x", "key": "y"}]}, "data.fixed[0].variable: is missing"),
    ],
)
def test_a_record_that_says_it_wrongly_is_refused(data: Any, words: str) -> None:
    with pytest.raises(RecordError) as refused:
        parse({"name": "x", "unit": {"exec_start": ["/bin/x"]}, "data": data})
    assert words in str(refused.value)
