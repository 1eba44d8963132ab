from __future__ import annotations

import sys
from pathlib import Path

import pytest

from musgd_cli.errors import UnsupportedError, UsageError
from musgd_cli.records import EpochLog, StepLog
from musgd_cli.report import curves
from musgd_cli.runs import RunFolder


def step(number: int, **changes: object) -> StepLog:
    values = {
        "step": number,
        "epoch": (number + 3) // 4,
        "loss": 40.0 / number,
        "grad_norm": 100.0 / number,
        "clipped": number < 10,
        "beta": 0.8,
        "lr": 0.01,
        **changes,
    }
    return StepLog.model_validate(values)


def epoch(number: int, **changes: object) -> EpochLog:
    values = {
        "epoch": number,
        "epochs": 3,
        "seconds": 1.0,
        "eta_s": 3.0 - number,
        "losses": {"box_loss": 2.0 / number, "cls_loss": 1.0 / number},
        "val_losses": {"box_loss": 2.5 / number, "cls_loss": 1.5 / number},
        "map50_95": 0.1 * number,
        "map50": 0.2 * number,
        "grad_norm": 50.0,
        "beta": 0.8,
        "clipped_share": 0.9,
        "skipped_steps": 0,
        "lr": 0.01,
        "memory_mb": 800.0,
        "temperature_c": None,
        **changes,
    }
    return EpochLog.model_validate(values)


def written(folder: Path, steps: list[StepLog], epochs: list[EpochLog]) -> RunFolder:
    run = RunFolder(folder)
    run.steps_file.write_text("".join(log.model_dump_json() + "\n" for log in steps))
    run.epochs_file.write_text("".join(log.model_dump_json() + "\n" for log in epochs))
    return run


def test_a_run_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    run = written(tmp_path, [step(n) for n in range(1, 13)], [epoch(n) for n in (1, 2, 3)])
    (file,) = curves.draw(run)
    assert file == run.plots / "training.png"
    assert file.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in run.plots.iterdir()] == ["training.png"]


def test_what_was_not_measured_is_left_out(tmp_path):
    pytest.importorskip("matplotlib")
    steps = [step(1, loss=None, grad_norm=None, beta=None, skipped=True)]
    steps += [step(n, beta=None) for n in range(2, 5)]
    run = written(tmp_path, steps, [epoch(1, map50=None, map50_95=None, losses={}, val_losses={})])
    assert curves.draw(run)[0].exists()


def test_a_run_without_an_epoch_has_no_curves(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="no finished epoch"):
        curves.draw(written(tmp_path, [step(1)], []))


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError) as caught:
        curves.draw(RunFolder(tmp_path))
    assert "[report]'" in caught.value.mend


def test_steps_lie_within_their_epoch():
    positions = curves._positions([step(n) for n in (1, 2, 3, 4, 5, 6)])
    assert positions == [0.25, 0.5, 0.75, 1.0, 1.5, 2.0]


def test_smoothing_keeps_a_constant_and_does_not_lag():
    assert curves._smooth([3.0] * 9, 5) == pytest.approx([3.0] * 9)
    ramp = [float(n) for n in range(21)]
    assert curves._smooth(ramp, 5)[2:-2] == pytest.approx(ramp[2:-2])
    assert curves._smooth([], 5) == []
