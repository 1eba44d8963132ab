"""The four sections of settings: their keys, and what each key accepts, in plain words.

Profiles, ``musgd.toml``, ``MUSGD_…`` variables and ``--set`` all hold values of the same keys. The
schemas are the records' ``OptimSettings`` and its siblings; this module looks a key up in them,
checks one value at a time, and reads the tables that a profile and ``musgd.toml`` share.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from musgd_cli.records import (
    BenchSettings,
    CompressSettings,
    Frozen,
    OptimSettings,
    TrainSettings,
)

SECTIONS: Mapping[str, type[Frozen]] = {
    "optim": OptimSettings,
    "train": TrainSettings,
    "compress": CompressSettings,
    "bench": BenchSettings,
}

KEYS = tuple(
    f"{section}.{key}" for section, schema in SECTIONS.items() for key in schema.model_fields
)
"""Every setting as ``section.key``, in reading order."""

OPTIMIZERS: tuple[str, ...] = get_args(OptimSettings.model_fields["name"].annotation)

_ADAPTIVE = frozenset({"adapt_factor", "norm_scope", "lr_in_buffer", "decay_in_norm"})
_ABSENT: Mapping[str, frozenset[str]] = {
    "musgd": frozenset(),
    "musgd-article": frozenset({"second_moment"}),
    "sgd": _ADAPTIVE | {"second_moment"},
    "muon-sgd": _ADAPTIVE | {"second_moment"},
    "adamw": _ADAPTIVE | {"second_moment", "nesterov"},
}


def optimizer_has(optimizer: str, key: str) -> bool:
    """Tell whether ``[optim]`` ``key`` means anything to ``optimizer``."""
    return key not in _ABSENT[optimizer]


class Contradiction(NamedTuple):
    """A value of ``[optim]`` that another one rules out."""

    key: str
    other: str
    what: str
    mend: tuple[str, ...]
    """Options that mend it."""


_NOT_WITH_ROWCOL: Mapping[str, Any] = {
    "norm_scope": "global",
    "lr_in_buffer": True,
    "decay_in_norm": True,
}


def contradictions(optim: Mapping[str, Any]) -> Iterator[Contradiction]:
    """Yield what the optimizer could not be built with.

    Args:
        optim: All of ``[optim]`` that its optimizer has, ``name`` included.
    """
    if optim.get("second_moment") == "rowcol":
        for key, value in _NOT_WITH_ROWCOL.items():
            if optim.get(key) == value:
                yield Contradiction(
                    key,
                    "second_moment",
                    f"second_moment=rowcol has no {key}={_typed(value)}",
                    ("--optimizer musgd-article", f"--set optim.{key}={_typed(value)}"),
                )
    # Ultralytics' hybrid takes it; torch and MuSGD refuse.
    if optim.get("nesterov") and optim.get("momentum") == 0 and optim["name"] != "muon-sgd":
        yield Contradiction(
            "nesterov",
            "momentum",
            "nesterov=true needs a momentum, not momentum=0",
            ("--set optim.nesterov=false",),
        )


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def may_be_absent(key: str) -> bool:
    """Tell whether ``section.key`` may go without a value: the data set, the run's name."""
    return type(None) in get_args(_field(key).annotation)


