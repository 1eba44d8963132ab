"""One artifact's folder: built under a temporary name, read back, tried, then put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from musgd_cli.compress import readme
from musgd_cli.compress.silence import silence
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.records import Artifact, Calibration, Precision, RuntimeName
from musgd_cli.runs import ARTIFACT_FILE
from musgd_cli.storage import sha256_of, whole_folder, write_record, write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.parent import Network
    from musgd_cli.compress.precision import Built

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.05}
"""Most that a float model may differ from its parent: in score, and in box side by imgsz.

Sound fp32 exports differ by 1e-5, sound fp16 ones by .003 in score: these bounds catch a model that
is broken. What int8 costs is measured by its mAP.
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
    """What ``build`` writes; the first is the one to open."""
    build: Callable[[Path], Calibration | None]
    """Write the files into a folder; return what calibrated them."""
    read_back: Callable[[Path], Built]
    """Read from the files what was built."""
    parent_sha256: str
    """Of what it is made from."""
    tools: tuple[str, ...]
    """Distributions whose versions are recorded."""


@dataclass(frozen=True)
class Trial:
    """What a model is tried on."""

    sample: NDArray[np.float32]
    """A network input."""
    expected: NDArray[np.float32] | None = None
    """The float parent's output for it; ``None`` where there is none to compare with."""


def make(
    place: Path,
    target: str,
    network: Network,
    recipe: Recipe,
    trial: Trial,
    on_note: Callable[[str], None],
) -> tuple[Artifact, NDArray[np.float32]]:
    """Build an artifact, whole or not at all.

    Its folder is named by the precision that was built, which is known only afterwards.

    Args:
        place: The folder its folder goes into.
        target: Name of the profile it is for.
        network: What it is made from.
        recipe: How.
        trial: What it is tried on.
        on_note: Told where an older artifact was replaced.

    Returns:
        Its record, and its output for the sample.

    Raises:
        UsageError: Something that is no artifact is in its place.
        MusgdError: It could not be built or written, or does not do what its parent does.
    """
    with TemporaryDirectory(prefix="musgd-export-") as scratch:
        draft = Path(scratch)
        with silence():
            calibration = recipe.build(draft)
            found = recipe.read_back(draft)
        folder = place / folder_name(target, recipe.runtime, found.precision, network.imgsz)
        is_replaced = require_ours(folder)
        artifact = Artifact(
            path=str(folder),
            files=recipe.files,
            sha256=sha256_of(draft / name for name in recipe.files),
            parent_sha256=recipe.parent_sha256,
            target=target,
            runtime=recipe.runtime,
            precision_asked=recipe.asked,
            precision=found.precision,
            int8_macs_share=round(found.int8_macs_share, 4),
            imgsz=network.imgsz,
            names=network.names,
            nms_free=network.nms_free,
            stride=network.stride,
            size_mb=round(sum((draft / name).stat().st_size for name in recipe.files) / 2**20, 3),
            calibration=calibration,
            versions=versions_of(recipe.tools),
        )
        with silence():
            output = _try(draft, artifact, trial)
        with whole_folder(folder) as temporary:
            for name in recipe.files:
                shutil.copyfile(draft / name, temporary / name)
            if recipe.runtime != "onnxruntime":  # an ONNX carries it inside
                _write_metadata(temporary, network)
            write_text(temporary / "README.md", readme.text(artifact))
            write_record(temporary / ARTIFACT_FILE, artifact)
    if is_replaced:
        on_note(f"replaced {folder}")
    return artifact, output


def _write_metadata(folder: Path, network: Network) -> None:
    """Leave what Ultralytics' own runner reads beside a model."""
    import yaml

    content = yaml.safe_dump(network.metadata, sort_keys=False, allow_unicode=True)
    write_text(folder / "metadata.yaml", content)


def _try(folder: Path, artifact: Artifact, trial: Trial) -> NDArray[np.float32]:
    """Run a model once, by the engine that will run it, and hold it against its parent."""
    import numpy as np

    from musgd_cli.runtime import open_engine

    engine = open_engine(folder, artifact, threads=1)
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
