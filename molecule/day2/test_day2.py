"""A week of a team: each change touches the component it is about, reloads what can reload, and nothing is lost."""

from __future__ import annotations

import base64
import http.server
import itertools
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.platform import LAB, ROOT, Platform, Run, get, until

RECORDS = ROOT / "reports" / "runs" / "day2"
HOME = Path(__file__).parent / "inventory"
SERVERS = ["minio", "loki", "tempo", "prometheus", "alertmanager", "grafana", "node_exporter", "promtail"]
# The module of another version of the node exporter.
OTHER = Path(__file__).parent / "node_exporter"
AGENTS = ["node_exporter", "promtail"]
DEPLOY = "playbooks/deploy.yml"
Effects = dict[tuple[str, str], str]
STOPS = {"restarted", "started", "created"}


class Team:
    """The inventory that the team edits, and the site it describes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.site = Platform(
            LAB / "00-platform.yml", LAB / "10-instance", home / "hosts.yml", home / "zz-running.yml"
        )
        self.obs, self.agent1 = self.site.address(11), self.site.address(21)
        self.prometheus = f"http://{self.obs}:9090"
        self.loki = f"http://{self.obs}:3100"
        self.began = time.time()

    def edit(self, **variables: Any) -> None:
        """Writes variables of all hosts; None takes one back."""
        path = self.home / "group_vars" / "all" / "day2.yml"
        kept = yaml.safe_load(path.read_text()) | variables
        path.write_text(yaml.safe_dump({key: value for key, value in kept.items() if value is not None}))

    def hosts(self) -> dict[str, Any]:
        return yaml.safe_load((self.home / "hosts.yml").read_text())

    def write_hosts(self, hosts: dict[str, Any]) -> None:
        (self.home / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))

    def run(self, *words: str) -> Run:
        done = self.site.playbook(*words, records=RECORDS / "changes")
        assert done.code == 0, done.output
        return done

    def processes(self) -> dict[tuple[str, str], str]:
        found = {("obs", name): pid for name, pid in self.site.pids(self.obs, SERVERS).items()}
        return found | {("agent1", name): pid for name, pid in self.site.pids(self.agent1, AGENTS).items()}

    def change(self, expected: Effects, *words: str, predict: bool = False) -> Run:
        """A run does exactly what is expected, as check mode said, and no other process ends."""
        words = words or (DEPLOY,)
        predicted = self.run(*words, "--check").actions() if predict else None
        before = self.processes()
        done = self.run(*words)
        assert done.effects() == expected
        if predict:
            assert predicted == done.actions()
        after = self.processes()
        ended = {key for key in before if before[key] != after[key]}
        assert ended == {
            key for key, actions in done.actions().items() if STOPS & set(actions) and key in before
        }
        return done

    def lines(self) -> list[int]:
        """Numbers of the writer's lines that are in Loki."""
        answer = get(
            f"{self.loki}/loki/api/v1/query_range",
            query='{service=~".+"} |= "day2-line"',
            since="30m",
            limit="5000",
        )
        texts = [line for stream in answer["data"]["result"] for _time, line in stream["values"]]
        # Loki writes down what it is asked, so the words alone are found there too.
        return sorted(int(number) for text in texts for number in re.findall(r"day2-line (\d+)", text))

    def samples(self, selector: str) -> list[tuple[dict[str, str], list[tuple[float, str]]]]:
        """Raw samples since the tests began."""
        answer = get(f"{self.prometheus}/api/v1/query", query=f"{selector}[30m]")
        return [
            (row["metric"], [(at, value) for at, value in row["values"] if at >= self.began])
            for row in answer["data"]["result"]
        ]


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    home = RECORDS / "inventory"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(HOME, home)
    made = Team(home)
    script = 'n=0; while :; do echo "day2-line $n"; n=$((n+1)); echo $n >/run/day2-count; sleep 0.2; done'
    code = base64.b64encode(script.encode()).decode()
    made.site.on(
        made.agent1,
        f"echo {code} | base64 -d >/run/day2.sh; systemd-run --collect --quiet --unit=day2 sh /run/day2.sh",
    )
    yield made
    made.site.on(made.agent1, "systemctl stop day2", check=False)


def test_nothing_to_do_at_the_start(team: Team) -> None:
    team.change({})


