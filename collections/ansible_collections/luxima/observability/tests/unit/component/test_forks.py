# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[7]
# What the variables of a role such as Prometheus' ask for; others of the same files come with those that are named in forks.py.
SCRIPT = """
from ansible.plugins.loader import PluginLoader, filter_loader, init_plugin_loader, lookup_loader, test_loader
init_plugin_loader()
from ansible_collections.luxima.observability.plugins.module_utils._artifacts import lock
from ansible_collections.luxima.observability.plugins.plugin_utils import forks
forks.prepare()
loads = []
kept = PluginLoader._load_module_source
PluginLoader._load_module_source = lambda self, *names, **more: loads.append(names) or kept(self, *names, **more)
for loader, name in (
    (filter_loader, "ansible.builtin.combine"),
    (filter_loader, "ansible.builtin.to_nice_yaml"),
    (filter_loader, "luxima.observability.retention_plan"),
    (test_loader, "ansible.builtin.search"),
    (lookup_loader, "ansible.builtin.env"),
):
    assert loader.get(name) is not None, name
print(loads, lock._load.cache_info().currsize)
"""


def test_a_fork_finds_everything_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=PROJECT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] 1\n", "")
