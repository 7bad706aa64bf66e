# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Remembered host keys, with SSH's own programs and files."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.luxima.observability.plugins.plugin_utils import host_keys


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return " ".join(file.with_suffix(".pub").read_text().split()[:2])


def known(folder: Path, key: str, *names: str, hashed: bool = False, called: str = "known_hosts") -> Path:
    file = folder / called
    file.write_text("".join(f"{name} {key}\n" for name in names))
    if hashed:
        subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    return file


def has(file: Path, name: str) -> bool:
    return (
        subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, check=False).returncode
        == 0
    )


def arguments(file: Path, *more: str) -> list[str]:
    return ["-F", "none", "-o", f"UserKnownHostsFile={file}", *more]


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    ("more", "name"),
    [
        ((), "192.0.2.7"),
        (("-p", "2222"), "[192.0.2.7]:2222"),
        (("-o", "HostKeyAlias=web-1"), "web-1"),
        (("-o", "ProxyJump=jump.example"), "192.0.2.7"),
    ],
)
def test_a_key_is_forgotten_and_others_stay(
    tmp_path: Path, key: str, hashed: bool, more: tuple[str, ...], name: str
) -> None:
    file = known(tmp_path, key, name, "192.0.2.70", hashed=hashed)
    given = arguments(file, *more)
    assert host_keys.forget(given, "192.0.2.7", tmp_path / "lock")
    assert not has(file, name)
    assert has(file, "192.0.2.70")
    assert not host_keys.forget(given, "192.0.2.7", tmp_path / "lock")


def test_a_file_with_blanks_in_its_name_and_one_that_is_not_there(tmp_path: Path, key: str) -> None:
    file = known(tmp_path, key, "192.0.2.7", called="known hosts")
    assert host_keys.forget(arguments(file), "192.0.2.7", tmp_path / "lock")
    assert not has(file, "192.0.2.7")
    assert not host_keys.forget(arguments(tmp_path / "nothing"), "192.0.2.7", tmp_path / "lock")


def test_many_are_forgotten_at_the_same_time(tmp_path: Path, key: str) -> None:
    hosts = [f"192.0.2.{number}" for number in range(1, 25)]
    file = known(tmp_path, key, *hosts, "192.0.2.99")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda host: host_keys.forget(arguments(file), host, tmp_path / "lock"), hosts))
    assert [host for host in [*hosts, "192.0.2.99"] if has(file, host)] == ["192.0.2.99"]


def test_the_way_out_is_a_command_that_works(tmp_path: Path, key: str) -> None:
    file = known(tmp_path, key, "[192.0.2.7]:2222")
    told = host_keys.way_out(arguments(file, "-p", "2222"), "192.0.2.7")
    command = told.partition("say so: ")[2].partition(". If not")[0]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert not has(file, "[192.0.2.7]:2222")


def test_other_reasons_are_waited_for() -> None:
    assert host_keys.changed("@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@")
    assert not host_keys.changed("Connection refused")
    assert not host_keys.changed("Permission denied (publickey)")
