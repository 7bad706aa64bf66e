# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One list of all faults, each with variable, host and way out, before anything is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
HOSTS = "hosts.yml"
ALL = "group_vars/all/environment.yml"
SECRETS = "group_vars/all/secrets.yml"


def edit(file: str, pattern: str, replacement: str) -> Callable[[Path], None]:
    """A change of an inventory by text, which must hit."""

    def change(inventory: Path) -> None:
        path = inventory / file
        text, hits = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        assert hits, f"{pattern} is not in {path}"
        path.write_text(text)

    return change


def append(file: str, text: str) -> Callable[[Path], None]:
    def change(inventory: Path) -> None:
        path = inventory / file
        path.write_text(path.read_text() + text)

    return change


def host_vars(host: str, text: str) -> Callable[[Path], None]:
    def change(inventory: Path) -> None:
        path = inventory / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "---\n") + text)

    return change


@dataclass(frozen=True)
class Case:
    """A fault, and what its message must say: the variable, the host, and the words of the way out."""

    name: str
    change: Callable[[Path], None]
    variable: str
    host: str
    says: str


CASES = [
    Case(
        "images on the system disk of the nodes",
        append(
            ALL,
            "platform_protected: true\n"
            "guests_backup_jobs: [{id: nightly, schedule: '02:30', storage: local, all: true}]\n",
        ),
        "guests_backup_jobs",
        "",
        "name a storage of its own",
    ),
    Case(
        "copies without a period",
        edit(ALL, r"^  database_backup: .*", "  database_backup: {stores: [proxmox]}"),
        "platform_retention.database_backup",
        "stg-obs1",
        "has no store minio",
    ),
    Case(
        "unknown key",
        append(ALL, "loki_max_stream: 5\n"),
        "loki_max_stream",
        "stg-data1",
        "did you mean loki_max_streams?",
    ),
    Case(
        "unknown shared key",
        append(ALL, "platform_domian: x\n"),
        "platform_domian",
        "stg-app1",
        "did you mean platform_domain?",
    ),
    Case(
        "unknown guest key",
        host_vars("stg-app1", "guest_memroy_mb: 5\n"),
        "guest_memroy_mb",
        "stg-app1",
        "did you mean guest_memory_mb?",
    ),
    Case(
        "wrong type",
        host_vars("stg-data1", "loki_max_streams: many\n"),
        "loki_max_streams",
        "stg-data1",
        "int",
    ),
    Case(
        "missing secret",
        edit(SECRETS, r"^loki_s3_secret_key: !vault \|\n(  .*\n)+", ""),
        "loki_s3_secret_key",
        "stg-data1",
        "secrets.yml",
    ),
    Case(
        "empty secret",
        host_vars("stg-obs1", 'grafana_admin_password: ""\n'),
        "grafana_admin_password",
        "stg-obs1",
        "secrets.yml",
    ),
    Case(
        "one address",
        host_vars("stg-app1", 'ansible_host: "{{ platform_subnet }}.62"\n'),
        "platform_address",
        "stg-app1",
        "stg-obs1",
    ),
    Case("one id", host_vars("stg-app1", "guest_vmid: 362\n"), "guest_vmid", "stg-app1", "stg-obs1"),
    Case(
        "needed group is empty",
        edit(HOSTS, r"^alertmanager: .*$", "alertmanager: {hosts: {}}"),
        "group alertmanager",
        "stg-obs1",
        "group prometheus needs it",
    ),
    Case(
        "blocks that do not fit",
        append(ALL, "platform_retention_metrics_size: 200GB\n"),
        "platform_retention_metrics_size",
        "stg-obs1",
        "do not fit on the disk of",
    ),
    Case(
        "data where nothing outlives a reboot",
        host_vars("stg-obs1", "prometheus_data_dir: /var/tmp/prometheus\n"),
        "prometheus_data_dir",
        "stg-obs1",
        "does not outlive a reboot",
    ),
    Case(
        "copies where nothing outlives a reboot",
        append(ALL, "backup_target: {directory: /tmp/copies}\n"),
        "backup_target.directory",
        "stg-obs1",
        "does not outlive a reboot",
    ),
    Case(
        "shares of memory without a least one",
        append(ALL, "platform_memory_shares: {loki: {weight: 1}}\n"),
        "platform_memory_shares.loki.least_mb",
        "stg-data1",
        "is missing",
    ),
    Case(
        "a table with two periods",
        append(
            ALL,
            "platform_retention_tables: {audit: [{table: a.b, column: at}, {table: a.b, column: at}]}\n",
        ),
        "platform_retention_tables.audit",
        "stg-obs1",
        "a table has one period",
    ),
    Case(
        "retention",
        append(
            ALL,
            "platform_retention_tenants: {t1: {metrics: 5d}}\nplatform_retention_lifecycles: {loki: 20d}\n",
        ),
        "platform_retention_lifecycles",
        "stg-data1",
        "keeps for",
    ),
    Case(
        "a tenant without periods",
        append(ALL, "platform_retention_tenants: {t2: null}\n"),
        "platform_retention_tenants.t2",
        "stg-data1",
        "is nothing; write a mapping",
    ),
    Case(
        "foreign braces",
        host_vars(
            "stg-data1",
            "loki_rule_groups:\n  - {name: x, rules: [{alert: A, annotations: {summary: 'on {{ $labels.instance }}'}}]}\n",
        ),
        "loki_rule_groups",
        "stg-data1",
        "!unsafe",
    ),
    Case(
        "undefined reference",
        host_vars("stg-obs1", 'grafana_admin_user: "{{ nobody_knows }}"\n'),
        "grafana_admin_user",
        "stg-obs1",
        "nobody_knows",
    ),
    Case(
        "stranger in a group",
        edit(HOSTS, r"^blackbox_exporter: .*$", "blackbox_exporter: {hosts: {stg-obs2: {}}}"),
        "group blackbox_exporter",
        "stg-obs2",
        "group guests",
    ),
    Case("name", edit(HOSTS, r"stg-app1", "stg_app1"), "inventory_hostname", "stg_app1", "hyphens"),
    Case(
        "address is none",
        append(ALL, "guest_address: 10.0.0.300/24\n"),
        "guest_address",
        "stg-obs1",
        "192.0.2.11/24",
    ),
    Case(
        "tag", host_vars("stg-obs1", "guest_tags: ['Upper Case']\n"), "guest_tags", "stg-obs1", "lower-case"
    ),
    Case(
        "channel",
        host_vars("stg-obs1", "platform_channels: {pager: {type: fax, severities: [critical]}}\n"),
        "platform_channels.pager",
        "stg-obs1",
        "slack",
    ),
    Case(
        "a secret file that nobody writes",
        host_vars(
            "stg-obs1",
            "alertmanager_config: {receivers: [{name: default, slack_configs: [{api_url_file: secrets/slack}]}]}\n",
        ),
        "alertmanager_config.receivers[0].slack_configs[0].api_url_file",
        "stg-obs1",
        "alertmanager_secret_files has no slack",
    ),
    Case(
        "a file that is relative to nothing",
        host_vars("stg-data1", "loki_config: {ruler: {alertmanager_client: {tls_ca_path: ca.pem}}}\n"),
        "loki_config.ruler.alertmanager_client.tls_ca_path",
        "stg-data1",
        "absolute path",
    ),
    Case(
        "a key without a value",
        append(ALL, "grafana_config: {auth: {disable_login_form: null}, app_mode: production}\n"),
        "grafana_config.auth.disable_login_form",
        "stg-obs1",
        "has no value",
    ),
    Case(
        "a dashboard with the uid of a shipped one",
        append(
            ALL,
            "grafana_dashboards: {mine: {uid: system-overview, title: Mine}, broken: '{', export: {title: x, p: '${DS_X}'}}\n",
        ),
        "grafana_dashboards.mine.uid",
        "stg-obs1",
        "another uid",
    ),
    Case(
        "a data source in place of the platform's",
        append(ALL, "grafana_datasources: [{name: Mine, uid: loki, type: loki}]\n"),
        "grafana_datasources[0].uid",
        "stg-obs1",
        "of this role",
    ),
    Case(
        "empty list",
        host_vars("stg-obs1", "platform_probes:\n"),
        "platform_probes",
        "stg-obs1",
        "write [] for none",
    ),
    Case(
        "empty number",
        host_vars("stg-data1", "loki_max_entries:\n"),
        "loki_max_entries",
        "stg-data1",
        "without a value",
    ),
    Case(
        "second server of one bucket",
        edit(HOSTS, r"^tempo: .*$", "tempo: {hosts: {stg-data1: {}, stg-obs1: {}}}"),
        "group tempo",
        "stg-obs1",
        "leave one host in it",
    ),
    Case(
        "everybody's own address",
        host_vars("stg-obs1", "platform_address: 127.0.0.1\n"),
        "platform_address",
        "stg-obs1",
        "2 other hosts would not reach this one",
    ),
    Case(
        "two listeners on one port",
        host_vars("stg-data1", "minio_port: 3100\n"),
        "minio_port",
        "stg-data1",
        "3100 is also loki_port",
    ),
    Case(
        "two listeners on one port, one of them inside",
        host_vars("stg-data1", "tempo_grpc_port: 9095\n"),
        "tempo_grpc_port",
        "stg-data1",
        "9095 is also loki_grpc_port",
    ),
    Case(
        "key of a scrape job",
        append(ALL, "platform_scrape_jobs: [{job_name: app, static_config: [{targets: ['a:1']}]}]\n"),
        "platform_scrape_jobs",
        "stg-obs1",
        "app: static_config is no key of a scrape job; did you mean static_configs?",
    ),
    Case(
        "class of a file",
        host_vars(
            "stg-app1",
            "promtail_extra_files: [{job: shop, log_class: aplication, paths: [/var/log/shop.log]}]\n",
        ),
        "promtail_extra_files",
        "stg-app1",
        "shop: log_class aplication is no class",
    ),
    Case(
        "a record that would choose how long it is kept",
        host_vars("stg-data1", "promtail_units: {shop: {log_classes: [audit]}}\n"),
        "promtail_units",
        "stg-data1",
        "no record may choose class audit",
    ),
    Case(
        "a file that two groups read",
        host_vars(
            "stg-obs1",
            "promtail_extra_files: [{job: web, log_class: web, paths: [/var/log/nginx/access.log], labels: {host: x}}]\n"
            "promtail_config: {scrape_configs: []}\n",
        ),
        "promtail_extra_files",
        "stg-obs1",
        "/var/log/nginx/access.log of web is read by nginx as well",
    ),
    Case(
        "a list of the platform is replaced",
        host_vars("stg-obs1", "prometheus_config: {scrape_configs: [{job_name: one}]}\n"),
        "prometheus_config.scrape_configs",
        "stg-obs1",
        "write +scrape_configs to add to it",
    ),
    Case(
        "rules of the platform are replaced",
        append(ALL, "prometheus_config: {rule_files: [mine/*.yml]}\n"),
        "prometheus_config.rule_files",
        "stg-obs1",
        "write +rule_files",
    ),
    Case(
        "a period beside the policy",
        append(ALL, "loki_config: {limits_config: {retention_period: 24h}}\n"),
        "loki_config.limits_config.retention_period",
        "stg-data1",
        "follows from platform_retention",
    ),
    Case(
        "a period of a tenant beside the policy",
        append(ALL, "tempo_tenant_limits: {shop: {compaction: {block_retention: 24h}}}\n"),
        "tempo_tenant_limits.shop.compaction.block_retention",
        "stg-data1",
        "platform_retention_tenants.shop",
    ),
    Case(
        "a port beside its variable",
        append(ALL, "tempo_config: {server: {http_listen_port: 3300}}\n"),
        "tempo_config.server.http_listen_port",
        "stg-data1",
        "follows from tempo_port",
    ),
    Case(
        "a flag twice",
        append(ALL, "node_exporter_arguments: ['--web.listen-address=:1']\n"),
        "node_exporter_arguments",
        "stg-app1",
        "--web.listen-address is given by the role",
    ),
    Case(
        "memory in another spelling",
        append(ALL, "loki_environment: {GOMEMLIMIT: 2GB}\n"),
        "loki_environment",
        "stg-data1",
        "GOMEMLIMIT: '2GB'",
    ),
    Case(
        "days where hours are read",
        append(ALL, "promtail_journal_max_age: 2d\n"),
        "promtail_journal_max_age",
        "stg-app1",
        "write 48h",
    ),
    Case(
        "a short password",
        host_vars("stg-data1", "minio_root_password: short\n"),
        "minio_root_password",
        "stg-data1",
        "has 5 characters",
    ),
    Case(
        "a probe of no module",
        host_vars("stg-obs1", "platform_probes: [{url: 'https://x.example', module: http_3xx}]\n"),
        "platform_probes[0]",
        "stg-obs1",
        "no blackbox exporter has a module 'http_3xx'",
    ),
    Case(
        "a job of a name that is taken",
        append(ALL, "platform_scrape_jobs: [{job_name: loki}, {job_name: a}, {job_name: a}]\n"),
        "platform_scrape_jobs[2]",
        "stg-obs1",
        "taken by platform_scrape_jobs[1]",
    ),
    Case(
        "storage without a scheme",
        host_vars("stg-data1", "loki_s3_url: 192.0.2.1:9000\n"),
        "loki_s3_url",
        "stg-data1",
        "write http://192.0.2.1:9000 or",
    ),
    Case(
        "one end of a switch",
        append(ALL, "tempo_metrics_generator_enabled: true\nprometheus_remote_write_receiver: false\n"),
        "prometheus_remote_write_receiver",
        "stg-obs1",
        "Tempo on stg-data1 writes there",
    ),
    Case(
        "Tempo below a path",
        append(ALL, "tempo_config: {http_api_prefix: /tempo}\n"),
        "tempo_config.http_api_prefix",
        "stg-data1",
        "let the proxy take the path away",
    ),
    Case(
        "threshold",
        append(ALL, "platform_thresholds: {cpu_used_ration: 0.8}\n"),
        "platform_thresholds.cpu_used_ration",
        "stg-obs1",
        "did you mean cpu_used_ratio?",
    ),
]


