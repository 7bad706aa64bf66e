# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A Proxmox VE in small on this machine.

usage: python -m lab up [--vms] [--templates] | down | status | inventory | fault [NAME [key=value ...]] [--off]

--vms installs qemu and builds the disk of virtual machines now, and not when the first one is cloned.
--templates builds the container templates that few need too: debian-12-postgresql.
fault makes the hypervisor misbehave as real ones do, until it has happened or --off; without NAME it lists what is on.
Faults: slow-clone, slow-task, task-warnings, storage-lock, file-lock, quota-full, volume-left, task-error,
deaf, drop-reply, no-reply, expired-ticket, lock-held, dead-node,
silent-statd, normalise.
"""

from __future__ import annotations

import json
import sys


def main(words: list[str]) -> int:
    if words == ["inventory"]:
        from lab import instance

        print(json.dumps(instance.inventory(instance.load()), indent=1))
        return 0
    from lab import commands
    from lab.errors import LabError

    try:
        if words[:1] == ["up"] and set(words[1:]) <= {"--vms", "--templates"}:
            return commands.up(vms="--vms" in words, rare="--templates" in words)
        if words == ["down"]:
            return commands.down()
        if words == ["status"]:
            return commands.status()
        if words[:1] == ["fault"]:
            return commands.fault(words[1:])
        if len(words) == 2 and words[0] == "serve":
            return commands.serve(words[1])
    except (LabError, RuntimeError) as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("lab: interrupted; `up` or `down` cleans what is there\n")
        return 130
    sys.stderr.write((__doc__ or "").strip() + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
