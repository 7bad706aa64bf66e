# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Backup jobs of the hypervisor: where the images of guests go, and what of them is copied twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .faults import Fault

VARIABLE = "guests_backup_jobs"
#: The storage that every node has from its installation, on its system disk.
SYSTEM = "local"


def check(
    listed: Any, values: Mapping[str, Mapping[str, Any]], groups: Mapping[str, list[str]]
) -> tuple[list[Fault], list[Fault]]:
    """Faults and risks. A system disk that fills up stops the node: refused where the environment is protected."""
    guests = [host for host in groups.get("guests", []) if host in values]
    if not isinstance(listed, (list, tuple)):
        return [], []
    jobs = [job for job in listed if isinstance(job, Mapping) and job.get("state", "present") == "present"]
    full = [
        Fault(
            VARIABLE,
            "",
            f"job {job.get('id')} writes to {job.get('storage') or SYSTEM!r}, the system disk of the nodes, which stop when it is "
            "full: name a storage of its own (a backup server, NFS, another disk)",
        )
        for job in jobs
        if (job.get("storage") or SYSTEM) == SYSTEM
    ]
    risks = list(_twice(jobs, values, guests, groups.get("backup", [])))
    protected = any(str(values[host].get("platform_protected")).lower() == "true" for host in guests)
    return (full, risks) if protected else ([], full + risks)


def _twice(
    jobs: list[Mapping[str, Any]],
    values: Mapping[str, Mapping[str, Any]],
    guests: list[str],
    copied: list[str],
) -> Iterator[Fault]:
    for job in jobs:
        both = [host for host in guests if host in copied and _saves(job, host, values[host])]
        if both:
            size = sum(int(values[host].get("guest_disk_gb") or 0) for host in both)
            yield Fault(
                VARIABLE,
                "",
                f"job {job.get('id')} saves images of {', '.join(both)} ({size} GB of disks), whose data group backup copies too: "
                "name the other guests in its `guests`, or `exclude` these with `all: true`",
            )


def _saves(job: Mapping[str, Any], host: str, values: Mapping[str, Any]) -> bool:
    if job.get("pool"):
        return str(values.get("guest_pool") or "") == str(job["pool"])
    names = {host, str(values.get("guest_vmid") or host)}
    if job.get("guests"):
        return bool(names & set(map(str, job["guests"])))
    return bool(job.get("all")) and not names & set(map(str, job.get("exclude") or []))
