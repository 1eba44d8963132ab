"""Settle every setting: profile < ``musgd.toml`` < environment < flag, each with its source.

``musgd.toml`` is read from the folder musgd is called in. It may name a ``profile`` and a
``target``, and holds any part of ``[optim]``, ``[train]``, ``[compress]`` and ``[bench]``, written
as in a profile. Paths in it, as everywhere, are relative to the current folder.

A variable ``MUSGD_<SECTION>__<KEY>`` sets one key, e.g. ``MUSGD_TRAIN__BATCH=4``; an empty one is
no setting. A ``MUSGD_`` name without a double underscore is never a setting.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from musgd_cli import profiles
from musgd_cli.errors import UsageError
from musgd_cli.records import Beaten, Host, Plan, Profile, Settled
from musgd_cli.sections import (
    KEYS,
    OPTIMIZERS,
    SECTIONS,
    Tables,
    accept,
    contradictions,
    did_you_mean,
    from_text,
    is_weights,
    nearest_setting,
    optimizer_has,
    read_tables,
)

FILE = Path("musgd.toml")
"""Read from the current folder when it is there."""

NOT_GIVEN = "not given"
"""The source of a setting that may be absent, and is."""

_PREFIX = "MUSGD_"
_MEND = "correct what is named; musgd profiles show x86-cpu lists every key and its meaning"


class _Given(NamedTuple):
    value: Any
    source: str


_Layer = Mapping[str, _Given]


@dataclass(frozen=True)
class _File:
    """What ``musgd.toml`` says; empty where there is none."""

    path: Path
    tables: Tables = field(default_factory=lambda: Tables({}, {}, {}))
    profile: str | None = None
    target: str | None = None
    faults: tuple[str, ...] = ()

    def layer(self, optimizer: str, *, fine_tunes: bool = False) -> _Layer:
        return _from_tables(self.tables, optimizer, fine_tunes, str(self.path))


def settle(
    *,
    host: Host,
    flags: Mapping[str, Any],
    profile: str | None = None,
    target: str | None = None,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    spelling: Mapping[str, str] | None = None,
    inherited: Mapping[str, Settled] | None = None,
) -> Plan:
    """Settle every setting of a run.

    The optimizer and the model are settled first: they decide which of the ``[optim.NAME]`` and
    ``[optim.NAME.fine-tuning]`` tables hold.

    Args:
        host: The machine whose profile is taken where none is named.
        flags: ``section.key`` to a typed value; a ``None`` is no setting.
        profile: Gives ``[optim]`` and ``[train]``: a shipped name or a ``.toml`` path.
        target: Gives ``train.imgsz``, ``[compress]`` and ``[bench]``, likewise.
        file: In place of ``./musgd.toml``; must exist.
        environ: In place of ``os.environ``.
        spelling: ``section.key`` to the flag as the user typed it, to name it as the source;
            ``--set section.key`` where it has none.
        inherited: Settings of an earlier run by ``section.key``, stronger than the profiles alone;
            each keeps its source.

    Returns:
        A plan that holds every key of every section that means anything to its optimizer.

    Raises:
        UsageError: A name, key or value is wrong; all faults of file, environment and flags are
            named at once. Or two values of ``[optim]`` contradict each other.
    """
    settings_file = _read_file(file)
    faults = [f"{settings_file.path}: {fault}" for fault in settings_file.faults]
    variables = _read_environment(os.environ if environ is None else environ, faults)
    options = _read_flags(flags, spelling or {}, faults)
    _refuse(faults)

    trains = _pick(profile or settings_file.profile, host)
    runs = _pick(target or settings_file.target, host)
    optimizer = _optimizer((options, variables, settings_file.layer(OPTIMIZERS[0])), trains)
    faults += _strays((options, variables), settings_file, optimizer)
    _refuse(faults)

    earlier = {key: _Given(was.value, was.source) for key, was in (inherited or {}).items()}
    begins = (options, variables, settings_file.layer(optimizer), earlier)
    fine_tunes = _fine_tunes(begins, trains)
    layers = [options, variables, settings_file.layer(optimizer, fine_tunes=fine_tunes), earlier]
    layers += _profile_layers(trains, runs, optimizer, fine_tunes)
    settings = {
        key: _settled(key, layers)
        for key in KEYS
        if not key.startswith("optim.") or optimizer_has(optimizer, key.removeprefix("optim."))
    }
    _refuse_contradictions(settings)
    return Plan(profile=trains.name, target=runs.name, settings=settings)


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Read the ``KEY=VALUE`` of ``--set`` into typed values by ``section.key``.

    Raises:
        UsageError: One is not ``KEY=VALUE``, or its key or value is wrong; all are named at once.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            faults.append(f"--set {assignment}: write KEY=VALUE, such as optim.lr=0.02")
        elif key not in KEYS:
            faults.append(f"--set {assignment}: unknown key {key!r}{_hint(key)}")
        elif key in values:
            faults.append(f"--set {assignment}: {key} is given twice")
        else:
            try:
                values[key] = from_text(key, text)
            except ValueError as error:
                faults.append(f"--set {key}: {error}")
    _refuse(faults)
    return values


def change(plan: Plan, *layers: Mapping[str, tuple[Any, str]]) -> Plan:
    """Return a plan with some of its settings replaced, each new value over the one before.

    Args:
        plan: A settled plan.
        layers: ``section.key`` to a typed value and where it comes from; the strongest last.

    Raises:
        UsageError: A value is wrong, means nothing to the plan's optimizer, or contradicts
            another; all are named at once.
    """
    optimizer = plan.optim.name
    settings, faults = dict(plan.settings), []
    for key, (value, source) in (item for layer in layers for item in layer.items()):
        section, _, name = key.partition(".")
        if section == "optim" and not optimizer_has(optimizer, name):
            faults.append(f"{source}: the optimizer {optimizer} has no {name}")
        elif key == "optim.name" and value != optimizer:
            faults.append(f"{source}: the optimizer is {optimizer}, and stays so")
        else:
            try:
                before = settings[key]
                settings[key] = Settled(
                    value=accept(key, value),
                    source=source,
                    over=(Beaten(value=before.value, source=before.source), *before.over),
                )
            except ValueError as error:
                faults.append(f"{source}: {error}")
    _refuse(faults)
    _refuse_contradictions(settings)
    return plan.model_copy(update={"settings": settings})


def _refuse(faults: Sequence[str]) -> None:
    if len(faults) == 1:
        raise UsageError(faults[0], _MEND)
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(f"{len(faults)} settings are wrong:{listed}", _MEND)


def _refuse_contradictions(settings: Mapping[str, Settled]) -> None:
    values = {
        key.removeprefix("optim."): settled.value
        for key, settled in settings.items()
        if key.startswith("optim.")
    }
    found = tuple(contradictions(values))
    if not found:
        return
    told = [
        f"{one.what}: optim.{one.key} is from {settings[f'optim.{one.key}'].source}, "
        f"optim.{one.other} from {settings[f'optim.{one.other}'].source}"
        for one in found
    ]
    mend = " ".join(dict.fromkeys(option for one in found for option in one.mend))
    if len(told) == 1:
        raise UsageError(told[0], mend)
    listed = "".join(f"\n  {line}" for line in told)
    raise UsageError(f"{len(told)} settings contradict another:{listed}", mend)


def _hint(key: str) -> str:
    nearest = nearest_setting(key)
    return f" (did you mean {nearest}?)" if nearest else ""


# -------------------------------------------------------------------------------- the sources


def _read_file(path: Path | None) -> _File:
    if path is None:
        if not FILE.exists():
            return _File(FILE)
        path = FILE
    elif not path.exists():
        raise UsageError(f"there is no {path}", "check the path")
    try:
        data = profiles.read_toml(path)
    except ValueError as error:
        return _File(path, faults=(str(error),))
    tables = read_tables(data)
    faults = list(tables.faults)
    names: dict[str, str | None] = {"profile": None, "target": None}
    known = [*names, *SECTIONS]
    for key, value in data.items():
        if key not in known:
            faults.append(f"{key}: unknown key{_home(key) or did_you_mean(key, known)}")
        elif key in names and isinstance(value, str) and value:
            names[key] = value
        elif key in names:
            faults.append(f"{key}: {value!r} is not a profile's name or path")
    return _File(path, tables, names["profile"], names["target"], tuple(faults))


def _home(key: str) -> str:
    """Point a key that stands above all tables to the table it belongs in."""
    homes = [section for section in SECTIONS if f"{section}.{key}" in KEYS]
    return f"; it belongs in [{homes[0]}]" if homes else ""


def _read_environment(environ: Mapping[str, str], faults: list[str]) -> _Layer:
    layer: dict[str, _Given] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(_PREFIX) or "__" not in variable or not text:
            continue
        key = variable.removeprefix(_PREFIX).lower().replace("__", ".", 1)
        if key not in KEYS:
            nearest = nearest_setting(key)
            hint = f" (did you mean {_variable(nearest)}?)" if nearest else ""
            faults.append(f"{variable}: unknown setting{hint}")
            continue
        try:
            layer[key] = _Given(from_text(key, text), variable)
        except ValueError as error:
            faults.append(f"{variable}: {error}")
    return layer


def _variable(key: str) -> str:
    return _PREFIX + key.replace(".", "__").upper()


def _read_flags(flags: Mapping[str, Any], spelling: Mapping[str, str], faults: list[str]) -> _Layer:
    layer: dict[str, _Given] = {}
    for key, value in flags.items():
        if value is None:
            continue
        source = spelling.get(key, f"--set {key}")
        if key not in KEYS:
            faults.append(f"{source}: unknown key{_hint(key)}")
            continue
        try:
            layer[key] = _Given(accept(key, value), source)
        except ValueError as error:
            faults.append(f"{source}: {error}")
    return layer


def _from_tables(tables: Tables, optimizer: str, fine_tunes: bool, source: str) -> _Layer:
    return {
        key: _Given(value, f"{source} [{table}]" if table else source)
        for key, value, table in tables.values(optimizer, fine_tunes=fine_tunes)
    }


# ------------------------------------------------------------------------------- the settling


def _pick(name_or_path: str | None, host: Host) -> Profile:
    return profiles.load(name_or_path) if name_or_path else profiles.match(host)


def _optimizer(layers: Iterable[_Layer], profile: Profile) -> str:
    for layer in layers:
        if "optim.name" in layer:
            return str(layer["optim.name"].value)
    return str(profile.optim["name"])


def _fine_tunes(layers: Iterable[_Layer], profile: Profile) -> bool:
    for layer in layers:
        if "train.model" in layer:
            return is_weights(str(layer["train.model"].value))
    return is_weights(profile.train.model)


def _strays(layers: Iterable[_Layer], file: _File, optimizer: str) -> list[str]:
    """Name the values meant for another optimizer; taken in silence they would do nothing."""

    def stray(key: str) -> bool:
        section, _, name = key.partition(".")
        return section == "optim" and not optimizer_has(optimizer, name)

    faults = [
        f"{file.path}: {key}: the optimizer {optimizer} has none; "
        f"move it to the table of one that has, such as [optim.musgd]"
        for key in file.tables.common
        if stray(key)
    ]
    for layer in layers:
        faults += [
            f"{given.source}: the optimizer {optimizer} has no {(name := key.partition('.')[2])}, "
            f"unlike {' and '.join(one for one in OPTIMIZERS if optimizer_has(one, name))}"
            for key, given in layer.items()
            if stray(key)
        ]
    return faults


def _profile_layers(
    trains: Profile, runs: Profile, optimizer: str, fine_tunes: bool
) -> list[_Layer]:
    """Return what the machine that runs the model gives, then what the one that trains gives."""
    own, target = (
        _from_tables(
            read_tables(profile.model_dump(exclude_none=True)),
            optimizer,
            fine_tunes,
            f"profile {profile.name}",
        )
        for profile in (trains, runs)
    )
    target = {
        key: given
        for key, given in target.items()
        if key.startswith(("compress.", "bench."))
        or (key == "train.imgsz" and runs.name != trains.name)
    }
    own = {key: given for key, given in own.items() if key.startswith(("optim.", "train."))}
    return [target, own]


def _settled(key: str, layers: Iterable[_Layer]) -> Settled:
    given = [layer[key] for layer in layers if key in layer]
    if not given:
        return Settled(value=None, source=NOT_GIVEN)
    first, *beaten = given
    return Settled(
        value=first.value,
        source=first.source,
        over=tuple(Beaten(value=value, source=source) for value, source in beaten),
    )
