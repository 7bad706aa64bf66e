# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What has to change so that the buckets are as wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .lifecycle import Rule, Rules

Policy = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """One bucket and the key of its consumer. None leaves a property as it is; no access_key, no consumer.

    `quota` in bytes, 0 for none. `encryption` AES256 or none.
    """

    name: str
    access_key: str = ""
    secret_key: str = ""
    prefix: str = ""
    versioning: bool | None = None
    lifecycle: tuple[Rule, ...] | None = None
    replace_foreign_rules: bool = False
    encryption: str | None = None
    quota: int | None = None
    retire_keys: bool = False
    key_deletes: bool = True
    object_lock: bool = False

    @property
    def policy_name(self) -> str:
        return f"bucket-{self.name}"

    @property
    def policy(self) -> Policy:
        """What a store of logs or traces does with its bucket, and nothing beside it."""
        listing: Policy = {
            "Effect": "Allow",
            # The server refuses a prefix as a condition of listing uploads.
            "Action": ["s3:ListBucket"]
            if self.prefix
            else ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": [f"arn:aws:s3:::{self.name}"],
        }
        if self.prefix:
            listing["Condition"] = {"StringLike": {"s3:prefix": [f"{self.prefix}*"]}}
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetBucketLocation"],
                    "Resource": [f"arn:aws:s3:::{self.name}"],
                },
                listing,
                {
                    "Effect": "Allow",
                    "Action": [
                        "s3:AbortMultipartUpload",
                        *(["s3:DeleteObject"] if self.key_deletes else []),
                        "s3:GetObject",
                        "s3:ListMultipartUploadParts",
                        "s3:PutObject",
                        *(["s3:PutObjectRetention"] if self.object_lock else []),
                    ],
                    "Resource": [f"arn:aws:s3:::{self.name}/{self.prefix}*"],
                },
            ],
        }

    def rules(self, have: Rules) -> Rules:
        """The rules that the bucket is to have, given those it has."""
        foreign = () if self.replace_foreign_rules else have.foreign
        return Rules(have.ours if self.lifecycle is None else self.lifecycle, foreign)


@dataclass(frozen=True)
class Present:
    """What the server has. `authenticates`: the wanted secret is the stored one; `predecessors`: other keys with the bucket's policy."""

    exists: bool = False
    object_lock: bool = False
    versioning: bool = False
    anonymous: bool = False
    rules: Rules = field(default_factory=Rules)
    encryption: str = "none"
    quota: int = 0
    policy: Policy | None = None
    user: bool = False
    user_enabled: bool = False
    attached: tuple[str, ...] = ()
    authenticates: bool = False
    predecessors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """One call to make. `verb` is one of the writer's; `bucket` says for which bucket, `have` what it was planned for."""

    verb: str
    bucket: Wanted
    have: Present


def plan(wanted: Sequence[Wanted], present: Mapping[str, Present]) -> list[Change]:
    """The calls, in an order in which each finds what it needs."""
    changes: list[Change] = []
    for want in wanted:
        have = present.get(want.name, Present())
        verbs = _bucket_verbs(want, have) + (_key_verbs(want, have) if want.access_key else [])
        changes.extend(Change(verb, want, have) for verb in verbs)
    return changes


def _bucket_verbs(want: Wanted, have: Present) -> list[str]:
    verbs: list[str] = []
    if not have.exists:
        verbs.append("create_bucket")
    # A bucket that is made with an object lock keeps versions from the beginning.
    made_versioned = want.object_lock and not have.exists
    if want.versioning is not None and want.versioning != (have.versioning or made_versioned):
        verbs.append("set_versioning")
    if want.encryption is not None and want.encryption != have.encryption:
        verbs.append("set_encryption")
    if want.rules(have.rules) != have.rules:
        verbs.append("write_lifecycle")
    if want.quota is not None and want.quota != have.quota:
        verbs.append("set_quota")
    if have.anonymous:
        verbs.append("remove_anonymous_access")
    return verbs


def _key_verbs(want: Wanted, have: Present) -> list[str]:
    verbs: list[str] = []
    if _normal(have.policy) != _normal(want.policy):
        verbs.append("write_policy")
    if not have.user:
        verbs.append("create_key")
    elif not have.user_enabled:
        verbs.append("enable_key")
    # A disabled key cannot be tried, so its secret is written again as well.
    if have.user and not have.authenticates:
        verbs.append("replace_secret")
    if have.attached != (want.policy_name,):
        verbs.append("attach_policy")
    if want.retire_keys and have.predecessors:
        verbs.append("retire_keys")
    return verbs


def view(want: Wanted, have: Present) -> dict[str, Any]:
    """What a diff shows of one bucket; never a secret."""
    shown: dict[str, Any] = {
        "bucket": "present" if have.exists else "absent",
        "object_lock": have.object_lock,
        "versioning": have.versioning,
        "encryption": have.encryption,
        "quota_bytes": have.quota,
        "lifecycle": [one.words() for one in have.rules.ours],
        "foreign_rules": [one.words() for one in have.rules.foreign],
        "anonymous_access": have.anonymous,
    }
    if want.access_key:
        shown |= {
            "policy": _normal(have.policy),
            "key": ("enabled" if have.user_enabled else "disabled") if have.user else "absent",
            "secret": "as wanted" if have.authenticates else "another (secret)",
            "attached": list(have.attached),
            "former_keys": list(have.predecessors),
        }
    return shown


def after(want: Wanted, have: Present) -> Present:
    """The state that the plan leads to."""
    made = replace(
        have,
        exists=True,
        object_lock=have.object_lock or want.object_lock,
        versioning=(have.versioning or want.object_lock) if want.versioning is None else want.versioning,
        anonymous=False,
        rules=want.rules(have.rules),
        encryption=have.encryption if want.encryption is None else want.encryption,
        quota=have.quota if want.quota is None else want.quota,
    )
    if not want.access_key:
        return made
    return replace(
        made,
        policy=want.policy,
        user=True,
        user_enabled=True,
        attached=(want.policy_name,),
        authenticates=True,
        predecessors=() if want.retire_keys else have.predecessors,
    )


def _normal(policy: Policy | None) -> Any:
    """Servers keep neither the order of actions nor whether a single value was a list."""
    if policy is None:
        return None
    statements = []
    for statement in policy.get("Statement", []):
        entry: dict[str, Any] = {}
        for key, value in statement.items():
            if key in ("Action", "Resource"):
                entry[key] = sorted([value] if isinstance(value, str) else value)
            elif key == "Condition":
                entry[key] = {
                    operator: {
                        name: sorted([values] if isinstance(values, str) else values)
                        for name, values in tests.items()
                    }
                    for operator, tests in (value or {}).items()
                }
                if not entry[key]:
                    del entry[key]
            elif value not in ("", None, {}):
                entry[key] = value
        statements.append(entry)
    return {
        "Version": policy.get("Version"),
        "Statement": sorted(statements, key=lambda entry: (str(entry.get("Resource")), str(entry))),
    }
