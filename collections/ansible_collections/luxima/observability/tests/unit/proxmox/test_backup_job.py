# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Backup jobs over the wire."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_backup_job

JOB = {
    "id": "nightly",
    "schedule": "02:30",
    "storage": "local",
    "guests": ["web-2", "web-1"],
    "keep": {"daily": 7, "weekly": 4, "monthly": 0},
    "compress": "zstd",
    "notes_template": "{{guestname}}",
}


@pytest.fixture
def backup(site: Any) -> Any:
    def run(*jobs: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return dict(site.module(proxmox_backup_job, check, jobs=list(jobs), **options))

    return run


@pytest.fixture
def there(site: Any, make: Any) -> Any:
    site.ok(*[make(f"web-{number}", state="stopped") for number in (1, 2, 3)])
    site.api("POST", "pools", poolid="watch")
    return site


def stored(site: Any) -> dict[str, Any]:
    return {row["id"]: row for row in site.api("GET", "cluster/backup")}


def test_made_and_then_unchanged(there: Any, backup: Any) -> None:
    predicted = backup(JOB, check=True)
    assert stored(there) == {}
    first = backup(JOB)
    assert not first.get("failed"), first
    assert first["jobs"]["nightly"]["actions"] == ["created"]
    assert [predicted[key] for key in ("changed", "diff")] == [first[key] for key in ("changed", "diff")]
    ids = sorted(there.server.guest(name).vmid for name in ("web-1", "web-2"))
    job = stored(there)["nightly"]
    assert (job["vmid"], job["prune-backups"]) == (
        ",".join(map(str, ids)),
        {"keep-daily": "7", "keep-weekly": "4"},
    )
    assert (job["schedule"], job["compress"], job["notes-template"]) == ("02:30", "zstd", "{{guestname}}")
    second = backup(JOB)
    assert (second["changed"], second["diff"]) == (False, [])


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        ({"schedule": "03:00"}, "schedule"),
        ({"enabled": 0}, None),
        ({"prune-backups": "keep-last=1"}, "keep"),
        ({"prune-backups": "keep-weekly=4,keep-daily=7"}, None),
        ({"vmid": "100"}, "selection"),
        ({"all": 1, "delete": "vmid"}, "selection"),
        ({"pool": "watch"}, "selection"),
        ({"delete": "schedule", "starttime": "02:30", "dow": "sun"}, "schedule"),
        ({"delete": "compress"}, "compress"),
        ({"mailto": "somebody@example.org"}, None),
    ],
)
def test_edits_by_hand_are_repaired_and_nothing_else(
    there: Any, backup: Any, edit: dict[str, Any], key: str | None
) -> None:
    other = {**JOB, "id": "weekly", "schedule": "sun 04:00"}
    backup(JOB, other)
    there.api("PUT", "cluster/backup/nightly", **edit)
    predicted = backup(JOB, other, check=True)
    result = backup(JOB, other)
    assert result["diff"] == predicted["diff"]
    assert [list(entry["after"]) for entry in result["diff"]] == ([[key]] if key else [])
    job = stored(there)["nightly"]
    assert (job["schedule"], job["compress"], "starttime" in job) == ("02:30", "zstd", False)
    assert ("mailto" in job) == ("mailto" in edit)
    assert backup(JOB, other)["changed"] is False


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"pool": "watch"}, {"pool": "watch"}),
        ({"all": True}, {"all": 1}),
        ({"all": True, "exclude": ["web-3"]}, {"all": 1, "exclude": "web-3"}),
        ({"guests": ["web-3"]}, {"vmid": "web-3"}),
    ],
)
def test_every_way_of_choosing_guests_leads_to_every_other(
    there: Any, backup: Any, selection: dict[str, Any], expected: dict[str, Any]
) -> None:
    vmid = str(there.server.guest("web-3").vmid)
    for before in (
        {"pool": "watch"},
        {"all": True},
        {"all": True, "exclude": ["web-1"]},
        {"guests": ["web-1"]},
    ):
        backup({"id": "nightly", "schedule": "02:30", **before})
        assert not backup({"id": "nightly", **selection}).get("failed")
        job = stored(there)["nightly"]
        found = {key: str(job[key]) for key in ("all", "pool", "vmid", "exclude") if key in job}
        assert found == {key: str(value).replace("web-3", vmid) for key, value in expected.items()}
        assert backup({"id": "nightly", **selection})["changed"] is False


