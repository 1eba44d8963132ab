"""The one subclass of Ultralytics' trainer: its loop, losses and validator, our data and state.

Import after `sandbox.prepare`. What is overridden, and why:

- data, weights and model YAML come through our own doors, which neither download nor execute;
- the norm of the gradient before the clip reaches the optimizer and the log;
- a step whose gradient is not finite is left out whole, its average included;
- every epoch is saved so that the next one can be taken up from there.
"""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils import DEFAULT_CFG_KEYS
from ultralytics.utils.torch_utils import unwrap_model

from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import usable_cores
from musgd_cli.hardware.thermal import temperature_c
from musgd_cli.records import EpochLog, Plan, StepLog, TrainSettings, TrainStart
from musgd_cli.runs import RunFolder
from musgd_cli.train import optimizers
from musgd_cli.train.adaptation import AdaptationWatch
from musgd_cli.train.checkpoint import (
    first_line,
    is_pruned,
    load_weights,
    read_model_config,
    write_weights,
)
from musgd_cli.train.dataset import EpochSampler, RunDataset, loader
from musgd_cli.train.events import DivergedError, Listeners, TrainingInterruptedError
from musgd_cli.train.journal import Journal
from musgd_cli.train.state import Progress, ResumeState, random_states, restore_random_states
from musgd_cli.train.stopwatch import stopwatch

MAX_NORM = 10.0
"""Ultralytics clips the gradient's global norm to this."""

MAX_DET = 300
"""Boxes an image that validation counts, as everywhere in musgd."""

# What the checkpoint calls the optimizer. Ultralytics takes "musgd" for its own Muon hybrid.
_OPTIMIZER_TOKENS = {
    "musgd": "momentum-adaptive-sgd",
    "musgd-article": "momentum-adaptive-sgd",
    "sgd": "SGD",
    "adamw": "AdamW",
    "muon-sgd": "MuSGD",
}
_AMP = {"fp32": False, "fp16": True, "bf16": "bf16"}


class RunTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Trains one run.

    Args:
        plan: The run's settings.
        run: Its folder; everything is written there.
        data: The data set.
        data_fingerprint: What identifies it at resume.
        listeners: Whom to tell.
        trust: Load weights without restriction.
        state: Where to go on from, for a run that was interrupted.

    Raises:
        UnsupportedError: The device or the precision is not to be had here.
    """

    train_loader: Any
    test_loader: Any
    validator: Any

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        data: DataSet,
        data_fingerprint: str,
        listeners: Listeners,
        *,
        trust: bool = False,
        state: ResumeState | None = None,
    ) -> None:
        self.plan = plan
        self.run = run
        self.source = data
        self.settings = plan.train
        self.optim_settings = plan.optim
        self.listeners = listeners
        self.trust = trust
        self.state = state
        self.data_fingerprint = data_fingerprint
        self.progress = state.progress if state else Progress()
        device = _device(self.settings)
        super().__init__(overrides=self._overrides(device))
        for name, value in self._unchecked().items():
            setattr(self.args, name, value)
        # BaseTrainer writes its settings beside the plan, which has them all.
        (self.save_dir / "args.yaml").unlink()
        # It also chose a number of threads: all cores but one, at most eight.
        torch.set_num_threads(self.settings.threads or usable_cores())
        self._stopwatch = stopwatch(self.device, torch.get_num_threads())
        self.journal = Journal(run, self.progress.epoch)
        self._adaptation = AdaptationWatch(self.optim_settings, run.steps())
        self._begin_epoch_counts()

    def _overrides(self, device: str) -> dict[str, Any]:
        settings, optim = self.settings, self.optim_settings
        return {
            "task": "detect",
            "mode": "train",
            "model": settings.model,
            "data": str(self.source.path),
            "epochs": settings.epochs,
            "imgsz": settings.imgsz,
            "batch": settings.batch,
            # Its accumulation ramps with the warm-up and straddles epochs; ours is in
            # `optimizer_step`. Equal to batch, nbs also leaves the weight decay as it is.
            "nbs": settings.batch,
            "cache": "ram" if settings.cache == "ram" else False,
            "device": device,
            "workers": settings.workers,
            "seed": settings.seed,
            "deterministic": True,
            "amp": _AMP[settings.amp],
            "patience": settings.patience,
            "optimizer": _OPTIMIZER_TOKENS[optim.name],
            "lrf": optim.lr_final,
            "momentum": optim.momentum,
            "warmup_epochs": optim.warmup_epochs,
            "warmup_momentum": optim.warmup_momentum,
            "mosaic": settings.mosaic,
            "close_mosaic": 0,  # the data set closes it by epoch
            "translate": settings.translate,
            "scale": settings.scale,
            "plots": False,
            "verbose": False,
            "save_dir": str(self.run.path.resolve()),
        }

    def _unchecked(self) -> dict[str, float]:
        """Return the settings of which Ultralytics' check admits no value above 1."""
        optim = self.optim_settings
        return {
            "lr0": optim.lr,
            "weight_decay": optim.weight_decay,
            "warmup_bias_lr": optim.warmup_bias_lr,
        }

    # ------------------------------------------------------------------------------ what goes in

    def get_dataset(self) -> dict[str, Any]:
        """Describe the data set; each split's path is its name, see `get_dataloader`."""
        names = dict(enumerate(self.source.names))
        return {
            "train": "train",
            "val": "val",
            "names": names,
            "nc": len(names),
            "channels": 3,
            "path": str(self.source.root),
        }

    def get_dataloader(
        self,
        dataset_path: str,
        batch_size: int = 16,
        rank: int = 0,  # noqa: ARG002
        mode: str = "train",
    ) -> Any:
        """Return the loader of the split ``dataset_path``."""
        training = mode == "train"
        dataset = RunDataset(
            self.source,
            dataset_path,
            seed=self.settings.seed,
            plain_from=self.settings.epochs - self.settings.close_mosaic,
            imgsz=self.args.imgsz,
            batch_size=batch_size,
            augment=training,
            hyp=self.args,
            rect=not training,
            cache=self.args.cache or None,
            stride=self.stride,
            pad=0.0 if training else 0.5,  # as Ultralytics' build_yolo_dataset has it
            data=self.data,
            task="detect",
        )
        if self.args.cache and dataset.cache is None:
            needed = dataset.ram_bytes / 2**20
            self.listeners.on_warning(
                f"{needed:.0f} MB of {mode} images do not fit into memory; they are read from disk"
            )
        return loader(
            dataset,
            batch_size,
            workers=min(self.args.workers, usable_cores()),
            seed=self.settings.seed,
            shuffle=training,
            pin_memory=self.device.type == "cuda",
        )

    def setup_model(self) -> None:
        """Build the model from weights or from a YAML, with this data set's classes.

        A run that goes on is built from its own last weights: fine-tuning can give the head
        another width than its YAML says. Their values are then replaced by the state's.
        """
        if self.state is not None:
            self.model = self._from_weights(load_weights(self.last, self.trust))
        else:
            self._set_out()
        if self.settings.distill is not None:
            self.set_model_attributes()  # which the teacher's pupil is asked for
            self.model = self._with_teacher(self.model, self.settings.distill)

    def _with_teacher(self, pupil: Any, teacher: str) -> DistillationModel:
        try:
            return DistillationModel(load_weights(teacher, self.trust), pupil)
        except (ValueError, RuntimeError) as error:
            raise UsageError(
                f"{teacher} cannot teach {self.settings.model}: {first_line(error)}",
                "give weights of the same kind, or leave train.distill out",
            ) from error

    def _set_out(self) -> None:
        name = self.settings.model
        suffix = name.rsplit(".", 1)[-1].lower()
        if suffix == "pt":
            weights = load_weights(name, self.trust)
            self._tell_of_classes(weights)
            self.model = self._from_weights(weights)
        elif suffix in ("yaml", "yml"):
            self.listeners.on_note(f"training {name} from scratch")
            self.model = self._from_scratch(read_model_config(name))
        else:
            raise UsageError(
                f"model {name} is neither weights (.pt) nor a model YAML",
                "give weights to start from, or yolo26n.yaml to train from scratch",
            )

    def _from_weights(self, weights: Any) -> Any:
        """Build what the weights' YAML says, or take pruned weights, which no YAML builds."""
        model = self.get_model(cfg=deepcopy(weights.yaml), weights=weights, verbose=False)
        if not is_pruned(weights, model):
            return model
        theirs, ours = _class_names(weights), self.source.names
        if theirs != ours:
            raise UsageError(
                f"{self.settings.model} is pruned and knows {', '.join(theirs)}; the data set has "
                f"{', '.join(ours)}, and a pruned head cannot be given other classes",
                "train the weights it was pruned from on this data set, then musgd prune the run",
            )
        return weights

    def _from_scratch(self, config: dict[str, Any]) -> Any:
        try:
            return self.get_model(cfg=config, verbose=False)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            raise UsageError(
                f"model {self.settings.model} cannot be built: {error}",
                "mend the model YAML, or use yolo26n.yaml",
            ) from error

    def _tell_of_classes(self, weights: Any) -> None:
        theirs, ours = _class_names(weights), self.source.names
        if theirs != ours:
            kept = {str(name).strip().lower() for name in theirs}
            known = sum(name.strip().lower() in kept for name in ours)
            self.listeners.on_note(
                f"the weights know {len(theirs)} classes, the data set has {len(ours)}, "
                f"{known} of them by the same name; the rest of the class head starts anew"
            )

    def get_validator(self) -> DetectionValidator:
        """Return Ultralytics' validator, for at most `MAX_DET` boxes an image."""
        arguments = {k: v for k, v in vars(self.args).items() if k not in self._unchecked()}
        arguments["max_det"] = MAX_DET  # Ultralytics raises it to the most labels on an image
        return DetectionValidator(self.test_loader, save_dir=self.save_dir, args=arguments)

    def _setup_train(self) -> None:
        # Ultralytics tries fp16 out on yolo26n.pt, which it downloads. The plan has decided, and
        # steps that overflow are left out.
        check, engine.check_amp = engine.check_amp, lambda _: True
        try:
            super()._setup_train()
        finally:
            engine.check_amp = check

    def _build_train_pipeline(self) -> None:
        if self.optimizer is not None:
            # Ultralytics is about to go on with half the batch; a run keeps to its plan.
            raise self.out_of_memory()
        size = min(self.settings.batch, len(self.source.images("train")))
        last = len(self.source.images("train")) % size or size
        if last == 1 and self.args.imgsz < 64:
            raise UsageError(
                f"the last batch would be 1 image of {self.args.imgsz} px, too little to normalise",
                "choose another --batch, or --imgsz 64",
            )
        super()._build_train_pipeline()

    def build_optimizer(self, model: nn.Module, **options: Any) -> Any:
        """Return the plan's optimizer; ``muon-sgd`` is Ultralytics' own, groups and all."""
        if self.optim_settings.name == "muon-sgd":
            return super().build_optimizer(model, **options)
        return optimizers.build(self.optim_settings, model)

    # ---------------------------------------------------------------------------------- the loop

    def run_callbacks(self, event: str) -> None:
        """Take our own part in the loop. Ultralytics' trackers and telemetry are never called."""
        if event == "on_train_start":
            self.listeners.on_start(self._start())
            if self.listeners.stop():
                raise self._interrupted()
        elif event == "on_train_epoch_start":
            sampler = self.train_loader.sampler
            assert isinstance(sampler, EpochSampler)
            sampler.epoch = self.epoch
            self._begin_epoch_counts()

    def _start(self) -> TrainStart:
        accumulate = self.settings.accumulate
        return TrainStart(
            run=self.run.name,
            optimizer=self.optim_settings.name,
            model=self.settings.model,
            names=self.source.names,
            n_images=len(self.train_loader.dataset),
            n_val_images=len(self.test_loader.dataset),
            epochs=self.epochs,
            first_epoch=self.start_epoch + 1,
            steps=self.progress.steps,
            steps_per_epoch=math.ceil(len(self.train_loader) / accumulate),
            batch=self.settings.batch,
            imgsz=self.args.imgsz,
            device=str(self.device),
            threads=torch.get_num_threads(),
        )

    def _begin_epoch_counts(self) -> None:
        self._epoch_began = time.monotonic()
        self._batches = 0
        self._pending_loss: Any = 0.0
        self._epoch_steps: list[StepLog] = []

    def optimizer_step(self) -> None:
        """Step once `accumulate` batches, or the epoch's last, have added their gradients."""
        self._batches += 1
        self._pending_loss = self._pending_loss + self.loss.detach()
        complete = self._batches % self.settings.accumulate == 0
        if not complete and self._batches < len(self.train_loader):
            return
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.model.parameters(), max_norm=MAX_NORM)
        # One transfer a step, which the loop itself makes for its progress bar anyway.
        loss, norm = torch.stack((self._pending_loss.float(), norm.float())).tolist()
        finite = math.isfinite(norm)
        if finite:
            with self._stopwatch:
                optimizers.step(self.optimizer, self.scaler, norm)
        self.scaler.update()
        self.optimizer.zero_grad()
        if finite:
            self.ema.update(self.model)
        else:
            self._mend_buffers()
        self._pending_loss = 0.0
        self._log_step(loss, norm, finite)
        if self.listeners.stop():
            raise self._interrupted()

    def _mend_buffers(self) -> None:
        """Undo what a forward pass that overflowed has left in the normalization layers."""
        averages = dict(self.ema.ema.named_buffers())  # without the teacher's, which never change
        for name, buffer in unwrap_model(self.model).named_buffers():
            if name in averages and not buffer.isfinite().all():
                buffer.copy_(averages[name])

    def _log_step(self, loss: float, norm: float, finite: bool) -> None:
        beta = optimizers.beta(self.optimizer) if finite else None
        log = StepLog(
            step=self.progress.steps + 1,
            epoch=self.epoch + 1,
            loss=loss if math.isfinite(loss) else None,
            grad_norm=norm if finite else None,
            clipped=finite and norm > MAX_NORM,
            beta=None if beta is None else float(beta),
            momentum=optimizers.momentum(self.optimizer),
            lr=self._lr(),
            optimizer_ms=self._stopwatch.ms() if finite else None,
            skipped=not finite,
        )
        self.progress.count(log)
        self._epoch_steps.append(log)
        self._adaptation.step(log)
        with self._writing():
            self.journal.step(log)
        self.listeners.on_step(log)

    def _lr(self) -> float:
        """Return the rate of most of the weights; biases and some heads can have another."""
        most = max(
            self.optimizer.param_groups, key=lambda group: sum(map(torch.numel, group["params"]))
        )
        return float(most["lr"])

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Never go back to earlier weights: no step can have spoilt these."""
        if all(step.skipped for step in self._epoch_steps):
            lower = f"--set optim.lr={self.optim_settings.lr / 3:.2g}"
            # Some GPUs, the GTX 16 series among them, give NaN in half precision.
            exact = "" if self.settings.amp == "fp32" else ", or with --set train.amp=fp32"
            raise DivergedError(
                f"training diverged: no gradient of epoch {epoch + 1} was finite",
                f"start a new run with a lower rate, such as {lower}{exact}",
            )
        return False

    def _interrupted(self) -> TrainingInterruptedError:
        done, epochs = self.progress.epoch, self.epochs
        if not self.progress.steps:
            return TrainingInterruptedError(
                "stopped as asked before the first step; nothing is kept",
                "type the same command to start anew",
            )
        kept = f"{done} finished and kept" if done else "none is finished yet"
        return TrainingInterruptedError(
            f"stopped as asked in epoch {min(done + 1, epochs)} of {epochs}; {kept}",
            f"musgd train --resume {self.run.typed}",
        )

    def out_of_memory(self) -> MusgdError:
        """Put the end of the memory into the user's words."""
        batch, accumulate = self.settings.batch, self.settings.accumulate
        smaller = (
            f"--batch {batch // 2} --set train.accumulate={accumulate * 2} takes the same steps"
            if batch > 1
            else "choose a smaller --imgsz"
        )
        mend = (
            f"close what else uses it, then musgd train --resume {self.run.typed}; "
            f"or start anew: {smaller}"
            if self.progress.epoch
            else smaller
        )
        place = "GPU memory" if self.device.type == "cuda" else "memory"
        return MusgdError(f"{place} ran out at batch {batch}, imgsz {self.settings.imgsz}", mend)

    # ----------------------------------------------------------------------------- what comes out

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Leave out results.csv: ``epochs.jsonl`` has it."""

    def save_model(self) -> bool:
        """Write the weights, the epoch's line, and last the state, which ends the epoch."""
        with self._writing():
            self._write_weights()
            log = self._epoch_log()
            self.journal.epoch(log)
            finished = replace(
                self.progress,
                epoch=self.epoch + 1,
                seconds=self.progress.seconds + log.seconds,
                trained=bool(self.stop),
            )
            self._state(finished).write(self.run)
        self.progress = finished
        self.listeners.on_epoch(log)
        if warning := self._adaptation.end_epoch():
            self.listeners.on_warning(warning)
        if self.listeners.stop():
            raise self._interrupted()
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say of a failure to write how to go on from the last epoch that was saved."""
        try:
            yield
        except MusgdError as error:
            if not self.progress.epoch:
                raise
            raise MusgdError(
                error.what,
                f"make room or mend the folder, then musgd train --resume {self.run.typed}",
            ) from error

    def _write_weights(self) -> None:
        arguments = {
            key: value for key, value in vars(self.args).items() if key in DEFAULT_CFG_KEYS
        }
        details = {
            "train_args": {**arguments, "close_mosaic": self.settings.close_mosaic},
            "train_metrics": {**self.metrics, "fitness": self.fitness},
        }
        average = _pupil(self.ema.ema)
        write_weights(self.last, average, details)
        if self.best_fitness == self.fitness:
            write_weights(self.best, average, details)

    def _epoch_log(self) -> EpochLog:
        seconds = time.monotonic() - self._epoch_began
        mean_seconds = (self.progress.seconds + seconds) / (self.epoch + 1)
        left = 0 if self.stop else self.epochs - self.epoch - 1
        steps = self._epoch_steps
        norms = [step.grad_norm for step in steps if step.grad_norm is not None]
        betas = [step.beta for step in steps if step.beta is not None]
        taken = sum(not step.skipped for step in steps)
        losses = {name: float(value) for name, value in self.tloss.items()}
        val_losses = {
            name: float(value) for name, value in self.metrics.items() if name.startswith("val/")
        }
        return EpochLog(
            epoch=self.epoch + 1,
            epochs=self.epochs,
            seconds=seconds,
            eta_s=mean_seconds * left,
            losses=_finite(losses),
            val_losses={
                name.removeprefix("val/"): value for name, value in _finite(val_losses).items()
            },
            not_finite=tuple(
                name for name, value in (losses | val_losses).items() if not math.isfinite(value)
            ),
            map50_95=self.map50_95,
            map50=self.map50,
            grad_norm=statistics.median(norms) if norms else None,
            beta=statistics.fmean(betas) if betas else None,
            clipped_share=sum(step.clipped for step in steps) / taken if taken else None,
            skipped_steps=len(steps) - taken,
            lr=self._lr(),
            memory_mb=self.peak_memory_mb(),
            temperature_c=temperature_c(device="gpu" if self.device.type == "cuda" else "cpu"),
        )

    @property
    def map50_95(self) -> float | None:
        """What the last validation measured."""
        return _finite(self.metrics).get("metrics/mAP50-95(B)")

    @property
    def map50(self) -> float | None:
        """What the last validation measured."""
        return _finite(self.metrics).get("metrics/mAP50(B)")

    def peak_memory_mb(self) -> float:
        """Return the most memory this process has held: reserved on the GPU, or resident."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def optimizer_state_bytes(self) -> int:
        """Return how much the optimizer keeps between steps."""
        return optimizers.state_bytes(self.optimizer)

    def _state(self, progress: Progress) -> ResumeState:
        model = unwrap_model(self.model)
        return ResumeState(
            progress=progress,
            data_fingerprint=self.data_fingerprint,
            names=self.source.names,
            model=_without_teacher(model.state_dict()),
            ema=self.ema.ema.state_dict(),
            ema_updates=self.ema.updates,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            scheduler=self.scheduler.state_dict(),
            stopper={name: getattr(self.stopper, name) for name in _STOPPER_STATE},
            best_fitness=self.best_fitness,
            criterion_updates=getattr(model.criterion, "updates", 0),
            loss_names=self.loss_names,
            random=random_states(),
        )

    def resume_training(self, ckpt: Any) -> None:  # noqa: ARG002
        """Take up the state that the run was left in, if it was."""
        state = self.state
        if state is None:
            return
        model = unwrap_model(self.model)
        model.load_state_dict(state.model, strict=self.settings.distill is None)
        self.ema.ema.load_state_dict(state.ema)
        self.ema.updates = state.ema_updates
        self.optimizer.load_state_dict(state.optimizer)
        self.scaler.load_state_dict(state.scaler)
        self.scheduler.load_state_dict(state.scheduler)
        for name, value in state.stopper.items():
            setattr(self.stopper, name, value)
        self.best_fitness = state.best_fitness
        model.criterion = model.init_criterion()
        if hasattr(model.criterion, "update"):
            # The weights of the two heads' losses follow from how many epochs are finished.
            model.criterion.updates = state.criterion_updates - 1
            model.criterion.update()
        self.loss_names = tuple(state.loss_names)
        self.loss_items = {name: torch.zeros((), device=self.device) for name in self.loss_names}
        self.start_epoch = self.progress.epoch
        restore_random_states(state.random)

    def final_eval(self) -> None:
        """Score the best weights, as they are stored, on the ``val`` split."""
        best = load_weights(self.best, self.trust)
        _pupil(self.ema.ema).load_state_dict(best.state_dict())
        self.metrics = self.validator(self)

    def finish(self) -> None:
        """Do what is left of a run that has trained its last epoch."""
        self._setup_train()
        self.epoch = self.start_epoch - 1
        self.final_eval()

    def close(self) -> None:
        """Give back files and loading processes, however the run ended."""
        self.journal.close()
        # The loaders' processes end with them.
        self.train_loader = self.test_loader = self.validator = None


def _class_names(model: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in dict(model.names).values())


def _pupil(model: Any) -> Any:
    """Return what is trained: the model, or the pupil of one with a teacher."""
    return getattr(model, "student_model", model)


def _without_teacher(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in state.items() if not name.startswith("teacher_model.")}


_STOPPER_STATE = ("best_fitness", "best_epoch", "possible_stop")


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _device(settings: TrainSettings) -> str:
    """Return the device in Ultralytics' words.

    Raises:
        UnsupportedError: It is not there, or cannot compute in the precision asked for.
    """
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        if settings.amp != "fp32":
            raise UnsupportedError(
                f"train.amp={settings.amp} needs a CUDA GPU, and this run is on the CPU",
                "--set train.amp=fp32",
            )
        return name
    index = name.removeprefix("cuda").removeprefix(":") or "0"
    if int(index) >= torch.cuda.device_count():
        raise UnsupportedError(
            f"train.device={name}: torch sees {torch.cuda.device_count()} CUDA GPUs here",
            "--set train.device=cpu, or musgd doctor for what is missing",
        )
    if settings.amp == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UnsupportedError(
            f"{torch.cuda.get_device_name(int(index))} does not compute in bf16",
            "--set train.amp=fp16",
        )
    return index
