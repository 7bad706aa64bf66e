# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Lists and mappings that come from several files."""

from __future__ import annotations

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._validate import additions


def test_the_variable_first_then_the_others_by_name() -> None:
    have = {"jobs_b": [3], "jobs": [1], "jobs_a": [2], "jobless": [9]}
    names = additions.names_of("jobs", have)
    assert names == ["jobs", "jobs_a", "jobs_b"]
    assert additions.joined("jobs", {name: have[name] for name in names}) == [1, 2, 3]


def test_mappings_are_merged_and_a_key_has_one_owner() -> None:
    assert additions.joined("units", {"units": {"a": 1}, "units_x": {"b": 2}}) == {"a": 1, "b": 2}
    with pytest.raises(additions.Clash, match="units_x: a stands in units too"):
        additions.joined("units", {"units": {"a": 1}, "units_x": {"a": 2}})


def test_a_mapping_among_lists_is_named() -> None:
    with pytest.raises(additions.Clash, match="jobs_x: is a mapping; jobs and what adds to it are lists"):
        additions.joined("jobs", {"jobs": [], "jobs_x": {"a": 1}})


def test_what_roles_read_together_is_found_in_their_text() -> None:
    text = "x: \"{{ lookup('luxima.observability.together', 'platform_probes') }}\""
    assert additions.read_in(text) == {"platform_probes"}
    assert additions.base_of("platform_probes_shop", ["platform", "platform_probes"]) == "platform_probes"
    assert additions.base_of("platform_prob", ["platform_probes"]) == ""
