# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Questions to a server over HTTP, from its own host. Standard library only."""

from __future__ import annotations

import base64
import http.client
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import signing

Json = dict[str, Any]
SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*\Z")
LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
LIMIT = 32 << 20


@dataclass
class Answer:
    """`status` 0: nobody answered, `text` says why."""

    status: int
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 400 else self.text[:400] + "…"
        return f"{self.status}: {text.strip()}" if self.status else text


def ask(probe: Json, method: str = "GET", timeout: float = 5.0) -> Answer:
    """One request, without proxies and without following redirects; over after `timeout` seconds, however the server behaves.

    Never raises for a server that is not there.
    """
    end = time.monotonic() + timeout
    parts = urlsplit(probe["url"])
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=probe.get("ca_file"))
            if probe.get("cert_file"):
                context.load_cert_chain(probe["cert_file"], probe.get("key_file"))
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        headers = {"Connection": "close"}
        if probe.get("username"):
            secret = ""
            if probe.get("password_file"):
                secret = Path(probe["password_file"]).read_text(encoding="utf-8").strip()
            pair = f"{probe['username']}:{secret}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if probe.get("sign"):
            text = Path(probe["sign"]["file"]).read_text(encoding="utf-8")
            headers.update(
                signing.headers(
                    probe["sign"], text, method, parts.netloc, parts.path or "/", parts.query, time.time()
                )
            )
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, _body(response, end).decode("utf-8", "replace"))
        finally:
            connection.close()
    except KeyError as error:
        return Answer(0, f"{probe['sign']['file']} says nothing of {error}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, f"{type(error).__name__}: {error}")


def _body(response: http.client.HTTPResponse, end: float) -> bytes:
    """Read as it comes: a socket's own time-out begins anew with every byte."""
    body = bytearray()
    while len(body) < LIMIT:
        block = response.read1(1 << 16)
        if not block:
            break
        body += block
        if time.monotonic() > end:
            raise TimeoutError("the answer did not end in time")
    return bytes(body)


def metric_value(text: str, name: str, labels: dict[str, str]) -> float | None:
    """The first sample of that name that carries these labels (it may carry more)."""
    for line in text.splitlines():
        if not line.startswith(name):
            continue
        match = SAMPLE.match(line)
        if not match or match.group(1) != name:
            continue
        have = {
            key: value.replace('\\"', '"').replace("\\\\", "\\")
            for key, value in LABEL.findall(match.group(2) or "")
        }
        if all(have.get(key) == value for key, value in labels.items()):
            try:
                return float(match.group(3))
            except ValueError:
                return None
    return None


def hopeless(probe: Json, answer: Answer, waited: float) -> bool:
    """Whether waiting for another answer makes no sense."""
    never = probe.get("hopeless")
    return bool(never and never in answer.text) or waited > float(probe.get("within", waited))


def refusal(probe: Json, answer: Answer, before: float | None = None) -> str:
    """Why an answer does not hold as proof; empty when it does."""
    reason = _refusal(probe, answer, before)
    return f"{reason}; {probe['hint']}" if reason and probe.get("hint") else reason


def _refusal(probe: Json, answer: Answer, before: float | None) -> str:
    if answer.status != probe.get("status", 200):
        return f"{probe['url']} answered {answer}"
    if "contains" in probe and probe["contains"] not in answer.text:
        return f"{probe['url']} does not show {probe['contains'][:120]!r}"
    if "metric" in probe:
        value = metric_value(answer.text, probe["metric"], probe.get("labels", {}))
        if value is None:
            return f"{probe['url']} has no metric {probe['metric']} {probe.get('labels') or ''}".rstrip()
        if "value" in probe and value != probe["value"]:
            return f"{probe['url']}: {probe['metric']} is {value:g}, expected {probe['value']:g}"
        if probe.get("changes") and before is not None and value == before:
            return f"{probe['url']}: {probe['metric']} is still {value:g}"
    return ""
