"""The records that cross from stage to stage, and from machine to machine.

All of them are frozen. ``None`` means "cannot be measured here" and is never written as 0. Names
carry their unit: ``_ms``, ``_w``, ``_j``, ``_c``, ``_mb`` (2**20 bytes), ``_s``.

Board and host may run different versions of musgd, so each record carries a ``schema`` version:
unknown fields are refused when we write, and kept when we read a newer minor version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from musgd_cli.paths import stays_inside

SCHEMA = "1.0"
"""The minor grows when a field is added, the major when one changes its name or meaning."""

Precision = Literal["fp32", "fp16", "bf16", "int8", "mixed-int8"]
"""What was built. ``int8`` means at least ``INT8_SHARE`` of the convolutions' MACs are int8."""

INT8_SHARE = 0.80
"""Least share of the convolutions' MACs that makes a model ``int8``, not ``mixed-int8``."""

FloatPrecision = Literal["fp32", "fp16", "bf16"]

Kind = Literal["measured", "reported", "estimated"]
"""How a figure came about: by an instrument, by firmware's word, or by a model of ours."""


def _schema_version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


class Frozen(BaseModel):
    """A part of a record: immutable, and strict unless a newer version wrote it."""

    model_config = ConfigDict(
        frozen=True, extra="allow", populate_by_name=True, allow_inf_nan=False
    )

    @model_validator(mode="after")
    def _refuse_unknown_fields(self, info: ValidationInfo) -> Self:
        written_by_newer = bool(info.context and info.context.get("written_by_newer"))
        if self.model_extra and not written_by_newer:
            raise ValueError(f"unknown field {', '.join(sorted(map(repr, self.model_extra)))}")
        return self


S = TypeVar("S", bound=Frozen)


