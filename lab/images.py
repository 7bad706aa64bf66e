# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The disk of the ready-made virtual machine: built once from Debian packages, kept by the hash of its recipe."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import host, instance, packages, templates

QEMU = "/usr/bin/qemu-system-x86_64"
#: Bytes of the file system in the template; clones are grown.
SIZE = 3 << 30

_PACKAGES = (
    # An emulated login that starts a user's own systemd takes twice as long.
    *(package for package in templates.PACKAGES if package != "libpam-systemd"),
    "cloud-init",
    "e2fsprogs",
    "initramfs-tools",
    "linux-image-cloud-amd64",
    "qemu-guest-agent",
    "systemd-resolved",
    "zstd",
)

# Runs on this machine with the new root in $1. Emulated machines are slow: whatever a guest here does not need is off.
_CUSTOMIZE = r"""
set -eu
root=$1
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
  e2scrub_reap.service getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service \
  cloud-init-hotplugd.socket cloud-config.service cloud-final.service systemd-pstore.service systemd-binfmt.service \
  dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
  sys-fs-fuse-connections.mount kmod-static-nodes.service modprobe@configfs.service modprobe@dm_mod.service \
  modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
echo 'LABEL=root / ext4 rw,noatime 0 0' >"$root/etc/fstab"
mkdir -p "$root/var/log/journal" "$root/root/.ssh"
chmod 700 "$root/root/.ssh"
# A login costs an emulated machine a second: no greeting, a quick exchange of keys, and it goes before other work.
printf '%s\n' 'UseDNS no' 'KexAlgorithms curve25519-sha256' >"$root/etc/ssh/sshd_config.d/lab.conf"
sed -i '/pam_motd/d' "$root/etc/pam.d/sshd"
mkdir "$root/etc/systemd/system/ssh.service.d"
printf '%s\n' '[Service]' 'Nice=-10' >"$root/etc/systemd/system/ssh.service.d/lab.conf"

cat >"$root/etc/cloud/cloud.cfg" <<'END'
# What a guest of the lab gets from its cloud-init drive, and no more.
datasource_list: [NoCloud]
users: [default]
disable_root: false
preserve_hostname: false
resize_rootfs: true
ssh_genkeytypes: [ed25519, ecdsa]
cloud_init_modules: [resizefs, set_hostname, update_hostname, update_etc_hosts, users-groups, ssh, set-passwords]
cloud_config_modules: []
cloud_final_modules: []
system_info:
  distro: debian
  default_user:
    name: debian
    lock_passwd: true
    shell: /bin/bash
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
  network: {renderers: [networkd]}
  paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}
  ssh_svcname: ssh
END
rm -f "$root"/etc/cloud/cloud.cfg.d/*
# The drive is always there: no search for other clouds.
echo 'policy: enabled' >"$root/etc/cloud/ds-identify.cfg"

printf 'MODULES=list\nCOMPRESS=zstd\n' >"$root/etc/initramfs-tools/conf.d/lab"
printf '%s\n' virtio_pci virtio_scsi virtio_blk sd_mod ext4 >"$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u -k all
chroot "$root" systemctl enable systemd-networkd.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
: >"$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
"""


@dataclass(frozen=True)
class Image:
    """A disk with the kernel that starts it; `name` is that of the virtual machine it belongs to."""

    name: str

    @property
    def key(self) -> str:
        recipe = "\n".join([templates.SUITE, str(SIZE), *_PACKAGES, _CUSTOMIZE])
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    @property
    def directory(self) -> Path:
        return instance.cache_directory() / "templates" / f"{self.name}-{self.key}"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def lock(self) -> Path:
        return instance.cache_directory() / "locks" / f"{self.directory.name}.lock"

    @property
    def complete(self) -> bool:
        return all(path.exists() for path in (self.disk, self.kernel, self.initrd))


IMAGE = Image("debian-12-cloud")
_here = threading.Lock()


def ensure(say: Callable[[str], None], image: Image = IMAGE) -> bool:
    """Install and build what is missing for virtual machines; whether anything was."""
    # Several clones ask at the same time; the first one works for all.
    with _here:
        packages.ensure(["machines"], say)
        if image.complete:
            os.utime(image.directory)
            return False
        say(f"{image.name}: building (once per machine, about two minutes)")
        with host.locked(image.lock):
            if image.complete:
                return False
            image.directory.mkdir(parents=True, exist_ok=True)
            for partial in image.directory.glob(".*"):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
            _build(image)
        say(f"{image.name}: {image.disk.stat().st_size >> 20} MB")
        return True


def accelerator(image: Image = IMAGE) -> str:
    """`kvm` only where a kernel really runs under it, else `tcg`: that /dev/kvm opens proves nothing.

    Found out once per start of this machine; takes eight seconds where KVM hangs.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    known = instance.cache_directory() / "accelerator.json"
    with _here:
        try:
            answer = json.loads(known.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            answer = {}
        if answer.get("boot") != boot:
            answer = {"boot": boot, "accelerator": "kvm" if _kvm_works(image) else "tcg"}
            scratch = known.with_name(f".{known.name}.{os.getpid()}")
            scratch.write_text(json.dumps(answer), encoding="utf-8")
            scratch.replace(known)
    return str(answer["accelerator"])


def _kvm_works(image: Image) -> bool:
    """Starts the kernel without a disk: it ends by itself, or it hangs."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    words = [
        QEMU,
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]
    words += ["-serial", "stdio", "-kernel", str(image.kernel), "-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=8, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"Kernel panic" in done.stdout


def _build(image: Image) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=image.directory) as scratch:
        script, archive, raw = (Path(scratch) / name for name in ("customize.sh", "root.tar", "disk.raw"))
        script.write_text(_CUSTOMIZE, encoding="utf-8")
        boot = Path(scratch) / "boot"
        boot.mkdir()
        templates.bootstrap(
            image.name,
            archive,
            _PACKAGES,
            script,
            f'cp -L "$1"/boot/vmlinuz-* {shlex.quote(str(boot / "vmlinuz"))}',
            f'cp -L "$1"/boot/initrd.img-* {shlex.quote(str(boot / "initrd.img"))}',
        )
        tree = Path(scratch) / "tree"
        tree.mkdir()
        host.run(
            "tar",
            "-xpf",
            archive,
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--exclude=./dev/*",
            "-C",
            tree,
        )
        archive.unlink()
        with raw.open("wb") as stream:
            stream.truncate(SIZE)
        host.run("mkfs.ext4", "-q", "-F", "-m", "0", "-L", "root", "-d", tree, raw)
        disk = Path(scratch) / "disk.qcow2"
        host.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
        (boot / "vmlinuz").replace(image.kernel)
        (boot / "initrd.img").replace(image.initrd)
        # Last: the disk says that the rest is there.
        disk.replace(image.disk)
