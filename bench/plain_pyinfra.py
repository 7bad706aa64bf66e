# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The same work as plain.yml for pyinfra, in places of its own; what each host runs is in its data."""

from __future__ import annotations

import io

from pyinfra import host
from pyinfra.operations import files, server, systemd

COMPONENTS = {
    "minio": (2, 1),
    "loki": (2, 1),
    "tempo": (1, 1),
    "prometheus": (4, 8),
    "alertmanager": (4, 5),
    "grafana": (10, 4),
    "blackbox_exporter": (2, 1),
    "node_exporter": (2, 2),
    "cadvisor": (2, 1),
    "promtail": (3, 2),
    "retention": (1, 3),
    "backup": (1, 3),
}
UNIT = """[Unit]
Description=Plain {name}
[Service]
User=plain-p-{name}
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""

# All components in one order for all hosts: pyinfra puts operations in the order of their lines and loops.
for name in host.loop(list(COMPONENTS)):
    if name not in host.data.get("components"):
        continue
    directories, configurations = COMPONENTS[name]
    user, base = f"plain-p-{name}", f"/var/lib/plain/p-{name}"
    server.group(name=f"{name}: group", group=user, system=True)
    server.user(name=f"{name}: user", user=user, group=user, system=True, create_home=False)
    for number in host.loop(range(directories)):
        files.directory(name=f"{name}: directory {number}", path=f"{base}/{number}", user=user, mode="755")
    for number in host.loop(range(configurations)):
        text = f"# {name}, {number}\n" + "".join(f"key_{line}: value {line}\n" for line in range(60))
        files.put(
            name=f"{name}: configuration {number}",
            src=io.StringIO(text),
            dest=f"{base}/{number}.conf",
            user="root",
            group=user,
            mode="640",
        )
    files.put(
        name=f"{name}: unit",
        src=io.StringIO(UNIT.format(name=name)),
        dest=f"/etc/systemd/system/{user}.service",
        mode="644",
    )
    systemd.service(name=f"{name}: service", service=f"{user}.service", running=True, enabled=True)
