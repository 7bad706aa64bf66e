# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Files on storages over the wire; machines made of them are in test_template_machine.py."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_template

FILE = "alpine_1_amd64.tar.zst"
NODES = ("pve1", "pve2", "pve3")


@pytest.fixture
def template(site: Any) -> Any:
    def run(*templates: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return dict(site.module(proxmox_template, check, templates=list(templates), **options))

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that is streamed, because it is big enough, and whose content a bad parser would stumble over."""
    path = tmp_path / "local name.tar.zst"
    path.write_bytes(b"\r\n--not a boundary\r\n\r\n" * 600_000)
    return path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server on loopback that holds the file."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / FILE).write_bytes(b"content")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{FILE}"
        server.shutdown()


def checksum(content: bytes = b"content") -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def stored(site: Any, node: str = "pve1", kind: str = "vztmpl") -> dict[str, int]:
    rows = site.api("GET", f"nodes/{node}/storage/local/content", content=kind)
    return {row["volid"]: row["size"] for row in rows if not row["volid"].startswith("local:vztmpl/debian")}


def test_uploaded_to_every_node_and_then_unchanged(site: Any, template: Any, source: Path) -> None:
    record = {"name": FILE, "kind": "vztmpl", "src": str(source)}
    predicted = template(record, check=True)
    assert stored(site) == {}
    first = template(record)
    assert not first.get("failed"), first
    assert first["templates"][f"local:vztmpl/{FILE} on pve2"]["actions"] == ["uploaded"]
    assert [predicted[key] for key in ("changed", "diff")] == [first[key] for key in ("changed", "diff")]
    for node in NODES:
        assert stored(site, node) == {f"local:vztmpl/{FILE}": source.stat().st_size}
        kept = site.server.cluster.files.path(node, "local", "vztmpl", FILE)
        assert kept.read_bytes() == source.read_bytes()
    second = template(record)
    assert (second["changed"], second["diff"]) == (False, [])
    assert not list(Path("/var/tmp").glob("pveupload-*-kept"))


def test_small_files_and_one_node(site: Any, template: Any, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"content")
    result = template(
        {"name": "x.iso", "kind": "iso", "src": str(path), "nodes": ["pve2"], "checksum": checksum()}
    )
    assert not result.get("failed"), result
    assert [stored(site, node, "iso") for node in NODES] == [{}, {"local:iso/x.iso": 7}, {}]


def test_another_size_is_another_file(site: Any, template: Any, source: Path) -> None:
    record = {"name": FILE, "kind": "vztmpl", "src": str(source), "nodes": ["pve1"]}
    template(record)
    source.write_bytes(b"shorter")
    result = template(record)
    assert result["templates"][f"local:vztmpl/{FILE} on pve1"]["actions"] == ["replaced"]
    assert stored(site) == {f"local:vztmpl/{FILE}": 7}


def test_downloaded_by_the_node(site: Any, template: Any, web: str) -> None:
    record = {"name": FILE, "kind": "vztmpl", "url": web, "checksum": checksum(), "nodes": ["pve1", "pve3"]}
    first = template(record)
    assert not first.get("failed"), first
    assert first["templates"][f"local:vztmpl/{FILE} on pve1"]["actions"] == ["downloaded"]
    assert [list(stored(site, node)) for node in NODES] == [
        [f"local:vztmpl/{FILE}"],
        [],
        [f"local:vztmpl/{FILE}"],
    ]
    assert template(record)["changed"] is False
    record["state"] = "absent"
    assert template(record, check=True)["changed"] is True
    assert template(record)["templates"][f"local:vztmpl/{FILE} on pve1"]["actions"] == ["removed"]
    assert stored(site) == {}
    assert template(record)["changed"] is False


def test_a_wrong_checksum_leaves_nothing(site: Any, template: Any, web: str, source: Path) -> None:
    record = {"name": FILE, "kind": "vztmpl", "url": web, "checksum": checksum(b"other"), "nodes": ["pve1"]}
    message = template(record)["msg"]
    assert "checksum mismatch: got" in message
    assert f"template local:vztmpl/{FILE} on pve1" in message
    assert stored(site) == {}
    before = site.server.count("POST")
    sent = template({**record, "url": None, "src": str(source)})["msg"]
    assert f"{source} has the checksum sha256:" in sent
    assert site.server.count("POST") == before


@pytest.mark.parametrize("fault", ["drop", "596"])
@pytest.mark.parametrize("way", ["upload", "download-url", "content"])
def test_lost_replies_are_looked_up(
    site: Any, template: Any, web: str, source: Path, fault: str, way: str
) -> None:
    record: dict[str, Any] = {"name": FILE, "kind": "vztmpl", "nodes": ["pve1"]}
    record |= {"url": web, "checksum": checksum()} if way != "upload" else {"src": str(source)}
    verb = "POST"
    if way == "content":
        template(record)
        record, verb = {**record, "state": "absent"}, "DELETE"
    if fault == "drop":
        site.server.faults.slow(0.5, ["download", "imgcopy", "imgdel"])
        site.server.faults.drop_reply(verb, way)
    else:
        site.server.faults.fail(verb, way)
    result = template(record)
    assert not result.get("failed"), result
    assert result["changed"] is True
    asked = [entry for entry in site.server.requests if entry.method == verb and way in entry.path]
    assert len(asked) == (1 if fault == "drop" else 2)
    assert template(record)["changed"] is False


def test_warnings_of_a_task_are_success(site: Any, template: Any, source: Path) -> None:
    site.server.faults.task_warnings = 1
    result = template({"name": FILE, "kind": "vztmpl", "src": str(source), "nodes": ["pve1"]})
    assert not result.get("failed"), result
    assert "something deserves a look" in str(result["warnings"])


def test_everything_that_is_missing_is_told_before_anything(site: Any, template: Any, web: str) -> None:
    missing = template(
        {"name": FILE, "kind": "vztmpl", "nodes": ["pve1"]},
        {"name": "x.iso", "kind": "iso", "nodes": ["pve9"], "url": web, "checksum": checksum()},
    )["msg"]
    assert (
        f"template local:vztmpl/{FILE} on pve1: is not there, and the record has neither src nor url"
        in missing
    )
    record = {"name": FILE, "kind": "vztmpl", "url": web, "checksum": checksum()}
    places = template({**record, "storage": "local-lvm"}, record)["msg"]
    assert "storage 'local-lvm' on node pve1 does not hold content 'vztmpl'" in places
    who = site.server.auditor
    account = {"api_user": who.user, "api_token_id": who.token_id, "api_token_secret": who.token_secret}
    rights = template({**record, "nodes": ["pve1"]}, **account)["msg"]
    assert "lacks Datastore.AllocateTemplate on /storage/local" in rights
    assert "lacks Sys.AccessNetwork on /nodes/pve1" in rights
    assert site.server.count("POST") == 0


def test_bad_records_are_refused_together(template: Any) -> None:
    message = template(
        {"name": "x.zip", "kind": "vztmpl"},
        {"name": "a.iso", "kind": "iso", "src": "/no/such/file"},
        {"name": "b.iso", "kind": "iso", "url": "https://example.org/b.iso"},
        {"name": "c.iso", "kind": "iso", "url": "https://example.org/c.iso", "src": "/x", "checksum": "abc"},
        {"name": "a_b", "kind": "vm", "image": "debian.qcow2"},
    )["msg"]
    for text in (
        "x.zip: is not a file name that ends in one of .tar.gz",
        "a.iso: src: /no/such/file is not a file on the controller",
        "b.iso: checksum: is missing",
        "c.iso: src and url: keep one",
        "c.iso: checksum: 'abc' is not of the form",
        "a_b: is not a host name",
        "a_b: image: 'debian.qcow2' is not a volume such as",
        "a_b: storage: is missing",
    ):
        assert text in message


def test_a_client_cannot_name_a_file_of_the_server(site: Any, tmp_path: Path) -> None:
    """What tmpfilename says from outside is not believed."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    with pytest.raises(AssertionError, match="400"):
        site.api(
            "POST",
            "nodes/pve1/storage/local/upload",
            content="iso",
            filename="x.iso",
            tmpfilename=f"/var/tmp/pveupload-{'0' * 8}",
        )
    assert secret.exists()
