"""A run says once, with what to set, that its momentum does not adapt; a sound one is quiet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli import train
from musgd_cli.records import Host, OptimSettings, StepLog
from musgd_cli.settings import parse_assignments, settle
from musgd_cli.train.adaptation import LEAST_STEPS, AdaptationWatch
from musgd_cli.train.events import Listeners, TrainingInterruptedError

FLOOR, CEILING, CONSTANT = "is too large", "is too small", "does nothing"
GLOBAL = {"optim.name": "musgd-article", "optim.norm_scope": "global"}


def settings(**optim: Any) -> OptimSettings:
    flags = {"optim.name": "musgd-article", **{f"optim.{k}": v for k, v in optim.items()}}
    return settle(host=Host(board="x86-cpu"), environ={}, flags=flags).optim


def step(number: int, epoch: int, beta: float | None, **changes: Any) -> StepLog:
    values = {
        "step": number,
        "epoch": epoch,
        "loss": 16.0,
        "grad_norm": 25.0,
        "clipped": True,
        "beta": beta,
        "momentum": 0.9,
        "lr": 0.01,
        **changes,
    }
    return StepLog.model_validate(values)


def epochs_of(betas: Sequence[float], n_epochs: int = 1, **changes: Any) -> list[list[StepLog]]:
    return [
        [
            step(epoch * len(betas) + i + 1, epoch + 1, beta, **changes)
            for i, beta in enumerate(betas)
        ]
        for epoch in range(n_epochs)
    ]


def told(watch: AdaptationWatch, epochs: Sequence[Sequence[StepLog]]) -> list[str]:
    """What is told of epochs, one after the other."""
    warnings = []
    for epoch in epochs:
        for log in epoch:
            watch.step(log)
        warnings.append(watch.end_epoch())
    return [warning for warning in warnings if warning]


def varied(low: float, high: float, n: int = 20) -> list[float]:
    return [low + (high - low) * i / (n - 1) for i in range(n)]


# ------------------------------------------------------------------------------- of logged steps


@pytest.mark.parametrize(
    ("optim", "betas", "says"),
    [
        ({}, varied(0.85, 0.89), None),
        # The last epochs of real runs with little left to adapt to.
        ({}, varied(0.8938, 0.8967), None),
        ({"adapt_factor": "auto"}, varied(0.8976, 0.8983), None),
        ({"norm_scope": "global"}, varied(0.002, 0.09), FLOOR),
        ({"norm_scope": "global"}, varied(0.002, 0.2), None),
        ({}, varied(0.8995, 0.9), CEILING),
        ({}, [0.9] * 19 + [0.8], None),  # it answered to one large gradient, as it should
        ({}, [0.8182] * 20, CONSTANT),
        ({"adapt_factor": "auto"}, [0.8182] * 20, CONSTANT),
        ({"adapt_factor": "auto"}, varied(0.8995, 0.9), None),
    ],
)
def test_what_is_told_of_which_betas(optim: dict[str, Any], betas: list[float], says: str | None):
    (warning,) = told(AdaptationWatch(settings(**optim)), epochs_of(betas)) or [None]
    assert (warning is None) == (says is None)
    if says:
        assert says in warning
        assert "every step of epoch 1 " in warning


def test_the_norm_of_all_gradients_gives_a_number_that_fits():
    optim = settings(norm_scope="global", adapt_factor=1e-9)
    (warning,) = told(AdaptationWatch(optim), epochs_of([0.9] * 20, grad_norm=50.0))
    assert "at a gradient norm of 50, clipped each time" in warning
    assert "--set optim.adapt_factor=4e-05 suits" in warning  # .1 / 50², as "auto" has it
    (warning,) = told(AdaptationWatch(settings(adapt_factor=1e-9)), epochs_of([0.9] * 20))
    assert "suits" not in warning  # each tensor's own norm is not in the log


def test_a_clip_on_every_step_is_named_where_it_is_what_holds_beta():
    of_clipped = epochs_of([0.8182] * 20)
    of_free = epochs_of([0.8182] * 20, clipped=False, grad_norm=5.0)
    assert "norms are taken behind the clip" in told(AdaptationWatch(settings()), of_clipped)[0]
    assert "clip" not in told(AdaptationWatch(settings()), of_free)[0]
    # With it the norm from before the clip decides, so the clip alone spoils nothing.
    everywhere = settings(norm_scope="global", adapt_factor=1e-4)
    assert told(AdaptationWatch(everywhere), epochs_of(varied(0.5, 0.85))) == []


def test_what_is_to_be_typed_settles():
    for optim, betas in (
        ({}, [0.8182] * 20),
        ({"norm_scope": "global"}, [0.01] * 20),
        ({"adapt_factor": 1e-9}, [0.9] * 20),
        ({"name": "musgd", "adapt_factor": 0.1}, [0.05] * 20),
        ({"name": "musgd", "adapt_factor": "auto"}, [0.8182] * 20),
    ):
        (warning,) = told(AdaptationWatch(settings(**optim)), epochs_of(betas))
        assignments = re.findall(r"--set (\S+)", warning)
        assert assignments
        given = {f"optim.{key}": value for key, value in optim.items()}
        for assignment in assignments:
            flags = {"optim.name": "musgd-article", **given, **parse_assignments([assignment])}
            settle(host=Host(board="x86-cpu"), environ={}, flags=flags)


def test_each_cause_is_told_once():
    optim = settings(norm_scope="global")
    warnings = told(
        AdaptationWatch(optim),
        [*epochs_of([0.01] * 20, 3), *epochs_of([0.9] * 20, 2), *epochs_of([0.01] * 20, 2)],
    )
    assert [FLOOR in warnings[0], CEILING in warnings[1], len(warnings)] == [True, True, 2]


def test_short_epochs_are_judged_together():
    watch = AdaptationWatch(settings(norm_scope="global"))
    epochs = epochs_of([0.01] * 4, 3)
    assert told(watch, epochs[:2]) == []
    assert "every step of epochs 1 to 3 beta" in told(watch, epochs[2:])[0]


def test_what_the_warm_up_does_to_momentum_is_not_taken_for_adaptation():
    rising = [step(i, 1, 0.8 + i / 1000, momentum=0.8 + i / 1000) for i in range(1, 30)]
    assert told(AdaptationWatch(settings(adapt_factor=1e-9)), [rising]) == []


@pytest.mark.parametrize("name", ["musgd", "sgd", "adamw", "muon-sgd"])
def test_what_does_not_adapt_is_not_warned_of(name: str):
    assert told(AdaptationWatch(settings(name=name)), epochs_of([0.9] * 20)) == []
    assert told(AdaptationWatch(settings(name=name)), epochs_of([None] * 20)) == []  # type: ignore[list-item]


def test_steps_left_out_and_those_of_older_runs_are_no_evidence():
    optim = settings(norm_scope="global")
    assert told(AdaptationWatch(optim), epochs_of([None] * 20, skipped=True)) == []  # type: ignore[list-item]
    assert told(AdaptationWatch(optim), epochs_of([0.01] * 20, momentum=None)) == []


@given(
    betas=st.lists(st.floats(0, 0.9), min_size=1, max_size=60),
    length=st.integers(1, 25),
    cut=st.integers(0, 60),
    factor=st.sampled_from([1e-9, 0.1, "auto"]),
)
def test_taken_up_after_any_epoch_it_tells_what_is_left_to_tell(betas, length, cut, factor):
    steps = [step(i + 1, i // length + 1, beta) for i, beta in enumerate(betas)]
    epochs = [steps[i : i + length] for i in range(0, len(steps), length)]
    optim = settings(adapt_factor=factor, norm_scope="global")
    whole = AdaptationWatch(optim)
    cut = min(cut, len(epochs))
    told(whole, epochs[:cut])
    resumed = AdaptationWatch(optim, [log for epoch in epochs[:cut] for log in epoch])
    assert told(resumed, epochs[cut:]) == told(whole, epochs[cut:])


# -------------------------------------------------------------------------------- of real trainings

N_EPOCHS = 5
"""Of 3 steps, the first without a warm-up: more than `LEAST_STEPS`."""


def warnings_of(make_plan, run, **changes: Any) -> list[str]:
    heard: list[str] = []
    plan = make_plan(**{"train.epochs": N_EPOCHS, "optim.warmup_epochs": 0, **changes})
    train.train(plan, run, Listeners(on_warning=heard.append))
    assert len(run.steps()) > LEAST_STEPS
    return heard


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.name": "musgd"},
        {"optim.name": "musgd", "optim.adapt_factor": "auto"},
        {"optim.name": "musgd-article"},
        {**GLOBAL, "optim.adapt_factor": "auto"},
        {**GLOBAL, "optim.adapt_factor": 1e-4},
    ],
    ids=["musgd", "musgd-auto", "article", "global-auto", "global-fixed"],
)
def test_a_sound_run_is_not_warned_of(make_plan, new_run, changes):
    run = new_run("sound")
    assert warnings_of(make_plan, run, **changes) == []
    assert all(log.clipped for log in run.steps())  # that alone is no fault


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({**GLOBAL, "optim.adapt_factor": 0.1}, FLOOR),
        ({**GLOBAL, "optim.adapt_factor": 1e-9}, CEILING),
        ({"optim.name": "musgd-article", "optim.adapt_factor": 1e-7}, CEILING),
    ],
    ids=["floor", "ceiling", "ceiling-of-tensors"],
)
def test_a_run_whose_momentum_does_not_adapt_is_warned_of(make_plan, new_run, changes, says):
    (warning,) = warnings_of(make_plan, new_run("sick"), **changes)
    assert says in warning


def test_what_fits_by_the_warning_fits(make_plan, new_run):
    (warning,) = warnings_of(make_plan, new_run("sick"), **GLOBAL)
    factor = float(re.search(r"adapt_factor=(\S+) suits", warning)[1])
    mended = {**GLOBAL, "optim.adapt_factor": factor}
    assert warnings_of(make_plan, new_run("mended"), **mended) == []


def test_a_warning_is_given_after_its_epoch_and_not_again_when_the_run_goes_on(make_plan, new_run):
    run = new_run("stopped")
    heard: list[Any] = []
    plan = make_plan(**GLOBAL, **{"train.epochs": 9, "optim.warmup_epochs": 0})
    listeners = Listeners(
        on_epoch=lambda log: heard.append(log.epoch),
        on_warning=heard.append,
        stop=lambda: len(run.epochs()) == 5,
    )
    with pytest.raises(TrainingInterruptedError):
        train.train(plan, run, listeners)
    assert [one for one in heard if isinstance(one, int)] == [1, 2, 3, 4, 5]
    assert FLOOR in heard[4]  # after 4 epochs of 3 steps
    heard.clear()
    train.resume(run, Listeners(on_warning=heard.append))
    assert heard == []
