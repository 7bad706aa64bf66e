# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The transaction on a real host, with a real Alertmanager and with a server that fails on demand."""

from __future__ import annotations

import copy
import ensurepip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tarfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.luxima.observability.plugins.module_utils._component import manifest as building
from ansible_collections.luxima.observability.plugins.module_utils._component.record import parse as record_of

from .conftest import ROOT, TOY, Site, environment

Json = dict[str, Any]
TOY_URL = "http://127.0.0.1:18999"
SECRET = "correct-horse-battery"
# Random histories: one number, one history. HISTORIES=9 walks nine others as well.
SEEDS = range(int(os.environ.get("HISTORIES", "3")))
STEPS = 25


def toy(config: Json | None = None, **changes: Any) -> Json:
    """A record of the toy; `config` is what it reads."""
    record: Json = {
        "name": "toy",
        "artifacts": ["toy"],
        "user": "toy",
        "directories": [{"path": "/var/lib/toy"}],
        "live": [{"path": "drop"}],
        "files": [
            {"path": "toy.json", "content": {"value": 1, **(config or {})}, "on_change": "reload"},
            {"path": "drop/ours.txt", "content": "ours\n", "on_change": "none"},
        ],
        "environment": {"TOY_PORT": "18999"},
        "unit": {"description": "Toy", "exec_start": ["/usr/local/bin/toy", "/etc/toy/toy.json"]},
        "validate": [["{bin}/toy", "{etc}/toy.json", "--check"]],
        "reload": {"signal": "HUP"},
        "ready": {"url": f"{TOY_URL}/ready", "timeout": 8},
        "proof": [
            {"url": f"{TOY_URL}/metrics", "metric": "toy_reload_ok", "value": 1},
            {
                "url": f"{TOY_URL}/metrics",
                "metric": "toy_reloads_total",
                "labels": {"kind": "hup"},
                "changes": True,
            },
        ],
    }
    record.update(copy.deepcopy(changes))
    return record


def alertmanager(group_wait: str = "30s", **changes: Any) -> Json:
    url = "http://127.0.0.1:19093"
    return {
        "name": "alertmanager",
        "artifacts": ["alertmanager"],
        "tools": ["amtool"],
        "user": "alertmanager",
        "groups": ["systemd-journal", "there-is-no-such-group"],
        "directories": [{"path": "/var/lib/alertmanager"}],
        "secret_environment": {"TOKEN": SECRET},
        "files": [
            {
                "path": "alertmanager.yml",
                "content": {
                    "route": {"receiver": "x", "group_wait": group_wait},
                    "receivers": [{"name": "x"}],
                },
                "on_change": "reload",
            },
            {"path": "password", "content": SECRET, "secret": True, "on_change": "none"},
        ],
        "unit": {
            "exec_start": [
                "/usr/local/bin/alertmanager",
                "--config.file=/etc/alertmanager/alertmanager.yml",
                "--storage.path=/var/lib/alertmanager",
                "--web.listen-address=127.0.0.1:19093",
                "--cluster.listen-address=",
            ]
        },
        "validate": [["{bin}/amtool", "check-config", "{etc}/alertmanager.yml"]],
        "reload": {"url": f"{url}/-/reload"},
        "ready": {"url": f"{url}/-/ready", "timeout": 20},
        "proof": [
            {"url": f"{url}/metrics", "metric": "alertmanager_config_last_reload_successful", "value": 1}
        ],
        **copy.deepcopy(changes),
    }


def pid(site: Site, name: str = "toy") -> str:
    return site.on_host(f"systemctl show --property=MainPID --value {name}")


def served(site: Site) -> Json:
    """What the running toy says its configuration is."""
    program = f"import urllib.request as u; print(u.urlopen('{TOY_URL}/', timeout=5).read().decode())"
    answer: Json = json.loads(site.on_host(f'python3 -c "{program}"'))
    return answer


def deploy(site: Site, record: Json, *options: str, **more: Any) -> Json:
    run = site.run(record, *options, **more)
    assert run.code == 0, run.output
    return run.result


def test_alertmanager_from_nothing_to_reload(clean: Site) -> None:
    site = clean
    predicted = deploy(site, alertmanager(), "--check", "--diff")
    assert (
        site.on_host("ls -d /opt/luxima/alertmanager /etc/alertmanager || true", check=False).count(
            "/etc/alertmanager\n"
        )
        == 0
    )
    done = deploy(site, alertmanager(), "--diff")
    assert predicted["changed"]
    assert predicted["actions"] == done["actions"]
    assert done["restarted"]
    assert "created" in done["actions"]
    assert (
        site.on_host("systemctl is-active alertmanager; systemctl is-enabled alertmanager")
        == "active\nenabled"
    )
    assert "systemd-journal" in site.on_host("id -nG alertmanager")
    assert site.on_host(
        "stat -Lc '%a %U %G' /etc/alertmanager/password /etc/alertmanager/environment /etc/alertmanager/alertmanager.yml"
    ) == ("640 root alertmanager\n640 root alertmanager\n644 root root")
    again = deploy(site, alertmanager())
    assert again["changed"] is False
    assert again["actions"] == []

    before = pid(site, "alertmanager")
    changed = site.run(alertmanager("47s"), "--diff", "-v")
    assert changed.result["actions"] == ["staged", "validated", "reloaded"], changed.output
    assert changed.result["reloaded"]
    assert not changed.result["restarted"]
    assert "47s" in changed.output
    assert pid(site, "alertmanager") == before
    assert "group_wait: 47s" in site.on_host("amtool --alertmanager.url http://127.0.0.1:19093 config show")


