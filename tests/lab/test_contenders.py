"""Contenders as typed, and the plans and names of their trials."""

from __future__ import annotations

import pytest

from musgd_cli.errors import UsageError
from musgd_cli.lab.contenders import Contender, parse_contenders, sweep
from musgd_cli.records import Host

HOST = Host(board="x86-cpu")


def test_label_and_slug_are_spelt_one_way_however_typed() -> None:
    contender = Contender.parse(" musgd : adapt_factor=0.10 : nesterov=True : lr=.01 ")
    assert contender.label == "musgd:adapt_factor=0.1:nesterov=true:lr=0.01"
    assert contender.slug == "musgd-adapt_factor=0.1-nesterov=true"
    assert Contender.parse(contender.label) == contender
    assert contender.trial_name(0.0033, 1000).endswith("true-lr0.0033-seed1000")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("mugsd", "did you mean musgd"),
        ("sgd:nestrov=true", "did you mean nesterov"),
        ("sgd:adapt_factor=1", "sgd has no adapt_factor"),
        ("sgd:lr=fast", "not a number"),
        ("sgd:lr", "no KEY=VALUE"),
        ("sgd:lr=1:lr=2", "given twice"),
        ("sgd:name=adamw", "unknown key"),
    ],
)
def test_a_wrong_contender_is_refused_in_words(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Contender.parse(text)


def test_none_and_twins_are_refused() -> None:
    with pytest.raises(UsageError, match="no optimizer"):
        parse_contenders(" , ")
    with pytest.raises(UsageError, match="given twice"):
        parse_contenders("sgd:nesterov=false,sgd:nesterov=False")


@pytest.mark.parametrize(
    ("centre", "rates"),
    [(0.01, (0.0033, 0.01, 0.03)), (0.0014, (0.00047, 0.0014, 0.0042)), (0.03, (0.01, 0.03, 0.09))],
)
def test_a_sweep_has_two_significant_digits(centre: float, rates: tuple[float, ...]) -> None:
    assert sweep(centre) == rates


def test_a_plan_has_the_contenders_settings_over_the_shared_ones() -> None:
    contender = Contender.parse("musgd-article:adapt_factor=auto")
    plan = contender.plan({"optim.momentum": 0.8}, 0.02, 3, host=HOST)
    assert (plan.optim.name, plan.optim.adapt_factor) == ("musgd-article", "auto")
    assert (plan.optim.momentum, plan.optim.lr, plan.train.seed) == (0.8, 0.02, 3)
    assert Contender.parse("sgd:lr=0.5").plan({}, None, 0, host=HOST).optim.lr == 0.5
