# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A whole life of real guests, in a lab of the test's own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from lab import commands, host, instance, templates

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="real containers need root"),
]
STANDARD = "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst"
DOCKER = "local:vztmpl/debian-12-docker_12-1_amd64.tar.zst"


class Lab:
    """A lab with a state folder of its own, so that the checkout's stays as it is."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "LAB_STATE_DIR": str(state)}
        # Headers of a login with the password; empty: requests go with the lab's token.
        self.ticket: dict[str, str] = {}

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lab", *words],
            cwd=instance.CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def instance(self) -> instance.Instance:
        return instance.load(self.state)

    def api(self, method: str, path: str, /, **params: Any) -> Any:
        known = json.loads(self.instance.secrets_path.read_text(encoding="utf-8"))
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method,
                f"https://127.0.0.1:{self.instance.port}/api2/json{path}",
                headers=self.ticket or {"Authorization": f"PVEAPIToken=root@pam!lab={known['token']}"},
                verify=str(self.instance.ca_path),
                timeout=60,
                params=params if method in ("GET", "DELETE") else None,
                data=params if method in ("POST", "PUT") else None,
            )
        assert answer.status_code == 200, f"{method} {path}: {answer.reason} {answer.text}"
        return answer.json()["data"]

    @contextlib.contextmanager
    def as_root(self) -> Iterator[None]:
        """With the password, as what a token may not do wants it."""
        known = json.loads(self.instance.secrets_path.read_text(encoding="utf-8"))
        given = self.api("POST", "/access/ticket", username="root@pam", password=known["password"])
        self.ticket = {
            "Cookie": f"PVEAuthCookie={given['ticket']}",
            "CSRFPreventionToken": given["CSRFPreventionToken"],
        }
        yield
        self.ticket = {}

    def task(self, method: str, path: str, /, **params: Any) -> str:
        upid = self.api(method, path, **params)
        node = upid.split(":")[1]
        while (status := self.api("GET", f"/nodes/{node}/tasks/{upid}/status"))["status"] == "running":
            time.sleep(0.05)
        exit_status = str(status["exitstatus"])
        assert exit_status == "OK" or exit_status.startswith("WARNINGS"), exit_status
        return exit_status

    def address(self, vmid: int) -> str:
        return f"{self.instance.subnet}.{vmid - 90}"

    def net(self, vmid: int) -> str:
        return f"name=eth0,bridge=vmbr0,ip={self.address(vmid)}/24,gw={self.instance.subnet}.1"

    def create(self, vmid: int, **params: Any) -> None:
        key = self.instance.ssh_key.with_suffix(".pub").read_text(encoding="utf-8")
        given = {
            "vmid": vmid,
            "hostname": f"guest{vmid}",
            "ostemplate": STANDARD,
            "rootfs": "local-lvm:4",
            "memory": 768,
            "swap": 0,
            "cores": 1,
            "net0": self.net(vmid),
            "start": 1,
            "ssh-public-keys": key,
            **params,
        }
        self.task("POST", "/nodes/pve1/lxc", **given)

    def ssh(self, vmid: int, command: str, seconds: float = 30) -> str:
        words = [
            "ssh",
            # Without input: ssh would leave what it inherits non-blocking for those who come after.
            "-n",
            "-q",
            "-i",
            str(self.instance.ssh_key),
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=2",
        ]
        words += [
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            f"UserKnownHostsFile={self.state / 'known_hosts'}",
        ]
        deadline = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                [*words, f"root@{self.address(vmid)}", command],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if done.returncode != 255:
                assert done.returncode == 0, done.stdout + done.stderr
                return done.stdout
            assert time.monotonic() < deadline, f"guest {vmid} does not answer"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    running = Lab(tmp_path_factory.mktemp("lab") / "state")
    try:
        running.command("up")
        yield running
    finally:
        running.command("down")
        assert commands.leftovers(running.instance) == []


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_guests_are_real_and_their_own(lab: Lab) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lab.create, (100, 101, 102)))
    for vmid in (100, 101, 102):
        assert lab.ssh(vmid, "systemctl is-system-running --wait").strip() == "running"
        assert lab.ssh(vmid, "hostname").strip() == f"guest{vmid}"
    facts = lab.ssh(
        100, "df --output=size -m / | tail -1; grep MemTotal /proc/meminfo; grep -c ^processor /proc/cpuinfo"
    )
    size, memory, processors = facts.strip().splitlines()
    assert 3500 < int(size) <= 4096
    assert int(memory.split()[1]) == 768 << 10
    assert processors == "1"
    # The load and its count of tasks are the node's, as on a stock one; the guest's own are a few dozen.
    tasks = int(lab.ssh(100, "cat /proc/loadavg").split()[3].partition("/")[2])
    own = int(lab.ssh(100, "ls -d /proc/[0-9]*/task/[0-9]* | wc -l"))
    here = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    assert abs(tasks - here) < here / 3
    assert tasks > own + 20
    keys = {
        lab.ssh(vmid, "cat /etc/ssh/ssh_host_ed25519_key.pub /etc/machine-id") for vmid in (100, 101, 102)
    }
    assert len(keys) == 3
    assert lab.ssh(100, "cat /proc/self/uid_map").split() == ["0", "100000", "65536"]
    assert lab.ssh(100, "ls /sys/fs/cgroup/cpu/tasks /sys/fs/cgroup/cpuacct/cpuacct.usage /var/log/syslog")
    found = lab.api("GET", "/nodes/pve1/lxc/100/interfaces")
    assert any(
        address["ip-address"] == lab.address(100) for entry in found for address in entry["ip-addresses"]
    )
    assert "guest101" in lab.command("status")


def test_changes_reach_a_running_guest(lab: Lab) -> None:
    lab.api("PUT", "/nodes/pve1/lxc/100/config", memory=1024, cores=2, hostname="renamed")
    facts = lab.ssh(100, "grep MemTotal /proc/meminfo; hostname; grep -c ^processor /proc/cpuinfo").split()
    assert int(facts[1]) == 1024 << 10
    assert facts[3] == "renamed"
    assert int(facts[4]) == min(2, os.cpu_count() or 1)


def test_the_disk_grows(lab: Lab) -> None:
    status = lab.task("PUT", "/nodes/pve1/lxc/100/resize", disk="rootfs", size="+2G")
    if status != "OK":
        lab.task("POST", "/nodes/pve1/lxc/100/status/reboot")
    size = int(lab.ssh(100, "df --output=size -m / | tail -1"))
    assert 5500 < size <= 6144


def test_a_guest_reboots_by_itself_and_by_order(lab: Lab) -> None:
    def born() -> str:
        return lab.ssh(100, "cut -d' ' -f22 /proc/1/stat").strip()

    before = born()
    lab.ssh(100, "systemd-run --on-active=1 systemctl reboot")
    _until(lambda: born() != before)
    assert lab.api("GET", "/nodes/pve1/lxc/100/status/current")["status"] == "running"
    before = born()
    lab.task("POST", "/nodes/pve1/lxc/100/status/reboot")
    assert born() != before
    assert lab.ssh(100, "hostname").strip() == "renamed"
    assert lab.api("GET", "/nodes/pve1/lxc/100/status/current")["uptime"] < 60


def test_a_snapshot_brings_files_and_settings_back(lab: Lab) -> None:
    guest = "/nodes/pve1/lxc/100"
    lab.ssh(100, "echo before > /root/mark")
    assert lab.task("POST", f"{guest}/snapshot", snapname="deploy-1") == "OK"
    lab.ssh(100, "echo after > /root/mark; rm -r /usr/share/doc")
    lab.api("PUT", f"{guest}/config", memory=900)
    assert lab.task("POST", f"{guest}/snapshot/deploy-1/rollback", start=1) == "OK"
    facts = lab.ssh(100, "cat /root/mark; ls -d /usr/share/doc; grep MemTotal /proc/meminfo").split()
    assert facts[:2] == ["before", "/usr/share/doc"]
    assert int(facts[3]) == 1024 << 10
    # A running container is cloned from its snapshot, and the copy has the files of then.
    lab.ssh(100, "echo later > /root/mark")
    assert lab.task("POST", f"{guest}/clone", newid=104, snapname="deploy-1", hostname="copy") == "OK"
    lab.api("PUT", "/nodes/pve1/lxc/104/config", net0=lab.net(104))
    lab.task("POST", "/nodes/pve1/lxc/104/status/start")
    assert lab.ssh(104, "cat /root/mark; hostname").split() == ["before", "copy"]
    for path in ("/nodes/pve1/lxc/104", f"{guest}/snapshot/deploy-1"):
        assert lab.task("DELETE", path, **({"force": 1} if path.endswith("104") else {})) == "OK"
    assert not list(lab.state.glob("storage/*/*/*@*"))


def test_a_fault_is_switched_while_the_server_runs(lab: Lab) -> None:
    assert "no-reply method=GET" in lab.command("fault", "no-reply", "method=GET", "path=/version$")
    with pytest.raises(AssertionError, match="Connection timed out"):
        lab.api("GET", "/version")
    assert "no fault is on" in lab.command("fault")


def test_a_full_disk_is_only_the_guests_own(lab: Lab) -> None:
    lab.ssh(101, "fallocate -l 100G /full 2>/dev/null; dd if=/dev/zero of=/full bs=1M 2>/dev/null; true")
    assert int(lab.ssh(101, "df --output=avail -m / | tail -1")) < 10
    assert int(lab.ssh(102, "df --output=avail -m / | tail -1")) > 1000
    lab.ssh(101, "rm /full")


def test_docker_runs_in_a_guest_that_may(lab: Lab) -> None:
    with lab.as_root():
        lab.create(103, ostemplate=DOCKER, unprivileged=0, features="nesting=1", cores=2)
    lab.ssh(103, "systemctl is-system-running --wait")
    lab.ssh(
        103,
        "tar -C / -c bin lib lib64 usr/bin/dash usr/bin/sh usr/bin/echo usr/lib64 usr/lib/x86_64-linux-gnu/libc.so.6 "
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 | docker import - tiny:1",
    )
    assert lab.ssh(103, "docker run --rm --network none tiny:1 /usr/bin/echo hello").strip() == "hello"
    assert lab.ssh(103, "docker info --format '{{.Driver}} {{.CgroupDriver}}'").strip() == "overlay2 cgroupfs"


def test_stop_and_delete_leave_nothing_of_the_guest(lab: Lab) -> None:
    lab.task("POST", "/nodes/pve1/lxc/102/status/shutdown", timeout=30)
    lab.task("DELETE", "/nodes/pve1/lxc/102")
    assert not [link for link in host.links(lab.instance.name) if link == lab.instance.veth(102, 0)]
    assert not [image for image in host.loops_below(lab.state).values() if "102" in image]
    assert not list(lab.state.glob("storage/*/*/*102*"))
    assert not (lab.instance.lxc_path / lab.instance.container(102)).exists()


def test_a_killed_server_is_cleaned_up_by_the_next_up(lab: Lab) -> None:
    assert "is up already" in lab.command("up")
    for pid in commands.daemon_pids(lab.instance):
        os.kill(pid, signal.SIGKILL)
    _until(lambda: not commands.daemon_pids(lab.instance))
    assert "a killed run had left" in lab.command("up")
    assert commands.monitors(lab.instance) == {}
    # Templates belong to the lab itself.
    assert [row for row in lab.api("GET", "/cluster/resources", type="vm") if row["vmid"] < 9001] == []
    lab.create(100)
    assert lab.ssh(100, "hostname").strip() == "guest100"


HOSTS = """
guests:
  hosts:
    uploaded:
      ansible_host: "{{ platform_subnet }}.71"
      guest_vmid: 161
      guest_node: pve2
      guest_template: local:vztmpl/elsewhere-12_1_amd64.tar.zst
      guest_disk_gb: 4
      guest_pool: watch
      guest_firewall: closed
      ansible_user: root
      # Those of the lab's own inventory name guests that are not here.
      platform_scrape_jobs: []
