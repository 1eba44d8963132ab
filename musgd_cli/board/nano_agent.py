#!/usr/bin/env python3
"""Measure a model on a Jetson Nano, whose system, JetPack 4.6, ends at Python 3.6.

One file, the standard library alone. Copy it to the board with an artifact folder that ``musgd
export --target jetson-nano`` made, and copy the report back, where ``musgd report`` reads it::

    python3 nano_agent.py bench jetson-nano-tensorrt-fp16-640
    python3 nano_agent.py doctor

``bench`` builds the engine with NVIDIA's ``trtexec``, keeps it in this user's cache, times it in
fresh processes and samples the board's INA3221 meanwhile. It ends with 0, or with 1 failed, 2
usage, 3 this machine cannot, 130 interrupted, and says why in two lines on stderr.

What ``trtexec`` of TensorRT 8.2 takes, prints and writes was read in NVIDIA/TensorRT, release 8.2,
``samples/trtexec/trtexec.cpp`` and ``samples/common/sample{Options,Inference,Reporting}.cpp``.
"""

import argparse
import errno
import fnmatch
import hashlib
import json
import math
import os
import platform
import re
import shlex
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
)

VERSION = "0.1.0"
"""Of the musgd that this file came with."""

SCHEMA = "1.0"
"""Of the records that are read and written: ``musgd_cli.records.SCHEMA``."""

FAILED, USAGE, UNSUPPORTED, INTERRUPTED = 1, 2, 3, 130
"""Exit codes, as all of musgd has them."""

TRTEXEC = "usr/src/tensorrt/bin/trtexec"
"""Where JetPack puts it, which is not on the PATH."""

FLAGS = (
    "--onnx",
    "--fp16",
    "--workspace",
    "--saveEngine",
    "--loadEngine",
    "--buildOnly",
    "--warmUp",
    "--duration",
    "--avgRuns",
    "--exposeDMA",
    "--exportTimes",
)
"""What trtexec is asked for; a later one has dropped some of them."""

OLDEST, NEWEST = (8, 0), (8, 2)
"""Versions of TensorRT whose trtexec has those flags: of JetPack 4.6 to 4.6.6."""

SAMPLE_HZ = 10.0
"""The INA3221 averages over tens of milliseconds; faster sampling reads the same value twice."""

SAMPLES_A_LOOK = 5
"""Heat and clocks are looked at twice a second."""

FEWEST_SAMPLES = 5
"""Samples of power that a repeat must hold, so that the steps at its ends do not count."""

GAP_PERIODS = 5.0
"""Samples of power further apart than so many periods leave a hole, and then no figure."""

ABSURD_W = 100000.0
ABSENT_C = (-40.0, 150.0)

CLOCKS_AGREE_S = 0.25
"""How far the end that trtexec's own times tell may be from the line that it prints then."""

PATIENCE_S = 300.0
"""How much longer than it was asked to a timing may take: to load libraries and engine."""

WINDOW_S, WINDOW_FRAMES, STEADY_WINDOWS, STEADY_SPREAD = 0.5, 5, 3, 0.03
"""A warm-up is steady when the medians of its last three windows lie within 3 % of each other."""

MOMENT_S, MOST_MOMENTS = 1.0, 600

KEPT_S = 30 * 86400.0
"""An engine that nobody has used for so long is cleared at the next build."""

SPARE_BYTES = 32 << 20
"""Free disk that is left to the system when an engine is built."""

NO_INT8 = "the GPU of this board has no int8 arithmetic, so FP16 was allowed instead"
FP16_ALLOWED = "allowed beside FP32; which layers took it was not read back"
NO_ACCURACY = (
    "trtexec feeds random numbers and gives no boxes: on another machine, musgd bench of its "
    "model.onnx scores it"
)


class AgentError(Exception):
    """A failure that was foreseen: what happened, and what to do about it."""

    def __init__(self, what: str, mend: str, code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend
        self.code = code


def say(text: str) -> None:
    """Tell how it goes. Whoever reads it may have hung up, as when ssh is cut off."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise KeyboardInterrupt from None


# ------------------------------------------------------------------------------------ the machine


class Tree:
    """A machine's files below a root: ``/``, or a recorded copy, whose links stay within it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.live = root == Path("/")

    def locate(self, path: str) -> Path:
        """Return where ``path``, given without a leading slash, lies."""
        if self.live:
            return self.root / path
        place, links = self.root, 0
        ahead = list(reversed(PurePosixPath(path).parts))
        while ahead:
            part = ahead.pop()
            if part == "/":
                place = self.root
            elif part == "..":
                place = place.parent if place != self.root else place
            elif (place / part).is_symlink() and links < 40:  # the kernel's own limit
                links += 1
                ahead.extend(reversed(PurePosixPath(os.readlink(str(place / part))).parts))
            else:
                place = place / part
        return place

    def data(self, path: str, size: int = -1) -> Optional[bytes]:
        """Return a file's first ``size`` bytes, or all; ``None`` where it cannot be read."""
        try:
            with self.locate(path).open("rb") as stream:
                return stream.read(size)
        except OSError:
            return None

    def text(self, path: str) -> Optional[str]:
        """Return a file as text, without the NULs and blanks at its ends."""
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "replace").strip("\0 \t\n")

    def integer(self, path: str) -> Optional[int]:
        """Return the one number that a file holds."""
        try:
            return int(self.text(path) or "")
        except ValueError:
            return None

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or folder."""
        return os.path.exists(str(self.locate(path)))

    def children(self, folder: str, pattern: str) -> List[str]:
        """Return the paths of a folder's entries that match, numbers in them sorted as such."""
        try:
            names = fnmatch.filter(os.listdir(str(self.locate(folder))), pattern)
        except OSError:
            return []
        return [f"{folder}/{name}" for name in sorted(names, key=_by_number)]

    def device_tree(self, name: str) -> List[str]:
        """Return the strings of a property of the device tree's root."""
        for folder in (
            "proc/device-tree",
            "sys/firmware/devicetree/base",
            "host/firmware/devicetree/base",  # what Docker masks, bound to another place
        ):
            found = [part for part in (self.text(folder + "/" + name) or "").split("\0") if part]
            if found:
                return found
        return []


def _by_number(name: str) -> List[Tuple[int, str]]:
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]


class Board(NamedTuple):
    """A Jetson, as ``musgd_cli.hardware.boards`` has it."""

    name: str
    gpu: str
    compatible: Tuple[str, ...]
    modules: Tuple[str, ...]


_X1 = "NVIDIA Tegra X1 (Maxwell, sm_53)"
_X2 = "NVIDIA Tegra X2 (Pascal, sm_62)"
_XAVIER = "NVIDIA Xavier (Volta, sm_72)"
_ORIN = "NVIDIA Orin (Ampere, sm_87)"


def _parts(number: str, *skus: str) -> Tuple[str, ...]:
    return tuple(f"nvidia,p{number}-{sku}" for sku in skus)


# Where two rows would match, the first does: the 2 GB Nano calls itself nvidia,jetson-nano as well.
BOARDS = (
    Board(
        "jetson-nano-2gb",
        _X1,
        ("nvidia,jetson-nano-2gb", "nvidia,p3448-0003"),
        ("3448-0003",),
    ),
    Board(
        "jetson-nano",
        _X1,
        ("nvidia,jetson-nano", *_parts("3448", "0000", "0002"), *_parts("3450", "0000", "0002")),
        ("3448",),
    ),
    Board("jetson-tx1", _X1, ("nvidia,jetson-cv", "nvidia,p2371-2180"), ("2180",)),
    Board(
        "jetson-tx2",
        _X2,
        ("nvidia,quill", "nvidia,lightning", "nvidia,p2771-0000"),
        ("3310", "3489"),
    ),
    Board(
        "jetson-agx-xavier",
        _XAVIER,
        ("nvidia,jetson-xavier", *_parts("2972", "0000", "0006")),
        ("2888",),
    ),
    Board("jetson-xavier-nx", _XAVIER, _parts("3668", "0000", "0001", "0003"), ("3668",)),
    Board(
        "orin-nano",
        _ORIN,
        _parts("3767", "0003", "0004", "0005"),
        ("3767-0003", "3767-0004", "3767-0005"),
    ),
    Board("orin-nx", _ORIN, _parts("3767", "0000", "0001"), ("3767-0000", "3767-0001")),
    Board("agx-orin", _ORIN, _parts("3701", "0000", "0004", "0005", "0008"), ("3701",)),
)

