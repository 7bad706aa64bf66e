# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

import shlex

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
