"""One training run from its plan to its result, and again from where it was interrupted.

Import after `sandbox.prepare`.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import warnings
from collections.abc import Iterable
from importlib import metadata

import torch

from musgd_cli import __version__, data
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError
from musgd_cli.records import Plan, TrainResult
from musgd_cli.runs import RunFolder
from musgd_cli.storage import sha256_of, write_record
from musgd_cli.train.events import Listeners
from musgd_cli.train.state import ResumeState, fingerprint, resume_file
from musgd_cli.train.trainer import RunTrainer

_VERSIONS_OF = ("torch", "torchvision", "ultralytics", "numpy")


def train(plan: Plan, run: RunFolder, listeners: Listeners, *, trust: bool) -> TrainResult:
    """Train ``plan`` into the folder of ``run``.

    A run that fails before its first step is removed; one that fails later can be resumed.
    """
    try:
        dataset = _data(plan)
        write_record(run.plan_file, plan)
        return _train(RunTrainer(plan, run, dataset, fingerprint(dataset), listeners, trust=trust))
    except BaseException:
        if not run.steps_file.exists() or not run.steps_file.stat().st_size:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def resume(run: RunFolder, listeners: Listeners, *, trust: bool) -> TrainResult:
    """Go on with an interrupted run after its last finished epoch."""
    plan = run.plan()
    dataset = _data(plan)
    now = fingerprint(dataset)
    state = ResumeState.read(run) if resume_file(run).exists() else None
    if state is None:
        listeners.on_note("no epoch of this run was finished; it starts from the beginning")
        return _train(RunTrainer(plan, run, dataset, now, listeners, trust=trust))
    if state.names != dataset.names:
        raise UsageError(
            f"the run was trained on the classes {', '.join(state.names)}, "
            f"and {dataset.path} now has {', '.join(dataset.names)}",
            "put the names: back, or train a new run",
        )
    if state.data_fingerprint != now:
        listeners.on_warning(
            "the data has changed since the run began: it goes on, but not as it would have"
        )
    state.progress.resumed += 1
    return _train(RunTrainer(plan, run, dataset, now, listeners, trust=trust, state=state))


def _data(plan: Plan) -> DataSet:
    if plan.train.data is None:
        raise UsageError(
            "no data set to train on", "give --data YAML, or try musgd demo, which draws one"
        )
    return data.load(plan.train.data)


def _train(trainer: RunTrainer) -> TrainResult:
    try:
        with warnings.catch_warnings():
            # torch says so of each such operation; on a GPU, YOLO has some.
            warnings.filterwarnings("ignore", message=".*deterministic implementation")
            if trainer.progress.trained:
                trainer.finish()
            else:
                trainer.train()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise trainer.out_of_memory() from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise trainer.out_of_memory() from error
        raise
    finally:
        trainer.close()
    result = _result(trainer)
    write_record(trainer.run.train_file, result)
    resume_file(trainer.run).unlink(missing_ok=True)
    return result


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _result(trainer: RunTrainer) -> TrainResult:
    progress, settings, run = trainer.progress, trainer.settings, trainer.run
    return TrainResult(
        run=run.name,
        weights=str(trainer.best.relative_to(run.path.resolve())),
        sha256=sha256_of([trainer.best]),
        optimizer=trainer.optim_settings.name,
        epochs=progress.epoch,
        steps=progress.steps,
        seconds=progress.seconds,
        map50_95=trainer.map50_95,
        map50=trainer.map50,
        peak_memory_mb=trainer.peak_memory_mb(),
        clipped_share=progress.clipped_share,
        beta_mean=progress.beta_mean,
        skipped_steps=progress.skipped,
        optimizer_ms=_median(step.optimizer_ms for step in run.steps()),
        optimizer_state_bytes=trainer.optimizer_state_bytes(),
        data=str(trainer.source.path),
        n_images=len(trainer.source.images("train")),
        n_val_images=len(trainer.source.images("val")),
        names=trainer.source.names,
        model=settings.model,
        imgsz=trainer.args.imgsz,
        batch=settings.batch,
        seed=settings.seed,
        device=str(trainer.device),
        threads=torch.get_num_threads(),
        target=trainer.plan.target,
        resumed=progress.resumed,
        versions={
            "musgd": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _VERSIONS_OF},
        },
    )
