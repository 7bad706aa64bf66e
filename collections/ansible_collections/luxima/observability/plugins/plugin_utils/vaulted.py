# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Vaulted values anywhere in a record: decrypted, and what holds one is secret from then on."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import EncryptedString, VaultHelper, VaultLib, VaultSecretsContext
from ansible_collections.luxima.observability.plugins.module_utils._component.record import (
    MODE,
    Record,
    RecordError,
    narrow,
)

Json = dict[str, Any]

HEADER = "$ANSIBLE_VAULT;"
# How Ansible's filters write a vaulted value as YAML before ansible-core 2.21: it stays encrypted.
WRITTEN = re.compile(
    r"!vault (?:\||>)[0-9+-]*\n(?P<indent> +)(?P<text>\$ANSIBLE_VAULT;[^\n]+(?:\n(?P=indent)[0-9a-f]+)+)"
)
# A shorter one is found by chance.
SHORTEST = 6


def revealed(arguments: Mapping[str, Any]) -> Json:
    """The arguments of a record with files marked as secret that hold a vaulted value, and such variables taken out of the unit.

    Raises RecordError for one that cannot be decrypted.
    """
    found = dict(arguments)
    files = found.get("files")
    if isinstance(files, (list, tuple)):
        found["files"] = [_file(entry) if isinstance(entry, Mapping) else entry for entry in files]
    environment = found.get("environment")
    if isinstance(environment, Mapping):
        secret = {key: value for key, value in environment.items() if inside(value)}
        if secret:
            found["environment"] = {key: value for key, value in environment.items() if key not in secret}
            found["secret_environment"] = {**secret, **(found.get("secret_environment") or {})}
    return found


def _file(entry: Mapping[str, Any]) -> Json:
    content = entry.get("content")
    if content is None:
        return dict(entry)
    secret = inside(content)
    if isinstance(content, (str, EncryptedString)) and HEADER in content:
        content, secret = _decrypted(str(entry.get("path")), str(content)), True
    if not secret or entry.get("secret"):
        return {**entry, "content": content}
    mode = (
        {"mode": narrow(entry["mode"])}
        if isinstance(entry.get("mode"), str) and MODE.match(entry["mode"])
        else {}
    )
    return {**entry, **mode, "content": content, "secret": True}


def inside(value: Any) -> bool:
    """Whether there is a vaulted value in it."""
    return next(_ciphertexts(value), None) is not None


def _ciphertexts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _ciphertexts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _ciphertexts(item)
    else:
        text = VaultHelper.get_ciphertext(value, with_tags=False)
        if text:
            yield str(text)


def _decrypted(path: str, text: str) -> str:
    """The text with its values in clear, each as YAML writes a text with special characters."""

    def clear(match: re.Match[str]) -> str:
        lines = [line.strip() for line in match["text"].splitlines()]
        return json.dumps(_clear("\n".join(lines), path), ensure_ascii=False)

    found = WRITTEN.sub(clear, text)
    if HEADER in found:
        raise RecordError(
            f"files ({path}): holds a vaulted value as ciphertext; use the variable itself instead of its text"
        )
    return found


def _clear(ciphertext: str, path: str) -> str:
    try:
        vault = VaultLib(VaultSecretsContext.current().secrets)
        return bytes(vault.decrypt(ciphertext)).decode()
    except AnsibleError as error:
        raise RecordError(f"files ({path}): a vaulted value cannot be decrypted: {error}") from None


def worth_hiding(values: Iterable[Any]) -> set[str]:
    """Those that are not found by chance."""
    return {text for value in values if len(text := str(value).strip()) >= SHORTEST}


def moved(record: Record, secrets: Collection[str]) -> Record:
    """The record with such variables of its unit, which everybody can read, in the secret environment."""
    found = {
        key: value for key, value in record.environment.items() if any(secret in value for secret in secrets)
    }
    return replace(
        record,
        environment={key: value for key, value in record.environment.items() if key not in found},
        secret_environment={**found, **record.secret_environment},
    )


def known(variables: Mapping[str, Any]) -> list[str]:
    """Every vaulted value among a host's variables, in clear; those that cannot be decrypted are nobody's to leak."""
    vault, found = VaultLib(VaultSecretsContext.current().secrets), []
    for name, value in variables.items():
        if name in ("hostvars", "vars"):
            continue
        for ciphertext in _ciphertexts(value):
            try:
                found.append(bytes(vault.decrypt(ciphertext)).decode())
            except AnsibleError:
                continue
    return found