def test_the_first_roll_out_called_nothing_down(team: Team) -> None:
    """Prometheus knew its targets before they were deployed; not one was so much as pending."""
    alerts = get(
        f"{team.prometheus}/api/v1/query", query='count_over_time(ALERTS{alertname="TargetDown"}[1h])'
    )
    assert alerts["data"]["result"] == []
    down = get(f"{team.prometheus}/api/v1/query", query="min_over_time(up[1h]) == 0")["data"]["result"]
    assert {row["metric"]["job"] for row in down} & set(AGENTS), "no target was ever down: nothing was proven"


class Receiver:
    """Takes notifications on the controller's address."""

    def __init__(self, address: str) -> None:
        self.taken: list[tuple[str, str]] = []
        taken = self.taken

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                taken.append((self.path, body["commonLabels"].get("alertname", "")))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_words: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_monday_a_receiver_as_the_readme_names_it(team: Team) -> None:
    receiver = Receiver(team.site.address(1))
    tell = ("playbooks/verify.yml", "--tags", "alertmanager", "-e", "platform_verify=active")
    tell += ("-e", "platform_verify_receivers=true")
    config = {"route": {"receiver": "chat"}}
    config["receivers"] = [{"name": "chat", "webhook_configs": [{"url_file": "secrets/chat"}]}]
    try:
        # The second secret is a reload: a process that works in the folder of its start would read the first.
        for path in ("/first", "/second"):
            team.edit(alertmanager_secret_files={"chat": receiver.url + path}, alertmanager_config=config)
            team.change({("obs", "alertmanager"): "reloaded"})
            assert "delivered to chat (webhook)" in team.run(*tell).output
            assert (path, "PlatformVerify") in receiver.taken
        team.edit(alertmanager_secret_files={"chat": "http://127.0.0.1:1/"})
        team.change({("obs", "alertmanager"): "reloaded"})
        failed = team.site.playbook(*tell, "-e", "platform_verify_deadline=8", records=RECORDS / "changes")
        assert failed.code != 0
        assert "receiver chat: webhook did not take the message" in failed.output
        failing = 'alertmanager_notifications_failed_total{receiver_name="chat"}'
        assert until(lambda: get(f"{team.prometheus}/api/v1/query", query=failing)["data"]["result"], 30)
    finally:
        receiver.server.shutdown()
    team.edit(alertmanager_secret_files=None, alertmanager_config=None)
    team.change({("obs", "alertmanager"): "reloaded"})


def test_monday_every_tag_alone_is_verified(team: Team) -> None:
    def verified(tag: str) -> Run:
        words = ("playbooks/verify.yml", "--tags", tag, "-e", "platform_verify=active")
        return team.site.playbook(*words, records=RECORDS / "tags" / tag)

    with ThreadPoolExecutor(3) as pool:
        runs = dict(zip(SERVERS, pool.map(verified, SERVERS), strict=True))
    assert {tag: run.output for tag, run in runs.items() if run.code} == {}


def grafana(team: Team, path: str, login: str = "admin") -> Any:
    secret = Path(team.site.lab["lab_state_dir"]) / "secrets" / "grafana_admin_password"
    key = base64.b64encode(f"{login}:{secret.read_text().strip()}".encode()).decode()
    return get(f"http://{team.obs}:3000{path}", headers={"Authorization": f"Basic {key}"})


def test_tuesday_who_administers_grafana_and_a_data_source(team: Team) -> None:
    source = {
        "name": "Orders",
        "type": "prometheus",
        "uid": "orders",
        "url": "http://127.0.0.1:9090",
        "access": "proxy",
    }
    team.edit(grafana_admin_user="boss", grafana_datasources=[source])
    team.change({("obs", "grafana"): "restarted"}, predict=True)
    assert grafana(team, "/api/datasources/uid/orders", "boss")["readOnly"] is True
    team.edit(grafana_admin_user=None, grafana_datasources=None)
    team.change({("obs", "grafana"): "restarted"}, predict=True)
    assert "Orders" not in {one["name"] for one in grafana(team, "/api/datasources")}
    team.run("playbooks/verify.yml", "--tags", "grafana", "-e", "platform_verify=active")


def test_monday_retention_of_metrics(team: Team) -> None:
    team.edit(platform_retention_overrides={"metrics": {"period": "9d"}})
    team.change({("obs", "prometheus"): "reloaded"}, predict=True)
    assert "9d" in get(f"{team.prometheus}/api/v1/status/runtimeinfo")["data"]["storageRetention"]


