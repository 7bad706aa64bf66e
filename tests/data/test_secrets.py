# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Secrets of an environment: declared, recognised, kept and rotated by real runs over copies of the shipped inventories."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.luxima.observability.plugins.module_utils._secrets import declared, examples

PROJECT = Path(__file__).resolve().parents[2]
SECRETS = "group_vars/all/secrets.yml"
SHIPPED = sorted(PROJECT.glob(f"inventories/*/{SECRETS}"))
OWN, OTHER = VaultSecret(b"own password"), VaultSecret(b"other password")
VAULT = VaultLib([("own", OWN), ("other", OTHER), ("example", VaultSecret(b"example"))])


class _Loader(yaml.SafeLoader):
    """Decrypts what these tests have the password of."""


_Loader.add_constructor("!vault", lambda _loader, node: VAULT.decrypt(node.value).decode())
_Loader.add_constructor("!unsafe", lambda _loader, node: node.value)


def values(file: Path) -> dict[str, Any]:
    text = file.read_text()
    if text.startswith("$ANSIBLE_VAULT"):
        text = VAULT.decrypt(text).decode()
    return yaml.load(text, _Loader) or {}


def vaulted(name: str, value: str, label: str = "own", secret: VaultSecret = OWN) -> str:
    lines = VAULT.encrypt(value, secret, label).decode().strip().splitlines()
    return "\n".join([f"{name}: !vault |", *(f"  {line}" for line in lines)]) + "\n"


