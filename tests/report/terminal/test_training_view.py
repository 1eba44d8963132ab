from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from musgd_cli.records import EpochLog, OptimSettings, StepLog, TrainResult, TrainStart
from musgd_cli.report.terminal import training


def start(**changes: object) -> TrainStart:
    values = {
        "run": "cells [1]",
        "optimizer": "musgd",
        "model": "yolo26n.yaml",
        "names": ("a", "b"),
        "n_images": 10,
        "n_val_images": 4,
        "epochs": 5,
        "first_epoch": 1,
        "steps": 0,
        "steps_per_epoch": 4,
        "batch": 8,
        "imgsz": 64,
        "device": "cpu",
        "threads": 2,
        **changes,
    }
    return TrainStart.model_validate(values)


def step(number: int, epoch: int, **changes: object) -> StepLog:
    values = {
        "step": number,
        "epoch": epoch,
        "loss": 16.0,
        "grad_norm": 25.0,
        "clipped": True,
        "beta": 0.85,
        "lr": 0.01,
        **changes,
    }
    return StepLog.model_validate(values)


def epoch(number: int, **changes: object) -> EpochLog:
    values = {
        "epoch": number,
        "epochs": 5,
        "seconds": 10.0,
        "eta_s": 10.0 * (5 - number),
        "losses": {"box_loss": 1.25, "cls_loss": 0.5},
        "val_losses": {"box_loss": 1.5, "cls_loss": 0.75},
        "map50_95": 0.1 * number,
        "map50": 0.2,
        "grad_norm": 31.0,
        "beta": 0.85,
        "clipped_share": 0.75,
        "skipped_steps": 0,
        "lr": 0.01,
        "memory_mb": 800.0,
        "temperature_c": 51.5,
        **changes,
    }
    return EpochLog.model_validate(values)


def drawn(view: training.TrainingView) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


figure = st.none() | st.floats(min_value=0, max_value=1e9)
share = st.none() | st.floats(min_value=0, max_value=1)


@given(
    st.integers(1, 999),
    figure,
    st.floats(0, 999),
    share,
    share,
    st.floats(1e-9, 1),
    st.floats(0, 3e5),
    st.floats(0, 3e5),
    st.booleans(),
)
def test_lines_stand_under_their_heading_and_fit_eighty_columns(
    number, norm, loss, score, beta, lr, seconds, eta, wide
):
    log = epoch(
        number,
        epochs=999,
        grad_norm=norm,
        losses={"box_loss": loss},
        map50=score,
        map50_95=score,
        beta=beta,
        clipped_share=score,
        lr=lr,
        seconds=seconds,
        eta_s=eta,
    )
    line, heading = training.epoch_line(log, wide), training.heading(wide)
    assert len(line) == len(heading)
    assert len(line.replace(" MB", "MB").replace(" °C", "°C").split()) == (13 if wide else 11)
    if not wide:
        assert len(line) < 80


def test_a_line_says_what_the_epoch_was():
    line = training.epoch_line(epoch(2), wide=True).split()
    assert line == [
        *("2/5", "1.750", "2.250", "0.200", "0.200", "31.0", "75%", "0.850", "0.01"),
        *("10s", "30s", "800", "MB", "52", "°C"),
    ]


def test_what_was_not_measured_is_a_dash_and_steps_left_out_are_told():
    log = epoch(5, map50=None, map50_95=None, beta=None, temperature_c=None, skipped_steps=3)
    line = training.epoch_line(log, wide=True)
    assert line.split()[3:5] == ["-", "-"]
    assert "3 steps left out" in line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0s"),
        (8.44, "8.4s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (187, "3m07s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
    ],
)
def test_times_are_short(seconds, said):
    assert training.duration(seconds) == said


def test_the_view_follows_a_run():
    view = training.TrainingView(lambda: 48.2)
    assert "preparing" in drawn(view)
    view.start(start())
    assert "epoch 1/5" in drawn(view)
    assert "step 0/4" in drawn(view)
    view.step(step(1, 1))
    view.step(step(2, 1, clipped=False))
    text = drawn(view)
    for part in (
        "step 2/4",
        "ETA",
        "2.000 an image",
        "norm 25.0",
        "clipped 50%",
        "beta 0.850",
        "48 °C",
    ):
        assert part in text, part
    assert "after the first epoch" in text
    view.step(step(3, 1))
    view.step(step(4, 1))
    assert "validating" in drawn(view)

    view.epoch(epoch(1))
    view.step(step(5, 2))
    text = drawn(view)
    for part in ("epoch 2/5", "step 1/4", "box 1.250", "mAP50 0.200", "best 0.100 in epoch 1"):
        assert part in text, part
    assert "clipped 100%" in text  # of this epoch's steps
    assert "800 MB" in text

    view.epoch(epoch(2, map50_95=0.05))
    assert "best 0.100 in epoch 1" in drawn(view)
    view.epoch(epoch(5, eta_s=0.0))
    assert "scoring the best weights" in drawn(view)
    view.end()
    assert drawn(view).strip() == ""


def test_a_resumed_run_counts_from_where_it_was():
    view = training.TrainingView(lambda: None)
    view.start(start(first_epoch=3, steps=8))
    view.step(step(9, 3))
    text = drawn(view)
    assert "epoch 3/5" in text
    assert "step 1/4" in text


def test_the_result_says_where_the_weights_are_and_what_comes_next():
    result = TrainResult.model_validate(
        {
            "run": "cells [1]",
            "weights": "weights/best.pt",
            "sha256": "0" * 64,
            "optimizer": "musgd",
            "epochs": 5,
            "steps": 20,
            "seconds": 187.0,
            "map50_95": 0.5,
            "map50": 0.875,
            "peak_memory_mb": 812.0,
            "clipped_share": 0.9,
            "beta_mean": 0.85,
            "optimizer_ms": 4.237,
            "skipped_steps": 2,
            "data": "cells.yaml",
            "n_images": 10,
            "n_val_images": 4,
            "names": ("a",),
            "model": "yolo26n.yaml",
            "imgsz": 64,
            "batch": 4,
            "seed": 0,
            "device": "cpu",
            "threads": 1,
            "target": "pi4b",
            "resumed": 2,
        }
    )
    console = Console(width=100, record=True, file=io.StringIO())
    optim = OptimSettings.model_validate(
        {
            "name": "musgd",
            "lr": 0.01,
            "lr_final": 0.01,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "second_moment": "rowcol",
            "warmup_epochs": 1.0,
            "warmup_momentum": 0.8,
            "warmup_bias_lr": 0.0,
        }
    )
    console.print(training.result_table(result, optim, "runs/cells [1]"))
    text = console.export_text()
    for part in (
        "cells [1]: 5 epochs, 20 steps in 3m07s",
        "0.875  on 4 images of val",
        "musgd (rowcol), mean beta 0.850, 4.24 ms a step",
        "2 left out as not finite",
        "2 times",
        "runs/cells [1]/weights/best.pt",
        "musgd export 'runs/cells [1]' --int8",
    ):
        assert part in text, part