def test_a_value_is_taken_away_by_an_empty_one(there: Any, backup: Any) -> None:
    backup({**JOB, "comment": "old", "node": "pve1"})
    assert stored(there)["nightly"]["node"] == "pve1"
    assert backup({**JOB, "comment": "", "node": ""})["changed"] is True
    assert not {"comment", "node"} & stored(there)["nightly"].keys()
    assert backup({**JOB, "comment": "", "node": ""})["changed"] is False


def test_removed_and_others_left_alone(there: Any, backup: Any) -> None:
    there.api("POST", "cluster/backup", id="theirs", schedule="01:00", all=1)
    backup(JOB)
    assert backup({"id": "nightly", "state": "absent"})["jobs"]["nightly"]["actions"] == ["removed"]
    assert list(stored(there)) == ["theirs"]
    assert backup({"id": "nightly", "state": "absent"})["changed"] is False


@pytest.mark.parametrize("fault", ["drop", "596"])
@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE"])
def test_lost_replies_are_looked_up(there: Any, backup: Any, fault: str, verb: str) -> None:
    if verb != "POST":
        backup({**JOB, "schedule": "05:00"})
    if fault == "drop":
        there.server.faults.drop_reply(verb, "^/cluster/backup")
    else:
        there.server.faults.fail(verb, "^/cluster/backup")
    wanted = {"id": "nightly", "state": "absent"} if verb == "DELETE" else JOB
    result = backup(wanted)
    assert not result.get("failed"), result
    assert result["changed"] is True
    assert backup(wanted)["changed"] is False
    assert ("nightly" in stored(there)) == (verb != "DELETE")


def test_everything_that_is_missing_is_told_before_anything(there: Any, backup: Any) -> None:
    names = backup(
        {**JOB, "guests": ["web-9", "web-1"]}, {**JOB, "id": "second", "guests": None, "pool": "no"}
    )["msg"]
    assert "nightly: guests: there is no guest web-9" in names
    assert "pool 'no' does not exist" in names
    places = backup({**JOB, "storage": "local-lvm"}, {**JOB, "id": "second", "node": "pve9"})["msg"]
    assert "storage 'local-lvm' on node pve1 does not hold content 'backup'" in places
    assert "node 'pve9' is not in the cluster" in places
    who = there.server.auditor
    account = {"api_user": who.user, "api_token_id": who.token_id, "api_token_secret": who.token_secret}
    assert "auditor@pve!ro lacks Sys.Modify on / (for nightly)" in backup(JOB, **account)["msg"]
    assert stored(there) == {}


def test_bad_records_are_refused_together(backup: Any) -> None:
    message = backup(
        {"id": "1x"},
        {"id": "twice", "pool": "a", "all": True},
        {"id": "twice", "guests": ["a"], "exclude": ["b"], "keep": {"daily": -1}},
    )["msg"]
    for text in (
        "'1x': not an id of a job",
        "twice: pool and all say differently which guests are saved",
        "twice: listed twice",
        "twice: exclude belongs to all: true",
        "twice: keep.daily: -1 is below 0",
    ):
        assert text in message
    assert "schedule and selection missing: a new job needs both" in backup({"id": "empty"})["msg"]
    assert "none: guests is empty" in backup({"id": "none", "schedule": "03:00", "guests": []})["msg"]


def test_archives_are_kept_as_state(there: Any) -> None:
    """What the job would do, asked for now: an archive in the list, older ones pruned, a locked guest refused."""
    vmid = there.server.guest("web-1").vmid
    node = there.server.guest("web-1").node
    for _ in range(2):
        there.api(
            "POST", f"nodes/{node}/vzdump", vmid=vmid, storage="local", **{"prune-backups": "keep-last=1"}
        )
        there.server.cluster.tasks.wait_idle(5)
        # The name of an archive holds the second it was made in.
        time.sleep(1.1)
    found = there.api("GET", f"nodes/{node}/storage/local/content", content="backup")
    assert [entry["vmid"] for entry in found] == [vmid]
    there.server.lock_guest(vmid, "snapshot")
    there.api("POST", f"nodes/{node}/vzdump", vmid=vmid, storage="local")
    there.server.cluster.tasks.wait_idle(5)
    newest = there.server.cluster.tasks.all()
    assert "job errors" in {task.exitstatus for task in newest}
