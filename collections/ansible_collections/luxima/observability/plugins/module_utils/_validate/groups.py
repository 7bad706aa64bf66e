# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the groups of an inventory, and the tags of a run, must be like."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Mapping

from .faults import Fault

PHASES = ("validate", "provision", "artifacts", "retention", "verify")
_CORE_TAGS = ("all", "always", "never", "tagged", "untagged")
# Molecule skips these in every run, whether a task has them or not.
_MOLECULE_TAGS = ("notest", "molecule-notest", "molecule-idempotence-notest")


def selected(components: Iterable[str], run_tags: Iterable[str]) -> list[str]:
    """The components of a run: those its tags name, or all when they name none."""
    everything = list(components)
    named = set(run_tags)
    return [name for name in everything if name in named] or everything


def check_tags(components: Iterable[str], run_tags: Iterable[str], skip_tags: Iterable[str]) -> list[Fault]:
    """A tag nobody has would silently do nothing."""
    known = [*components, *PHASES, *_CORE_TAGS]
    faults = []
    for option, tags in (("--tags", run_tags), ("--skip-tags", skip_tags)):
        for tag in tags:
            if tag not in (*known, *_MOLECULE_TAGS):
                near = difflib.get_close_matches(tag, known, n=1)
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"known are {', '.join(known[: -len(_CORE_TAGS)])}"
                )
                faults.append(Fault(f"{option} {tag}", "", f"no component or phase has this tag; {hint}"))
    return faults


def check_requirements(
    groups: Mapping[str, list[str]],
    requirements: Mapping[str, Mapping[str, Iterable[str]]],
    components: Iterable[str],
    known: Container[str] = (),
) -> list[Fault]:
    """Groups with hosts whose needs, those of each host, have none. `known` are the variables that roles have."""
    found = []
    for name in components:
        elsewhere = f", or set {name}_s3_url" if f"{name}_s3_url" in known else ""
        for host in groups.get(name, []):
            for needed in requirements.get(host, {}).get(name, []):
                if not groups.get(needed):
                    text = f"has no host, but group {name} needs it; put a host into {needed}"
                    found.append(
                        Fault(f"group {needed}", host, text + (elsewhere if needed == "minio" else ""))
                    )
    return found


def check_single(
    groups: Mapping[str, list[str]], single: Iterable[str], components: Iterable[str]
) -> list[Fault]:
    """Servers that would work on the same objects without knowing of each other."""
    chosen = list(components)
    return [
        Fault(
            f"group {name}",
            host,
            f"has {len(groups[name])} hosts ({', '.join(sorted(groups[name]))}): each would compact and delete the same objects by "
            "itself, and what one has in memory the others do not find; leave one host in it",
        )
        for name in single
        if name in chosen and len(groups.get(name, [])) > 1
        for host in sorted(groups[name])
    ]


def check_members(
    groups: Mapping[str, list[str]], components: Iterable[str], reachable: Iterable[str]
) -> list[Fault]:
    """Hosts of component groups that nobody makes and that have no address: usually a misspelled name."""
    made = {*groups.get("guests", []), *groups.get("hypervisors", []), *reachable}
    faults = []
    for name in components:
        for host in groups.get(name, []):
            if host not in made:
                near = difflib.get_close_matches(host, sorted(made), n=1)
                hint = f"did you mean {near[0]}? Else put" if near else "put"
                faults.append(
                    Fault(
                        f"group {name}",
                        host,
                        f"the host is no guest, no hypervisor and has no ansible_host; {hint} it into group guests or set ansible_host",
                    )
                )
    return faults
