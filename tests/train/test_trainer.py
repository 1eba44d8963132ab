"""Training through its public door, and the trainer where only its inside can be disturbed."""

from __future__ import annotations

import json
import shutil
import socket
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from musgd_cli import data, train
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError
from musgd_cli.records import EpochLog, StepLog, TrainResult, TrainStart
from musgd_cli.runs import RunFolder
from musgd_cli.storage import sha256_of
from musgd_cli.train.events import Listeners
from musgd_cli.train.state import resume_file

# 10 images in batches of 4
STEPS_AN_EPOCH = 3


MAX_NORM = 10.0


def trainer_of(plan, run: RunFolder, *extras: type) -> Any:
    """A trainer with methods of ``extras`` in front of its own."""
    from musgd_cli.train.trainer import RunTrainer

    kind = type("Trainer", (*extras, RunTrainer), {})
    return kind(plan, run, data.load(plan.train.data), "", Listeners())


def load_checkpoint(file: Path) -> Any:
    from ultralytics.nn.tasks import load_checkpoint

    return load_checkpoint(file)[0]


# ------------------------------------------------------------------------------------ a whole run


def test_a_run_leaves_plan_result_logs_and_weights(finished):
    assert {path.name for path in finished.path.iterdir()} == {
        *("plan.json", "train.json", "steps.jsonl", "epochs.jsonl", "weights")
    }
    assert {path.name for path in finished.weights.iterdir()} == {"best.pt", "last.pt"}
    result = finished.result()
    assert result.epochs == 2
    assert result.steps == 2 * STEPS_AN_EPOCH
    assert (result.n_images, result.n_val_images) == (10, 4)
    assert result.names == ("dark", "bright")
    assert result.weights == "weights/best.pt"
    assert result.sha256 == sha256_of([finished.path / result.weights])
    assert result.threads == 1
    assert result.resumed == 0
    assert result.map50 is not None
    assert result.peak_memory_mb > 50
    assert {"musgd", "torch", "ultralytics"} <= result.versions.keys()


def test_the_optimizers_own_time_and_state_are_recorded(make_plan, new_run):
    run = new_run("timed")
    trainer = trainer_of(make_plan(train__epochs=2), run)
    trainer.train()
    trainer.close()
    steps, epochs = run.steps(), run.epochs()
    for epoch in epochs:
        of_epoch = [step.optimizer_ms for step in steps if step.epoch == epoch.epoch]
        assert all(ms > 0 for ms in of_epoch)
        # A part of the step: forward and backward, loading and validation take the rest.
        assert sum(of_epoch) < epoch.seconds * 1e3 / 2
    held = trainer.optimizer.state_dict()["state"].values()
    tensors = [value for state in held for value in state.values() if torch.is_tensor(value)]
    assert trainer.optimizer_state_bytes() == sum(tensor.nbytes for tensor in tensors)
    largest = sum(parameter.nbytes for parameter in trainer.model.parameters())
    assert largest / 2 < trainer.optimizer_state_bytes() < 1.2 * largest  # one buffer


def test_the_result_has_the_median_of_the_optimizers_time(finished):
    steps, result = finished.steps(), finished.result()
    assert result.optimizer_ms == np.median([step.optimizer_ms for step in steps]) > 0
    assert result.optimizer_state_bytes > 0


def test_a_checkpoint_of_the_optimizer_survives_ultralytics_half_precision(make_plan, new_run):
    from ultralytics.utils.torch_utils import convert_optimizer_state_dict_to_fp16

    trainer = trainer_of(make_plan(train__epochs=1, optim__name="musgd"), new_run("half"))
    trainer.train()
    trainer.close()
    optimizer = trainer.optimizer
    exact = {
        (key, name): value.clone()
        for key, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    halved = convert_optimizer_state_dict_to_fp16(deepcopy(optimizer.state_dict()))
    optimizer.load_state_dict(halved)
    for key, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            before = exact[key, name]
            assert value.dtype == before.dtype
            if name == "momentum_buffer":
                assert torch.equal(value, before.half().float())
            else:  # mean squares, which half precision cannot hold, and counts
                assert torch.equal(value, before)


def test_every_step_and_epoch_is_logged(finished):
    steps, epochs = finished.steps(), finished.epochs()
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.epoch for step in steps] == [1, 1, 1, 2, 2, 2]
    assert all(step.loss > 0 and step.grad_norm > 0 and 0 < step.beta < 1 for step in steps)
    assert all(step.clipped == (step.grad_norm > MAX_NORM) for step in steps)
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    for epoch in epochs:
        of_epoch = [step for step in steps if step.epoch == epoch.epoch]
        assert epoch.grad_norm == np.median([step.grad_norm for step in of_epoch])
        assert epoch.beta == pytest.approx(np.mean([step.beta for step in of_epoch]))
        assert epoch.clipped_share == np.mean([step.clipped for step in of_epoch])
        assert set(epoch.losses) == set(epoch.val_losses) == {"box_loss", "cls_loss", "l1_loss"}
    assert epochs[0].eta_s == pytest.approx(epochs[0].seconds)
    assert epochs[1].eta_s == 0


