# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of object storage: what Loki and Tempo keep is in their buckets, readable by their own keys."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from .._servers.client import Client, tls_context
from .model import Check, NotYet, Wanted, Wrong

# Objects a server writes when it starts; they do not show that data arrives.
_SEEDS = ("loki_cluster_seed.json", "tempo_cluster_seed.json")
# Loki and Tempo take this long (seconds) between two requests to write what they hold in memory.
_FLUSH_EVERY = 5.0
_LISTED = 1000


def checks(wanted: Wanted) -> list[Check]:
    if not wanted.minio:
        return []
    found = []
    for bucket in wanted.buckets:
        consumer = str(bucket.get("consumer") or "")
        servers = (
            [Client(connection) for connection in wanted.of(consumer)]
            if consumer in ("loki", "tempo")
            else []
        )
        found.append(
            Check(
                "buckets",
                f"{bucket['name']} of {consumer or 'nobody'}",
                frozenset({"minio", consumer} - {""}),
                Objects(wanted, bucket, servers).run,
                f"journalctl -u {consumer or 'minio'} on its host names the refused request; bucket and key come from `platform_buckets`",
            )
        )
    return found


class Objects:
    """Looks into one bucket; in active mode asks its servers first to write what they hold."""

    def __init__(self, wanted: Wanted, bucket: Mapping[str, Any], servers: list[Client]) -> None:
        self._wanted = wanted
        self._bucket = bucket
        # Where the consumer was not selected, nothing was sent to it that it could write.
        sent = not wanted.components or str(bucket.get("consumer") or "") in wanted.components
        self._servers = servers if wanted.active and sent else []
        self._flushed = 0.0

    def run(self) -> str:
        consumer, name = str(self._bucket.get("consumer") or ""), str(self._bucket["name"])
        if self._servers and time.monotonic() - self._flushed > _FLUSH_EVERY:
            for server in self._servers:
                server.text("/flush", method="POST", timeout=30)
            self._flushed = time.monotonic()
        keys = list(itertools.islice(self._keys(name), _LISTED))
        data = [key for key in keys if not key.endswith(_SEEDS)]
        if data:
            count = f"{len(data)}" if len(keys) < _LISTED else f"at least {len(data)}"
            return f"{count} objects, first {data[0]}"
        if not self._servers:
            return f"readable with its key; no object yet: {consumer or 'its consumer'} writes after its own delay (verify in active mode asks for it)"
        raise NotYet(
            f"no object of {consumer} in bucket {name}, although it was asked to write (POST /flush)"
        )

    def _keys(self, name: str) -> Iterator[str]:
        try:
            import urllib3
            from minio import Minio
            from minio.error import MinioException, S3Error
        except ImportError as error:
            raise Wrong(
                f"looking into buckets needs the Python package minio on the controller ({error}); install requirements.txt"
            ) from error
        minio = self._wanted.minio
        place = urlsplit(str(minio["url"]))
        secure = place.scheme == "https"
        trust: dict[str, Any] = {"ssl_context": tls_context(minio)} if secure else {}
        client = Minio(
            place.netloc,
            access_key=str(self._bucket["access_key"]),
            secret_key=str(self._bucket["secret_key"]),
            region=str(minio.get("region") or "us-east-1"),
            secure=secure,
            http_client=urllib3.PoolManager(timeout=10.0, retries=False, **trust),
        )
        try:
            for found in client.list_objects(name, recursive=True):
                yield str(found.object_name)
        except S3Error as error:
            # The right key of a bucket that exists: neither comes by waiting.
            raise Wrong(
                f"{error.code}: {error.message} (bucket {name}, key {self._bucket['access_key']})"
            ) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NotYet(f"{minio['url']} does not answer: {error}") from error