class Record(Frozen):
    """A whole record, as it stands in a file or on stdout."""

    # pydantic's deprecated BaseModel.schema() owns the plain name, hence the alias.
    schema_: str = Field(default=SCHEMA, alias="schema")

    @field_validator("schema_")
    @classmethod
    def _same_major(cls, value: str) -> str:
        if _schema_version(value)[0] != _schema_version(SCHEMA)[0]:
            raise ValueError(f"schema {value} cannot be read by schema {SCHEMA}")
        return value

    @model_serializer(mode="wrap")
    def _schema_first(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        fields.pop("schema_", None)
        fields.pop("schema", None)
        return {"schema": self.schema_, **fields}

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Read a record from decoded JSON, keeping unknown fields of a newer minor version.

        Raises:
            pydantic.ValidationError: A field is missing, of the wrong type or unknown, or the
                major version differs.
        """
        version = str(data.get("schema", SCHEMA))
        try:
            newer = _schema_version(version) > _schema_version(SCHEMA)
        except ValueError:
            newer = False
        return cls.model_validate(dict(data), context={"written_by_newer": newer})


# ----------------------------------------------------------------------------------------- Host


class Host(Record):
    """One machine, as far as it could be told. ``None``: this tree does not say."""

    board: str
    """``pi4b``, ``jetson-nano``, ``jetson-nano-2gb``, ``x86-gpu``, ``x86-cpu``, ``pi5``, …"""
    model: str | None = None
    """What the firmware calls the board, for people."""
    cpu: str | None = None
    cores: int | None = None
    ram_mb: int | None = None
    gpu: str | None = None
    gpu_memory_mb: int | None = None
    os: str | None = None
    kernel: str | None = None
    arch: str | None = None
    """The kernel's architecture, e.g. ``aarch64``. A 32-bit userland can run below it."""
    bits: int | None = None
    """Userland bits, 32 or 64."""
    cpu_features: tuple[str, ...] | None = None
    """Those that decide speed here: ``asimd``, ``dotprod``, ``i8mm``, ``avx2``, ``vnni``, …"""
    container: str | None = None
    """``docker``, ``podman``, ``wsl``, …; ``none`` when the tree says there is none."""
    emulated: bool | None = None
    python: str | None = None
    runtimes: Mapping[str, str | None] = Field(default_factory=dict)
    """Engine name to its installed version, or ``None`` where it is not installed."""
    power_meters: tuple[str, ...] = ()
    jetpack: str | None = None
    decided_by: str | None = None
    """Which rule named the board, e.g. ``MUSGD_BOARD`` or ``device-tree compatible``."""


class Check(Frozen):
    """One line of ``musgd doctor``."""

    name: str
    ok: bool
    found: str
    needed: str
    mend: str | None = None
    """What to type, when ``ok`` is false."""
    advice: bool = False
    """A failure costs comfort, speed or a figure; the board's main job can still be done."""


# ------------------------------------------------------------------------- Profile, Plan


class OptimSettings(Frozen):
    """``[optim]``: which optimizer, and its values. ``[optim.NAME]`` holds one optimizer's own."""

    name: Literal["musgd", "musgd-article", "sgd", "muon-sgd", "adamw"]
    lr: float = Field(gt=0)
    """Learning rate at the end of the warm-up."""
    lr_final: float = Field(ge=0, le=1)
    """Learning rate at the last epoch, as a share of ``lr``; linear in between."""
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    # The optimizers that lack one of the next six keep its default, which is to do nothing.
    nesterov: bool = False
    second_moment: Literal["none", "rowcol"] = "none"
    adapt_factor: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    norm_scope: Literal["tensor", "global"] = "tensor"
    lr_in_buffer: bool = False
    decay_in_norm: bool = False
    warmup_epochs: float = Field(ge=0)
    warmup_momentum: float = Field(ge=0, lt=1)
    warmup_bias_lr: float = Field(ge=0)


class TrainSettings(Frozen):
    """``[train]``: what to train on, for how long, and with what of this machine."""

    data: str | None = None
    """Path of a data set YAML or folder."""
    model: str
    """Weights (``.pt``) to start from, or a model YAML (``yolo26n.yaml``) to train from scratch."""
    name: str | None = None
    distill: str | None = None
    """Weights (``.pt``) of a teacher, whose features are learnt beside the labels."""
    epochs: int = Field(gt=0)
    imgsz: int = Field(ge=32, multiple_of=32)
    batch: int = Field(gt=0)
    accumulate: int = Field(gt=0)
    """Batches whose gradients are summed before one optimizer step."""
    workers: int = Field(ge=0)
    """Processes that load images; Ultralytics uses none on a CPU."""
    cache: Literal["none", "ram"]
    amp: Literal["fp32", "fp16", "bf16"]
    threads: int = Field(ge=0)
    """Threads torch computes with; 0 takes every core this process may use."""
    device: str = Field(
        pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    seed: int = Field(ge=0, le=2**32 - 1)
    patience: int = Field(ge=0)
    """Epochs without a better fitness before training stops; 0 never stops early."""
    mosaic: float = Field(ge=0, le=1)
    close_mosaic: int = Field(ge=0)
    """Epochs at the end that train without mosaic."""
    translate: float = Field(ge=0, le=1)
    scale: float = Field(ge=0, lt=1)


RuntimeName = Literal["onnxruntime", "openvino", "ncnn", "tensorrt", "litert", "null"]


class CompressSettings(Frozen):
    """``[compress]``: what to export for this board."""

    runtimes: tuple[RuntimeName, ...] = Field(min_length=1)
    precisions: tuple[FloatPrecision, ...] = Field(min_length=1)
    """What each runtime that can is built in, beside the fp32 parent; ``--int8`` adds ``int8``."""
    int8: bool
    """The board computes int8 faster than float; elsewhere ``--int8`` says that it does not."""
    calib: int = Field(gt=0)
    """Training images that calibrate activations."""
    calib_method: Literal["minmax", "percentile", "entropy"]
    nms_free: bool
    """Export the one-to-one head, which needs no NMS, in place of the one-to-many head."""
    max_drop: float = Field(gt=0, lt=1)
    """Most mAP50-95 that an export may lose against its float parent and pass the gate."""


class BenchSettings(Frozen):
    """``[bench]``: how long and with how many threads an artifact is measured."""

    threads: int = Field(ge=0)
    """Engine threads; 0 takes every core this process may use."""
    duration_s: float = Field(gt=0)
    """Seconds of steady state that are measured, over all repeats."""
    repeats: int = Field(ge=1)
    """Fresh processes that share ``duration_s``; they tell how far another run would be off."""
    warmup_s: float = Field(ge=0)
    """Shortest warm-up; it goes on until latency is steady. 0: there is none."""
    idle_s: float = Field(ge=0)
    """Seconds of rest before it, in which a power meter reads what the machine draws idle."""


class Profile(Record):
    """A board's tuned values. A section's ``None``-able keys may be left out of the file."""

    name: str
    summary: str
    boards: tuple[str, ...] = ()
    """The ``Host.board`` values this profile is for."""
    optim: Mapping[str, Any]
    """``[optim]`` as written: common keys, ``name``, and one table an optimizer."""
    train: TrainSettings
    compress: CompressSettings
    bench: BenchSettings


class ProfileList(Record):
    """What ``musgd profiles list --json`` prints."""

    profiles: tuple[Profile, ...]
    here: str
    """The name of the one that fits this machine best."""


def _tuple_from_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


SettingValue = Annotated[Any, AfterValidator(_tuple_from_list)]
"""A setting's value; JSON's arrays come back as the tuples they were."""


class Beaten(Frozen):
    """A value that a stronger source replaced."""

    value: SettingValue
    source: str


class Settled(Frozen):
    """A setting's value, where it came from, and what it beat, strongest first."""

    value: SettingValue
    source: str
    over: tuple[Beaten, ...] = ()


class Plan(Record):
    """Every setting of a run, settled: profile < file < environment < flag."""

    profile: str
    """Gives ``[optim]`` and ``[train]``: the machine that trains."""
    target: str
    """Gives ``train.imgsz``, ``[compress]`` and ``[bench]``: the machine that runs the model."""
    settings: Mapping[str, Settled]
    """``section.key`` to its settled value."""

    def value(self, key: str) -> Any:
        """Return the settled value of ``section.key``.

        Raises:
            KeyError: There is no such setting.
        """
        return self.settings[key].value

    def _section(self, name: str, schema: type[S]) -> S:
        prefix = f"{name}."
        values = {
            key.removeprefix(prefix): settled.value
            for key, settled in self.settings.items()
            if key.startswith(prefix)
        }
        newer = _schema_version(self.schema_) > _schema_version(SCHEMA)
        return schema.model_validate(values, context={"written_by_newer": newer})

    @property
    def optim(self) -> OptimSettings:
        """The ``optim`` section, typed."""
        return self._section("optim", OptimSettings)

    @property
    def train(self) -> TrainSettings:
        """The ``train`` section, typed."""
        return self._section("train", TrainSettings)

    @property
    def compress(self) -> CompressSettings:
        """The ``compress`` section, typed."""
        return self._section("compress", CompressSettings)

    @property
    def bench(self) -> BenchSettings:
        """The ``bench`` section, typed."""
        return self._section("bench", BenchSettings)


# ---------------------------------------------------------------------------------- data set

FaultKind = Literal[
    "image-missing",
    "image-unreadable",
    "image-too-small",
    "image-unsupported",
    "label-unreadable",
    "label-malformed",
    "class-out-of-range",
    "coordinate-out-of-range",
    "box-without-area",
    "box-beyond-image",
    "row-repeated",
    "label-without-image",
    "split-without-boxes",
    "class-never-trained",
    "duplicate-in-split",
    "duplicate-between-splits",
]


class DataFault(Frozen):
    """One thing that is wrong with a data set."""

    severity: Literal["error", "warning"]
    """``train`` refuses a set with errors."""
    kind: FaultKind
    split: str | None
    file: str | None
    """Relative to the YAML's folder, if it lies below that."""
    line: int | None
    """Of the file, from 1."""
    what: str

    @property
    def where(self) -> str:
        """``file:line``, the file, or the split."""
        if self.file is None:
            return self.split or "the whole set"
        return f"{self.file}:{self.line}" if self.line else self.file


class BoxSizes(Frozen):
    """How many boxes have which area, in pixels of the original image (COCO's bounds)."""

    small: int
    """Under 32²."""
    medium: int
    large: int
    """96² and more."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.small + self.medium + self.large


class SplitStats(Frozen):
    """What one split holds. Boxes are counted on readable images, rows in error left out."""

    split: str
    n_images: int
    n_background: int
    """Images without a box."""
    boxes: BoxSizes
    smallest_image: tuple[int, int] | None
    """Width and height; ``None`` if no image can be read."""
    largest_image: tuple[int, int] | None


class ClassStats(Frozen):
    """How often one class occurs."""

    class_id: int
    name: str
    boxes: Mapping[str, int]
    """Split to number of boxes."""


class DataReport(Record):
    """What ``musgd data check --json`` prints."""

    path: str
    """The data set's YAML."""
    score_split: str
    """The split that figures are measured on."""
    splits: tuple[SplitStats, ...]
    classes: tuple[ClassStats, ...]
    faults: tuple[DataFault, ...]
    """Errors first."""
    seconds: float

    @property
    def errors(self) -> tuple[DataFault, ...]:
        """The faults that training would not survive, or would learn from."""
        return tuple(fault for fault in self.faults if fault.severity == "error")

    @property
    def warnings(self) -> tuple[DataFault, ...]:
        """The faults that are worth a look."""
        return tuple(fault for fault in self.faults if fault.severity == "warning")


# ------------------------------------------------------------------------------------- training


class TrainStart(Frozen):
    """What a training run sets out with: the head of the live view."""

    run: str
    optimizer: str
    model: str
    names: tuple[str, ...]
    n_images: int
    n_val_images: int
    epochs: int
    first_epoch: int
    """From 1; more than 1 when the run is resumed."""
    steps: int
    """Optimizer steps taken before this session."""
    steps_per_epoch: int
    batch: int
    imgsz: int
    device: str
    threads: int


class StepLog(Frozen):
    """One optimizer step, a line of ``steps.jsonl``."""

    step: int
    """Optimizer steps since the run began, from 1."""
    epoch: int
    """From 1."""
    loss: float | None
    """The batch's summed loss, as it was differentiated; ``None`` when it was not finite."""
    grad_norm: float | None
    """Global L2 norm of the gradient before the clip; ``None`` when it was not finite."""
    clipped: bool
    beta: float | None
    """Mean momentum used over the parameter tensors, weighted by their size."""
    momentum: float | None = None
    """What beta is where nothing adapts: the optimizer's setting, which the warm-up raises."""
    lr: float
    optimizer_ms: float | None = None
    """What the optimizer's own step took: the thread's CPU time where one thread computes, wall
    time where several do, the GPU's time on one. ``None`` where the step was left out."""
    skipped: bool = False
    """The step was left out because its gradient was not finite."""


class EpochLog(Frozen):
    """One epoch, a line of ``epochs.jsonl`` and of the live view."""

    epoch: int
    """From 1."""
    epochs: int
    seconds: float
    eta_s: float
    losses: Mapping[str, float]
    """Mean training losses by name, e.g. ``box_loss``; those that were not finite are left out."""
    val_losses: Mapping[str, float]
    not_finite: tuple[str, ...] = ()
    """What was left out: ``box_loss`` of training, ``val/box_loss`` of validation."""
    map50_95: float | None
    map50: float | None
    grad_norm: float | None
    """Median over the epoch's steps, before the clip."""
    beta: float | None
    clipped_share: float | None
    skipped_steps: int
    lr: float
    memory_mb: float | None
    """Peak since the run began: GPU memory where training runs on one, else resident memory."""
    temperature_c: float | None

    @property
    def train_loss(self) -> float | None:
        """Sum of the mean training losses; ``None`` where one was not finite."""
        whole = self.losses and all(name.startswith("val/") for name in self.not_finite)
        return sum(self.losses.values()) if whole else None

    @property
    def val_loss(self) -> float | None:
        """Sum of the validation losses; ``None`` where one was not finite."""
        whole = self.val_losses and not any(name.startswith("val/") for name in self.not_finite)
        return sum(self.val_losses.values()) if whole else None


class TrainResult(Record):
    """A finished training run, ``train.json``."""

    run: str
    weights: str
    """Path of the best weights, relative to the run folder."""
    sha256: str
    """Of the weights file."""
    optimizer: str
    epochs: int
    """Epochs that ran; fewer than the plan's when patience ended the run."""
    steps: int
    seconds: float
    map50_95: float | None
    """Of the best weights on the ``val`` split, by Ultralytics' validator."""
    map50: float | None
    peak_memory_mb: float | None
    clipped_share: float | None
    beta_mean: float | None
    skipped_steps: int = 0
    optimizer_ms: float | None = None
    """Median over the steps of `StepLog.optimizer_ms`."""
    optimizer_state_bytes: int | None = None
    """What the optimizer keeps between steps."""
    data: str
    split: str = "val"
    n_images: int
    """Images trained on."""
    n_val_images: int
    names: tuple[str, ...]
    model: str
    imgsz: int
    batch: int
    seed: int
    device: str
    threads: int
    target: str
    resumed: int = 0
    """How many times the run was interrupted and taken up again."""
    versions: Mapping[str, str] = Field(default_factory=dict)


# -------------------------------------------------------------------------------------- Artifact


class Calibration(Frozen):
    """What set the activation ranges of a quantized model."""

    method: str
    n_images: int
    seed: int
    split: str
    images: tuple[str, ...]
    """File names, relative to the data set's folder."""
    digests: tuple[str, ...] = ()
    """What each of them holds: the first 16 hexadecimal digits of its SHA-256. Another data set may
    name the same image otherwise."""


Verdict = Literal["passed", "failed", "inconclusive"]


class Gate(Frozen):
    """A model held against its float parent on images that calibrated nothing."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """In words, what kept it from passing."""
    max_drop: float
    """Most ``map50_95_drop`` that passes."""
    least_matched: float | None = None
    """Least ``match_recall`` and ``match_precision`` that pass; ``None``: they are not judged."""
    map50_95_drop: float | None
    """Parent minus artifact; ``None`` when the images hold no object."""
    interval: tuple[float, float] | None
    """Bootstrap 90 % interval of the drop, paired over images."""
    map50_95: float | None
    map50: float | None
    recall_small: float | None
    """See `BenchReport.recall_small`."""
    parent_map50_95: float | None
    parent_map50: float | None
    parent_recall_small: float | None
    match_recall: float | None
    """Share of the parent's boxes that it finds too: same class, IoU above 0.5, score above 0.25.
    ``None`` when the parent finds none."""
    match_precision: float | None
    """Share of its boxes that the parent finds too."""
    n_boxes: int
    """Boxes of the parent."""
    box_px: float | None
    """Largest difference of a coordinate of matched boxes, pixels of the original image."""
    score_difference: float | None
    """Largest difference of the scores of matched boxes."""
    confidence_shift: float | None
    """Mean difference of the scores of matched boxes, artifact minus parent."""
    n_images: int
    data: str
    split: str
    scored_by: str
    """The engine that ran it, its version, and the kind of processor."""
    has_stand_in: bool = False
    """``scored_by`` is not the model's own runtime, which does not run here."""

    @property
    def falls_short(self) -> bool:
        """Whether a figure is beyond its limit, be that certain or not."""
        lost = self.map50_95_drop is not None and self.map50_95_drop > self.max_drop
        return lost or self.boxes_fall_short

    @property
    def boxes_fall_short(self) -> bool:
        """Whether too few boxes are in common, be that certain or not."""
        least = self.least_matched
        shares = (self.match_recall, self.match_precision)
        return least is not None and any(share is not None and share < least for share in shares)


class Repair(Frozen):
    """What ``--auto-mixed`` returned to float so that the gate would pass.

    The model was chosen by the images that it is then judged on: of ``builds`` the first that met
    the limits, or the best.
    """

    nodes: tuple[str, ...]
    """Of the float parent, those that hurt most first; empty: no build was better."""
    builds: int
    """Models that were built and scored on the way."""
    drop_before: float | None
    """mAP50-95 lost before the repair."""
    int8_macs_share_before: float
    size_mb_before: float
    time_ratio: float | None
    """Time of an inference to that before, medians of alternating runs; ``None``: its engine does
    not run here, or no build was better."""


def _inside(name: str) -> str:
    if not stays_inside(name):
        raise ValueError(f"{name!r} leads out of the folder")
    return name


class Artifact(Record):
    """A model built for one runtime, ``artifact.json`` of its folder."""

    path: str
    """The artifact's folder, as it was written."""
    files: tuple[Annotated[str, AfterValidator(_inside)], ...]
    """The model's files, relative to the folder; the first is the one to open."""
    sha256: str
    """Over the model's files, sorted by name; ``artifact.json`` left out."""
    parent_sha256: str | None
    """Of the float parent (for the fp32 ONNX: of the weights)."""
    target: str
    boards: tuple[str, ...] = ()
    """That the target's profile is for."""
    runtime: RuntimeName
    precision_asked: Precision
    precision: Precision
    """Read back from what was built."""
    int8_macs_share: float | None = None
    """Share of the convolutions' multiply-accumulates done in int8, read from the built model."""
    int8_layers: tuple[str, ...] = ()
    """The convolutions in int8, as the built model names them."""
    float_layers: tuple[str, ...] = ()
    """The other convolutions."""
    imgsz: int
    names: tuple[str, ...]
    nms_free: bool
    """The output is final boxes; otherwise raw predictions that need NMS."""
    stride: int = 32
    size_mb: float
    """Of the model; an engine that was built beside it is left out."""
    calibration: Calibration | None = None
    gate: Gate | None = None
    """``None``: not held against its parent, as no data set was known; or it is the parent."""
    repair: Repair | None = None
    quantize_all: bool = False
    """``--quantize-all``: also what is known to be harmed by it was quantized."""
    versions: Mapping[str, str] = Field(default_factory=dict)
    license: str = "AGPL-3.0-or-later"


class SkippedExport(Frozen):
    """An artifact that cannot be made here, or whose making failed."""

    target: str
    runtime: str
    why: str
    mend: str
    exit_code: int | None = None
    """Of the error that its making ended with; ``None``: it was not begun."""


class ExportReport(Record):
    """What ``musgd export --json`` prints."""

    artifacts: tuple[Artifact, ...]
    skipped: tuple[SkippedExport, ...] = ()
    unmade: tuple[str, ...] = ()
    """Targets of which nothing but the float parent could be made."""


# ----------------------------------------------------------------------------------- BenchReport


class LatencyMs(Frozen):
    """Milliseconds of one inference, the engine alone."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float
    max: float


class PowerReading(Frozen):
    """Energy over one window, as a meter gave it."""

    energy_j: float
    seconds: float
    source: str
    """E.g. ``rapl:package-0``."""
    scope: str
    """What it is of: ``board``, ``module``, ``rails``, ``gpu``, ``package`` or ``sensor``."""
    kind: Kind
    hz: float | None
    """Samples a second; ``None`` for a hardware counter that is read twice."""

    @property
    def power_w(self) -> float:
        """Mean watts over the window."""
        return self.energy_j / self.seconds


class Repeat(Frozen):
    """One fresh process of a report: it loaded, warmed up and timed."""

    began: float
    """Of the first timed frame, seconds since 1970 UTC: what another machine's meter aligns to."""
    seconds: float
    """Of the timed loop."""
    n: int
    """Frames timed: the next so many of the report's samples."""
    p50_ms: float
    """Of inference."""
    load_ms: float
    first_inference_ms: float
    warmup: int
    warmup_s: float
    steady: bool


class Moment(Frozen):
    """One slice of the timed frames, about a second of them, with what the sensors said then."""

    t_s: float
    """Its middle, in seconds since the first timed frame."""
    fps: float
    """Whole frames a second."""
    temperature_c: float | None
    cpu_mhz: float | None
    """Mean over the cores."""
    throttled: bool | None


class BenchReport(Record):
    """One artifact measured on one machine with one thread count."""

    artifact: str
    artifact_sha256: str
    target: str
    runtime: str
    runtime_version: str | None
    precision: Precision
    imgsz: int
    names: tuple[str, ...] = ()
    """Of the classes."""
    host: Host
    reached_as: str | None = None
    """What its board was called over ssh, which tells it from others of its kind; ``None``:
    measured where it was kept."""
    data: str | None
    split: str | None
    n_images: int
    """Images scored; the mAP below is theirs."""
    accuracy_note: str | None = None
    """Why there is no figure of accuracy."""
    threads: int
    n: int
    """Inferences timed."""
    warmup: int
    """Inferences before the timed ones, over all repeats."""
    steady: bool
    """Every warm-up ended because latency had settled, not because its time was up."""
    latency_ms: LatencyMs
    p50_interval_ms: tuple[float, float] | None = None
    """Where the p50 of another such run is expected 19 times of 20, by the spread of the repeats;
    ``None`` with fewer than three."""
    stable: bool | None = None
    """That interval is at most 10 % wide; ``None`` where there is none."""
    repeats: tuple[Repeat, ...] = ()
    sustained: bool = False
    """One long process, to see how speed lasts as the board warms up."""
    samples_ms: tuple[float, ...]
    """Every timed inference, in order."""
    frame_samples_ms: tuple[float, ...] = ()
    """Every timed frame: letterbox, inference and decode."""
    fps: float
    """1000 / mean inference."""
    fps_end_to_end: float | None
    """1000 / mean of letterbox, inference and decode, images already in memory; ``None`` where the
    model alone was timed, as by NVIDIA's trtexec, like the next two."""
    pre_ms: float | None
    """Median of letterbox and layout."""
    post_ms: float | None
    """Median of decode, NMS or top-k, and rescale."""
    peak_memory_mb: float | None
    """Most resident memory of the whole process, interpreter and frames included, until timed."""
    gpu_memory_mb: float | None = None
    """Most GPU memory of the process; ``None`` for an engine that computes on the CPU."""
    map50_95: float | None
    map50: float | None
    recall_small: float | None
    """At IoU 0.5 and any score from 0.001: objects under 32² px in the original image; ``None``
    when there is none."""
    n_small: int
    recall_medium: float | None = None
    """As ``recall_small``, of 32² px and more, under 96²."""
    n_medium: int = 0
    recall_large: float | None = None
    """As ``recall_small``, of 96² px and more."""
    n_large: int = 0
    confidence_shift: float | None = None
    """Mean score minus the float parent's over the boxes that both find: same class, IoU above 0.5,
    score above 0.25. ``None`` without the parent, or a box."""
    n_shared_boxes: int = 0
    power_w: float | None
    """Mean over the timed frames."""
    idle_w: float | None = None
    """Mean of the same meter at rest, before."""
    energy_per_frame_j: float | None
    net_energy_per_frame_j: float | None = None
    """Above what the machine draws at rest."""
    fps_per_watt: float | None = None
    """Whole frames a second per watt: frames per joule."""
    power_source: str | None
    power_scope: str | None = None
    power_kind: Kind | None
    power_hz: float | None = None
    """Samples a second; ``None`` for a hardware counter."""
    power_s: float | None = None
    """Seconds measured, over all repeats."""
    power_note: str | None = None
    """Why there is no figure of power."""
    temperature_c: float | None
    """Highest during the timed frames."""
    throttled: bool | None
    """Clocks were held back at some time of them."""
    throttle_reasons: tuple[str, ...] = ()
    """By what, each as its source names it, e.g. ``soft temperature limit`` or ``power cap``;
    ``under-voltage`` also where the clocks were not held back by it."""
    cpu_mhz: float | None = None
    """Mean over the cores and the timed frames."""
    cpu_mhz_highest: float | None = None
    """Of the core that ran fastest at each time, mean over the timed frames: the clock of one busy
    thread among cores at rest."""
    gpu_mhz: float | None = None
    """Of the GPU's cores, mean over the timed frames, where they did the work."""
    governor: str | None = None
    """Of the CPU's clock, e.g. ``performance``."""
    power_mode: str | None = None
    """Of a Jetson, e.g. ``MAXN``."""
    cores_used: float | None = None
    """CPU seconds of the process a second."""
    cores_used_by_others: float | None = None
    """CPU seconds a second of all else on the machine meanwhile."""
    moments: tuple[Moment, ...] = ()
    load_ms: float
    """Opening the model with its file in the page cache; the runtime's import left out; median
    over the repeats."""
    first_inference_ms: float
    """Median over the repeats."""
    harness_ms: float | None = None
    """What the timing loop itself takes a frame: measured by one whose stages do nothing."""
    warmup_s: float | None = None
    seconds: float | None = None
    """Of the timed loop."""
    n_frames: int = 0
    """Different images timed, round and round; 0: one image of seeded noise."""
    n_excluded: int = 0
    """Images of the split left out of the score because they calibrated a model."""
    ap50_95: Mapping[str, float] = Field(default_factory=dict)
    """By name, for the classes that have objects in the split."""
    ap50: Mapping[str, float] = Field(default_factory=dict)
    size_mb: float | None = None
    """Of the model's files."""
    made_by: str | None = None
    """Who made a model that musgd did not export, as its metadata says; ``None``: musgd."""
    started: str | None = None
    """When the measurement began, ISO 8601 in UTC."""
    engine: Mapping[str, str] = Field(default_factory=dict)
    """What decides speed and precision, read back from the runtime."""
    parent_sha256: str | None = None
    """Of the artifact's float parent."""
    gate: Verdict | None = None
    """What was found when it was exported; ``None``: it was not held against its parent."""
    versions: Mapping[str, str] = Field(default_factory=dict)

    @property
    def frames_a_second(self) -> float:
        """Whole frames a second; of the model alone where nothing else was timed."""
        return self.fps if self.fps_end_to_end is None else self.fps_end_to_end

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes used a quarter of a core and more meanwhile.

        An idle desktop or the bench's own watching takes less than that, which the repeats' spread
        tells; with more, another program was at work, and may be in all repeats alike.
        """
        return (self.cores_used_by_others or 0.0) >= 0.25


# ------------------------------------------------------------------------------------ Comparison

Difference = Literal["faster", "slower", "no difference shown", "cannot be told"]


class Change(Frozen):
    """One figure of a report beside the baseline's."""

    figure: str
    """Its path in a `BenchReport`, e.g. ``latency_ms.p50``."""
    here: float
    baseline: float
    ratio: float | None
    """Here over baseline; ``None`` where the baseline's is not above 0."""
    interval: tuple[float, float] | None
    """95 % of the ratio, by the spread of the repeats of both reports; ``None`` without one."""
    difference: Difference
    why: str | None = None
    """Why it cannot be told."""


NOT_IN_BOTH: Literal["not measured in both"] = "not measured in both"
"""Why the figures of a kind are not compared where either report has none."""


class Comparison(Frozen):
    """One report beside the baseline's report of the same kind of artifact on this machine."""

    artifact: str
    threads: int
    baseline_artifact: str | None
    """``None``: the baseline holds none to compare it with."""
    baseline_started: str | None = None
    changes: tuple[Change, ...] = ()
    """Of the figures that both measured."""
    not_compared: Mapping[str, str] = Field(default_factory=dict)
    """``time``, ``accuracy`` or ``power`` to why; ``everything`` where the baseline has no such
    report."""
    notes: tuple[str, ...] = ()
    """What else was not the same, in words."""


class Broken(Frozen):
    """What fails a bench: a report beyond a limit or that cannot be held to it, or no report."""

    threshold: str | None
    """Of ``--fail-if``; ``None``: what was to be measured was not."""
    artifact: str
    threads: int
    value: float | None
    """What was held to the limit: a figure, a ratio or a difference; ``None``: not measured."""
    interval: tuple[float, float] | None = None
    """Of ``value``, by the spread of the repeats."""
    certain: bool
    """False: beyond the limit, but within the noise, which is told and fails nothing."""
    what: str
    """In words."""


class BenchReports(Record):
    """What ``musgd bench --json`` prints."""

    reports: tuple[BenchReport, ...]
    comparisons: tuple[Comparison, ...] = ()
    """With ``--against``: one a report, in their order."""
    broken: tuple[Broken, ...] = ()
    """With ``--fail-if`` or ``--against``."""


# ------------------------------------------------------------------------------------------- Fit


class Roofline(Frozen):
    """Time of a whole frame by image size: what does not depend on it, and what grows with it."""

    runtime: str
    precision: Precision
    target: str
    threads: int
    overhead_ms: float
    ms_per_megapixel: float
    points: tuple[tuple[int, float], ...]
    """Image size and measured milliseconds of a frame, of the two that it was drawn through."""


class FitCandidate(Frozen):
    """One artifact with one thread count, as a planner saw it."""

    artifact: str
    artifact_sha256: str
    target: str
    runtime: str
    precision: Precision
    imgsz: int
    threads: int
    map50_95: float | None
    """``None``: nothing says it; see `Fit.accuracy_by`."""
    map50_95_drop: float | None
    """Lost against the float parent."""
    predicted_fps: float | None
    """Whole frames a second."""
    predicted_by: Literal["roofline", "probe"] | None
    """A probe is a short measurement of the candidate itself."""
    fps: float | None = None
    """Whole frames a second, measured in full; ``None``: it was not near the line."""
    fps_interval: tuple[float, float] | None = None
    """Where another such run is expected 19 times of 20."""
    stable: bool | None = None
    """That interval is at most 10 % wide."""
    counted_fps: float | None = None
    """What was held to the limit: the interval's worse end, or ``fps`` where none can be told."""
    power_w: float | None = None
    """While it ran as fast as it can."""
    energy_per_frame_j: float | None = None
    meets: bool | None = None
    """``None``: not measured in full."""
    why: str | None = None
    """What it misses, or why it was left out."""
    report: str | None = None
    """Where its full report is kept."""


class Fit(Record):
    """What ``musgd fit --json`` prints."""

    host: Host
    fps: float
    """Whole frames a second that were asked for."""
    watts: float | None
    max_drop: float | None
    power_by: str | None = None
    """The meter, and what of the machine it measures; ``None``: power was not asked for."""
    data: str | None
    """Its images were timed; ``None``: each model's own run's, or noise."""
    accuracy_by: Literal["gate", "score", "size"]
    """What said which is more accurate: the mAP50-95 of the gates of the export, of this data, or,
    where neither is known, image size and then precision."""
    chosen: FitCandidate | None
    """The most accurate that meets all; of its thread counts the fewest."""
    nearest: FitCandidate | None
    """The one that comes nearest, where none meets all."""
    step_larger: FitCandidate | None
    """The chosen one's next larger image size, at the thread count that suits it best."""
    candidates: tuple[FitCandidate, ...]
    """Most accurate first."""
    rooflines: tuple[Roofline, ...]
    prediction_error: float | None
    """Largest of |predicted / measured - 1| over what the rooflines predicted and was measured."""
    settings: BenchSettings
    """Of the full measurements; what was too unstable to tell was then timed for twice as long."""


# ------------------------------------------------------------------------------------ PruneResult


class PruneStage(Frozen):
    """A model before, between or after: as its fp32 ONNX does on the split of the gate."""

    map50_95: float | None
    map50: float | None
    recall_small: float | None
    """See `BenchReport.recall_small`."""
    macs: int
    """Multiply-accumulates of the convolutions for one image, one head."""
    parameters: int
    """Of what is exported: one head, normalization folded into the convolutions."""
    size_mb: float
    latency_ms: LatencyMs
    """Parent and pruned model timed in turns; the fine-tuned one has the shape of the pruned one,
    and its latency."""


class PruneResult(Record):
    """A pruned and fine-tuned model held against its parent, ``prune.json`` of its run."""

    run: str
    weights: str
    """Path of the weights relative to the run folder: the fine-tuned ones, once there are any."""
    sha256: str
    """Of the weights file."""
    parent: str
    """Path of the weights that were pruned."""
    parent_sha256: str
    asked: Literal["ratio", "macs", "speedup"]
    wanted: float
    """Share of channels to remove, share of MACs to leave at most, or least speedup: that of the
    least of the samples, which a busy machine sways less than ``speedup``."""
    max_drop: float
    """Most mAP50-95 that the fine-tuned model may lose to pass the gate."""
    removed: float
    """Share of the removable channels that is gone."""
    macs_share: float
    """Multiply-accumulates left, as a share of the parent's."""
    speedup: float
    """The parent's median latency over the pruned model's."""
    widths: Mapping[str, tuple[int, int]]
    """Convolution to its output channels before and after, where they differ."""
    before: PruneStage
    pruned: PruneStage
    """Not yet fine-tuned."""
    tuned: PruneStage | None = None
    """``None`` while it is not finished and measured."""
    gate: Gate | None = None
    """The fine-tuned model held against the parent; ``None`` while it was not. Where its split is
    val, the same images have also chosen the epoch."""
    distilled: bool
    """The parent taught it."""
    epochs: int
    """Of fine-tuning, as planned."""
    imgsz: int
    nms_free: bool
    threads: int
    """Of the engine that was timed."""
    n: int
    """Inferences timed of each model."""
    seed: int
    host: Host
    versions: Mapping[str, str] = Field(default_factory=dict)


class DoctorReport(Record):
    """What ``musgd doctor --json`` prints."""

    host: Host
    profile: str | None
    checks: tuple[Check, ...]


# ------------------------------------------------------------------------------------- Prediction


class PredictedBox(Frozen):
    """One object that was found, in pixels of the original image."""

    name: str
    class_id: int
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


class Prediction(Record):
    """One frame, a line of ``musgd predict --json``."""

    source: str
    """The image's file, or what the frame was taken from."""
    frame: int
    """From 0, in its folder, video or stream; of a stream those dropped count."""
    t_s: float | None
    """Seconds into the video, or since the first frame of a stream; ``None`` for an image."""
    width: int
    height: int
    boxes: tuple[PredictedBox, ...]
    """Best first."""
    pre_ms: float
    infer_ms: float
    post_ms: float


class Bundle(Record):
    """What ``musgd bundle --json`` prints."""

    path: str
    """The folder or zip."""
    artifact: str
    """The folder it was made from."""
    python: str
    """The oldest that runs it."""
    requires: tuple[str, ...]
    """What ``pip install`` takes on the board."""
    size_mb: float
    """Unpacked."""


class Wheel(Frozen):
    """One file of a wheelhouse."""

    file: str
    """Its name in the folder."""
    sha256: str
    size_mb: float


class Wheelhouse(Record):
    """What ``musgd wheelhouse --json`` prints, and ``wheelhouse.json`` in its folder says."""

    path: str
    """The folder; empty in the file, for it is carried to another machine."""
    target: str
    """The board it was made for."""
    machine: str
    """That board's architecture, in uname's words."""
    pythons: tuple[str, ...]
    """Versions of Python that it serves, such as ``3.11``."""
    extras: tuple[str, ...]
    """Of musgd's package, what it holds the wheels for."""
    version: str
    """Of musgd."""
    wheels: tuple[Wheel, ...]
    size_mb: float
    """Of all the wheels."""


# ------------------------------------------------------------------------------------- Tuning


class Searched(Frozen):
    """A setting that a study searches: a range of numbers, or choices."""

    key: str
    """``section.key``."""
    baseline: SettingValue
    """The value without tuning, which is the first trial."""
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Small steps near ``low``, large ones near ``high``."""
    whole: bool = False
    """Whole numbers only."""
    choices: tuple[SettingValue, ...] = ()


TrialState = Literal["running", "finished", "pruned", "diverged"]


class TunedTrial(Frozen):
    """One training run of a study."""

    number: int
    """From 0; a number may be missing whose machine died."""
    state: TrialState
    """``pruned``: it was worse than half of the others at the same epoch, and ended there."""
    baseline: bool
    """It has the values without tuning."""
    values: Mapping[str, SettingValue]
    epochs: int | None
    """Epochs that were trained."""
    val_loss: float | None
    """Sum of the validation losses of its last epoch."""
    map50_95: float | None
    """Of its last epoch, on the ``val`` split."""
    map50: float | None
    seconds: float | None
    machine: str | None
    """That trained it: processor, cores, system."""


class Confirmation(Frozen):
    """The best trial and the baseline, trained once more on a seed that chose neither."""

    seed: int
    baseline_val_loss: float | None
    """``None``: it diverged."""
    best_val_loss: float | None
    baseline_map50_95: float | None
    best_map50_95: float | None

    @property
    def gain(self) -> float | None:
        """How much lower the best trial's validation loss is."""
        if self.baseline_val_loss is None or self.best_val_loss is None:
            return None
        return self.baseline_val_loss - self.best_val_loss


StudyVerdict = Literal[
    "holds", "does not hold", "not confirmed", "baseline is best", "all diverged", "unfinished"
]


class Study(Record):
    """What ``musgd tune --json`` prints: a profile's values searched for one data set."""

    name: str
    profile: str
    """Whose values are the baseline."""
    optimizer: str
    data: str
    """The data set's name; its folder is each machine's own."""
    n_images: int
    n_val_images: int
    model: str
    imgsz: int
    batch: int
    epochs: int
    seed: int
    """Of every trial; the confirmations have further ones."""
    asked: int
    """Trials asked for."""
    pruned_from: int
    """First epoch after which a trial may be pruned."""
    search: tuple[Searched, ...]
    trials: tuple[TunedTrial, ...]
    best: int | None
    """Number of the finished trial with the lowest validation loss."""
    confirmations: tuple[Confirmation, ...] = ()
    noise: float | None = None
    """Standard deviation of the baseline's validation loss between seeds; ``None`` of one seed."""
    verdict: StudyVerdict
    recommended: Mapping[str, SettingValue]
    """The best trial's values if they hold, else the baseline's."""
    wrote: str | None = None
    """The profile that holds them."""
    host: Host
    """The machine that wrote this; each trial names its own."""
    versions: Mapping[str, str] = Field(default_factory=dict)

    def trial(self, number: int | None) -> TunedTrial | None:
        """Return the trial of that number."""
        return next((trial for trial in self.trials if trial.number == number), None)

    @property
    def baseline(self) -> TunedTrial | None:
        """The first trial with the values without tuning."""
        return next((trial for trial in self.trials if trial.baseline), None)

    @property
    def gain(self) -> float | None:
        """Mean gain of the best trial over the seeds that chose nothing."""
        gains = [each.gain for each in self.confirmations]
        known = [gain for gain in gains if gain is not None]
        return sum(known) / len(known) if known and len(known) == len(gains) else None


# ------------------------------------------------------------------------------------- Claims

ClaimVerdict = Literal["holds", "does not hold", "undecided", "cannot be measured here"]
"""``undecided``: it was measured, and its figures lie on both sides of the claim's limit."""


class ClaimFinding(Frozen):
    """One of the article's claims, measured for one form of the optimizer."""

    optimizer: Literal["musgd-article", "musgd"]
    """The article's form, or ours."""
    verdict: ClaimVerdict
    figure: float | None = None
    """The median over ``n``; what it is, ``Claim.figure`` says."""
    spread: tuple[float, float] | None = None
    """The lowest and the highest of ``n`` figures, or the interval that ``why`` names."""
    n: int = 0
    """Figures that the verdict rests on: seeds, or what ``why`` says."""
    compared_with: str | None = None
    why: str
    """What was found, or what is missing and what to do about it, in words."""


class ClaimResult(Frozen):
    """One of the article's claims and what this machine has to say of it."""

    claim: str
    """``C1`` to ``C11``, as the documentation numbers them."""
    says: str
    """The claim."""
    figure: str
    """What its figure is."""
    rule: str
    """What makes the verdict."""
    findings: tuple[ClaimFinding, ...]
    repeat: str
    """The command that measures it anew."""
    seconds: float
    """That it took by itself, trainings it shares with others left out."""


class Claims(Record):
    """What ``musgd claims --json`` prints, ``claims.json`` of its folder."""

    run: str
    scale: Literal["quick", "full"]
    finished: bool
    """``False``: it was stopped; the same command goes on."""
    data: str
    model: str
    imgsz: int
    batch: int
    epochs: int
    """Of a training that is scored."""
    seeds: int
    """Trainings an optimizer that are scored."""
    sweep_epochs: int
    """Of the trainings that choose learning rates, on a seed that is not scored."""
    settings: Mapping[str, SettingValue]
    """What all trainings share, by ``section.key``."""
    results: tuple[ClaimResult, ...]
    trainings: int
    """That these results rest on."""
    seconds: float
    """Of this session."""
    cpu_s: float
    """CPU seconds of this session, its trainings' included."""
    host: Host
    versions: Mapping[str, str] = Field(default_factory=dict)


# ------------------------------------------------------------------------ Optimizers compared


class ComparisonRequest(Frozen):
    """What decides the trainings of ``musgd compare``; the same request goes on."""

    optimizers: tuple[str, ...]
    """As typed, controls left out."""
    seeds: int
    """Seeds 0 to this one less are scored."""
    sweep_lr: bool
    """Learning rates are chosen on a seed that is not scored."""
    settings: Mapping[str, SettingValue]
    """What all trainings share, by ``section.key``."""


class CurvePoint(Frozen):
    """The end of an epoch."""

    step: int
    """Optimizer steps since the run began."""
    seconds: float
    """Since the run began, validation included."""
    train_loss: float | None
    """Sum of the epoch's mean training losses; ``None``: not finite."""
    val_loss: float | None
    map50: float | None
    map50_95: float | None


class Crossing(Frozen):
    """Where a run first got to a target, linear between the ends of epochs."""

    steps: float
    seconds: float


class ScoredRun(Frozen):
    """One training that is scored."""

    seed: int
    run: str
    """Its folder, below the comparison's."""
    diverged: bool
    curve: tuple[CurvePoint, ...]
    crossings: tuple[Crossing | None, ...]
    """One a target; ``None``: it never got there."""
    steps_ratios: tuple[float | None, ...]
    """One a target: steps over those of the baseline with the same seed."""
    best_map50: float | None
    best_map50_95: float | None
    seconds: float | None
    optimizer_ms: float | None
    """Median of the optimizer's own step."""
    optimizer_state_bytes: int | None
    peak_memory_mb: float | None
    beta_mean: float | None

    @property
    def last(self) -> CurvePoint | None:
        """The end of the last epoch."""
        return self.curve[-1] if self.curve and not self.diverged else None


class SweptRate(Frozen):
    """One learning rate that was tried."""

    lr: float
    run: str
    diverged: bool
    train_loss: float | None
    """Of the last epoch, like the next two."""
    val_loss: float | None
    """The lowest wins."""
    map50: float | None


class Spread(Frozen):
    """A figure over the seeds."""

    median: float
    low: float
    high: float
    n: int


class TargetOutcome(Frozen):
    """What the scored runs of a contender took to a target. No figure where one did not get there.

    The baseline of a ratio is the run of the same seed.
    """

    reached: int
    """Runs that got there."""
    of: int
    steps: Spread | None
    seconds: Spread | None
    steps_ratio: Spread | None


class ComparisonTarget(Frozen):
    """What steps and seconds are counted to."""

    figure: Literal["train loss", "val loss", "mAP50"]
    value: float
    given: bool
    """By an option; else it is what the baseline reached."""
    why: str
    """Where it comes from, in words."""


class ContenderResult(Frozen):
    """An optimizer with its settings, and what its runs came to."""

    optimizer: str
    """As it is typed after ``--optimizers``."""
    role: Literal["baseline", "contender", "control"]
    control_of: str | None
    settings: Mapping[str, SettingValue]
    """``[optim]`` as settled, with the learning rate that was scored."""
    lr: float | None
    """``None``: every rate of its sweep diverged."""
    sweep: tuple[SweptRate, ...]
    at_edge: bool
    """The best rate is the first or last of its sweep: a better one may lie beyond."""
    runs: tuple[ScoredRun, ...]
    targets: tuple[TargetOutcome, ...]
    """One a target of the comparison."""
    last_train_loss: Spread | None
    """These are ``None`` where a run diverged."""
    last_val_loss: Spread | None
    last_map50: Spread | None
    last_map50_95: Spread | None
    best_map50: Spread | None
    best_map50_95: Spread | None
    seconds: Spread | None
    optimizer_ms: Spread | None
    optimizer_state_bytes: int | None
    peak_memory_mb: Spread | None


class OptimizerComparison(Record):
    """What ``musgd compare --json`` prints, and ``compare.json`` in its folder."""

    run: str
    request: ComparisonRequest
    finished: bool
    """False: only the request is told."""
    targets: tuple[ComparisonTarget, ...] = ()
    contenders: tuple[ContenderResult, ...] = ()
    """The baseline first."""
    sweep_seed: int | None = None
    jobs: int = 1
    """Trainings side by side in the session that ended it."""
    data: str | None = None
    n_images: int | None = None
    n_val_images: int | None = None
    device: str | None = None
    threads: int | None = None
    host: Host | None = None
    versions: Mapping[str, str] = Field(default_factory=dict)
