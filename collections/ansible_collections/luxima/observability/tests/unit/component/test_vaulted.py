# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Vaulted values within configurations: decrypted, and what holds them closed."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, VaultHelper, VaultLib, VaultSecret, VaultSecretsContext
from ansible.template import Templar, trust_as_template
from ansible_collections.luxima.observability.plugins.module_utils._component import manifest
from ansible_collections.luxima.observability.plugins.module_utils._component.record import RecordError, parse
from ansible_collections.luxima.observability.plugins.plugin_utils import vaulted

KEY = VaultSecret(b"for these tests")
VAULT = VaultLib([("own", KEY)])
VALUES = [
    "hunter-22",
    "quoted \"' \\ and\nlines\n",
    "ä-ö-€-😀",
    "{{ braces }}",
    "12345678",
    "yes",
    " spaces ",
    "#&*!|>%@`",
]


@pytest.fixture(scope="module", autouse=True)
def _identities() -> None:
    if VaultSecretsContext.current(optional=True) is None:
        VaultSecretsContext.initialize(VaultSecretsContext([]))
    VaultSecretsContext.current().secrets.append(("own", KEY))


def hidden(value: str, key: VaultSecret = KEY) -> EncryptedString:
    return EncryptedString(ciphertext=VAULT.encrypt(value, key, "own").decode().strip())


def written(data: Any) -> str:
    """As the roles write it."""
    template = trust_as_template("{{ data | to_nice_yaml(sort_keys=False) }}")
    return str(Templar(DataLoader(), variables={"data": data}).template(template))


@pytest.mark.parametrize("value", VALUES)
def test_a_value_in_yaml_is_decrypted_wherever_it_stands(value: str) -> None:
    data = {"top": hidden(value), "deep": {"list": [{"password": hidden(value)}, hidden(value)]}, "open": 1}
    text = written(data)
    (entry,) = vaulted.revealed({"files": [{"path": "x.yml", "content": text}]})["files"]
    assert yaml.safe_load(entry["content"]) == {
        "top": value,
        "deep": {"list": [{"password": value}, value]},
        "open": 1,
    }
    # Since ansible-core 2.21 the filter writes it in clear, and only a look for it finds it.
    assert ("$ANSIBLE_VAULT" in text) == bool(entry.get("secret"))
    content = manifest.Content(entry["content"].encode(), "0644", False, "restart")
    (found,) = manifest.closed({"etc/x.yml": content}, vaulted.worth_hiding([value])).values()
    assert found.secret or len(value.strip()) < vaulted.SHORTEST


def test_a_secret_in_base64_closes_its_file() -> None:
    text = b"key = " + base64.b64encode(b"hunter-22!")
    content = manifest.Content(text, "0644", False, "restart")
    (found,) = manifest.closed({"etc/x.ini": content}, ["hunter-22!"]).values()
    assert (found.secret, found.mode) == (True, "0640")


def test_data_is_decrypted_and_its_file_closed() -> None:
    for content in ({"a": [hidden("hunter-22")]}, hidden("hunter-22")):
        (entry,) = vaulted.revealed({"files": [{"path": "x.json", "content": content, "mode": "0664"}]})[
            "files"
        ]
        assert (entry["secret"], entry["mode"]) == (True, "0660")


def test_what_is_not_vaulted_stays_as_it_was() -> None:
    files = [{"path": "x.yml", "content": "a: 1\n", "mode": "0644"}, {"path": "y", "template": "y.j2"}]
    arguments = {"name": "x", "files": files, "environment": {"A": "b"}}
    assert vaulted.revealed(arguments) == arguments


def test_a_variable_of_the_unit_moves_into_the_secret_environment() -> None:
    found = vaulted.revealed(
        {"environment": {"A": "open", "B": hidden("hunter-22")}, "secret_environment": {"C": "c"}}
    )
    assert found["environment"] == {"A": "open"}
    assert {key: str(value) for key, value in found["secret_environment"].items()} == {
        "B": "hunter-22",
        "C": "c",
    }


def test_what_cannot_be_decrypted_names_the_file() -> None:
    lines = hidden("hunter-22", VaultSecret(b"another"))
    text = "\n".join(
        [
            "a: !vault |",
            *(f"    {line}" for line in VaultHelper.get_ciphertext(lines, with_tags=False).split()),
        ]
    )
    with pytest.raises(RecordError, match=r"files \(x.yml\): a vaulted value cannot be decrypted"):
        vaulted.revealed({"files": [{"path": "x.yml", "content": text}]})


def test_ciphertext_that_is_no_value_is_refused() -> None:
    with pytest.raises(RecordError, match="as ciphertext"):
        vaulted.revealed({"files": [{"path": "x", "content": "password = $ANSIBLE_VAULT;1.1;AES256 3132"}]})


def test_text_that_was_put_together_is_found_by_its_parts() -> None:
    variables = {
        "token": hidden('to"ken-9471'),
        "deep": {"list": [hidden("hunter-22")]},
        "short": hidden("no"),
    }
    found = vaulted.worth_hiding(vaulted.known(variables))
    record = parse(
        {
            "name": "x",
            "unit": {"exec_start": ["/usr/bin/x"]},
            "environment": {"A": "at hunter-22!", "B": "no"},
            "files": [
                {"path": name, "content": text}
                for name, text in (
                    ("a.ini", "p = https://u:hunter-22@h"),
                    ("b.json", '{"t": "Bearer to\\"ken-9471"}'),
                    ("c", "no"),
                )
            ],
        }
    )
    record = vaulted.moved(record, found)
    assert (record.environment, record.secret_environment) == ({"B": "no"}, {"A": "at hunter-22!"})
    files = manifest.contents(
        record, {n: {"": manifest.dumped(s.path, s.content)} for n, s in enumerate(record.files)}
    )
    closed = manifest.closed(files, found)
    assert {path: (item.secret, item.mode) for path, item in closed.items()} == {
        "etc/a.ini": (True, "0640"),
        "etc/b.json": (True, "0640"),
        "etc/c": (False, "0644"),
        "etc/environment": (True, "0640"),
        "unit/x.service": (False, "0644"),
    }
