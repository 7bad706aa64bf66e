# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Debian packages this machine needs beyond a minimal installation, by purpose; the one place that names them.

``python -m lab.packages build containers`` installs what is missing of these purposes, and says which.
Standard library only: it runs before there is a virtual environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

#: purpose -> Debian package -> a file that says it is there.
PACKAGES = {
    # `make setup`
    "python": {"python3-venv": f"/usr/lib/python3.{sys.version_info[1]}/ensurepip/__init__.py"},
    # Artifacts built from source.
    "build": {
        "golang-1.19-go": "/usr/lib/go-1.19/bin/go",
        "gcc": "/usr/bin/gcc",
        "libc6-dev": "/usr/include/stdio.h",
        "libsystemd-dev": "/usr/include/systemd/sd-journal.h",
        "openssh-client": "/usr/bin/ssh",
    },
    "containers": {
        "lxc": "/usr/bin/lxc-start",
        "lxcfs": "/usr/bin/lxcfs",
        "mmdebstrap": "/usr/bin/mmdebstrap",
        "uidmap": "/usr/bin/newuidmap",
        "e2fsprogs": "/usr/sbin/resize2fs",
        "zstd": "/usr/bin/zstd",
        "openssh-client": "/usr/bin/ssh-keygen",
        "iproute2": "/usr/bin/ip",
    },
    "machines": {
        "qemu-system-x86": "/usr/bin/qemu-system-x86_64",
        "qemu-utils": "/usr/bin/qemu-img",
        "xorriso": "/usr/bin/xorriso",
        "mmdebstrap": "/usr/bin/mmdebstrap",
    },
    # A database that tests copy and restore.
    "tests": {"postgresql": "/usr/bin/pg_lsclusters"},
}


def missing(purposes: Iterable[str]) -> list[str]:
    """Packages of these purposes whose file is not there, in order and once each."""
    wanted = {name: path for purpose in purposes for name, path in PACKAGES[purpose].items()}
    return [name for name, path in wanted.items() if not Path(path).exists()]


def ensure(purposes: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Installs what is missing and returns it. RuntimeError with the way out where it cannot."""
    names = missing(purposes)
    if not names:
        return []
    if not Path("/usr/bin/apt-get").exists():
        raise RuntimeError(f"install these first (this is not Debian): {' '.join(names)}")
    if os.geteuid() != 0:
        raise RuntimeError(f"Debian packages are missing; run as root: apt-get install {' '.join(names)}")
    say(f"installing Debian packages: {' '.join(names)}")
    options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", *options, *names]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
    return names


def main(purposes: list[str]) -> int:
    unknown = [purpose for purpose in purposes if purpose not in PACKAGES]
    if unknown or not purposes:
        sys.stderr.write(f"name purposes of {', '.join(PACKAGES)}\n")
        return 2
    try:
        installed = ensure(purposes, print)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not installed:
        print("Debian packages: all there")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
