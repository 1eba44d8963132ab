"""The run folder: the seam between the stages, and between machines.

::

    runs/<name>/
        plan.json    every setting, settled, before training starts
        train.json   the result; its presence means the run is finished
        prune.json   what pruning did, where the run fine-tunes a pruned model
        steps.jsonl  epochs.jsonl
        weights/     best.pt, last.pt, and resume.pt while the run is unfinished
        plots/
        artifacts/<target>-<runtime>-<precision>-<imgsz>/   one folder a built model
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musgd_cli.errors import UsageError
from musgd_cli.paths import PLAN_FILE, RUNS, run_around
from musgd_cli.records import (
    Artifact,
    BenchReport,
    BenchReports,
    EpochLog,
    Plan,
    StepLog,
    TrainResult,
)
from musgd_cli.storage import read_json, read_record, write_failed

ARTIFACT_FILE = "artifact.json"


@dataclass(frozen=True)
class RunFolder:
    """One run's folder and the places in it. Nothing is created by looking."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.path.resolve().name

    @property
    def typed(self) -> str:
        """Its path, quoted as a shell wants it typed."""
        return shlex.quote(str(self.path))

    @property
    def plan_file(self) -> Path:
        """Where the plan lies."""
        return self.path / PLAN_FILE

    @property
    def train_file(self) -> Path:
        """Where the training result lies, once the run is finished."""
        return self.path / "train.json"

    @property
    def prune_file(self) -> Path:
        """Where it is told what pruning did, if it did."""
        return self.path / "prune.json"

    @property
    def steps_file(self) -> Path:
        """One JSON line an optimizer step."""
        return self.path / "steps.jsonl"

    @property
    def epochs_file(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "epochs.jsonl"

    @property
    def weights(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "weights"

    @property
    def plots(self) -> Path:
        """The folder of curves."""
        return self.path / "plots"

    @property
    def artifacts(self) -> Path:
        """The folder of exported models."""
        return self.path / "artifacts"

    @property
    def finished(self) -> bool:
        """Whether training ended in good order."""
        return self.train_file.is_file()

    def plan(self) -> Plan:
        """Read the run's plan.

        Raises:
            UsageError: There is none, or it is not a plan.
        """
        return read_record(self.plan_file, Plan)

    def result(self) -> TrainResult:
        """Read the run's training result.

        Raises:
            UsageError: There is none yet, or it is not a result.
        """
        if not self.finished:
            raise UsageError(
                f"the run {self.path} is not finished",
                f"musgd train --resume {self.typed}",
            )
        return read_record(self.train_file, TrainResult)

    def steps(self) -> list[StepLog]:
        """Read the optimizer steps logged so far."""
        return [StepLog.model_validate(line) for line in _json_lines(self.steps_file)]

    def epochs(self) -> list[EpochLog]:
        """Read the epochs logged so far."""
        return [EpochLog.model_validate(line) for line in _json_lines(self.epochs_file)]


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return  # the line that was being written when the process ended


def require_plain(name: str) -> None:
    """Make sure that ``name`` is a plain folder name.

    Raises:
        UsageError: It is none.
    """
    plain = name.isprintable() and Path(name).name == name and not name.startswith(".")
    if not name or not plain:
        raise UsageError(
            f"{name!r} is no run name", "use a plain folder name, such as --name barn-1"
        )


def require_free(name: str, root: Path = RUNS) -> None:
    """Make sure that a new run can have the name ``name``.

    Raises:
        UsageError: It is no plain folder name, or is taken.
        MusgdError: No folder can have it.
    """
    require_plain(name)
    try:
        taken = (root / name).exists()
    except OSError as error:  # the name is too long
        raise write_failed(root / name, error) from error
    if taken:
        raise _taken(root / name)


def _taken(path: Path) -> UsageError:
    return UsageError(
        f"the run {path} exists already", "choose another --name, or remove that folder yourself"
    )


def create_run(name: str, root: Path = RUNS) -> RunFolder:
    """Create ``root/name`` for a new run.

    Raises:
        UsageError: The name is no plain folder name, or is taken.
        MusgdError: The folder cannot be created.
    """
    require_free(name, root)
    run = RunFolder(root / name)
    try:
        run.path.mkdir(parents=True)
    except FileExistsError as error:
        raise _taken(run.path) from error
    except OSError as error:
        raise write_failed(run.path, error) from error
    return run


def free_name(stem: str, root: Path = RUNS) -> str:
    """Return ``stem``, or the first of ``stem-2``, ``stem-3``, … that no run has."""
    name, number = stem, 1
    while (root / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def newest_finished(root: Path = RUNS) -> RunFolder:
    """Return the run whose training ended last.

    Raises:
        UsageError: There is none.
    """
    finished = [RunFolder(file.parent) for file in _visible(root.glob("*/train.json"))]
    if not finished:
        raise UsageError(f"no finished run in {root}", "musgd train, or musgd demo to try it out")
    return max(finished, key=lambda run: run.train_file.stat().st_mtime)


def find_run(spec: str, root: Path = RUNS) -> RunFolder:
    """Return the run that ``spec`` names: a folder, or a name below ``root``.

    Raises:
        UsageError: There is no such run.
    """
    for path in (Path(spec), root / spec):
        if RunFolder(path).plan_file.is_file():
            return RunFolder(path)
    known = ", ".join(sorted(file.parent.name for file in _visible(root.glob("*/plan.json"))))
    raise UsageError(
        f"{spec} is no run", f"runs here: {known}" if known else "musgd train makes one"
    )


def artifact_folders(path: Path) -> list[Path]:
    """Return the artifact folders at or below ``path``, sorted: one artifact, or a run's all."""
    if (path / ARTIFACT_FILE).is_file():
        return [path]
    found = [*path.glob(f"*/{ARTIFACT_FILE}"), *path.glob(f"artifacts/*/{ARTIFACT_FILE}")]
    return sorted(file.parent for file in _visible(found))


def run_of(folder: Path) -> RunFolder | None:
    """Return the run that an artifact's folder lies in, if it lies in one.

    See `musgd_cli.paths.run_around`.
    """
    run = run_around(folder)
    return None if run is None else RunFolder(run)


def _visible(files: Iterable[Path]) -> Iterator[Path]:
    """Leave out folders that are still being written: their names start with a dot."""
    return (file for file in files if not file.parent.name.startswith("."))


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact's record.

    Raises:
        UsageError: There is none, or it is not an artifact's.
    """
    return read_record(folder / ARTIFACT_FILE, Artifact)


def read_reports(path: Path) -> tuple[BenchReport, ...]:
    """Read one bench report, as a run keeps it, or what ``musgd bench --json`` printed.

    Raises:
        UsageError: The file is missing or holds neither.
    """
    data = read_json(path)
    if isinstance(data, dict) and "reports" in data:
        reports = read_record(path, BenchReports).reports
        if not reports:
            raise UsageError(f"{path} holds no report", "musgd bench --json > reports.json")
        return reports
    return (read_record(path, BenchReport),)
