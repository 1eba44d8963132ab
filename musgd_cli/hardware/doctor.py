"""What stands in the way of this board's work, and what to type about it.

A check is made only where it can fail and where its outcome means something on this board. It is
*advice* when the board's main job can be done all the same.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.hardware import boards, power
from musgd_cli.hardware.boards import Board
from musgd_cli.hardware.cpu import usable_cores
from musgd_cli.hardware.power.pmic import has_pmic
from musgd_cli.hardware.thermal import throttle_reasons
from musgd_cli.hardware.tree import DEVICE_TREES, Tree
from musgd_cli.installation import ENGINE_EXTRAS, how_to_add, pip
from musgd_cli.records import Check, Host

_FREE_MB = 500
"""Room for a run's checkpoints and resume state, and its artifacts."""
_TRAINS_MB, _RUNS_MB = 3500, 900
"""A machine sold with 4 GB, or with 1 GB, less what its kernel and GPU keep."""

# The A53 and A57 have the instruction set of the A72, on which the wheel was seen to fail.
_ARMV8_0 = ("Cortex-A53", "Cortex-A57", "Cortex-A72")


@dataclass(frozen=True)
class _Machine:
    host: Host
    board: Board
    tree: Tree

    @property
    def in_container(self) -> bool:
        return self.host.container not in (None, "none", "wsl")


def examine(host: Host, root: Path = Path("/")) -> tuple[Check, ...]:
    """Check a machine against what its board's work needs.

    Args:
        host: What :func:`musgd_cli.hardware.detect` told of ``root``.
        root: ``/``, or a recorded tree: then what only a live machine tells is left out.
    """
    board = boards.by_name(host.board)
    assert board is not None, host.board
    machine = _Machine(host, board, Tree(root))
    rules: list[Callable[[_Machine], Iterator[Check]]] = [
        _device_tree,
        _userland,
        _emulation,
        _memory,
        _jetpack,
        _gpu_driver,
        _power_meter,
        _throttling,
    ]
    if machine.tree.live:
        rules += [_cores, _disk, _clock, _engines, _opencv, _training, _torch_on_arm, _torch_cuda]
    else:
        rules += [_python]
    checks = (check for rule in rules for check in rule(machine))
    return tuple(c.model_copy(update={"mend": None}) if c.ok else c for c in checks)


# ---------------------------------------------------------------------------------- the machine


def _device_tree(machine: _Machine) -> Iterator[Check]:
    if not machine.in_container or machine.host.arch != "aarch64":
        return
    shown = any(machine.tree.exists(f"{folder}/compatible") for folder in DEVICE_TREES)
    yield Check(
        name="device tree",
        ok=shown or not machine.board.name.startswith("generic"),
        found="readable" if shown else f"hidden by {machine.host.container}",
        needed="readable, or another sign of the board",
        mend="start the container with -v /sys/firmware:/host/firmware:ro, "
        f"or with -e MUSGD_BOARD=NAME, one of {', '.join(boards.names())}",
        advice=True,
    )


def _python(machine: _Machine) -> Iterator[Check]:
    # Asked of recorded machines only: on an older Python this very code would not run. A board can
    # still run artifacts that are driven from elsewhere.
    version = machine.host.python
    if version is None:
        return
    yield Check(
        name="python",
        ok=_release(version) >= (3, 11),
        found=version,
        needed="3.11 or newer, to run musgd on it",
        mend="install Python 3.11 beside the system's, "
        f"or train and export elsewhere with --target {machine.board.name}",
        advice=True,
    )


def _userland(machine: _Machine) -> Iterator[Check]:
    bits = machine.host.bits
    if bits is None:
        return
    yield Check(
        name="userland",
        ok=bits == 64,
        found=f"{bits}-bit",
        needed="64-bit",
        mend="flash the 64-bit image of the system: the engines have no 32-bit wheels",
    )