class Environment:
    """A copy of a shipped inventory, with two vault identities."""

    def __init__(self, folder: Path, name: str = "staging") -> None:
        self.home = folder / name
        shutil.copytree(PROJECT / "inventories" / name, self.home)
        self.file = self.home / SECRETS
        for label, secret in (("own", OWN), ("other", OTHER)):
            (folder / label).write_bytes(secret.bytes + b"\n")
        self.vault = [f"--vault-id=own@{folder / 'own'}", f"--vault-id=other@{folder / 'other'}"]

    def play(
        self, *words: str, playbook: str = "playbooks/secrets.yml", inventory: str = ""
    ) -> tuple[int, str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        done = subprocess.run(
            [program, playbook, "-i", inventory or str(self.home), *self.vault, *words],
            cwd=PROJECT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def do(self, *words: str, **more: str) -> str:
        code, output = self.play(*words, **more)
        assert code == 0, output
        return output

    def refused(self, *words: str) -> str:
        before = {path: path.read_bytes() for path in self.file.parent.iterdir()}
        code, output = self.play(*words)
        assert code == 2, output
        assert {path: path.read_bytes() for path in self.file.parent.iterdir()} == before
        return " ".join(output.split())

    def former(self) -> list[Path]:
        return sorted(self.file.parent.glob("secrets.yml.*.old"))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def write(environment: Environment, **more: str) -> dict[str, str]:
    """An environment of one's own, in use: every secret has a value, in the identity `own`."""
    made = {name: f"{name}, ours".ljust(32, ".")[-32:] for name in values(SHIPPED[-1])} | more
    text = "---\n# Ours, with a comment.\n" + "".join(vaulted(*pair) for pair in made.items())
    environment.file.write_text(text)
    return made


# -- declared


def options() -> dict[str, dict[str, Mapping[str, Any]]]:
    found = {}
    for spec in sorted(PROJECT.glob("roles/*/meta/argument_specs.yml")):
        (entry,) = yaml.safe_load(spec.read_text())["argument_specs"].values()
        found[spec.parents[1].name] = entry.get("options") or {}
    return found


def holds_secret(option: Mapping[str, Any]) -> bool:
    inner = (option.get("options") or {}).values()
    return bool(option.get("no_log")) or any(map(holds_secret, inner))


def undeclared(
    specs: Mapping[str, Mapping[str, Mapping[str, Any]]], known: Mapping[str, declared.Secret]
) -> set[tuple[str, str]]:
    """(role, variable) of secrets that are in the argument specs or in the declarations alone."""
    specified = {
        (role, name) for role, spec in specs.items() for name, option in spec.items() if holds_secret(option)
    }
    return specified ^ {(secret.role, secret.variable) for secret in known.values()}


def known() -> dict[str, declared.Secret]:
    return declared.read(PROJECT / "roles", lambda path: yaml.safe_load(Path(path).read_text()))


def test_every_secret_says_what_it_protects() -> None:
    assert undeclared(options(), known()) == set()


def test_a_forgotten_declaration_would_be_found() -> None:
    specs = {"loki": {"loki_pair": {"type": "dict", "options": {"password": {"no_log": True}}}}}
    assert undeclared(specs, {}) == {("loki", "loki_pair")}


def test_what_is_read_fast_is_what_is_declared() -> None:
    texts = {name for name, secret in known().items() if secret.form == "text"}
    assert declared.variables(PROJECT / "roles") == texts


def test_consumers_and_names_exist() -> None:
    roles = {path.name for path in (PROJECT / "roles").iterdir()}
    variables = {name for spec in options().values() for name in spec}
    for secret in known().values():
        assert set(secret.consumers) <= roles, secret
        assert not secret.name or secret.name in variables, secret


def test_a_key_of_stored_data_is_guarded_by_its_component() -> None:
    """What the declaration says, the record of the component says to the transaction."""
    for secret in known().values():
        text = (
            (PROJECT / "roles" / secret.role / "vars" / "main.yml").read_text()
            if secret.role != "platform"
            else ""
        )
        guarded = re.findall(r"\{variable: (\w+), data: ", text)
        assert (secret.variable in guarded) == (secret.protects == declared.STORED_DATA), secret


def test_the_runbook_names_what_each_secret_protects() -> None:
    text = (PROJECT / "docs" / "secrets.md").read_text()
    rows = {
        cells[0].strip(" `"): cells[1].strip()
        for line in text.splitlines()
        if len(cells := line.strip("|").split("|")) == 3
    }
    made = {name: secret.protects.replace("_", " ") for name, secret in known().items() if secret.length}
    assert {name: rows.get(name) for name in made} == made


# -- recognised


def shipped() -> set[str]:
    return {value for file in SHIPPED for value in values(file).values() if "{{" not in value}


def test_every_shipped_secret_is_known_as_an_example() -> None:
    digests = {hashlib.sha256(value.encode()).hexdigest() for value in shipped()}
    assert len(shipped()) >= 27
    assert digests == examples.DIGESTS, "\n".join(sorted(digests))


@pytest.mark.parametrize("name", ["development", "staging", "production"])
def test_every_example_in_use_is_told_wherever_it_was_copied_to(name: str, tmp_path: Path) -> None:
    environment = Environment(tmp_path, name)
    clear = values(environment.file)
    text = "".join(vaulted(key, value) for key, value in clear.items())
    environment.file.unlink()
    (environment.file.parent / "mine.yml").write_text(text)
    _code, output = environment.play(playbook="playbooks/validate.yml")
    # A warning; where the environment is protected, a fault of each.
    warned = re.search(r"example secrets are in use: ([\w, ]+);", " ".join(output.split()))
    refused = set(re.findall(r"^- (\w+)[^:]*\S*: is the shipped example", output, re.MULTILINE))
    assert (set(warned[1].split(", ")) if warned else refused) == set(clear)


def test_an_example_in_another_form_and_a_public_password_are_warned_of(environment: Environment) -> None:
    clear = write(environment)
    key = base64.b64encode(
        values(PROJECT / "inventories" / "staging" / SECRETS)["minio_kms_secret_key"].encode()
    ).decode()
    text = "".join(
        vaulted(*pair)
        for pair in clear.items()
        if pair[0] not in ("minio_kms_secret_key", "loki_s3_secret_key")
    )
    public = vaulted("loki_s3_secret_key", "a value of ours", "example", VaultSecret(b"example"))
    environment.file.write_text(text + vaulted("minio_kms_secret_key", f"objects:{key}") + public)
    output = " ".join(environment.do(playbook="playbooks/validate.yml").split())
    assert "example secrets are in use: loki_s3_secret_key, minio_kms_secret_key;" in output


# -- kept and rotated


def test_replacing_all_keeps_stored_data_and_what_is_yours(environment: Environment) -> None:
    before = write(environment, shop_api_key="of the shop")
    text = environment.file.read_text()
    output = environment.do("-e", "platform_secrets_replace=true", "-vvv", "--diff")
    after = values(environment.file)
    kept = {"grafana_secret_key", "minio_kms_secret_key", "proxmox_api_token_secret", "shop_api_key"}
    names = {f"{name}_s3_access_key" for name in ("loki", "tempo", "retention", "backup")}
    assert {name for name in before if before[name] == after[name]} == kept
    assert set(after) == set(before) | names
    for name in ("minio_kms_secret_key", "shop_api_key"):
        block = re.search(rf"^{name}: !vault \|\n(?:  .*\n)+", text, re.MULTILINE)
        assert block
        assert block[0] in environment.file.read_text()
    assert "# Ours, with a comment." in environment.file.read_text()
    assert "minio_kms_secret_key: kept: it protects stored data" in output
    assert "shop_api_key: kept: yours" in output
    assert "grafana_admin_password: made: as asked" in output
    # The former file is beside it, as it was, for its owner only; no value was shown.
    (former,) = environment.former()
    assert former.read_text() == text
    assert {path.stat().st_mode & 0o777 for path in (former, environment.file)} == {0o600}
    assert not [name for name in before if before[name] in output or after[name] in output]
    assert not list(environment.file.parent.glob(".*"))


def test_the_former_file_is_no_part_of_the_inventory(environment: Environment) -> None:
    write(environment, only_in_the_former="hidden")
    environment.do("-e", "platform_secrets_rotate=loki_s3_secret_key")
    environment.file.unlink()
    program = str(Path(sys.executable).with_name("ansible-inventory"))
    done = subprocess.run(
        [program, "-i", str(environment.home), *environment.vault, "--list"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "only_in_the_former" not in done.stdout


def test_secrets_are_rotated_by_name_and_nothing_else_changes(environment: Environment) -> None:
    before = write(environment)
    for number in range(2):
        environment.do("-e", "platform_secrets_rotate=loki_s3_secret_key,grafana_admin_password")
        after = values(environment.file)
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed == {"loki_s3_secret_key", "grafana_admin_password", "loki_s3_access_key"}
        assert re.fullmatch(r"loki-[0-9a-f]{6}", after["loki_s3_access_key"])
        assert (len(after["loki_s3_secret_key"]), len(after["grafana_admin_password"])) == (40, 24)
        assert len(environment.former()) == number + 1
        before = after


def test_an_access_key_that_is_said_elsewhere_stays(environment: Environment) -> None:
    write(environment)
    (environment.home / "group_vars" / "all" / "names.yml").write_text("loki_s3_access_key: ours\n")
    environment.do("-e", "platform_secrets_rotate=loki_s3_secret_key")
    assert "loki_s3_access_key" not in values(environment.file)


def test_what_is_missing_is_made_and_what_is_set_elsewhere_is_not(environment: Environment) -> None:
    before = write(environment)
    text = re.sub(
        r"^(tempo_s3_secret_key|minio_kms_secret_key): .*\n(  .*\n)+",
        "",
        environment.file.read_text(),
        flags=re.MULTILINE,
    )
    environment.file.write_text(text)
    elsewhere = environment.home / "group_vars" / "minio.yml"
    elsewhere.write_text(vaulted("minio_kms_secret_key", "k" * 32))
    assert "minio.yml:1" in environment.do("-e", "platform_secrets_replace=true", "--check")
    assert environment.file.read_text() == text
    output = environment.do()
    after = values(environment.file)
    assert set(after) == set(before) - {"minio_kms_secret_key"}
    assert {name for name in after if after[name] != before[name]} == {"tempo_s3_secret_key"}
    assert "tempo_s3_secret_key: made: it was missing" in output
    again = environment.file.read_bytes()
    assert "changed=0" in environment.do()
    assert environment.file.read_bytes() == again


def test_a_new_environment_gets_a_file_of_its_own(environment: Environment) -> None:
    environment.file.unlink()
    environment.do()
    made = {name for name, secret in known().items() if secret.length}
    assert set(values(environment.file)) == made
    assert environment.file.stat().st_mode & 0o777 == 0o600
    assert environment.former() == []


def test_a_key_of_stored_data_is_refused_by_name_until_its_data_was_moved(environment: Environment) -> None:
    before = write(environment)
    rotate = ("-e", "platform_secrets_rotate=minio_kms_secret_key")
    told = environment.refused(*rotate)
    assert "minio_kms_secret_key is a key of stored data" in told
    assert "docs/secrets.md" in told
    environment.refused(*rotate, "-e", "platform_secrets_data_moved_confirmed=production")
    environment.refused("-e", f"minio_kms_secret_key={'x' * 32}")
    environment.do(*rotate, "-e", "platform_secrets_data_moved_confirmed=staging")
    after = values(environment.file)
    assert {name for name in after if after[name] != before[name]} == {"minio_kms_secret_key"}


def test_a_given_value_is_written(environment: Environment, tmp_path: Path) -> None:
    write(environment)
    given = tmp_path / "given.json"
    given.write_text(
        json.dumps({"proxmox_api_token_secret": "issued {{ there }}", "backup_postgresql_password": "p"})
    )
    output = environment.do("-e", f"@{given}")
    after = values(environment.file)
    assert after["proxmox_api_token_secret"] == "issued {{ there }}"
    assert after["backup_postgresql_password"] == "p"
    assert "proxmox_api_token_secret: written: the given value" in output
    assert "issued {{" not in output


def test_a_file_that_is_encrypted_whole_stays_so(environment: Environment) -> None:
    before = {"loki_s3_secret_key": "l" * 40, "minio_kms_secret_key": "k" * 32, "shop": "of the shop"}
    text = "# Ours.\n" + yaml.safe_dump(before)
    environment.file.write_bytes(VAULT.encrypt(text, OTHER, "other"))
    environment.do("-e", "platform_secrets_rotate=loki_s3_secret_key")
    raw = environment.file.read_text()
    assert raw.startswith("$ANSIBLE_VAULT;1.2;AES256;other\n")
    assert VAULT.decrypt(raw).decode().startswith("# Ours.\n")
    after = values(environment.file)
    assert {name for name in before if before[name] != after[name]} == {"loki_s3_secret_key"}
    assert {"grafana_admin_password", "grafana_secret_key", "minio_root_password"} <= set(after)


def test_new_values_get_the_identity_of_the_file_or_the_one_that_is_named(environment: Environment) -> None:
    environment.file.write_text(vaulted("minio_root_password", "of ours", "other", OTHER))
    environment.do()
    assert set(re.findall(r"AES256;(\w+)", environment.file.read_text())) == {"other"}
    environment.do("-e", "platform_secrets_rotate=minio_root_password", "-e", "platform_secrets_vault_id=own")
    assert set(re.findall(r"AES256;(\w+)", environment.file.read_text())) == {"other", "own"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("platform_secrets_rotate=loki_s3_secrt_key", "did you mean loki_s3_secret_key?"),
        ("platform_secrets_rotate=proxmox_api_token_secret", "is issued by somebody else"),
        (
            "platform_secrets_rotate=loki_s3_secret_key platform_secrets_vault_id=nobody",
            "no vault identity nobody",
        ),
        (
            "platform_secrets_rotate=loki_s3_secret_key platform_secrets_file=playbooks/site.yml/x.yml",
            "platform_secrets_file",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(environment: Environment, words: str, says: str) -> None:
    write(environment)
    if "platform_secrets_file" in words:
        words = words.replace("playbooks/site.yml", str(environment.file))
    assert says in environment.refused("-e", words)


def test_a_value_that_is_looked_up_is_rotated_where_it_is_kept(environment: Environment) -> None:
    text = "loki_s3_secret_key: \"{{ lookup('ansible.builtin.env', 'LOKI') }}\"\n"
    environment.file.write_text(text)
    assert "rotate it where it is kept" in environment.refused(
        "-e", "platform_secrets_rotate=loki_s3_secret_key"
    )
    environment.do("-e", "platform_secrets_replace=true")
    assert text in environment.file.read_text()


def test_the_file_is_in_the_folder_of_the_first_source(environment: Environment) -> None:
    write(environment)
    environment.do(
        "-e",
        "platform_secrets_rotate=loki_s3_secret_key",
        "-i",
        str(environment.home),
        inventory=str(environment.home / "00-platform.yml"),
    )
    assert len(environment.former()) == 1
    place = environment.home / "no" / "such" / "folder" / "group_vars" / "all" / "secrets.yml"
    code, output = environment.play("-e", f"platform_secrets_file={place}")
    assert code == 2
    assert "name the file of secrets with -e platform_secrets_file" in " ".join(output.split())
    assert not (environment.home / "no").exists()


def test_a_broken_file_is_named_and_not_touched(environment: Environment) -> None:
    environment.file.write_text("minio_root_password: a-value-of-ours\nminio_root_password: b\n")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "playbooks/secrets.yml",
            "-i",
            "inventories/staging",
            *environment.vault,
            "-e",
            f"platform_secrets_file={environment.file}",
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "stands there twice (line 2)" in done.stdout + done.stderr
    assert "a-value-of-ours" not in done.stdout + done.stderr


# -- in configurations


def test_a_vaulted_value_in_any_configuration_closes_its_file(tmp_path: Path) -> None:
    environment = Environment(tmp_path, "development")

    def own(value: str, indent: int) -> str:
        first, *rest = vaulted("x", value).removeprefix("x: ").splitlines()
        return "\n".join([first, *(" " * indent + line for line in rest)])

    (environment.home / "group_vars" / "all" / "zz.yml").write_text(
        vaulted("shop_token", "token-9471")
        + f"loki_config:\n  limits_config:\n    x: {own('hidden-loki', 4)}\n"
        + 'tempo_config: {storage: {trace: {s3: {session_token: "{{ shop_token }}"}}}}\n'
        + 'alertmanager_config: {global: {slack_api_url: "https://hooks.example.org/{{ shop_token }}"}}\n'
        + "prometheus_config:\n  remote_write:\n    - {url: 'https://x.example.org', basic_auth: {password: '{{ shop_token }}'}}\n"
        + f"grafana_config:\n  smtp:\n    password: {own('hidden-grafana', 4)}\n"
        + f"grafana_environment:\n  GF_HIDDEN: {own('hidden-variable', 4)}\n  GF_JOINED: 'a {{{{ shop_token }}}}'\n  GF_OPEN: is-shown\n"
        + "promtail_extra_stages: [{static_labels: {x: '{{ shop_token }}'}}]\n"
        + "blackbox_exporter_config: {modules: {mine: {prober: http, http: {bearer_token: '{{ shop_token }}'}}}}\n"
    )
    render = tmp_path / "render"
    environment.do("-e", f"platform_render_dir={render}", playbook="playbooks/render.yml")
    texts = {str(path.relative_to(render)): path.read_text() for path in render.rglob("*") if path.is_file()}
    assert [
        path for path, text in texts.items() if re.search(r"hidden-\w|token-9471|ANSIBLE_VAULT", text)
    ] == []
    closed = {path.partition("/")[2] for path, text in texts.items() if text == "<secret>\n"}
    assert closed >= {
        "loki/etc/loki.yml",
        "tempo/etc/tempo.yml",
        "alertmanager/etc/alertmanager.yml",
        "prometheus/etc/prometheus.yml",
        "grafana/etc/grafana.ini",
        "grafana/etc/environment",
        "promtail/etc/promtail.yml",
        "blackbox_exporter/etc/blackbox.yml",
    }
    (unit,) = [text for path, text in texts.items() if path.endswith("grafana/unit")]
    assert "GF_OPEN=is-shown" in unit
    assert "GF_HIDDEN" not in unit
    assert "GF_JOINED" not in unit
    # What holds nothing of the kind stays open.
    assert not {path for path in closed if path.endswith(("overrides.yml", "runtime.yml", "unit"))}