def test_the_result_is_what_ultralytics_own_val_says_of_the_best_weights(
    learned, squares, tmp_path
):
    from ultralytics.models.yolo.detect import DetectionValidator

    # A copy, because Ultralytics writes its label cache beside the labels.
    shutil.copytree(squares.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / squares.name
    copy.write_text(copy.read_text() + f"path: {copy.parent}\n")
    overrides = {"imgsz": 64, "data": str(copy), "batch": 4, "plots": False, "device": "cpu"}
    validator = DetectionValidator(save_dir=tmp_path / "val", args={**overrides, "rect": True})
    metrics = validator(model=load_checkpoint(learned.weights / "best.pt"))
    result = learned.result()
    assert result.map50 == pytest.approx(metrics["metrics/mAP50(B)"], abs=2e-5)
    assert result.map50_95 == pytest.approx(metrics["metrics/mAP50-95(B)"], abs=2e-5)


def test_listeners_hear_of_start_steps_epochs_and_decisions(make_plan, new_run):
    heard: list = []
    result = train.train(
        make_plan(train__epochs=1),
        new_run("heard"),
        Listeners(
            on_start=heard.append,
            on_step=heard.append,
            on_epoch=heard.append,
            on_note=heard.append,
        ),
    )
    assert isinstance(result, TrainResult)
    kinds = [type(one) for one in heard]
    assert kinds == [str, TrainStart, *[StepLog] * STEPS_AN_EPOCH, EpochLog]
    assert "from scratch" in heard[0]
    start = heard[1]
    assert (start.steps_per_epoch, start.first_epoch, start.threads) == (STEPS_AN_EPOCH, 1, 1)


def test_fine_tuning_says_which_classes_the_weights_know(make_plan, new_run, finished):
    notes: list[str] = []
    plan = make_plan(train__model=str(finished.weights / "best.pt"), train__epochs=1)
    tuned = train.train(plan, new_run("tuned"), Listeners(on_note=notes.append))
    assert notes == []  # the same classes
    assert tuned.model == plan.train.model

    other = Path(plan.train.data).with_name("other.yaml")
    other.write_text("train: images/train\nval: images/val\nnames: [night, bright]\n")
    try:
        train.train(
            make_plan(**{"train.model": plan.train.model, "train.data": str(other)}),
            new_run("other"),
            Listeners(on_note=notes.append),
        )
    finally:
        other.unlink()
    assert "1 of them by the same name" in notes[0]


def test_nothing_is_asked_of_the_network_and_nothing_written_beside_data_and_weights(
    make_plan, new_run, finished, squares, tmp_path, monkeypatch, fingerprint
):
    attempts: list = []

    def refuse(*arguments):
        attempts.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(finished.weights / "best.pt", given)
    before = fingerprint(squares.parent), fingerprint(given)
    train.train(make_plan(train__model=str(given / "best.pt")), new_run("quiet"))
    assert attempts == []
    assert (fingerprint(squares.parent), fingerprint(given)) == before


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_caches_and_arrays_beside_the_data_are_not_opened(make_plan, new_run, squares, tmp_path):
    shutil.copytree(squares.parent, tmp_path / "set")
    mark = tmp_path / "ran"
    cache = tmp_path / "set" / "labels" / "train.cache"
    with cache.open("wb") as file:
        np.save(file, np.array(Touch(mark), dtype=object), allow_pickle=True)
    black = np.zeros((64, 80, 3), np.uint8)
    for image in sorted((tmp_path / "set" / "images" / "train").glob("*.png")):
        np.save(image.with_suffix(".npy"), black)  # Ultralytics would train on these
    (tmp_path / "set" / "images" / "train" / "0.npy").write_bytes(b"and would delete this one")
    plan = make_plan(train__data=str(tmp_path / "set" / squares.name), train__epochs=1)
    spoilt = train.train(plan, new_run("spoilt"))
    clean = train.train(make_plan(train__epochs=1), new_run("clean"))
    assert not mark.exists()
    seen = [
        [(step.loss, step.grad_norm) for step in RunFolder(tmp_path / "runs" / name).steps()]
        for name in ("spoilt", "clean")
    ]
    assert seen[0] == seen[1]
    assert clean.map50 == spoilt.map50
    assert (tmp_path / "set" / "images" / "train" / "0.npy").exists()

    np.load(cache, allow_pickle=True)  # as Ultralytics does
    assert mark.exists()


# ------------------------------------------------------------------------------------- the step


def test_the_norm_before_the_clip_reaches_the_optimizer(make_plan, new_run):
    run = new_run("global")
    plan = make_plan(
        optim__name="musgd-article",
        optim__norm_scope="global",
        optim__adapt_factor=1e-4,
        train__epochs=3,
    )
    train.train(plan, run)
    after_warmup = [step for step in run.steps() if step.epoch > 2]
    assert any(step.clipped for step in run.steps())
    for step in after_warmup:
        expected = plan.optim.momentum / (1 + 1e-4 * step.grad_norm**2)
        assert step.beta == pytest.approx(expected, rel=1e-5)


def test_accumulation_steps_every_n_batches_and_at_the_end_of_an_epoch(make_plan, new_run):
    run = new_run("sums")
    train.train(make_plan(train__accumulate=2, train__epochs=1), run)
    assert len(run.steps()) == 2  # of batches 1 and 2, and of batch 3


def test_accumulated_gradients_are_those_of_one_larger_batch(make_plan, new_run):
    settings = {
        "train__epochs": 1,
        "optim__name": "sgd",
        "optim__warmup_epochs": 0,
        "train__mosaic": 0.0,
    }
    one, two = new_run("one"), new_run("two")
    train.train(make_plan(train__batch=10, **settings), one)
    train.train(make_plan(train__batch=5, train__accumulate=2, **settings), two)
    # The loss is multiplied by the batch, so sums agree but for what the normalization saw.
    assert two.steps()[0].loss == pytest.approx(one.steps()[0].loss, rel=0.05)
    assert two.steps()[0].grad_norm == pytest.approx(one.steps()[0].grad_norm, rel=0.3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("musgd", "musgd_cli.optim.musgd.MuSGD"),
        ("musgd-article", "musgd_cli.optim.musgd.MuSGD"),
        ("sgd", "torch.optim.sgd.SGD"),
        ("adamw", "torch.optim.adamw.AdamW"),
        ("muon-sgd", "ultralytics.optim.muon.MuSGD"),
    ],
)
def test_each_optimizer_is_built_from_the_plan_and_trains(make_plan, new_run, name, kind):
    run = new_run(name)
    plan = make_plan(optim__name=name, optim__lr=0.007, optim__weight_decay=0.003, train__epochs=1)
    trainer = trainer_of(plan, run)
    trainer.train()
    trainer.close()
    built = type(trainer.optimizer)
    assert f"{built.__module__}.{built.__qualname__}" == kind
    groups = {group["param_group"]: group for group in trainer.optimizer.param_groups}
    assert {"weight", "bn", "bias"} <= groups.keys() | {"weight"}
    decays = {name: group["weight_decay"] for name, group in groups.items()}
    assert decays["bn"] == decays["bias"] == 0
    assert max(decays.values()) == 0.003  # not rescaled by the batch
    assert groups["bn"]["initial_lr"] == pytest.approx(0.007)
    betas = {step.beta is None for step in run.steps()}
    assert betas == {name == "adamw"}


