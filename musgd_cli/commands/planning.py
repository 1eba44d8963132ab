"""From the options that ``plan`` and ``train`` share to one settled plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.console import Terminal
    from musgd_cli.records import Plan


def settle_from_options(
    *,
    data: str | None = None,
    model: str | None = None,
    name: str | None = None,
    epochs: int | None = None,
    imgsz: int | None = None,
    batch: int | None = None,
    optimizer: str | None = None,
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
    from musgd_cli.errors import UsageError
    from musgd_cli.hardware import detect
    from musgd_cli.settings import parse_assignments, settle

    options = {
        "--data": ("train.data", data),
        "--model": ("train.model", model),
        "--name": ("train.name", name),
        "--epochs": ("train.epochs", epochs),
        "--imgsz": ("train.imgsz", imgsz),
        "--batch": ("train.batch", batch),
        "--seed": ("train.seed", seed),
        "--optimizer": ("optim.name", optimizer),
    }
    given = {key: (flag, value) for flag, (key, value) in options.items() if value is not None}
    assigned = parse_assignments(assignments or ())
    for key in given.keys() & assigned.keys():
        raise UsageError(
            f"{key} is given twice, by {given[key][0]} and by --set", "leave one of them out"
        )
    host = detect()
    settled = settle(
        host=host,
        profile=profile,
        target=target,
        flags={key: value for key, (_, value) in given.items()} | assigned,
        spelling={key: flag for key, (flag, _) in given.items()},
    )
    nearest = profiles.match(host)
    taken = nearest.name in (settled.profile, settled.target)
    if terminal is not None and taken and not profiles.is_made_for(nearest, host):
        terminal.warn(
            f"no profile is made for the board {host.board}; {nearest.name} is the nearest",
            f"musgd profiles copy {nearest.name} {host.board}.toml starts one of your own",
        )
    return settled
