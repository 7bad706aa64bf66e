# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Asks the servers which periods they enforce. The only I/O of the retention module."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.urls import ConnectionError as NoConnection
from ansible.module_utils.urls import open_url

from .readback import document


class Unreachable(Exception):
    """Nobody answers at the address."""


class Refused(Exception):
    """The server answered, but not with what was asked for."""


class Server:
    """One server, as its connection in the inventory describes it."""

    def __init__(self, connection: Mapping[str, Any], timeout: float) -> None:
        self.url = str(connection["url"]).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise Refused(f"{self.url!r} is no http or https address")
        self._options: dict[str, Any] = {"timeout": timeout, "ca_path": connection.get("ca_file") or None}
        if connection.get("username"):
            self._options["url_username"] = connection["username"]
            self._options["url_password"] = connection.get("password") or ""
            self._options["force_basic_auth"] = True

    def _get(self, path: str, headers: Mapping[str, str]) -> str:
        try:
            with open_url(self.url + path, headers=dict(headers), **self._options) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            words = error.read(300).decode(errors="replace").strip()
            raise Refused(f"{self.url}{path} answers {error.code}: {words or error.reason}") from error
        except (OSError, NoConnection) as error:
            raise Unreachable(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from error

    def get_json(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        return json.loads(self._get(path, headers or {}))

    def get_text(self, path: str) -> str:
        return self._get(path, {})

    def get_yaml(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """The document of a page in YAML. Raises ValueError for what is none."""
        return document(self._get(path, headers or {}))
