# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The one line that people read, from real plans."""

from __future__ import annotations

from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._component import story
from ansible_collections.luxima.observability.plugins.module_utils._component.plan import make_plan

Json = dict[str, Any]
HOST: Json = {"users": {"x": ["x"]}, "groups": ["x"]}
UP = {"active": "active", "enabled": "enabled", "exe_ok": True, "need_daemon_reload": False}


def wanted(version: str = "3.1.1", sha: str = "1", **files: str) -> Json:
    spec = {"mode": "0644", "group": "root", "secret": False}
    return {
        "name": "x",
        "user": "x",
        "groups": [],
        "directories": [],
        "live": [],
        "files": {
            "unit/x.service": {**spec, "sha256": "1", "on_change": "restart"},
            **{
                f"etc/{name}.yml": {**spec, "sha256": sha, "on_change": "reload"}
                for name, sha in files.items()
            },
        },
        "artifacts": {"x": {"sha256": sha, "version": version, "tool": False}},
        "exec": "/usr/local/bin/x",
        "service": {"reload": {"signal": "HUP"}},
    }


def line(want: Json, old: Json | None, **more: Any) -> str:
    have: Json = {} if old is None else {"manifest": old, "service": UP, "drift": [], **more}
    return story.one_line(make_plan(want, have, HOST), want, have)


def test_what_happens_and_why() -> None:
    assert line(wanted(), None) == "install: x 3.1.1"
    assert line(wanted(a="2"), wanted(a="1")) == "reload: a.yml changed"
    assert line(wanted(a="1"), wanted(b="1")) == "reload: a.yml added, b.yml removed"
    assert line(wanted("3.1.10", "2"), wanted()) == "restart: x 3.1.1 -> 3.1.10"
    assert line(wanted("3.1.1", "2"), wanted()) == "restart: x 3.1.1 built anew"


def test_what_somebody_did_by_hand_is_said() -> None:
    drift = [{"kind": "file", "path": "etc/a.yml"}, {"kind": "artifact", "path": "x"}]
    assert (
        line(wanted(a="1"), wanted(a="1"), drift=drift) == "restart: x edited by hand, a.yml edited by hand"
    )
    stopped = {**UP, "active": "failed", "enabled": "disabled"}
    assert line(wanted(), wanted(), service=stopped) == "start: not enabled at boot, the service is failed"


def test_a_long_list_is_cut() -> None:
    many = {f"f{n}": "2" for n in range(8)}
    told = line(wanted(**many), wanted(**dict.fromkeys(many, "1")))
    assert told.endswith("f4.yml changed, 3 more")