def test_a_secret_is_changed_but_never_shown(clean: Site) -> None:
    site = clean
    first = site.run(alertmanager(), "--diff", "-vvv")
    assert first.code == 0, first.output
    record = alertmanager()
    record["files"][1]["content"] = SECRET + "-2"
    # The record's own task is in this test's variables; only the engine's output counts.
    second = site.run(record, "--diff", "-vvv")
    assert second.result["actions"] == ["staged", "validated"]
    assert "/etc/alertmanager/password: changed (secret)" in second.output
    for run in (first, second):
        assert SECRET not in run.output
        assert SECRET not in json.dumps(run.result)
    assert site.on_host(f"journalctl --no-pager | grep -c {SECRET} || true") in ("0", "")
    assert SECRET not in site.on_host("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").replace(
        f"grep -c {SECRET}", ""
    )
    assert SECRET not in site.on_host("grep -rl . /root/.ansible/tmp /tmp 2>/dev/null; true")


def test_a_vaulted_value_in_a_configuration_is_decrypted_and_never_shown(clean: Site, tmp_path: Path) -> None:
    """Also where text is put together with it, of which nothing says that it holds one."""
    site = clean
    key = VaultSecret(b"of these tests")
    (tmp_path / "key").write_bytes(key.bytes)
    lines = VaultLib([]).encrypt(SECRET, key, "own").decode().split()
    token = "\n".join(["token: !vault |", *(f"  {line}" for line in lines)])
    (tmp_path / "vars.yml").write_text(
        token + "\nauth: {basic_auth: {username: me, password: '{{ token }}'}}\n"
        "conf: {route: {receiver: x}, receivers: [{name: x, webhook_configs: [{url: 'http://127.0.0.1/x', http_config: '{{ auth }}'}]}]}\n"
    )
    given = ("-e", f"@{tmp_path / 'vars.yml'}", "--vault-id", f"own@{tmp_path / 'key'}", "--diff", "-vvv")
    record = alertmanager(environment={"JOINED": "a {{ token }}", "OPEN": "yes"})
    record["files"][0]["content"] = "{{ conf | to_nice_yaml(sort_keys=False) }}"
    record["files"].append(
        {"path": "note.txt", "content": "put together: <{{ token }}>\n", "on_change": "none"}
    )
    first = site.run(record, *given)
    assert first.code == 0, first.output
    assert site.on_host("cd /etc/alertmanager && stat -Lc '%a %G' alertmanager.yml note.txt environment") == (
        "640 alertmanager\n640 alertmanager\n640 alertmanager"
    )
    assert f'password: "{SECRET}"' in site.on_host("cat /etc/alertmanager/alertmanager.yml")
    assert site.on_host("cat /etc/alertmanager/note.txt") == f"put together: <{SECRET}>"
    assert f'JOINED="a {SECRET}"' in site.on_host("cat /etc/alertmanager/environment")
    unit = site.on_host("cat /etc/systemd/system/alertmanager.service")
    assert "OPEN=yes" in unit
    assert SECRET not in unit
    assert "/etc/alertmanager/alertmanager.yml: changed (secret)" in first.output
    again = site.run(record, *given)
    assert again.result["actions"] == []
    for run in (first, again):
        assert SECRET not in run.output
        assert SECRET not in json.dumps(run.result)


def test_a_key_of_stored_data_stays_while_there_is_data(clean: Site) -> None:
    site = clean
    guard = {"TOY_KEY": {"variable": "toy_key", "data": "/var/lib/toy"}}

    def keyed(key: str, **more: Any) -> Json:
        environment = {"TOY_KEY": key} if key else {"OTHER": "x"}
        return toy(more, secret_environment=environment, stored_data_keys=guard)

    def refused(record: Json, *options: str) -> None:
        before = pid(site)
        run = site.run(record, *options)
        assert run.code != 0, run.output
        assert "toy_key: what is stored in /var/lib/toy was written with another one" in run.message
        assert "Nothing was activated" in run.message
        assert pid(site) == before

    # Nothing is stored yet: any key will do.
    deploy(site, keyed("of an earlier version"))
    deploy(site, keyed("first"))
    site.on_host("echo data >/var/lib/toy/data")
    for key in ("second", ""):
        refused(keyed(key))
        refused(keyed(key), "--check")
    refused({"name": "toy", "state": "previous"})
    refused({"name": "toy", "state": "previous"}, "--check")
    # Whoever edits the file on the host changes nothing of that: what is put back is the key of the data.
    site.on_host("sed -i s/first/edited/ /etc/toy/environment")
    deploy(site, keyed("first", value=2))
    # A host that an earlier version deployed to remembers nothing; its file says the same.
    site.on_host("rm -r /opt/luxima/.data-keys")
    refused(keyed("second"))
    deploy(site, keyed("first", value=3))
    assert "first" not in site.on_host("cat /opt/luxima/.data-keys/toy.json")
    assert site.on_host("stat -c '%a' /opt/luxima/.data-keys /opt/luxima/.data-keys/toy.json") == "700\n600"
    # The host's salt is no part of that: who loses it asks anew, and knows the key all the same.
    site.on_host("rm /opt/luxima/.salt")
    refused(keyed("second"))
    deploy(site, keyed("first", value=4))
    # A removal that leaves the data leaves the memory of its key; one that takes it does not.
    deploy(site, {"name": "toy", "state": "absent"})
    run = site.run(keyed("second"))
    assert "toy_key: what is stored" in run.message
    deploy(site, keyed("first"))
    deploy(site, {"name": "toy", "state": "absent", "purge": True})
    deploy(site, keyed("second"))


