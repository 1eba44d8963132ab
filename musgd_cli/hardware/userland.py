"""The system around a process: kernel, userland, container, emulator."""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from musgd_cli.hardware.cpu import Cpu, Family
from musgd_cli.hardware.tree import Tree

# e_machine of an ELF header to uname's name (elf.h).
_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64"}
_DEBIAN_ARCHITECTURES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armel": "armv6l",
    "armhf": "armv7l",
    "i386": "i686",
}
_PROGRAMS = ("bin/sh", "usr/bin/sh", "usr/bin/python3")


@dataclass(frozen=True)
class Userland:
    """What programs run as; ``None`` where the tree does not say.

    Args:
        machine: The programs' architecture, in uname's words.
        bits: 32 or 64.
    """

    machine: str | None
    bits: int | None


def read_userland(tree: Tree) -> Userland:
    """Tell what the programs of a tree are built for.

    A 64-bit kernel can run a 32-bit userland, so the kernel's word does not count.
    """
    if tree.live:
        return Userland(platform.machine(), struct.calcsize("P") * 8)
    for program in _PROGRAMS:
        # ELF: magic, then EI_CLASS at byte 4, and e_machine at 18.
        header = tree.data(program, 20) or b""
        if header.startswith(b"\x7fELF") and len(header) == 20:
            machine = _ELF_MACHINES.get(int.from_bytes(header[18:20], "little"))
            return Userland(machine, 64 if header[4] == 2 else 32)
    # dpkg writes the native architecture first, the foreign ones below it.
    native = (tree.text("var/lib/dpkg/arch") or "").partition("\n")[0]
    if machine := _DEBIAN_ARCHITECTURES.get(native):
        return Userland(machine, 64 if native in {"amd64", "arm64"} else 32)
    return Userland(None, None)


def kernel_arch(tree: Tree, cpu: Cpu, userland: Userland) -> str | None:
    """Return the kernel's architecture in uname's words."""
    if tree.live:
        return platform.machine()
    if arch := tree.text("proc/sys/kernel/arch"):  # since Linux 6.1
        return arch
    if cpu.is_v8:
        return "aarch64"
    return userland.machine if userland.bits == 64 else None


def read_os(tree: Tree) -> str | None:
    """Return the distribution's name and version, for people."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        if found := re.search(r'^PRETTY_NAME="?([^"\n]+)', tree.text(path) or "", re.MULTILINE):
            return found[1]
    return platform.system() if tree.live else None


def read_kernel(tree: Tree) -> str | None:
    """Return the kernel's release."""
    if release := tree.text("proc/sys/kernel/osrelease"):
        return release
    if found := re.match(r"Linux version (\S+)", tree.text("proc/version") or ""):
        return found[1]
    return platform.release() if tree.live else None


# cgroup path to container, innermost first: Kubernetes runs its pods in containerd or CRI-O.
_CGROUPS = (
    ("kubepods", "kubernetes"),
    ("libpod", "podman"),
    ("docker", "docker"),
    ("containerd", "containerd"),
    ("lxc", "lxc"),
)


def container(tree: Tree, environ: Mapping[str, str]) -> str | None:
    """Return what kind of container or guest this is, ``none``, or ``None`` if it cannot be told.

    WSL counts as one: it hides sensors and firmware as a container does.
    """
    cgroup = tree.text("proc/1/cgroup")
    by_cgroup = next((name for word, name in _CGROUPS if word in (cgroup or "")), None)
    if "KUBERNETES_SERVICE_HOST" in environ or by_cgroup == "kubernetes":
        return "kubernetes"
    if tree.exists(".dockerenv"):
        return "docker"
    if tree.exists("run/.containerenv"):
        return "podman"
    # systemd keeps the name it was given in a file, others in the variable itself.
    named = tree.text("run/systemd/container") or environ.get("container")
    if named or by_cgroup:
        return named or by_cgroup
    if "microsoft" in (read_kernel(tree) or "").lower() or tree.exists("dev/dxg"):
        return "wsl"
    return "none" if tree.live or cgroup is not None else None


def emulated(tree: Tree, environ: Mapping[str, str], cpu: Cpu, userland: Userland) -> bool | None:
    """Tell whether programs run on another processor than they are built for.

    QEMU answers ``uname`` with the guest's architecture, but most of /proc and /sys stay the
    host's: ``cpuinfo`` (before QEMU 8), ``/proc/sys/kernel/arch`` and the CPU's ``modalias``. Where
    a recorded board's files hide those, the program that the kernel runs is still QEMU. Where all
    of /proc is a recorded one, only ``MUSGD_EMULATED=1`` can tell.
    """
    if environ.get("MUSGD_EMULATED") == "1" or _runs_in_qemu(tree):
        return True
    alias = re.match(r"cpu:type:(\w+)", tree.text("sys/devices/system/cpu/modalias") or "")
    hosts = {
        cpu.family,
        family(tree.text("proc/sys/kernel/arch")),
        family(alias[1] if alias else None),
    } - {None}
    guest = family(userland.machine)
    if guest is None or not hosts:
        return None
    return hosts != {guest}


# QEMU's user mode: qemu-aarch64, qemu-aarch64-static, a distribution's prefix before it. A whole
# machine's QEMU is no parent of what runs inside it.
_QEMU = re.compile(r"(^|[/-])qemu-(?!system)[a-z0-9_]+[^/]*$")

_MOST_PARENTS = 100
"""Ends a chain that a recorded tree closed to a ring."""


def _runs_in_qemu(tree: Tree) -> bool:
    """Tell whether this process's program, or one that it was started by, is QEMU's user mode.

    QEMU answers for ``/proc/self/exe`` itself, with the guest's program, but not for a thread's.
    """
    me = tree.link("proc/self")
    if me is None:
        return False
    if own := tree.link(f"proc/{me}/task/{me}/exe"):
        return _QEMU.search(own) is not None  # a native program may well be started by QEMU
    pid = me
    for _ in range(_MOST_PARENTS):
        # The name in stat is a program's own choice, brackets and blanks included.
        name, _, after = (tree.text(f"proc/{pid}/stat") or "").rpartition(")")
        fields = after.split()
        program = tree.link(f"proc/{pid}/exe") if pid != me else None
        if _QEMU.search(program or name.partition("(")[2]):
            return True
        if len(fields) < 2 or fields[1] == "0":
            break
        pid = fields[1]
    return False


def family(machine: str | None) -> Family | None:
    """Return the processor family of an architecture, in uname's or ``modalias``' words."""
    if machine is None:
        return None
    if machine.startswith(("aarch64", "arm")):
        return "arm"
    return "x86" if machine == "x86" or re.fullmatch(r"x86_64|i\d86", machine) else None
