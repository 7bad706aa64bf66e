# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The finders, on small data. The whole is tested on real inventories in tests/data/test_bad_input.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.luxima.observability.plugins.module_utils._validate import (
    faults,
    groups,
    guests,
    images,
    places,
    schema,
)
from ansible_collections.luxima.observability.plugins.module_utils._validate.faults import Fault


def test_one_fault_of_a_group_is_told_once() -> None:
    text = faults.report([Fault("x", "a", "bad"), Fault("x", "b", "bad")], lambda name: ["f.yml:3"])
    assert text.splitlines() == [
        "1 fault in the inventory; nothing was touched.",
        "- x of hosts a, b (f.yml:3): bad",
    ]


def test_tags_that_name_components_select_them() -> None:
    assert groups.selected(["a", "b"], ["b", "verify"]) == ["b"]
    assert groups.selected(["a", "b"], ["all"]) == ["a", "b"]
    assert groups.check_tags(["a"], ["a", "provision", "all"], []) == []
    assert len(groups.check_tags(["a"], ["zzz"], ["provisoin"])) == 2


def test_an_empty_group_that_nobody_needs_is_no_fault() -> None:
    needs = {"h": {"a": ["b"]}}
    assert groups.check_requirements({"a": [], "b": []}, needs, ["a"]) == []
    assert groups.check_requirements({"a": ["h"], "b": ["h"]}, needs, ["a"]) == []
    assert len(groups.check_requirements({"a": ["h"]}, needs, ["a"])) == 1


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"guest_vmid": 99}, "guest_vmid"),
        ({"guest_address": "10.0.0.1"}, "guest_address"),
        ({"guest_address": "10.0.0.1/33"}, "guest_address"),
        ({"guest_tags": ["A"]}, "guest_tags"),
        ({"guest_firewall": "closed", "platform_operator_networks": []}, "platform_operator_networks"),
    ],
)
def test_what_the_hypervisor_refuses(values: dict[str, object], variable: str) -> None:
    assert [fault.variable for fault in guests.check({"h": values}, ["h"])] == [variable]


ONE = {"guest_disk_gb": 500, "guest_pool": "p", "guest_vmid": 513}
TWO = {"guest_disk_gb": 8, "guest_pool": "p", "guest_vmid": 514}


@pytest.mark.parametrize(
    ("job", "protected", "refused", "told"),
    [
        ({"pool": "p", "storage": "local"}, True, ["the system disk"], ["saves images of one (500 GB"]),
        ({"pool": "p"}, False, [], ["the system disk", "saves images of one (500 GB"]),
        ({"pool": "q", "storage": "backup"}, True, [], []),
        ({"all": True, "storage": "backup"}, True, [], ["saves images of one"]),
        ({"all": True, "exclude": ["one"], "storage": "backup"}, True, [], []),
        ({"all": True, "exclude": ["513"], "storage": "backup"}, True, [], []),
        ({"guests": ["two"], "storage": "backup"}, True, [], []),
        ({"guests": ["513"], "storage": "backup"}, True, [], ["saves images of one"]),
        ({"state": "absent"}, True, [], []),
    ],
)
def test_where_images_go_and_what_is_copied_twice(
    job: dict[str, object], protected: bool, refused: list[str], told: list[str]
) -> None:
    values = {
        "one": {**ONE, "platform_protected": protected},
        "two": {**TWO, "platform_protected": protected},
    }
    found = images.check([{"id": "nightly", **job}], values, {"guests": ["one", "two"], "backup": ["one"]})
    for faults_found, expected in zip(found, (refused, told)):
        assert len(faults_found) == len(expected)
        assert all(text in fault.text for fault, text in zip(faults_found, expected))


def test_what_the_hypervisor_takes() -> None:
    have = {
        "guest_vmid": 0,
        "guest_address": "10.0.0.1/24",
        "guest_tags": ["a-b"],
        "guest_firewall": "closed",
        "platform_operator_networks": ["192.0.2.0/24"],
        "platform_address": "10.0.0.1",
    }
    assert (
        guests.check({"h.example": have, "i": {**have, "platform_address": "10.0.0.2"}}, ["h.example", "i"])
        == []
    )


@pytest.mark.parametrize(
    ("option", "value", "good"),
    [
        ({"type": "int"}, "5", True),
        ({"type": "int"}, "five", False),
        ({"type": "str"}, {"a": 1}, False),
        ({"type": "str", "choices": ["a"]}, "b", False),
        ({"type": "dict", "options": {"a": {"type": "int"}}}, {"b": 1}, False),
    ],
)
def test_values(option: dict[str, object], value: object, good: bool) -> None:
    assert (schema.check_value("x_y", option, value, "h", False) == []) is good


def test_a_secret_is_not_shown() -> None:
    found = schema.check_value("x_password", {"type": "int"}, "correct-horse", "h", True)
    assert len(found) == 1
    assert "correct-horse" not in found[0].text


def test_where_a_variable_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("---\n# x_y: 1\nx_yz: 2\nh: {x_y: 1}\n")
    assert places.definitions([str(tmp_path)], "x_y") == [f"{tmp_path}/a.yml:4"]


def test_names_read_as_text_are_those_that_the_roles_have() -> None:
    roles = places.beside(str(Path(schema.__file__).parent), "roles")
    assert roles is not None
    loader = DataLoader()
    parsed = {
        name for role in schema.read_roles(roles, loader.load_from_file).values() for name in role.names
    }
    tasks = [task for file in roles.glob("*/tasks/*.yml") for task in loader.load_from_file(str(file))]
    registered = {task["register"] for task in tasks if "register" in task}
    assert registered
    assert schema.names(roles) == parsed | registered
