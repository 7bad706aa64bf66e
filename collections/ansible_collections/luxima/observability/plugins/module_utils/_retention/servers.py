# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One server in the shape that the read-back asks for. The only I/O of this package, beside object storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._servers.client import TIMEOUT, Client, Refused
from .readback import document


class Server:
    """A server as its connection in the inventory describes it. Raises Unreachable or Refused; `timeout` in seconds."""

    def __init__(self, connection: Mapping[str, Any], timeout: float = TIMEOUT) -> None:
        self._connection, self._timeout = connection, timeout
        self.url = self._client("").url

    def _client(self, tenant: str) -> Client:
        return Client({**self._connection, "tenant": tenant} if tenant else self._connection)

    def get_text(self, path: str, tenant: str = "") -> str:
        return self._client(tenant).text(path, timeout=self._timeout)

    def get_json(self, path: str, tenant: str = "") -> Any:
        return self._client(tenant).json(path, timeout=self._timeout)

    def get_yaml(self, path: str, tenant: str = "") -> Any:
        """The document of a page in YAML."""
        try:
            return document(self.get_text(path, tenant))
        except ValueError as error:
            raise Refused("GET", self.url + path, 200, str(error)) from error