class Poisoned:
    """Sees an image of infinities in its second batch."""

    def preprocess_batch(self, batch):
        batch = super().preprocess_batch(batch)
        self.before = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.average_before = {k: v.clone() for k, v in self.ema.ema.state_dict().items()}
        if self._batches == 1:
            batch["img"][0] = torch.inf
        return batch

    def optimizer_step(self):
        super().optimizer_step()
        if self._batches == 2:
            self.after = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.average_after = {k: v.clone() for k, v in self.ema.ema.state_dict().items()}
            self.spoilt_from = self.before, self.average_before


def test_a_step_that_is_not_finite_is_left_out_whole_and_counted(make_plan, new_run):
    run = new_run("poisoned")
    trainer = trainer_of(make_plan(train__epochs=1), run, Poisoned)
    trainer.train()
    trainer.close()

    steps = run.steps()
    assert [step.skipped for step in steps] == [False, True, False]
    assert steps[1].grad_norm is None
    assert steps[1].loss is None
    assert not steps[1].clipped
    assert run.epochs()[0].skipped_steps == trainer.progress.skipped == 1
    assert trainer.ema.updates == 2

    before, average_before = trainer.spoilt_from
    parameters = dict(trainer.model.named_parameters())
    assert all(torch.equal(trainer.after[name], before[name]) for name in parameters)
    assert all(torch.equal(trainer.average_after[k], v) for k, v in average_before.items())
    # What the forward pass did to the running statistics is undone as well.
    floats = [v for v in trainer.after.values() if v.is_floating_point()]
    assert all(value.isfinite().all() for value in floats)
    weights = load_checkpoint(run.weights / "best.pt").state_dict().values()
    assert all(value.isfinite().all() for value in weights if value.is_floating_point())


