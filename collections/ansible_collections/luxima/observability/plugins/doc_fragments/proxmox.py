# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How to reach Proxmox VE: the same options in every module of the action group C(proxmox)."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - proxmoxer >= 2.3
  - requests
options:
  api_host:
    description: Name or address of a node. Environment E(PROXMOX_HOST).
    type: str
  api_port:
    description: Port of the API. Environment E(PROXMOX_PORT).
    type: int
    default: 8006
  api_user:
    description: User with realm. Environment E(PROXMOX_USER).
    type: str
    default: root@pam
  api_password:
    description: Password of O(api_user), when no token is used. Environment E(PROXMOX_PASSWORD).
    type: str
  api_token_id:
    description: Name of an API token of O(api_user), or the whole C(user@realm!name). Environment E(PROXMOX_TOKEN_ID).
    type: str
  api_token_secret:
    description: Secret of the token. Environment E(PROXMOX_TOKEN_SECRET).
    type: str
  validate_certs:
    description: Whether the certificate of the API must be trusted. Environment E(PROXMOX_VALIDATE_CERTS).
    type: bool
    default: true
  ca_path:
    description: File with the authority that signed the certificate. Environment E(PROXMOX_CA_PATH).
    type: path
  timeout:
    description: Seconds one request may take. Environment E(PROXMOX_API_TIMEOUT).
    type: int
    default: 60
"""
