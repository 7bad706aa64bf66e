# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A request signed with AWS signature 4, as object storage wants it. Standard library only."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any
from urllib.parse import parse_qsl, quote

from .keys import environment_values

Json = dict[str, Any]

EMPTY = hashlib.sha256(b"").hexdigest()


def headers(
    sign: Json, environment: str, method: str, host: str, path: str, query: str, now: float
) -> dict[str, str]:
    """Headers of a request without a body; C(sign) names the variables of a file of variables. KeyError when one is not there."""
    values = environment_values(environment)
    access, secret = values[sign["access_key"]], values[sign["secret_key"]]
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{moment[:8]}/{sign.get('region') or 'us-east-1'}/s3/aws4_request"
    signed = {"host": host, "x-amz-content-sha256": EMPTY, "x-amz-date": moment}
    pairs = sorted(
        (quote(key, "-_.~"), quote(value, "-_.~")) for key, value in parse_qsl(query, keep_blank_values=True)
    )
    names = ";".join(signed)
    canonical = "\n".join(
        [
            method,
            quote(path, "/-_.~%"),
            "&".join(f"{key}={value}" for key, value in pairs),
            *(f"{key}:{value}" for key, value in signed.items()),
            "",
            names,
            EMPTY,
        ]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return {
        **signed,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}",
    }