def test_a_run_without_one_finite_step_in_an_epoch_ends(make_plan, new_run):
    run = new_run("diverged")
    plan = make_plan(
        optim__name="sgd",
        optim__lr=1e30,
        optim__warmup_epochs=0,
        train__epochs=5,
        train__patience=0,
    )
    with pytest.raises(MusgdError, match="diverged") as caught:
        train.train(plan, run)
    assert caught.value.exit_code == ExitCode.FAILED
    assert "optim.lr" in caught.value.mend
    assert not run.finished


class Starved:
    """Runs out of memory in its second batch."""

    def preprocess_batch(self, batch):
        if self._batches == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().preprocess_batch(batch)


def test_running_out_of_memory_names_a_batch_that_takes_the_same_steps(make_plan, new_run):
    trainer = trainer_of(make_plan(train__batch=4), new_run("starved"), Starved)
    with pytest.raises(MusgdError, match="memory ran out at batch 4") as caught:
        trainer.train()
    trainer.close()
    assert "--batch 2 --set train.accumulate=2" in caught.value.mend


# ------------------------------------------------------------------------------- before the first


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"train__device": "cuda:7"}, UnsupportedError, "cuda:7"),
        ({"train__amp": "bf16", "train__device": "cpu"}, UnsupportedError, "train.amp=bf16"),
        ({"train__model": "missing.pt"}, UsageError, "missing.pt"),
        ({"train__model": "model.onnx"}, UsageError, "model.onnx"),
        ({"train__data": "missing.yaml"}, UsageError, "missing.yaml"),
        ({"train__imgsz": 32, "train__batch": 3}, UsageError, "too little to normalise"),
    ],
)
def test_a_run_that_cannot_start_leaves_no_folder(make_plan, new_run, changes, kind, says):
    run = new_run("failed")
    with pytest.raises(kind, match=says):
        train.train(make_plan(**changes), run)
    assert not run.path.exists()


def test_a_model_yaml_that_cannot_be_built_is_an_error_in_words(make_plan, new_run, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("nc: 2\nbackbone: [[-1, 1, Convv, [8]]]\nhead: [[-1, 1, Detect, [nc]]]\n")
    with pytest.raises(UsageError, match="cannot be built"):
        train.train(make_plan(train__model=str(broken)), new_run("broken"))


def test_the_log_is_json_without_infinities(finished):
    for file in (finished.steps_file, finished.epochs_file, finished.train_file):
        text = file.read_text()
        assert "NaN" not in text
        assert "Infinity" not in text
    assert json.loads(finished.train_file.read_text())["schema"]
    assert not resume_file(finished).exists()
