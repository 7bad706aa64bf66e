# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a hardened service sees of the paths it is given, and which of them keep nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# Hidden by ProtectHome=yes and by PrivateTmp=yes.
HOMES = ("/home", "/root", "/run/user")
TEMPORARY = tuple(f"/{name}" for name in ("tmp", "var/tmp"))
# Emptied at boot or by the clock, or not on a disk at all; and the engine's own.
FLEETING = (*TEMPORARY, "/run", "/var/run", "/dev", "/proc", "/sys")
OWN = "/opt/luxima"


def below(path: str, folders: Iterable[str]) -> str:
    """The folder of these that the path is, or lies below; empty when there is none."""
    return next((folder for folder in folders if path == folder or path.startswith(f"{folder}/")), "")


def unfit(path: str) -> str:
    """Why nothing can be kept at an absolute path; empty when it can."""
    fleeting = below(path, FLEETING)
    if fleeting:
        return f"lies below {fleeting}, which does not outlive a reboot; choose a directory on a disk, such as /var/lib or /srv"
    if below(path, [OWN]):
        return f"lies below {OWN}, where releases come and go; choose another directory, such as /var/lib or /srv"
    return ""


def fixed_part(pattern: str) -> str:
    """The folder of a pattern of files that is the same for all of them."""
    words = []
    for word in pattern.split("/"):
        if any(char in word for char in "*?[{"):
            break
        words.append(word)
    return "/".join(words)