# These change what others of the list look for, or others them; of two in one file the later one counts.
OTHERS = (
    "name",
    "address is none",
    "missing secret",
    "a secret file that nobody writes",
    "rules of the platform are replaced",
    "a port beside its variable",
    "everybody's own address",
    "a period beside the policy",
)


def copied(folder: Path, environment: str = "staging") -> Path:
    inventory = folder / environment
    shutil.copytree(PROJECT / "inventories" / environment, inventory)
    return inventory


def play(
    inventory: Path, *arguments: str, playbook: str = "playbooks/validate.yml"
) -> tuple[int, str, dict[str, Any]]:
    """(exit code, output, result of the failed task) of a real run."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), playbook, "-i", str(inventory), *arguments],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    failed = re.search(
        r"^fatal: \[localhost\]: FAILED! => (\{.*?^\}|\{.*\}$)", done.stdout, re.MULTILINE | re.DOTALL
    )
    return done.returncode, done.stdout + done.stderr, json.loads(failed[1]) if failed else {}


def faults_of(result: dict[str, Any], case: Case) -> list[dict[str, Any]]:
    return [
        fault
        for fault in result.get("faults", [])
        if fault["variable"].startswith(case.variable)
        and case.host in (fault["hosts"] or [case.host])
        and case.says in fault["message"]
    ]


@pytest.mark.parametrize("environment", ["lab", "development", "staging"])
def test_the_shipped_inventories_have_no_fault(environment: str) -> None:
    code, output, result = play(PROJECT / "inventories" / environment)
    assert (code, result.get("faults", [])) == (0, []), output


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """The inventory that is protected, with secrets of its own as its README says, and how they are opened."""
    folder = tmp_path_factory.mktemp("production")
    inventory, password = copied(folder, "production"), folder / "password"
    password.write_text("long and secret\n")
    opened = ("--vault-id", f"own@{password}")
    fresh = ("-e", "platform_secrets_replace=true", "-e", "proxmox_api_token_secret=issued")
    code, output, _ = play(inventory, *opened, *fresh, playbook="playbooks/secrets.yml")
    assert code == 0, output
    return inventory, opened


def test_the_protected_inventory_lacks_only_secrets_of_its_own(
    production: tuple[Path, tuple[str, ...]],
) -> None:
    code, output, result = play(PROJECT / "inventories" / "production")
    assert code == 2, output
    names = re.findall(
        r"^(\w+): !vault", (PROJECT / "inventories/production" / SECRETS).read_text(), re.MULTILINE
    )
    assert sorted(fault["variable"] for fault in result["faults"]) == sorted(names)
    assert all("everybody can read" in fault["message"] for fault in result["faults"])
    inventory, opened = production
    code, output, result = play(inventory, *opened)
    assert (code, result.get("faults", [])) == (0, []), output
    assert "example secrets" not in " ".join(output.split())


def test_a_component_of_a_protected_environment_refuses_public_secrets(
    tmp_path: Path, production: tuple[Path, tuple[str, ...]]
) -> None:
    words = ("--limit", "prod-loki1", "--tags", "loki")
    code, output, _ = play(PROJECT / "inventories" / "production", *words, playbook="playbooks/deploy.yml")
    assert code != 0
    told = " ".join(output.split())
    assert "component loki on prod-loki1" in told
    assert "loki_s3_secret_key" in told
    assert "everybody can read" in told
    # Files that are only written use nothing.
    shown = ("-e", f"platform_render_dir={tmp_path / 'rendered'}")
    code, output, _ = play(
        PROJECT / "inventories" / "production", *words, *shown, playbook="playbooks/deploy.yml"
    )
    assert code == 0, output
    assert (tmp_path / "rendered/prod-loki1/loki/etc/loki.yml").exists()


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], tuple[int, str, dict[str, Any]]]:
    """The names of all cases that one inventory can have together, and what its validation said."""
    inventory = copied(tmp_path_factory.mktemp("at-once"))
    cases = together([case for case in CASES if case.name not in OTHERS], inventory)
    return {case.name for case in cases}, play(inventory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_named_with_its_place_and_the_way_out(
    case: Case, tmp_path: Path, at_once: tuple[set[str], tuple[int, str, dict[str, Any]]]
) -> None:
    names, (code, output, result) = at_once
    if case.name not in names:
        inventory = copied(tmp_path)
        case.change(inventory)
        code, output, result = play(inventory)
    assert code == 2, output
    assert faults_of(result, case), result.get("msg", output)
    assert case.variable in result["msg"]


class Listener:
    """Counts who connects to a port of this machine."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.2)
        self.port: int = self.socket.getsockname()[1]

    def callers(self) -> int:
        count = 0
        while True:
            try:
                self.socket.accept()[0].close()
            except TimeoutError:
                return count
            count += 1


