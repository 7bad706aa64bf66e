# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The only place that talks to object storage, through the server's own SDK."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from . import lifecycle
from .plan import Change, Present, Wanted

Json = dict[str, Any]
MISSING: str | None = None
try:
    import urllib3
    from minio import Minio
    from minio.commonconfig import ENABLED
    from minio.credentials.providers import StaticProvider
    from minio.error import InvalidResponseError, MinioAdminException, S3Error, ServerError
    from minio.helpers import md5sum_hash
    from minio.minioadmin import MinioAdmin
    from minio.sseconfig import Rule as EncryptionRule
    from minio.sseconfig import SSEConfig
    from minio.versioningconfig import SUSPENDED, VersioningConfig
except ImportError as error:
    MISSING = str(error)


def _attached(user: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(sorted(filter(None, str((user or {}).get("policyName", "")).split(","))))


_BAD_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch")


_HINTS = {
    **dict.fromkeys(_BAD_KEY, "; check minio_root_user and minio_root_password"),
    # What is stored is there, but its key is another one.
    "failed to decrypt": "; what is stored cannot be read: is minio_kms_secret_key the one it was written with? docs/secrets.md",
    "NotImplemented": "; encryption needs the server's key, minio_kms_secret_key",
}


@dataclass(frozen=True)
class Stored:
    """One object: its name, bytes, and the time (seconds) of its last change."""

    name: str
    size: int
    modified: float


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
        self._pool = self._http(timeout, trust)
        user, password = str(connection["username"]), str(connection["password"])
        self._client = self._as(user, password)
        self._admin = MinioAdmin(
            endpoint=self._endpoint,
            credentials=StaticProvider(user, password),
            region=self._region,
            secure=self._secure,
            http_client=self._http(timeout, trust, read=0),
        )

    @staticmethod
    def _http(timeout: float, trust: Mapping[str, Any], read: int | None = None) -> Any:
        return urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(timeout, 5), read=timeout),
            # A server that has just started answers 503 for a moment.
            retries=urllib3.Retry(total=4, connect=1, backoff_factor=0.2, status_forcelist=[503], read=read),
            cert_reqs="CERT_REQUIRED",
            **trust,
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
            hint = _HINTS.get(str(error.code), "")
            raise Refused(
                f"cannot {verb} {thing} on {self.url}: {error.code}: {error.message}{hint}"
            ) from error
        except (MinioAdminException, InvalidResponseError, ServerError, ValueError) as error:
            hint = next((words for text, words in _HINTS.items() if text in str(error)), "")
            raise Refused(f"cannot {verb} {thing} on {self.url}: {str(error).strip()}{hint}") from error

    def read(self, wanted: Sequence[Wanted]) -> dict[str, Present]:
        """The state of each bucket, by name, and of its key."""
        if not wanted:
            return {}
        with self._saying("read", f"bucket {wanted[0].name}"):
            # Asked with a body first: the answer to a HEAD request cannot say which credential is wrong.
            self._client.list_buckets()
        found = {want.name: self._bucket(want) for want in wanted}
        keys = [want for want in wanted if want.access_key]
        if keys:
            # Once for all keys: the answer is encrypted with a key that is slow to make on purpose.
            with self._saying("read", f"key {keys[0].access_key}"):
                policies = json.loads(self._admin.policy_list() or "{}")
                users = self._users()
            for want in keys:
                found[want.name] = self._with_key(want, found[want.name], users, policies)
        return found

    def _users(self) -> Json:
        """The server's users. It answers everything else while it has not read them, and about them nothing at all."""
        try:
            found: Json = json.loads(self._admin.user_list() or "{}")
        except urllib3.exceptions.HTTPError as error:
            if not isinstance(getattr(error, "reason", error), urllib3.exceptions.ReadTimeoutError):
                raise
            raise Refused(
                f"{self.url} serves objects, but says nothing about its users: it has not read them{_HINTS['failed to decrypt']}"
            ) from error
        return found

    def _bucket(self, want: Wanted) -> Present:
        with self._saying("read", f"bucket {want.name}"):
            exists = bool(self._client.bucket_exists(want.name))
            object_lock = exists and self._object_lock(want.name)
            versioning = exists and self._client.get_bucket_versioning(want.name).status == ENABLED
            anonymous = exists and self._anonymous(want.name)
            rules = self._rules(want.name) if exists else lifecycle.Rules()
            encryption = self._encryption(want.name) if exists else "none"
            quota = self._quota(want.name) if exists else 0
        return Present(
            exists=exists,
            object_lock=object_lock,
            versioning=versioning,
            anonymous=anonymous,
            rules=rules,
            encryption=encryption,
            quota=quota,
        )

    def _with_key(self, want: Wanted, here: Present, users: Json, policies: Json) -> Present:
        user = users.get(want.access_key)
        with self._saying("read", f"key {want.access_key}"):
            authenticates = user is not None and self._authenticates(want)
        return replace(
            here,
            policy=policies.get(want.policy_name),
            user=user is not None,
            user_enabled=(user or {}).get("status") == "enabled",
            attached=_attached(user),
            authenticates=authenticates,
            predecessors=tuple(
                sorted(
                    name
                    for name, one in users.items()
                    if name != want.access_key and _attached(one) == (want.policy_name,)
                )
            ),
        )

    def rules_of(self, bucket: str) -> lifecycle.Rules | None:
        """The lifecycle in force; None when there is no such bucket."""
        with self._saying("read", f"the lifecycle of bucket {bucket}"):
            self._client.list_buckets()
            return self._rules(bucket) if self._client.bucket_exists(bucket) else None

    def listed(self, bucket: str, prefix: str = "") -> Iterator[Stored]:
        """The objects below a prefix, their present versions."""
        with self._saying("list", f"bucket {bucket}"):
            for one in self._client.list_objects(bucket, prefix or None, recursive=True):
                modified = one.last_modified.timestamp() if one.last_modified else 0.0
                yield Stored(str(one.object_name), int(one.size or 0), modified)

    def replaced(self, bucket: str, prefix: str = "") -> Iterator[Stored]:
        """The versions below a prefix that are not the present ones; `modified` is when each was replaced."""
        with self._saying("list the versions", f"bucket {bucket}"):
            # The SDK gives versions first, then the marks of what was deleted.
            every = [
                Stored(
                    str(one.object_name),
                    int(one.size or 0),
                    one.last_modified.timestamp() if one.last_modified else 0.0,
                )
                for one in self._client.list_objects(
                    bucket, prefix or None, recursive=True, include_version=True
                )
            ]
        every.sort(key=lambda one: (one.name, -one.modified))
        for newer, one in itertools.pairwise(every):
            if newer.name == one.name:
                yield Stored(one.name, one.size, newer.modified)

    def content(self, bucket: str, name: str) -> bytes:
        """One object whole."""
        with self._saying("read", f"{name} in bucket {bucket}"):
            answer = self._client.get_object(bucket, name)
            try:
                return bytes(answer.read())
            finally:
                answer.close()
                answer.release_conn()

    def _rules(self, bucket: str) -> lifecycle.Rules:
        """Read as sent: the SDK's own classes drop what they do not know, and a foreign rule must survive whole."""
        try:
            answer = self._client._execute("GET", bucket, query_params={"lifecycle": ""})
        except S3Error as error:
            if error.code == "NoSuchLifecycleConfiguration":
                return lifecycle.Rules()
            raise
        return lifecycle.parse(answer.data.decode())

    def _write_rules(self, change: Change) -> None:
        # Read again: somebody may have added a rule of their own since the plan was made.
        rules = change.bucket.rules(self._rules(change.bucket.name))
        if not rules.ours and not rules.foreign:
            self._client.delete_bucket_lifecycle(change.bucket.name)
            return
        body = lifecycle.render(rules)
        self._client._execute(
            "PUT",
            change.bucket.name,
            body=body,
            headers={"Content-MD5": md5sum_hash(body)},
            query_params={"lifecycle": ""},
        )

    def _encryption(self, bucket: str) -> str:
        config = self._client.get_bucket_encryption(bucket)
        return str(config.rule.sse_algorithm) if config else "none"

    def _object_lock(self, bucket: str) -> bool:
        try:
            self._client.get_object_lock_config(bucket)
        except S3Error as error:
            if error.code == "ObjectLockConfigurationNotFoundError":
                return False
            raise
        return True

    def _write_encryption(self, want: Wanted) -> None:
        if want.encryption == "none":
            self._client.delete_bucket_encryption(want.name)
        else:
            self._client.set_bucket_encryption(want.name, SSEConfig(EncryptionRule.new_sse_s3_rule()))

    def _quota(self, bucket: str) -> int:
        answer = json.loads(self._admin.bucket_quota_get(bucket) or "{}")
        return int(answer.get("quota") or answer.get("size") or 0)

    def _write_quota(self, want: Wanted) -> None:
        if want.quota:
            self._admin.bucket_quota_set(want.name, want.quota)
        else:
            self._admin.bucket_quota_clear(want.name)

    def _retire_keys(self, change: Change) -> None:
        for name in change.have.predecessors:
            self._admin.user_remove(name)

    def _anonymous(self, bucket: str) -> bool:
        try:
            return bool(self._client.get_bucket_policy(bucket))
        except S3Error as error:
            if error.code == "NoSuchBucketPolicy":
                return False
            raise

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
            "create_bucket": lambda: self._client.make_bucket(want.name, self._region, want.object_lock),
            "set_versioning": lambda: self._client.set_bucket_versioning(
                want.name, VersioningConfig(ENABLED if want.versioning else SUSPENDED)
            ),
            "remove_anonymous_access": lambda: self._client.delete_bucket_policy(want.name),
            "set_encryption": lambda: self._write_encryption(want),
            "write_lifecycle": lambda: self._write_rules(change),
            "set_quota": lambda: self._write_quota(want),
            "write_policy": lambda: self._admin.policy_add(want.policy_name, policy=want.policy),
            "create_key": lambda: self._admin.user_add(want.access_key, want.secret_key),
            "replace_secret": lambda: self._admin.user_add(want.access_key, want.secret_key),
            "enable_key": lambda: self._admin.user_enable(want.access_key),
            "attach_policy": lambda: self._admin.policy_set(want.policy_name, user=want.access_key),
            "retire_keys": lambda: self._retire_keys(change),
        }
        thing = (
            f"key {want.access_key}"
            if "key" in change.verb or "secret" in change.verb
            else f"bucket {want.name}"
        )
        with self._saying(change.verb.replace("_", " "), f"({thing})"):
            verbs[change.verb]()
