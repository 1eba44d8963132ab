"""Which machine this is."""

from __future__ import annotations

import difflib
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from musgd_cli.errors import UsageError
from musgd_cli.hardware import boards, userland
from musgd_cli.hardware.boards import Board, PiRevision, decode_pi_revision
from musgd_cli.hardware.cpu import Cpu, read_cpu
from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.hardware.power import find_meters
from musgd_cli.hardware.runtimes import read_runtimes
from musgd_cli.hardware.tree import DEVICE_TREES, Tree
from musgd_cli.records import Host

_NANO_MAX_KHZ = 1_479_000
"""The Nano's top CPU clock in its 10 W mode; the TX1, with the same cores, runs at 1734 MHz."""

_NANO_2GB_MAX_MB = 2048

# jetson_stats' jetson_variables.py and NVIDIA's JetPack archive.
_JETPACKS = {
    "28.2.0": "3.2",
    "32.4.3": "4.4",
    "32.4.4": "4.4.1",
    "32.5.1": "4.5.1",
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
}


def detect(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> Host:
    """Tell which machine this is, or which one a recorded tree is of.

    The rules, in order: ``MUSGD_BOARD``; the device tree's ``compatible``; L4T's
    ``/etc/nv_tegra_release``; a Raspberry Pi's revision code; an NVIDIA GPU; the processor.
    ``Host.decided_by`` names the one that decided.

    Args:
        root: Where ``/proc``, ``/sys`` and ``/etc`` lie. For any other than ``/`` nothing of this
            machine is read, and what the tree does not tell is ``None`` or empty.
        environ: Variables to heed: ``MUSGD_BOARD``, ``MUSGD_EMULATED=1``, and those that containers
            set. Default: this process's, and none for a recorded tree.

    Raises:
        UsageError: ``MUSGD_BOARD`` names no board.
    """
    tree = Tree(root)
    if environ is None:
        environ = os.environ if tree.live else {}
    cpu = read_cpu(tree)
    programs = userland.read_userland(tree)
    arch = userland.kernel_arch(tree, cpu, programs)
    emulated = userland.emulated(tree, environ, cpu, programs)
    revision = _pi_revision(tree, cpu)
    ram_mb = _ram_mb(tree) or (revision.ram_mb if revision else None)
    gpu = _gpu(tree)
    board, decided_by = (
        _by_name(environ)
        or _by_device_tree(tree)
        or _by_l4t(tree, cpu, ram_mb)
        or _by_revision(revision)
        or _by_processor(arch, cpu, gpu)
    )
    return Host(
        board=board.name,
        model=_model(tree, cpu),
        cpu=cpu.name,
        cores=cpu.cores,
        ram_mb=ram_mb,
        gpu=gpu.name if gpu else board.gpu,
        gpu_memory_mb=gpu.memory_mb if gpu else None,
        os=userland.read_os(tree),
        kernel=userland.read_kernel(tree),
        arch=arch,
        bits=programs.bits,
        # Below an emulator cpuinfo tells of the wrong processor.
        cpu_features=None if emulated else cpu.features,
        container=userland.container(tree, environ),
        emulated=emulated,
        python=_python(tree),
        runtimes=read_runtimes(tree),
        power_meters=tuple(meter.source for meter in find_meters(root)),
        jetpack=_jetpack(tree),
        decided_by=decided_by,
    )


# ------------------------------------------------------------------------------------- the rules

_Decision = tuple[Board, str]


def _by_name(environ: Mapping[str, str]) -> _Decision | None:
    name = environ.get("MUSGD_BOARD")
    if not name:
        return None
    if board := boards.by_name(name):
        return board, "MUSGD_BOARD"
    near = difflib.get_close_matches(name, boards.names(), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(
        f"MUSGD_BOARD={name} names no board{hint}",
        f"set it to one of {', '.join(boards.names())}, or unset it",
    )


def _by_device_tree(tree: Tree) -> _Decision | None:
    board = boards.by_compatible(tree.device_tree("compatible"))
    return (board, "device-tree compatible") if board else None


def _by_l4t(tree: Tree, cpu: Cpu, ram_mb: int | None) -> _Decision | None:
    """Tell a Jetson without its device tree, as in a container.

    The ``BOARD`` field of nv_tegra_release is wrong on most boards (jetson_stats says so as well),
    so TNSPEC decides; without that file too, only a Nano can be told, by its cores and clock.
    """
    if _l4t_release(tree) is None:
        return None
    spec = re.search(r"^TNSPEC (\S+)", tree.text("etc/nv_boot_control.conf") or "", re.MULTILINE)
    if spec and (board := boards.by_tnspec(spec[1])):
        return board, "TNSPEC of nv_boot_control.conf"
    top_khz = tree.integer("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if cpu.name == "Cortex-A57" and (top_khz is None or top_khz <= _NANO_MAX_KHZ):
        small = ram_mb is not None and ram_mb <= _NANO_2GB_MAX_MB
        nano = boards.by_name("jetson-nano-2gb" if small else "jetson-nano")
        return (nano, "nv_tegra_release and processor") if nano else None
    return None


def _by_revision(revision: PiRevision | None) -> _Decision | None:
    return (revision.board, "Raspberry Pi revision code") if revision and revision.board else None


def _by_processor(arch: str | None, cpu: Cpu, gpu: _GpuFacts | None) -> _Decision:
    kind = userland.family(arch) or cpu.family
    if kind == "x86":
        name, reason = ("x86-gpu", "NVIDIA driver") if gpu else ("x86-cpu", "processor")
    elif kind == "arm" and arch == "aarch64":
        name, reason = "generic-arm64", "processor"
    else:
        name, reason = "generic", "nothing else matched"
    board = boards.by_name(name)
    assert board is not None
    return board, reason


# ------------------------------------------------------------------------------------- the facts


@dataclass(frozen=True)
class _GpuFacts:
    name: str | None
    memory_mb: int | None


def _gpu(tree: Tree) -> _GpuFacts | None:
    if tree.live:
        gpu = first_gpu()
        return _GpuFacts(gpu.name, gpu.memory_mb) if gpu else None
    for folder in tree.children("proc/driver/nvidia/gpus"):
        if found := re.search(r"^Model:\s*(.+)$", tree.text(f"{folder}/information") or "", re.M):
            return _GpuFacts(found[1].strip(), None)
    return None


def _pi_revision(tree: Tree, cpu: Cpu) -> PiRevision | None:
    code = cpu.revision
    for folder in DEVICE_TREES:
        if data := tree.data(f"{folder}/system/linux,revision"):
            code = int.from_bytes(data, "big")
            break
    return None if code is None else decode_pi_revision(code)


def _ram_mb(tree: Tree) -> int | None:
    total = re.search(r"^MemTotal:\s+(\d+) kB", tree.text("proc/meminfo") or "", re.MULTILINE)
    return int(total[1]) >> 10 if total else None


def _model(tree: Tree, cpu: Cpu) -> str | None:
    if strings := tree.device_tree("model"):
        return strings[0]
    if cpu.model:
        return cpu.model
    dmi = [tree.text(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    return " ".join(filter(None, dmi)) or None


def _python(tree: Tree) -> str | None:
    if tree.live:
        return platform.python_version()
    programs = (tree.children(folder, "python3.*") for folder in ("usr/bin", "usr/local/bin"))
    minors = [
        int(found[1])
        for path in chain.from_iterable(programs)
        if (found := re.search(r"/python3\.(\d+)$", path))
    ]
    return f"3.{max(minors)}" if minors else None


def _l4t_release(tree: Tree) -> str | None:
    """Return L4T's version, such as ``32.7.4``."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _tegra_release(tree))
    return f"{found[1]}.{found[2]}" if found else None


def _tegra_release(tree: Tree) -> str:
    return tree.text("etc/nv_tegra_release") or ""


def _jetpack(tree: Tree) -> str | None:
    release = _l4t_release(tree)
    return None if release is None else _JETPACKS.get(release, f"L4T {release}")
