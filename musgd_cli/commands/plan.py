"""``musgd plan``: every setting a run would have, where it came from, and what it beat."""

from __future__ import annotations

from musgd_cli.commands.options import (
    Batch,
    Data,
    Difficulty,
    Epochs,
    ImgSz,
    Json,
    Model,
    Name,
    Optimizer,
    Profile,
    Quiet,
    Seed,
    Set,
    Target,
)


def plan(
    data: Data = None,
    model: Model = None,
    epochs: Epochs = None,
    imgsz: ImgSz = None,
    batch: Batch = None,
    optimizer: Optimizer = None,
    difficulty: Difficulty = None,
    profile: Profile = None,
    target: Target = None,
    seed: Seed = None,
    name: Name = None,
    assignments: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show every setting and its source: [bold]musgd plan --target pi4b --epochs 30[/]

    The strongest wins: a flag, a variable MUSGD_<SECTION>__<KEY>, ./musgd.toml,
    the profile. Nothing is trained or written.
    """
    from musgd_cli.commands.planning import settle_from_options
    from musgd_cli.console import Terminal
    from musgd_cli.report.terminal.plan import plan_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    settled = settle_from_options(
        data=data,
        model=model,
        name=name,
        epochs=epochs,
        imgsz=imgsz,
        batch=batch,
        optimizer=optimizer,
        difficulty=difficulty,
        seed=seed,
        profile=profile,
        target=target,
        assignments=assignments,
        terminal=terminal,
    )
    terminal.show(plan_table(settled))
    terminal.emit(settled)
