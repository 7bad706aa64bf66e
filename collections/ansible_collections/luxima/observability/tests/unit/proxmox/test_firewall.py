# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Firewalls of guests over the wire, and the way to a list of rules."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.firewall import (
    LONGEST_LIST,
    Rule,
    steps,
    want_rules,
)
from ansible_collections.luxima.observability.plugins.modules import proxmox_firewall
from hypothesis import given
from hypothesis import strategies as st

LOGIN = {"comment": "log in", "proto": "tcp", "ports": ["22"], "sources": ["192.0.2.0/24"]}
METRICS = {
    "comment": "metrics",
    "proto": "tcp",
    "ports": ["9100", "8080"],
    "sources": ["10.0.0.22", "10.0.0.21/32"],
}
PING = {"comment": "reachable", "proto": "icmp"}
RULES = [LOGIN, METRICS, PING]


@pytest.fixture
def firewall(site: Any) -> Any:
    def run(*guests: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return dict(site.module(proxmox_firewall, check, guests=list(guests), **options))

    return run


@pytest.fixture
def there(site: Any, make: Any) -> Any:
    site.ok(*[make(f"web-{number}", state="stopped") for number in (1, 2)])
    return site


def base(site: Any, name: str = "web-1") -> str:
    guest = site.server.guest(name)
    return f"nodes/{guest.node}/{guest.kind}/{guest.vmid}/firewall"


def stored(site: Any, name: str = "web-1") -> list[str]:
    return [row.get("comment", "") for row in site.api("GET", f"{base(site, name)}/rules")]


def test_made_and_then_unchanged(there: Any, firewall: Any) -> None:
    record = {"name": "web-1", "rules": RULES}
    predicted = firewall(record, check=True)
    assert stored(there) == []
    first = firewall(record)
    assert not first.get("failed"), first
    assert first["guests"]["web-1"]["actions"] == ["rules added", "configured"]
    assert [predicted[key] for key in ("changed", "diff")] == [first[key] for key in ("changed", "diff")]
    assert stored(there) == ["ansible: log in", "ansible: metrics", "ansible: reachable"]
    metrics = there.api("GET", f"{base(there)}/rules/1")
    assert (metrics["source"], metrics["dport"], metrics["enable"]) == ("10.0.0.21,10.0.0.22", "9100,8080", 1)
    options = there.api("GET", f"{base(there)}/options")
    assert options["enable"] == 1
    begun = len(there.server.requests)
    second = firewall(record)
    assert (second["changed"], second["diff"]) == (False, [])
    assert {entry.method for entry in there.server.requests[begun:]} == {"GET"}
    # Where all guests are and what they are called; the datacenter's options; options, rules and cards of the guest.
    assert len(there.server.requests) - begun == 1 + there.visits() + 1 + 3


def test_switched_on_only_after_the_rules_are_there(there: Any, firewall: Any) -> None:
    firewall({"name": "web-1", "rules": RULES})
    written = [entry.path for entry in there.server.requests if entry.path.startswith("/" + base(there))]
    puts = [entry.method for entry in there.server.requests if entry.path == f"/{base(there)}/options"]
    assert puts[-2:] == ["PUT", "GET"]
    assert written.index(f"/{base(there)}/rules") < len(written) - 1 - written[::-1].index(
        f"/{base(there)}/options"
    )


def test_rules_of_others_stay(there: Any, firewall: Any) -> None:
    foreign = {"type": "in", "action": "DROP", "source": "198.51.100.7", "enable": 1, "comment": "abuse"}
    there.api("POST", f"{base(there)}/rules", **foreign)
    firewall({"name": "web-1", "rules": RULES})
    there.api("POST", f"{base(there)}/rules", **{**foreign, "comment": "ansiblelike"})
    result = firewall({"name": "web-1", "rules": [METRICS]})
    assert result["diff"][0]["after"]["rules"] == [
        "in ACCEPT tcp port 9100,8080 from 10.0.0.21,10.0.0.22 # ansible: metrics"
    ]
    assert stored(there) == ["ansiblelike", "ansible: metrics", "abuse"]
    assert there.api("GET", f"{base(there)}/rules/2")["source"] == "198.51.100.7"
    assert firewall({"name": "web-1", "rules": []})["guests"]["web-1"]["actions"] == ["rules removed"]
    assert stored(there) == ["ansiblelike", "abuse"]
    assert firewall({"name": "web-1"})["changed"] is False


@pytest.mark.parametrize(
    ("edit", "action"),
    [
        (("PUT", "rules/1", {"dport": "1"}), "rules changed"),
        (("PUT", "rules/1", {"enable": 0}), "rules changed"),
        (("PUT", "rules/1", {"iface": "net0"}), "rules changed"),
        (("PUT", "rules/0", {"moveto": 3}), "rules moved"),
        (("DELETE", "rules/1", {}), "rules added"),
        (("POST", "rules", {"type": "in", "action": "ACCEPT", "comment": "ansible: mine"}), "rules removed"),
        (("PUT", "options", {"policy_in": "ACCEPT"}), "configured"),
        (("PUT", "options", {"enable": 0}), "configured"),
    ],
)
def test_edits_by_hand_are_repaired_and_nothing_else(
    there: Any, firewall: Any, edit: tuple[str, str, dict[str, Any]], action: str
) -> None:
    records = [{"name": name, "rules": RULES} for name in ("web-1", "web-2")]
    firewall(*records)
    expected = there.server.cluster.documents["firewall"][str(there.server.guest("web-2").vmid)]
    method, path, values = edit
    there.api(method, f"{base(there)}/{path}", **values)
    predicted = firewall(*records, check=True)
    result = firewall(*records)
    assert action in result["guests"]["web-1"]["actions"]
    assert result["guests"]["web-1"]["actions"] == predicted["guests"]["web-1"]["actions"]
    assert result["guests"]["web-2"]["changed"] is False
    repaired = there.server.cluster.documents["firewall"][str(there.server.guest("web-1").vmid)]
    assert repaired["rules"] == expected["rules"]
    assert {"policy_in": "DROP", **repaired["options"]} == {"policy_in": "DROP", **expected["options"]}
    assert firewall(*records)["changed"] is False


@pytest.mark.parametrize("fault", ["drop", "596"])
@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE"])
def test_lost_replies_are_looked_up(there: Any, firewall: Any, fault: str, verb: str) -> None:
    firewall({"name": "web-1", "rules": [PING, METRICS]})
    if fault == "drop":
        there.server.faults.drop_reply(verb, "firewall")
    else:
        there.server.faults.fail(verb, "firewall")
    wanted = {"POST": RULES, "PUT": [PING, LOGIN], "DELETE": [PING]}[verb]
    result = firewall({"name": "web-1", "rules": wanted})
    assert not result.get("failed"), result
    assert stored(there) == [f"ansible: {rule['comment']}" for rule in wanted]


def test_a_write_of_somebody_else_in_between_is_kept(there: Any, firewall: Any) -> None:
    many = [{"comment": f"r{number}", "proto": "icmp"} for number in range(20)]
    done = threading.Event()

    def meddle() -> None:
        for number in range(10):
            there.api("POST", f"{base(there)}/rules", type="in", action="DROP", comment=f"by hand {number}")
        done.set()

    other = threading.Thread(target=meddle)
    other.start()
    result = firewall({"name": "web-1", "rules": many})
    other.join()
    assert done.is_set()
    assert not result.get("failed"), result
    assert [text for text in stored(there) if text.startswith("ansible: ")] == [
        f"ansible: r{n}" for n in range(20)
    ]
    assert len([text for text in stored(there) if text.startswith("by hand")]) == 10


def test_what_keeps_it_from_working_is_said(there: Any, firewall: Any, make: Any) -> None:
    warned = str(firewall({"name": "web-1", "rules": RULES}, check=True)["warnings"])
    assert "firewall of web-1: the datacenter's firewall is off, so nothing is filtered" in warned
    assert "firewall of web-1: an interface of the guest has firewall=0" in warned
    there.ok(make("web-7", state="stopped"))
    there.edit("web-7", net0="name=eth0,bridge=vmbr0,firewall=1,ip=10.0.0.17/24,gw=10.0.0.1")
    result = firewall({"name": "web-7", "rules": RULES}, datacenter_enabled=True)
    # Warnings of earlier calls stay in the process.
    assert "web-7" not in str(result.get("warnings", []))
    assert result["guests"]["datacenter"]["actions"] == ["configured"]
    assert there.api("GET", "cluster/firewall/options")["enable"] == 1
    assert firewall({"name": "web-7", "rules": RULES}, datacenter_enabled=True)["changed"] is False


def test_the_datacenter_is_left_alone_when_a_guest_failed(there: Any, firewall: Any) -> None:
    there.server.faults.fail("POST", "firewall/rules", status=500, reason="disk is full", times=99)
    result = firewall({"name": "web-1", "rules": RULES}, datacenter_enabled=True)
    assert "disk is full" in result["msg"]
    assert "firewall of the datacenter: left alone, because something before it failed" in result["msg"]
    assert "enable" not in there.api("GET", "cluster/firewall/options")


def test_a_guest_that_is_not_there(there: Any, firewall: Any) -> None:
    result = firewall({"name": "web-1", "rules": RULES}, {"name": "web-9", "rules": RULES})
    assert "web-9: there is no such guest" in result["msg"]
    assert stored(there) == []
    predicted = firewall({"name": "web-9", "rules": [PING]}, check=True)
    assert predicted["guests"]["web-9"]["actions"] == ["rules added", "configured"]


def test_missing_privileges_are_told_before_anything(there: Any, firewall: Any) -> None:
    who = there.server.auditor
    account = {"api_user": who.user, "api_token_id": who.token_id, "api_token_secret": who.token_secret}
    result = firewall({"name": "web-1", "rules": RULES}, datacenter_enabled=True, **account)
    vmid = there.server.guest("web-1").vmid
    assert f"auditor@pve!ro lacks VM.Config.Network on /vms/{vmid} (for web-1)" in result["msg"]
    assert "lacks Sys.Modify on / (for datacenter)" in result["msg"]
    assert stored(there) == []


def test_bad_records_are_refused_together(firewall: Any) -> None:
    result = firewall(
        {"name": "a", "rules": [{"comment": "x", "ports": ["0", "http"], "sources": ["web-2", "10.0.0.1"]}]},
        {"name": "a"},
        owner="a b",
    )
    for text in (
        "a: rules[0].ports: '0' is neither a port nor a range",
        "a: rules[0].ports: 'http'",
        "a: rules[0].proto: ports need a protocol",
        "a: rules[0].sources: 'web-2' is not an address or a network",
        "a: listed twice",
        "owner: 'a b' may hold letters",
    ):
        assert text in result["msg"]


def test_removing_a_guest_removes_its_firewall(there: Any, firewall: Any, make: Any) -> None:
    firewall({"name": "web-1", "rules": RULES})
    vmid = there.server.guest("web-1").vmid
    there.ok(make("web-1", state="absent"))
    there.ok(make("web-1", vmid=vmid, state="stopped"))
    assert stored(there) == []


# -- pure


def test_families_and_long_lists_become_rules_of_their_own() -> None:
    sources = ["2001:db8::1", "10.0.0.1", *(f"10.1.{n // 250}.{n % 250}/32" for n in range(120))]
    rules = want_rules({"comment": "x", "sources": sources}, "me")
    assert all(len(",".join(rule.source)) <= LONGEST_LIST for rule in rules)
    assert [word for rule in rules for word in rule.source][-1] == "2001:db8::1"
    assert rules[-1].source == ("2001:db8::1",)
    assert len({word for rule in rules for word in rule.source}) == 122


names = st.lists(st.sampled_from("abcdef"), unique=True)
foreign = st.lists(st.sampled_from("uvw") | st.sampled_from("abcdefgh"))


@given(names, foreign)
def test_any_list_is_brought_to_any_other(wanted: list[str], present: list[str]) -> None:
    """Ours end up as wanted; others keep their order; and not more steps are taken than rules exist."""
    rules = [Rule(name) for name in present]

    def ours(rule: Rule) -> bool:
        return rule.comment in "abcdefgh"

    goal = [Rule(name) for name in wanted]
    found = steps(rules, ours, goal)
    result = rules
    for step in found:
        result = step.apply(result)
    assert [rule for rule in result if ours(rule)] == goal
    assert [rule for rule in result if not ours(rule)] == [rule for rule in rules if not ours(rule)]
    assert len(found) <= 2 * (len(goal) + len(rules))