def is_weights(model: str) -> bool:
    """Tell whether ``train.model`` names weights to start from, and not a model to build."""
    return model.lower().endswith(".pt")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` with the nearest of ``words``, or nothing."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def nearest_setting(key: str) -> str | None:
    """Return the ``section.key`` that the unknown ``key`` most likely stands for."""
    section, _, _ = key.partition(".")
    homes = [known for known in KEYS if known.endswith(f".{key.rpartition('.')[2]}")]
    if homes:  # spelt right, in the wrong section
        return homes[0]
    here = [known for known in KEYS if known.startswith(f"{section}.")]
    near = difflib.get_close_matches(key, here, n=1, cutoff=0.7)
    near = near or difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
    return near[0] if near else None


def _field(key: str) -> FieldInfo:
    section, _, name = key.partition(".")
    return SECTIONS[section].model_fields[name]


@cache
def _adapter(key: str, strict: bool) -> TypeAdapter[Any]:
    info = _field(key)
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[(annotation, *info.metadata)]
    return TypeAdapter(annotation, config={"strict": strict})


def _in_words(annotation: Any, metadata: Iterable[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *extra = get_args(annotation)
        return _in_words(base, [part for item in extra for part in item.metadata])
    if origin is Literal:
        choices = _choices(annotation)
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return ", or ".join(_in_words(part, metadata) for part in parts)
    if origin is tuple:
        return f"a list of one or more of {', '.join(_choices(get_args(annotation)[0]))}"
    if annotation is bool:
        return "true or false"
    if annotation is str:
        return "text"
    return _number_in_words(annotation, metadata)


_BOUNDS = {
    "gt": "above {}",
    "ge": "of {} or more",
    "lt": "below {}",
    "le": "at most {}",
    "multiple_of": "a multiple of {}",
}


def _number_in_words(annotation: Any, metadata: Iterable[Any]) -> str:
    bounds = [
        words.format(getattr(item, bound))
        for item in metadata
        for bound, words in _BOUNDS.items()
        if hasattr(item, bound)
    ]
    kind = "a whole number" if annotation is int else "a number"
    return f"{kind} {' and '.join(bounds)}".rstrip()


def _choices(annotation: Any) -> list[str]:
    return list(map(str, get_args(annotation))) if get_origin(annotation) is Literal else []


def allowed(key: str) -> str:
    """Say in plain words what ``section.key`` accepts.

    Raises:
        KeyError: There is no such setting.
    """
    info = _field(key)
    return info.description or _in_words(info.annotation, info.metadata)


def _validated(key: str, value: Any, *, strict: bool) -> Any:
    try:
        accepted = _adapter(key, strict).validate_python(value)
    except ValidationError as error:
        raise ValueError(_refusal(key, value)) from error
    if isinstance(accepted, float) and not math.isfinite(accepted):
        raise ValueError(_refusal(key, value))
    if isinstance(accepted, str) and not accepted.strip():
        raise ValueError("it is empty")
    return accepted


def _refusal(key: str, value: Any) -> str:
    choices = _choices(_field(key).annotation)
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"{_shown(value)} is not {allowed(key)}{hint}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(str, value))}]"
    return repr(value) if isinstance(value, str) else str(value)


def accept(key: str, value: Any) -> Any:
    """Return the typed ``value`` as ``section.key`` holds it; a string is not taken for a number.

    Raises:
        KeyError: There is no such setting.
        ValueError: The value is not allowed; the message says what is, in plain words.
    """
    if isinstance(value, list):
        value = tuple(value)
    return _validated(key, value, strict=True)


def from_text(key: str, text: str) -> Any:
    """Read ``text`` from a command line or the environment as ``section.key``'s type.

    Lists are separated by commas.

    Raises:
        KeyError: There is no such setting.
        ValueError: The value is not allowed; the message says what is, in plain words.
    """
    value: Any = text.strip()
    if get_origin(_field(key).annotation) is tuple:
        value = tuple(part.strip() for part in value.split(","))
    return _validated(key, value, strict=False)


# ------------------------------------------------------------------------------- tables of a file


FINE_TUNING = "fine-tuning"
"""The table in an optimizer's own whose values hold where training starts from weights."""


class Value(NamedTuple):
    """One value of a file: its ``section.key``, and the table of an optimizer it stood in."""

    key: str
    value: Any
    table: str | None


@dataclass(frozen=True)
class Tables:
    """What the section tables of one file hold, and every fault met on the way."""

    common: Mapping[str, Any]
    """``section.key`` to value."""
    per_optimizer: Mapping[str, Mapping[str, Any]]
    """Optimizer to the values of its own ``[optim.NAME]``."""
    fine_tuning: Mapping[str, Mapping[str, Any]]
    """Optimizer to the values of ``[optim.NAME.fine-tuning]``: they hold where training starts
    from weights."""
    faults: tuple[str, ...] = field(default=())
    """Each ``section.key: what``."""

    def values(self, optimizer: str, *, fine_tunes: bool = False) -> Iterator[Value]:
        """Yield the values that hold when ``optimizer`` is the one; its own tables go first.

        Args:
            optimizer: Its name.
            fine_tunes: Training starts from weights.
        """
        table = f"optim.{optimizer}"
        own = {key: (value, table) for key, value in self.per_optimizer.get(optimizer, {}).items()}
        if fine_tunes:
            for key, value in self.fine_tuning.get(optimizer, {}).items():
                own[key] = (value, f"{table}.{FINE_TUNING}")
        for key, (value, where) in own.items():
            yield Value(f"optim.{key}", value, where)
        for key, value in self.common.items():
            if key.removeprefix("optim.") not in own or not key.startswith("optim."):
                yield Value(key, value, None)


def read_tables(data: Mapping[str, Any]) -> Tables:
    """Read ``[optim]``, ``[train]``, ``[compress]`` and ``[bench]`` of a decoded TOML file.

    Other top-level keys are the caller's.
    """
    common: dict[str, Any] = {}
    per_optimizer: dict[str, dict[str, Any]] = {}
    fine_tuning: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for section in SECTIONS:
        table = data.get(section, {})
        if not isinstance(table, Mapping):
            faults.append(f"{section}: {_shown(table)} is not a table")
            continue
        for key, value in table.items():
            if section == "optim" and isinstance(value, Mapping):
                own = dict(value)
                starts = own.pop(FINE_TUNING, {})
                per_optimizer[key] = _read_optimizer(key, own, faults)
                if not isinstance(starts, Mapping):
                    faults.append(f"optim.{key}.{FINE_TUNING}: {_shown(starts)} is not a table")
                elif key in OPTIMIZERS:
                    fine_tuning[key] = _read_optimizer(key, starts, faults, f".{FINE_TUNING}")
            elif section == "optim" and key in OPTIMIZERS:
                faults.append(f"optim.{key}: {_shown(value)} is not a table")
            else:
                _read_value(f"{section}.{key}", value, common, faults)
    return Tables(common, per_optimizer, fine_tuning, tuple(faults))


def _read_optimizer(
    name: str, table: Mapping[str, Any], faults: list[str], below: str = ""
) -> dict[str, Any]:
    if name not in OPTIMIZERS:
        faults.append(f"optim.{name}: unknown optimizer{did_you_mean(name, OPTIMIZERS)}")
        return {}
    own: dict[str, Any] = {}
    known = [key for key in OptimSettings.model_fields if key != "name"]
    for key, value in table.items():
        where = f"optim.{name}{below}.{key}"
        if key == "name":
            faults.append(f"{where}: the name stands in [optim]")
        elif key not in known:
            meant = known if below else [*known, FINE_TUNING]
            faults.append(f"{where}: unknown key{did_you_mean(key, meant)}")
        elif not optimizer_has(name, key):
            faults.append(f"{where}: {name} has no {key}")
        else:
            try:
                own[key] = accept(f"optim.{key}", value)
            except ValueError as error:
                faults.append(f"{where}: {error}")
    return own


def _read_value(key: str, value: Any, into: dict[str, Any], faults: list[str]) -> None:
    if key not in KEYS:
        nearest = nearest_setting(key)
        hint = f" (did you mean {nearest}?)" if nearest else ""
        faults.append(f"{key}: unknown key{hint}")
        return
    try:
        into[key] = accept(key, value)
    except ValueError as error:
        faults.append(f"{key}: {error}")
