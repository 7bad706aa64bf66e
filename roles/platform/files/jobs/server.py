# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A server with an HTTP API, in the neighbourhood: the environment's proxies are not asked."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from .errors import JobError


class Server:
    """`connection`: url, ca_file, cert_file, key_file, username; `headers` go with every request."""

    def __init__(
        self, connection: Mapping[str, Any], password: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.url = str(connection["url"]).rstrip("/")
        self._headers = dict(headers or {})
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.url.startswith("https:"):
            context = ssl.create_default_context(cafile=connection.get("ca_file") or None)
            if connection.get("cert_file"):
                context.load_cert_chain(connection["cert_file"], connection.get("key_file") or None)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        if connection.get("username"):
            known = urllib.request.HTTPPasswordMgrWithPriorAuth()
            known.add_password(None, self.url, str(connection["username"]), password, is_authenticated=True)
            handlers.append(urllib.request.HTTPBasicAuthHandler(known))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, path: str, method: str = "GET", timeout: float = 30) -> str:
        request = urllib.request.Request(self.url + path, method=method, headers=self._headers)  # noqa: S310
        where = f"{method} {self.url}{path.partition('?')[0]}"
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:300].strip()
            raise JobError(f"{where}: {error.code} {told or error.reason}") from None
        except (urllib.error.URLError, OSError) as error:
            raise JobError(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from None

    def json(self, path: str, method: str = "GET", timeout: float = 30) -> Any:
        try:
            return json.loads(self.ask(path, method, timeout))
        except ValueError:
            raise JobError(f"{method} {self.url}{path.partition('?')[0]}: the answer is no JSON") from None

    def wait(self, path: str, seconds: float) -> None:
        """Until it answers. Raises JobError with its last words."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.ask(path, timeout=5)
                return
            except JobError as error:
                if time.monotonic() > end:
                    raise JobError(f"not ready after {seconds:g} s: {error}") from None
            time.sleep(0.5)
