"""``weights/resume.pt``: all that the next epoch needs, so that an interrupted run goes on as if
it had not been.

Ultralytics' own checkpoint keeps a half-precision average of the weights and the optimizer's state
in half precision: enough to start again, not to continue.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from musgd_cli.data.dataset import DataSet, label_file
from musgd_cli.errors import UsageError
from musgd_cli.records import StepLog
from musgd_cli.runs import RunFolder
from musgd_cli.train.checkpoint import first_line, save

VERSION = 1


def resume_file(run: RunFolder) -> Path:
    """Return where the state of an unfinished run lies."""
    return run.weights / "resume.pt"


@dataclass
class Progress:
    """What a run has counted so far."""

    epoch: int = 0
    """Epochs that are finished."""
    steps: int = 0
    skipped: int = 0
    clipped: int = 0
    beta_sum: float = 0.0
    beta_steps: int = 0
    seconds: float = 0.0
    resumed: int = 0
    trained: bool = False
    """No epoch is left: the last one is done, or patience has ended the run."""

    def count(self, step: StepLog) -> None:
        """Add one step."""
        self.steps += 1
        self.skipped += step.skipped
        self.clipped += step.clipped
        if step.beta is not None:
            self.beta_sum += step.beta
            self.beta_steps += 1

    @property
    def clipped_share(self) -> float | None:
        """Of the steps that were taken; ``None`` before the first."""
        taken = self.steps - self.skipped
        return self.clipped / taken if taken else None

    @property
    def beta_mean(self) -> float | None:
        """Over the steps that had one."""
        return self.beta_sum / self.beta_steps if self.beta_steps else None


@dataclass(frozen=True)
class ResumeState:
    """The state after an epoch. Tensors, numbers and text only: it loads with ``weights_only``."""

    progress: Progress
    data_fingerprint: str
    names: tuple[str, ...]
    model: Mapping[str, Any]
    ema: Mapping[str, Any]
    ema_updates: int
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    stopper: Mapping[str, Any]
    best_fitness: float | None
    criterion_updates: int
    loss_names: tuple[str, ...]
    random: Mapping[str, Any]
    version: int = VERSION

    def write(self, run: RunFolder) -> None:
        """Write the state, whole or not at all: the one before stays until this one is complete.

        Raises:
            MusgdError: The file could not be written.
        """
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        save({**content, "progress": asdict(self.progress)}, resume_file(run))

    @classmethod
    def read(cls, run: RunFolder) -> ResumeState:
        """Read the state of an unfinished run.

        Raises:
            UsageError: The file is damaged, or another version of musgd wrote it.
        """
        import torch

        path = resume_file(run)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["version"] != VERSION:
                raise UsageError(
                    f"{path} is of version {content['version']}, this musgd reads {VERSION}",
                    "finish the run with the musgd that began it",
                )
            return cls(**{**content, "progress": Progress(**content["progress"])})
        except UsageError:
            raise
        except Exception as error:  # a damaged file can fail anywhere in the unpickler
            raise UsageError(
                f"{path} cannot be read: {first_line(error)}", "train again under another --name"
            ) from error


def random_states() -> dict[str, Any]:
    """Return the state of every global random generator."""
    import numpy as np
    import torch

    state: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = state
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set every global random generator to what `random_states` returned."""
    import numpy as np
    import torch

    random.setstate(states["python"])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def fingerprint(data: DataSet) -> str:
    """Return a hash over what is trained and validated on: names, image files, labels.

    Images are told apart by path and size, labels by content.
    """
    digest = hashlib.sha256("\0".join(data.names).encode())
    for split in ("train", "val"):
        for image in data.images(split):
            name = os.path.relpath(image, data.root)
            digest.update(f"\0{split}\0{name}\0{image.stat().st_size}\0".encode())
            labels = label_file(image)
            digest.update(labels.read_bytes() if labels.exists() else b"")
    return digest.hexdigest()
