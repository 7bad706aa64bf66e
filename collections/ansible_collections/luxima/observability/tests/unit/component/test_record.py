# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._component.record import RecordError, parse

FULL = """
name: loki
state: present
artifacts: [loki]
tools: [logcli]
user: loki
groups: [systemd-journal]
directories:
  - {path: /var/lib/loki, mode: "0750"}
files:
  - path: loki.yml
    content: {auth_enabled: false}
    on_change: restart
    secret: false
    mode: "0644"
live:
  - {path: file_sd}
environment: {GOMEMLIMIT: 512MiB}
secret_environment: {AWS_SECRET_ACCESS_KEY: x}
unit:
  description: Loki
  exec_start: [/usr/local/bin/loki, -config.file=/etc/loki/loki.yml]
  settings: {LimitNOFILE: 1048576, Nice: null}
  writable: [/some/other/path]
  hardening: strict
validate:
  - ["{bin}/loki", "-config.file={etc}/loki.yml", "-verify-config"]
  - {run: ["{bin}/lokitool", rules, lint], about: loki_rule_groups}
reload: {signal: HUP}
ready: {url: "http://127.0.0.1:3100/ready", status: 200, timeout: 60}
proof:
  - {url: "http://127.0.0.1:3100/metrics", metric: ok, value: 1}
  - {url: "http://127.0.0.1:3100/config", contains: "x"}
  - {url: "http://127.0.0.1:3100/rules", json: {data: {groups: [{name: "null"}]}}, only: true, headers: {X-Scope-OrgID: shop}}
  - {url: "http://127.0.0.1:3100/metrics", metric: hash, changes: sha256, follows: runtime.yml}
"""