def test_a_refused_configuration_never_arrives(clean: Site) -> None:
    site = clean
    deploy(site, alertmanager())
    before = pid(site, "alertmanager")
    run = site.run(alertmanager("not a duration"))
    assert run.code != 0
    assert "amtool check-config" in run.message, run.message
    assert "not a valid duration" in run.message, run.message
    assert "Nothing was activated" in run.message
    checked = site.run(alertmanager("not a duration"), "--check")
    assert checked.code != 0
    assert "not a valid duration" in checked.message
    assert pid(site, "alertmanager") == before
    assert deploy(site, alertmanager())["changed"] is False


def test_a_refused_reload_is_taken_back(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    before = pid(site)
    run = site.run(toy({"refuse_reload": True, "value": 2}))
    assert run.code != 0
    assert run.result["actions"] == ["reverted"], run.message
    assert "toy_reload_ok is 0" in run.message, run.message
    assert "was put back, is proven and serves" in run.message
    assert served(site)["value"] == 1
    assert pid(site) == before
    assert deploy(site, toy())["changed"] is False


def test_an_ignored_reload_is_seen(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    run = site.run(toy({"ignore_reload": True, "value": 2}))
    assert run.code != 0, run.message
    assert "toy_reloads_total is still 0" in run.message, run.message
    assert served(site)["value"] == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"crash": True}, "toy: I was told to crash"),
        ({"crash_after": 0.7}, "toy: crashing late"),
        ({"ready_after": 60}, "503: starting, please wait"),
    ],
)
def test_what_cannot_serve_is_taken_back(clean: Site, fault: Json, words: str) -> None:
    site = clean
    deploy(site, toy())
    run = site.run(toy(fault, environment={"TOY_PORT": "18999", "NEW": "1"}))
    assert run.code != 0, run.message
    assert words in run.message, run.message
    assert "serves" in run.message
    assert run.result["actions"] == ["reverted"]
    assert served(site)["value"] == 1
    assert deploy(site, toy())["changed"] is False


