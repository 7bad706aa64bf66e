# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Container templates: built once by mmdebstrap, kept by the hash of their recipe, shared by all checkouts."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import host, instance
from lab.errors import LabError

SUITE = "bookworm"
IDMAP_START, IDMAP_SIZE = 100000, 65536
_KEEP_DAYS = 60

PACKAGES = (
    "ca-certificates",
    "cron",
    "curl",
    "dbus",
    "gzip",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libpam-systemd",
    "logrotate",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "rsyslog",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tar",
    "tzdata",
    "udev",
)

# Runs on this machine with the new root in $1.
_CUSTOMIZE = r"""
set -eu
root=$1
for unit in sys-kernel-debug.mount sys-kernel-config.mount sys-kernel-tracing.mount systemd-udevd.service \
  systemd-udev-trigger.service getty@tty1.service console-getty.service apt-daily.timer apt-daily-upgrade.timer \
  dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# systemd wants cpu and cpuacct joined; where the machine has them apart it mounts neither.
cat >"$root/usr/local/sbin/lab-cgroup-cpu" <<'END'
#!/bin/sh
set -eu
# mount(8) would repeat the owner of the mount, which means nothing inside a user namespace.
remount() {
  mount -t tmpfs --options-mode ignore --options-source disable \
    -o "remount,$1,nosuid,nodev,noexec,mode=755,size=4m,nr_inodes=1k" tmpfs /sys/fs/cgroup
}
cd /sys/fs/cgroup
for controller in cpu cpuacct; do
  grep -qE "^[0-9]+:([a-z_,]*,)?$controller(,[a-z_,]*)?:" /proc/self/cgroup || exit 0
  [ -e "$controller/tasks" ] && continue
  remount rw
  [ -L "$controller" ] && rm "$controller"
  mkdir -p "$controller"
  mount -t cgroup -o "nosuid,nodev,noexec,$controller" cgroup "/sys/fs/cgroup/$controller"
done
remount ro
END
chmod 755 "$root/usr/local/sbin/lab-cgroup-cpu"
cat >"$root/etc/systemd/system/lab-cgroup-cpu.service" <<'END'
[Unit]
Description=Mount the cpu and cpuacct controllers
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target
ConditionPathIsDirectory=/sys/fs/cgroup/systemd

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-cgroup-cpu

[Install]
WantedBy=sysinit.target
END
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf ../lab-cgroup-cpu.service "$root/etc/systemd/system/sysinit.target.wants/"

mkdir -p "$root/var/log/journal" "$root/root/.ssh"
chmod 700 "$root/root/.ssh"
# A container has no kernel log of its own.
sed -i '/imklog/s/^/#/' "$root/etc/rsyslog.conf"
echo 'UseDNS no' >"$root/etc/ssh/sshd_config.d/lab.conf"
if [ -d "$root/usr/share/docker.io" ] || [ -e "$root/usr/bin/dockerd" ]; then
  mkdir -p "$root/etc/docker"
  echo '{"storage-driver": "overlay2", "exec-opts": ["native.cgroupdriver=cgroupfs"]}' >"$root/etc/docker/daemon.json"
fi
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
"""


@dataclass(frozen=True)
class Template:
    """One template; its file name is what the API shows."""

    file: str
    packages: tuple[str, ...] = ()
    # Built only when asked for: few need it.
    rare: bool = False

    @property
    def key(self) -> str:
        recipe = "\n".join([SUITE, *PACKAGES, *self.packages, _CUSTOMIZE])
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    @property
    def directory(self) -> Path:
        return instance.cache_directory() / "templates" / f"{self.file.split('.tar')[0]}-{self.key}"

    @property
    def archive(self) -> Path:
        return self.directory / self.file

    def golden(self, unprivileged: bool) -> Path:
        """An ext4 image of the unpacked template, with files owned as such a guest sees them."""
        return self.directory / f"golden-{IDMAP_START if unprivileged else 0}.img"

    @property
    def lock(self) -> Path:
        return instance.cache_directory() / "locks" / f"{self.directory.name}.lock"

    @property
    def mountpoint(self) -> Path:
        return Path("/run") / f"lab-template-{self.directory.name}"

    @property
    def complete(self) -> bool:
        return all(path.exists() for path in (self.archive, self.golden(True), self.golden(False)))


# What tar unpacks an archive with, by its ending.
_PACKERS = {"zst": "--zstd", "gz": "--gzip", "xz": "--xz", "bz2": "--bzip2"}

TEMPLATES = (
    Template("debian-12-standard_12.12-1_amd64.tar.zst"),
    Template("debian-12-docker_12-1_amd64.tar.zst", ("docker.io", "iptables", "apparmor")),
    Template("debian-12-postgresql_15-1_amd64.tar.zst", ("postgresql",), rare=True),
)


@dataclass(frozen=True)
class Uploaded(Template):
    """A template that a client put on a storage; what was unpacked of it is kept by its content."""

    path: Path = Path()
    content: str = ""

    @property
    def key(self) -> str:
        return self.content[:12]

    @property
    def archive(self) -> Path:
        return self.path


def uploaded(path: Path) -> Uploaded:
    with path.open("rb") as stream:
        return Uploaded(path.name, path=path, content=hashlib.file_digest(stream, "sha256").hexdigest())


