# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Real virtual machines: qemu, with KVM where it works and emulated where not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lab import host, images
from lab.drivers.base import Creation, Guest, MachineDriver, Runtime, leased, parse_nic, split_properties
from lab.drivers.lxc import machine_status, process_start
from lab.instance import Instance
from lab.tasks import Task

_DISK = re.compile(r"(scsi|virtio|sata|ide)\d+")
_HZ = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# `unified_cgroup_hierarchy`: cAdvisor as it is built from its module knows only the older kind of control groups.
# `highres`: timers of a microsecond, which Go's runtime sets by the hundred, are dear in an emulated machine (a scrape of
# the node exporter: 0.93 s of CPU with them, 0.73 s with those of four milliseconds).
_KERNEL = (
    "root=LABEL=root rw console=ttyS0 net.ifnames=0 quiet mitigations=off audit=0 apparmor=0 nowatchdog no_timer_check"
    " systemd.unified_cgroup_hierarchy=0 highres=off"
)


class QemuDriver(MachineDriver):
    """Virtual machines of one instance on this machine."""

    kind = "qemu"

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._lock = threading.Lock()
        self._usage: dict[int, tuple[float, float]] = {}

    # -- paths

    def _folder(self, guest: Guest) -> Path:
        return self.instance.run / "qemu" / str(guest.vmid)

    def _image(self, guest: Guest, disk: str) -> Path:
        storage, _, name = guest.volume(disk).partition(":")
        if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name) or ".." in name:
            raise RuntimeError(f"unable to parse volume ID '{guest.volume(disk)}'")
        return self.instance.state / "storage" / guest.node / storage / name

    @staticmethod
    def _disks(guest: Guest) -> list[str]:
        return [
            key
            for key in sorted(guest.config)
            if _DISK.fullmatch(key) and "media=cdrom" not in str(guest.config[key])
        ]

    @staticmethod
    def _nets(guest: Guest) -> list[tuple[int, dict[str, str]]]:
        return [
            (int(key[3:]), parse_nic(str(guest.config[key])))
            for key in sorted(guest.config)
            if re.fullmatch(r"net\d+", key)
        ]

    # -- disks

    def templates(self) -> dict[str, int]:
        return {}

    def _provide(self, guest: Guest, task: Task) -> None:
        """The disk of a ready-made template is a link to the image, which is built when it is first needed."""
        for disk in self._disks(guest):
            path = self._image(guest, disk)
            if not path.exists():
                images.ensure(task.log)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(images.IMAGE.disk)

    def create(self, guest: Guest, creation: Creation, task: Task) -> None:
        images.ensure(task.log)
        if creation.source and creation.source.config.get("template"):
            self._provide(creation.source, task)
        for disk in self._disks(guest):
            self._make_disk(guest, disk, creation, task)

    def _make_disk(self, guest: Guest, disk: str, creation: Creation, task: Task) -> None:
        image, size = self._image(guest, disk), guest.disk_size(disk)
        image.parent.mkdir(parents=True, exist_ok=True)
        source = creation.source
        if disk in creation.images:
            task.log(f"importing {creation.images[disk].name} to {disk}")
            host.run("qemu-img", "convert", "-O", "qcow2", creation.images[disk], image)
        elif source is None:
            host.run("qemu-img", "create", "-q", "-f", "qcow2", image, str(size))
        elif creation.snapshot:
            task.log(f"create full clone of drive {disk} ({source.volume(disk)}@{creation.snapshot})")
            old = self._image(source, disk)
            host.run("qemu-img", "convert", "-U", "-l", creation.snapshot, "-O", "qcow2", old, image)
        elif creation.linked:
            task.log(f"create linked clone of drive {disk} ({source.volume(disk)})")
            base = self._image(source, disk).resolve()
            host.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, image)
        else:
            task.log(f"create full clone of drive {disk} ({source.volume(disk)})")
            host.run("cp", "-L", "--reflink=auto", "--sparse=auto", self._image(source, disk), image)
        task.log(f"allocated '{guest.volume(disk)}' ({size >> 20} MiB)")

    def attach(self, guest: Guest, disk: str, task: Task) -> None:
        """A further, empty disk; a running guest sees it at once."""
        self._make_disk(guest, disk, Creation(), task)
        if self._pid(guest):
            drive = {
                "driver": "qcow2",
                "node-name": disk,
                "file": {"driver": "file", "filename": str(self._image(guest, disk))},
            }
            self._monitor(guest, "blockdev-add", **drive)
            self._monitor(guest, "device_add", **_device(disk))

    def resize(self, guest: Guest, disk: str, size: int, task: Task) -> None:
        if self._pid(guest):
            self._monitor(guest, "block_resize", **{"node-name": disk, "size": size})
        else:
            host.run("qemu-img", "resize", "-q", "-f", "qcow2", self._image(guest, disk), str(size))
        task.log(f"{guest.volume(disk)} has {size >> 20} MiB now")

    def move(self, guest: Guest, disk: str, moved: Guest, task: Task) -> None:
        host.move(self._image(guest, disk), self._image(moved, disk))
        task.log(f"moved '{guest.volume(disk)}' to '{moved.volume(disk)}'")

    def destroy(self, guest: Guest, task: Task) -> None:
        if self._pid(guest):
            self.stop(guest, task)
        for disk in self._disks(guest):
            if guest.volume(disk):
                self._image(guest, disk).unlink(missing_ok=True)
                task.log(f"removed '{guest.volume(disk)}'")
        self._clear(guest)

    # -- snapshots: those of qcow2

    def snapshot(self, guest: Guest, name: str, memory: bool, task: Task) -> None:
        disks = guest.disks()
        if memory:
            # The memory lies in the first disk, as the file format has it.
            self._job(guest, "snapshot-save", tag=name, vmstate=disks[0], devices=disks)
        for disk in disks:
            if memory:
                continue
            if self._pid(guest):
                self._monitor(guest, "blockdev-snapshot-internal-sync", device=disk, name=name)
            else:
                host.run("qemu-img", "snapshot", "-c", name, self._image(guest, disk))
            task.log(f"snapshot '{name}' of '{guest.volume(disk)}'")

    def rollback(self, guest: Guest, name: str, task: Task) -> None:
        for disk in guest.disks():
            host.run("qemu-img", "snapshot", "-a", name, self._image(guest, disk))
            task.log(f"'{guest.volume(disk)}' is that of snapshot '{name}' again")

    def drop_snapshot(self, guest: Guest, name: str, task: Task) -> None:
        if self._pid(guest):
            self._job(guest, "snapshot-delete", tag=name, devices=guest.disks())
            return
        for disk in guest.disks():
            image = self._image(guest, disk)
            if image.exists() and re.search(rf"^\d+\s+{re.escape(name)}\s", self._listed(image), re.M):
                host.run("qemu-img", "snapshot", "-d", name, image)

    @staticmethod
    def _listed(image: Path) -> str:
        return host.run("qemu-img", "snapshot", "-l", image)

    def resume(self, guest: Guest, name: str, task: Task) -> None:
        self._start(guest, task, name)

    def _job(self, guest: Guest, command: str, **arguments: Any) -> None:
        """One of qemu's jobs, waited for."""
        identifier = f"job-{os.urandom(4).hex()}"
        self._monitor(guest, command, **{"job-id": identifier, **arguments})
        deadline = time.monotonic() + 300
        while True:
            job = next((j for j in self._monitor(guest, "query-jobs") if j["id"] == identifier), None)
            if job is None or job["status"] == "concluded":
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command} does not end")
            time.sleep(0.1)
        if job:
            self._monitor(guest, "job-dismiss", id=identifier)
            if job.get("error"):
                raise RuntimeError(f"{command}: {job['error']}")

    # -- cloud-init

    def _seed(self, guest: Guest) -> None:
        """The drive that cloud-init reads, as the configuration says now; nothing in it is for other eyes."""
        folder = self._folder(guest)
        user = cloud_config(guest)
        network = network_config(guest, self.instance.subnet)
        # The same configuration is the same instance: cloud-init repeats its work only after a change.
        identifier = hashlib.sha256(f"{user}{network}".encode()).hexdigest()[:40]
        documents = {"user-data": "#cloud-config\n" + user, "network-config": network}
        documents["meta-data"] = json.dumps({"instance-id": identifier})
        seed = folder / "seed"
        seed.mkdir(exist_ok=True)
        for name, text in documents.items():
            (seed / name).write_text(text + "\n", encoding="utf-8")
        host.run(
            "xorriso", "-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r", "-o", folder / "seed.iso", seed
        )

    # -- power

    def _command(self, guest: Guest) -> list[str]:
        folder, config = self._folder(guest), guest.config
        memory = split_properties(str(config.get("memory", 512)), "current")["current"]
        accelerator = images.accelerator()
        words = [
            images.QEMU,
            "-name",
            self.instance.container(guest.vmid),
            "-daemonize",
            "-pidfile",
            str(folder / "pid"),
        ]
        words += ["-accel", "kvm" if accelerator == "kvm" else "tcg,thread=multi"]
        # Emulated AVX costs programs that find it two to three times as long: x86-64-v2, as Proxmox VE's own default.
        words += ["-cpu", "host" if accelerator == "kvm" else "Nehalem"]
        words += ["-m", memory, "-smp", str(int(config.get("cores", 1)) * int(config.get("sockets", 1)))]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc"]
        words += [
            "-serial",
            f"file:{folder / 'console'}",
            "-qmp",
            f"unix:{folder / 'qmp'},server=on,wait=off",
        ]
        words += ["-kernel", str(images.IMAGE.kernel), "-initrd", str(images.IMAGE.initrd)]
        words += ["-append", _KERNEL]
        words += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
        words += ["-device", "virtio-scsi-pci,id=scsi"]
        for disk in self._disks(guest):
            drive = f"driver=qcow2,node-name={disk},file.driver=file,file.filename={self._image(guest, disk)}"
            words += ["-blockdev", drive, "-device", ",".join(f"{k}={v}" for k, v in _device(disk).items())]
        if any("cloudinit" in str(value) for value in config.values()):
            self._seed(guest)
            words += [
                "-blockdev",
                f"driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename={folder / 'seed.iso'}",
            ]
            words += ["-device", "virtio-blk-pci,drive=seed,id=seed"]
        if _agent(guest):
            words += ["-device", "virtio-serial-pci,id=serial"]
            words += ["-chardev", f"socket,id=agent,path={folder / 'agent'},server=on,wait=off"]
            words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        for index, net in self._nets(guest):
            words += [
                "-netdev",
                f"tap,id=net{index},ifname={self.instance.veth(guest.vmid, index)},script=no,downscript=no",
            ]
            words += [
                "-device",
                f"virtio-net-pci,netdev=net{index},id=nic{index},mac={net['macaddr']},romfile=",
            ]
        return words

    def _tap(self, guest: Guest, index: int, net: dict[str, str]) -> None:
        name = self.instance.veth(guest.vmid, index)
        if not (Path("/sys/class/net") / name).exists():
            host.run("ip", "tuntap", "add", "dev", name, "mode", "tap")
        host.run("ip", "link", "set", name, "master", self.instance.bridge)
        host.run("ip", "link", "set", name, "down" if net.get("link_down") == "1" else "up")

    def start(self, guest: Guest, task: Task) -> None:
        self._start(guest, task)

    def _start(self, guest: Guest, task: Task, snapshot: str = "") -> None:
        images.ensure(task.log)
        self._clear(guest)
        folder = self._folder(guest)
        # The seed and the monitor are for root alone.
        folder.mkdir(parents=True, mode=0o700)
        try:
            for index, net in self._nets(guest):
                self._tap(guest, index, net)
            if images.accelerator() == "tcg":
                task.log("KVM does not work on this machine: the VM is emulated, which is slow")
            words = [*self._command(guest), *(["-loadvm", snapshot] if snapshot else [])]
            host.run(*words, timeout=60)
        except BaseException:
            self._clear(guest)
            raise

    def stop(self, guest: Guest, task: Task) -> None:
        pid = self._pid(guest)
        if pid:
            with contextlib.suppress(OSError, RuntimeError):
                self._monitor(guest, "quit")
            if not self._gone(guest, 3):
                host.end(pid, 1)
        self._clear(guest)

    def shutdown(self, guest: Guest, timeout: float, task: Task) -> bool:
        deadline = time.monotonic() + timeout
        try:
            if not _agent(guest):
                raise OSError("no agent")
            self._ask_agent(guest, "guest-shutdown", answers=False, mode="powerdown")
        except (OSError, RuntimeError):
            task.log("the guest's agent does not answer: pressing the power button")
            with contextlib.suppress(OSError, RuntimeError):
                self._monitor(guest, "system_powerdown")
        if not self._gone(guest, max(0.0, deadline - time.monotonic())):
            return False
        self._clear(guest)
        return True

    def _gone(self, guest: Guest, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._pid(guest):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _clear(self, guest: Guest) -> None:
        """What only a running guest has."""
        for index in range(32):
            name = self.instance.veth(guest.vmid, index)
            if (Path("/sys/class/net") / name).exists():
                host.run("ip", "link", "delete", name)
        folder = self._folder(guest)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        self._usage.pop(guest.vmid, None)

    # -- what runs

    def _pid(self, guest: Guest) -> int:
        """The guest's process; 0 when it is stopped, also by itself."""
        try:
            pid = int((self._folder(guest) / "pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0
        words = host.command_line(pid)
        mine = words[:3] == [images.QEMU, "-name", self.instance.container(guest.vmid)]
        return pid if mine and host.alive(pid) else 0

    def _monitor(self, guest: Guest, command: str, **arguments: Any) -> Any:
        """One command to qemu itself."""
        with _conversation(self._folder(guest) / "qmp", 10) as channel:
            channel.receive("QMP")
            for word, values in (("qmp_capabilities", {}), (command, arguments)):
                channel.send({"execute": word, "arguments": values})
                answer = channel.receive("return", "error")
                if "error" in answer:
                    raise RuntimeError(f"qemu refuses {word}: {answer['error'].get('desc', answer['error'])}")
            return answer["return"]

    def _ask_agent(self, guest: Guest, command: str, answers: bool = True, **arguments: Any) -> Any:
        """One command to the agent inside; OSError when it does not answer."""
        # One conversation at a time: the port is a single line.
        with self._lock, _conversation(self._folder(guest) / "agent", 3) as channel:
            token = int.from_bytes(os.urandom(4), "big")
            channel.send({"execute": "guest-sync", "arguments": {"id": token}})
            while channel.receive("return").get("return") != token:
                pass
            channel.send({"execute": command, "arguments": arguments})
            if not answers:
                return None
            answer = channel.receive("return", "error")
            if "error" in answer:
                raise RuntimeError(str(answer["error"].get("desc", answer["error"])))
            return answer["return"]

    def ping(self, guest: Guest) -> bool:
        """Whether the agent inside answers."""
        try:
            self._ask_agent(guest, "guest-ping")
        except OSError:
            return False
        return True

    def interfaces(self, guest: Guest) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask_agent(guest, "guest-network-get-interfaces")
        return found

    def runtime(self, guest: Guest) -> Runtime:
        pid = self._pid(guest)
        if not pid:
            return Runtime()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
        except (OSError, IndexError):
            return Runtime()
        now, used = time.monotonic(), (int(fields[11]) + int(fields[12])) / _HZ
        before = self._usage.get(guest.vmid)
        self._usage[guest.vmid] = (now, used)
        cpu = 0.0
        if before and now > before[0]:
            cpu = max(0.0, (used - before[1]) / (now - before[0]) / int(guest.config.get("cores", 1)))
        # The host's side counts the other way round.
        traffic = Path("/sys/class/net") / self.instance.veth(guest.vmid, 0) / "statistics"
        return Runtime(
            running=True,
            pid=pid,
            uptime=int(time.clock_gettime(time.CLOCK_BOOTTIME) - process_start(pid) / _HZ),
            cpu=round(cpu, 4),
            mem=resident,
            netin=_number(traffic / "tx_bytes"),
            netout=_number(traffic / "rx_bytes"),
        )

    def apply(self, guest: Guest, key: str) -> None:
        if not re.fullmatch(r"net\d+", key) or not self._pid(guest):
            return
        index, name = int(key[3:]), self.instance.veth(guest.vmid, int(key[3:]))
        net = dict(self._nets(guest)).get(index)
        exists = (Path("/sys/class/net") / name).exists()
        if net is None:
            if exists:
                self._monitor(guest, "device_del", id=f"nic{index}")
            return
        self._tap(guest, index, net)
        if not exists:
            self._monitor(
                guest, "netdev_add", type="tap", id=f"net{index}", ifname=name, script="no", downscript="no"
            )
            self._monitor(
                guest,
                "device_add",
                driver="virtio-net-pci",
                netdev=f"net{index}",
                id=f"nic{index}",
                mac=net["macaddr"],
                romfile="",
            )

    def node_status(self) -> dict[str, Any]:
        return machine_status(self.instance.state)


# -- cloud-init documents


def cloud_config(guest: Guest) -> str:
    """user-data as the hypervisor generates it; JSON is YAML."""
    config = guest.config
    document: dict[str, Any] = {
        "hostname": guest.name.split(".")[0],
        "fqdn": guest.name,
        "manage_etc_hosts": True,
        "chpasswd": {"expire": False},
        "users": ["default"],
        "package_upgrade": bool(config.get("ciupgrade", 1)),
    }
    if config.get("ciuser"):
        document["user"] = config["ciuser"]
        document["disable_root"] = config["ciuser"] != "root"
    if config.get("cipassword"):
        document["password"] = config["cipassword"]
    keys = [line for line in unquote(str(config.get("sshkeys", ""))).splitlines() if line.strip()]
    if keys:
        document["ssh_authorized_keys"] = keys
    return json.dumps(document, indent=1)


def network_config(guest: Guest, subnet: str) -> str:
    """network-config, version 1."""
    entries: list[dict[str, Any]] = []
    for key in sorted(guest.config):
        if not re.fullmatch(r"net\d+", key):
            continue
        ip = leased(split_properties(str(guest.config.get(f"ipconfig{key[3:]}", ""))), guest.vmid, subnet)
        entry: dict[str, Any] = {
            "type": "physical",
            "name": f"eth{key[3:]}",
            "mac_address": parse_nic(str(guest.config[key]))["macaddr"].lower(),
            "subnets": [],
        }
        for kind, address, gateway in (("static", "ip", "gw"), ("static6", "ip6", "gw6")):
            if "/" in ip.get(address, ""):
                way = {"gateway": ip[gateway]} if ip.get(gateway) else {}
                entry["subnets"].append({"type": kind, "address": ip[address], **way})
        entries.append(entry)
    servers = re.split(r"[;, ]+", str(guest.config.get("nameserver", "")))
    domains = re.split(r"[;, ]+", str(guest.config.get("searchdomain", "")))
    name = {"type": "nameserver", "address": [s for s in servers if s], "search": [d for d in domains if d]}
    if name["address"] or name["search"]:
        entries.append(name)
    return json.dumps({"version": 1, "config": entries}, indent=1)


# -- talking to qemu


class _Channel:
    """JSON documents, one per line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")

    def send(self, document: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(document).encode() + b"\n")

    def receive(self, *keys: str) -> dict[str, Any]:
        """The next document that has one of the keys; events are passed over."""
        while line := self._stream.readline():
            with contextlib.suppress(ValueError):
                # An agent that was asked before may still hold a reset mark.
                document = json.loads(line.lstrip(b"\xff"))
                if any(key in document for key in keys):
                    found: dict[str, Any] = document
                    return found
        raise ConnectionError("closed without an answer")


@contextlib.contextmanager
def _conversation(path: Path, seconds: float) -> Iterator[_Channel]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(path))
        yield _Channel(connection)


def _device(disk: str) -> dict[str, Any]:
    """Each disk on the one SCSI controller; the bus of its name says where."""
    bus = "".join(filter(str.isalpha, disk))
    offset = {"scsi": 0, "virtio": 64, "sata": 128, "ide": 192}[bus]
    return {
        "driver": "scsi-hd",
        "bus": "scsi.0",
        "scsi-id": offset + int(disk[len(bus) :]),
        "drive": disk,
        "id": f"d-{disk}",
    }


def _agent(guest: Guest) -> bool:
    return split_properties(str(guest.config.get("agent", "0")), "enabled").get("enabled") == "1"


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
