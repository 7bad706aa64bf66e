# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What Grafana takes from its configuration only once, or never: who administers it, and data sources that are gone."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.grafana.conftest import Guest

FURTHER = {
    "name": "Orders",
    "type": "prometheus",
    "uid": "orders",
    "url": "http://127.0.0.1:9",
    "access": "proxy",
}
PLATFORM = ["Alertmanager", "Loki", "Prometheus", "Tempo"]


def loki(*ports: int) -> list[dict[str, Any]]:
    return [
        {"url": f"http://127.0.0.1:{port}", "ca_file": "", "username": "", "password": ""} for port in ports
    ]


def test_a_data_source_that_is_taken_out_is_gone(guest: Guest) -> None:
    guest.deploy(
        grafana_datasources=[FURTHER, {**FURTHER, "name": "100 $$ales", "uid": "sales"}],
        grafana_loki=loki(8, 9),
    )
    assert guest.sources() == sorted([*PLATFORM, "100 $ales", "Loki 2", "Orders"])
    # Of a start before this program was there nothing is known but what the database says.
    (guest.data / "provisioned.json").unlink()
    record = guest.deploy(grafana_datasources=[], grafana_loki=loki(8))
    assert guest.sources() == PLATFORM
    # The proof asks for each that is left.
    asked = [probe["url"] for probe in record["service"]["proof"]]
    assert f"{guest.url}/api/datasources/uid/loki" in asked
    assert guest.status("/api/datasources/uid/loki-2") == 404
    assert guest.start().count("deleted") == 0


def test_one_that_can_be_edited_goes_too_and_one_made_by_hand_stays(guest: Guest) -> None:
    guest.deploy(grafana_datasources=[{**FURTHER, "editable": True}])
    guest.ask(
        "/api/datasources",
        {"name": "By hand", "type": "prometheus", "url": "http://127.0.0.1:9", "access": "proxy"},
    )
    guest.deploy(grafana_datasources=[])
    assert guest.sources() == sorted([*PLATFORM, "By hand"])


def test_a_data_source_with_another_name_keeps_its_uid(guest: Guest) -> None:
    guest.deploy(grafana_datasources=[FURTHER])
    guest.deploy(grafana_datasources=[{**FURTHER, "name": "Sales"}])
    assert guest.sources() == sorted([*PLATFORM, "Sales"])
    assert guest.ask("/api/datasources/uid/orders")["name"] == "Sales"


def test_a_new_database_has_the_administrator_of_the_inventory(program: Path, tmp_path: Path) -> None:
    guest = Guest(program, tmp_path / "new")
    try:
        guest.deploy(grafana_admin_user="boss")
        assert guest.status("/api/datasources", "boss") == 200
    finally:
        guest.process.stop()


def test_the_administrator_gets_the_name_and_the_password_of_the_inventory(guest: Guest) -> None:
    guest.deploy()
    assert guest.status("/api/datasources") == 200
    guest.password = "another one"
    record = guest.deploy(grafana_admin_user="boss")
    assert guest.status("/api/datasources", "boss") == 200
    assert guest.status("/api/datasources", "admin") == 401
    assert {probe["username"] for probe in record["service"]["proof"] if "username" in probe} == {"boss"}
    # Again, and back.
    assert "is called" not in guest.start()
    assert guest.status("/api/datasources", "boss") == 200
    guest.deploy(grafana_admin_user="admin")
    assert guest.status("/api/datasources", "admin") == 200


def test_a_name_that_somebody_has_is_refused_with_the_way_out(guest: Guest) -> None:
    guest.deploy()
    guest.ask("/api/admin/users", {"name": "Boss", "login": "boss", "password": "of-the-boss"})
    guest.write(grafana_admin_user="boss")
    said = guest.start(check=False)
    assert "admin could not be renamed to boss" in said
    assert "delete that account or choose another name" in said
    assert guest.status("/api/datasources", "admin") == 200


BOARD = {"uid": "orders", "title": "Orders", "panels": [], "schemaVersion": 36}


def test_a_reload_brings_and_takes_dashboards_before_it_answers(guest: Guest) -> None:
    guest.deploy()
    assert guest.boards() == ["system-overview"]
    record = guest.write(grafana_dashboards={"orders": json.dumps(BOARD)})
    reload = record["service"]["reload"]
    assert reload["username"] == "admin"
    path = reload["url"].removeprefix(guest.url)
    guest.ask(path, method="POST")
    assert guest.boards() == ["orders", "system-overview"]
    assert guest.ask("/api/dashboards/uid/orders")["meta"]["provisioned"] is True
    guest.write(grafana_dashboards={})
    guest.ask(path, method="POST")
    assert guest.boards() == ["system-overview"]


def test_an_export_is_bound_to_the_data_source_of_its_kind(guest: Guest) -> None:
    panel = {
        "id": 1,
        "type": "timeseries",
        "title": "x",
        "datasource": {"type": "prometheus", "uid": "${DS_PROM}"},
    }
    export = {
        "__inputs": [
            {"name": "DS_PROM", "type": "datasource", "pluginId": "prometheus"},
            {"name": "VAR_JOB", "type": "constant", "value": "shop"},
        ],
        "id": None,
        "title": "Shop",
        "panels": [panel, {**panel, "id": 2, "description": "of ${VAR_JOB}, ${__interval}"}],
        "schemaVersion": 36,
    }
    guest.deploy(grafana_dashboards={"shop.export": json.dumps(export)})
    assert guest.boards() == ["shop-export", "system-overview"]
    shown = guest.ask("/api/dashboards/uid/shop-export")["dashboard"]
    assert shown["panels"][0]["datasource"]["uid"] == "prometheus"
    assert shown["panels"][1]["description"] == "of shop, ${__interval}"
    assert "__inputs" not in shown


def test_the_configuration_is_read_as_it_was_meant(guest: Guest) -> None:
    """Lists, quotes, comment signs and true or false, through Grafana's own reader."""
    config = {
        "auth.generic_oauth": {"enabled": True, "name": 'The "house"; one', "scopes": ["openid", "profile"]},
        "DEFAULT": {"instance_name": "two words"},
    }
    guest.deploy(grafana_config=config)
    shown = guest.ask("/api/admin/settings")
    assert shown["auth.generic_oauth"]["enabled"] == "true"
    assert shown["auth.generic_oauth"]["name"] == 'The "house"; one'
    assert shown["auth.generic_oauth"]["scopes"] == "openid,profile"
    assert shown["DEFAULT"]["instance_name"] == "two words"


def test_a_server_that_has_ended_is_not_waited_for(guest: Guest) -> None:
    """systemd tells of the end only after this program's; a refusal must not take as long as a start may."""
    guest.write()
    ended = subprocess.Popen(["true"])
    ended.wait()
    guest.process.environment["MAINPID"] = str(ended.pid)
    began = time.monotonic()
    assert "Grafana has ended" in guest.helper("after", check=False)
    assert time.monotonic() - began < 30
