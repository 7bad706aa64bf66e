# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Questions to a server over HTTP, from its own host. Standard library only."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
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
        headers = {"Connection": "close", **probe.get("headers", {})}
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
    for _have, value in _samples(text, name, labels):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _samples(text: str, name: str, labels: dict[str, str]) -> Iterator[tuple[dict[str, str], str]]:
    """Labels and value of each sample of that name that carries these labels."""
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
            yield have, match.group(3)


def moving(item: Json, text: str) -> str | float | None:
    """What has to change of a metric: its value, or the value of the label that `changes` names."""
    if isinstance(item["changes"], str):
        found = (have for have, _value in _samples(text, item["metric"], item.get("labels", {})))
        return next((have.get(item["changes"]) for have in found), None)
    return metric_value(text, item["metric"], item.get("labels", {}))


def unlike(want: Any, have: Any, only: bool, where: str = "") -> str:
    """Where data lacks what is wanted of it; empty when it has it.

    Of an object the wanted keys count, of a list the wanted items, in any order; with `only` a list has no further ones.
    Items that are wanted must not be part of each other, else the first may take the place of the second.
    """
    place = where or "the answer"
    if isinstance(want, dict):
        if not isinstance(have, dict):
            return f"{place} is {_short(have)}, expected an object"
        for key, item in want.items():
            if key not in have:
                return f"{place} has no {key!r}"
            found = unlike(item, have[key], only, f"{where}.{key}".lstrip("."))
            if found:
                return found
        return ""
    if isinstance(want, list):
        if not isinstance(have, list):
            # Servers written in Go say null for a list without items.
            return "" if have is None and not want else f"{place} is {_short(have)}, expected a list"
        left = list(have)
        for item in want:
            match = next((i for i, other in enumerate(left) if not unlike(item, other, only)), None)
            if match is None:
                return f"{place} lacks {_short(item)}"
            del left[match]
        return f"{place} has {_short(left[0])} too" if only and left else ""
    same = want == have and isinstance(want, bool) == isinstance(have, bool)
    return "" if same else f"{place} is {_short(have)}, expected {_short(want)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:120] + "…"


def hopeless(probe: Json, answer: Answer, waited: float) -> bool:
    """Whether waiting for another answer makes no sense."""
    never = probe.get("hopeless")
    return bool(never and never in answer.text) or waited > float(probe.get("within", waited))


def refusal(probe: Json, answer: Answer, before: str | float | None = None) -> str:
    """Why an answer does not hold as proof; empty when it does."""
    reason = _refusal(probe, answer, before)
    return f"{reason}; {probe['hint']}" if reason and probe.get("hint") else reason


def _refusal(probe: Json, answer: Answer, before: str | float | None) -> str:
    if answer.status != probe.get("status", 200):
        return f"{probe['url']} answered {answer}"
    if "contains" in probe and probe["contains"] not in answer.text:
        return f"{probe['url']} does not show {probe['contains'][:120]!r}"
    if "json" in probe:
        try:
            data = json.loads(answer.text)
        except ValueError:
            return f"{probe['url']} answered no JSON: {answer}"
        found = unlike(probe["json"], data, probe.get("only", False))
        if found:
            return f"{probe['url']}: {found}"
    if "metric" in probe:
        value = metric_value(answer.text, probe["metric"], probe.get("labels", {}))
        if value is None:
            return f"{probe['url']} has no metric {probe['metric']} {probe.get('labels') or ''}".rstrip()
        if "value" in probe and value != probe["value"]:
            return f"{probe['url']}: {probe['metric']} is {value:g}, expected {probe['value']:g}"
        if probe.get("changes") and before is not None and moving(probe, answer.text) == before:
            still = f"{before:g}" if isinstance(before, float) else f"that of {probe['changes']}={before}"
            return f"{probe['url']}: {probe['metric']} is still {still}"
    return ""
