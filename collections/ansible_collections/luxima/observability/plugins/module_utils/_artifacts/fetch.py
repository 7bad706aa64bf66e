# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Downloads: resumed, watched for stalls, checked by digest."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import CHUNK, digest

ATTEMPTS = 3
PROBE_SECONDS = 5.0
_LINE = re.compile(r"^([0-9a-fA-F]{64})(?:\s+\*?(\S+))?\s*$")


class Unavailable(Exception):
    """This source cannot serve; the message says why and another source may be asked."""


class WrongDigest(Exception):
    """Content was served and is not what it should be: nobody else may be asked."""

    def __init__(self, what: str, url: str, expected: str, found: str, origin: str) -> None:
        super().__init__(
            f"{what}: wrong checksum of {url}: expected sha256 {expected} ({origin}), got sha256 {found}. "
            "Nothing was stored. If upstream replaced the file, find out why before changing the lock."
        )
        self.expected = expected
        self.found = found


class Client:
    """All HTTP of the artifact store. `timeout`: seconds without a byte until a transfer counts as stalled."""

    def __init__(self, timeout: float = 20.0) -> None:
        self.timeout = timeout

    def reachable(self, urls: Iterable[str]) -> dict[str, str]:
        """Hosts of `urls` that do not answer, with the reason. All asked at once, 5 s for all together.

        Any HTTP answer counts. A request rather than a connection, so that a proxy is asked too.
        """
        origins = {origin(url) for url in urls}
        silent = dict.fromkeys(origins, f"no answer within {PROBE_SECONDS:.0f} s")
        threads = [
            threading.Thread(target=self._probe, args=(o, silent), daemon=True) for o in sorted(origins)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + PROBE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return dict(silent)

    def _probe(self, base: str, silent: dict[str, str]) -> None:
        try:
            with urllib.request.build_opener(_Stay).open(
                _Ask(f"{base}/", method="HEAD"), timeout=PROBE_SECONDS
            ):
                silent.pop(base, None)
        except urllib.error.HTTPError:
            silent.pop(base, None)
        except (OSError, http.client.HTTPException, Unavailable) as error:
            silent[base] = reason(error)

    def text(self, url: str) -> str:
        """A small text. Raises Unavailable."""
        try:
            with urllib.request.build_opener().open(_Ask(url), timeout=self.timeout) as response:
                return bytes(response.read(CHUNK)).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{url}: {reason(error)}") from None

    def download(self, url: str, part: Path, moved: Callable[[int, int], None]) -> None:
        """Fetch `url` into `part`, going on where an earlier try ended. Raises Unavailable.

        `moved(bytes so far, bytes in all or 0)` is called as bytes arrive.
        """
        last = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(0.5 * attempt, self.timeout))
            try:
                self._attempt(url, part, moved)
                return
            except urllib.error.HTTPError as error:
                if error.code == 416:  # what we have is longer than what is served
                    _forget(part)
                elif error.code < 500 and error.code not in (408, 429):
                    raise Unavailable(f"{url}: {reason(error)}") from None
                last = reason(error)
            except (OSError, http.client.HTTPException) as error:
                last = reason(error)
        raise Unavailable(f"{url}: {last} ({ATTEMPTS} attempts)")

    def _attempt(self, url: str, part: Path, moved: Callable[[int, int], None]) -> None:
        have, validator = _resumable(part)
        headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
        with urllib.request.build_opener().open(_Ask(url, headers=headers), timeout=self.timeout) as response:
            resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            if not resumed:
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else 0
            part.parent.mkdir(parents=True, exist_ok=True)
            _remember(part, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            with part.open("ab" if resumed else "wb") as handle:
                while chunk := response.read1(CHUNK):
                    handle.write(chunk)
                    have += len(chunk)
                    moved(have, total)
        if total and have < total:
            raise OSError(f"truncated: {have} of {total} bytes")

    def fetch(
        self,
        what: str,
        url: str,
        part: Path,
        expected: str,
        origin_of_digest: str,
        moved: Callable[[int, int], None],
    ) -> str:
        """Download and check; returns the SHA-256. `expected` empty: nothing to compare with.

        Raises Unavailable, or WrongDigest when a whole download (not a resumed one) is not the expected file.
        """
        resumed = part.exists()
        self.download(url, part, moved)
        found = digest(part)
        if expected and found != expected and resumed:
            # The two halves may stem from different files.
            _forget(part)
            self.download(url, part, moved)
            found = digest(part)
        if expected and found != expected:
            _forget(part)
            raise WrongDigest(what, url, expected, found, origin_of_digest)
        _note(part).unlink(missing_ok=True)
        return found


def published(text: str, file: str) -> str:
    """The SHA-256 of `file` in a list as sha256sum writes it, or in a file that holds one digest; else ''."""
    bare = ""
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if not match:
            continue
        name = match.group(2)
        if name is None:
            bare = match.group(1).lower()
        elif name.rsplit("/", 1)[-1] == file:
            return match.group(1).lower()
    return bare


def origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def part_of(folder: Path, url: str) -> Path:
    """Where the bytes of `url` gather: the same name in every run, so that a later one can go on."""
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"


def reason(error: Exception) -> str:
    """Why a request failed, in the server's or the system's words, without Python's."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "stalled: no bytes within the time-out"
    return str(getattr(inner, "strerror", None) or inner)


class _Ask(urllib.request.Request):
    """A request that is HTTP and nothing else: urllib would read local files too."""

    def __init__(self, url: str, method: str = "GET", headers: dict[str, str] | None = None) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise Unavailable(f"{url}: not an http or https address")
        super().__init__(
            url, method=method, headers={"User-Agent": "luxima.observability", **(headers or {})}
        )


class _Stay(urllib.request.HTTPRedirectHandler):
    """An answer that points elsewhere is an answer."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _note(part: Path) -> Path:
    return part.with_suffix(".note")


def _remember(part: Path, validator: str) -> None:
    _note(part).write_text(json.dumps(validator))


def _resumable(part: Path) -> tuple[int, str]:
    """Bytes already there and what tells that the file on the server is still the same; 0 when unknown."""
    with contextlib.suppress(OSError, ValueError):
        validator = json.loads(_note(part).read_text())
        # A weak ETag may not be used with If-Range.
        if validator and not validator.startswith("W/"):
            return part.stat().st_size, validator
    return 0, ""


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
