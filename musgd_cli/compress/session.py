"""Weights in, artifacts out: the float parent of each target, then what its runtimes want."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from musgd_cli import data
from musgd_cli.compress import artifacts, calibration, formats, onnx_graph, parent, silence
from musgd_cli.errors import UnsupportedError, UsageError
from musgd_cli.records import (
    Artifact,
    Calibration,
    ExportReport,
    Precision,
    RuntimeName,
    SkippedExport,
)
from musgd_cli.runtime.telemetry import block_telemetry
from musgd_cli.storage import require_writable, sha256_of
from musgd_cli.train.checkpoint import load_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.calibration import CalibrationSet
    from musgd_cli.compress.parent import Network
    from musgd_cli.compress.selection import Order, Source

EXTRA = "pip install 'musgd-cli[quantize]'"

_PARENT_NEEDS = ("torch", "ultralytics", "onnx", "onnxruntime")
_PARENT_TOOLS = ("musgd", *_PARENT_NEEDS)


@dataclass(frozen=True)
class _Piece:
    """One model to build besides the parent."""

    runtime: RuntimeName
    precision: Precision


@dataclass(frozen=True)
class _Work:
    """An order, once it is known what can be made of it here."""

    order: Order
    pieces: tuple[_Piece, ...]
    skipped: tuple[SkippedExport, ...]

    @property
    def calibrates(self) -> bool:
        return any(piece.precision == "int8" for piece in self.pieces)


def export(
    source: Source,
    orders: Iterable[Order],
    *,
    int8: bool,
    trust: bool,
    on_progress: Callable[[str], None],
    on_note: Callable[[str], None],
    on_warning: Callable[[str], None],
) -> ExportReport:
    """Export; see `musgd_cli.compress.export`."""
    if absent := formats.missing(_PARENT_NEEDS):
        raise UnsupportedError(f"export needs {', '.join(absent)}, not installed here", EXTRA)
    require_writable(source.place)
    block_telemetry()
    works = [_plan(order, int8=int8) for order in orders]
    calibrating = [_calibration_of(work, on_warning) for work in works]
    on_progress(f"loading {source.weights}")
    weights = _Weights(source, load_weights(source.weights, trust), sha256_of([source.weights]))
    made: list[Artifact] = []
    for work, images in zip(works, calibrating, strict=True):
        with TemporaryDirectory(prefix="musgd-parent-") as scratch:
            on_progress(f"{work.order.target}: float parent, {work.order.imgsz} px")
            shop = _Workshop(weights, work.order, images, Path(scratch), on_note)
            made.append(shop.parent)
            for piece in work.pieces:
                on_progress(f"{work.order.target}: {piece.runtime} {piece.precision}")
                made.append(shop.make(piece))
    return ExportReport(
        artifacts=tuple(made), skipped=tuple(row for work in works for row in work.skipped)
    )


# ------------------------------------------------------------------------------- what can be made


def _plan(order: Order, *, int8: bool) -> _Work:
    pieces: list[_Piece] = []
    skipped: list[SkippedExport] = []
    settings = order.settings
    for runtime in dict.fromkeys(settings.runtimes):

        def skip(why: str, mend: str, runtime: str = runtime) -> None:
            skipped.append(SkippedExport(target=order.target, runtime=runtime, why=why, mend=mend))

        if runtime not in formats.BUILT:
            skip(f"musgd does not build {runtime} models", formats.MENDS[runtime])
            continue
        needs = dict(formats.format_of(runtime).NEEDS)
        if runtime == "onnxruntime":
            needs["fp32"] = ()  # the parent
        asked: Precision = "int8" if int8 else settings.precision
        if asked not in needs:
            instead: Precision = settings.precision if settings.precision in needs else "fp32"
            if instead not in needs:
                instead = "fp32"
            skip(
                f"musgd does not build {asked} for {runtime}",
                f"use the {instead} model, which is made in its place",
            )
            asked = instead
        if absent := formats.missing(needs[asked]):
            skip(f"{', '.join(absent)} not installed here", EXTRA)
        elif (runtime, asked) != ("onnxruntime", "fp32"):
            pieces.append(_Piece(runtime, asked))
    return _Work(order, tuple(pieces), tuple(skipped))


def _calibration_of(work: _Work, on_warning: Callable[[str], None]) -> CalibrationSet | None:
    if not work.calibrates:
        return None
    order = work.order
    if order.data is None:
        raise UsageError(
            "int8 needs training images to calibrate on, and no data set is known",
            "musgd export … --int8 --data YAML",
        )
    chosen = calibration.choose(data.load(order.data), order.settings.calib, order.seed)
    if chosen.note is not None:
        on_warning(chosen.note)
    return chosen


# --------------------------------------------------------------------------------------- making it


@dataclass(frozen=True)
class _Weights:
    source: Source
    model: Any
    sha256: str


class _Workshop:
    """What one target's models are made from. It makes the float parent when it opens.

    Args:
        weights: What is exported.
        order: What for.
        images: What calibrates, if anything does.
        scratch: A folder for the parent that the rest is built from.
        on_note: Told what was replaced.
    """

    def __init__(
        self,
        weights: _Weights,
        order: Order,
        images: CalibrationSet | None,
        scratch: Path,
        on_note: Callable[[str], None],
    ) -> None:
        self._weights = weights
        self._order = order
        self._images = images
        self._inputs = images.at(order.imgsz) if images is not None else None
        self._onnx = scratch / parent.FILE
        self._on_note = on_note
        self._sample = _noise(order.imgsz) if self._inputs is None else next(iter(self._inputs))
        self._network = self._prepare(order.settings.nms_free)
        with silence.silence():
            parent.write(self._network, self._onnx)
        self.parent, self._expected = self._make(
            self._network,
            artifacts.Recipe(
                runtime="onnxruntime",
                asked="fp32",
                files=(parent.FILE,),
                build=self._copy_parent,
                read_back=lambda folder: onnx_graph.read_back(folder / parent.FILE),
                parent_sha256=weights.sha256,
                tools=_PARENT_TOOLS,
            ),
            artifacts.Trial(self._sample),
        )

    def make(self, piece: _Piece) -> Artifact:
        """Build one model from the parent."""
        form = formats.format_of(piece.runtime)
        network = self._network
        expected: NDArray[np.float32] | None = self._expected
        if network.nms_free and not form.NMS_FREE:
            # The other head answers in another shape: there is nothing to compare with.
            network, expected = self._prepare(nms_free=False), None
        material = formats.Material(
            network, self._onnx, self._inputs, self._order.settings.calib_method
        )

        def build(folder: Path) -> Calibration | None:
            method = form.build(material, folder, piece.precision)
            return None if method is None else self._calibration(method)

        artifact, _ = self._make(
            network,
            artifacts.Recipe(
                runtime=piece.runtime,
                asked=piece.precision,
                files=form.FILES,
                build=build,
                read_back=form.read_back,
                parent_sha256=self.parent.sha256,
                tools=("musgd", *form.NEEDS[piece.precision]),
            ),
            artifacts.Trial(self._sample, expected),
        )
        return artifact

    def _make(
        self, network: Network, recipe: artifacts.Recipe, trial: artifacts.Trial
    ) -> tuple[Artifact, NDArray[np.float32]]:
        place = self._weights.source.place
        return artifacts.make(place, self._order.target, network, recipe, trial, self._on_note)

    def _prepare(self, nms_free: bool) -> Network:
        with silence.silence():
            return parent.prepare(
                self._weights.model,
                self._order.imgsz,
                nms_free=nms_free,
                source=self._weights.source.weights,
            )

    def _copy_parent(self, folder: Path) -> None:
        shutil.copyfile(self._onnx, folder / parent.FILE)

    def _calibration(self, method: str) -> Calibration:
        assert self._images is not None
        return Calibration(
            method=method,
            n_images=len(self._images.images),
            seed=self._images.seed,
            split=calibration.SPLIT,
            images=self._images.names,
        )


def _noise(imgsz: int) -> NDArray[np.float32]:
    import numpy as np

    return np.random.default_rng(0).random((1, 3, imgsz, imgsz), dtype=np.float32)
