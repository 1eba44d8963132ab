"""The boards musgd knows, and what tells each of them, as one table.

``install.sh`` applies the same rules in shell and is tested against this table.

Sources: ``compatible`` strings from the kernel's device trees, NVIDIA's L4T device trees and the
tables of Jetson.GPIO; Raspberry Pi types from the revision-code page of Raspberry Pi's
documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from musgd_cli.records import RuntimeName

_TEGRA_X1 = "NVIDIA Tegra X1 (Maxwell, sm_53)"
_TEGRA_X2 = "NVIDIA Tegra X2 (Pascal, sm_62)"
_XAVIER = "NVIDIA Xavier (Volta, sm_72)"
_ORIN = "NVIDIA Orin (Ampere, sm_87)"

_EVERY_STAGE = (
    *("train", "quantize", "prune", "onnx", "openvino"),
    *("ncnn", "litert", "report", "tune"),
)


@dataclass(frozen=True)
class Board:
    """One kind of board.

    Args:
        name: What ``Host.board`` calls it.
        title: What people call it.
        compatible: Device-tree ``compatible`` strings, or the module's part of one, that name it.
        pi_types: Type fields of Raspberry Pi revision codes.
        modules: Part numbers with which NVIDIA's ``TNSPEC`` begins, ``id`` or ``id-sku``.
        gpu: The GPU on its chip that computes for us.
        runtimes: Engines that its artifacts run on, best first.
        trains: People train on it; it needs the memory and the packages for that.
        extras: Of our package, what ``install.sh`` and ``musgd wheelhouse`` put on it. Which
            versions those allow stands in ``pyproject.toml``.
        agent: NVIDIA's system for it, JetPack 4, has no Python that runs us: there ``install.sh``
            puts ``musgd_cli/board/nano_agent.py``.
    """

    name: str
    title: str
    compatible: tuple[str, ...] = ()
    pi_types: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    gpu: str | None = None
    runtimes: tuple[RuntimeName, ...] = ("ncnn", "onnxruntime")
    trains: bool = False
    extras: tuple[str, ...] = ("ncnn", "onnx")
    agent: bool = False

    @property
    def is_jetson(self) -> bool:
        """Whether NVIDIA's L4T and JetPack are its native system."""
        return bool(self.modules)


def _jetson(
    name: str,
    title: str,
    gpu: str,
    compatible: tuple[str, ...],
    modules: tuple[str, ...],
    *,
    agent: bool = False,
) -> Board:
    return Board(
        name,
        title,
        compatible,
        modules=modules,
        gpu=gpu,
        runtimes=("tensorrt", "onnxruntime"),
        extras=("onnx",),
        agent=agent,
    )


BOARDS = (
    Board(
        "pi4b",
        "Raspberry Pi 4 Model B",
        ("raspberrypi,4-model-b",),
        (0x11,),
        extras=("ncnn", "litert", "onnx"),
    ),
    Board("pi400", "Raspberry Pi 400", ("raspberrypi,400",), (0x13,)),
    Board(
        "cm4",
        "Raspberry Pi Compute Module 4",
        ("raspberrypi,4-compute-module", "raspberrypi,4-compute-module-s"),
        (0x14, 0x15),
    ),
    Board("pi5", "Raspberry Pi 5", ("raspberrypi,5-model-b",), (0x17,)),
    Board("pi500", "Raspberry Pi 500", ("raspberrypi,500",), (0x19,)),
    Board(
        "cm5",
        "Raspberry Pi Compute Module 5",
        ("raspberrypi,5-compute-module",),
        (0x18, 0x1A),
    ),
    Board(
        "pi3",
        "Raspberry Pi 3",
        ("raspberrypi,3-model-b", "raspberrypi,3-model-b-plus", "raspberrypi,3-model-a-plus"),
        (0x08, 0x0D, 0x0E),
    ),
    Board("pi-zero2", "Raspberry Pi Zero 2 W", ("raspberrypi,model-zero-2-w",), (0x12,)),
    # Before jetson-nano: the 2 GB board calls itself nvidia,jetson-nano as well.
    _jetson(
        "jetson-nano-2gb",
        "NVIDIA Jetson Nano 2GB",
        _TEGRA_X1,
        ("nvidia,jetson-nano-2gb", "nvidia,p3448-0003"),
        ("3448-0003",),
        agent=True,
    ),
    # p3450 is what a mainline kernel calls it. nvidia,tegra210 alone is a TX1 as well.
    _jetson(
        "jetson-nano",
        "NVIDIA Jetson Nano",
        _TEGRA_X1,
        (
            "nvidia,jetson-nano",
            "nvidia,p3448-0000",
            "nvidia,p3448-0002",
            "nvidia,p3450-0000",
            "nvidia,p3450-0002",
        ),
        ("3448",),
        agent=True,
    ),
    _jetson(
        "jetson-tx1",
        "NVIDIA Jetson TX1",
        _TEGRA_X1,
        ("nvidia,jetson-cv", "nvidia,p2371-2180"),
        ("2180",),
    ),
    _jetson(
        "jetson-tx2",
        "NVIDIA Jetson TX2",
        _TEGRA_X2,
        ("nvidia,quill", "nvidia,lightning", "nvidia,p2771-0000"),
        ("3310", "3489"),
    ),
    _jetson(
        "jetson-agx-xavier",
        "NVIDIA Jetson AGX Xavier",
        _XAVIER,
        ("nvidia,jetson-xavier", "nvidia,p2972-0000", "nvidia,p2972-0006"),
        ("2888",),
    ),
    _jetson(
        "jetson-xavier-nx",
        "NVIDIA Jetson Xavier NX",
        _XAVIER,
        ("nvidia,p3668-0000", "nvidia,p3668-0001", "nvidia,p3668-0003"),
        ("3668",),
    ),
    _jetson(
        "orin-nano",
        "NVIDIA Jetson Orin Nano",
        _ORIN,
        ("nvidia,p3767-0003", "nvidia,p3767-0004", "nvidia,p3767-0005"),
        ("3767-0003", "3767-0004", "3767-0005"),
    ),
    _jetson(
        "orin-nx",
        "NVIDIA Jetson Orin NX",
        _ORIN,
        ("nvidia,p3767-0000", "nvidia,p3767-0001"),
        ("3767-0000", "3767-0001"),
    ),
    _jetson(
        "agx-orin",
        "NVIDIA Jetson AGX Orin",
        _ORIN,
        ("nvidia,p3701-0000", "nvidia,p3701-0004", "nvidia,p3701-0005", "nvidia,p3701-0008"),
        ("3701",),
    ),
    Board(
        "x86-gpu",
        "x86 with an NVIDIA GPU",
        runtimes=("onnxruntime", "openvino"),
        trains=True,
        extras=(*_EVERY_STAGE, "tensorrt"),
    ),
    Board(
        "x86-cpu",
        "x86 CPU",
        runtimes=("openvino", "onnxruntime"),
        trains=True,
        extras=_EVERY_STAGE,
    ),
    Board("generic-arm64", "64-bit ARM board"),
    Board("generic", "machine of an unknown kind", runtimes=("onnxruntime",), extras=("onnx",)),
)
"""Every value of ``Host.board``. Where two rows would match, the first does."""

