"""Three hosts alike: checked, installed, changed one after the other, reached in every usual way, with the network cut."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

from lab import instance
from tests.isolation import isolated
from tests.platform import LAB, ROOT, Platform, Run

HOME = Path(__file__).parent / "inventory"
WORK = ROOT / "reports" / "runs" / "fleet"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
DEPLOY = "playbooks/deploy.yml"
HOSTS = {"edge1": 51, "edge2": 52, "edge3": 53}


class Fleet:
    """The inventory, which tests edit, and what runs on the hosts."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.platform = Platform(home)
        self.addresses = {host: self.platform.address(last) for host, last in HOSTS.items()}

    def edit(self, host: str = "", **variables: Any) -> None:
        """Writes variables of one host or of all, in place of what was written there before."""
        path = self.home / (f"host_vars/{host}.yml" if host else "group_vars/all/change.yml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(variables))

    def deploy(self, *words: str, fails: bool = False) -> Run:
        done = self.platform.playbook(DEPLOY, *words, records=WORK / "changes")
        assert (done.code != 0) == fails, done.output
        return done

    def on(self, host: str, script: str) -> str:
        return self.platform.on(self.addresses[host], script)

    def processes(self, name: str = "node_exporter") -> dict[str, str]:
        return {host: self.platform.pids(self.addresses[host], [name])[name] for host in HOSTS}

    def releases(self, name: str = "node_exporter") -> dict[str, str]:
        """What is below each host's folder of a component: a host that nobody touched shows the same."""
        return {host: self.on(host, f"ls -iR --time-style=full-iso -l /opt/luxima/{name}") for host in HOSTS}

    def stops(self, name: str = "node_exporter") -> list[tuple[float, float, str]]:
        """When each host's service ended and started last, in seconds of the clock all containers share."""
        found = []
        for host in HOSTS:
            shown = self.on(
                host,
                f"systemctl show {name} -p ActiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic",
            )
            values = dict(line.split("=", 1) for line in shown.splitlines())
            found.append(
                (
                    int(values["ActiveExitTimestampMonotonic"]) / 1e6,
                    int(values["ActiveEnterTimestampMonotonic"]) / 1e6,
                    host,
                )
            )
        return sorted(found)


class Watch:
    """Asks every host every 20 ms whether it serves, while the block runs; keeps the most that were away at once."""

    def __init__(self, urls: list[str]) -> None:
        self.urls, self.most, self.rounds = urls, 0, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._end.is_set():
            away = 0
            for url in self.urls:
                try:
                    with urllib.request.urlopen(url, timeout=2):
                        pass
                except (urllib.error.URLError, OSError):
                    away += 1
            self.most, self.rounds = max(self.most, away), self.rounds + 1
            time.sleep(0.02)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    home = WORK / "inventory"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(HOME, home)
    # One folder is the whole inventory, as a user's is.
    for name in ("00-platform.yml", "10-instance"):
        (home / name).symlink_to(LAB / name)
    return Fleet(home)


# -- hosts that have nothing


def test_check_of_empty_hosts_predicts_everything_and_touches_nothing(fleet: Fleet) -> None:
    done = fleet.deploy("--check", "--diff")
    assert set(done.effects().values()) == {"created"}
    assert len(done.effects()) == 8
    assert "+++" in done.output
    for host in HOSTS:
        assert (
            fleet.on(
                host, "ls -d /opt/luxima /etc/node_exporter 2>/dev/null; getent passwd node_exporter; true"
            )
            == ""
        )


def test_one_component_from_a_controller_that_has_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """No artifacts, no open connections, no facts: --tags brings that component and no other."""
    source = Store(str(CACHE)).lookup("node_exporter", "amd64")
    assert source is not None
    (tmp_path / "programs").mkdir()
    shutil.copy(source.path, tmp_path / "programs" / "node_exporter")
    cold = {
        "platform_cache_dir": str(tmp_path / "cache"),
        "platform_artifact_sources": ["cache", "directory"],
        "platform_artifact_directory": str(tmp_path / "programs"),
        "ansible_control_path_dir": str(tmp_path / "cp"),
    }
    done = fleet.deploy("--tags", "node_exporter", "-e", json.dumps(cold))
    assert done.effects() == {(host, "node_exporter"): "created" for host in HOSTS}
    assert [path.name for path in (tmp_path / "cache" / "objects").iterdir()] == [source.sha256]
    for host in HOSTS:
        assert fleet.on(host, "ls /opt/luxima") == "node_exporter"


def make_deploy(fleet: Fleet) -> subprocess.CompletedProcess[str]:
    """The user's own command; set-up is done already."""
    environment = os.path.relpath(fleet.home, ROOT / "inventories")
    return subprocess.run(
        ["make", "-o", ".venv/bin/.installed", "deploy", f"ENV={environment}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "true", "ANSIBLE_FORCE_COLOR": "false"},
    )


REPORT = ROOT / "reports" / "verify-fleet.json"


def test_the_whole_site(fleet: Fleet) -> None:
    REPORT.unlink(missing_ok=True)
    done = make_deploy(fleet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(REPORT.read_text())["results"]


def test_check_of_current_hosts_finds_nothing(fleet: Fleet) -> None:
    done = fleet.deploy("--check", "--diff")
    assert done.effects() == {}
    assert "+++" not in done.output


# -- one after the other


def test_hosts_change_one_after_the_other(fleet: Fleet) -> None:
    urls = [f"http://{address}:9100/" for address in fleet.addresses.values()]
    fleet.edit(node_exporter_environment={"ROUND": "1"})
    with Watch(urls) as watch:
        done = fleet.deploy()
    assert done.effects() == {(host, "node_exporter"): "restarted" for host in HOSTS}
    assert watch.rounds > 20
    assert watch.most <= 1
    # The next host's server ends only when the one before has served for a second.
    stops = fleet.stops()
    for (_, entered, _), (exited, _, _) in zip(stops, stops[1:], strict=False):
        assert exited - entered >= 1


def test_as_many_at_a_time_as_asked(fleet: Fleet) -> None:
    fleet.edit(node_exporter_environment={"ROUND": "2"}, platform_rollout_slots=3)
    done = fleet.deploy()
    assert done.effects() == {(host, "node_exporter"): "restarted" for host in HOSTS}
    stops = fleet.stops()
    # Somebody did not wait until the one before had proved itself.
    assert (
        min(exited - entered for (_, entered, _), (exited, _, _) in zip(stops, stops[1:], strict=False)) < 1
    )


def test_hosts_without_a_change_cost_one_request(fleet: Fleet) -> None:
    fleet.edit(node_exporter_environment={"ROUND": "2"})
    fleet.edit("edge2", node_exporter_environment={"ROUND": "3"})
    before = fleet.processes()
    done = fleet.deploy("-vvv")
    assert done.effects() == {("edge2", "node_exporter"): "restarted"}
    after = fleet.processes()
    assert {host for host in HOSTS if before[host] != after[host]} == {"edge2"}
    for host in ("edge1", "edge3"):
        said = [line for line in done.output.splitlines() if line.startswith(f"<{fleet.addresses[host]}> ")]
        assert sum("SSH: EXEC" in line for line in said) == 1
        assert not [line for line in said if " PUT " in line]


def test_the_first_failure_stops_the_rest_and_ends_in_a_report(fleet: Fleet) -> None:
    for host in HOSTS:
        fleet.on(host, "systemd-run --collect --quiet --unit=squatter python3 -m http.server 9999")
    before, files = fleet.processes(), fleet.releases()
    fleet.edit(node_exporter_port=9999)
    fleet.edit("edge2")
    REPORT.unlink(missing_ok=True)
    done = make_deploy(fleet)
    assert done.returncode != 0
    after = fleet.processes()
    (tried,) = {host for host in HOSTS if before[host] != after[host]}
    others = set(HOSTS) - {tried}
    told = done.stdout + done.stderr
    assert told.count(f"not attempted: roll-out stopped by {tried}") >= 2
    assert "in use" in told
    now = fleet.releases()
    assert {host: now[host] for host in others} == {host: files[host] for host in others}
    # Verification asks Prometheus, which was told of the new port before.
    results = json.loads(REPORT.read_text())["results"]
    assert [row for row in results if not row["ok"]]
    for address in fleet.addresses.values():
        with urllib.request.urlopen(f"http://{address}:9100/", timeout=5) as answer:
            assert answer.status == 200
    for host in HOSTS:
        fleet.on(host, "systemctl stop squatter")


def test_the_next_run_converges(fleet: Fleet) -> None:
    fleet.edit(node_exporter_environment={"ROUND": "4"})
    effects = fleet.deploy().effects()
    # Prometheus learns the old port again.
    assert {key for key in effects if key[1] != "prometheus"} == {(host, "node_exporter") for host in HOSTS}
    assert fleet.deploy().effects() == {}


# -- hosts edited by hand


def test_check_shows_what_was_edited_by_hand_and_leaves_it(fleet: Fleet) -> None:
    path = "/opt/luxima/blackbox_exporter/current/etc/blackbox.yml"
    before = fleet.processes("blackbox_exporter")
    fleet.on("edge3", f"echo '# by hand' >>{path}")
    predicted = fleet.deploy("--check", "--diff")
    assert "-# by hand" in predicted.output
    assert list(predicted.actions()) == [("edge3", "blackbox_exporter")]
    assert fleet.on("edge3", f"tail -n 1 {path}") == "# by hand"
    assert fleet.processes("blackbox_exporter") == before
    done = fleet.deploy()
    assert done.actions() == predicted.actions()
    assert fleet.on("edge3", f"grep -c 'by hand' {path} || true") == "0"


# -- ways to log in


@pytest.fixture
def deployer(fleet: Fleet) -> Iterator[str]:
    """An account without rights of its own, but for sudo."""
    for host in HOSTS:
        fleet.on(
            host,
            "id deployer 2>/dev/null || useradd --create-home --shell /bin/bash deployer;"
            "install -d -m 700 -o deployer -g deployer ~deployer/.ssh;"
            "install -m 600 -o deployer -g deployer /root/.ssh/authorized_keys ~deployer/.ssh/authorized_keys;"
            "echo 'deployer ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/deployer; command -v sudo >/dev/null",
        )
    yield "deployer"
    for host in HOSTS:
        fleet.on(
            host,
            "pkill -u deployer; rm -f /etc/sudoers.d/deployer; userdel --force --remove deployer 2>/dev/null; true",
        )


def test_a_login_without_root_is_told_what_is_missing(fleet: Fleet, deployer: str) -> None:
    done = fleet.deploy(
        "-u", deployer, "-e", f"ansible_user={deployer}", "--limit", "localhost,edge1", fails=True
    )
    assert "become: true" in done.output


@pytest.mark.parametrize("way", ["--become", "variable"])
def test_a_login_user_with_sudo(fleet: Fleet, deployer: str, way: str) -> None:
    """For the whole run, or only for the guests by a variable of their group."""
    words = ["-e", f"ansible_user={deployer}"]
    variables: dict[str, Any] = {"node_exporter_environment": {"ROUND": f"sudo {way}"}}
    if way == "variable":
        path = fleet.home / "group_vars" / "guests.yml"
        path.write_text("ansible_become: true\n")
    else:
        words.append("--become")
    fleet.edit(**variables)
    try:
        predicted = fleet.deploy(*words, "--check", "--diff")
        done = fleet.deploy(*words)
        assert done.actions() == predicted.actions()
        assert done.effects() == {(host, "node_exporter"): "restarted" for host in HOSTS}
        assert fleet.deploy(*words).effects() == {}
    finally:
        (fleet.home / "group_vars" / "guests.yml").unlink(missing_ok=True)


def test_through_a_jump_host(fleet: Fleet) -> None:
    """edge2 and edge3 let nobody in but edge1."""
    lab = fleet.platform.lab
    only = f"AllowUsers root@{fleet.addresses['edge1']}"
    back = "sleep 600; rm -f /etc/ssh/sshd_config.d/jump.conf; systemctl reload ssh"
    for host in ("edge2", "edge3"):
        fleet.on(
            host,
            f"echo '{only}' >/etc/ssh/sshd_config.d/jump.conf; systemctl reload ssh;"
            f" systemd-run --collect --quiet --unit=jump-back sh -c '{back}'",
        )
    key = lab["ansible_ssh_private_key_file"]
    jump = f"ssh {lab['ansible_ssh_common_args']} -o StrictHostKeyChecking=accept-new -i {key} -W %h:%p root@{fleet.addresses['edge1']}"
    arguments = f"{lab['ansible_ssh_common_args']} -o ProxyCommand={shlex.quote(jump)}"
    for host in ("edge2", "edge3"):
        fleet.edit(host, ansible_ssh_common_args=arguments, ansible_control_path_dir=str(WORK / "jump"))
    fleet.edit(node_exporter_environment={"ROUND": "jump"})
    try:
        done = fleet.deploy()
        assert done.effects() == {(host, "node_exporter"): "restarted" for host in HOSTS}
        direct = fleet.deploy(
            "--limit",
            "localhost,edge2",
            "-e",
            json.dumps(
                {
                    "ansible_ssh_common_args": lab["ansible_ssh_common_args"],
                    "ansible_control_path_dir": str(WORK / "direct"),
                }
            ),
            fails=True,
        )
        assert {row["status"] for row in direct.rows if row["host"] == "edge2"} == {"unreachable"}
    finally:
        open_again = {"ansible_ssh_common_args": arguments, "ansible_control_path_dir": str(WORK / "jump")}
        words = [
            "-m",
            "ansible.builtin.shell",
            "-a",
            "rm -f /etc/ssh/sshd_config.d/jump.conf; systemctl reload ssh",
        ]
        subprocess.run(
            fleet.platform.command("ansible", "edge2,edge3", *words, "-e", json.dumps(open_again)),
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        for host in ("edge2", "edge3"):
            fleet.edit(host)


# -- without the network


def test_the_whole_site_with_the_network_cut(fleet: Fleet, tmp_path: Path) -> None:
    """With what the controller has already, nobody is asked but the hypervisor and the guests."""
    this, before = instance.load(), fleet.processes()
    fleet.edit(node_exporter_environment={"ROUND": "offline"})
    words = [
        "site.yml",
        "-e",
        json.dumps({"ansible_control_path_dir": str(tmp_path)}),
    ]
    with isolated(this.bridge, this.subnet, int(fleet.platform.lab["proxmox_api_port"])) as network:
        # What the cut is worth: a name and an address of elsewhere cannot be reached.
        probe = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
        assert subprocess.run(
            network.command("python3", "-c", probe), capture_output=True, check=False
        ).returncode
        asked = network.refused()
        assert asked > 0
        done = subprocess.run(
            network.command(*fleet.platform.command("ansible-playbook", *words)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert network.refused() == asked
    assert fleet.processes() != before
