"""What a study searches: ``--search KEY=LOW:HIGH[:log]`` and ``KEY=A|B|C``, and the default."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from musgd_cli.errors import UsageError
from musgd_cli.records import Plan, Searched
from musgd_cli.sections import KEYS, did_you_mean, from_text, nearest_setting, optimizer_has

if TYPE_CHECKING:
    import optuna

LR_TIMES = 4.0
"""The default range of the learning rate: from a fourth of the baseline's to this many times."""

MOMENTUM = (0.8, 0.95)

MACHINE = ("train.workers", "train.threads", "train.cache", "train.device")
"""Settings that a board decides: they change how fast training is, not where it leads."""

_FIXED = frozenset(
    {
        "optim.name",
        *(f"train.{key}" for key in ("data", "model", "name", "epochs", "imgsz", "seed")),
        *("train.patience", "train.distill"),
        *MACHINE,
    }
)
_EXAMPLE = "--search optim.lr=0.002:0.05:log, or --search optim.momentum='0.8|0.9'"


def default(plan: Plan) -> tuple[Searched, ...]:
    """Return what a dozen trials are worth spending on: the learning rate and momentum.

    Weight decay is left out. A short run multiplies a weight by (1 - lr decay)^steps, which at lr
    .01, the usual decay of 5e-4 and 1000 steps is .995: there is nothing in it to be measured.
    """
    lr, momentum = plan.optim.lr, plan.optim.momentum
    low, high = MOMENTUM
    return (
        Searched(key="optim.lr", baseline=lr, low=lr / LR_TIMES, high=lr * LR_TIMES, log=True),
        Searched(
            key="optim.momentum",
            baseline=momentum,
            low=min(low, momentum),
            high=max(high, momentum),
        ),
    )


def parse(texts: Iterable[str], plan: Plan) -> tuple[Searched, ...]:
    """Read each ``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:log`` or ``KEY=A|B|C``.

    Args:
        texts: As typed.
        plan: Gives each key its baseline.

    Raises:
        UsageError: One is none of these, its key cannot be searched, or its range leaves out the
            baseline.
    """
    found: dict[str, Searched] = {}
    for text in texts:
        searched = _parse(text, plan)
        if searched.key in found:
            raise UsageError(f"--search {searched.key} is given twice", "leave one of them out")
        found[searched.key] = searched
    return tuple(found.values())


def _parse(text: str, plan: Plan) -> Searched:
    key, equals, domain = (part.strip() for part in text.partition("="))
    if not equals or not domain:
        raise UsageError(f"--search {text} is no KEY=LOW:HIGH", _EXAMPLE)
    _require_searchable(key, plan)
    try:
        if ":" in domain:
            searched = _range(key, domain, plan.value(key))
        else:
            choices = tuple(dict.fromkeys(from_text(key, part) for part in domain.split("|")))
            if len(choices) < 2:
                raise ValueError(f"{domain} is one value, and nothing to search")
            searched = Searched(key=key, baseline=plan.value(key), choices=choices)
    except ValueError as error:
        raise UsageError(f"--search {key}: {error}", _EXAMPLE) from error
    if not _holds(searched, searched.baseline):
        raise UsageError(
            f"--search {text} leaves out {searched.baseline}, which is where the study begins",
            f"widen it to hold that, or begin elsewhere with --set {key}=VALUE",
        )
    return searched


def _require_searchable(key: str, plan: Plan) -> None:
    if key not in KEYS:
        nearest = nearest_setting(key)
        hint = f" (did you mean {nearest}?)" if nearest else did_you_mean(key, KEYS)
        raise UsageError(f"--search {key}: unknown key{hint}", _EXAMPLE)
    section, _, name = key.partition(".")
    if section not in ("optim", "train"):
        raise UsageError(f"--search {key}: training does not depend on it", _EXAMPLE)
    if key in _FIXED:
        raise UsageError(f"--search {key}: a study keeps it as it is", _EXAMPLE)
    if section == "optim" and not optimizer_has(plan.optim.name, name):
        raise UsageError(f"--search {key}: the optimizer {plan.optim.name} has none", _EXAMPLE)


def _range(key: str, domain: str, baseline: Any) -> Searched:
    low_text, _, rest = domain.partition(":")
    high_text, colon, scale = rest.partition(":")
    if colon and scale != "log":
        raise ValueError(f"{scale!r} is no scale; write LOW:HIGH:log or LOW:HIGH")
    low, high = from_text(key, low_text), from_text(key, high_text)
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise ValueError(f"{end} is no number; list the choices, as in A|B")
    if not low < high:
        raise ValueError(f"{low_text} is not below {high_text}")
    if scale and low <= 0:
        raise ValueError(f"a log scale begins above {low_text}")
    whole = isinstance(low, int) and isinstance(high, int)
    return Searched(key=key, baseline=baseline, low=low, high=high, log=bool(scale), whole=whole)


def _holds(searched: Searched, value: Any) -> bool:
    if searched.choices:
        return value in searched.choices
    assert searched.low is not None and searched.high is not None
    return isinstance(value, int | float) and searched.low <= value <= searched.high


def suggest(trial: optuna.Trial, searched: Searched) -> Any:
    """Let Optuna choose, and return the value with the digits that a short study can tell apart."""
    if searched.choices:
        return trial.suggest_categorical(searched.key, searched.choices)
    low, high = searched.low, searched.high
    assert low is not None and high is not None
    if searched.whole:
        return trial.suggest_int(searched.key, int(low), int(high), log=searched.log)
    value = trial.suggest_float(searched.key, low, high, log=searched.log)
    scale = value if searched.log else high - low
    rounded = round(value, 2 - math.floor(math.log10(scale)))
    return min(max(rounded, low), high)