@pytest.fixture
def listener() -> Iterator[Listener]:
    listening = Listener()
    yield listening
    listening.socket.close()


def together(cases: list[Case], inventory: Path) -> list[Case]:
    """Those that one inventory can have at a time: a file that says a variable twice is no YAML."""
    done = []
    for case in cases:
        before = {path: path.read_text() for path in inventory.rglob("*.yml")}
        case.change(inventory)
        after = {path: path.read_text() for path in inventory.rglob("*.yml")}
        names = [re.findall(r"^(\w+):", text, re.MULTILINE) for text in after.values()]
        if all(len(found) == len(set(found)) for found in names):
            done.append(case)
            continue
        for path in after:
            path.write_text(before.get(path, "---\n"))
    assert len(done) > 0.8 * len(cases)
    return done


@pytest.mark.parametrize("check", [[], ["--check"]], ids=["run", "check"])
def test_all_faults_in_one_run_of_the_site_and_nobody_is_contacted(
    check: list[str], tmp_path: Path, listener: Listener
) -> None:
    inventory = copied(tmp_path)
    cases = together([case for case in CASES if case.name not in OTHERS], inventory)
    reached = tmp_path / "ssh-was-called"
    spy = tmp_path / "ssh"
    spy.write_text(f"#!/bin/sh\ntouch {reached}\nexit 255\n")
    spy.chmod(0o755)
    extra = {
        "proxmox_api_host": "127.0.0.1",
        "proxmox_api_port": listener.port,
        "ansible_ssh_executable": str(spy),
        "platform_cache_dir": str(tmp_path / "cache"),
    }
    code, output, result = play(inventory, "-e", json.dumps(extra), *check, playbook="site.yml")
    assert code != 0, output
    missing = [case.name for case in cases if not faults_of(result, case)]
    assert not missing, result.get("msg", output)
    assert listener.callers() == 0
    assert not reached.exists()
    assert not (tmp_path / "cache").exists()


