# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The rules of the house, over the tree as data. Each finder is shown something bad as well."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ("lab", "development", "staging", "production")
ROLES = sorted(path.name for path in (PROJECT / "roles").iterdir() if (path / "meta").is_dir())
WIRING = yaml.safe_load((PROJECT / "roles/platform/defaults/main/wiring.yml").read_text())
COMPONENTS: list[str] = WIRING["platform_components"]
# Made by Ansible or by the engines, owned by no role.
SHARED_PREFIXES = ("platform_", "guest_", "proxmox_")
# Facts of `platform` named after the component they are about.
WORD = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")


def files_of(role: str, *kinds: str) -> list[Path]:
    home = PROJECT / "roles" / role
    return sorted(path for kind in kinds for path in home.glob(f"{kind}/**/*") if path.is_file())


class Loader(yaml.SafeLoader):
    """Knows Ansible's tags; their content does not matter here."""


Loader.add_constructor("!unsafe", lambda loader, node: node.value)
Loader.add_constructor("!vault", lambda loader, node: node.value)


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader)


def defaults_of(role: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in files_of(role, "defaults"):
        found.update(load(file) or {})
    return found


def options_of(role: str) -> dict[str, dict[str, Any]]:
    spec = load(PROJECT / "roles" / role / "meta" / "argument_specs.yml")
    (entry,) = spec["argument_specs"].values()
    return dict(entry.get("options") or {})


PLATFORM = defaults_of("platform")


# One fact, one place ---------------------------------------------------------------------------


def spec_differences(defaults: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where a role's defaults and its argument spec say different things."""
    found = [
        f"{name}: has a default and no entry in argument_specs" for name in defaults.keys() - options.keys()
    ]
    for name, option in options.items():
        if not option.get("description"):
            found.append(f"{name}: has no description")
        if option.get("required") and name in defaults:
            found.append(f"{name}: is required and has a default")
        if not option.get("required") and name not in defaults:
            found.append(f"{name}: is in argument_specs, neither required nor with a default")
        if "default" in option and option["default"] != defaults.get(name):
            found.append(f"{name}: default {defaults.get(name)!r}, argument_specs says {option['default']!r}")
    return sorted(found)


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_say_what_the_defaults_say(role: str) -> None:
    options = options_of(role)
    # A role may describe a shared fact that it needs; its default stands in `platform`.
    shared = {name: PLATFORM[name] for name in options.keys() & PLATFORM.keys()}
    assert spec_differences({**shared, **defaults_of(role)}, options) == []


def test_differences_are_found() -> None:
    told = spec_differences(
        {"a_x": 1, "a_y": 2, "a_r": 3},
        {
            "a_y": {"description": "y", "default": 3},
            "a_z": {"description": "z"},
            "a_r": {"required": True},
        },
    )
    assert [line.split(":")[0] for line in told] == ["a_r", "a_r", "a_x", "a_y", "a_z"]


def prefix_faults(role: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith((f"{role}_", f"__{role}_")))


@pytest.mark.parametrize("role", [role for role in ROLES if role != "platform"])
def test_variables_carry_the_name_of_their_role(role: str) -> None:
    named: set[str] = {*defaults_of(role), *(options_of(role).keys() - PLATFORM.keys())}
    for file in files_of(role, "vars"):
        named |= (load(file) or {}).keys()
    # Secrets that only this role reads are its own, whatever section of `platform` hands them on.
    assert prefix_faults(role, named) == []


def test_a_foreign_prefix_is_found() -> None:
    assert prefix_faults("loki", ["loki_a", "__loki_b", "tempo_c"]) == ["tempo_c"]


def platform_prefix_faults(names: Iterable[str], components: Iterable[str]) -> list[str]:
    allowed = (*SHARED_PREFIXES, *(f"{name}_" for name in components))
    return sorted(name for name in names if not name.startswith(allowed))


def test_shared_facts_carry_a_shared_prefix_or_a_component() -> None:
    assert platform_prefix_faults(PLATFORM, COMPONENTS) == []
    assert platform_prefix_faults(["port", "loki_port"], ["loki"]) == ["port"]


def borrowed(role: str, text: str, others: Mapping[str, set[str]], shared: set[str]) -> list[str]:
    """Variables of other roles that a text of this role reads."""
    words = set(WORD.findall(text))
    return sorted(
        word for other, names in others.items() if other != role for word in words & (names - shared)
    )


@pytest.mark.parametrize("role", [role for role in ROLES if role != "platform"])
def test_a_role_reads_only_its_own_variables_and_the_shared_ones(role: str) -> None:
    others = {name: set(defaults_of(name)) | options_of(name).keys() for name in ROLES if name != "platform"}
    shared = {*PLATFORM, *options_of("platform")}
    own = others[role]
    text = "\n".join(
        file.read_text()
        for file in files_of(role, "defaults", "vars", "tasks", "templates")
        if file.suffix != ".json"
    )
    assert [word for word in borrowed(role, text, others, shared) if word not in own] == []


def test_a_borrowed_variable_is_found() -> None:
    assert borrowed(
        "loki",
        "{{ tempo_data_dir }}{{ loki_x }}{{ tempo_port }}",
        {"tempo": {"tempo_data_dir", "tempo_port"}},
        {"tempo_port"},
    ) == ["tempo_data_dir"]


def unused(names: Iterable[str], text: str) -> list[str]:
    words = set(WORD.findall(text))
    return sorted(name for name in names if name not in words)


def readers(role: str) -> str:
    """Everything that may read a variable of a role; a definition alone is no use."""
    texts = [file.read_text() for file in files_of(role, "vars", "tasks", "templates", "files")]
    for file in files_of(role, "defaults"):
        texts.append(re.sub(r"^[a-z]\w*:", "", file.read_text(), flags=re.MULTILINE))
    return "\n".join(texts)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "platform"])
