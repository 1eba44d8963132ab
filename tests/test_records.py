"""Records: strict when we write, lenient with a newer minor, the same after a round trip."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from musgd_cli import records
from musgd_cli.records import (
    SCHEMA,
    Beaten,
    Check,
    DoctorReport,
    EpochLog,
    Frozen,
    Host,
    OptimSettings,
    Plan,
    Record,
    Settled,
    StepLog,
    TrainResult,
)

MAJOR, MINOR = map(int, SCHEMA.split("."))
NEWER = f"{MAJOR}.{MINOR + 1}"

RECORDS = sorted(
    (
        kind
        for kind in vars(records).values()
        if isinstance(kind, type) and issubclass(kind, Frozen) and kind not in (Frozen, Record)
    ),
    key=lambda kind: kind.__name__,
)


def test_every_record_and_part_is_frozen() -> None:
    assert RECORDS
    for kind in RECORDS:
        assert kind.model_config["frozen"], kind.__name__


def test_assigning_to_a_record_is_refused() -> None:
    host = Host(board="pi4b")
    with pytest.raises(ValidationError, match="frozen"):
        host.board = "pi5"  # type: ignore[misc]


def test_schema_comes_first_and_under_its_own_name() -> None:
    written = json.loads(Host(board="pi4b").model_dump_json())
    assert next(iter(written)) == "schema"
    assert written["schema"] == SCHEMA
    assert "schema_" not in written


def test_an_unknown_field_is_refused_when_we_write() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Host(board="pi4b", colour="green")  # type: ignore[call-arg]


def test_an_unknown_field_of_our_own_version_is_refused_when_read() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Host.parse({"schema": SCHEMA, "board": "pi4b", "colour": "green"})


def test_a_newer_minor_keeps_its_fields_through_us() -> None:
    data = {"schema": NEWER, "board": "pi4b", "colour": "green"}
    again = json.loads(Host.parse(data).model_dump_json())
    assert again["colour"] == "green"
    assert again["schema"] == NEWER


def test_a_newer_minor_keeps_the_fields_of_nested_parts() -> None:
    check = {"name": "ram", "ok": True, "found": "1", "needed": "1", "hint": "x"}
    report = {
        "schema": NEWER,
        "host": {"schema": NEWER, "board": "pi4b", "colour": "green"},
        "profile": None,
        "checks": [check],
    }
    again = json.loads(DoctorReport.parse(report).model_dump_json())
    assert again["checks"][0]["hint"] == "x"
    assert again["host"]["colour"] == "green"


@pytest.mark.parametrize("version", [f"{MAJOR + 1}.0", f"{MAJOR - 1}.9", "", "new", "1.x", 1, None])
def test_another_major_or_no_version_at_all_is_refused(version: Any) -> None:
    with pytest.raises(ValidationError):
        Host.parse({"schema": version, "board": "pi4b"})


def test_a_record_without_a_schema_is_taken_for_ours() -> None:
    assert Host.parse({"board": "pi4b"}).schema_ == SCHEMA


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="board"):
        Host.parse({"schema": SCHEMA})


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
values = st.one_of(scalars, st.lists(st.text(), max_size=3).map(tuple))
settled = st.builds(
    Settled,
    value=values,
    source=st.text(min_size=1),
    over=st.lists(st.builds(Beaten, value=values, source=st.text()), max_size=3).map(tuple),
)


@given(
    st.builds(
        Plan,
        profile=st.text(),
        target=st.text(),
        settings=st.dictionaries(st.text(min_size=1), settled, max_size=5),
    )
)
def test_a_plan_is_the_same_after_a_round_trip(plan: Plan) -> None:
    assert Plan.parse(json.loads(plan.model_dump_json())) == plan


@given(
    st.builds(
        Host,
        board=st.text(),
        cores=st.none() | st.integers(1, 256),
        ram_mb=st.none() | st.integers(1, 2**20),
        cpu_features=st.none() | st.lists(st.text(), max_size=3).map(tuple),
        emulated=st.none() | st.booleans(),
        runtimes=st.dictionaries(st.text(), st.none() | st.text(), max_size=3),
        power_meters=st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_a_host_is_the_same_after_a_round_trip(host: Host) -> None:
    again = Host.parse(json.loads(host.model_dump_json()))
    assert again == host
    assert again.cores is None or again.cores > 0  # None never comes back as 0


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_json_never_holds_what_json_cannot(value: float) -> None:
    plan = Plan(
        profile="p", target="t", settings={"optim.lr": Settled(value=value, source="--set")}
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(plan.model_dump_json(), parse_constant=refuse)


def _plan(schema: str = SCHEMA, **optim: Any) -> Plan:
    values = {
        "name": "sgd",
        "lr": 0.01,
        "lr_final": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "warmup_epochs": 1.0,
        "warmup_momentum": 0.8,
        "warmup_bias_lr": 0.0,
        **optim,
    }
    return Plan(
        schema=schema,
        profile="p",
        target="t",
        settings={f"optim.{key}": Settled(value=v, source="s") for key, v in values.items()},
    )


def test_a_plan_gives_a_value_and_a_typed_section() -> None:
    plan = _plan(lr=0.5)
    assert plan.value("optim.lr") == 0.5
    assert isinstance(plan.optim, OptimSettings)
    assert plan.optim.lr == 0.5
    with pytest.raises(KeyError):
        plan.value("optim.speed")


def test_an_optimizer_without_the_adaptive_knobs_gets_ones_that_do_nothing() -> None:
    optim = _plan().optim
    assert (optim.adapt_factor, optim.nesterov, optim.norm_scope) == (0.0, False, "tensor")


def test_logs_and_results_of_before_the_optimizer_was_timed_are_read() -> None:
    step = {"step": 1, "epoch": 1, "loss": 2.0, "grad_norm": 3.0, "clipped": False, "beta": 0.9}
    log = StepLog.model_validate({**step, "lr": 0.01})
    assert (log.optimizer_ms, log.momentum) == (None, None)
    result = {
        "run": "r",
        "weights": "w.pt",
        "sha256": "0",
        "optimizer": "musgd",
        "epochs": 1,
        "steps": 1,
        "seconds": 1.0,
        "map50_95": 0.1,
        "map50": 0.2,
        "peak_memory_mb": 1.0,
        "clipped_share": 0.0,
        "beta_mean": 0.9,
        "data": "d",
        "n_images": 1,
        "n_val_images": 1,
        "names": ["a"],
        "model": "m",
        "imgsz": 32,
        "batch": 1,
        "seed": 0,
        "device": "cpu",
        "threads": 1,
        "target": "pi4b",
    }
    read = TrainResult.parse(result)
    assert (read.optimizer_ms, read.optimizer_state_bytes) == (None, None)
    # The plan of such a run has no second_moment; its MuSGD had none.
    assert _plan().optim.second_moment == "none"


def test_a_plan_of_a_newer_minor_still_gives_its_sections() -> None:
    assert _plan(NEWER, trust_ratio=0.1).optim.lr == 0.01
    with pytest.raises(ValidationError, match="trust_ratio"):
        _ = _plan(SCHEMA, trust_ratio=0.1).optim


@pytest.mark.parametrize("value", [-0.1, "automatic"])
def test_an_adapt_factor_is_a_number_from_zero_or_auto(value: Any) -> None:
    assert _plan(adapt_factor="auto").optim.adapt_factor == "auto"
    with pytest.raises(ValidationError):
        _ = _plan(adapt_factor=value).optim


def test_a_check_says_what_to_type() -> None:
    assert Check(name="ram", ok=True, found="4 GB", needed="1 GB").mend is None


@pytest.mark.parametrize(
    ("not_finite", "train_loss", "val_loss"),
    [
        ((), 1.75, 2.25),
        (("cls_loss",), None, 2.25),
        (("val/cls_loss",), 1.75, None),
        (("cls_loss", "val/cls_loss"), None, None),
    ],
)
def test_an_epoch_that_lost_a_loss_has_no_sum(
    not_finite: tuple[str, ...], train_loss: float | None, val_loss: float | None
) -> None:
    losses, val_losses = {"box_loss": 1.25, "cls_loss": 0.5}, {"box_loss": 1.5, "cls_loss": 0.75}
    for name in not_finite:
        of = val_losses if name.startswith("val/") else losses
        del of[name.removeprefix("val/")]
    rest = dict.fromkeys(EpochLog.model_fields, None) | {
        "epoch": 1,
        "epochs": 1,
        "seconds": 1.0,
        "eta_s": 0.0,
        "skipped_steps": 0,
        "lr": 0.01,
    }
    log = EpochLog.model_validate(
        rest | {"losses": losses, "val_losses": val_losses, "not_finite": not_finite}
    )
    assert (log.train_loss, log.val_loss) == (train_loss, val_loss)


def test_an_epoch_without_losses_has_no_sum() -> None:
    empty = EpochLog.model_construct(losses={}, val_losses={}, not_finite=())
    assert (empty.train_loss, empty.val_loss) == (None, None)