def targets(team: Team, job: str) -> list[str]:
    found = get(f"{team.prometheus}/api/v1/targets", state="active")["data"]["activeTargets"]
    return [target["scrapeUrl"] for target in found if target["labels"]["job"] == job]


def test_tuesday_a_scrape_target_comes_and_goes(team: Team) -> None:
    job = {"job_name": "shop", "static_configs": [{"targets": [f"{team.agent1}:9100"]}]}
    team.edit(platform_scrape_jobs=[job])
    team.change({("obs", "prometheus"): "reloaded"})
    assert until(lambda: targets(team, "shop")) == [f"http://{team.agent1}:9100/metrics"]
    team.edit(platform_scrape_jobs=[])
    team.change({("obs", "prometheus"): "reloaded"})
    assert until(lambda: not targets(team, "shop"))


def test_wednesday_a_threshold(team: Team) -> None:
    team.edit(platform_thresholds={"disk_free_ratio_warning": 0.125})
    # The panel that draws the threshold changes with the rule.
    team.change({("obs", "prometheus"): "reloaded", ("obs", "grafana"): "reloaded"})
    assert "0.125" in json.dumps(get(f"{team.prometheus}/api/v1/rules"))


def test_wednesday_a_rule_comes_and_goes(team: Team) -> None:
    rule = {"alert": "ShopIsClosed", "expr": "vector(0) > 1", "labels": {"severity": "warning"}}
    team.edit(prometheus_rule_groups=[{"name": "shop", "rules": [rule]}])
    team.change({("obs", "prometheus"): "reloaded"})
    assert "ShopIsClosed" in json.dumps(get(f"{team.prometheus}/api/v1/rules"))
    team.edit(prometheus_rule_groups=None)
    team.change({("obs", "prometheus"): "reloaded"}, predict=True)
    # Gone from the server, and from the disk, where a restart would find it again.
    assert "ShopIsClosed" not in json.dumps(get(f"{team.prometheus}/api/v1/rules"))
    assert team.site.on(team.obs, "grep -rl ShopIsClosed /etc/prometheus/; true") == ""


def test_wednesday_a_dashboard(team: Team) -> None:
    for title in ("Orders", "Orders and payments"):
        board = {"uid": "day2", "title": title, "panels": [], "schemaVersion": 36}
        team.edit(grafana_dashboards={"orders": json.dumps(board)})
        # The first one declares the file, the second changes it; both are there when the run ends.
        team.change({("obs", "grafana"): "reloaded"}, predict=title == "Orders")
        assert grafana(team, "/api/dashboards/uid/day2")["dashboard"]["title"] == title
        listed = {board["uid"] for board in grafana(team, "/api/search?type=dash-db")}
        assert listed >= {"day2", "system-overview"}
    board = {"uid": "system-overview", "title": "Mine", "panels": []}
    team.edit(grafana_dashboards={"orders": json.dumps(board)})
    refused = team.site.playbook(DEPLOY, records=RECORDS / "changes")
    assert refused.code != 0
    assert (
        "grafana_dashboards.orders.uid: system-overview is the uid of a dashboard of this role"
        in " ".join(refused.output.split())
    )
    team.edit(grafana_dashboards=None)
    team.change({("obs", "grafana"): "reloaded"})
    assert "day2" not in {board["uid"] for board in grafana(team, "/api/search?type=dash-db")}


def test_thursday_the_log_pipeline(team: Team) -> None:
    team.edit(promtail_extra_stages=[{"static_labels": {"team": "shop"}}])
    team.change({("obs", "promtail"): "reloaded", ("agent1", "promtail"): "reloaded"}, predict=True)
    assert until(
        lambda: "shop" in get(f"{team.loki}/loki/api/v1/label/team/values", since="5m").get("data", [])
    )