def test_no_default_is_unused(role: str) -> None:
    assert unused(defaults_of(role), readers(role)) == []


def test_no_shared_fact_is_unused() -> None:
    text = "\n".join(readers(role) for role in ROLES)
    text += "\n".join(file.read_text() for file in sorted((PROJECT / "playbooks").glob("*.yml")))
    plugins = PROJECT / "collections/ansible_collections/luxima/observability/plugins"
    text += "\n".join(file.read_text() for file in sorted(plugins.rglob("*.py")))
    assert unused(PLATFORM, text) == []


def test_an_unused_default_is_found() -> None:
    assert unused(["a_b", "a_c"], "x: {{ a_b }}") == ["a_c"]


# Group = role = tag = folder -------------------------------------------------------------------


def play_faults(plays: list[dict[str, Any]], components: list[str]) -> list[str]:
    """Plays of the deployment whose group, tag and role differ, and components nobody deploys or twice."""
    found, seen = [], []
    for play in plays:
        if play.get("hosts", "localhost") == "localhost":
            continue
        tasks = play.get("tasks", [])
        roles = [task.get("ansible.builtin.import_role", {}) for task in tasks]
        if [play["hosts"]] != play.get("tags") or [role.get("name") for role in roles] != [play["hosts"]]:
            found.append(
                f"{play['hosts']}: tags {play.get('tags')}, roles {[role.get('name') for role in roles]}"
            )
        if any(role.get("rolespec_validate") is not False for role in roles):
            found.append(f"{play['hosts']}: rolespec_validate must be false")
        found += [
            f"{play['hosts']}: {word}" for word in ("serial", "strategy", "ignore_errors") if word in play
        ]
        seen.append(play["hosts"])
    if sorted(seen) != sorted(components):
        found.append(f"plays {seen}, components {components}")
    return found


def test_group_role_and_tag_have_one_name() -> None:
    plays = load(PROJECT / "playbooks/deploy.yml")
    assert play_faults(plays, COMPONENTS) == []
    assert set(plays[0]["tags"]) == {"artifacts", *COMPONENTS}
    assert set(COMPONENTS) <= set(ROLES)


def test_a_play_that_differs_is_found() -> None:
    good = {
        "hosts": "a",
        "tags": ["a"],
        "tasks": [{"ansible.builtin.import_role": {"name": "a", "rolespec_validate": False}}],
    }
    assert play_faults([good], ["a"]) == []
    assert len(play_faults([{**good, "tags": ["b"], "serial": 1}], ["a"])) == 2
    assert len(play_faults([good], ["a", "b"])) == 1