def full(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = yaml.safe_load(FULL)
    record.update(changes)
    return record


def test_every_documented_key_is_understood() -> None:
    record = parse(full())
    assert record.files[0].mode == "0644"
    assert record.directories[0].owner == record.directories[0].group == "loki"
    assert record.live[0].owner == "root"
    assert record.validate[1] == ("{bin}/lokitool", "rules", "lint")
    assert record.about == ("", "loki_rule_groups")
    assert record.ready["timeout"] == 60
    assert record.unit is not None
    assert record.unit.exec_start[0] == "/usr/local/bin/loki"


def test_a_secret_file_is_not_for_everybody() -> None:
    record = parse(full(files=[{"path": "key", "content": "x", "secret": True}]))
    assert record.files[0].mode == "0640"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Loki"}, "name: expected a lower-case word"),
        ({"colour": 1}, "unknown key `colour`"),
        ({"state": "started"}, "state: expected one of present, absent, previous"),
        ({"artifacts": "loki"}, "artifacts: expected a list"),
        ({"artifacts": [1]}, "artifacts[0]: expected one line of text"),
        ({"files": [{"path": "x"}]}, "exactly one of content, template and source"),
        ({"files": [{"path": "x", "content": "", "template": "y"}]}, "exactly one of"),
        ({"files": [{"path": "../x", "content": ""}]}, "files[0].path: expected a path below"),
        ({"files": [{"path": "/x", "content": ""}]}, "files[0].path: expected a path below"),
        ({"files": [{"path": "x", "content": "", "owner": "me"}]}, "files[0]: unknown key `owner`"),
        (
            {"files": [{"path": "x", "content": "", "mode": 644}]},
            "files[0] (x).mode: expected a quoted octal",
        ),
        ({"files": [{"path": "x", "content": "", "on_change": "hup"}]}, "on_change: expected one of"),
        ({"files": [{"path": "x", "content": "", "secret": "perhaps"}]}, "secret: expected true or false"),
        ({"directories": [{"path": "/var"}]}, "directories[0].path: expected an absolute path at least"),
        ({"directories": [{"path": "/a/b"}, {"path": "/a/b"}]}, "declared twice"),
        ({"environment": {"A B": "x"}}, "environment: 'A B' is no name"),
        ({"secret_environment": {"A": ["s3cret"]}}, "secret_environment.A: expected text, found list"),
        ({"unit": None}, "unit: is missing"),
        ({"unit": {"exec_start": ["loki"]}}, "unit.exec_start: expected a list that begins with an absolute"),
        ({"unit": {"exec_start": ["/x/y"], "settings": {"A": {"b": 1}}}}, "unit.settings.A"),
        ({"unit": {"exec_start": ["/x/y"], "settings": {"A": ["b", None]}}}, "unit.settings.A"),
        ({"files": [{"path": "a", "content": True, "secret": True}]}, "files[0] (a).content: expected text"),
        ({"files": [{"path": "a", "content": ["b"], "secret": True}]}, "files[0] (a).content: expected text"),
        ({"unit": {"exec_start": ["/x/y"], "hardening": "none"}}, "unit.hardening: expected one of"),
        ({"validate": ["promtool check"]}, "validate[0]: expected a list"),
        ({"validate": [{"run": ["x"], "of": "y"}]}, "validate[0]: unknown key `of`"),
        ({"validate": [{"run": ["x"]}]}, "validate[0].about"),
        ({"reload": {"signal": "HUP", "url": "http://x"}}, "exactly one of signal and url"),
        ({"reload": {"signal": "hup -9"}}, "reload.signal"),
        ({"ready": {"url": "ftp://x"}}, "ready.url: expected a URL"),
        ({"ready": {"timeout": "soon"}}, "ready.timeout: expected a number"),
        ({"proof": [{"metric": "x", "value": 1}]}, "proof[0].url"),
        ({"proof": [{"url": "http://x", "metric": "x"}]}, "needs `value` or `changes`"),
        ({"proof": [{"url": "http://x", "only": True}]}, "only needs `json`"),
        ({"proof": [{"url": "http://x", "follows": "x.yml"}]}, "need `metric`"),
        ({"proof": [{"url": "http://x", "metric": "x", "value": 1, "follows": "x"}]}, "follows needs"),
        ({"proof": [{"url": "http://x", "headers": {"a": "b\nc"}}]}, "proof[0].headers.a: expected one line"),
        ({"proof": [{"url": "http://x", "value": 1}]}, "need `metric`"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse(full(**changes))
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_absent_needs_nothing_but_a_name() -> None:
    assert parse({"name": "loki", "state": "absent"}).unit is None


@pytest.mark.parametrize(
    "path", ["/tmp/x", "/var/tmp/x", "/run/x", "/run/user/0/x", "/var/run/x", "/dev/shm/x"]
)
def test_data_where_nothing_outlives_a_reboot_is_refused(path: str) -> None:
    with pytest.raises(
        RecordError, match=rf"directories\[0\].path: {path} lies below .* choose a directory on a disk"
    ):
        parse(full(directories=[{"path": path}]))


def test_data_among_the_releases_is_refused() -> None:
    with pytest.raises(RecordError, match="where releases come and go"):
        parse(full(directories=[{"path": "/opt/luxima/loki/data"}]))
    assert parse(full(directories=[{"path": "/opt/luximax"}])).directories[0].data


@pytest.mark.parametrize("value", ["2GB", "512 MiB", "1.5GiB", "-1MiB", True, ["1MiB"]])
def test_memory_in_another_spelling_is_refused(value: object) -> None:
    with pytest.raises(RecordError, match=r"memory \(loki_memory_limit\): expected .* such as 512MiB"):
        parse(full(memory=value))


def test_memory_is_read_as_bytes() -> None:
    assert parse(full(memory="512MiB")).memory == 512 << 20
    assert parse(full(memory="1000000")).memory == parse(full(memory=1000000)).memory == 1000000
    assert parse(full(memory="")).memory == parse(full(memory="off")).memory == parse(full()).memory == 0


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ({"words": "x"}, "exactly one of url and path"),
        ({"url": "http://a/", "path": "/a/b", "words": "x"}, "exactly one of url and path"),
        ({"url": "minio:9000", "words": "x"}, r"needs\[0\].url: expected a URL"),
        ({"url": "http://a/"}, r"needs\[0\].words"),
        ({"url": "http://a/", "words": "x", "status": 200}, "unknown key `status`"),
    ],
)
def test_a_need_that_cannot_be_asked_is_refused(need: dict[str, object], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        parse(full(needs=[need]))
