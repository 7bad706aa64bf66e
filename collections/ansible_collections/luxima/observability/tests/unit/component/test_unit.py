# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

import shlex

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component import unit
from ansible_collections.luxima.observability.plugins.module_utils._component.record import parse
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


def text(**changes: object) -> str:
    base = {"name": "x", "user": "x", "unit": {"exec_start": ["/usr/local/bin/x"]}}
    return unit.unit_text(parse({**base, **changes}))


def lines(**changes: object) -> list[str]:
    return text(**changes).splitlines()


def test_hardened_unless_told_otherwise() -> None:
    strict = lines()
    assert "ProtectSystem=strict" in strict
    assert "CapabilityBoundingSet=" in strict
    assert "User=x" in strict
    host = lines(unit={"exec_start": ["/usr/local/bin/x"], "hardening": "host"})
    assert "ProtectSystem=full" in host
    assert "PrivateDevices=yes" not in host
    assert "NoNewPrivileges=yes" in host


def test_root_keeps_its_capabilities_and_has_no_user_line() -> None:
    root = lines(user="root")
    assert not any(line.startswith(("User=", "CapabilityBoundingSet=")) for line in root)


def test_settings_add_replace_and_remove() -> None:
    settings = {
        "LimitNOFILE": 7,
        "ProtectHome": None,
        "SystemCallFilter": ["@system-service", "~@privileged"],
        "Nice": True,
    }
    found = lines(unit={"exec_start": ["/usr/local/bin/x"], "settings": settings})
    assert "LimitNOFILE=7" in found
    assert "LimitNOFILE=65536" not in found
    assert "Nice=yes" in found
    assert not any(line.startswith("ProtectHome") for line in found)
    assert [line for line in found if line.startswith("SystemCallFilter")] == [
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
    ]


def test_data_is_writable_and_nothing_else() -> None:
    found = lines(
        directories=[{"path": "/var/lib/x"}],
        unit={"exec_start": ["/usr/local/bin/x"], "writable": ["/srv/x y"]},
    )
    assert 'ReadWritePaths=/var/lib/x "/srv/x y"' in found


def test_data_is_mounted_first_and_never_begun_empty() -> None:
    found = lines(directories=[{"path": "/srv/x y"}, {"path": "/var/lib/x", "data": False}])
    assert 'RequiresMountsFor="/srv/x y"' in found
    assert "RequiresMountsFor=/var/lib/x" in found
    (guard,) = [line for line in found if line.startswith("ExecStartPre=")]
    assert guard.startswith("ExecStartPre=+/bin/sh -c \"test -e '/srv/x y/.luxima-x' || ")
    assert found.index("[Service]") > found.index("RequiresMountsFor=/var/lib/x")


def test_commands_before_the_start_come_after_the_look_for_the_data() -> None:
    found = lines(
        directories=[{"path": "/var/lib/x"}],
        unit={"exec_start": ["/usr/local/bin/x"], "settings": {"ExecStartPre": "/bin/true"}},
    )
    before = [line for line in found if line.startswith("ExecStartPre=")]
    assert [line.split()[0] for line in before] == ["ExecStartPre=+/bin/sh", "ExecStartPre=/bin/true"]


@pytest.mark.parametrize("home", ["/home", "/root", "/run/user"])
def test_what_is_written_or_read_in_a_home_is_seen(home: str) -> None:
    unit: dict[str, object] = {"exec_start": ["/usr/local/bin/x"]}
    assert "ProtectHome=yes" in lines(unit={**unit, "writable": ["/srv/homes"]})
    written = lines(unit={**unit, "writable": [f"{home}/x"]})
    assert {"ProtectHome=tmpfs", f"BindPaths={home}/x", f"ReadWritePaths={home}/x"} <= set(written)
    read = lines(unit={**unit, "readable": [f"{home}/*/log/*.log", "/var/log/x.log"]})
    assert "ProtectHome=read-only" in read
    assert "PrivateTmp=yes" in read


def test_what_is_read_in_the_common_scratch_place_is_seen() -> None:
    found = lines(unit={"exec_start": ["/usr/local/bin/x"], "readable": ["/tmp/app-*.log"]})
    assert "PrivateTmp=no" in found
    assert "ProtectHome=yes" in found


def test_memory_is_bounded_for_the_unit_and_for_gos_collector() -> None:
    found = lines(memory="1GiB")
    assert "MemoryMax=1073741824" in found
    assert "Environment=GOMEMLIMIT=921MiB" in found
    own = lines(memory="1GiB", environment={"GOMEMLIMIT": "600MiB"})
    assert "Environment=GOMEMLIMIT=600MiB" in own
    assert not any(line.startswith(("MemoryMax", "Environment")) for line in lines(memory=""))


def test_secrets_are_in_a_file_not_in_the_unit() -> None:
    found = text(secret_environment={"TOKEN": "hunter2"}, environment={"A": "b c"})
    assert "hunter2" not in found
    assert "EnvironmentFile=/etc/x/environment" in found
    assert 'Environment="A=b c"' in found


def test_the_text_does_not_depend_on_the_order_of_variables() -> None:
    assert text(environment={"A": "1", "B": "2"}) == text(environment={"B": "2", "A": "1"})


@given(st.lists(TEXT, max_size=4))
def test_arguments_arrive_literally(words: list[str]) -> None:
    """systemd's quoting is read back the way its manual says."""
    found = lines(unit={"exec_start": ["/usr/local/bin/x", *words]})
    value = next(line for line in found if line.startswith("ExecStart=")).partition("=")[2]
    read = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(value)]
    assert read == ["/usr/local/bin/x", *words]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_an_environment_file_is_read_back(value: str) -> None:
    content = unit.environment_text({"A": value})
    quoted = content[len('A="') : -len('"\n')]
    read, escaped = "", False
    for char in quoted:
        if escaped or char != "\\":
            assert escaped or char != '"'
            read += char
            escaped = False
        else:
            escaped = True
    assert read == value
