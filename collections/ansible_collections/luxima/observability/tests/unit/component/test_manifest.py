# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._component import manifest as building
from ansible_collections.luxima.observability.plugins.module_utils._component.record import RecordError, parse

SECRET = "hunter2"


def record(*files: dict[str, Any], **more: Any) -> Any:
    return parse(
        {"name": "x", "user": "x", "unit": {"exec_start": ["/usr/local/bin/x"]}, "files": list(files), **more}
    )


def built(made: Any, rendered: dict[int, dict[str, bytes]], salt: str = "salt") -> tuple[Any, Any]:
    files = building.contents(made, rendered)
    return files, building.manifest(made, files, {}, salt)


def test_data_is_written_in_the_order_it_was_given() -> None:
    content = {"z": 1, "a": [{"b": "ü"}], "long": "x " * 200}
    text = building.dumped("x.yml", content).decode()
    assert list(yaml.safe_load(text)) == ["z", "a", "long"]
    assert yaml.safe_load(text) == content
    assert building.dumped("x.json", {"a": 1}) == b'{\n  "a": 1\n}\n'
    assert building.dumped("x.yml", "as it is") == b"as it is"


def test_kinds_by_path() -> None:
    made = record({"path": "a.yml", "content": "1"}, {"path": "sd/x", "content": "2"}, live=[{"path": "sd"}])
    files, found = built(made, {0: {"": b"1"}, 1: {"": b"2"}})
    assert set(files) == {"etc/a.yml", "live/sd/x", "unit/x.service"}
    assert found["live"][0]["path"] == "sd"


def test_a_folder_becomes_its_files(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").write_bytes(b"f")
    (tmp_path / "d/g").write_bytes(b"g")
    (tmp_path / "d/__pycache__").mkdir()
    (tmp_path / "d/__pycache__/g.pyc").write_bytes(b"pyc")
    made = record({"path": "rules", "source": "d"})
    files, _ = built(made, {0: building.tree(tmp_path / "d")})
    assert {path: files[path].data for path in files if path.startswith("etc/")} == {
        "etc/rules/e/f": b"f",
        "etc/rules/g": b"g",
    }


def test_secrets_are_keyed_and_readable_by_the_service_only() -> None:
    made = record({"path": "key", "content": SECRET, "secret": True}, secret_environment={"A": SECRET})
    _, one = built(made, {0: {"": SECRET.encode()}}, "salt")
    _, two = built(made, {0: {"": SECRET.encode()}}, "other")
    for path in ("etc/key", "etc/environment"):
        assert one["files"][path]["sha256"] != two["files"][path]["sha256"]
        assert (one["files"][path]["mode"], one["files"][path]["group"]) == ("0640", "x")
    assert one["files"]["unit/x.service"] == two["files"]["unit/x.service"]
    assert SECRET not in str(one)


def test_one_path_twice_is_refused() -> None:
    made = record({"path": "a", "content": "1"}, {"path": "a", "content": "2"})
    with pytest.raises(RecordError, match="a is declared twice"):
        building.contents(made, {0: {"": b"1"}, 1: {"": b"2"}})


def test_a_file_cannot_be_a_directory_too() -> None:
    made = record({"path": "a", "content": "1"}, {"path": "a/b", "content": "2"})
    with pytest.raises(RecordError, match="also a directory"):
        building.contents(made, {0: {"": b"1"}, 1: {"": b"2"}})


def test_the_diff_shows_text_and_hides_secrets() -> None:
    made = record({"path": "a", "content": "new\n"}, {"path": "key", "content": SECRET, "secret": True})
    files, _ = built(made, {0: {"": b"new\n"}, 1: {"": SECRET.encode()}})
    changes = {"etc/a": "changed", "etc/key": "changed", "etc/gone": "removed", "etc/was": "removed"}
    before = {"etc/a": "old\n", "etc/gone": "bye\n"}
    found = building.differences("x", changes, files, before, {"etc/was"})
    text = "".join(item["prepared"] for item in found)
    assert "-old" in text
    assert "+new" in text
    assert "-bye" in text
    assert "/etc/x/key: changed (secret)" in text
    assert "/etc/x/was: changed (secret)" in text
    assert SECRET not in text


def test_a_revision_follows_all_that_a_reload_reads_but_secrets() -> None:
    def of(rule: bytes = b"rule", target: bytes = b"target", key: str = SECRET) -> tuple[Any, bytes]:
        made = record(
            {"path": "x.yml", "content": "", "on_change": "reload", "revision": True},
            {"path": "rule", "content": "", "on_change": "reload"},
            {"path": "target", "content": "", "on_change": "none"},
            {"path": "key", "content": "", "on_change": "reload", "secret": True},
            proof=[{"url": "http://127.0.0.1", "contains": "{revision}"}, {"url": "http://127.0.0.1"}],
        )
        rendered = {0: {"": b"rules: [{revision}*]"}, 1: {"": rule}, 2: {"": target}, 3: {"": key.encode()}}
        shown, files = building.revised(made, building.contents(made, rendered))
        return shown, files["etc/x.yml"].data

    shown, data = of()
    revision = shown.proof[0]["contains"]
    assert revision.startswith("revision-")
    assert data == f"rules: [{revision}*]".encode()
    assert "contains" not in shown.proof[1]
    assert of(rule=b"{revision}") != (shown, data)
    assert of(target=b"other") == of(key="other") == (shown, data)


def test_without_a_revised_file_the_words_stay_as_they_are() -> None:
    made = record(
        {"path": "rule", "content": "", "on_change": "reload"},
        proof=[{"url": "http://127.0.0.1", "contains": "{revision}"}],
    )
    files = building.contents(made, {0: {"": b"{revision}"}})
    assert building.revised(made, files) == (made, files)
