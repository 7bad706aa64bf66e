# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""An S3 server, as far as jobs need it: signed requests (AWS signature 4) with retries. Safe to share between threads."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import random
import ssl
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from .errors import Gone, JobError

ATTEMPTS = 6
TIMEOUT = 60.0


@dataclass(frozen=True)
class Object:
    """One listed object; `modified` in seconds since 1970, by the server's clock."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def quote(text: str, safe: str = "") -> str:
    return urllib.parse.quote(text, safe=safe + "-_.~")


class S3:
    """`connection`: url and access_key; region, ca_file, path_style (true), encryption (AES256 or aws:kms) and kms_key where they are needed."""

    def __init__(self, connection: Mapping[str, Any], secret_key: str) -> None:
        self.url = str(connection["url"]).rstrip("/")
        place = urllib.parse.urlsplit(self.url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise JobError(
                f"{self.url!r} is no URL of an S3 server; write for example https://192.0.2.10:9000"
            )
        self._secure = place.scheme == "https"
        self._host, self._port = place.hostname, place.port or (443 if self._secure else 80)
        default = 443 if self._secure else 80
        self._suffix = "" if self._port == default else f":{self._port}"
        # Otherwise the bucket is part of the host's name.
        self._path_style = bool(connection.get("path_style", True))
        self._encryption = _encryption(connection)
        self._access = str(connection["access_key"])
        self._secret = secret_key
        self._region = str(connection.get("region") or "us-east-1")
        self._trust = (
            ssl.create_default_context(cafile=connection.get("ca_file") or None) if self._secure else None
        )
        self._local = threading.local()

    # Requests

    def _placed(self, path: str) -> tuple[str, str]:
        """Host and path of what a client of the other style calls /<bucket>/<key>."""
        if self._path_style or path == "/":
            return self._host, path
        bucket, _, key = path[1:].partition("/")
        return f"{bucket}.{self._host}", f"/{key}"

    def _connections(self) -> dict[str, http.client.HTTPConnection]:
        """Of this thread, by host."""
        found: dict[str, http.client.HTTPConnection] = self._local.__dict__.setdefault("connections", {})
        return found

    def _connection(self, host: str) -> http.client.HTTPConnection:
        known = self._connections()
        if host not in known:
            if self._secure:
                known[host] = http.client.HTTPSConnection(
                    host, self._port, timeout=TIMEOUT, context=self._trust
                )
            else:
                known[host] = http.client.HTTPConnection(host, self._port, timeout=TIMEOUT)
        return known[host]

    def _drop(self, host: str) -> None:
        found = self._connections().pop(host, None)
        if found is not None:
            found.close()

    def _signed(
        self, method: str, host: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        given = {
            **{key.lower(): value for key, value in headers.items()},
            "host": (f"[{host}]" if ":" in host else host) + self._suffix,
            "x-amz-date": now,
            "x-amz-content-sha256": digest,
        }
        names = ";".join(sorted(given))
        lines = "".join(f"{key}:{' '.join(given[key].split())}\n" for key in sorted(given))
        request = "\n".join([method, path, query, lines, names, digest])
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = b"AWS4" + self._secret.encode()
        for part in (now[:8], self._region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        given["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._access}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return given

    def _once(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        host, path = self._placed(path)
        connection = self._connection(host)
        try:
            target = f"{path}?{query}" if query else path
            connection.request(method, target, body, self._signed(method, host, path, query, headers, body))
            response = connection.getresponse()
            found = Answer(
                response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
            )
        except (OSError, http.client.HTTPException):
            self._drop(host)
            raise
        if response.will_close:
            self._drop(host)
        return found

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """The answer of a request that was done. Raises Gone for 404, else JobError; what may pass is tried again."""
        encoded = "&".join(f"{quote(key)}={quote(value)}" for key, value in sorted((query or {}).items()))
        where = f"{method} {self.url}{path}"
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(0.25 * 2**attempt, 5) * (0.5 + random.SystemRandom().random() / 2))
            try:
                answer = self._once(method, path, encoded, headers or {}, body)
            except ssl.SSLCertVerificationError as error:
                raise JobError(f"{where}: the certificate is not trusted: {error.verify_message}") from None
            except (OSError, http.client.HTTPException) as error:
                why = str(error) or type(error).__name__
                continue
            if answer.status < 300:
                return answer
            code = _code(answer.body)
            if answer.status == 404:
                raise Gone(f"{where}: {code or 'not found'}")
            why = f"{answer.status} {code}".strip()
            if answer.status < 500 and answer.status not in (408, 409, 429):
                break
        raise JobError(f"{where}: {why}")

    # Buckets and objects

    def _path(self, bucket: str, key: str = "") -> str:
        return f"/{quote(bucket)}/{quote(key, '/')}" if key else f"/{quote(bucket)}"

    def now(self) -> float:
        """The server's clock; seconds since 1970."""
        stamp = self.request("GET", "/").headers.get("date", "")
        return parsedate_to_datetime(stamp).timestamp() if stamp else time.time()

    def buckets(self) -> list[str]:
        found = _tree(self.request("GET", "/").body)
        return sorted(
            _text(one, "Name") for one in found.iter() if one.tag.endswith("}Bucket") or one.tag == "Bucket"
        )

    def make_bucket(self, bucket: str) -> None:
        self.request("PUT", self._path(bucket))

    def objects(self, bucket: str, prefix: str = "") -> Iterator[Object]:
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        while True:
            page = _tree(self.request("GET", self._path(bucket), query).body)
            for one in page:
                if one.tag.rpartition("}")[2] == "Contents":
                    stamp = datetime.fromisoformat(_text(one, "LastModified").replace("Z", "+00:00"))
                    key = urllib.parse.unquote_plus(_text(one, "Key"))
                    yield Object(
                        key, int(_text(one, "Size")), _text(one, "ETag").strip('"'), stamp.timestamp()
                    )
            more = _text(page, "NextContinuationToken")
            if not more:
                return
            query["continuation-token"] = more

    def get(self, bucket: str, key: str, start: int = 0, size: int = 0, etag: str = "") -> Answer:
        """An object, or `size` bytes of it; with `etag` only while it is that content. Raises Gone."""
        headers = {"range": f"bytes={start}-{start + size - 1}"} if size else {}
        if etag:
            headers["if-match"] = f'"{etag}"'
        try:
            return self.request("GET", self._path(bucket, key), headers=headers)
        except JobError as error:
            if ": 412" in str(error):
                raise Gone(f"{bucket}/{key} was replaced while it was read") from None
            raise

    def put(self, bucket: str, key: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.request(
            "PUT", self._path(bucket, key), headers={**self._encryption, **(headers or {})}, body=body
        )

    def put_parts(self, bucket: str, key: str, parts: Iterator[bytes], headers: Mapping[str, str]) -> None:
        """One object of several parts; all but the last are at least 5 MiB."""
        path = self._path(bucket, key)
        given = {**self._encryption, **headers}
        upload = _text(_tree(self.request("POST", path, {"uploads": ""}, given).body), "UploadId")
        try:
            done = ElementTree.Element("CompleteMultipartUpload")
            for number, part in enumerate(parts, 1):
                query = {"partNumber": str(number), "uploadId": upload}
                answer = self.request("PUT", path, query, body=part)
                entry = ElementTree.SubElement(done, "Part")
                ElementTree.SubElement(entry, "PartNumber").text = str(number)
                ElementTree.SubElement(entry, "ETag").text = answer.headers["etag"]
            answer = self.request("POST", path, {"uploadId": upload}, body=ElementTree.tostring(done))
            if _code(answer.body):
                raise JobError(f"{self.url}{path}: {_code(answer.body)}")
        except BaseException:
            self.request("DELETE", path, {"uploadId": upload})
            raise

    def delete(self, bucket: str, key: str) -> None:
        self.request("DELETE", self._path(bucket, key))


def _encryption(connection: Mapping[str, Any]) -> dict[str, str]:
    """What asks the server to encrypt what it stores; nothing leaves it to the bucket."""
    kind = str(connection.get("encryption") or "")
    if kind not in ("", "AES256", "aws:kms"):
        raise JobError(f"encryption: {kind!r} is not known; write AES256, aws:kms or nothing")
    key = str(connection.get("kms_key") or "")
    found = {"x-amz-server-side-encryption": kind} if kind else {}
    return (
        {**found, "x-amz-server-side-encryption-aws-kms-key-id": key} if kind == "aws:kms" and key else found
    )


def _tree(body: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError as error:
        raise JobError(f"that is no answer of an S3 server: {error}") from None


def _text(node: ElementTree.Element, name: str) -> str:
    for one in node:
        if one.tag.rpartition("}")[2] == name:
            return one.text or ""
    return ""


def _code(body: bytes) -> str:
    """Code and message of an error document; empty for anything else."""
    try:
        node = ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError:
        return ""
    if node.tag.rpartition("}")[2] != "Error":
        return ""
    return f"{_text(node, 'Code')}: {_text(node, 'Message')}"
