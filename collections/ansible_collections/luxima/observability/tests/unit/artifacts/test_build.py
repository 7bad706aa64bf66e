# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Real builds of a tiny module, without any proxy."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from .conftest import COLLECTIONS, Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("go") is None and not Path("/usr/local/go/bin/go").exists(), reason="needs Go"
    ),
]


def _says(path: str, tmp_path: Path) -> str:
    program = tmp_path / "program"
    shutil.copy(path, program)
    program.chmod(0o755)
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


def _h1(files: dict[str, str]) -> str:
    """Go's directory hash, as in go.sum."""
    lines = "".join(f"{hashlib.sha256(files[name].encode()).hexdigest()}  {name}\n" for name in sorted(files))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


def test_packages_of_one_module_are_built_together(project: Project, tmp_path: Path) -> None:
    project.hello("one", "two")
    result = project.save().run(sources=["cache", "build"])
    assert result["counts"] == {"build": 2}
    assert [_says(a["path"], tmp_path) for a in result["artifacts"]] == ["hello one 1.0.0", "hello two 1.0.0"]
    again = project.run(sources=["cache", "build"])
    assert (again["changed"], again["artifacts"]) == (False, result["artifacts"])


def test_another_architecture(project: Project) -> None:
    project.hello("one")
    result = project.save().run(sources=["build"], architectures=["arm64"])
    assert Path(result["artifacts"][0]["path"]).read_bytes()[18:20] == b"\xb7\x00"


def test_a_tree_of_a_copied_module_with_a_generated_file(project: Project) -> None:
    project.hello("one")
    folder = project.lock_file.parent / "build" / "hello"
    # `copy` takes the module out of Go's cache, so this one has to be there: a module proxy in a folder.
    proxy = project.root / "proxy" / "example.test" / "tree" / "@v"
    proxy.mkdir(parents=True)
    files = {
        "go.mod": "module example.test/tree\n\ngo 1.21\n",
        "main.go": "package main\n\nfunc main() { println(text) }\n",
        "conf/defaults.ini": "[server]\n",
        "conf/notes.md": "dropped\n",
    }
    with zipfile.ZipFile(proxy / "v1.0.0.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(f"example.test/tree@v1.0.0/{name}", text)
    (proxy / "v1.0.0.mod").write_text(files["go.mod"])
    (proxy / "v1.0.0.info").write_text('{"Version":"v1.0.0"}')
    (folder / "go.mod").write_text("module build\n\ngo 1.21\n\nrequire example.test/tree v1.0.0\n")
    sums = _h1({f"example.test/tree@v1.0.0/{name}": text for name, text in files.items()})
    (folder / "go.sum").write_text(
        f"example.test/tree v1.0.0 {sums}\nexample.test/tree v1.0.0/go.mod {_h1({'go.mod': files['go.mod']})}\n"
    )
    project.data["builds"]["hello"].update(
        module="example.test/tree",
        module_version="v1.0.0",
        copy=True,
        keep=["conf"],
        drop=["*.md"],
        variables={},
        steps=[["sh", "-c", "printf 'package main\\n\\nvar text = \"generated\"\\n' > generated.go"]],
    )
    project.data["artifacts"]["one"].update(kind="tree", main=".")
    environment = {"GOPROXY": f"file://{project.root}/proxy", "GOMODCACHE": str(project.root / "mod")}
    result = project.save().run(environment, sources=["build"])
    assert not result.get("failed"), result["msg"]
    listing = subprocess.run(
        ["tar", "-tf", result["artifacts"][0]["path"]], capture_output=True, text=True, check=True
    )
    assert listing.stdout.split() == ["bin/one", "conf/defaults.ini"]
    # A module that is not what go.sum says is not built, also when it comes from Go's own cache.
    (folder / "go.sum").write_text((folder / "go.sum").read_text().replace(sums, f"h1:{'A' * 43}="))
    other = project.run(environment | {"GOMODCACHE": str(project.root / "mod2")}, sources=["build"])
    assert other["failed"]
    assert "checksum mismatch" in other["msg"]


def test_two_runs_at_once_build_once(project: Project) -> None:
    project.hello("one", "two")
    project.save()
    runs = [project.start(sources=["cache", "build"]) for _ in range(2)]
    results = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    assert results[0]["artifacts"] == results[1]["artifacts"]
    counts = [result["counts"].get("build", 0) for result in results]
    assert sorted(counts) == [0, 2]


def test_another_checkout_shares_the_build(project: Project, tmp_path: Path) -> None:
    project.hello("one")
    project.save().get(sources=["cache", "build"])
    other = Project(tmp_path / "other", project.url)
    other.cache = project.cache
    other.hello("one")
    assert other.save().run(sources=["cache"])["changed"] is False


def test_what_decides_the_content_decides_the_key(project: Project) -> None:
    project.hello("one")
    project.save().get(sources=["cache", "build"])
    (project.lock_file.parent / "build" / "hello" / "go.sum").write_text("\n")
    assert project.run(sources=["cache"])["failed"]


def test_a_failing_build_shows_the_compilers_words(project: Project) -> None:
    project.hello("one", "two")
    source = project.lock_file.parent / "build" / "hello" / "src" / "cmd" / "one" / "main.go"
    source.write_text("package main\n\nfunc main() { nothing() }\n")
    result = project.save().run(sources=["build"])
    assert result["failed"]
    assert "undefined: nothing" in result["msg"]
    assert list((project.cache / "tmp").iterdir()) == []


def test_go_too_old_and_missing_is_one_message_with_the_ways_out(project: Project, tmp_path: Path) -> None:
    project.hello("one", "two", go="99.0")
    old = tmp_path / "bin" / "go"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)
    result = project.save().run({"PATH": str(old.parent)}, sources=["build"])
    message = result["msg"]
    assert result["failed"]
    assert message.count("building needs Go 99.0 or newer, found 1.19.8 at ") == 1
    assert "one (amd64), two (amd64):" in message
    for way_out in ("`release`", "platform_artifact_mirror_url", "platform_artifact_directory"):
        assert way_out in message


