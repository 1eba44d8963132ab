"""One artifact: drafted in a scratch folder, read back, tried, judged, then put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.compress import readme
from musgd_cli.compress.silence import silence
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.records import Artifact, Calibration, Precision, RuntimeName
from musgd_cli.runs import ARTIFACT_FILE, read_artifact
from musgd_cli.storage import sha256_of, whole_folder, write_failed, write_record, write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.parent import Network
    from musgd_cli.compress.precision import Built

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.15}
"""Most that a float model may differ from its parent: in score, and in box side by imgsz.

Sound fp32 exports differ by 1e-5, sound fp16 ones by .003 in score, bf16 ones by .02: these bounds
catch a model that is broken. What a precision costs is for the gate to say.
"""


def folder_name(target: str, runtime: str, precision: str, imgsz: int) -> str:
    """Return the name of an artifact's folder."""
    return f"{target}-{runtime}-{precision}-{imgsz}"


def require_ours(folder: Path) -> bool:
    """Tell whether ``folder`` is an artifact that may be replaced; ``False`` where there is none.

    Raises:
        UsageError: Something else is there.
    """
    if not folder.exists():
        return False
    if not (folder / ARTIFACT_FILE).is_file():
        raise UsageError(
            f"{folder} exists and is no artifact of ours", "remove it yourself, or give --out DIR"
        )
    return True


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of ``distributions`` that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version("musgd-cli" if name == "musgd" else name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Recipe:
    """How one model is built and read."""

    runtime: RuntimeName
    asked: Precision
    files: tuple[str, ...]
    """What ``build`` writes; the first is the one to open. What else it leaves is kept too."""
    build: Callable[[Path], Calibration | None]
    """Write the files into a folder; return what calibrated them."""
    read_back: Callable[[Path], Built]
    """Read from the files what was built."""
    parent_sha256: str
    """Of what it is made from."""
    tools: tuple[str, ...]
    """Distributions whose versions are recorded."""
    stand_in: RuntimeName | None = None
    """What runs the model where its own engine does not run here."""
    boards: tuple[str, ...] = ()
    """That the target's profile is for."""
    quantize_all: bool = False
    """Whether also what int8 is known to harm is quantized."""


@dataclass(frozen=True)
class Trial:
    """What a model is tried on."""

    sample: NDArray[np.float32]
    """A network input, (1, 3, imgsz, imgsz)."""
    expected: NDArray[np.float32] | None = None
    """The float parent's output for it; ``None`` for the parent itself."""


@dataclass(frozen=True)
class Draft:
    """A model that was built and works, before it has its place."""

    folder: Path
    artifact: Artifact
    runnable: Artifact
    """The record by which the model runs here: its own, or one that names the stand-in."""
    output: NDArray[np.float32]
    """For the sample."""

    @property
    def has_stand_in(self) -> bool:
        """Whether another runtime than its own runs it here."""
        return self.runnable is not self.artifact


def draft(
    folder: Path, place: Path, target: str, network: Network, recipe: Recipe, trial: Trial
) -> Draft:
    """Build a model in a scratch folder, read back what was built, and run it once.

    Args:
        folder: The scratch folder; it is made.
        place: The folder that the artifact's folder will go into.
        target: Name of the profile it is for.
        network: What it is made from.
        recipe: How.
        trial: What it is tried on.

    Raises:
        UsageError: Something that is no artifact is in its place.
        MusgdError: It could not be built, or does not do what its parent does.
    """
    try:
        folder.mkdir(parents=True)
        with silence():
            calibration = recipe.build(folder)
    except OSError as error:
        raise write_failed(folder, error) from error
    with silence():
        found = recipe.read_back(folder)
    lower = recipe.asked in ("int8", "bf16") and found.precision in ("fp32", "fp16")
    if lower:  # by that name it would replace another model
        raise MusgdError(
            f"the {recipe.runtime} {recipe.asked} model came out as {found.precision}",
            "please report it, with the versions that musgd doctor shows",
        )
    name = folder_name(target, recipe.runtime, found.precision, network.imgsz)
    require_ours(place / name)
    others = {path.name for path in folder.iterdir()} - set(recipe.files)
    files = (*recipe.files, *sorted(others))
    artifact = Artifact(
        path=str(place / name),
        files=files,
        sha256=sha256_of(folder / file for file in files),
        parent_sha256=recipe.parent_sha256,
        target=target,
        boards=recipe.boards,
        runtime=recipe.runtime,
        precision_asked=recipe.asked,
        precision=found.precision,
        int8_macs_share=round(found.int8_macs_share, 4),
        int8_layers=found.int8_layers if found.int8_macs_share else (),
        float_layers=found.float_layers if found.int8_macs_share else (),
        imgsz=network.imgsz,
        names=network.names,
        nms_free=network.nms_free,
        stride=network.stride,
        size_mb=round(sum((folder / file).stat().st_size for file in recipe.files) / 2**20, 3),
        calibration=calibration,
        quantize_all=recipe.quantize_all,
        versions=versions_of(recipe.tools),
    )
    runnable = _runnable(folder, artifact, recipe.stand_in)
    with silence():
        output = _try(folder, artifact, runnable, trial)
    return Draft(folder, artifact, runnable, output)


def keep(
    made: Draft,
    artifact: Artifact,
    network: Network,
    on_replaced: Callable[[Artifact, Artifact], None],
) -> Artifact:
    """Put a draft in its place, whole or not at all.

    Args:
        made: The draft.
        artifact: Its record, judged.
        network: What it was made from.
        on_replaced: Told, by their records, of an older artifact that was replaced by this one.

    Raises:
        UsageError: Something that is no artifact is in its place.
        MusgdError: It could not be written.
    """
    folder = Path(artifact.path)
    old = read_artifact(folder) if require_ours(folder) else None
    with whole_folder(folder) as temporary:
        for name in artifact.files:
            try:
                shutil.copyfile(made.folder / name, temporary / name)
            except OSError as error:  # it names the source, wherever the disk was full
                raise write_failed(folder, error) from error
        if artifact.runtime != "onnxruntime":  # an ONNX carries it inside
            _write_metadata(temporary, network)
        write_text(temporary / "README.md", readme.text(artifact))
        write_record(temporary / ARTIFACT_FILE, artifact)
    if old is not None:
        on_replaced(old, artifact)
    return artifact


def _write_metadata(folder: Path, network: Network) -> None:
    """Leave what Ultralytics' own runner reads beside a model."""
    import yaml

    content = yaml.safe_dump(network.metadata, sort_keys=False, allow_unicode=True)
    write_text(folder / "metadata.yaml", content)


def _runnable(folder: Path, artifact: Artifact, stand_in: RuntimeName | None) -> Artifact:
    from musgd_cli.runtime import prepare

    if stand_in is None:
        return artifact
    try:
        prepare(folder, artifact)
    except UnsupportedError:
        return artifact.model_copy(update={"runtime": stand_in})
    return artifact


def _try(folder: Path, artifact: Artifact, runnable: Artifact, trial: Trial) -> NDArray[np.float32]:
    """Run a model once, by the engine that will run it, and hold it against its parent."""
    import numpy as np

    from musgd_cli.runtime import open_engine

    engine = open_engine(folder, runnable, threads=1)
    try:
        output = np.array(engine.infer(trial.sample))
    finally:
        engine.close()
    name = f"the {artifact.runtime} {artifact.precision} model"
    mend = "please report it, with the versions that musgd doctor shows"
    if not np.isfinite(output).all():
        raise MusgdError(f"{name} answers with values that are not finite", mend)
    expected = trial.expected
    if expected is None:
        return output
    if output.shape != expected.shape:
        raise MusgdError(f"{name} answers {output.shape}, its parent {expected.shape}", mend)
    limit = TOLERANCES.get(artifact.precision)
    if limit is not None and not artifact.nms_free:
        boxes = float(np.abs(output[:, :4] - expected[:, :4]).max()) / artifact.imgsz
        off = max(boxes, float(np.abs(output[:, 4:] - expected[:, 4:]).max()))
        if off > limit:
            raise MusgdError(f"{name} differs from its parent by {off:.2g}, over {limit:g}", mend)
    return output
