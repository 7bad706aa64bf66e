# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The file of an environment's secrets on the controller: read and written with vault identities, wholly encrypted or value by value."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted, parse_vaulttext_envelope

from . import document, examples
from .plan import Held


class FileError(ValueError):
    """The file cannot be read or written; the message names it, and the way out."""


class Identities:
    """The vault identities of the run, in their order."""

    def __init__(self, known: list[tuple[str, Any]]) -> None:
        self.known = known
        self.vault = VaultLib(known)

    def chosen(self, wanted: str, present: list[str]) -> tuple[str, Any]:
        """The one to write with: the wanted one, else one that the file has already, else the first; never by itself the public one."""
        names = [label for label, _ in self.known]
        own = [label for label in names if label != examples.IDENTITY]
        label = wanted or next((name for name in present if name in own), own[0] if own else "")
        if label not in names:
            raise FileError(
                f"no vault identity {wanted or 'of your own'} in this run (known: {', '.join(names) or 'none'}); "
                "give one with --vault-id <name>@prompt or --vault-id <name>@<password file>"
            )
        return next(pair for pair in self.known if pair[0] == label)

    def clear(self, text: str) -> str | None:
        """The value of a ciphertext; None when no identity of the run opens it."""
        with contextlib.suppress(AnsibleError):
            return bytes(self.vault.decrypt(text)).decode()
        return None


class SecretsFile:
    """Read once, written whole or not at all; the former file stays beside."""

    def __init__(self, path: Path, identities: Identities) -> None:
        try:
            self.path = path.resolve() if path.is_symlink() else path
        except (OSError, RuntimeError) as error:
            raise FileError(f"{path} cannot be read: {error}") from None
        self.identities = identities
        self.text, self.whole = "", ""
        try:
            raw = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raw = "---\n"
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{path} cannot be read: {error}") from None
        if is_encrypted(raw):
            self.whole = label_of(raw)
            clear = identities.clear(raw)
            if clear is None:
                raise FileError(
                    f"{path} is encrypted with the vault identity {self.whole}, which this run does not have; give it with --vault-id"
                )
            raw = clear
        self.text = raw
        try:
            self.entries = document.read(raw)
        except document.DocumentError as error:
            raise FileError(f"{path}: {error}") from None

    @property
    def labels(self) -> list[str]:
        """The identities that the file is encrypted with, without repetition."""
        found = [label_of(entry.value) for entry in self.entries.values() if entry.vaulted]
        return list(dict.fromkeys([self.whole, *found] if self.whole else found))

    def held(self) -> dict[str, Held]:
        return {name: self._held(entry) for name, entry in self.entries.items()}

    def _held(self, entry: document.Entry) -> Held:
        if entry.vaulted:
            return Held(self.identities.clear(entry.value), label_of(entry.value), vaulted=True)
        if not entry.scalar or (not entry.tag and ("{{" in entry.value or "{%" in entry.value)):
            return Held(elsewhere=True)
        return Held(entry.value, self.whole, vaulted=bool(self.whole))

    def write(self, secrets: Mapping[str, str], names: Mapping[str, str], identity: tuple[str, Any]) -> str:
        """Writes these values, encrypted, and these names; returns the path of the former file, empty when there was none."""
        label, key = identity
        lines = {name: document.plain(name, value) for name, value in names.items()}
        for name, value in secrets.items():
            cipher = "" if self.whole else self._encrypted(value, key, label)
            lines[name] = document.plain(name, value) if self.whole else document.vaulted(name, cipher)
        try:
            text = document.written(self.text, lines)
        except document.DocumentError as error:
            raise FileError(f"{self.path}: {error}") from None
        if self.whole:
            text = self._encrypted(text, key, label) + "\n"
        kept = self._keep()
        _replace(self.path, text.encode())
        return kept

    def _encrypted(self, text: str, key: Any, label: str) -> str:
        return bytes(self.identities.vault.encrypt(text, key, label)).decode().strip()

    def _keep(self) -> str:
        """A copy beside, under a name that Ansible reads neither as variables nor as an inventory."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return ""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        places = [
            f"{self.path.name}.{stamp}.old",
            *(f"{self.path.name}.{stamp}-{n}.old" for n in range(2, 100)),
        ]
        place = next(path for name in places if not (path := self.path.with_name(name)).exists())
        _replace(place, self.path.read_bytes())
        return str(place)


def label_of(text: str) -> str:
    """The vault identity in the first line of a ciphertext; `default` when it names none, or is spoilt."""
    try:
        return str(parse_vaulttext_envelope(text.encode())[3])
    except AnsibleError:
        return "default"


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error}; what was there is as before") from None
    finally:
        scratch.unlink(missing_ok=True)