def test_a_new_program_that_dies_late_is_taken_back(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    bad = site.folder / "toy-bad"
    bad.write_text(
        TOY.read_text().replace(
            "    signal.signal(", "    threading.Timer(2.5, lambda: os._exit(9)).start()\n    signal.signal("
        )
    )
    site.store("toy", bad, "2")
    try:
        run = site.run(toy())
        assert run.code != 0, run.message
        assert "exit status 9" in run.message, run.message
    finally:
        site.store("toy", TOY, "1")
    assert served(site)["value"] == 1
    assert deploy(site, toy())["changed"] is False


def test_a_first_release_that_fails_leaves_no_half_state(clean: Site) -> None:
    site = clean
    run = site.run(toy({"crash": True}))
    assert run.code != 0
    assert "nothing serves" in run.message
    assert "told to crash" in run.message
    assert site.on_host(
        "systemctl is-active toy; ls /etc/toy /etc/systemd/system/toy.service; true"
    ).startswith("inactive")
    result = deploy(site, toy())
    assert "created" in result["actions"]
    assert served(site)["value"] == 1


@pytest.mark.parametrize(
    ("harm", "actions"),
    [
        ("echo '{\"value\": 9}' > /etc/toy/toy.json", ["staged", "validated", "reloaded"]),
        ("chmod 666 /etc/toy/toy.json", ["staged", "validated", "reloaded"]),
        (
            "echo '# mine' >> /etc/systemd/system/toy.service",
            ["staged", "validated", "daemon_reloaded", "restarted"],
        ),
        ("echo stray > /etc/toy/stray", ["staged", "validated", "restarted"]),
        ("echo '#' >> /opt/luxima/toy/current/bin/toy", ["staged", "validated", "restarted"]),
        ("rm /usr/local/bin/toy", ["links"]),
        ("chmod 755 /var/lib/toy", ["directories"]),
        ("systemctl stop toy", ["started"]),
        ("systemctl disable toy", ["enabled"]),
        ("echo mine > /etc/toy/drop/ours.txt", ["staged", "validated"]),
    ],
)
def test_harm_is_found_and_repaired(site: Site, harm: str, actions: list[str]) -> None:
    deploy(site, toy())
    site.on_host(harm)
    predicted = deploy(site, toy(), "--check")
    assert predicted["actions"] == actions
    assert deploy(site, toy())["actions"] == actions
    assert deploy(site, toy())["changed"] is False
    assert served(site)["value"] == 1


def test_what_somebody_edited_is_named_and_kept_for_a_while(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    site.on_host("echo '{\"value\": 9}' > /etc/toy/toy.json")
    for option, mode in (("--check", " (check)"), ("-v", "")):
        run = site.run(toy(), option)
        assert run.result["edited"] == ["/etc/toy/toy.json"]
        assert f"{site.host}: toy{mode}: reload: toy.json edited by hand" in run.output
    assert served(site)["value"] == 1
    assert "9" in site.on_host("cat /opt/luxima/toy/releases/*/etc/toy.json")


def test_live_files_of_others_stay_and_ours_are_pruned(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    site.on_host("echo theirs > /etc/toy/drop/theirs.txt; stat -c %i /etc/toy/drop/ > /run/inode")
    record = toy()
    record["files"] = [record["files"][0], {"path": "drop/new.txt", "content": "new\n", "on_change": "none"}]
    result = deploy(site, record)
    assert result["actions"] == ["staged", "validated"] or result["actions"] == [
        "staged",
        "validated",
        "restarted",
    ]
    assert site.on_host("ls -1 /etc/toy/drop; stat -c %i /etc/toy/drop/ | cmp - /run/inode").startswith(
        "new.txt\ntheirs.txt"
    )
    assert deploy(site, record)["changed"] is False


def test_previous_and_absent(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    deploy(site, toy({"value": 2}))
    site.on_host("echo precious > /var/lib/toy/data")
    predicted = deploy(site, {"name": "toy", "state": "previous"}, "--check")
    assert served(site)["value"] == 2
    back = deploy(site, {"name": "toy", "state": "previous"})
    assert back["actions"] == predicted["actions"] == ["rolled_back", "reloaded"]
    assert back["release"] == predicted["release"]
    assert served(site)["value"] == 1
    assert deploy(site, {"name": "toy", "state": "previous"})["changed"]
    assert served(site)["value"] == 2

    gone = deploy(site, {"name": "toy", "state": "absent"}, "--check")
    assert served(site)["value"] == 2
    done = deploy(site, {"name": "toy", "state": "absent"})
    assert done["actions"] == gone["actions"] == ["stopped", "disabled", "removed"]
    left = site.on_host(
        "cat /var/lib/toy/data; ls -d /opt/luxima/toy /etc/toy /usr/local/bin/toy /etc/systemd/system/toy.service "
        "/etc/systemd/system/multi-user.target.wants/toy.service 2>/dev/null; id -un toy"
    )
    # The data stays, and so must the user who owns it.
    assert left == "precious\ntoy"
    assert deploy(site, {"name": "toy", "state": "absent"})["changed"] is False
    deploy(site, toy())
    assert site.on_host("cat /var/lib/toy/data") == "precious"


def test_only_the_last_releases_are_kept(clean: Site) -> None:
    site = clean
    for value in range(6):
        deploy(site, toy({"value": value}))
    assert site.on_host("ls /opt/luxima/toy/releases | wc -l") == "3"
    inodes = site.on_host(
        "stat -c %i /opt/luxima/toy/current/bin/toy /opt/luxima/toy/releases/*/bin/toy"
    ).split()
    assert len(set(inodes)) == 1


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
def test_killed_at_any_moment_the_next_run_converges(site: Site, delay: float) -> None:
    """SIGKILL to the module `delay` seconds after it took its lock; the toy needs two seconds to be ready."""
    deploy(site, toy())
    new = toy({"value": 2, "ready_after": 2}, environment={"TOY_PORT": "18999", "NEW": str(delay)})
    site.on_host("rm -f /run/killed")
    site.start(
        'old=$(cat /opt/luxima/toy/lock); while [ "$(cat /opt/luxima/toy/lock)" = "$old" ]; do sleep 0.01; done\n'
        f'sleep {delay}; kill -9 $(cut -d" " -f2 /opt/luxima/toy/lock) && echo killed > /run/killed\n'
    )
    run = site.run(new)
    assert site.on_host("cat /run/killed") == "killed", run.output
    assert run.code != 0, run.output
    time.sleep(0.5)
    assert served(site)["value"] in (1, 2)
    deploy(site, new)
    assert served(site)["value"] == 2
    assert deploy(site, new)["changed"] is False
    assert site.on_host("ls -A /opt/luxima/toy | grep -c journal || true") == "0"


def test_killed_during_the_first_installation(clean: Site) -> None:
    site = clean
    record = toy({"ready_after": 2})
    site.start(
        "while ! test -e /opt/luxima/toy/journal.json; do sleep 0.01; done; sleep 0.5\n"
        'kill -9 $(cut -d" " -f2 /opt/luxima/toy/lock)\n'
    )
    assert site.run(record).code != 0
    deploy(site, record)
    assert deploy(site, record)["changed"] is False
    assert served(site)["value"] == 1


def test_a_second_run_at_the_same_time_is_refused(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    slow = toy({"value": 2, "ready_after": 4}, environment={"TOY_PORT": "18999", "NEW": "1"})
    play = site.play("slow", [site.task(slow)])
    with subprocess.Popen(
        site.command(play), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as first:
        time.sleep(2.5)
        second = site.run(toy({"value": 3}))
        first.wait(60)
    assert first.returncode == 0
    assert second.code != 0, second.message
    assert "another run is changing toy" in second.message, second.message
    assert served(site)["value"] == 2


def test_a_full_disk_leaves_the_old_release(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    site.on_host(
        "mkdir -p /run/small && mount -t tmpfs -o size=200k none /run/small && cp -a /opt/luxima/toy /run/keep"
    )
    try:
        # The releases lie on a tiny file system while the new one is staged.
        site.on_host("mount --bind /run/small /opt/luxima/toy/releases")
        big = toy({"value": 2})
        big["files"].append({"path": "big", "content": "x" * 400_000})
        run = site.run(big)
        assert run.code != 0, run.message
        assert "No space left on device" in run.message, run.message
        assert site.on_host("ls -A /run/small") == ""
    finally:
        site.on_host("umount /opt/luxima/toy/releases; umount /run/small; rm -rf /run/keep")
    assert served(site)["value"] == 1
    assert deploy(site, toy())["changed"] is False


def test_no_change_costs_one_request_for_all(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    deploy(site, alertmanager())
    play = site.play("two", [site.task(toy()), site.task(alertmanager())])
    done = site.ansible(site.command(play, "-vvv"), check=True)
    assert (done.stdout + done.stderr).count("SSH: EXEC") == 1, done.stdout + done.stderr
    assert "PUT" not in done.stdout, done.stdout


def test_bad_input_is_refused_before_anything_is_asked(site: Site) -> None:
    for change, words in (
        ({"colour": "red"}, "unknown key `colour`"),
        ({"files": [{"path": "/x", "content": ""}]}, "files[0].path"),
        ({"artifacts": "toy"}, "artifacts: expected a list"),
    ):
        run = site.run({**toy(), **change}, "-vvv")
        assert run.code != 0
        assert words in run.message
        assert "toy" in run.message
        assert site.host in run.message
        assert "SSH: EXEC" not in run.output.partition("Keep the answer")[0]


def test_async_is_refused(site: Site) -> None:
    play = site.play("async", [{**site.task(toy()), "async": 10, "poll": 0}])
    done = site.ansible(site.command(play))
    assert done.returncode != 0
    assert "async" in done.stdout + done.stderr


def test_rendering_needs_no_host(site: Site) -> None:
    folder = site.folder / "render"
    record = alertmanager()
    run = site.run(record, platform_render_dir=str(folder), ansible_host="192.0.2.1")
    assert run.code == 0, run.output
    assert run.result["changed"] is False, run.output
    base = folder / site.host / "alertmanager"
    assert "group_wait: 30s" in (base / "etc/alertmanager.yml").read_text()
    assert (base / "etc/password").read_text() == "<secret>\n"
    assert "ExecStart=/usr/local/bin/alertmanager" in (base / "unit").read_text()
    assert all(SECRET not in path.read_text() for path in base.rglob("*") if path.is_file())


def test_a_host_that_does_not_exist_yet_is_predicted(site: Site) -> None:
    fact = {
        "name": "Not there",
        "ansible.builtin.set_fact": {"luxima_state": {"exists": False}, "cacheable": True},
    }
    run = site.run(toy(), "--check", "--diff", before=[fact], ansible_host="192.0.2.1")
    assert run.code == 0, run.output
    assert "created" in run.result["actions"]
    assert run.result["validation"].startswith("predicted only")


def test_a_connection_that_is_cut_leaves_a_host_that_converges(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    slow = toy({"value": 2, "ready_after": 3}, environment={"TOY_PORT": "18999", "NEW": "1"})
    play = site.play("cut", [site.task(slow)])
    with subprocess.Popen(
        site.command(play),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        time.sleep(2.5)
        run.send_signal(signal.SIGKILL)
    time.sleep(4)
    assert served(site)["value"] in (1, 2)
    deploy(site, slow)
    assert served(site)["value"] == 2
    assert deploy(site, slow)["changed"] is False


def wishes(folder: Path) -> None:
    """What a random history wishes for, with all contents, as the controller would send it."""
    programs = {"1": TOY.read_bytes(), "2": TOY.read_bytes() + b"# another version\n"}
    bundle = folder / "bundle"
    bundle.mkdir(parents=True)
    found: Json = {}
    everything: dict[str, bytes] = {}

    def add(name: str, config: Json, version: str = "1", **changes: Any) -> None:
        record = record_of({**toy({"value": len(found), **config}), **changes})
        rendered = {
            index: {"": building.dumped(spec.path, spec.content)} for index, spec in enumerate(record.files)
        }
        files = building.contents(record, rendered)
        sha = hashlib.sha256(programs[version]).hexdigest()
        (bundle / sha).write_bytes(programs[version])
        program = {"sha256": sha, "size": len(programs[version]), "format": "file", "version": version}
        everything.update((str(len(everything) + n), item.data) for n, item in enumerate(files.values()))
        found[name] = {
            "state": "present",
            "manifest": building.manifest(record, files, {"toy": {**program, "tool": False}}, ""),
            "validate": [list(command) for command in record.validate],
            "about": list(record.about),
            "environment": dict(record.environment),
            "value": len(found),
        }

    quick = {"url": f"{TOY_URL}/ready", "timeout": 4, "settle": 0.2}
    with_file = {
        "files": [*toy()["files"], {"path": "drop/more.txt", "content": "more\n", "on_change": "none"}]
    }
    other = {"environment": {"TOY_PORT": "18999", "OTHER": "1"}}
    add("plain", {}, ready=quick)
    add("other value", {}, ready=quick)
    add("slow", {"ready_after": 0.4}, ready=quick)
    add("other environment", {}, ready=quick, **other)
    add("other program", {}, "2", ready=quick)
    add("bad: refused by its checker", {"broken": True}, ready=quick)
    add("bad: refuses to reload", {"refuse_reload": True, "crash": True}, ready=quick)
    add("bad: crashes", {"crash": True}, ready=quick, environment={"TOY_PORT": "18999", "OTHER": "2"})
    files = with_file["files"]
    files[0] = {**files[0], "content": {"value": len(found)}}
    add("a file more", {}, ready=quick, files=files)
    (folder / "wishes.json").write_text(json.dumps(found))
    with tarfile.open(bundle / "objects.tar", "w") as tar:
        for name, data in everything.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


@pytest.mark.parametrize("seed", SEEDS)
def test_any_history_converges(clean: Site, tmp_path: Path, seed: int) -> None:
    wishes(tmp_path / "walk")
    shutil.copytree(Path(str(building.__file__)).parent, tmp_path / "walk/_component")
    shutil.copy(Path(__file__).with_name("walk.py"), tmp_path / "walk")
    packed = subprocess.run(["tar", "cz", "walk"], cwd=tmp_path, capture_output=True, check=True).stdout
    clean.put("/run/walk.tar.gz", packed)
    done = clean.on_host(
        f"rm -rf /run/walk; tar xzf /run/walk.tar.gz -C /run; python3 /run/walk/walk.py /run/walk {seed} {STEPS} 2>&1",
        check=False,
    )
    assert done.splitlines()[-1].startswith(f"{STEPS - 1}: "), done


def deb(site: Site, version: str, config: Json | None = None) -> Json:
    """A record whose server comes as a Debian package of that version."""
    root = site.folder / f"deb-{version}"
    (root / "DEBIAN").mkdir(parents=True, exist_ok=True)
    (root / "DEBIAN/control").write_text(
        f"Package: toy-server\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.invalid>\n"
        "Description: a server that fails on demand\n"
    )
    program = root / "usr/bin/toy-server"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_bytes(TOY.read_bytes() + f"# {version}\n".encode())
    program.chmod(0o755)
    package = site.folder / f"toy-server_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", root, package], check=True, stdout=subprocess.DEVNULL
    )
    with tarfile.open(site.folder / "debs.tar", "w") as tar:
        tar.add(package, package.name)
    site.store("toy_server", site.folder / "debs.tar", version, "debs")
    return toy(
        config,
        artifacts=["toy_server"],
        unit={"exec_start": ["/usr/bin/toy-server", "/etc/toy/toy.json"]},
        validate=[["/usr/bin/toy-server", "{etc}/toy.json", "--check"]],
    )


def test_a_server_from_debian_packages(clean: Site) -> None:
    def installed() -> str:
        return clean.on_host("dpkg-query --show --showformat='${Version}' toy-server")

    first = deb(clean, "1.0")
    assert "created" in deploy(clean, first)["actions"]
    assert (installed(), served(clean)["value"]) == ("1.0", 1)
    assert deploy(clean, first)["changed"] is False
    second = deb(clean, "2.0", {"value": 2})
    assert deploy(clean, second)["actions"] == ["staged", "validated", "restarted"]
    assert (installed(), served(clean)["value"]) == ("2.0", 2)
    for bad in ({"broken": True}, {"crash": True}):
        assert clean.run(deb(clean, "3.0", bad)).code != 0
        assert (installed(), served(clean)["value"]) == ("2.0", 2)
    deb(clean, "2.0")
    assert deploy(clean, second)["changed"] is False
    assert deploy(clean, {"name": "toy", "state": "previous"})["actions"][0] == "rolled_back"
    assert (installed(), served(clean)["value"]) == ("1.0", 1)


def test_a_server_from_python_wheels(clean: Site) -> None:
    wheels = clean.folder / "wheels"
    wheels.mkdir()
    info = "toy_wheel-1.0.dist-info"
    with zipfile.ZipFile(wheels / "toy_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(TOY, "toy_wheel.py")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-wheel\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ntoy_wheel = toy_wheel:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    # Debian keeps Python's own copy of pip elsewhere.
    for folder in (
        Path(ensurepip.__file__).parent / "_bundled",
        Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/"),
    ):
        for pip in folder.glob("pip-*.whl"):
            shutil.copy(pip, wheels)
    lock = [
        f"{path.name.split('-')[0]}=={path.name.split('-')[1]} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in sorted(wheels.glob("*.whl"))
    ]
    assert len(lock) == 2
    (wheels / "requirements.txt").write_text("".join(lock))
    with tarfile.open(clean.folder / "wheels.tar", "w") as tar:
        for path in sorted(wheels.iterdir()):
            tar.add(path, path.name)
    clean.store("toy_wheel", clean.folder / "wheels.tar", "1.0", "wheelhouse")
    record = toy(
        artifacts=["toy_wheel"],
        unit={"exec_start": ["/usr/local/bin/toy_wheel", "/etc/toy/toy.json"]},
        validate=[],
    )
    assert "created" in deploy(clean, record)["actions"]
    assert served(clean)["value"] == 1
    assert deploy(clean, record)["changed"] is False
    record["files"][0]["content"]["value"] = 2
    assert deploy(clean, record)["actions"] == ["staged", "validated", "reloaded"]
    assert served(clean)["value"] == 2


def disk(site: Site, place: str = "/var/lib/toy") -> None:
    """A file system of its own on the directory; what is on it outlives being unmounted."""
    site.on_host(
        f"umount {place} 2>/dev/null; rm -rf /srv/disk {place}; mkdir -p /srv/disk {place}; mount --bind /srv/disk {place}"
    )


def test_a_server_never_begins_on_the_mount_point_of_its_missing_disk(clean: Site) -> None:
    site = clean
    disk(site)
    deploy(site, toy())
    site.on_host("echo precious > /var/lib/toy/data")
    assert deploy(site, toy())["changed"] is False
    assert "RequiresMountsFor=/var/lib/toy" in site.on_host("cat /etc/systemd/system/toy.service")
    site.on_host("systemctl stop toy; umount /var/lib/toy")
    # At boot, by hand, and by systemd itself.
    told = site.on_host(
        "systemctl start toy; systemctl stop toy; journalctl -u toy -n 20 -o cat", check=False
    )
    assert "/var/lib/toy does not hold the data of toy that was there. Is its disk mounted?" in told
    for option in ("--check", "-v"):
        refused = site.run(toy({"value": 2}), option)
        assert refused.code != 0
        assert "the data of toy was in /var/lib/toy and is not there now" in refused.message, refused.message
        assert "-e platform_data_lost_confirmed=toy@toys" in refused.message
    # Not even its owner was "repaired", and nothing was made on it.
    assert site.on_host("stat -c %U /var/lib/toy; ls -A /var/lib/toy") == "root"
    assert "the data of toy was in" in site.run(toy()).message
    site.on_host("mount --bind /srv/disk /var/lib/toy")
    assert deploy(site, toy())["actions"] == ["started"]
    assert site.on_host("cat /var/lib/toy/data") == "precious"

    site.on_host("systemctl stop toy; umount /var/lib/toy")
    other = site.run(toy(), platform_data_lost_confirmed="loki@toys")
    assert other.code != 0
    anew = deploy(site, toy(), platform_data_lost_confirmed="loki@toys, toy@toys")
    assert anew["actions"] == ["directories", "started"]
    assert deploy(site, toy())["changed"] is False
    assert served(site)["value"] == 1


def test_data_that_stays_is_adopted_and_purged_data_is_begun_anew(clean: Site) -> None:
    site = clean
    deploy(site, toy())
    deploy(site, toy({"value": 2}))
    site.on_host("echo precious > /var/lib/toy/data")
    deploy(site, {"name": "toy", "state": "absent"})
    deploy(site, toy())
    deploy(site, toy({"value": 2}))
    assert site.on_host("cat /var/lib/toy/data") == "precious"
    # What goes back needs its data as well.
    site.on_host("systemctl stop toy; mv /var/lib/toy /var/lib/toy.away")
    back = site.run({"name": "toy", "state": "previous"})
    assert "the data of toy was in /var/lib/toy" in back.message, back.message
    site.on_host("mv /var/lib/toy.away /var/lib/toy")
    deploy(site, {"name": "toy", "state": "previous"})
    site.clear()
    site.on_host("rm -rf /var/lib/toy")
    deploy(site, toy())
    site.on_host("echo precious > /var/lib/toy/data")
    deploy(site, {"name": "toy", "state": "absent", "purge": True})
    deploy(site, toy())
    assert site.on_host("ls -A /var/lib/toy") == ".luxima-toy"


def test_an_empty_mount_point_of_a_release_without_marks_is_refused_too(clean: Site) -> None:
    site = clean
    disk(site)
    deploy(site, toy())
    # As a release left it that knew no marks.
    site.on_host(
        'systemctl stop toy; umount /var/lib/toy; rm /srv/disk/.luxima-toy; cd /opt/luxima/toy; python3 -c "import json; '
        "made = json.load(open('made.json')); made.pop('marked'); json.dump(made, open('made.json', 'w'))\""
    )
    assert "the data of toy was in /var/lib/toy" in site.run(toy()).message
    site.on_host("mount --bind /srv/disk /var/lib/toy")
    deploy(site, toy({"value": 2}))
    assert site.on_host("ls -A /srv/disk") == ".luxima-toy"


def test_a_restart_that_cannot_succeed_now_is_found_before_it(clean: Site) -> None:
    site = clean
    words = "the toy starts only where its store answers"
    record = toy(needs=[{"url": "http://127.0.0.1:18998/", "words": words}])
    store = "systemd-run --collect --quiet --unit=store python3 -m http.server 18998 --bind 127.0.0.1"
    refused = site.run(record)
    assert words in refused.message, refused.message
    assert "Nothing was activated" in refused.message
    site.on_host(store)
    deploy(site, record)
    before = pid(site)
    site.on_host("systemctl stop store")
    # What needs no restart goes on, and so does what needs nothing.
    assert deploy(site, record)["changed"] is False
    record["files"][0]["content"] = {"value": 2}
    assert deploy(site, record)["actions"] == ["staged", "validated", "reloaded"]
    record["environment"]["MORE"] = "1"
    checked = site.run(record, "--check")
    assert checked.code == 0, checked.output
    assert words in checked.output
    refused = site.run(record)
    assert words in refused.message, refused.message
    assert "http://127.0.0.1:18998/" in refused.message
    assert pid(site) == before
    assert served(site)["value"] == 2
    back = site.run({"name": "toy", "state": "previous"})
    assert back.code == 0, back.message
    deploy(site, {"name": "toy", "state": "previous"})
    site.on_host(store)
    assert "restarted" in deploy(site, record)["actions"]
    site.on_host("systemctl stop store")


def test_a_path_that_is_needed_and_missing_is_red_without_any_change(clean: Site) -> None:
    site = clean
    record = toy(needs=[{"path": "/run/needed/socket", "words": "toy_socket: something has to run here"}])
    assert "toy_socket: something has to run here" in site.run(record).message
    site.on_host("mkdir -p /run/needed; touch /run/needed/socket")
    deploy(site, record)
    assert deploy(site, record)["changed"] is False
    site.on_host("rm /run/needed/socket")
    for option in ("--check", "-v"):
        told = site.run(record, option)
        assert told.code != 0
        assert "something has to run here: there is no /run/needed/socket on this host" in told.message


@pytest.mark.parametrize("place", ["/home/data/toy", "/root/toy", "/srv/with space/toy"])
def test_data_may_be_in_a_home(clean: Site, place: str) -> None:
    site = clean
    touch = f'/bin/sh -c \'echo written > "{place}/data"; ls -A /home > "{place}/homes" 2>&1; true\''
    unit = {**toy()["unit"], "settings": {"ExecStartPre": touch}}
    site.on_host("mkdir -p /home/somebody; chmod 755 /home/somebody")
    deploy(site, toy(directories=[{"path": place}], unit=unit))
    shown = site.on_host(f"cat '{place}/data'; cat '{place}/homes'; stat -c %U '{place}/data'").split()
    assert shown[0] == "written"
    assert shown[-1] == "toy"
    # Of other homes it still sees nothing.
    assert "somebody" not in shown
    site.on_host(f"rm -rf '{place}' /home/somebody")


def test_memory_is_bounded_where_the_host_can(clean: Site) -> None:
    site = clean
    deploy(site, toy(memory="96MiB"))
    assert site.on_host("systemctl show --property=MemoryMax --value toy") == str(96 << 20)
    variables = site.on_host(f"tr '\\0' '\\n' < /proc/{pid(site)}/environ").splitlines()
    assert "GOMEMLIMIT=86MiB" in variables
    assert deploy(site, toy(memory="96MiB"))["changed"] is False


def test_a_changed_host_key_is_refused_at_once_but_of_a_guest_that_was_just_made(site: Site) -> None:
    known = Path(site.platform.lab["lab_state_dir"]) / "known_hosts"
    before = known.read_text()
    wrong = site.folder / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", wrong], check=True)
    key = " ".join(wrong.with_suffix(".pub").read_text().split()[:2])

    def ready(**arguments: Any) -> tuple[int, str, float]:
        task = {"name": "Ready", "luxima.observability.guest_ready": {"deadline": 60, **arguments}}
        start = time.monotonic()
        # Connections that are still open know the right key.
        command = [*site.command(site.play("ready", [task])), "--ssh-extra-args=-o ControlPath=none"]
        done = site.ansible(command)
        return done.returncode, done.stdout + done.stderr, time.monotonic() - start

    try:
        subprocess.run(["ssh-keygen", "-R", site.address, "-f", known], check=True, capture_output=True)
        known.write_text(known.read_text() + f"{site.address} {key}\n")
        code, told, seconds = ready()
        assert code != 0
        assert "was not made by this run" in " ".join(told.split()), told
        assert f"ssh-keygen -R {site.address} -f {known}" in " ".join(told.split()), told
        assert seconds < 30
        code, told, _seconds = ready(result={"exists": True, "actions": ["configured", "started"]})
        assert code != 0
        code, told, _seconds = ready(result={"exists": True, "actions": ["created", "started"]})
        assert code == 0, told
        assert ready()[0] == 0
    finally:
        known.write_text(before)
