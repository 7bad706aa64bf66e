# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The only place that talks to object storage, through the server's own SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from .plan import Change, Present, Wanted

MISSING: str | None = None
try:
    import urllib3
    from minio import Minio
    from minio.commonconfig import ENABLED
    from minio.credentials.providers import StaticProvider
    from minio.error import InvalidResponseError, MinioAdminException, S3Error, ServerError
    from minio.minioadmin import MinioAdmin
    from minio.versioningconfig import SUSPENDED, VersioningConfig
except ImportError as error:
    MISSING = str(error)

_BAD_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch")


class Unreachable(Exception):
    """Nobody answers at the address."""


class Refused(Exception):
    """The server answered no; the message names object, verb, the server's words and the way out."""


class Server:
    """One MinIO server, seen by its administrator."""

    def __init__(self, connection: Mapping[str, Any], timeout: float) -> None:
        self.url = str(connection["url"])
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.netloc or address.path not in ("", "/"):
            raise Refused(
                f"connection.url: {self.url!r} must be http://host:port or https://host:port (minio_url)"
            )
        self._endpoint, self._secure = address.netloc, address.scheme == "https"
        self._region = str(connection.get("region") or "us-east-1")
        trust = {"ca_certs": connection["ca_file"]} if connection.get("ca_file") else {}
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(timeout, 5), read=timeout),
            # A server that has just started answers 503 for a moment.
            retries=urllib3.Retry(total=4, connect=1, backoff_factor=0.2, status_forcelist=[503]),
            cert_reqs="CERT_REQUIRED",
            **trust,
        )
        user, password = str(connection["username"]), str(connection["password"])
        self._client = self._as(user, password)
        self._admin = MinioAdmin(
            endpoint=self._endpoint,
            credentials=StaticProvider(user, password),
            region=self._region,
            secure=self._secure,
            http_client=self._pool,
        )

    def _as(self, access_key: str, secret_key: str) -> Any:
        return Minio(
            self._endpoint,
            access_key=access_key,
            secret_key=secret_key,
            region=self._region,
            secure=self._secure,
            http_client=self._pool,
        )

    @contextmanager
    def _saying(self, verb: str, thing: str) -> Iterator[None]:
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{self.url} does not answer: {error}") from error
        except S3Error as error:
            hint = "; check minio_root_user and minio_root_password" if error.code in _BAD_KEY else ""
            raise Refused(
                f"cannot {verb} {thing} on {self.url}: {error.code}: {error.message}{hint}"
            ) from error
        except (MinioAdminException, InvalidResponseError, ServerError, ValueError) as error:
            raise Refused(f"cannot {verb} {thing} on {self.url}: {error}") from error

    def read(self, want: Wanted) -> Present:
        """The state of one bucket and its key."""
        with self._saying("read", f"bucket {want.name}"):
            # Asked with a body first: the answer to a HEAD request cannot say which credential is wrong.
            self._client.list_buckets()
            exists = bool(self._client.bucket_exists(want.name))
            versioning = exists and self._client.get_bucket_versioning(want.name).status == ENABLED
            anonymous = exists and self._anonymous(want.name)
        with self._saying("read", f"key {want.access_key}"):
            user = self._user(want.access_key)
            policy = self._policy(want.policy_name)
        attached = tuple(sorted(filter(None, str((user or {}).get("policyName", "")).split(","))))
        return Present(
            exists=exists,
            versioning=versioning,
            anonymous=anonymous,
            policy=policy,
            user=user is not None,
            user_enabled=(user or {}).get("status") == "enabled",
            attached=attached,
            authenticates=user is not None and self._authenticates(want),
        )

    def _anonymous(self, bucket: str) -> bool:
        try:
            return bool(self._client.get_bucket_policy(bucket))
        except S3Error as error:
            if error.code == "NoSuchBucketPolicy":
                return False
            raise

    def _user(self, access_key: str) -> dict[str, Any] | None:
        users: dict[str, dict[str, Any]] = json.loads(self._admin.user_list() or "{}")
        return users.get(access_key)

    def _policy(self, name: str) -> dict[str, Any] | None:
        policies: dict[str, dict[str, Any]] = json.loads(self._admin.policy_list() or "{}")
        return policies.get(name)

    def _authenticates(self, want: Wanted) -> bool:
        """Whether the server takes the secret; being denied everything still means that it does."""
        try:
            self._as(want.access_key, want.secret_key).bucket_exists(want.name)
        except S3Error as error:
            # A HEAD request has no body: the code of a wrong secret arrives as a bare 403.
            if error.code in _BAD_KEY:
                return False
            if error.code == "AccessDenied":
                return self._signature_accepted(want)
            raise
        return True

    def _signature_accepted(self, want: Wanted) -> bool:
        try:
            list(self._as(want.access_key, want.secret_key).list_objects(want.name))
        except S3Error as error:
            return error.code not in _BAD_KEY
        return True

    def apply(self, change: Change) -> None:
        """Makes one change of the plan."""
        want = change.bucket
        verbs: dict[str, Callable[[], Any]] = {
            "create_bucket": lambda: self._client.make_bucket(want.name, self._region),
            "set_versioning": lambda: self._client.set_bucket_versioning(
                want.name, VersioningConfig(ENABLED if want.versioning else SUSPENDED)
            ),
            "remove_anonymous_access": lambda: self._client.delete_bucket_policy(want.name),
            "write_policy": lambda: self._admin.policy_add(want.policy_name, policy=want.policy),
            "create_key": lambda: self._admin.user_add(want.access_key, want.secret_key),
            "replace_secret": lambda: self._admin.user_add(want.access_key, want.secret_key),
            "enable_key": lambda: self._admin.user_enable(want.access_key),
            "attach_policy": lambda: self._admin.policy_set(want.policy_name, user=want.access_key),
        }
        thing = (
            f"key {want.access_key}"
            if "key" in change.verb or "secret" in change.verb
            else f"bucket {want.name}"
        )
        with self._saying(change.verb.replace("_", " "), f"({thing})"):
            verbs[change.verb]()