_NANO_MAX_KHZ = 1479000
_NANO_2GB_MAX_MB = 2048

JETPACKS = {
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

_CORES = {
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}
_FEATURES = (("asimd", "asimd"), ("asimdhp", "fp16"), ("asimddp", "dotprod"))


class Cpu(NamedTuple):
    """The processor, as ``/proc/cpuinfo`` describes it."""

    is_arm: bool
    name: Optional[str]
    cores: Optional[int]
    features: Optional[List[str]]
    is_v8: bool


def read_cpu(tree: Tree) -> Cpu:
    """Read ``/proc/cpuinfo`` and which cores are online."""
    blocks = []
    for block in (tree.text("proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        blocks.append({key.strip(): value.strip() for key, colon, value in pairs if colon})
    processors = [block for block in blocks if block.get("processor", "").isdigit()]
    first = processors[0] if processors else {}
    is_arm = "CPU implementer" in first
    flags = (first.get("Features") or "").split()
    parts = [(cpu.get("CPU implementer", ""), cpu.get("CPU part", "")) for cpu in processors]
    names: List[str] = []
    for part in parts:
        if part in _CORES and _CORES[part] not in names:
            names.append(_CORES[part])
    return Cpu(
        is_arm=is_arm,
        name=" + ".join(names) or first.get("model name"),
        cores=_online(tree) or len(processors) or None,
        features=[name for flag, name in _FEATURES if flag in flags] if is_arm else None,
        is_v8=first.get("CPU architecture") == "8",
    )


def _online(tree: Tree) -> Optional[int]:
    """Count the ranges of ``online``, such as ``0-2,5``."""
    total = 0
    for piece in (tree.text("sys/devices/system/cpu/online") or "").split(","):
        low, _, high = piece.partition("-")
        if not low.isdigit() or not (high or low).isdigit():
            return None
        total += int(high or low) - int(low) + 1
    return total


def _board(
    tree: Tree, environ: Mapping[str, str], cpu: Cpu, ram_mb: Optional[int]
) -> Optional[Tuple[Board, str]]:
    """Tell which Jetson this is, and by which rule; the rules are those of ``musgd doctor``."""
    named = environ.get("MUSGD_BOARD")
    if named:
        for board in BOARDS:
            if board.name == named:
                return board, "MUSGD_BOARD"
        raise AgentError(
            f"MUSGD_BOARD={named} names no Jetson",
            "set it to one of {}, or unset it".format(", ".join(b.name for b in BOARDS)),
            USAGE,
        )
    known = set()
    for token in tree.device_tree("compatible"):
        known.add(token)
        module = re.match(r"nvidia,(?:\S*\+)?(p\d{4}-\d{4})", token)
        if module:
            known.add("nvidia," + module.group(1))
    for board in BOARDS:
        if known.intersection(board.compatible):
            return board, "device-tree compatible"
    if _l4t(tree) is None:
        return None
    spec = re.search(r"^TNSPEC (\S+)", tree.text("etc/nv_boot_control.conf") or "", re.MULTILINE)
    by_spec = _by_tnspec(spec.group(1)) if spec else None
    if by_spec is not None:
        return by_spec, "TNSPEC of nv_boot_control.conf"
    top_khz = tree.integer("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if cpu.name == "Cortex-A57" and (top_khz is None or top_khz <= _NANO_MAX_KHZ):
        small = ram_mb is not None and ram_mb <= _NANO_2GB_MAX_MB
        return BOARDS[0 if small else 1], "nv_tegra_release and processor"
    return None


def _by_tnspec(spec: str) -> Optional[Board]:
    fields = spec.split("-")
    skus = [field for field in fields[1:3] if re.match(r"\d{4}$", field)]
    for board in BOARDS:
        if fields[0] in board.modules or (skus and fields[0] + "-" + skus[0] in board.modules):
            return board
    return None


def _l4t(tree: Tree) -> Optional[str]:
    line = tree.text("etc/nv_tegra_release") or ""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", line)
    return "{}.{}".format(*found.groups()) if found else None


_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64"}
_DEBIAN = {
    "amd64": ("x86_64", 64),
    "arm64": ("aarch64", 64),
    "armel": ("armv6l", 32),
    "armhf": ("armv7l", 32),
    "i386": ("i686", 32),
}


def _userland(tree: Tree) -> Tuple[Optional[str], Optional[int]]:
    """Return what programs are built for, in uname's words, and their bits."""
    if tree.live:
        return platform.machine(), struct.calcsize("P") * 8
    for program in ("bin/sh", "usr/bin/sh", "usr/bin/python3"):
        header = tree.data(program, 20) or b""
        if header.startswith(b"\x7fELF") and len(header) == 20:
            machine = _MACHINES.get(int.from_bytes(header[18:20], "little"))
            return machine, 64 if header[4] == 2 else 32
    native = (tree.text("var/lib/dpkg/arch") or "").partition("\n")[0]
    return _DEBIAN.get(native, (None, None))


def _arch(tree: Tree, cpu: Cpu, machine: Optional[str], bits: Optional[int]) -> Optional[str]:
    if tree.live:
        return platform.machine()
    told = tree.text("proc/sys/kernel/arch")
    if told or cpu.is_v8:
        return told or "aarch64"
    return machine if bits == 64 else None


def _emulated(
    tree: Tree, environ: Mapping[str, str], cpu: Cpu, machine: Optional[str]
) -> Optional[bool]:
    if environ.get("MUSGD_EMULATED") == "1":
        return True
    if machine is None or not cpu.name:
        return None
    told = tree.text("proc/sys/kernel/arch") or ("aarch64" if cpu.is_arm else "x86_64")
    return not (machine.startswith(("aarch64", "arm")) and told.startswith(("aarch64", "arm")))


def _container(tree: Tree, environ: Mapping[str, str]) -> Optional[str]:
    cgroup = tree.text("proc/1/cgroup")
    kinds = (
        ("kubepods", "kubernetes"),
        ("libpod", "podman"),
        ("docker", "docker"),
        ("containerd", "containerd"),
        ("lxc", "lxc"),
    )
    found = [name for word, name in kinds if word in (cgroup or "")]
    if "KUBERNETES_SERVICE_HOST" in environ or found[:1] == ["kubernetes"]:
        return "kubernetes"
    if tree.exists(".dockerenv"):
        return "docker"
    if tree.exists("run/.containerenv"):
        return "podman"
    named = tree.text("run/systemd/container") or environ.get("container") or "".join(found[:1])
    return named or ("none" if tree.live or cgroup is not None else None)


def _python(tree: Tree) -> Optional[str]:
    if tree.live:
        return platform.python_version()
    minors = [
        int(path.rpartition(".")[2])
        for folder in ("usr/bin", "usr/local/bin")
        for path in tree.children(folder, "python3.*")
        if path.rpartition(".")[2].isdigit()
    ]
    return f"3.{max(minors)}" if minors else None


def _tensorrt(tree: Tree) -> Optional[str]:
    for library in tree.children("usr/lib/aarch64-linux-gnu", "libnvinfer.so.*.*"):
        return library.rpartition(".so.")[2]
    return None


def _os(tree: Tree) -> Optional[str]:
    for path in ("etc/os-release", "usr/lib/os-release"):
        named = re.search(r'^PRETTY_NAME="?([^"\n]+)', tree.text(path) or "", re.MULTILINE)
        if named:
            return named.group(1)
    return None


def describe(tree: Tree, environ: Mapping[str, str]) -> Dict[str, Any]:
    """Return the Host record of a Jetson, as ``musgd doctor`` would.

    Raises:
        AgentError: It is none.
    """
    cpu = read_cpu(tree)
    total = re.search(r"^MemTotal:\s+(\d+) kB", tree.text("proc/meminfo") or "", re.MULTILINE)
    ram_mb = int(total.group(1)) >> 10 if total else None
    decision = _board(tree, environ, cpu, ram_mb)
    if decision is None:
        raise AgentError(
            "this machine is no Jetson",
            "musgd itself runs here: musgd bench, or musgd doctor; MUSGD_BOARD=jetson-nano insists",
            UNSUPPORTED,
        )
    board, decided_by = decision
    machine, bits = _userland(tree)
    emulated = _emulated(tree, environ, cpu, machine)
    release = _l4t(tree)
    version = _tensorrt(tree)
    runtimes = {"tensorrt": version} if version or tree.live else {}
    meters = [sensor.source for sensor in find_sensors(tree) if sensor.answers()]
    return {
        "schema": SCHEMA,
        "board": board.name,
        "model": next(iter(tree.device_tree("model")), None),
        "cpu": cpu.name,
        "cores": cpu.cores,
        "ram_mb": ram_mb,
        "gpu": board.gpu,
        "gpu_memory_mb": None,
        "os": _os(tree),
        "kernel": tree.text("proc/sys/kernel/osrelease"),
        "arch": _arch(tree, cpu, machine, bits),
        "bits": bits,
        "cpu_features": None if emulated else cpu.features,
        "container": _container(tree, environ),
        "emulated": emulated,
        "python": _python(tree),
        "runtimes": runtimes,
        "power_meters": meters,
        "jetpack": None if release is None else JETPACKS.get(release, "L4T " + release),
        "decided_by": decided_by,
    }


# --------------------------------------------------------------------------------- power and heat


class Sensor(NamedTuple):
    """A power chip's rail of the whole module's input, and the files that tell its watts."""

    source: str
    files: Tuple[Path, ...]

    def read_w(self) -> float:
        """Return watts.

        Raises:
            OSError: It is gone, or may not be read.
            ValueError: It talks nonsense.
        """
        numbers = [int(file.read_bytes()) for file in self.files]
        watts = numbers[0] * 1e-3 if len(numbers) == 1 else numbers[0] * numbers[1] * 1e-6
        if not 0 <= watts < ABSURD_W:
            raise ValueError(f"{self.source} reads {watts} W")
        return watts

    def answers(self) -> bool:
        """Tell whether it can be read now."""
        try:
            self.read_w()
        except (OSError, ValueError):
            return False
        return True


def find_sensors(tree: Tree) -> Iterator[Sensor]:
    """Yield the INA3221's input rail: POM_5V_IN on a Nano, VDD_IN on others.

    It is looked for, as its place differs: L4T's 4.9 kernel shows milliwatts through iio, later
    ones millivolts and milliamperes through hwmon, and the 2 GB Nano has none.
    """
    for chip in tree.children("sys/bus/i2c/drivers/ina3221x", "*-*"):
        for device in tree.children(chip, "iio:device*"):
            for label in tree.children(device, "rail_name_*"):
                name, number = tree.text(label) or "", label.rpartition("_")[2]
                if name.endswith("_IN"):
                    file = tree.locate(f"{device}/in_power{number}_input")
                    yield Sensor("ina3221:" + name, (file,))
    for device in tree.children("sys/class/hwmon", "hwmon*"):
        if tree.text(device + "/name") != "ina3221":
            continue
        for label in tree.children(device, "in*_label"):
            name, number = tree.text(label) or "", label.rpartition("/in")[2][: -len("_label")]
            if name.endswith("_IN"):
                files = tuple(
                    tree.locate(f"{device}/{kind}{number}_input") for kind in ("in", "curr")
                )
                yield Sensor("ina3221:" + name, files)


def choose_sensor(tree: Tree) -> Tuple[Optional[Sensor], Optional[str]]:
    """Return the sensor, or why there is none."""
    why = "no meter on this board"
    for sensor in find_sensors(tree):
        if sensor.answers():
            return sensor, None
        why = f"{sensor.source} does not answer"
        if any(file.exists() and not os.access(str(file), os.R_OK) for file in sensor.files):
            why = f"{sensor.source} may not be read by this user: {sensor.files[0]}"
    return None, why


Sample = Tuple[float, float]
"""When, in seconds of a clock that never goes back, and watts."""


def energy_j(samples: Sequence[Sample], begin: float, end: float) -> Optional[float]:
    """Return the energy of a window: the trapezoid rule, linear between samples at its ends.

    Returns:
        Joules; ``None`` where fewer than FEWEST_SAMPLES lie within, there is a hole in them, or
        they begin or end more than a period away from the window.
    """
    period = 1 / SAMPLE_HZ
    inside = [sample for sample in samples if begin <= sample[0] <= end]
    if len(inside) < FEWEST_SAMPLES:
        return None
    if samples[0][0] > begin + period or samples[-1][0] < end - period:
        return None
    points = [(begin, _between(samples, begin)), *inside, (end, _between(samples, end))]
    total = 0.0
    for (at, watts), (later, later_watts) in zip(points, points[1:]):
        if later - at > GAP_PERIODS * period:
            return None
        total += (later - at) * (watts + later_watts) / 2
    return total if total > 0 else None


def _between(samples: Sequence[Sample], at: float) -> float:
    """Return the watts at a time, those of the nearest sample where there is none beyond."""
    before = [sample for sample in samples if sample[0] <= at]
    after = [sample for sample in samples if sample[0] >= at]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (t0, w0), (t1, w1) = before[-1], after[0]
    return w0 if t1 == t0 else w0 + (w1 - w0) * (at - t0) / (t1 - t0)


class Look(NamedTuple):
    """What the board said at one moment; ``None`` where it does not tell."""

    at: float
    temperature_c: Optional[float]
    cpu_mhz: Optional[float]
    cpu_mhz_max: Optional[float]
    gpu_mhz: Optional[float]
    governor: Optional[str]
    power_mode: Optional[str]
    held_back_by: Optional[List[str]]
    """The kernel's throttles that are on; empty: none is."""
    busy_s: Optional[float]
    """CPU seconds of all the machine since boot."""
    own_s: Optional[float]
    """CPU seconds of trtexec."""


# The cooling devices that L4T's device tree of a Nano names for trips at 96 °C and above. Others,
# such as CORE-cap and gpu-scaling, trim voltages at every temperature.
_THROTTLES = ("cpu-balanced", "gpu-balanced", "emergency-balanced", "tegra_heavy", "tegra-heavy")


def look(tree: Tree, pid: Optional[int]) -> Look:
    """Read the board's state from a handful of small files."""
    cores = [core + "/cpufreq/" for core in tree.children("sys/devices/system/cpu", "cpu[0-9]*")]
    clocks = [khz for khz in (tree.integer(c + "scaling_cur_freq") for c in cores) if khz]
    governors: List[str] = []
    for governor in (tree.text(core + "scaling_governor") for core in cores):
        if governor and governor not in governors:
            governors.append(governor)
    return Look(
        at=time.monotonic(),
        temperature_c=_temperature_c(tree),
        cpu_mhz=sum(clocks) / len(clocks) / 1000 if clocks else None,
        cpu_mhz_max=max(clocks) / 1000 if clocks else None,
        gpu_mhz=_gpu_mhz(tree),
        governor="+".join(governors) or None,
        power_mode=_power_mode(tree),
        held_back_by=_held_back_by(tree),
        busy_s=_ticks_s(
            tree.text("proc/stat"), r"cpu +(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+) (\d+)"
        ),
        own_s=_ticks_s(
            tree.text(f"proc/{pid}/stat") if pid and tree.live else None,
            r".*\) \S(?: -?\d+){10} (\d+) (\d+) ",
        ),
    )


def _ticks_s(text: Optional[str], fields: str) -> Optional[float]:
    """Sum up the clock ticks that a pattern finds (proc(5)), in seconds."""
    found = re.match(fields, text or "", re.DOTALL)
    return sum(map(int, found.groups())) / os.sysconf("SC_CLK_TCK") if found else None


def _temperature_c(tree: Tree) -> Optional[float]:
    """Return that of the hottest zone of the die; the Nano's PMIC-Die says 100 at all times."""
    found = []
    for zone in tree.children("sys/class/thermal", "thermal_zone*"):
        if re.match("cpu|gpu|soc|tj", tree.text(zone + "/type") or "", re.IGNORECASE):
            millidegrees = tree.integer(zone + "/temp")
            if millidegrees is not None and ABSENT_C[0] < millidegrees / 1000 < ABSENT_C[1]:
                found.append(millidegrees / 1000)
    return max(found) if found else None


def _gpu_mhz(tree: Tree) -> Optional[float]:
    for device in tree.children("sys/class/devfreq", "*.gpu"):
        hertz = tree.integer(device + "/cur_freq")
        if hertz is not None:
            return hertz / 1e6
    return None


def _power_mode(tree: Tree) -> Optional[str]:
    number = re.search(r"\bpmode:(\d+)", tree.text("var/lib/nvpmodel/status") or "")
    if number is None:
        return None
    named = rf"^<\s*POWER_MODEL\s+ID={int(number.group(1))}\s+NAME=([^\s>]+)"
    name = re.search(named, tree.text("etc/nvpmodel.conf") or "", re.MULTILINE)
    return name.group(1) if name else f"mode {int(number.group(1))}"


def _held_back_by(tree: Tree) -> Optional[List[str]]:
    states = {}
    for device in tree.children("sys/class/thermal", "cooling_device*"):
        name = tree.text(device + "/type")
        if name in _THROTTLES:
            states[name] = tree.integer(device + "/cur_state")
    if not states or None in states.values():
        return None
    return [name for name in states if states[name]]


class Watch(threading.Thread):
    """Samples power at SAMPLE_HZ, and looks at the board twice a second, until it is told to end.

    Args:
        tree: The machine.
        sensor: ``None``: there is no power to sample.
        pid: Whose CPU time to look at besides the machine's.
    """

    def __init__(self, tree: Tree, sensor: Optional[Sensor], pid: Optional[int] = None) -> None:
        super().__init__(daemon=True)
        self._tree = tree
        self._sensor = sensor
        self._pid = pid
        self._over = threading.Event()
        self.samples: List[Sample] = []
        self.looks: List[Look] = []
        self.died = False

    def run(self) -> None:
        """Go on until :meth:`finish`."""
        due, n = time.monotonic(), 0
        while True:
            self._take()
            if n % SAMPLES_A_LOOK == 0:
                self.looks.append(look(self._tree, self._pid))
            n, due = n + 1, max(due + 1 / SAMPLE_HZ, time.monotonic())
            if self._over.wait(max(0.0, due - time.monotonic())):
                break
        self._take()
        self.looks.append(look(self._tree, self._pid))

    def finish(self) -> None:
        """End it, with a last sample."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _take(self) -> None:
        if self._sensor is None or self.died:
            return
        asked = time.monotonic()
        try:
            watts = self._sensor.read_w()
        except (OSError, ValueError):
            self.died = True
            return
        # A sensor behind I2C takes milliseconds; the value is of about the middle of them.
        self.samples.append(((asked + time.monotonic()) / 2, watts))


# --------------------------------------------------------------------------------------- artifact


class Artifact(NamedTuple):
    """An artifact folder, its record, and its ONNX."""

    folder: Path
    record: Dict[str, Any]
    onnx: Path


_NOTHING = type(None)
_KINDS: Dict[str, Tuple[type, ...]] = {
    "files": (list,),
    "sha256": (str,),
    "parent_sha256": (str, _NOTHING),
    "target": (str,),
    "runtime": (str,),
    "precision": (str,),
    "precision_asked": (str,),
    "imgsz": (int,),
    "names": (list,),
    "size_mb": (int, float, _NOTHING),
    "gate": (dict, _NOTHING),
}
"""What is used of a record, and what it may be there."""


def _check_kinds(record: Any) -> None:
    """See that what is used of a record is what it should be, before minutes of measuring.

    Raises:
        ValueError: Something of it is not.
    """
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    for field, kinds in _KINDS.items():
        if type(record.get(field)) not in kinds:
            raise ValueError(f"{field} is {record.get(field)!r}")
    for name in record["files"] + record["names"]:
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no name")
    verdict = (record.get("gate") or {}).get("verdict", "")
    if not isinstance(verdict, str):
        raise ValueError(f"the gate's verdict is {verdict!r}")
    json.dumps(record, allow_nan=False)  # neither could the report hold such numbers


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact's record and see that its files are those it describes.

    Raises:
        AgentError: It is no artifact, one for another runtime, incomplete, not what was exported,
            or with more in it than a model.
    """
    file = folder / "artifact.json"
    again = "copy the whole folder once more, or make it again: musgd export --target jetson-nano"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        _check_kinds(record)
    except FileNotFoundError:
        raise AgentError(f"{file} does not exist", "give an artifact's folder", USAGE) from None
    except OSError as error:
        raise AgentError(f"cannot read {file}: {error.strerror}", "check it", USAGE) from error
    except ValueError as error:
        raise AgentError(f"{file} is no artifact's record: {error}", again, USAGE) from error
    major = str(record.get("schema", SCHEMA)).partition(".")[0]
    if major != SCHEMA.partition(".")[0]:
        raise AgentError(
            "{} has schema {}, and this agent reads {}".format(file, record["schema"], SCHEMA),
            "copy the agent of the same musgd that made it",
            USAGE,
        )
    if record["runtime"] != "tensorrt":
        raise AgentError(
            "the artifact {} is made for {}, not for TensorRT".format(folder, record["runtime"]),
            "musgd export --target jetson-nano makes the one for this board",
            USAGE,
        )
    files: List[str] = record["files"]
    onnx = [name for name in files if name.endswith(".onnx")]
    if len(onnx) != 1 or PurePosixPath(onnx[0]).name != onnx[0]:
        raise AgentError(f"the artifact {folder} names no ONNX in its folder, or several", again)
    # An engine is machine code; one that comes with a model could be anybody's.
    for name in files:
        if name not in (onnx[0], onnx[0] + ".data", onnx[0] + "_data"):
            raise AgentError(
                f"the artifact {folder} holds more than an ONNX and its data: {name}", again
            )
    digest = hashlib.sha256()
    try:
        for name in sorted(files):
            digest.update((folder / name).read_bytes())
    except FileNotFoundError as error:
        raise AgentError(f"the artifact {folder} lacks {error.filename}", again) from error
    except OSError as error:
        what = f"cannot read {error.filename}: {error.strerror}"
        raise AgentError(what, "check the file's permissions") from error
    found, wanted = digest.hexdigest(), record["sha256"]
    if found != wanted:
        raise AgentError(
            f"the model in {folder} is not the one that was exported: its sha256 is {found[:12]}…, "
            f"artifact.json says {wanted[:12]}…",
            again,
        )
    return Artifact(folder, record, folder / onnx[0])


# ---------------------------------------------------------------------------------------- trtexec


class Done(NamedTuple):
    """A trtexec that has ended."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    lines: List[str]
    """The last it said."""
    peak_memory_mb: float
    """Most resident memory that it had."""

    @property
    def errors(self) -> List[str]:
        """What it called errors, without time and level."""
        found = [
            re.sub(r"^(\[[^\]]*\] )*\[E\] (\[TRT\] )?", "", e) for e in self.lines if "[E]" in e
        ]
        return [text.strip() for text in found]


def run_trtexec(
    command: List[str],
    on_line: Callable[[str, int], None] = lambda _line, _pid: None,
    limit_s: Optional[float] = None,
) -> Done:
    """Run it to its end. It is killed when this process is interrupted.

    Args:
        command: Program and flags.
        on_line: Called with each line as it comes, and the process id.
        limit_s: Kill it after so long.

    Raises:
        AgentError: It cannot be started.
    """
    try:
        # A session of its own: Ctrl-C reaches this process alone, which then cleans up.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise AgentError(
            f"cannot run {command[0]}: {error.strerror}",
            "give the path of trtexec with --trtexec",
            UNSUPPORTED,
        ) from error
    assert process.stdout is not None
    lines: Deque[str] = deque(maxlen=2000)
    alarm = threading.Timer(limit_s, process.kill) if limit_s else None
    try:
        if alarm:
            alarm.start()
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            on_line(lines[-1], process.pid)
        # wait4 tells the memory of this one child.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else status >> 8
    finally:
        if alarm:
            alarm.cancel()
        if process.returncode is None:
            process.kill()
            process.wait()
        process.stdout.close()
    return Done(process.returncode, list(lines), usage.ru_maxrss / 1024)


def find_trtexec(given: Optional[str], tree: Tree, host: Mapping[str, Any]) -> Path:
    """Return the program.

    Raises:
        AgentError: It is not there.
    """
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise AgentError(f"{given} does not exist", "check --trtexec", USAGE)
        return path.absolute()  # a bare name would be looked for in the PATH
    path = tree.locate(TRTEXEC)
    if path.is_file():
        return path
    found = shutil.which("trtexec") if tree.live else None
    if found:
        return Path(found)
    mend = "sudo apt-get install libnvinfer-bin, or give its path with --trtexec"
    if host["jetpack"] is None:
        mend = (
            "flash JetPack 4.6: this system is not NVIDIA's L4T and has neither CUDA nor TensorRT"
        )
    raise AgentError(f"there is no trtexec in /{TRTEXEC}", mend, UNSUPPORTED)


def probe(trtexec: Path) -> str:
    """Return the TensorRT version of a trtexec that has the flags that are needed.

    Raises:
        AgentError: It has not.
    """
    done = run_trtexec([str(trtexec), "--help"], limit_s=PATIENCE_S)
    banner = re.search(r"\[TensorRT v(\d+)\]", "\n".join(done.lines))
    if banner is None:
        raise AgentError(
            "{} does not say its version: {}".format(
                trtexec, "; ".join(done.lines[:2]) or "nothing"
            ),
            "give the path of JetPack's trtexec with --trtexec",
            UNSUPPORTED,
        )
    number = int(banner.group(1))
    # 8201 is 8.2.1, and from TensorRT 10 on 100300 is 10.3.0.
    step = 100 if number >= 10000 else 10
    version = (number // (100 * step), number // 100 % step, number % 100)
    text = ".".join(map(str, version))
    known = set(re.findall(r"--\w+", "\n".join(done.lines)))
    missing = [flag for flag in FLAGS if flag not in known]
    if missing or not OLDEST <= version[:2] <= NEWEST:
        lacks = ", without {}".format(", ".join(missing)) if missing else ""
        raise AgentError(
            f"{trtexec} is of TensorRT {text}{lacks}; this agent drives that of 8.0 to 8.2",
            "use it under JetPack 4.6; the README beside the model says what to type elsewhere",
            UNSUPPORTED,
        )
    return text


class Engine(NamedTuple):
    """An engine that is built, and how."""

    path: Path
    flags: List[str]
    was_there: bool


def engine_for(
    artifact: Artifact, trtexec: Path, version: str, board: str, workspace_mb: int, tree: Tree
) -> Engine:
    """Return the engine of a model, built now unless it was built here before.

    An engine runs on the GPU and the TensorRT that it was built by, so its name tells both, and
    what it was built from. It is machine code, so none is taken from beside a model.

    Raises:
        AgentError: It cannot be built, or not be kept.
    """
    flags = ["--fp16", f"--workspace={workspace_mb}"]
    built_from = [artifact.record["sha256"], version, board, *flags]
    key = hashlib.sha256("\n".join(built_from).encode()).hexdigest()
    name = f"{board}-trt{version}-{key[:16]}.engine"
    cache = _cache()
    path = cache / name
    if path.is_file() and path.stat().st_size:
        say(f"engine: {path} was built before")
        with suppress(OSError):  # it is root's, of a run with sudo
            os.utime(str(path), ns=(int(time.time() * 1e9), path.stat().st_mtime_ns))
        return Engine(path, flags, was_there=True)
    _clear(cache)
    needed = 2 * sum((artifact.folder / file).stat().st_size for file in artifact.record["files"])
    needed += SPARE_BYTES
    free = _free_bytes(cache)
    if free < needed:
        raise AgentError(
            f"no space to build in {cache}: {free >> 20} MB are free, and an engine may "
            f"take {needed >> 20} MB",
            "free some disk space",
        )
    handle, temporary = _temporary(cache, name)
    os.close(handle)
    try:
        say(f"building {path} with TensorRT {version}: this takes minutes on a Nano")
        done = run_trtexec(
            [
                str(trtexec),
                f"--onnx={artifact.onnx}",
                *flags,
                "--buildOnly",
                f"--saveEngine={temporary}",
            ]
        )
        if done.code != 0:
            _raise_unbuilt(done, artifact, cache, tree)
        if not os.path.getsize(temporary) or _free_bytes(cache) < 1 << 20:
            # trtexec of 8.2 does not notice when the last of an engine does not fit.
            _raise_full(path)
        _put(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return Engine(path, flags, was_there=False)


def _cache() -> Path:
    """Return the folder of engines, which is nobody's but this user's.

    Raises:
        AgentError: There can be none.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
        folder = base / "musgd" / "engines"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(str(folder), 0o700)
    except (OSError, KeyError, RuntimeError) as error:  # the latter two: a user without a home
        raise AgentError(
            f"engines cannot be kept: {error}",
            "set XDG_CACHE_HOME to a folder with some room that you may write to",
        ) from error
    return folder


def _clear(cache: Path) -> None:
    """Remove the engines that nobody has used of late, and what a cut of the power left."""
    for path in cache.iterdir():
        with suppress(OSError):  # another process clears it, too
            if time.time() - path.stat().st_atime > KEPT_S:
                path.unlink()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(str(folder)).free


def _raise_full(path: Path) -> NoReturn:
    raise AgentError(f"cannot write {path}: the disk is full", "free some disk space")


def _raise_unbuilt(done: Done, artifact: Artifact, cache: Path, tree: Tree) -> NoReturn:
    """Say why no engine was built."""
    text = "\n".join(done.lines).lower()
    if done.code == -signal.SIGKILL or "out of memory" in text or "outofmemory" in text:
        how = "was killed" if done.code == -signal.SIGKILL else "failed"
        raise AgentError(
            f"building the engine {how}: memory ran out, of {_memory(tree)}",
            "sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile "
            "&& sudo swapon /swapfile, end the desktop with sudo init 3, or try --workspace 256",
        )
    if "saving engine to file failed" in text or _free_bytes(cache) < 1 << 20:
        _raise_full(cache)
    _raise_unknown_flag(done)
    if b"QuantizeLinear" in artifact.onnx.read_bytes():
        raise AgentError(
            f"TensorRT builds no FP16 engine of {artifact.onnx}, which is quantized: "
            f"{_first_error(done)}",
            "musgd export --target jetson-nano makes the FP16 one; bench that",
        )
    raise AgentError(
        f"TensorRT builds no engine of {artifact.onnx}: {_first_error(done)}",
        "musgd export --target jetson-nano makes the ONNX again, for the TensorRT of this board",
    )


def _raise_unknown_flag(done: Done) -> None:
    unknown = [text for text in done.errors if text.startswith("Unknown option")]
    if unknown:
        raise AgentError(
            "trtexec does not know what it was asked: {}".format(", ".join(unknown)),
            "use the trtexec of JetPack 4.6, with --trtexec",
            UNSUPPORTED,
        )


def _first_error(done: Done) -> str:
    if done.code < 0:
        return f"trtexec ended by {signal.Signals(-done.code).name}"
    said = done.errors or [line for line in done.lines if line.strip()][-1:] or ["it said nothing"]
    return said[0][:300]


def _memory(tree: Tree) -> str:
    text = tree.text("proc/meminfo") or ""
    sizes = []
    for field, name in (("MemTotal", "memory"), ("SwapTotal", "swap")):
        found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        sizes.append(f"{int(found.group(1)) >> 10 if found else 0} MB {name}")
    return " and ".join(sizes)


# ----------------------------------------------------------------------------------------- timing


class Timing(NamedTuple):
    """One fresh trtexec: what it timed, and what was seen meanwhile."""

    began: float
    """Of the first timed inference, seconds since 1970 UTC."""
    begin: float
    """The same, as Watch has it."""
    seconds: float
    infer_ms: List[float]
    ends_s: List[float]
    """When each timed inference ended, since the first one began."""
    load_ms: float
    first_inference_ms: float
    warmup: int
    steady: bool
    peak_memory_mb: float
    energy_j: Optional[float]
    n_samples: int
    why_no_energy: Optional[str]
    looks: List[Look]


def time_engine(
    engine: Engine,
    trtexec: Path,
    tree: Tree,
    sensor: Optional[Sensor],
    duration_s: int,
    warmup_s: float,
) -> Timing:
    """Time an engine in a fresh process.

    ``--exposeDMA`` has one inference end before the next begins: the time of one, its input copied
    in and its output copied out, and not the rate of several that overlap.

    Raises:
        AgentError: It fails, or writes no times.
    """
    warmup_ms = round(warmup_s * 1000)
    watch: Optional[Watch] = None
    load_s: Optional[float] = None
    started: List[Tuple[float, float]] = []
    ended: List[float] = []

    def hear(line: str, pid: int) -> None:
        # Each as it comes: a long run says more lines than are kept of it.
        nonlocal watch, load_s
        loaded = re.search(r"Engine loaded in ([\d.eE+-]+) sec", line)
        if loaded is not None:
            load_s = float(loaded.group(1))
        elif "Warmup completed" in line and watch is not None:
            ended.append(time.monotonic())
            watch.finish()
        elif line.endswith("Starting inference") and watch is None:
            started.append((time.monotonic(), time.time()))
            watch = Watch(tree, sensor, pid)
            watch.start()

    with tempfile.TemporaryDirectory(prefix="nano_agent.") as folder:
        times = Path(folder) / "times.json"
        command = [
            str(trtexec),
            f"--loadEngine={engine.path}",
            f"--warmUp={warmup_ms}",
            f"--duration={duration_s}",
            "--avgRuns=100",
            "--exposeDMA",
            f"--exportTimes={times}",
        ]
        try:
            done = run_trtexec(command, hear, limit_s=warmup_s + duration_s + PATIENCE_S)
        finally:
            if watch is not None:
                watch.finish()
        if done.code != 0:
            _raise_unknown_flag(done)
            raise AgentError(
                f"trtexec does not run {engine.path}: {_first_error(done)}",
                "remove that file, so that it is built again",
            )
        rows = _read_times(times)
    if not started or not ended or load_s is None or watch is None:
        raise AgentError(
            "trtexec does not say when it began to run the engine",
            "use the trtexec of JetPack 4.6, with --trtexec",
            UNSUPPORTED,
        )
    # 8.2 writes the warm-up too, and tells it from the rest by this.
    timed = [row for row in rows if row.compute >= warmup_ms]
    if not timed:
        raise AgentError(f"trtexec timed nothing in {duration_s} s", "--duration 60")
    warm = rows[: len(rows) - len(timed)]
    start = timed[0].begin
    at, wall = started[0]
    begin, seconds = at + start / 1000, (timed[-1].end - start) / 1000
    energy: Optional[float] = None
    n_samples = 0
    why: Optional[str] = None
    if sensor is not None:
        if watch.died:
            why = f"the sensor {sensor.source} vanished in the run"
        elif abs(at + timed[-1].end / 1000 - ended[0]) > CLOCKS_AGREE_S:
            why = "trtexec's times do not fit its lines, so when it drew power cannot be told"
        else:
            energy = energy_j(watch.samples, begin, begin + seconds)
            n_samples = sum(begin <= sample[0] <= begin + seconds for sample in watch.samples)
            why = f"too few samples of {sensor.source} in a repeat"
    return Timing(
        began=wall + start / 1000,
        begin=begin,
        seconds=seconds,
        infer_ms=[round(row.latency, 4) for row in timed],
        ends_s=[(row.end - start) / 1000 for row in timed],
        load_ms=load_s * 1000,
        first_inference_ms=rows[0].latency,
        warmup=len(warm),
        steady=_is_steady(warm),
        peak_memory_mb=done.peak_memory_mb,
        energy_j=energy,
        n_samples=n_samples,
        why_no_energy=None if energy is not None else why,
        looks=[seen for seen in watch.looks if begin <= seen.at <= begin + seconds]
        or watch.looks[-1:],
    )


class Row(NamedTuple):
    """One inference, in milliseconds since the first one was asked for."""

    begin: float
    compute: float
    end: float
    latency: float
    """Input copied in, computed, output copied out."""


def _read_times(file: Path) -> List[Row]:
    """Read what ``--exportTimes`` wrote.

    Raises:
        AgentError: It is no such file.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        # 8.0 calls the copies in and out, 8.2 host to device and device to host.
        return [
            Row(
                float(row["startH2dMs"] if "startH2dMs" in row else row["startInMs"]),
                float(row["startComputeMs"]),
                float(row["endD2hMs"] if "endD2hMs" in row else row["endOutMs"]),
                float(row["latencyMs"]),
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AgentError(
            f"trtexec wrote no times that can be read: {error!r}",
            f"free some space in {tempfile.gettempdir()}",
        ) from error


def _is_steady(warm: Sequence[Row]) -> bool:
    """Tell whether a warm-up had settled when it ended, as ``musgd bench`` does."""
    medians, window, begin = [], [], warm[0].begin if warm else 0.0
    for row in warm:
        window.append(row.latency)
        if len(window) >= WINDOW_FRAMES and row.end - begin >= WINDOW_S * 1000:
            medians.append(statistics.median(window))
            window, begin = [], row.end
    last = medians[-STEADY_WINDOWS:]
    return len(last) == STEADY_WINDOWS and max(last) <= min(last) * (1 + STEADY_SPREAD)


# ----------------------------------------------------------------------------------------- report


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return math.fsum(values) / len(values)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values, linear between them, as NumPy has it."""
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# Student's t, two-sided 95 %, for 2, 3, … degrees of freedom.
_T95 = (
    *(4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201),
    *(2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def prediction_interval(value: float, repeats: Sequence[float]) -> Optional[Tuple[float, float]]:
    """Return where a figure of another such run is expected; see ``musgd_cli.bench.interval``."""
    n = len(repeats)
    if n < 3 or min(repeats) <= 0:
        return None
    t95 = _T95[min(n - 3, len(_T95) - 1)]
    spread = statistics.stdev([math.log(repeat) for repeat in repeats])
    factor = math.exp(t95 * spread * math.sqrt(2 / n) * math.sqrt(math.pi / 2))
    return value / factor, value * factor


def make_report(
    artifact: Artifact,
    host: Mapping[str, Any],
    engine: Engine,
    version: str,
    timings: Sequence[Timing],
    warmup_s: float,
    sensor: Optional[Sensor],
    why_no_power: Optional[str],
    idle_w: Optional[float],
    int8_asked: bool,
) -> Dict[str, Any]:
    """Sum up all repeats as a BenchReport."""
    record = artifact.record
    samples = [value for timing in timings for value in timing.infer_ms]
    ordered = sorted(samples)
    seconds = sum(timing.seconds for timing in timings)
    looks = [seen for timing in timings for seen in timing.looks]
    p50 = percentile(ordered, 0.5)
    medians = [statistics.median(timing.infer_ms) for timing in timings]
    interval = prediction_interval(p50, medians)
    throttles = [seen.held_back_by for seen in looks if seen.held_back_by is not None]
    own, busy = _used_s(timings)
    # The gate judged the artifact as it was exported; built in FP16, an INT8 one is another model.
    gate = (record.get("gate") or {}) if record["precision"] == "fp16" else {}
    settings = {
        "timed_by": "trtexec: random input, copies in and out counted, one inference at a time",
        "built_with": " ".join(engine.flags),
        "fp16": FP16_ALLOWED,
    }
    if int8_asked:
        settings["precision_asked"] = f"int8: {NO_INT8}"
    report = {
        "schema": SCHEMA,
        "artifact": str(artifact.folder),
        "artifact_sha256": record["sha256"],
        "target": record["target"],
        "runtime": "tensorrt",
        "runtime_version": version,
        "precision": "fp16",
        "imgsz": record["imgsz"],
        "names": record["names"],
        "host": dict(host),
        "data": None,
        "split": None,
        "n_images": 0,
        "accuracy_note": NO_ACCURACY,
        "threads": 1,
        "n": len(samples),
        "warmup": sum(timing.warmup for timing in timings),
        "warmup_s": warmup_s,
        "steady": all(timing.steady for timing in timings),
        "seconds": seconds,
        "latency_ms": {
            "p50": p50,
            "p90": percentile(ordered, 0.9),
            "p99": percentile(ordered, 0.99),
            "mean": mean(samples),
            "min": ordered[0],
            "max": ordered[-1],
        },
        "p50_interval_ms": interval,
        "stable": None if interval is None else interval[1] - interval[0] <= 0.1 * p50,
        "repeats": [
            {
                "began": timing.began,
                "seconds": timing.seconds,
                "n": len(timing.infer_ms),
                "p50_ms": middle,
                "load_ms": timing.load_ms,
                "first_inference_ms": timing.first_inference_ms,
                "warmup": timing.warmup,
                "warmup_s": warmup_s,
                "steady": timing.steady,
            }
            for timing, middle in zip(timings, medians)
        ],
        "samples_ms": samples,
        "fps": 1000 / mean(samples),
        "fps_end_to_end": None,
        "pre_ms": None,
        "post_ms": None,
        "load_ms": statistics.median(timing.load_ms for timing in timings),
        "first_inference_ms": statistics.median(timing.first_inference_ms for timing in timings),
        "peak_memory_mb": max(timing.peak_memory_mb for timing in timings),
        "map50_95": None,
        "map50": None,
        "recall_small": None,
        "n_small": 0,
        "temperature_c": max(_known(seen.temperature_c for seen in looks), default=None),
        "throttled": any(throttles) if throttles else None,
        "throttle_reasons": sorted({name for names in throttles for name in names}),
        "cpu_mhz": _mean_known(seen.cpu_mhz for seen in looks),
        "cpu_mhz_highest": _mean_known(seen.cpu_mhz_max for seen in looks),
        "gpu_mhz": _mean_known(seen.gpu_mhz for seen in looks),
        "governor": looks[-1].governor if looks else None,
        "power_mode": looks[-1].power_mode if looks else None,
        "cores_used": None if own is None else own,
        "cores_used_by_others": None if own is None or busy is None else max(0.0, busy - own),
        "moments": _moments(timings),
        "size_mb": record.get("size_mb"),
        "started": _utc(timings[0].began),
        "engine": settings,
        "parent_sha256": record.get("parent_sha256"),
        "gate": gate.get("verdict"),
        "versions": {"musgd": VERSION, "tensorrt": version, "python": platform.python_version()},
    }
    report.update(_power(timings, sensor, why_no_power, idle_w))
    return report


def _power(
    timings: Sequence[Timing],
    sensor: Optional[Sensor],
    why_none: Optional[str],
    idle_w: Optional[float],
) -> Dict[str, Any]:
    """Return the fields of a report that the sensor's samples give, of all repeats or of none."""
    reasons = [timing.why_no_energy for timing in timings if timing.energy_j is None]
    if sensor is None or reasons:
        return {
            "power_w": None,
            "energy_per_frame_j": None,
            "power_source": None,
            "power_kind": None,
            "power_note": why_none if sensor is None else reasons[0],
        }
    seconds = sum(timing.seconds for timing in timings)
    watts = sum(timing.energy_j or 0.0 for timing in timings) / seconds
    frame_s = seconds / sum(len(timing.infer_ms) for timing in timings)
    hz = sum(timing.n_samples for timing in timings) / seconds
    return {
        "power_w": watts,
        "idle_w": idle_w,
        "energy_per_frame_j": watts * frame_s,
        "net_energy_per_frame_j": None if idle_w is None else (watts - idle_w) * frame_s,
        "fps_per_watt": None,
        "power_source": sensor.source,
        "power_scope": "module",
        "power_kind": "measured",
        "power_hz": float(f"{hz:.3g}"),
        "power_s": seconds,
        "power_note": None,
    }


def _known(values: Iterator[Optional[float]]) -> List[float]:
    return [value for value in values if value is not None]


def _mean_known(values: Iterator[Optional[float]]) -> Optional[float]:
    known = _known(values)
    return mean(known) if known else None


def _used_s(timings: Sequence[Timing]) -> Tuple[Optional[float], Optional[float]]:
    """Return the cores that trtexec used, and the whole machine, between the looks of a repeat."""
    own = busy = seconds = 0.0
    for timing in timings:
        first, last = timing.looks[0], timing.looks[-1]
        if last.at <= first.at or first.own_s is None or last.own_s is None:
            return None, None
        if first.busy_s is None or last.busy_s is None:
            return None, None
        own += last.own_s - first.own_s
        busy += last.busy_s - first.busy_s
        seconds += last.at - first.at
    return own / seconds, busy / seconds


def _moments(timings: Sequence[Timing]) -> List[Dict[str, Any]]:
    """Cut the timed inferences into moments of about a second, each with what was seen then."""
    moments = []
    origin = timings[0].began
    for timing in timings:
        ends = timing.ends_s
        length = max(MOMENT_S, ends[-1] / MOST_MOMENTS)
        first, begin = 0, 0.0
        while first < len(ends):
            last = first
            while last < len(ends) - 1 and ends[last] < begin + length:
                last += 1
            if ends[-1] - ends[last] < length / 2:  # a short rest goes with it
                last = len(ends) - 1
            middle = (begin + ends[last]) / 2
            seen = min(timing.looks, key=lambda one: abs(one.at - timing.begin - middle))
            moments.append(
                {
                    "t_s": round(timing.began - origin + middle, 3),
                    "fps": round((last + 1 - first) / (ends[last] - begin), 4),
                    "temperature_c": seen.temperature_c,
                    "cpu_mhz": seen.cpu_mhz,
                    "throttled": None if seen.held_back_by is None else bool(seen.held_back_by),
                }
            )
            first, begin = last + 1, ends[last]
    return moments


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat()


# ------------------------------------------------------------------------------------------ files


def _temporary(folder: Path, name: str) -> Tuple[int, str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(prefix=f".{name}.", dir=str(folder))
    except OSError as error:
        _raise_unwritten(folder / name, error)


def _put(temporary: str, path: Path) -> None:
    """Make a finished file appear under its name, whole, whatever befalls the power."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.chmod(temporary, 0o666 & ~umask)
        os.rename(temporary, str(path))
    except OSError as error:
        _raise_unwritten(path, error)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all.

    Raises:
        AgentError: It cannot be written.
    """
    handle, temporary = _temporary(path.parent, path.name)
    try:
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(data, stream, indent=2, allow_nan=False)
                stream.write("\n")
        except OSError as error:
            _raise_unwritten(path, error)
        _put(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _raise_unwritten(path: Path, error: OSError) -> NoReturn:
    mend = "--out FILE.json, in a folder you may write to"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "free some disk space"
    raise AgentError(f"cannot write {path}: {error.strerror or error}", mend)


def _report_file(artifact: Artifact, out: Optional[str]) -> Path:
    """Return where the report goes: a file that is not there yet, and that can be written.

    Raises:
        AgentError: ``--out`` is there already, or nothing can be written there.
    """
    if out is not None:
        path = Path(out)
        if os.path.exists(out):  # that of 3.6's Path raises where it may not look
            raise AgentError(f"{out} exists already", "choose another --out", USAGE)
    else:
        stem = datetime.now().strftime("%Y%m%d-%H%M%S")
        path, number = artifact.folder / "bench" / (stem + ".json"), 1
        while path.exists():
            number += 1
            path = path.with_name(f"{stem}-{number}.json")
    # Found out now, and not when all is measured.
    handle, temporary = _temporary(path.parent, path.name)
    os.close(handle)
    os.unlink(temporary)
    return path


# ----------------------------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    """Says what is wrong in two lines, as all of musgd does."""

    def error(self, message: str) -> NoReturn:
        """End with what argparse found."""
        raise AgentError(message, f"{self.prog} --help", USAGE)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _called() -> str:
    """Return what to type for this program: install.sh puts a ``musgd`` beside it that runs it."""
    own = Path(sys.argv[0])
    if own.name == "musgd" or own.with_name("musgd").is_file():
        return "musgd"
    return "python3 " + shlex.quote(sys.argv[0])


def parser() -> Parser:
    """Return the command line's grammar."""
    whole = Parser(
        prog=_called(),
        description="Measure a musgd artifact on a Jetson with JetPack 4.6.",
        epilog="example: %(prog)s bench jetson-nano-tensorrt-fp16-640",
    )
    whole.add_argument("--version", action="version", version="musgd " + VERSION)
    verbs = whole.add_subparsers(dest="verb", metavar="bench|doctor")
    verbs.required = True
    doctor = verbs.add_parser("doctor", help="say what this board is, as JSON")
    doctor.add_argument("--json", action="store_true", help="its only form, as musgd's own has it")
    bench = verbs.add_parser("bench", help="build, time and meter an artifact")
    bench.add_argument("artifact", metavar="ARTIFACT_DIR", help="its folder, copied here")
    bench.add_argument(
        "--duration",
        type=_positive,
        default=60.0,
        metavar="S",
        help="seconds that are timed, over all repeats; each has whole seconds (60)",
    )
    bench.add_argument("--repeats", type=_count, default=5, metavar="N", help="fresh processes (5)")
    bench.add_argument(
        "--warmup", type=_not_negative, default=5.0, metavar="S", help="seconds before each (5)"
    )
    bench.add_argument(
        "--idle",
        type=_not_negative,
        default=10.0,
        metavar="S",
        help="seconds of rest, metered, before all (10)",
    )
    bench.add_argument(
        "--workspace", type=_count, metavar="MB", help="memory of the builder (1024; 2 GB: 512)"
    )
    bench.add_argument(
        "--int8", action="store_true", help="ask for INT8: FP16 is built all the same"
    )
    bench.add_argument("--trtexec", metavar="PATH", help="default: /" + TRTEXEC)
    bench.add_argument("--out", metavar="FILE.json", help="default: a new file in its bench/")
    bench.add_argument("--json", action="store_true", help="print the report, and nothing else")
    for verb in (doctor, bench):
        verb.add_argument("--root", default="/", metavar="DIR", help="a recorded machine's files")
    return whole


def bench(options: argparse.Namespace) -> Dict[str, Any]:
    """Build, time and meter an artifact, and keep the report.

    Raises:
        AgentError: Something of it cannot be done.
    """
    tree = Tree(Path(options.root))
    host = describe(tree, os.environ if tree.live else {})
    artifact = read_artifact(Path(options.artifact))
    path = _report_file(artifact, options.out)
    trtexec = find_trtexec(options.trtexec, tree, host)
    version = probe(trtexec)
    int8_asked = options.int8 or any(
        "int8" in artifact.record[field] for field in ("precision", "precision_asked")
    )
    if int8_asked:
        say(f"note: int8 was asked for; {NO_INT8}")
    workspace_mb = options.workspace or (512 if host["board"] == "jetson-nano-2gb" else 1024)
    engine = engine_for(artifact, trtexec, version, host["board"], workspace_mb, tree)
    sensor, why_no_power = choose_sensor(tree)
    if sensor is None:
        say(f"no figures of power: {why_no_power}")
    idle_w = _at_rest(tree, sensor, options.idle)
    duration_s = math.ceil(options.duration / options.repeats)
    timings = []
    for number in range(1, options.repeats + 1):
        say(f"timing {number}/{options.repeats}: {duration_s} s")
        try:
            timing = time_engine(engine, trtexec, tree, sensor, duration_s, options.warmup)
        except AgentError:
            if number > 1 or not engine.was_there:
                raise
            say("the engine of before does not run: it is built anew")
            engine.path.unlink()
            engine = engine_for(artifact, trtexec, version, host["board"], workspace_mb, tree)
            timing = time_engine(engine, trtexec, tree, sensor, duration_s, options.warmup)
        timings.append(timing)
    report = make_report(
        artifact,
        host,
        engine,
        version,
        timings,
        options.warmup,
        sensor,
        why_no_power,
        idle_w,
        int8_asked,
    )
    write_json(path, report)
    _sum_up(report)
    if not options.json:
        sys.stdout.write(f"{path}\n")
    return report


def _at_rest(tree: Tree, sensor: Optional[Sensor], seconds: float) -> Optional[float]:
    """Return the mean watts of the board at rest; ``None`` where they cannot be told."""
    if sensor is None or not seconds:
        return None
    say(f"resting for {seconds:g} s")
    watch = Watch(tree, sensor)
    begin = time.monotonic()
    watch.start()
    try:
        time.sleep(seconds)
    finally:
        watch.finish()
    end = time.monotonic()
    energy = None if watch.died else energy_j(watch.samples, begin, end)
    return None if energy is None else energy / (end - begin)


def _sum_up(report: Mapping[str, Any]) -> None:
    latency = report["latency_ms"]
    say(
        "{} {} px: p50 {:.2f} ms, p90 {:.2f} ms, p99 {:.2f} ms, {:.1f} inferences a second".format(
            report["precision"],
            report["imgsz"],
            latency["p50"],
            latency["p90"],
            latency["p99"],
            report["fps"],
        )
    )
    if report["power_w"] is None:
        say("power: not measured here: {}".format(report["power_note"]))
    else:
        say(
            "power: {:.2f} W of the whole module, {:.4f} J an inference, by {}".format(
                report["power_w"], report["energy_per_frame_j"], report["power_source"]
            )
        )
    if report["throttled"]:
        say("the board was throttled: {}".format(", ".join(report["throttle_reasons"])))


def _interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a command line and return its exit code."""
    try:
        options = parser().parse_args(arguments)
        if options.verb == "doctor":
            tree = Tree(Path(options.root))
            found = describe(tree, os.environ if tree.live else {})
        else:
            found = bench(options)
            if not options.json:
                return 0
            found = {"schema": SCHEMA, "reports": [found]}
        json.dump(found, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        sys.stdout.flush()
    except AgentError as error:
        sys.stderr.write(f"error: {error.what}\nmend: {error.mend}\n")
        return error.code
    except BrokenPipeError:  # who read stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write(
            "error: interrupted\nmend: run it again; an engine that is built is kept\n"
        )
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    sys.exit(main())
