"""What a study searches by default, and where tuned values go in a profile's text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from musgd_cli import profiles
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.lab import search_space, tuned_profile
from musgd_cli.records import Host, Plan
from musgd_cli.settings import settle

HERE = Host(board="x86-cpu")


def plan(**flags: object) -> Plan:
    given = {key.replace("__", "."): value for key, value in flags.items()}
    return settle(host=HERE, environ={}, flags=given)


def write(
    destination: Path,
    *,
    base: str = "x86-cpu",
    optimizer: str = "musgd",
    fine_tunes: bool = False,
    **values: object,
) -> str:
    named = {key.replace("__", "."): value for key, value in values.items()}
    tuned_profile.write(
        base,
        destination,
        study="cells",
        optimizer=optimizer,
        fine_tunes=fine_tunes,
        values=named,
        reasons={key: f"the reason of {key}" for key in named},
        heading="how it was measured",
        host=HERE,
    )
    return destination.read_text()


def test_the_default_search_holds_the_baseline_wherever_it_is():
    for lr, momentum in ((0.01, 0.9), (0.3, 0.5), (1e-4, 0.99)):
        searched = search_space.default(plan(optim__lr=lr, optim__momentum=momentum))
        assert [each.key for each in searched] == ["optim.lr", "optim.momentum"]
        assert [each.baseline for each in searched] == [lr, momentum]
        assert all(each.low <= each.baseline <= each.high for each in searched)


def test_values_are_drawn_with_the_digits_that_matter_and_within_the_range():
    optuna = pytest.importorskip("optuna", reason="the tune extra is not installed")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    searched = search_space.parse(
        [
            "optim.lr=0.0012345:0.0456789:log",
            "optim.momentum=0.8999:0.9001",
            "train.batch=4:8",
            "optim.nesterov=true|false",
        ],
        plan(),
    )
    for _ in range(30):
        trial = study.ask()
        lr, momentum, batch, nesterov = (search_space.suggest(trial, each) for each in searched)
        assert 0.0012345 <= lr <= 0.0456789 and lr == pytest.approx(float(f"{lr:.3g}"), rel=1e-3)
        assert 0.8999 <= momentum <= 0.9001
        assert batch in range(4, 9) and isinstance(batch, int)
        assert isinstance(nesterov, bool)


def test_a_profile_keeps_every_other_line(tmp_path: Path):
    text = write(tmp_path / "mine.toml", optim__lr=0.02, train__batch=16)
    before = profiles.read_text(profiles.find("x86-cpu")).splitlines()
    added = [line for line in text.splitlines() if line not in before]
    assert added == [
        "# Written by musgd tune, study cells.",
        "# how it was measured",
        'name = "mine"',
        "# the reason of optim.lr",
        "lr = 0.02",
        "# the reason of train.batch",
        "batch = 16",
    ]
    assert profiles.check(tmp_path / "mine.toml") == ()
    assert (
        profiles.reason(str(tmp_path / "mine.toml"), "train.batch") == "the reason of train.batch"
    )


@pytest.mark.parametrize("base", profiles.names())
@pytest.mark.parametrize("optimizer", ["musgd", "adamw"])
def test_a_value_is_the_optimizers_own(tmp_path: Path, base: str, optimizer: str):
    """Momentum stands in [optim] for all of them; tuned for one it must not move the others'."""
    file = tmp_path / "mine.toml"
    write(file, base=base, optimizer=optimizer, optim__momentum=0.871)
    for name in ("musgd", "sgd", "adamw"):
        tuned = settle(
            host=HERE, environ={}, profile=str(file), flags={"optim.name": name}
        ).optim.momentum
        assert (tuned == 0.871) == (name == optimizer)


@pytest.mark.parametrize("base", profiles.names())
def test_what_was_tuned_from_weights_holds_from_weights_alone(tmp_path: Path, base: str):
    file = tmp_path / "mine.toml"
    write(file, base=base, fine_tunes=True, optim__lr=0.00321)
    rates = {
        model: settle(
            host=HERE,
            environ={},
            profile=str(file),
            flags={"optim.name": "musgd", "train.model": model},
        ).optim.lr
        for model in ("yolo26n.yaml", "mine.pt")
    }
    assert rates["mine.pt"] == 0.00321 != rates["yolo26n.yaml"]


def test_what_only_the_board_can_tell_is_not_measured_on_another(tmp_path: Path):
    write(tmp_path / "pi.toml", base="pi4b", optim__lr=0.02)
    for key in ("workers", "threads", "cache"):
        said = profiles.reason(str(tmp_path / "pi.toml"), f"train.{key}")
        assert said is not None and said.endswith("not measured on this board")
    here = write(tmp_path / "here.toml", optim__lr=0.02)
    assert "not measured on this board" not in here


def test_a_value_that_is_kept_keeps_its_reasons(tmp_path: Path):
    momentum = plan().optim.momentum
    text = write(tmp_path / "mine.toml", optim__momentum=momentum)
    before = profiles.read_text(profiles.find("x86-cpu")).splitlines()
    assert set(before) - set(text.splitlines()) == {'name = "x86-cpu"'}
    said = profiles.reason(str(tmp_path / "mine.toml"), "optim.momentum")
    was = profiles.reason("x86-cpu", "optim.momentum")
    assert said == f"{was} the reason of optim.momentum"


def test_a_profile_whose_form_hides_its_keys_is_refused_whole(tmp_path: Path):
    odd = tmp_path / "odd.toml"
    text = profiles.read_text(profiles.find("x86-cpu")).replace('"x86-cpu"', '"odd"', 1)
    odd.write_text(re.sub(r"^lr =", '"lr" =', text, flags=re.MULTILINE))
    assert profiles.check(odd) == ()
    with pytest.raises(MusgdError, match="could not be placed"):
        write(tmp_path / "mine.toml", base=str(odd), optim__lr=0.02)
    assert not (tmp_path / "mine.toml").exists()


def test_a_study_replaces_its_own_profile_and_nobody_elses(tmp_path: Path):
    write(tmp_path / "mine.toml", optim__lr=0.02)
    tuned_profile.require_writable(tmp_path / "mine.toml", "cells")
    for study in ("cell", "cells-2"):
        with pytest.raises(UsageError, match="exists already"):
            tuned_profile.require_writable(tmp_path / "mine.toml", study)
    with pytest.raises(UsageError, match="does not end in"):
        tuned_profile.require_writable(tmp_path / "mine", "cells")
