"""From typed options to settings, and, for ``plan`` and ``train``, to one settled plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musgd_cli.console import Terminal
    from musgd_cli.errors import MusgdError
    from musgd_cli.records import BenchSettings, Host, Plan

DIFFICULTIES = {"easy": 0.01, "hard": 0.1}
"""What ``--difficulty`` sets ``optim.adapt_factor`` to: the ends of the article's range."""

MOST_SWEPT = 8
"""Cores up to which a sweep tries every count; beyond, it doubles them."""


def settings_of(
    options: Mapping[str, tuple[str, Any]], assignments: list[str] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings that options give, and how each option that was used is typed.

    Args:
        options: ``section.key`` to the option of that setting and its value, ``None`` where it was
            not used.
        assignments: The ``KEY=VALUE`` of each ``--set``.

    Raises:
        UsageError: A key or value of an assignment is wrong, or one setting is given twice.
    """
    from musgd_cli.errors import UsageError
    from musgd_cli.settings import parse_assignments

    given = {key: value for key, (_, value) in options.items() if value is not None}
    assigned = parse_assignments(assignments or ())
    for key in given.keys() & assigned.keys():
        raise UsageError(
            f"{key} is given twice, by {options[key][0]} and by --set", "leave one of them out"
        )
    return given | assigned, {key: options[key][0] for key in given}


def settle_from_options(
    *,
    data: str | None = None,
    model: str | None = None,
    name: str | None = None,
    epochs: int | None = None,
    imgsz: int | None = None,
    batch: int | None = None,
    optimizer: str | None = None,
    difficulty: str | None = None,
    seed: int | None = None,
    profile: str | None = None,
    target: str | None = None,
    assignments: list[str] | None = None,
    terminal: Terminal | None = None,
) -> Plan:
    """Settle a plan for this machine; ``None`` is an option that was not used.

    Args:
        data: ``--data``, and so on for the options of the same name.
        assignments: The ``KEY=VALUE`` of each ``--set``.
        terminal: Where to say that the profile was not made for this board, only near to it.

    Raises:
        UsageError: A name, key or value is wrong, or one setting is given by two options.
    """
    from musgd_cli import profiles
    from musgd_cli.hardware import detect
    from musgd_cli.settings import settle

    factor = None if difficulty is None else _adapt_factor(difficulty)
    flags, spelling = settings_of(
        {
            "train.data": ("--data", data),
            "train.model": ("--model", model),
            "train.name": ("--name", name),
            "train.epochs": ("--epochs", epochs),
            "train.imgsz": ("--imgsz", imgsz),
            "train.batch": ("--batch", batch),
            "train.seed": ("--seed", seed),
            "optim.name": ("--optimizer", optimizer),
            "optim.adapt_factor": (f"--difficulty {difficulty}", factor),
        },
        assignments,
    )
    host = detect()
    settled = settle(
        host=host,
        profile=profile,
        target=target,
        flags=flags,
        spelling=spelling,
    )
    nearest = profiles.match(host)
    taken = nearest.name in (settled.profile, settled.target)
    if terminal is not None and taken and not profiles.is_made_for(nearest, host):
        terminal.warn(
            f"no profile is made for the board {host.board}; {nearest.name} is the nearest",
            f"musgd profiles copy {nearest.name} {host.board}.toml starts one of your own",
        )
    return settled


def _adapt_factor(difficulty: str) -> float:
    from musgd_cli.errors import UsageError
    from musgd_cli.sections import did_you_mean

    if difficulty not in DIFFICULTIES:
        raise UsageError(
            f"--difficulty: {difficulty!r} is neither easy nor hard"
            f"{did_you_mean(difficulty, DIFFICULTIES)}",
            "--difficulty easy, or any other number by --set optim.adapt_factor=0.03",
        )
    return DIFFICULTIES[difficulty]


def bench_settings(
    options: Mapping[str, tuple[str, float | None]],
    target: str | None,
    assignments: list[str] | None,
) -> BenchSettings:
    """Settle how this machine measures; see :func:`bench_plan`."""
    from musgd_cli.hardware import detect

    return bench_plan(detect(), options, target, assignments).bench


def bench_plan(
    host: Host,
    options: Mapping[str, tuple[str, float | None]],
    target: str | None,
    assignments: list[str] | None,
) -> Plan:
    """Settle how a machine measures.

    Args:
        host: The machine.
        options: See :func:`settings_of`.
        target: ``--target``.
        assignments: The ``KEY=VALUE`` of each ``--set``.

    Raises:
        UsageError: A name, key or value is wrong, or one setting is given by two options.
    """
    from musgd_cli.settings import settle

    flags, spelling = settings_of(options, assignments)
    return settle(host=host, target=target, flags=flags, spelling=spelling)


def warn_of_refused_meter(terminal: Terminal, root: Path = Path("/")) -> None:
    """Say how to read a power meter that is there, where none can be read."""
    from musgd_cli.hardware.power import best_meter, refused

    if best_meter(root) is None:
        for refusal in refused(root)[:1]:
            terminal.warn(refusal.what, refusal.mend)


def each_once(errors: Iterable[MusgdError]) -> list[MusgdError]:
    """Leave out errors that would print the same two lines again."""
    first: dict[tuple[str, str], MusgdError] = {}
    for error in errors:
        first.setdefault((error.what, error.mend), error)
    return list(first.values())


def read_threads(text: str | None, cores: int | None = None) -> tuple[int, ...] | None:
    """Read ``--threads``: numbers by commas, 0 for every core, or ``sweep``.

    Args:
        text: As typed.
        cores: Of the machine; default: those that this process may use.

    Raises:
        UsageError: It is none of these.
    """
    from musgd_cli.errors import UsageError
    from musgd_cli.hardware import usable_cores

    if text is None:
        return None
    if text.strip() == "sweep":
        cores = cores or usable_cores()
        doubled = [2**i for i in range(cores.bit_length()) if 2**i <= cores]
        return tuple(range(1, cores + 1)) if cores <= MOST_SWEPT else (*doubled, cores)
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (-1,)
    if min(counts) < 0:
        raise UsageError(
            f"--threads {text} is no thread count", "try --threads 2, --threads 1,2 or sweep"
        )
    return counts
