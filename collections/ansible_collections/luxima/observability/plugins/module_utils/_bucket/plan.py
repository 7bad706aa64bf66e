# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What has to change so that the buckets are as wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """One bucket and the key of its consumer. `versioning` None leaves it as it is."""

    name: str
    access_key: str
    secret_key: str
    versioning: bool | None = None

    @property
    def policy_name(self) -> str:
        return f"bucket-{self.name}"

    @property
    def policy(self) -> Policy:
        """What a store of logs or traces does with its bucket, and nothing beside it."""
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                    "Resource": [f"arn:aws:s3:::{self.name}"],
                },
                {
                    "Effect": "Allow",
                    "Action": [
                        "s3:AbortMultipartUpload",
                        "s3:DeleteObject",
                        "s3:GetObject",
                        "s3:ListMultipartUploadParts",
                        "s3:PutObject",
                    ],
                    "Resource": [f"arn:aws:s3:::{self.name}/*"],
                },
            ],
        }


@dataclass(frozen=True)
class Present:
    """What the server has. `authenticates`: the wanted secret is the stored one."""

    exists: bool = False
    versioning: bool = False
    anonymous: bool = False
    policy: Policy | None = None
    user: bool = False
    user_enabled: bool = False
    attached: tuple[str, ...] = ()
    authenticates: bool = False


@dataclass(frozen=True)
class Change:
    """One call to make. `verb` is one of the writer's; `bucket` says for which bucket."""

    verb: str
    bucket: Wanted


def plan(wanted: Sequence[Wanted], present: Mapping[str, Present]) -> list[Change]:
    """The calls, in an order in which each finds what it needs."""
    changes: list[Change] = []
    for want in wanted:
        have = present.get(want.name, Present())
        verbs: list[str] = []
        if not have.exists:
            verbs.append("create_bucket")
        if want.versioning is not None and want.versioning != have.versioning:
            verbs.append("set_versioning")
        if have.anonymous:
            verbs.append("remove_anonymous_access")
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
        changes.extend(Change(verb, want) for verb in verbs)
    return changes


def view(want: Wanted, have: Present) -> dict[str, Any]:
    """What a diff shows of one bucket; never a secret."""
    return {
        "bucket": "present" if have.exists else "absent",
        "versioning": have.versioning,
        "anonymous_access": have.anonymous,
        "policy": _normal(have.policy),
        "key": ("enabled" if have.user_enabled else "disabled") if have.user else "absent",
        "secret": "as wanted" if have.authenticates else "another (secret)",
        "attached": list(have.attached),
    }


def after(want: Wanted, have: Present) -> Present:
    """The state that the plan leads to."""
    return Present(
        exists=True,
        versioning=have.versioning if want.versioning is None else want.versioning,
        anonymous=False,
        policy=want.policy,
        user=True,
        user_enabled=True,
        attached=(want.policy_name,),
        authenticates=True,
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
            elif value not in ("", None, {}):
                entry[key] = value
        statements.append(entry)
    return {
        "Version": policy.get("Version"),
        "Statement": sorted(statements, key=lambda entry: str(entry.get("Resource"))),
    }
