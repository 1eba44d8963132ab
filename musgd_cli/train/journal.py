"""What a run writes as it goes: a line a step, a line an epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from musgd_cli.records import EpochLog, StepLog
from musgd_cli.runs import RunFolder
from musgd_cli.storage import write_failed, write_text


class Journal:
    """``steps.jsonl`` and ``epochs.jsonl`` of a run, appended to.

    Lines of an epoch are safe on disk once `epoch` returns; until then a crash may lose the last
    of them, and `Journal` cuts them off when it is opened again.

    Args:
        run: The run.
        epochs: How many epochs are finished. What was written beyond them is removed.

    Raises:
        MusgdError: The files cannot be written.
    """

    def __init__(self, run: RunFolder, epochs: int) -> None:
        self._run = run
        for path in (run.steps_file, run.epochs_file):
            _cut(path, epochs)
        self._steps = _append(run.steps_file)
        self._epochs = _append(run.epochs_file)

    def step(self, log: StepLog) -> None:
        """Append a step."""
        self._write(self._steps, self._run.steps_file, log)

    def epoch(self, log: EpochLog) -> None:
        """Append an epoch, and make sure that its steps are on disk."""
        self._write(self._epochs, self._run.epochs_file, log)
        try:
            for stream in (self._steps, self._epochs):
                os.fsync(stream.fileno())
        except OSError as error:
            raise write_failed(self._run.path, error) from error

    def close(self) -> None:
        """Close the files."""
        self._steps.close()
        self._epochs.close()

    def _write(self, stream: IO[str], path: Path, log: StepLog | EpochLog) -> None:
        try:
            stream.write(log.model_dump_json() + "\n")
            stream.flush()
        except OSError as error:
            raise write_failed(path, error) from error


def _append(path: Path) -> IO[str]:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise write_failed(path, error) from error


def _cut(path: Path, epochs: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["epoch"] > epochs:
                break
        except (ValueError, KeyError, TypeError):
            break  # the line that was being written when the process ended
        kept.append(line + "\n")
    write_text(path, "".join(kept))