def test_metrics_and_artifacts_are_told_for_every_component() -> None:
    # Jobs have no server: their metrics are files that the node exporter reads.
    assert set(WIRING["platform_metrics"]) == set(COMPONENTS) - {"backup", "retention"}
    assert set(WIRING["platform_artifacts"]) == set(COMPONENTS)
    lock = load(PROJECT / "components/lock.yml")
    artifacts = lock.get("artifacts") or lock.get("components") or lock
    assert {name for names in WIRING["platform_artifacts"].values() for name in names} <= set(artifacts)


# Inventories -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def inventory(request: pytest.FixtureRequest) -> dict[str, Any]:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-inventory")),
            "-i",
            f"inventories/{request.param}",
            "--list",
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[WARNING]" not in done.stderr
    return dict(json.loads(done.stdout))


def test_every_component_has_a_host_and_every_guest_is_watched(inventory: dict[str, Any]) -> None:
    def hosts(group: str) -> set[str]:
        entry = inventory.get(group, {})
        return {
            *entry.get("hosts", []),
            *(host for child in entry.get("children", []) for host in hosts(child)),
        }

    assert [name for name in COMPONENTS if not hosts(name)] == []
    assert hosts("node_exporter") == hosts("cadvisor") == hosts("guests") | hosts("hypervisors")
    assert hosts("guests") <= hosts("promtail")


def test_environments_differ_in_label_address_and_id() -> None:
    values = {
        name: load(PROJECT / f"inventories/{name}/group_vars/all/environment.yml") for name in ENVIRONMENTS
    }
    assert {name: value["platform_environment"] for name, value in values.items()} == {
        "lab": "dev",
        "development": "dev",
        "staging": "staging",
        "production": "production",
    }
    subnets = [value["platform_subnet"] for name, value in values.items() if name != "lab"]
    assert len(set(subnets)) == 3
    ids: list[str] = []
    for name in ENVIRONMENTS:
        ids += re.findall(r"guest_vmid: (\d+)", (PROJECT / f"inventories/{name}/hosts.yml").read_text())
    assert len(ids) == len(set(ids))


def test_every_address_is_built_on_the_subnet() -> None:
    for name in ENVIRONMENTS:
        text = (PROJECT / f"inventories/{name}/hosts.yml").read_text()
        written = re.findall(r"ansible_host: (.*?)[,}\n]", text.replace("}}", ""))
        assert written
        assert all(value.startswith('"{{ platform_subnet') for value in written), name


@pytest.mark.parametrize(
    ("environment", "periods"),
    [
        (
            "development",
            {
                "metrics": "7d",
                "application": "7d",
                "docker": "7d",
                "web": "7d",
                "syslog": "7d",
                "security": "30d",
                "audit": "30d",
                "traces": "3d",
            },
        ),
        (
            "staging",
            {
                "metrics": "30d",
                "application": "30d",
                "docker": "15d",
                "web": "14d",
                "syslog": "30d",
                "security": "60d",
                "audit": "90d",
                "traces": "7d",
                "database_backup": "7d",
            },
        ),
        (
            "production",
            {
                "metrics": "60d",
                "application": "30d",
                "docker": "15d",
                "web": "14d",
                "syslog": "30d",
                "security": "90d",
                "audit": "180d",
                "traces": "14d",
                "archive": "60d",
                "database_backup": "30d",
                "object_storage": "14d",
                "deployment_snapshot": "7d",
            },
        ),
    ],
)
def test_periods_of_each_environment(environment: str, periods: dict[str, str]) -> None:
    values = load(PROJECT / f"inventories/{environment}/group_vars/all/environment.yml")
    overrides = values["platform_retention_overrides"]
    policy = {
        name: {**entry, **overrides.get(name, {})}["period"]
        for name, entry in PLATFORM["platform_retention"].items()
    }
    assert {name: policy[name] for name in periods} == periods
    # An override that says what the default says is a second place for one fact.
    assert [
        name
        for name, entry in overrides.items()
        if entry["period"] == PLATFORM["platform_retention"][name]["period"]
    ] == []


