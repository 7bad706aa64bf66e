# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the controller's first process does once, so that its forks, one for every task on every host, need not."""

from __future__ import annotations

import contextlib
import gc

from ansible.plugins.loader import filter_loader, lookup_loader, test_loader
from ansible_collections.luxima.observability.plugins.module_utils._artifacts import lock, store

# Of each file of plugins that the roles' variables use, one.
PLUGINS = (
    (filter_loader, "ansible.builtin.combine"),
    (filter_loader, "luxima.observability.retention_plan"),
    (filter_loader, "luxima.observability.log_scrapes"),
    (filter_loader, "luxima.observability.hostport"),
    (test_loader, "ansible.builtin.match"),
    (lookup_loader, "ansible.builtin.env"),
    (lookup_loader, "luxima.observability.together"),
)


def prepare() -> None:
    """Loads what nearly every task works with: the plugins of its variables, and the lock file of the project."""
    for loader, name in PLUGINS:
        loader.get(name)
    with contextlib.suppress(lock.LockError):
        lock.load(store.default_lock_file())


def share() -> None:
    """Whatever is loaded by now is no garbage; looking through it would copy it into each fork."""
    gc.freeze()