def test_the_listener_would_notice() -> None:
    listening = Listener()
    socket.create_connection(("127.0.0.1", listening.port)).close()
    assert listening.callers() == 1


def test_the_place_is_file_and_line(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    append(ALL, "loki_max_stream: 5\n")(inventory)
    line = len((inventory / ALL).read_text().splitlines())
    assert f"{ALL}:{line}" in play(inventory)[2]["msg"]


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    host_vars("stg-obs1", "grafana_admin_password: {hidden: correct-horse}\n")(inventory)
    code, output, result = play(inventory)
    assert code == 2
    assert "grafana_admin_password" in result["msg"]
    assert "correct-horse" not in output


def test_example_secrets_are_a_warning() -> None:
    code, output, _ = play(PROJECT / "inventories" / "staging")
    assert code == 0, output
    assert "example secrets are in use" in " ".join(output.split())


def test_copies_that_are_lost_with_their_guest_are_a_warning_unless_accepted(
    tmp_path: Path, production: tuple[Path, tuple[str, ...]]
) -> None:
    inventory = copied(tmp_path)
    code, output, _ = play(inventory)
    assert (code, "lost with it" in output) == (0, False), output
    edit(ALL, "^backup_own_host_accepted: true", "backup_own_host_accepted: false")(inventory)
    code, output, _ = play(inventory)
    words = " ".join(output.split())
    assert code == 0, output
    assert "backup_minio_target of stg-data1: copies of minio lie in /var/backups/object-storage" in words
    assert "lost with it; add a second host to group minio" in words
    # Production copies to a second guest.
    assert "lost with it" not in play(production[0], *production[1])[1]


def test_channels_that_nothing_sends_to_are_told_once(
    tmp_path: Path, production: tuple[Path, tuple[str, ...]]
) -> None:
    code, output, _ = play(production[0], *production[1])
    words = " ".join(output.split())
    assert code == 0, output
    assert words.count("NOBODY IS TOLD by these 13 channels: chat, chat_critical, chat_high, ") == 1
    inventory = copied(tmp_path)
    edit(ALL, r"^platform_channels:\n(  .*\n)+", "")(inventory)
    assert "NOBODY IS TOLD" not in play(inventory)[1]


@pytest.mark.parametrize(
    ("more", "told"),
    [("", True), ("guest_firewall: closed\nplatform_operator_networks: [192.0.2.0/24]\n", False)],
)
def test_a_port_that_deletes_series_is_a_warning(more: str, told: bool, tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    append(ALL, f"prometheus_admin_api: true\n{more}")(inventory)
    code, output, _ = play(inventory)
    assert code == 0, output
    words = " ".join(output.split())
    assert ("prometheus_admin_api of stg-obs1: whoever reaches the port may delete series" in words) is told


def test_nobody_can_log_in_is_a_warning(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    words = " ".join(play(inventory)[1].split())
    assert "guest_ssh_public_keys of stg-data1, stg-obs1, stg-app1: is empty: nobody can log in" in words
    edit(ALL, r"^guest_ssh_public_keys: \[\]$", "guest_ssh_public_keys: [ssh-ed25519 AAAA me]")(inventory)
    assert "nobody can log in" not in play(inventory)[1]


def test_every_variable_without_a_value_is_named(tmp_path: Path) -> None:
    """All that the roles describe at once, on a host that runs everything."""
    inventory = copied(tmp_path, "development")
    empty = {}
    for spec in sorted(PROJECT.glob("roles/*/meta/argument_specs.yml")):
        (entry,) = yaml.safe_load(spec.read_text())["argument_specs"].values()
        for name in entry.get("options") or {}:
            empty[name] = None
    assert len(empty) > 200
    host_vars("dev-obs1", yaml.safe_dump(empty))(inventory)
    code, output, result = play(inventory)
    assert code == 2, output
    told = {fault["variable"] for fault in result["faults"] if "without a value" in fault["message"]}
    told |= {fault["variable"] for fault in result["faults"] if "has no value" in fault["message"]}
    assert sorted(empty.keys() - told) == []


def test_a_second_server_of_one_bucket_is_refused_where_it_is_deployed(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    edit(HOSTS, r"^loki: .*$", "loki: {hosts: {stg-data1: {}, stg-obs1: {}}}")(inventory)
    rendered = tmp_path / "rendered"
    code, output, _ = play(
        inventory,
        *("-e", f"platform_render_dir={rendered}", "--limit", "stg-obs1", "--tags", "loki"),
        playbook="playbooks/deploy.yml",
    )
    assert code != 0
    assert "group loki has 2 hosts (stg-data1, stg-obs1)" in " ".join(output.split()), output
    assert not rendered.exists()


def test_tags_restrict_the_check_and_a_word_nobody_knows_is_a_fault(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    edit(SECRETS, r"^grafana_admin_password: !vault \|\n(  .*\n)+", "")(inventory)
    assert play(inventory)[0] == 2
    code, output, _ = play(inventory, "--tags", "promtail")
    assert code == 0, output
    code, output, result = play(inventory, "--tags", "promtial")
    assert code == 2, output
    assert "did you mean promtail?" in result["msg"]


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        pytest.param(None, ["-e", "loki_max_stream=5", "--tags", "artifacts"], id="of the run"),
        pytest.param("loki_max_stream: 5\n", ["-e", "platform_render_dir={}"], id="of a host"),
    ],
)
def test_a_deployment_without_validation_refuses_a_misspelt_variable_too(
    tmp_path: Path, change: str | None, arguments: list[str]
) -> None:
    inventory = copied(tmp_path, "development")
    if change:
        host_vars("dev-obs1", change)(inventory)
    words = [word.format(tmp_path / "rendered") for word in arguments]
    code, output, _ = play(inventory, *words, playbook="playbooks/deploy.yml")
    assert code != 0
    told = " ".join(output.split())
    assert "loki_max_stream: no such variable; did you mean loki_max_streams?" in told, output
    assert not (tmp_path / "rendered").exists()


ALONE = [
    "a secret file that nobody writes",
    "a file that is relative to nothing",
    "a key without a value",
    "a dashboard with the uid of a shipped one",
]


@pytest.mark.parametrize("name", ALONE)
def test_a_role_alone_refuses_content_by_its_own_words(tmp_path: Path, name: str) -> None:
    """Without validation, and before any request: rendering is the first thing that a component does."""
    (case,) = [case for case in CASES if case.name == name]
    inventory = copied(tmp_path)
    case.change(inventory)
    words = ("-e", f"platform_render_dir={tmp_path / 'rendered'}")
    code, output, _ = play(inventory, *words, playbook="playbooks/deploy.yml")
    assert code != 0
    told = " ".join(output.split())
    assert case.variable in told, output
    assert case.says in told, output


def test_an_inventory_without_the_shared_facts_is_told_so(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    (inventory / "00-platform.yml").unlink()
    code, output, result = play(inventory)
    assert code == 2, output
    assert "00-platform.yml" in result["msg"]


def test_a_second_copy_of_the_collection_is_a_fault(tmp_path: Path) -> None:
    other = tmp_path / "collections" / "ansible_collections" / "luxima" / "observability"
    shutil.copytree(PROJECT / "collections/ansible_collections/luxima/observability", other)
    for part in ("roles", "playbooks"):
        shutil.copytree(PROJECT / part, other / part)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "playbooks/validate.yml",
            "-i",
            "inventories/staging",
        ],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert str(other) in done.stdout
    assert "remove that copy" in done.stdout


def test_fresh_secrets_replace_the_examples(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    password = tmp_path / "password"
    password.write_text("long and secret\n")
    before = (inventory / SECRETS).read_bytes()
    asked_for_nothing = play(inventory, "--vault-id", f"own@{password}", playbook="playbooks/secrets.yml")
    assert asked_for_nothing[0] == 0
    assert (inventory / SECRETS).read_bytes() == before
    without = play(inventory, "-e", "platform_secrets_replace=true", playbook="playbooks/secrets.yml")
    assert without[0] == 2
    assert "--vault-id" in without[1]
    assert (inventory / SECRETS).read_bytes() == before
    code, output, _ = play(
        inventory,
        "--vault-id",
        f"own@{password}",
        "-e",
        "platform_secrets_replace=true",
        playbook="playbooks/secrets.yml",
    )
    assert code == 0, output
    assert (inventory / SECRETS).stat().st_mode & 0o777 == 0o600
    names = set(re.findall(r"^(\w+): !vault", before.decode(), re.MULTILINE))
    after = (inventory / SECRETS).read_text()
    assert set(re.findall(r"^(\w+): !vault", after, re.MULTILINE)) == names
    assert after.count("$ANSIBLE_VAULT;1.2;AES256;own") == len(names)
    code, output, _ = play(
        inventory, "--vault-id", f"own@{password}", "-e", "proxmox_api_token_secret=issued"
    )
    assert code == 0, output
    assert "example secrets" not in " ".join(output.split())


def test_the_inventories_are_yaml_without_plain_secrets() -> None:
    for file in sorted(PROJECT.glob("inventories/*/group_vars/all/secrets.yml")):
        assert plain_secrets(file.read_text()) == [], file


def plain_secrets(text: str) -> list[str]:
    """Names whose value is neither encrypted nor looked up elsewhere."""

    class Loader(yaml.SafeLoader):
        """Knows Ansible's tags."""

    Loader.add_constructor("!vault", lambda loader, node: "{{ vault }}")
    found = yaml.load(text, Loader) or {}
    return [name for name, value in found.items() if "{{" not in str(value)]


def test_a_plain_secret_would_be_found() -> None:
    assert plain_secrets("a: b\nc: !vault |\n  x\nd: \"{{ lookup('x') }}\"\n") == ["a"]


def test_object_storage_elsewhere_needs_no_host_of_minio(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    edit(HOSTS, "^minio: .*$", "minio: {hosts: {}}")(inventory)
    edit(HOSTS, "^loki: .*$", "loki: {hosts: &data {stg-data1: {}}}")(inventory)
    code, output, result = play(inventory)
    assert code == 2, output
    told = " ".join(result["msg"].split())
    assert "group loki needs it; put a host into minio, or set loki_s3_url" in told
    append(ALL, "loki_s3_url: https://s3.example\ntempo_s3_url: https://s3.example\n")(inventory)
    code, output, _ = play(inventory)
    assert code == 0, output


def test_a_bound_of_queries_below_the_policy_is_a_warning(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    append(ALL, "loki_max_query_length: 30d\nloki_reject_older_than: 20d\n")(inventory)
    code, output, _ = play(inventory)
    words = " ".join(output.split())
    assert code == 0, output
    assert "loki_max_query_length of stg-data1: is shorter than what is kept (90d)" in words
    assert "takes lines that are older than class web is kept (14d)" in words


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("loki_config: {limits_config: {retention_period: 24h}}", "follows from platform_retention"),
        ("loki_tenant_limits: {fake: {retention_period: 24h}}", "write platform_retention_tenants.fake"),
        (
            "loki_config: {schema_config: {+configs: {from: x}}}",
            "loki_config.schema_config.+configs + adds the items",
        ),
    ],
)
def test_a_patch_is_refused_where_the_change_is_made(patch: str, says: str, tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    append(ALL, f"{patch}\n")(inventory)
    rendered = tmp_path / "rendered"
    code, output, _ = play(
        inventory, "-e", f"platform_render_dir={rendered}", "--tags", "loki", playbook="playbooks/deploy.yml"
    )
    assert code != 0
    assert says in " ".join(output.split()), output
    assert not list(rendered.glob("*/loki"))


def test_a_job_is_added_to_those_of_the_platform(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    append(ALL, "prometheus_config: {+scrape_configs: [{job_name: mine}]}\n")(inventory)
    rendered = tmp_path / "rendered"
    code, output, _ = play(
        inventory,
        "-e",
        f"platform_render_dir={rendered}",
        "--tags",
        "prometheus",
        playbook="playbooks/deploy.yml",
    )
    assert code == 0, output
    (file,) = rendered.glob("*/prometheus/etc/prometheus.yml")
    jobs = [one["job_name"] for one in yaml.safe_load(file.read_text())["scrape_configs"]]
    assert jobs[-1] == "mine"
    assert {"loki", "node_exporter", "probe"} < set(jobs)


@pytest.mark.parametrize(
    ("address", "words"),
    [("obs-2.example.org", []), ("192.0.2.7", ["--cluster.advertise-address=192.0.2.7:9094"])],
)
def test_members_of_alertmanager_are_named_and_announce_addresses_only(
    address: str, words: list[str], tmp_path: Path
) -> None:
    inventory = copied(tmp_path)
    edit(HOSTS, "^alertmanager: .*$", "alertmanager: {hosts: {stg-obs1: {}, stg-app1: {}}}")(inventory)
    rendered = tmp_path / "rendered"
    host_vars("stg-obs1", f"platform_address: {address}\n")(inventory)
    code, output, _ = play(
        inventory,
        "-e",
        f"platform_render_dir={rendered}",
        "--tags",
        "alertmanager",
        playbook="playbooks/deploy.yml",
    )
    assert code == 0, output
    unit = (rendered / "stg-obs1/alertmanager/unit").read_text()
    assert re.findall(r"--cluster.advertise-address=\S+", unit) == words
    other = (rendered / "stg-app1/alertmanager/unit").read_text()
    assert f"--cluster.peer={address}:9094" in other


WRONG = [
    pytest.param({"loki_ingestion_rate_mb": "16MB"}, "loki_ingestion_rate_mb of host stg-data1", id="type"),
    pytest.param({"loki_tenant_limits": "many"}, "loki_tenant_limits of host stg-data1", id="mapping"),
    pytest.param({"loki_log_level": "loud"}, "must be one of: debug, info, warn, error", id="choice"),
    pytest.param({"loki_s3_secret_key": ""}, "loki_s3_secret_key of host stg-data1", id="missing"),
    pytest.param({"platform_render_dir": ["a"]}, "platform_render_dir of host stg-data1", id="platform"),
]


@pytest.mark.parametrize("alone", [False, True], ids=["deploy", "role alone"])
@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_component_refuses_wrong_variables_before_its_first_request(
    tmp_path: Path, change: dict[str, Any], words: str, alone: bool
) -> None:
    reached, spy = tmp_path / "ssh-was-called", tmp_path / "ssh"
    spy.write_text(f"#!/bin/sh\ntouch {reached}\nexit 255\n")
    spy.chmod(0o755)
    book = tmp_path / "alone.yml"
    role = {"name": "Loki", "ansible.builtin.import_role": {"name": "loki", "rolespec_validate": False}}
    book.write_text(yaml.safe_dump([{"name": "Logs", "hosts": "loki", "tasks": [role]}]))
    code, output, _ = play(
        PROJECT / "inventories" / "staging",
        *("-e", json.dumps({**change, "ansible_ssh_executable": str(spy)}), "--limit", "stg-data1"),
        *([] if alone else ["--tags", "loki"]),
        playbook=str(book) if alone else "playbooks/deploy.yml",
    )
    assert code != 0, output
    told = " ".join(output.split())
    assert "component loki on stg-data1: 1 fault in the inventory; nothing was touched." in told, output
    assert words in told, output
    assert not reached.exists()


def test_a_role_alone_says_in_one_sentence_that_the_inventory_lacks_the_platform(tmp_path: Path) -> None:
    hosts, book = tmp_path / "hosts.yml", tmp_path / "alone.yml"
    groups: dict[str, Any] = {
        name: {"hosts": {"h1": {}}} for name in ("prometheus", "alertmanager", "loki", "minio")
    }
    hosts.write_text(yaml.safe_dump({"all": {"children": groups}}))
    for roles, role in ((["platform"], "prometheus"), ([], "promtail")):
        task = {"name": role, "ansible.builtin.import_role": {"name": role, "rolespec_validate": False}}
        book.write_text(yaml.safe_dump([{"name": role, "hosts": "all", "roles": roles, "tasks": [task]}]))
        code, output, _ = play(hosts, "-e", "ansible_connection=local", playbook=str(book))
        assert code != 0, output
        (told,) = re.findall(r'"msg": "(.*)"', output)
        assert f"component {role} on h1: the inventory has no source luxima.observability.platform" in told
        assert told.endswith(
            "add 00-platform.yml with `plugin: luxima.observability.platform` beside hosts.yml"
        )
