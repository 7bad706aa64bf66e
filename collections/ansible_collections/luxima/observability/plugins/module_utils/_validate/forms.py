# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The forms that servers ask of values, and which variable has which. Types are the argument specs'; these are what a type cannot say.

A form is a function from a value to what is wrong with it, empty when nothing is. Nothing given is never wrong here: what is
required says so in the argument specs.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .faults import Fault

Form = Callable[[Any], str]

_GO_DURATION = re.compile(r"0|(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_DURATION = re.compile(r"0|(?=\d)(?:\d+y)?(?:\d+w)?(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?(?:\d+ms)?")
_GO_BYTES = re.compile(r"off|\d+(?:B|[KMGT]iB)?")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOURS = {"d": 24, "w": 7 * 24, "y": 365 * 24}


def duration_go(value: Any) -> str:
    """Go's own: no days."""
    text = str(value)
    if _GO_DURATION.fullmatch(text):
        return ""
    long = re.fullmatch(r"(\d+)([dwy])", text)
    hint = f"{int(long[1]) * _HOURS[long[2]]}h" if long else "90s, 15m or 48h"
    return f"{text!r} is no duration for this server, which counts in h, m, s and ms; write {hint}"


def duration_prometheus(value: Any) -> str:
    """Prometheus' and that of Loki's limits: whole numbers, the larger unit first, days and weeks too."""
    if _DURATION.fullmatch(str(value)):
        return ""
    return f"{str(value)!r} is no duration; write whole numbers with their units, the larger first: 30s, 1h30m or 7d"


def duration_common(value: Any) -> str:
    """Read by servers of both kinds."""
    return duration_prometheus(value) or duration_go(value)


def go_bytes(value: Any) -> str:
    """GOMEMLIMIT: a process with another spelling does not start."""
    if _GO_BYTES.fullmatch(str(value)):
        return ""
    return f"{str(value)!r} is no amount of memory in Go's spelling; write for example 512MiB or 2GiB, or nothing for no limit"


def go_gc(value: Any) -> str:
    return "" if re.fullmatch(r"off|\d+", str(value)) else f"{str(value)!r} is neither a percentage nor off"


def port(value: Any) -> str:
    text = str(value)
    return "" if text.isdigit() and 0 < int(text) < 65536 else f"{text!r} is no port; ports are 1 to 65535"


def positive(value: Any) -> str:
    text = str(value)
    return "" if text.isdigit() and int(text) > 0 else f"{text!r} must be a whole number above 0"


def none_or_more(value: Any) -> str:
    number = int(value) if re.fullmatch(r"-?\d+", str(value)) else -1
    return "" if number >= 0 else f"{value!r} must be a whole number, 0 when it is not known"


def url(value: Any) -> str:
    """The base of a server's addresses."""
    text = str(value)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{text!r} is no URL: {error}"
    if parts.scheme not in ("http", "https"):
        return f"{text!r} has no scheme; write http://{text.partition('://')[2] or text} or https://…"
    if not host:
        return f"{text!r} names no host; write for example {parts.scheme}://192.0.2.10:9000"
    if parts.username or parts.query or parts.fragment:
        return f"{text!r} has more than scheme, host, port and path; names and passwords have variables of their own"
    return ""


def origin(value: Any) -> str:
    """A server whose requests are signed together with their path: nothing may stand before it."""
    told = url(value)
    if not told and urlsplit(str(value)).path not in ("", "/"):
        return f"{str(value)!r} has a path, but requests to object storage are signed with theirs; give the server a name or a port of its own"
    return told


def path(value: Any) -> str:
    """A path in front of everything that a server serves."""
    text = str(value)
    if re.fullmatch(r"(?:/[A-Za-z0-9_.~-]+)+", text):
        return ""
    return f"{text!r} is no path of this kind; begin with a slash and end without one: /prometheus"


def listen_address(value: Any) -> str:
    text = str(value)
    if _is_address(text.strip("[]")):
        return ""
    if _NAME.fullmatch(text) and not text.replace(".", "").isdigit():
        return ""
    return f"{text!r} is no address to listen on; write an address without port or scheme, 0.0.0.0 for all"


def own_address(value: Any) -> str:
    """Where the parts of one server listen for each other, and call."""
    text = str(value).strip("[]")
    if _is_address(text) and ipaddress.ip_address(text).is_unspecified:
        return f"{str(value)!r} is every address, and its parts cannot call each other there; write 127.0.0.1, or an address of the host"
    return listen_address(value)


def own_address_v4(value: Any) -> str:
    """Of a server whose ring calls over IPv4 whatever it listens on."""
    if ":" in str(value):
        return f"{str(value)!r} is of IPv6, and its parts call each other over IPv4; write 127.0.0.1, which stays on the host"
    return own_address(value)


def address(value: Any) -> str:
    text = str(value)
    return "" if _is_address(text) else f"{text!r} is no address; a name does not do here"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def bucket(value: Any) -> str:
    text = str(value)
    if _BUCKET.fullmatch(text) and ".." not in text:
        return ""
    return f"{text!r} is no name of a bucket; 3 to 63 lower-case letters, digits, hyphens and dots"


def date(value: Any) -> str:
    if isinstance(value, datetime.date):
        return ""
    try:
        datetime.date.fromisoformat(str(value))
    except ValueError:
        return f"{str(value)!r} is no date; write for example 2026-01-31 in quotes"
    return ""


def length(least: int, most: int, noun: str) -> Form:
    """The value is never shown: most of these are secrets."""

    def check(value: Any) -> str:
        count = len(str(value))
        if least <= count <= most:
            return ""
        return f"has {count} characters; {noun} has {least} to {most}"

    return check


def kms_key(value: Any) -> str:
    """32 bytes as they are, or a name and 32 bytes in base64."""
    text = str(value)
    name, colon, key = text.partition(":")
    if not colon:
        return "" if len(text.encode()) == 32 else f"has {len(text.encode())} bytes; a key has 32"
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        return "has no base64 after its name; write <name>:<32 bytes in base64>"
    return "" if name and size == 32 else f"has a key of {size} bytes; it must be 32"


def environment(value: Any) -> str:
    """What Go's runtime reads; the other variables are the server's own."""
    for key, form in (("GOMEMLIMIT", go_bytes), ("GOGC", go_gc)):
        if isinstance(value, Mapping) and value.get(key) not in ("", None):
            told = form(value[key])
            if told:
                return f"{key}: {told}"
    return ""


def urls(value: Any) -> str:
    return next((told for told in map(url, value) if told), "") if isinstance(value, list) else ""


def connections(value: Any) -> str:
    """Lists of {url, …}."""
    found = value if isinstance(value, list) else [value]
    return next((told for one in found if isinstance(one, Mapping) and (told := url(one.get("url", "")))), "")


def target(value: Any) -> str:
    """Where jobs write: a directory, or a bucket of an S3 server."""
    if not isinstance(value, Mapping) or not value or value.get("directory"):
        return ""
    lacking = [key for key in ("url", "bucket", "access_key") if not value.get(key)]
    if lacking:
        return (
            f"has no {lacking[0]}; write {{directory: /path}}, or url, bucket and access_key of an S3 server"
        )
    return origin(value["url"]) or bucket(value["bucket"])


# The first pattern that fits a variable's whole name decides.
ATTACHED: tuple[tuple[re.Pattern[str], Form], ...] = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        (r"platform_scrape_interval", duration_common),
        (r"\w+_ready_timeout", positive),
        (r"prometheus_\w+_(?:interval|timeout)", duration_prometheus),
        (r"loki_reject_older_than|loki_max_query_length", duration_prometheus),
        (r"loki_\w+_(?:interval|period|age)", duration_go),
        (r"tempo_\w+_(?:period|duration|retention)", duration_go),
        (r"alertmanager_data_retention|promtail_journal_max_age|minio_incomplete_upload_expiry", duration_go),
        (r"cadvisor_housekeeping_interval|platform_retention_deletion_delay", duration_go),
        (r"(?:loki|tempo)_\w+_(?:mb|bytes)|loki_max_(?:streams|entries)", positive),
        (r"platform_memory_mb", none_or_more),
        (r"\w+_memory_limit", go_bytes),
        (r"\w+_environment", environment),
        (r"\w+_port", port),
        (r"(?:loki|tempo)_s3_url|minio_url", origin),
        (r"(?!platform_artifact)\w+_url", url),
        (r"(?:loki_alertmanager|tempo_remote_write)_urls", urls),
        (r"(?:prometheus|alertmanager|loki|blackbox_exporter|grafana)_path", path),
        (r"grafana_(?:prometheus|loki|tempo|alertmanager)|prometheus_alertmanagers|promtail_clients", connections),
        (r"tempo_grpc_listen_address", own_address_v4),
        (r"loki_grpc_listen_address", own_address),
        (r"\w+_listen_address|tempo_receiver_address", listen_address),
        (r"alertmanager_cluster_advertise_address", address),
        (r"\w+_bucket", bucket),
        (r"\w+_target", target),
        (r"loki_schema_from", date),
        (r"minio_root_user", length(3, 128, "the administrator's name")),
        (r"minio_root_password", length(8, 128, "the administrator's password")),
        (r"minio_kms_secret_key", kms_key),
        # Other servers than MinIO have longer ones; what MinIO asks of its own is a relation.
        (r"\w+_s3_access_key", length(3, 128, "an access key")),
        (r"\w+_s3_secret_key", length(8, 128, "the secret of an access key")),
    )
)  # fmt: skip


def form_of(name: str) -> Form | None:
    """The form of a variable's value; None for any."""
    return next((form for pattern, form in ATTACHED if pattern.fullmatch(name)), None)


def check(name: str, value: Any, host: str, secret: bool) -> list[Fault]:
    """What is wrong with the form of a value. A secret is never shown."""
    form = form_of(name)
    if form is None or value in ("", None):
        return []
    told = form(value)
    if told and secret and str(value) in told:
        told = "has not the form that the server asks for; the value is secret and not shown"
    return [Fault(name, host, told)] if told else []