def test_an_exact_go_names_its_debian_package(project: Project) -> None:
    project.hello("one", go="1.2", exact=True, toolchain="/nowhere/go", package="golang-1.2-go")
    message = project.save().run(sources=["build"])["msg"]
    assert "building needs exactly Go 1.2, found " in message
    assert "apt-get install golang-1.2-go" in message


def test_a_missing_c_compiler_names_its_debian_packages(project: Project, tmp_path: Path) -> None:
    project.hello("one", cgo="static")
    message = project.save().run({"PATH": str(tmp_path), "CC": "nowhere-gcc"}, sources=["build"])["msg"]
    assert (
        "building needs the C compiler nowhere-gcc; install it with `apt-get install gcc libc6-dev`"
        in message
    )


def test_progress_is_shown_by_the_action_while_it_runs(project: Project) -> None:
    closed = "http://127.0.0.1:9"
    project.url = closed
    for name in ("one", "two"):
        project.release(name, "1.0.0", f"{name}-{{arch}}", "SHA256SUMS")
        project.artifact(name, release=name, member="")
    project.hello("one", "two")
    project.save()
    play = project.root / "play.yml"
    task = {"cache_dir": str(project.cache), "lock_file": str(project.lock_file)}
    play.write_text(
        json.dumps(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "tasks": [{"luxima.observability.artifacts": task}],
                }
            ]
        )
    )
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "GOPROXY": "off",
        "no_proxy": "*",
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(play)]
    checked = subprocess.run(
        [*command, "--check"], cwd=project.root, env=environment, capture_output=True, text=True
    )
    assert "changed=1" in checked.stdout
    assert not project.cache.exists()
    first = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True)
    assert (
        first.stdout.count(
            "upstream's releases cannot be reached (127.0.0.1:9: Connection refused); building 2"
        )
        == 1
    )
    assert "artifacts: building hello 1.0.0 for amd64 (1/1)" in first.stdout
    assert "artifacts: 2 ready: 2 built" in first.stdout
    second = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True)
    assert "changed=0" in second.stdout
    assert "artifacts: " not in second.stdout


def test_an_interrupted_build_leaves_nothing_running(project: Project) -> None:
    pid = project.root / "pid"
    project.hello("one", steps=[["sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 60; true"]])
    run = project.save().start(sources=["build"])
    for _ in range(200):
        if pid.exists():
            break
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert list((project.cache / "tmp").iterdir()) == []


def test_a_missing_compiler_is_told_before_anything_is_built(project: Project, tmp_path: Path) -> None:
    project.hello("one", "two")
    project.data["builds"]["other"] = {**project.data["builds"]["hello"], "go": "99.0"}
    project.data["artifacts"]["two"]["build"] = "other"
    message = project.save().run(sources=["cache", "build"])["msg"]
    assert message.startswith("1 of 2 artifacts cannot be had.\ntwo (amd64):")
    assert project.stored() == []
    # With another source to come, what can be built is built.
    (tmp_path / "two").write_text("#!/bin/sh\n")
    result = project.run(sources=["cache", "build", "directory"], directory=str(tmp_path))
    assert result["counts"] == {"build": 1, "directory": 1}