# Size and shape --------------------------------------------------------------------------------


def test_the_site_is_a_list_of_imports() -> None:
    assert len((PROJECT / "site.yml").read_text().splitlines()) <= 12
    assert all(set(entry) <= {"name", "import_playbook"} for entry in load(PROJECT / "site.yml"))


@pytest.mark.parametrize("role", ROLES)
def test_the_tasks_of_a_role_are_a_handful(role: str) -> None:
    tasks = PROJECT / "roles" / role / "tasks" / "main.yml"
    assert not tasks.exists() or len(tasks.read_text().splitlines()) <= 30


FORBIDDEN = re.compile(r"^\s*(?:- )?(ignore_errors|ansible\.builtin\.set_fact|no_log|serial):", re.MULTILINE)


def test_tasks_hide_and_carry_nothing() -> None:
    files = [file for role in ROLES for file in files_of(role, "tasks")] + sorted(
        (PROJECT / "playbooks").glob("*.yml")
    )
    assert {
        str(file): FORBIDDEN.findall(file.read_text()) for file in files if FORBIDDEN.search(file.read_text())
    } == {}
    assert FORBIDDEN.findall("- name: x\n  ignore_errors: true\n") == ["ignore_errors"]


def duplicates(texts: Mapping[str, str], size: int = 8) -> list[tuple[str, str, str]]:
    """Blocks of so many equal lines, comments and blank lines left out, that two files share."""
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for name, text in texts.items():
        lines = [
            line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
        ]
        for start in range(len(lines) - size + 1):
            block = tuple(lines[start : start + size])
            owner = seen.setdefault(block, name)
            if owner != name:
                found.append((owner, name, block[0]))
    return found


def test_no_two_roles_share_a_block() -> None:
    texts = {
        f"{role}/{file.name}": file.read_text()
        for role in ROLES
        for file in files_of(role, "tasks", "vars", "templates")
        if file.suffix in (".yml", ".j2")
    }
    assert duplicates(texts) == []


def test_a_shared_block_is_found() -> None:
    block = "\n".join(f"line {number}" for number in range(8))
    assert duplicates({"a": block, "b": f"x\n{block}"}) == [("a", "b", "line 0")]


# Words -----------------------------------------------------------------------------------------

GENERAL = ["roles", "playbooks", "site.yml", "components/lock.yml"]


def names_of_inventories() -> set[str]:
    """Hosts, domains and brands of the shipped inventories: what nothing else may know."""
    names: set[str] = set()
    for environment in ENVIRONMENTS:
        hosts = load(PROJECT / f"inventories/{environment}/hosts.yml")
        for group in ("guests", "hypervisors"):
            names |= set((hosts.get(group) or {}).get("hosts") or {})
        text = (PROJECT / f"inventories/{environment}/group_vars/all/environment.yml").read_text()
        names |= set(re.findall(r"[\w-]+\.(?:id|ai|local)\b", text))
    return names | {
        "acehcommerce",
        "buatfilm",
        "agentbar",
        "luxima.id",
        "development",
        "staging",
        "production",
    }


def mentioned(text: str, names: Iterable[str]) -> list[str]:
    return sorted(
        name for name in names if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE)
    )


def test_no_host_brand_or_environment_outside_the_inventories() -> None:
    names = names_of_inventories()
    found = {}
    for top in GENERAL:
        path = PROJECT / top
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in (".yml", ".yaml", ".j2", ".json") and file.is_file():
                # A comment may show how a command is called.
                text = re.sub(r"(^|\s)#.*|description:.*", "", file.read_text(), flags=re.MULTILINE)
                hits = mentioned(text, names)
                if hits:
                    found[str(file.relative_to(PROJECT))] = hits
    assert found == {}


def test_a_mention_is_found() -> None:
    assert mentioned("when: env == 'production'", {"production", "stg-obs1"}) == ["production"]
    assert mentioned("path: inventories/production", {"production"}) == []


def test_readme_tables_are_fresh() -> None:
    generator = PROJECT / "docs" / "variables.py"
    if not generator.exists():
        pytest.skip("the tables have no generator yet")
    done = subprocess.run(
        [sys.executable, str(generator), "--check"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