def test_thursday_entries_of_a_file_that_only_its_group_reads(team: Team) -> None:
    text = "2026-01-01 boom password=abc123\\n\\tat shop.Main\\n2026-01-01 next\\n"
    team.site.on(
        team.agent1,
        "groupadd --system shop; install -d -m 750 -g shop /var/log/shop;"
        f"install -m 640 -g shop /dev/null /var/log/shop/app.log; printf '{text}' >>/var/log/shop/app.log",
    )
    group = {"job": "shop", "log_class": "web", "paths": ["/var/log/shop/*.log"], "multiline": "^[0-9]{4}-"}
    team.edit(promtail_groups=["shop"], promtail_extra_files=[group])
    # A process learns its groups when it starts; the other host has no such group.
    team.change({("obs", "promtail"): "reloaded", ("agent1", "promtail"): "restarted"}, predict=True)
    found = until(
        lambda: get(f"{team.loki}/loki/api/v1/query_range", query='{job="shop"} |= "boom"', since="5m")[
            "data"
        ]["result"]
    )
    assert [entry[1] for stream in found for entry in stream["values"]] == [
        "2026-01-01 boom password=***REDACTED***\n\tat shop.Main"
    ]
    team.edit(promtail_groups=None, promtail_extra_files=None)
    # What it may not read any more, the process that was in the group must not either.
    team.change({("obs", "promtail"): "reloaded", ("agent1", "promtail"): "restarted"}, predict=True)
    assert "shop" not in team.site.on(team.agent1, "id -Gn promtail").split()


def test_thursday_it_is_taken_back_on_one_host(team: Team) -> None:
    rollback = ("playbooks/rollback.yml", "-e", "component=promtail", "--limit", "agent1")
    done = team.change({("agent1", "promtail"): "rolled_back"}, *rollback, predict=True)
    # The release before read files of a group.
    assert "restarted" in done.actions()["agent1", "promtail"]
    assert "shop" in team.site.on(team.agent1, "id -Gn promtail").split()
    # The inventory was not changed, so the next run brings it again; then everybody agrees.
    team.change({("agent1", "promtail"): "restarted"})
    assert "shop" not in team.site.on(team.agent1, "id -Gn promtail").split()


def test_thursday_a_server_is_changed_and_rolled_back(team: Team) -> None:
    team.edit(loki_log_level="warn")
    team.change({("obs", "loki"): "restarted"})
    rollback = ("playbooks/rollback.yml", "-e", "component=loki")
    done = team.change({("obs", "loki"): "rolled_back"}, *rollback, predict=True)
    assert "restarted" in done.actions()["obs", "loki"]
    team.edit(loki_log_level=None)
    team.change({})