node_exporter: {hosts: {uploaded: {}}}
prometheus: {hosts: {prom: {ansible_host: 192.0.2.1}}}
all:
  vars:
    platform_environment: lab
    platform_operator_networks: ["{{ platform_subnet }}.1"]
    guests_pools: [{name: watch}]
    guests_templates: [{name: elsewhere-12_1_amd64.tar.zst, kind: vztmpl, nodes: [pve2], src: SOURCE, checksum: "sha256:SUM"}]
    guests_backup_jobs: [{id: nightly, schedule: "02:30", storage: local, pool: watch, keep: {last: 1}}]
    minio_root_user: x
    minio_root_password: x
    grafana_admin_password: x
    loki_s3_secret_key: x
    tempo_s3_secret_key: x
"""


def test_provisioned_from_a_template_that_the_run_uploads(lab: Lab, tmp_path: Path) -> None:
    """provision.yml: a pool, a real container template over the wire, a container of it that answers, its firewall, a job."""
    source = templates.find(STANDARD.rpartition("/")[2]).archive
    with source.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(HOSTS.replace("SOURCE", str(source)).replace("SUM", checksum))
    words = ["ansible-playbook", "playbooks/provision.yml", "-i", "inventories/lab/00-platform.yml"]
    words += ["-i", "inventories/lab/10-instance", "-i", str(hosts)]

    def play() -> str:
        done = subprocess.run(
            words,
            cwd=instance.CHECKOUT,
            env={**lab.environment, "ANSIBLE_FORCE_COLOR": "0"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = play()
    assert re.search(r"localhost +: ok=5 +changed=5", first), first
    assert lab.api("GET", "/nodes/pve2/lxc/161/config")["hostname"] == "uploaded"
    rules = lab.api("GET", "/nodes/pve2/lxc/161/firewall/rules")
    assert [(rule["comment"], rule["source"]) for rule in rules] == [
        ("ansible: log in for operators", f"{lab.instance.subnet}.1"),
        ("ansible: echo for operators, blackbox_exporter", f"{lab.instance.subnet}.1"),
        ("ansible: metrics for prometheus", "192.0.2.1"),
    ]
    assert re.search(r"localhost +: ok=5 +changed=0", play())
    lab.task("POST", "/nodes/pve2/vzdump", vmid=161, storage="local")
    assert lab.api("GET", "/nodes/pve2/storage/local/content", content="backup")[0]["vmid"] == 161
