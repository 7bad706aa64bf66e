# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Builds the Galaxy artifact: the collection, the roles, the playbooks and the lock file in one tree.

``python tests/build_collection.py FOLDER`` writes ``FOLDER/luxima-observability-<version>.tar.gz``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections" / "ansible_collections" / "luxima" / "observability"


def build(target: Path) -> Path:
    """Builds into ``target`` and returns the path of the artifact."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "observability"
        shutil.copytree(COLLECTION, tree, ignore=ignore)
        for folder in ("roles", "playbooks", "components"):
            shutil.copytree(ROOT / folder, tree / folder, ignore=ignore)
        # Inside a collection playbooks are siblings of the site.
        site = (ROOT / "site.yml").read_text().replace("import_playbook: playbooks/", "import_playbook: ")
        (tree / "playbooks" / "site.yml").write_text(site)
        for name in ("README.md", "CHANGELOG.md", "LICENSE"):
            shutil.copy(ROOT / name, tree / name)
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["ansible-galaxy", "collection", "build", str(tree), "--output-path", str(target), "--force"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=scratch,
        )
    (artifact,) = target.glob("luxima-observability-*.tar.gz")
    return artifact


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(build(Path(sys.argv[1]).absolute()))