def other_version(folder: Path) -> Path:
    """The project's lock with the node exporter's version before; built once, then in the store like any other."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "components", folder)
    shutil.copytree(OTHER, folder / "build" / "node_exporter", dirs_exist_ok=True)
    lock = yaml.safe_load((folder / "lock.yml").read_text())
    version = re.search(r"node_exporter v(\S+)", (OTHER / "go.mod").read_text())
    assert version
    build = lock["builds"]["node_exporter"]
    build |= {"version": version[1], "module_version": f"v{version[1]}"}
    build["variables"] = dict.fromkeys(build["variables"], version[1])
    lock["releases"]["node_exporter"] |= {"version": version[1]}
    (folder / "lock.yml").write_text(yaml.safe_dump(lock))
    return folder / "lock.yml"


def versions(team: Team) -> dict[str, str]:
    found = get(f"{team.prometheus}/api/v1/query", query='node_exporter_build_info{job="node_exporter"}')[
        "data"
    ]["result"]
    return {row["metric"]["host"]: row["metric"]["version"] for row in found}


def test_friday_a_version_down_and_up(team: Team) -> None:
    both = {("obs", "node_exporter"): "restarted", ("agent1", "node_exporter"): "restarted"}
    (newer,) = set(versions(team).values())
    team.edit(platform_lock_file=str(other_version(RECORDS / "components")))
    team.run(DEPLOY, "--tags", "artifacts")
    team.change(both, predict=True)
    assert until(lambda: newer not in versions(team).values())
    assert set(versions(team)) == {"obs", "agent1"}
    team.edit(platform_lock_file=None)
    team.change(both, predict=True)
    assert until(lambda: set(versions(team).values()) == {newer})


def test_friday_a_host_comes(team: Team) -> None:
    hosts = team.hosts()
    hosts["guests"]["hosts"]["agent2"] = {
        "ansible_host": "{{ platform_subnet }}.22",
        "guest_node": "pve3",
        "guest_vmid": 122,
    }
    for group in AGENTS:
        hosts[group]["hosts"]["agent2"] = None
    team.write_hosts(hosts)
    words = ("playbooks/validate.yml", "playbooks/provision.yml", DEPLOY)
    # Prometheus watches the files of its targets.
    expected = {("agent2", name): "created" for name in AGENTS} | {("obs", "prometheus"): "staged"}
    team.change(expected, *words)
    address = team.site.address(22)
    assert until(lambda: targets(team, "node_exporter").count(f"http://{address}:9100/metrics") == 1)
    assert until(
        lambda: get(f"{team.prometheus}/api/v1/query", query='up{host="agent2"} == 1')["data"]["result"]
    )


def test_friday_a_host_goes(team: Team) -> None:
    hosts = team.hosts()
    # Its groups stay as they are.
    hosts["guests"]["hosts"]["agent2"]["guest_state"] = "absent"
    team.write_hosts(hosts)
    words = ("playbooks/validate.yml", "playbooks/provision.yml", DEPLOY)
    done = team.change({("obs", "prometheus"): "staged"}, *words)
    assert next(row["task"] for row in done.rows if row["changed"]).endswith("Guests")
    team.run("playbooks/verify.yml")
    del hosts["guests"]["hosts"]["agent2"]
    for group in AGENTS:
        del hosts[group]["hosts"]["agent2"]
    team.write_hosts(hosts)
    assert not [row for row in team.run(*words).rows if row["changed"]]
    assert until(lambda: not any(team.site.address(22) in url for url in targets(team, "node_exporter")))


def test_no_line_was_lost(team: Team) -> None:
    team.site.on(team.agent1, "systemctl stop day2")
    written = int(team.site.on(team.agent1, "cat /run/day2-count"))
    assert written > 100
    found = until(lambda: (numbers := team.lines()) and len(set(numbers)) >= written and numbers, 30)
    missing = sorted(set(range(written)) - set(found or team.lines()))
    assert missing == []


def test_no_sample_was_missed(team: Team) -> None:
    """Two seconds apart, through all of it; what was restarted may have been down for one scrape each time."""
    series = team.samples('up{host=~"obs|agent1",job!="shop"}')
    assert len(series) >= len(SERVERS) + len(AGENTS)
    gaps = {
        (labels["job"], labels["host"]): max(
            later[0] - sooner[0] for sooner, later in itertools.pairwise(values)
        )
        for labels, values in series
    }
    (RECORDS / "gaps.json").write_text(json.dumps({" on ".join(key): gap for key, gap in gaps.items()}))
    assert {key: gap for key, gap in gaps.items() if gap > 3.5} == {}
    down = {
        (labels["job"], labels["host"]): sum(value == "0" for _at, value in values)
        for labels, values in series
    }
    # Restarted on purpose, twice each.
    restarted = {("loki", "obs"), ("grafana", "obs"), ("promtail", "agent1")}
    restarted |= {("node_exporter", "obs"), ("node_exporter", "agent1")}
    assert {key for key, count in down.items() if count} <= restarted
    assert all(count <= 2 for key, count in down.items() if key[0] == "node_exporter")


def test_saturday_a_component_leaves_a_host(team: Team) -> None:
    hosts = team.hosts()
    del hosts["node_exporter"]["hosts"]["agent1"]
    team.write_hosts(hosts)
    told = "agent1: node_exporter is installed, and the host is not in that group; playbooks/remove.yml takes it off"
    assert told in team.change({("obs", "prometheus"): "staged"}).output
    assert told in team.change({}, DEPLOY, "--tags", "promtail").output
    predicted = team.run("playbooks/remove.yml", "--check").actions()
    assert team.processes()["agent1", "node_exporter"] != "0"
    done = team.run("playbooks/remove.yml")
    assert done.actions() == predicted == {("agent1", "node_exporter"): ["stopped", "disabled", "removed"]}
    left = team.site.on(
        team.agent1,
        "ls -d /opt/luxima/node_exporter /etc/node_exporter /usr/local/bin/node_exporter"
        " /etc/systemd/system/node_exporter.service /var/lib/node_exporter/textfile 2>/dev/null; true",
    )
    assert left == "/var/lib/node_exporter/textfile"
    assert team.run("playbooks/remove.yml").actions() == {}
    assert told not in team.run(DEPLOY).output
    refused = team.site.playbook("playbooks/remove.yml", "-e", "purge=true", records=RECORDS / "changes")
    assert refused.code != 0
    assert "-e component=<name>" in refused.output
