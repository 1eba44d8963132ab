"""The processor, as ``/proc/cpuinfo`` and its neighbours describe it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from musgd_cli.hardware.tree import Tree

Family = Literal["arm", "x86"]

# arch/arm64/include/asm/cputype.h of the Linux kernel.
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}

# cpuinfo's flag to the name that people and engines use. Those that decide how fast a
# convolution runs, and in which number format.
_FEATURES = {
    "neon": "neon",
    "asimd": "asimd",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "avx512_bf16": "bf16",
    "avx512_fp16": "fp16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
}


@dataclass(frozen=True)
class Cpu:
    """One machine's processor; ``None`` where the tree does not say."""

    family: Family | None
    name: str | None
    cores: int | None
    features: tuple[str, ...] | None
    is_v8: bool
    """An ARM CPU below a 64-bit kernel."""
    revision: int | None
    """cpuinfo's ``Revision``, which on a Raspberry Pi is the board's revision code."""
    model: str | None
    """cpuinfo's ``Model``, the board's name on a Raspberry Pi."""


def read_cpu(tree: Tree) -> Cpu:
    """Read the processor from ``/proc/cpuinfo`` and ``/sys/devices/system/cpu``."""
    blocks = [_fields(block) for block in (tree.text("proc/cpuinfo") or "").split("\n\n")]
    processors = [block for block in blocks if block.get("processor", "").isdigit()]
    board = {key: value for block in blocks for key, value in block.items()}
    first = processors[0] if processors else {}
    family: Family | None = None
    if "CPU implementer" in first:
        family = "arm"
    elif "vendor_id" in first and "flags" in first:
        family = "x86"
    flags = (first.get("Features") or first.get("flags") or "").split()
    named = {_FEATURES[flag]: None for flag in _FEATURES if flag in flags}
    return Cpu(
        family=family,
        name=_name(processors),
        cores=_online(tree) or len(processors) or None,
        features=tuple(named) if family else None,
        is_v8=first.get("CPU architecture") == "8",
        revision=_hex(board.get("Revision")),
        model=board.get("Model"),
    )


def computes_bf16(root: Path = Path("/")) -> bool:
    """Tell whether an x86 CPU multiplies bf16 in hardware: by avx512_bf16 or amx_bf16."""
    cpu = read_cpu(Tree(root))
    return cpu.family == "x86" and not {"bf16", "amx_bf16"}.isdisjoint(cpu.features or ())


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _hex(text: str | None) -> int | None:
    try:
        return int(text or "", 16)
    except ValueError:
        return None


def _name(processors: list[dict[str, str]]) -> str | None:
    # The part number tells an A53 from an A72, which "model name" does not; a chip can hold two
    # kinds of core.
    parts = [(cpu.get("CPU implementer", ""), cpu.get("CPU part", "")) for cpu in processors]
    cores = dict.fromkeys(_ARM_CORES[part] for part in parts if part in _ARM_CORES)
    if cores:
        return " + ".join(cores)
    return processors[0].get("model name") if processors else None


def _online(tree: Tree) -> int | None:
    """Count the ranges of ``online``, such as ``0-2,5``."""
    ranges = (tree.text("sys/devices/system/cpu/online") or "").split(",")
    try:
        ends = [(int(low), int(high or low)) for low, _, high in (r.partition("-") for r in ranges)]
    except ValueError:
        return None
    return sum(high - low + 1 for low, high in ends)


# ------------------------------------------------------------------------------- usable cores


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may compute on, at least 1.

    The cores it is pinned to, cut to its cgroup's CPU quota rounded down: a thread beyond the
    quota makes all of them wait for the next period. With a recorded ``root``, the cores are that
    machine's.
    """
    tree = Tree(root)
    cores = len(os.sched_getaffinity(0)) if tree.live else read_cpu(tree).cores or 1
    return max(1, math.floor(min([cores, *_quotas(tree)])))


def _quotas(tree: Tree) -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's cgroups and all of their parents."""
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        group = Path(path.lstrip("/"))
        # A container may be told its path on the host, which it cannot see: its own quota then
        # stands at the mount's root, the last of the parents.
        folders = [folder.as_posix() for folder in (group, *group.parents)]
        if not controllers:
            yield from (q for folder in folders if (q := _quota_v2(tree, folder)))
        elif "cpu" in controllers.split(","):
            yield from (q for folder in folders if (q := _quota_v1(tree, controllers, folder)))


def _quota_v2(tree: Tree, group: str) -> float | None:
    quota, _, period = (tree.text(f"sys/fs/cgroup/{group}/cpu.max") or "").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _quota_v1(tree: Tree, controllers: str, group: str) -> float | None:
    folder = f"sys/fs/cgroup/{controllers}/{group}"
    quota, period = (tree.integer(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period and quota > 0 else None
