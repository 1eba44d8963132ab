"""Weights in, artifacts out: the float parent of each target, then what its runtimes want.

Each model is built in a scratch folder, read back, tried, held against its parent, and only then
put in its place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from musgd_cli.bench.selection import require_same_classes
from musgd_cli.compress import (
    artifacts,
    calibration,
    formats,
    gate,
    images,
    onnx_graph,
    parent,
    repair,
    silence,
    tensorrt,
    timing,
)
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.installation import ExtraError, how_to_add
from musgd_cli.records import (
    Artifact,
    Calibration,
    ExportReport,
    Precision,
    RuntimeName,
    SkippedExport,
)
from musgd_cli.runtime.telemetry import block_telemetry
from musgd_cli.storage import digest_of, require_writable, sha256_of, write_failed
from musgd_cli.train.checkpoint import load_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.artifacts import Draft
    from musgd_cli.compress.gate import Scored, Scorer
    from musgd_cli.compress.parent import Network
    from musgd_cli.compress.selection import Order, Source

EXTRA = "quantize"

_PARENT_NEEDS = ("torch", "ultralytics", "onnx", "onnxruntime")
_PARENT_TOOLS = ("musgd", *_PARENT_NEEDS)


@dataclass(frozen=True)
class Wishes:
    """What is asked of an export beside its settings."""

    int8: bool = False
    """Build int8 too."""
    auto_mixed: bool = False
    """Return layers to float where int8 does not pass the gate."""
    quantize_all: bool = False
    """Quantize what is known to be harmed by it, too."""
    strict: bool = False
    """Make nothing unless all that is asked for can be made."""
    trust: bool = False
    """Load the weights without restriction."""


@dataclass(frozen=True)
class Listeners:
    """Whom to tell how it goes."""

    on_progress: Callable[[str], None]
    on_detail: Callable[[str], None]
    """Told often: how far the part is that ``on_progress`` named."""
    on_note: Callable[[str], None]
    on_warning: Callable[[str], None]


@dataclass(frozen=True)
class _Piece:
    """One model to build besides the parent."""

    runtime: RuntimeName
    precision: Precision


_PARENT = _Piece("onnxruntime", "fp32")


@dataclass(frozen=True)
class _Work:
    """An order, once it is known what can be made of it here."""

    order: Order
    pieces: tuple[_Piece, ...]
    skipped: tuple[SkippedExport, ...]

    @property
    def calibrates(self) -> bool:
        return any(piece.precision == "int8" for piece in self.pieces)

    @property
    def is_in_vain(self) -> bool:
        """Whether none of its runtimes gets a model; the parent is one of ONNX Runtime."""
        return not self.pieces and "onnxruntime" not in self.order.settings.runtimes


def export(
    source: Source, orders: Iterable[Order], wishes: Wishes, listeners: Listeners
) -> ExportReport:
    """Export; see `musgd_cli.compress.export`."""
    if absent := formats.missing(_PARENT_NEEDS):
        raise ExtraError(f"export needs {', '.join(absent)}, not installed here", EXTRA)
    for wish, option in (
        (wishes.auto_mixed, "--auto-mixed"),
        (wishes.quantize_all, "--quantize-all"),
    ):
        if wish and not wishes.int8:
            raise UsageError(f"{option} is about int8 models, and none is asked for", "add --int8")
    require_writable(source.place)
    block_telemetry()
    works = [_plan(order, wishes) for order in orders]
    skipped = tuple(row for work in works for row in work.skipped)
    if wishes.strict and skipped:
        row = skipped[0]
        raise UnsupportedError(f"{row.target} {row.runtime}: {row.why}", row.mend)
    for work in works:
        _require_places(source.place, work)
    calibrating = images.choose(works, listeners.on_warning)
    listeners.on_progress(f"loading {source.weights}")
    weights = _Weights(
        source, load_weights(source.weights, wishes.trust), sha256_of([source.weights])
    )
    made: list[Artifact] = []
    failed: list[SkippedExport] = []
    with TemporaryDirectory(prefix="musgd-export-") as scratch:
        parents = _Parents(weights, Path(scratch))
        for work, chosen in zip(works, calibrating, strict=True):
            shop = _Workshop(parents, work.order, chosen, wishes, listeners)
            try:
                made.append(shop.make_parent())
            except MusgdError as error:
                if not made:
                    raise
                failed.append(_failure(work.order, _PARENT, error))
                continue
            for piece in work.pieces:
                # What ails one does not keep the others from being made.
                try:
                    made.append(shop.make(piece))
                except MusgdError as error:
                    failed.append(_failure(work.order, piece, error))
    unmade = tuple(dict.fromkeys(work.order.target for work in works if work.is_in_vain))
    return ExportReport(artifacts=tuple(made), skipped=(*skipped, *failed), unmade=unmade)


def _failure(order: Order, piece: _Piece, error: MusgdError) -> SkippedExport:
    return SkippedExport(
        target=order.target,
        runtime=piece.runtime,
        why=f"{piece.precision}: {error.what}",
        mend=error.mend,
        exit_code=error.exit_code,
    )


def _require_places(place: Path, work: _Work) -> None:
    """Refuse before minutes of work to replace what is no artifact.

    Raises:
        UsageError: Something else is in the place of what will be made.
    """
    order = work.order
    for piece in (_PARENT, *work.pieces):
        name = artifacts.folder_name(order.target, piece.runtime, piece.precision, order.imgsz)
        artifacts.require_ours(place / name)


# ------------------------------------------------------------------------------- what can be made


def _plan(order: Order, wishes: Wishes) -> _Work:
    pieces: list[_Piece] = []
    skipped: list[SkippedExport] = []
    settings = order.settings
    wanted: list[Precision] = [*dict.fromkeys(settings.precisions)]
    if wishes.int8 and settings.int8:
        wanted.append("int8")
    for runtime in dict.fromkeys(settings.runtimes):

        def skip(why: str, mend: str, runtime: str = runtime) -> None:
            skipped.append(SkippedExport(target=order.target, runtime=runtime, why=why, mend=mend))

        if runtime not in formats.BUILT:
            skip(f"nothing is exported for {runtime}", "leave it out; bench needs no export for it")
            continue
        form = formats.format_of(runtime)
        if wishes.int8 and not settings.int8:
            instead = " and ".join(settings.precisions)
            why = order.reasons.get("compress.int8", "its board gains nothing from int8")
            insist = (
                "" if form.lacks("int8", order.boards) else "; --set compress.int8=true insists"
            )
            skip(f"int8 is not made, but {instead}: {why.rstrip('.')}", f"leave --int8 out{insist}")
        # The parent is the fp32 model of ONNX Runtime.
        usable = [p for p in wanted if p in form.NEEDS or (runtime, p) == ("onnxruntime", "fp32")]
        # ONNX Runtime has the parent; and one of several runtimes may be there for int8 alone.
        if not usable and runtime != "onnxruntime" and len(settings.runtimes) == 1:
            others = ", ".join(precision for precision in form.NEEDS if precision != "int8")
            skip(
                f"it is built in {', '.join(form.NEEDS)}, not in {', '.join(wanted)}",
                f"--set compress.precisions={others}",
            )
        for precision in usable:
            if (runtime, precision) == ("onnxruntime", "fp32"):
                continue
            # First what no package would mend.
            if lacking := form.lacks(precision, order.boards):
                skip(f"{precision}: {lacking[0]}", lacking[1])
            elif absent := formats.missing(form.NEEDS[precision]):
                what = f"{precision} needs {', '.join(absent)}, not installed here"
                skip(what, how_to_add(form.EXTRA))
            else:
                pieces.append(_Piece(runtime, precision))
    return _Work(order, tuple(pieces), tuple(skipped))


# --------------------------------------------------------------------------------------- making it


@dataclass(frozen=True)
class _Weights:
    source: Source
    model: Any
    sha256: str


class _Parent:
    """The float parent of one size and head: its network, its ONNX, and what that does."""

    def __init__(self, weights: _Weights, imgsz: int, nms_free: bool, scratch: Path) -> None:
        self.weights_sha256 = weights.sha256
        self.memos: dict[Any, dict[Any, Any]] = {}
        self._scored: dict[int, Scored] = {}
        self._scratch = scratch
        self._number = count()
        self.onnx = scratch / parent.FILE
        with silence.silence():
            self.network: Network = parent.prepare(
                weights.model, imgsz, nms_free=nms_free, source=weights.source.weights
            )
            try:
                scratch.mkdir()
                parent.write(self.network, self.onnx)
            except OSError as error:
                raise write_failed(self.onnx, error) from error

    def folder(self) -> Path:
        """Return the path of a new scratch folder."""
        return self._scratch / str(next(self._number))

    def draft(self, target: str, place: Path) -> Draft:
        """Draft the parent itself, as an artifact of ``target``."""
        return artifacts.draft(
            self.folder(),
            place,
            target,
            self.network,
            artifacts.Recipe(
                runtime="onnxruntime",
                asked="fp32",
                files=(parent.FILE,),
                build=self._copy,
                read_back=lambda folder: onnx_graph.read_back(folder / parent.FILE),
                parent_sha256=self.weights_sha256,
                tools=_PARENT_TOOLS,
            ),
            artifacts.Trial(self.sample),
        )

    @cached_property
    def sample(self) -> NDArray[np.float32]:
        """A network input."""
        return timing.noise(self.network.imgsz)

    @cached_property
    def own(self) -> Draft:
        """The parent, drafted for nobody: what the others are held against."""
        return self.draft("parent", Path())

    def scored(self, scorer: Scorer) -> Scored:
        """Return what it finds in the images of ``scorer``."""
        if id(scorer) not in self._scored:
            self._scored[id(scorer)] = scorer.score(self.own.folder, self.own.artifact)
        return self._scored[id(scorer)]

    def _copy(self, folder: Path) -> None:
        shutil.copyfile(self.onnx, folder / parent.FILE)


class _Parents:
    """The parents of one set of weights, each made once."""

    def __init__(self, weights: _Weights, scratch: Path) -> None:
        self.weights = weights
        self._scratch = scratch
        self._made: dict[tuple[int, bool], _Parent] = {}

    def of(self, imgsz: int, nms_free: bool) -> _Parent:
        """Return the parent of one size and head."""
        key = (imgsz, nms_free)
        if key not in self._made:
            scratch = self._scratch / f"{imgsz}-{nms_free}"
            self._made[key] = _Parent(self.weights, imgsz, nms_free, scratch)
        return self._made[key]


@dataclass(frozen=True)
class _Workshop:
    """Makes the models of one order."""

    parents: _Parents
    order: Order
    chosen: images.Chosen
    wishes: Wishes
    listeners: Listeners

    @property
    def place(self) -> Path:
        """The folder that artifact folders go into."""
        return self.parents.weights.source.place

    def make_parent(self) -> Artifact:
        """Make the float parent, an artifact of its own."""
        order = self.order
        self.listeners.on_progress(f"{order.target}: float parent, {order.imgsz} px")
        head = "needs no NMS" if order.settings.nms_free else "needs NMS"
        why = order.head_source
        if order.head_source.startswith("profile "):
            why += f": {order.reasons.get('compress.nms_free', 'no reason given').rstrip('.')}"
        self.listeners.on_note(f"{order.target}: the head that {head} ({why})")
        made = self.parents.of(order.imgsz, order.settings.nms_free)
        if self.chosen.scorer is not None:
            scorer = self.chosen.scorer
            require_same_classes(
                self.parents.weights.source.weights, made.network.names, scorer.data_set
            )
        draft = made.draft(order.target, self.place)
        return artifacts.keep(draft, draft.artifact, made.network, self._tell_of_replaced)

    def make(self, piece: _Piece) -> Artifact:
        """Build one model, hold it against its parent, repair it where that is asked for."""
        order, form = self.order, formats.format_of(piece.runtime)
        nms_free = order.settings.nms_free and form.NMS_FREE
        if nms_free != order.settings.nms_free:
            self.listeners.on_note(
                f"{piece.runtime} cannot hold the head that needs no NMS: its models have the "
                "other one, and are held against that one's float model, which is not kept"
            )
        made = self.parents.of(order.imgsz, nms_free)
        builder = _Builder(self, made, piece)
        self._tell(piece, "")
        draft = builder.draft(frozenset())
        if (used := draft.artifact.calibration) is not None:
            asked = order.settings.calib_method
            if asked not in used.method:
                self.listeners.on_warning(
                    f"{piece.runtime} has no {asked} calibration: {used.method} was taken"
                )
        judged = builder.judge(draft)
        if (
            self.wishes.auto_mixed
            and piece.precision == "int8"
            and judged.gate is not None
            and judged.gate.falls_short
        ):
            draft, judged = repair.repair(
                builder,
                draft,
                judged,
                on_progress=lambda what: self._tell(piece, f", {what}"),
                on_detail=self.listeners.on_detail,
                on_warning=self.listeners.on_warning,
            )
        return artifacts.keep(draft, judged, made.network, self._tell_of_replaced)

    def _tell_of_replaced(self, old: Artifact, new: Artifact) -> None:
        before, now = (a.gate.verdict if a.gate else None for a in (old, new))
        if before == "passed" and now != "passed":
            self.listeners.on_warning(
                f"replaced {new.path}, which had passed its gate, by one that has not"
            )
        else:
            self.listeners.on_note(f"replaced {new.path}")

    def _tell(self, piece: _Piece, what: str) -> None:
        order = self.order
        self.listeners.on_progress(
            f"{order.target}: {piece.runtime} {piece.precision}, {order.imgsz} px{what}"
        )


@dataclass(frozen=True)
class _Builder:
    """Builds one model again and again, with more and more of it in float."""

    shop: _Workshop
    parent: _Parent
    piece: _Piece

    @cached_property
    def material(self) -> formats.Material:
        """What it is built from, nothing of it kept float."""
        order, chosen = self.shop.order, self.shop.chosen.calibrating
        memo = self.parent.memos.setdefault((order.data, chosen and chosen.names), {})
        return formats.Material(
            boards=order.boards,
            network=self.parent.network,
            onnx=self.parent.onnx,
            inputs=None if chosen is None else chosen.at(order.imgsz),
            method=order.settings.calib_method,
            quantize_all=self.shop.wishes.quantize_all,
            memo=memo,
        )

    def scratch(self) -> Path:
        """Return the path of a new scratch folder."""
        return self.parent.folder()

    def draft(self, keep_float: frozenset[str]) -> Draft:
        """Build the model with these nodes of the parent in float.

        Raises:
            MusgdError: It could not be built, or does not work.
        """
        form, order = formats.format_of(self.piece.runtime), self.shop.order
        material = replace(self.material, keep_float=keep_float)

        def build(folder: Path) -> Calibration | None:
            method = form.build(material, folder, self.piece.precision)
            return None if method is None else self._calibration(method)

        return artifacts.draft(
            self.scratch(),
            self.shop.place,
            order.target,
            self.parent.network,
            artifacts.Recipe(
                runtime=self.piece.runtime,
                asked=self.piece.precision,
                files=form.FILES,
                build=build,
                read_back=form.read_back,
                parent_sha256=self.parent.own.artifact.sha256,
                tools=("musgd", *form.NEEDS[self.piece.precision], *self._engine_builders()),
                stand_in=form.STAND_IN,
                boards=order.boards,
                quantize_all=material.quantize_all and self.piece.precision == "int8",
            ),
            artifacts.Trial(self.parent.sample, self.parent.own.output),
        )

    def _engine_builders(self) -> tuple[str, ...]:
        return tensorrt.BUILDERS if self.piece.runtime == "tensorrt" else ()

    def judge(self, draft: Draft) -> Artifact:
        """Return the draft's record with its gate, if there are images to score."""
        scorer = self.shop.chosen.scorer
        if scorer is None:
            return draft.artifact
        found = scorer.score(draft.folder, draft.runnable, stand_in=draft.has_stand_in)
        verdict = scorer.compare(
            self.parent.scored(scorer),
            found,
            self.shop.order.settings.max_drop,
            gate.LEAST_MATCHED[draft.artifact.precision],
        )
        return draft.artifact.model_copy(update={"gate": verdict})

    def _calibration(self, method: str) -> Calibration:
        chosen = self.shop.chosen.calibrating
        assert chosen is not None
        return Calibration(
            method=method,
            n_images=len(chosen.images),
            seed=chosen.seed,
            split=calibration.SPLIT,
            images=chosen.names,
            digests=tuple(map(digest_of, chosen.images)),
        )