def _emulation(machine: _Machine) -> Iterator[Check]:
    emulated = machine.host.emulated
    if emulated is None:
        return
    yield Check(
        name="processor",
        ok=not emulated,
        found="emulated" if emulated else "native",
        needed="native, for figures that are the board's",
        mend="run musgd bench on the board itself",
        advice=True,
    )


def _memory(machine: _Machine) -> Iterator[Check]:
    ram_mb = machine.host.ram_mb
    if ram_mb is None:
        return
    if machine.board.trains:
        needed_mb, job = _TRAINS_MB, "train"
        mend = "train with a smaller --batch and --imgsz, and with --set train.cache=none"
    else:
        needed_mb, job = _RUNS_MB, "bench"
        mend = "close other programs, and export with --imgsz 320 or less"
    yield Check(
        name="memory",
        ok=ram_mb >= needed_mb,
        found=f"{ram_mb} MB",
        needed=f"{needed_mb} MB to {job}",
        mend=mend,
        advice=True,
    )


def _jetpack(machine: _Machine) -> Iterator[Check]:
    if not machine.board.is_jetson:
        return
    yield Check(
        name="jetpack",
        ok=machine.host.jetpack is not None,
        found=machine.host.jetpack or "none, so neither CUDA nor TensorRT",
        needed="NVIDIA's system, for the GPU",
        mend="start the container with --runtime nvidia"
        if machine.in_container
        else f"flash NVIDIA's JetPack image for the {machine.board.title}",
    )


def _gpu_driver(machine: _Machine) -> Iterator[Check]:
    cards = (
        machine.tree.text(f"{device}/vendor") == "0x10de"
        and (machine.tree.text(f"{device}/class") or "").startswith("0x03")
        for device in machine.tree.children("sys/bus/pci/devices")
    )
    if not any(cards):
        return
    yield Check(
        name="gpu driver",
        ok=machine.host.gpu is not None,
        found=machine.host.gpu or "an NVIDIA card whose driver does not answer",
        needed="NVIDIA's driver, to train on the card",
        mend="start the container with --gpus all"
        if machine.in_container
        else "install NVIDIA's driver (Ubuntu: sudo ubuntu-drivers install), then reboot",
        advice=True,
    )


def _power_meter(machine: _Machine) -> Iterator[Check]:
    refused = power.refused(machine.tree.root)
    if refused:
        mend = refused[0].mend
    elif machine.host.container not in (None, "none"):
        mend = "run musgd bench outside the container to measure power"
    elif machine.board.name.startswith("x86"):
        mend = "sudo modprobe intel_rapl_msr; a virtual machine has no meter"
    elif has_pmic(machine.tree):
        mend = "install vcgencmd, which asks the board's power chip: sudo apt install raspi-utils"
    else:
        mend = (
            "wire an INA219 into the 5 V supply; on a Raspberry Pi, "
            "dtoverlay=i2c-sensor,ina219,addr=0x40 in /boot/firmware/config.txt makes it known"
        )
    found = [*machine.host.power_meters, *(refusal.what for refusal in refused)]
    yield Check(
        name="power meter",
        # A card's meter says nothing of work on the CPU, whose own may be refused.
        ok=bool(machine.host.power_meters) and not refused,
        found=", ".join(found) or "none",
        needed="one, to report power and energy",
        mend=mend,
        advice=True,
    )


def _throttling(machine: _Machine) -> Iterator[Check]:
    reasons = throttle_reasons(machine.tree.root)
    if reasons is None:
        return
    yield Check(
        name="clocks",
        ok=not reasons,
        found=", ".join(reasons) or "free",
        needed="free, for figures that are the board's",
        mend="use the board's own power supply and a fan, then bench again",
        advice=True,
    )


def _cores(machine: _Machine) -> Iterator[Check]:
    cores, usable = machine.host.cores, usable_cores(machine.tree.root)
    if cores is None:
        return
    yield Check(
        name="cores",
        ok=usable >= cores,
        found=f"{usable} of {cores} usable",
        needed="all, for figures that are the board's",
        mend="start without taskset, and the container without --cpus and --cpuset-cpus",
        advice=True,
    )


