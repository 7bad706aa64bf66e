# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One bucket of an S3 server, with requests signed by its key (AWS Signature Version 4)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from .errors import JobError

_TRIES = 4


class Bucket:
    """`target`: url, region, ca_file, bucket, access_key."""

    def __init__(self, target: Mapping[str, Any], secret_key: str) -> None:
        self._place = urllib.parse.urlsplit(str(target["url"]))
        if self._place.scheme not in ("http", "https") or not self._place.hostname:
            raise JobError(
                f"{target['url']!r} is no URL of an S3 server; write for example https://192.0.2.10:9000"
            )
        self._region = str(target.get("region") or "us-east-1")
        self._bucket, self._access = str(target["bucket"]), str(target["access_key"])
        self._secret = secret_key
        self._ca_file = str(target.get("ca_file") or "") or None

    def put(self, name: str, content: bytes) -> None:
        self._request("PUT", name, body=content)

    def get(self, name: str) -> bytes:
        return self._request("GET", name)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Name and size of everything below a prefix."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        while True:
            page = ElementTree.fromstring(self._request("GET", "", query))  # noqa: S314
            space = page.tag.partition("}")[0] + "}" if "}" in page.tag else ""
            for one in page.findall(f"{space}Contents"):
                key = urllib.parse.unquote_plus(one.findtext(f"{space}Key") or "")
                yield key, int(one.findtext(f"{space}Size") or 0)
            more = page.findtext(f"{space}NextContinuationToken")
            if not more:
                return
            query["continuation-token"] = more

    def _request(
        self, method: str, name: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> bytes:
        for last in range(_TRIES):
            try:
                status, answer = self._once(method, name, query or {}, body)
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, str(error).encode()
            if 200 <= status < 300:
                return answer
            # A server that starts, or is busy for a moment.
            if (status and status < 500) or last == _TRIES - 1:
                break
            time.sleep(2**last)
        words = " ".join(answer.decode(errors="replace").split())[:300]
        place = f"{self._place.geturl().rstrip('/')}/{self._bucket}/{name}"
        raise JobError(f"{method} {place} answers {status}: {words}" if status else f"{place}: {words}")

    def _once(self, method: str, name: str, query: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        path = urllib.parse.quote(f"/{self._bucket}/{name}" if name else f"/{self._bucket}", safe="/-_.~")
        search = "&".join(
            f"{urllib.parse.quote(key, safe='-_.~')}={urllib.parse.quote(query[key], safe='-_.~')}"
            for key in sorted(query)
        )
        headers = self._signed(method, path, search, body)
        timeout, place = 60.0, self._place
        connection: http.client.HTTPConnection
        if place.scheme == "https":
            trust = ssl.create_default_context(cafile=self._ca_file)
            connection = http.client.HTTPSConnection(
                str(place.hostname), place.port, timeout=timeout, context=trust
            )
        else:
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=timeout)
        try:
            connection.request(method, f"{path}?{search}" if search else path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _signed(self, method: str, path: str, search: str, body: bytes) -> dict[str, str]:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {
            "host": self._place.netloc,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": moment,
        }
        names = ";".join(sorted(headers))
        told = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = "\n".join([method, path, search, told, names, headers["x-amz-content-sha256"]])
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{self._secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        )
        return headers
