# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The connection arguments that every module of the action group has (documented in doc_fragments/proxmox.py)."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .client import Settings
from .errors import Failed


def connection_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Their argument spec. ``env_fallback`` is Ansible's, which only modules may import."""

    def option(kind: str, variable: str, **rest: Any) -> dict[str, Any]:
        return {"type": kind, "fallback": (env_fallback, [variable]), **rest}

    return {
        "api_host": option("str", "PROXMOX_HOST"),
        "api_port": option("int", "PROXMOX_PORT", default=8006),
        "api_user": option("str", "PROXMOX_USER", default="root@pam"),
        "api_password": option("str", "PROXMOX_PASSWORD", no_log=True),
        "api_token_id": option("str", "PROXMOX_TOKEN_ID", no_log=False),
        "api_token_secret": option("str", "PROXMOX_TOKEN_SECRET", no_log=True),
        "validate_certs": option("bool", "PROXMOX_VALIDATE_CERTS", default=True),
        "ca_path": option("path", "PROXMOX_CA_PATH"),
        "timeout": option("int", "PROXMOX_API_TIMEOUT", default=60),
    }


def settings(params: Mapping[str, Any], deadlines: Mapping[str, int]) -> Settings:
    """What a client needs, from a module's parameters. Failed says what is missing. ``deadlines`` are in seconds."""
    user, token = str(params["api_user"] or ""), str(params["api_token_id"] or "")
    if "!" in token:
        user, _sign, token = token.partition("!")
    host = _host(str(params["api_host"] or ""))
    if params["validate_certs"] and params["ca_path"]:
        _require_authority(str(params["ca_path"]))
    if bool(token) != bool(params["api_token_secret"]):
        raise Failed("api_token_id and api_token_secret go together: set both, or use api_password")
    if not token and not params["api_password"]:
        raise Failed("no way to log in: set api_token_id and api_token_secret, or api_password")
    if "@" not in user:
        raise Failed(f"api_user {user!r} has no realm: write {user or 'root'}@pam")
    return Settings(
        host=host,
        port=int(params["api_port"]),
        user=user,
        password=str(params["api_password"] or ""),
        token_id=token,
        token_secret=str(params["api_token_secret"] or ""),
        validate_certs=bool(params["validate_certs"]),
        ca_path=str(params["ca_path"] or ""),
        timeout=int(params["timeout"]),
        deadlines=deadlines,
    )


def _host(text: str) -> str:
    """A name or an address. Failed when it is more than that, with what belongs where."""
    if not text:
        raise Failed("api_host is empty: set it, or PROXMOX_HOST in the environment")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare.partition("%")[0])) + "".join(bare.partition("%")[1:])
    except ValueError:
        pass
    match = re.fullmatch(
        r"(?:(?P<scheme>\w+)://)?(?P<name>\[[^\]]+\]|[^/:\s]+)(?::(?P<port>\d+))?(?P<path>/.*)?", text
    )
    if match is None:
        raise Failed(f"api_host: {text!r} is neither a host name nor an address")
    if match["scheme"] or match["port"] or match["path"]:
        port = f", and api_port: {match['port']}" if match["port"] else ""
        raise Failed(
            f"api_host: {text!r} is more than a host: write api_host: {match['name'].strip('[]')}{port}"
        )
    return text


def _require_authority(path: str) -> None:
    if Path(path).is_dir():
        return
    if not Path(path).is_file():
        raise Failed(
            f"ca_path: there is no file {path}: name the cluster's /etc/pve/pve-root-ca.pem, copied here, or leave it out"
        )
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise Failed(f"ca_path: {path} holds no certificate that can be read ({error})") from error