_BY_NAME = {board.name: board for board in BOARDS}


def names() -> tuple[str, ...]:
    """Return every board's name, in the table's order."""
    return tuple(_BY_NAME)


def by_name(name: str) -> Board | None:
    """Return the board called ``name``."""
    return _BY_NAME.get(name)


def by_compatible(tokens: Iterable[str]) -> Board | None:
    """Return the board that a device tree's ``compatible`` strings name.

    A token counts whole. NVIDIA joins carrier and module in one token, such as
    ``nvidia,p3449-0000-b00+p3448-0002-b00``; of it the module, ``nvidia,p3448-0002``, counts too.
    """
    known: set[str] = set()
    for token in tokens:
        known.add(token)
        if module := re.match(r"nvidia,(?:\S*\+)?(p\d{4}-\d{4})", token):
            known.add(f"nvidia,{module[1]}")
    return next((board for board in BOARDS if known.intersection(board.compatible)), None)


def by_tnspec(spec: str) -> Board | None:
    """Return the board that NVIDIA's ``TNSPEC`` names.

    It is ``id-fab-sku-…`` or ``id-sku-fab-…``, and the SKU may be empty:
    ``3448-300---1-0-jetson-nano-qspi-sd-mmcblk0p1``, ``3448-0002-300-A.0-1-0-jetson-nano-``.
    """
    number, *rest = spec.split("-")
    sku = next((field for field in rest[:2] if re.fullmatch(r"\d{4}", field)), None)
    return next(
        (
            board
            for board in BOARDS
            if number in board.modules or (sku and f"{number}-{sku}" in board.modules)
        ),
        None,
    )


@dataclass(frozen=True)
class PiRevision:
    """What a Raspberry Pi's revision code says.

    Args:
        type: The board type, e.g. 0x11 for a Pi 4B.
        ram_mb: Fitted memory in MB.
    """

    type: int
    ram_mb: int

    @property
    def board(self) -> Board | None:
        """The board of this type."""
        return next((board for board in BOARDS if self.type in board.pi_types), None)


def decode_pi_revision(code: int) -> PiRevision | None:
    """Decode a new-style revision code; ``None`` for any other number.

    The bits are ``NOQuuuWuFMMMCCCCPPPPTTTTTTTTRRRR``: F marks the new style, M the memory as
    256 MB << M, T the type. The bits above F tell of warranty and overclocking and are set on
    some healthy boards (0x80C03111 was seen), so they do not count.
    Source: Raspberry Pi documentation, "Raspberry Pi revision codes".
    """
    if not code >> 23 & 1:
        return None
    return PiRevision(type=code >> 4 & 0xFF, ram_mb=256 << (code >> 20 & 7))
