"""Which artifacts a bench is about, what they are measured on, and where its reports go."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError
from musgd_cli.records import Artifact
from musgd_cli.runs import RUNS, RunFolder, artifact_folders, newest_finished

_WEIGHTS = frozenset({".pt", ".pth"})
_BARE_MODELS = frozenset({".onnx", ".xml", ".bin", ".param", ".tflite", ".engine"})


@dataclass(frozen=True)
class Subject:
    """A model to measure: where its files lie now, and what they are."""

    folder: Path
    artifact: Artifact


def choose(paths: Sequence[str]) -> list[Path]:
    """Return the folders of the artifacts that ``paths`` name, each once, in order.

    Args:
        paths: A run (its folder or its name), an artifact's folder, or a folder of artifacts.
            Without any: the run that finished last.

    Raises:
        UsageError: A path names no artifact.
    """
    if not paths:
        run = newest_finished()
        return _artifacts_below(run.path)
    chosen = [folder for path in paths for folder in _artifacts_of(path)]
    return list(dict.fromkeys(chosen))


def _artifacts_of(spec: str) -> list[Path]:
    path = Path(spec)
    suffix = path.suffix.lower()
    if suffix in _WEIGHTS:
        raise UsageError(
            f"{spec} is weights, which only torch runs; bench measures what a board runs",
            f"export it first: musgd export {shlex.quote(spec)}",
        )
    if path.is_file() or suffix in _BARE_MODELS:
        raise UsageError(
            f"{spec} is no artifact: a folder with a model and its artifact.json",
            "musgd export RUN makes them; give their folder",
        )
    places = [place for place in (path, RUNS / spec) if place.is_dir()]
    if places:
        # A run is named after its data set: a folder of that name here is most likely the data.
        return _artifacts_below(next(filter(artifact_folders, places), places[-1]))
    known = ", ".join(sorted(folder.name for folder in RUNS.glob("*/") if folder.is_dir()))
    raise UsageError(
        f"{spec} does not exist", f"runs here: {known}" if known else "give an artifact's folder"
    )


def _artifacts_below(path: Path) -> list[Path]:
    found = artifact_folders(path)
    if not found:
        raise UsageError(
            f"there is no artifact in {path}", f"musgd export {shlex.quote(str(path))}"
        )
    return found


def run_of(folder: Path) -> RunFolder | None:
    """Return the run that an artifact lies in, if it lies in one."""
    place = folder.absolute().parent
    return RunFolder(folder.parent.parent) if place.name == "artifacts" else None


def data_of(folder: Path) -> str | None:
    """Return the data set that an artifact's run was trained on, if that is known."""
    run = run_of(folder)
    if run is None or not run.plan_file.is_file():
        return None
    data: str | None = run.plan().value("train.data")
    return data


def require_same_classes(model: object, names: tuple[str, ...], data_set: DataSet) -> None:
    """Refuse a data set whose class ids mean something else to a model.

    Args:
        model: What to call it.
        names: Its classes.
        data_set: What it is to be scored on.

    Raises:
        UsageError: They differ in number, or are numbered otherwise.
    """
    mend = "give the data set it was trained on with --data"
    if len(names) != len(data_set.names):
        raise UsageError(
            f"the model {model} has {len(names)} classes, "
            f"{data_set.path} has {len(data_set.names)}",
            mend,
        )
    # Renamed classes are the user's affair; the same names in another order are another labelling.
    if names != data_set.names and sorted(names) == sorted(data_set.names):
        raise UsageError(
            f"{data_set.path} numbers its classes otherwise than the model {model}", mend
        )


def report_file(folder: Path, threads: int, when: datetime) -> Path:
    """Return where a report goes: a new file below the artifact's run.

    An artifact that lies outside of any run is not ours to write beside; its reports go to
    ``runs/<artifact>/bench``.
    """
    run = run_of(folder)
    place = (run.path if run else RUNS / folder.absolute().name) / "bench"
    stem = f"{folder.absolute().name}-{threads}t-{when:%Y%m%d-%H%M%S}"
    file, number = place / f"{stem}.json", 1
    while file.exists():
        number += 1
        file = place / f"{stem}-{number}.json"
    return file
