"""Which models a bench is about, what they are measured on, and where its reports go."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from musgd_cli.bench import foreign
from musgd_cli.bench.subject import Subject
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.paths import RUNS
from musgd_cli.runs import (
    RunFolder,
    artifact_folders,
    newest_finished,
    read_artifact,
    run_of,
)

_BARE_MODELS = frozenset({".onnx", ".xml", ".bin", ".param", ".tflite", ".engine"})


OnDamage = Callable[[MusgdError], None]


def choose(paths: Sequence[str], on_damage: OnDamage | None = None) -> list[Subject]:
    """Return the models that ``paths`` name, each once, in order.

    Args:
        paths: A run (its folder or its name), an artifact's folder, a folder of artifacts, or a
            model that musgd did not make. Without any: the run that finished last.
        on_damage: Called for a model that cannot be read or that no engine here is for, as long as
            there is another one; without it that is raised.

    Raises:
        UsageError: A path names no model, or no record can be read.
        UnsupportedError: musgd has no engine for the only model.
        MusgdError: The only model is damaged.
    """
    items = (
        [item for path in paths for item in _models_of(path)]
        if paths
        else _artifacts_below(newest_finished().path)
    )
    found = {item.path: item for item in items if isinstance(item, Subject)}
    errors = [item for item in items if isinstance(item, MusgdError)]
    for error in errors:
        if on_damage is None or not found:
            raise error
        on_damage(error)
    return list(found.values())


def _models_of(spec: str) -> list[Subject | MusgdError]:
    path = Path(spec)
    if path.suffix.lower() in foreign.WEIGHTS:
        raise UsageError(
            f"{spec} is weights, which only torch runs; bench measures what a board runs",
            f"export it first: musgd export {shlex.quote(spec)}",
        )
    if path.is_file() or path.suffix.lower() in _BARE_MODELS:
        return [_foreign_model(path)]
    places = [place for place in (path, RUNS / spec) if place.is_dir()]
    if places:
        # A run is named after its data set: a folder of that name here is most likely the data.
        place = next(filter(artifact_folders, places), places[-1])
        if artifact_folders(place) or RunFolder(place).plan_file.is_file():
            return _artifacts_below(place)
        return [_foreign_model(place)]
    known = ", ".join(sorted(folder.name for folder in RUNS.glob("*/") if folder.is_dir()))
    raise UsageError(
        f"{spec} does not exist", f"runs here: {known}" if known else "give an artifact's folder"
    )


def _foreign_model(path: Path) -> Subject | MusgdError:
    try:
        return foreign.read(path)
    except UsageError:
        raise
    except MusgdError as error:
        return error


def _artifacts_below(path: Path) -> list[Subject | MusgdError]:
    folders = artifact_folders(path)
    if not folders:
        raise UsageError(
            f"there is no artifact in {path}", f"musgd export {shlex.quote(str(path))}"
        )
    found: list[Subject | MusgdError] = []
    for folder in folders:
        try:
            found.append(Subject(folder, read_artifact(folder)))
        except UsageError as error:
            found.append(error)
    return found


def parent_of(subject: Subject, others: Sequence[Subject]) -> Subject | None:
    """Return a model's float parent, from ``others`` or from beside it, if it is at hand."""
    wanted = subject.artifact.parent_sha256
    if wanted is None or subject.artifact.runtime == "null":
        return None
    for other in others:
        if other.artifact.sha256 == wanted:
            return other
    for folder in artifact_folders(subject.folder.absolute().parent):
        with contextlib.suppress(UsageError):
            artifact = read_artifact(folder)
            if artifact.sha256 == wanted:
                return Subject(folder, artifact)
    return None


def data_of(subject: Subject) -> str | None:
    """Return the data set that a model's run was trained on, if that is known."""
    run = run_of(subject.folder)
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


def report_file(subject: Subject, threads: int, when: datetime) -> Path:
    """Return where a report goes: a new file below the model's run.

    A model that lies outside of any run is not ours to write beside; its reports go to
    ``runs/<name>/bench``.
    """
    run = run_of(subject.folder) if subject.made_by is None else None
    place = (run.path if run else RUNS / subject.name) / "bench"
    stem = f"{subject.name}-{threads}t-{when:%Y%m%d-%H%M%S}"
    file, number = place / f"{stem}.json", 1
    while file.exists():
        number += 1
        file = place / f"{stem}-{number}.json"
    return file
