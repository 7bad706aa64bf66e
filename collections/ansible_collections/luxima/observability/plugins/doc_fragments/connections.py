# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How to reach the platform's servers: the variables C(<component>_connection) of the inventory, as modules take them."""

from __future__ import annotations

_CONNECTION = """
      url: {description: Base URL., type: str, required: true}
      ca_file: {description: CA certificates to trust; empty for the system's own., type: str, default: ""}
      client_cert: {description: Client certificate file., type: str, default: ""}
      client_key: {description: Key of the client certificate., type: str, default: ""}
      username: {description: User for basic authentication., type: str, default: ""}
      password: {description: Password for basic authentication., type: str, default: ""}
      tenant: {description: Sent as C(X-Scope-OrgID)., type: str, default: ""}"""
_SERVERS = f"""
options:
  %s:
    description: Connections, one per server of the group.
    type: list
    elements: dict
    default: []
    suboptions:{_CONNECTION}
"""
_STORAGE = """
      url: {description: "Address of the S3 API, for example C(http://192.0.2.10:9000).", type: str, required: true}
      region: {description: Region the server reports., type: str, default: us-east-1}
      ca_file: {description: CA certificates to trust; empty for the system's own., type: str, default: ""}
      username: {description: Root user of the server., type: str, required: true}
      password: {description: Password of the root user., type: str, required: true}"""


class ModuleDocFragment:
    PROMETHEUS = _SERVERS % "prometheus"
    ALERTMANAGER = _SERVERS % "alertmanager"
    LOKI = _SERVERS % "loki"
    GRAFANA = _SERVERS % "grafana"
    TEMPO = f"""{_SERVERS % "tempo"}
      otlp_http_url: {{description: Base URL of OTLP over HTTP; only who sends traces needs it., type: str, default: ""}}
      otlp_grpc_endpoint: {{description: Host and port of OTLP over gRPC; only who sends traces needs it., type: str, default: ""}}
"""
    STORAGE = f"""
options:
  connection:
    description: The administrator's connection to object storage.
    type: dict
    required: true
    suboptions:{_STORAGE}
"""
    MINIO = f"""
options:
  minio:
    description: Administrator's connections of the object storage servers, each with its buckets.
    type: list
    elements: dict
    default: []
    suboptions:{_STORAGE}
      buckets:
        description: The buckets with a lifecycle of ours.
        type: list
        elements: dict
        default: []
        suboptions:
          name: {{description: Name of the bucket., type: str, required: true}}
          consumer:
            description: Who reads it; a rule of somebody else on the bucket of V(loki) or V(tempo) is measured against their periods.
            type: str
          lifecycle:
            description: The rules, as M(luxima.observability.bucket) takes them. Without any the bucket is not looked at.
            type: list
            elements: dict
"""
