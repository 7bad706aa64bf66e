# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The forms of values, and that every variable that has one in a server's eyes has it in ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.luxima.observability.plugins.module_utils._validate import forms, places, schema

# Names of which a server or a client asks a form.
TOLD = re.compile(
    r"\w+_(?:port|url|urls|path|interval|period|age|timeout|duration|retention|memory_limit|environment|bucket|listen_address|access_key|s3_secret_key|mb|bytes)"
)
# Directories, texts and words of the platform itself, whose forms others check.
FREE = re.compile(
    r"platform_environment|platform_retention|proxmox_ca_path|platform_artifact_mirror_url|guests_request_timeout|(?:guest|platform)_\w+_mb"
)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("loki_chunk_idle_period", ["30m", "1h30m", "1.5h", "500ms", "0"], ["5d", "1w", "30", "soon", "-5m"]),
        ("alertmanager_data_retention", ["120h"], ["5d"]),
        ("loki_reject_older_than", ["7d", "168h", "1w2d", "0"], ["1.5h", "5", "2d1w", "7 d"]),
        ("platform_scrape_interval", ["15s", "1m30s"], ["1d", "1.5s", "15"]),
        ("prometheus_scrape_timeout", ["10s"], ["10"]),
        ("platform_memory_mb", [0, 4096, "4096"], [-1, "4GB", "1.5"]),
        ("loki_memory_limit", ["2GiB", "512MiB", "1000000", "off", "5B"], ["2GB", "2G", "2 GiB", "half"]),
        ("loki_environment", [{"GOMEMLIMIT": "2GiB", "GOGC": 50}, {"X": "2GB"}], [{"GOMEMLIMIT": "2GB"}, {"GOGC": "x"}]),
        ("loki_port", [3100, "3100", 65535], [0, 65536, "http"]),
        ("loki_s3_url", ["http://192.0.2.1:9000", "https://s3.example", "http://[2001:db8::1]:9000/"],
         ["192.0.2.1:9000", "s3.example", "ftp://x", "http://", "https://s3.example/below", "http://u@x", "http://x:99999"]),
        ("alertmanager_external_url", ["https://mon.example.org/alertmanager/"], ["mon.example.org", "https:///x"]),
        ("tempo_remote_write_urls", [[], ["http://x:9090/api/v1/write"]], [["x:9090"]]),
        ("prometheus_path", ["/prometheus", "/a/b"], ["prometheus", "/prometheus/", "/", "/a b"]),
        ("prometheus_alertmanagers", [[{"url": "http://x/a"}]], [[{"url": "x"}]]),
        ("loki_listen_address", ["0.0.0.0", "::", "[::]", "localhost", "192.0.2.1"],
         ["0.0.0.0:3100", "http://x", "256.1.1.1", "a b"]),
        ("loki_grpc_listen_address", ["127.0.0.1", "::1"], ["0.0.0.0", "[::]", "x:1"]),
        ("tempo_grpc_listen_address", ["127.0.0.1", "192.0.2.1"], ["::1", "0.0.0.0"]),
        ("alertmanager_cluster_advertise_address", ["192.0.2.1", "2001:db8::1"], ["host-1", "192.0.2.1:9094"]),
        ("loki_bucket", ["loki", "a.b-c1"], ["L", "Loki", "a..b", "-ab", "a_b"]),
        ("backup_target", [{"directory": "/x"}, {"url": "https://x", "bucket": "abc", "access_key": "k"}],
         [{"url": "https://x"}, {"url": "x:9000", "bucket": "abc", "access_key": "k"}, {"bucket": "abc"}]),
        ("loki_schema_from", ["2024-04-01"], ["2024-4-1", "April"]),
        ("minio_root_password", ["12345678"], ["12345"]),
        ("minio_root_user", ["admin"], ["ab"]),
        ("loki_s3_secret_key", ["12345678"], ["1234567", "x" * 129]),
        ("loki_s3_access_key", ["loki"], ["ab", "x" * 129]),
        ("minio_kms_secret_key", ["x" * 32, "a:" + "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="],
         ["short", "a:b", "a:eHg="]),
        ("tempo_max_block_bytes", [1], [0, -1]),
        ("loki_ready_timeout", [1, "300"], [0]),
    ],
)  # fmt: skip
def test_form(name: str, good: list[Any], bad: list[Any]) -> None:
    assert {str(value): told for value in good if (told := forms.check(name, value, "h", False))} == {}
    assert [value for value in bad if not forms.check(name, value, "h", False)] == []


def test_the_way_out_is_told_in_the_servers_own_spelling() -> None:
    (fault,) = forms.check("alertmanager_data_retention", "5d", "h", False)
    assert fault.text.endswith("write 120h")
    (fault,) = forms.check("loki_s3_url", "192.0.2.1:9000", "h", False)
    assert "write http://192.0.2.1:9000 or" in fault.text


@pytest.mark.parametrize("name", ["minio_root_password", "minio_kms_secret_key", "loki_s3_secret_key"])
def test_a_secret_is_not_shown(name: str) -> None:
    (fault,) = forms.check(name, "hush!", "h", True)
    assert "hush" not in fault.text


def test_nothing_is_never_wrong() -> None:
    assert forms.check("loki_memory_limit", "", "h", False) == []
    assert forms.check("loki_s3_url", None, "h", False) == []


def test_every_variable_of_such_a_name_has_a_form_and_every_form_a_variable() -> None:
    folder = places.beside(str(Path(schema.__file__).parent), "roles")
    assert folder is not None
    roles = schema.read_roles(folder, DataLoader().load_from_file)
    names = {name for role in roles.values() for name in role.names}
    assert (
        sorted(n for n in names if TOLD.fullmatch(n) and not FREE.fullmatch(n) and not forms.form_of(n)) == []
    )
    assert [pattern.pattern for pattern, _ in forms.ATTACHED if not any(map(pattern.fullmatch, names))] == []
    # What a role gives by itself has the form too.
    plain = {
        name: value
        for role in roles.values()
        for name, value in role.defaults.items()
        if "{{" not in str(value) and "{%" not in str(value)
    }
    assert [fault for name, value in plain.items() for fault in forms.check(name, value, "", False)] == []
