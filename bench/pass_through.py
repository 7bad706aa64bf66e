#!/usr/bin/env python3
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Stands in for ssh and sftp: runs the real one and appends to $BENCH_BYTES how many bytes went through.

For sftp these are the bytes of the files it was told to put, for ssh those of its standard input.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path


def main() -> int:
    words = sys.argv[1:]
    batch = "-b" in words
    given = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    kind, size = ("sftp", 0) if batch else ("ssh", len(given))
    if batch:
        for name in re.findall(rb"^put (.+)$", given, re.MULTILINE):
            size += Path(shlex.split(name.decode())[0]).stat().st_size
    with Path(os.environ["BENCH_BYTES"]).open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(f"{kind} {size}\n")
    return subprocess.run([kind, *words], input=given, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