def find(file: str) -> Template:
    return next(template for template in TEMPLATES if template.file == file)


def debian_sources() -> str:
    """This machine's own Debian archive when it has one for the suite; nothing leaves the choice to mmdebstrap."""
    listing = host.run(
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)",
        "Identifier: Packages",
        check=False,
    )
    found = []
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 4 and words[3] == "Debian" and words[2] == "main" and words[1].startswith(SUITE):
            entry = f"deb {words[0]} {words[1]} main"
            if entry not in found:
                found.append(entry)
    return "\n".join(found) + "\n" if any(f" {SUITE} " in entry for entry in found) else ""


def bootstrap(name: str, target: Path, packages: tuple[str, ...], customize: Path, *hooks: str) -> None:
    """A Debian root file system as an archive, of which `name` is made; hooks are further customize hooks."""
    sources = debian_sources()
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--aptopt=APT::Install-Recommends false",
        "--include=" + ",".join(packages),
        f'--customize-hook=sh {shlex.quote(str(customize))} "$1"',
        *(f"--customize-hook={hook}" for hook in hooks),
        SUITE,
        str(target),
        *(["-"] if sources else []),
    ]
    done = subprocess.run(
        command,
        input=sources or None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.startswith("E:")]
        raise LabError(f"mmdebstrap could not build {name}: " + " | ".join(lines[-4:] or ["no reason given"]))


def _build_archive(template: Template, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="lab-template-") as scratch:
        script = Path(scratch) / "customize.sh"
        script.write_text(_CUSTOMIZE, encoding="utf-8")
        partial = template.directory / f".{secrets.token_hex(4)}.tar.zst"
        try:
            bootstrap(template.file, partial, (*PACKAGES, *template.packages), script)
            partial.chmod(0o644)
            partial.replace(template.archive)
        finally:
            partial.unlink(missing_ok=True)
    say(f"{template.file}: {template.archive.stat().st_size >> 20} MB")


def _build_golden(template: Template, unprivileged: bool) -> None:
    target = template.golden(unprivileged)
    partial = template.directory / f".{target.name}"
    # Not in the cache: mapped users must be able to reach it.
    point = template.mountpoint
    point.mkdir(exist_ok=True)
    with partial.open("wb") as stream:
        stream.truncate(4 << 30)
    lazy = "lazy_itable_init=1,lazy_journal_init=1"
    host.run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=32", "-E", lazy, partial)
    host.run("mount", "-o", "loop", partial, point)
    try:
        packer = _PACKERS[template.file.rsplit(".", 1)[-1]]
        unpack = ["tar", packer, "-xpf", "-", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        unpack += ["--exclude=./dev/*", "-C", str(point)]
        if unprivileged:
            # Unpacked inside such a user namespace the owners come out right by themselves.
            os.chown(point, IDMAP_START, IDMAP_START)
            mapping = f"0:{IDMAP_START}:{IDMAP_SIZE}"
            unpack = ["lxc-usernsexec", "-m", f"u:{mapping}", "-m", f"g:{mapping}", "--", *unpack]
        with template.archive.open("rb") as stream:
            done = subprocess.run(unpack, stdin=stream, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"unpacking {template.file}: " + " | ".join(done.stderr.strip().splitlines()[-3:]))
    finally:
        host.run("umount", point)
    point.rmdir()
    host.run("e2fsck", "-fy", partial, check=False)
    # The smaller the image, the faster a guest is made of it.
    host.run("resize2fs", "-M", partial)
    host.run("e2fsck", "-fy", partial, check=False)
    partial.replace(target)


def _clean(template: Template) -> list[str]:
    """Remove what a killed build left; the caller holds the template's lock."""
    removed = []
    for point in host.mounts_below(template.mountpoint):
        host.run("umount", point)
        removed.append(f"mount {point}")
    if template.mountpoint.is_dir():
        template.mountpoint.rmdir()
    for partial in template.directory.glob(".*"):
        partial.unlink()
        removed.append(f"half-built {partial}")
    return removed


def clean() -> list[str]:
    """Remove what killed builds left, unless somebody is building now; what was removed, in words."""
    removed = []
    for template in TEMPLATES:
        if template.directory.exists():
            with host.locked(template.lock, wait=False) as mine:
                removed += _clean(template) if mine else []
    return removed


def ensure(template: Template, say: Callable[[str], None], kinds: tuple[bool, ...] = (True, False)) -> bool:
    """Build what is missing of a template for unprivileged guests, others or both; whether anything was."""

    def complete() -> bool:
        return template.archive.exists() and all(template.golden(kind).exists() for kind in kinds)

    if complete():
        os.utime(template.directory)
        return False
    say(f"{template.file}: building (once per machine, about a minute)")
    with host.locked(template.lock):
        if complete():
            return False
        template.directory.mkdir(parents=True, exist_ok=True)
        _clean(template)
        if not template.archive.exists():
            _build_archive(template, say)
        for unprivileged in kinds:
            if not template.golden(unprivileged).exists():
                _build_golden(template, unprivileged)
        # What a recipe of long ago left behind; a younger one may be another checkout's.
        for old in template.directory.parent.iterdir():
            if time.time() - old.stat().st_mtime > _KEEP_DAYS * 86400:
                shutil.rmtree(old, ignore_errors=True)
    return True