def _disk(_: _Machine) -> Iterator[Check]:
    here = Path.cwd()
    free_mb = shutil.disk_usage(here).free >> 20
    yield Check(
        name="disk",
        ok=free_mb >= _FREE_MB,
        found=f"{free_mb} MB free",
        needed=f"{_FREE_MB} MB for a run and its artifacts",
        mend=f"free space on the disk of {here}, or call musgd in a folder on another",
    )


def _clock(_: _Machine) -> Iterator[Check]:
    # A Raspberry Pi has no battery-backed clock: offline it starts in its image's past, where no
    # certificate is valid yet. Nothing can have been installed later than now.
    installed, now = Path(__file__).stat().st_mtime, time.time()
    yield Check(
        name="date",
        ok=now > installed - 86_400,
        found=time.strftime("%Y-%m-%d", time.gmtime(now)),
        needed=f"{time.strftime('%Y-%m-%d', time.gmtime(installed))}, when musgd came, or later",
        mend="sudo timedatectl set-ntp true",
        advice=True,
    )


# --------------------------------------------------------------------------------- the packages


def _engines(machine: _Machine) -> Iterator[Check]:
    for name in machine.board.runtimes:
        version = machine.host.runtimes.get(name)
        yield Check(
            name=name,
            ok=version is not None,
            found=version or "not installed",
            needed="to run its artifacts",
            mend="sudo apt install tensorrt"
            if name == "tensorrt" and machine.board.is_jetson
            else how_to_add(ENGINE_EXTRAS[name]),
            advice=True,
        )


def _opencv(machine: _Machine) -> Iterator[Check]:
    if not any(machine.host.runtimes.get(name) for name in machine.board.runtimes):
        return  # the extra of any engine brings it
    version = machine.host.runtimes.get("opencv")
    yield Check(
        name="opencv",
        ok=version is not None,
        found=version or "not installed",
        needed="to read images",
        mend=pip("install opencv-python-headless"),
        advice=True,
    )


def _training(machine: _Machine) -> Iterator[Check]:
    torch, ultralytics = (machine.host.runtimes.get(name) for name in ("torch", "ultralytics"))
    if torch and ultralytics:
        yield Check(
            name="training",
            ok=_release(torch) >= (2, 6),
            found=f"torch {torch}, ultralytics {ultralytics}",
            needed="torch 2.6 or newer, which loads a checkpoint without running its code",
            mend=pip("install 'torch>=2.6' torchvision"),
            advice=True,
        )
    elif machine.board.trains:
        yield Check(
            name="training",
            ok=False,
            found=f"{'ultralytics' if torch else 'torch'} not installed",
            needed="torch and ultralytics, to train and export",
            mend=how_to_add("train"),
            advice=True,
        )


def _torch_on_arm(machine: _Machine) -> Iterator[Check]:
    torch, cpu = machine.host.runtimes.get("torch"), machine.host.cpu
    if not torch or cpu not in _ARMV8_0:
        return
    # pytorch/pytorch#176993: 2.10 dies of SIGILL on import, later ones want CUDA besides. The
    # first with safe loading is 2.6.
    yield Check(
        name="torch build",
        ok=_release(torch) < (2, 10),
        found=f"torch {torch}",
        needed=f"below 2.10 on a {cpu}: later wheels stop with an illegal instruction",
        mend=pip("install 'torch>=2.6,<2.10' torchvision"),
    )


def _torch_cuda(machine: _Machine) -> Iterator[Check]:
    torch, gpu = machine.host.runtimes.get("torch"), machine.host.gpu
    if not torch or not gpu or machine.board.is_jetson:
        return
    yield Check(
        name="torch build",
        ok=not torch.endswith("+cpu"),
        found=f"torch {torch}",
        needed=f"one with CUDA, to train on the {gpu}",
        mend=pip("install --force-reinstall torch torchvision"),
        advice=True,
    )


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
