"""Plans and profiles as tables: what is set, where it came from, and what it beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import OptimSettings, Plan, ProfileList, Settled


def plan_table(plan: Plan) -> RenderableType:
    """Return the table of all settings, section by section, and a line about the optimizer.

    What is not a profile's stands out.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD,
        title=f"Trains as {plan.profile}, for {plan.target}",
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_column("beats", overflow="fold")
    section = None
    for key, settled in plan.settings.items():
        if section is not None and not key.startswith(f"{section}."):
            table.add_section()
        section = key.partition(".")[0]
        style = "dim" if settled.source.startswith("profile ") or settled.value is None else "bold"
        table.add_row(
            key,
            Text("-" if settled.value is None else in_words(settled.value)),
            Text(settled.source, style=style),
            Text(_beaten(settled), style="dim"),
        )
    return Group(table, Text(f"{plan.optim.name}: {optimizer_form(plan.optim)}", style="bold"))


def optimizer_form(optim: OptimSettings) -> str:
    """Return which optimizer that is in plain words; names alone mislead, MuSGD's above all."""
    momentum = f"momentum {optim.momentum:g}" if optim.momentum else "no momentum"
    nesterov = ", Nesterov" if optim.nesterov else ""
    match optim.name:
        case "muon-sgd":
            return "Ultralytics' hybrid of Muon and SGD, which it calls MuSGD"
        case "adamw":
            return f"PyTorch's AdamW, beta1 {optim.momentum:g}"
        case "sgd":
            return f"PyTorch's SGD{nesterov}, {momentum}"
    if optim.second_moment == "rowcol":
        form = "rowcol second moment"
    else:
        form = "the article's form" if optim.name == "musgd-article" else "no second moment"
    if not optim.momentum:
        return f"{form}, {momentum}"
    if optim.adapt_factor == 0:
        return f"{form}{nesterov}, constant {momentum}"
    whose = "all gradients'" if optim.norm_scope == "global" else "each tensor's own"
    against = ", against its running mean" if optim.adapt_factor == "auto" else ""
    return (
        f"{form}{nesterov}, {momentum} cut by {whose} squared norm{against}, "
        f"adapt_factor {optim.adapt_factor}"
    )


def brief_form(optim: OptimSettings) -> str:
    """Return in two or three words which optimizer that is."""
    match optim.name:
        case "muon-sgd":
            return "Ultralytics' hybrid"
        case "sgd" | "adamw":
            return "PyTorch's"
        case "musgd-article":
            return "the article's form"
    return "rowcol" if optim.second_moment == "rowcol" else "no second moment"


def in_words(value: Any) -> str:
    """Return a setting's value as a person would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _beaten(settled: Settled) -> str:
    return ", ".join(f"{in_words(beaten.value)} ({beaten.source})" for beaten in settled.over)


def profiles_table(shipped: ProfileList) -> RenderableType:
    """Return the table of shipped profiles; an arrow marks the one that fits this machine."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("profile", no_wrap=True)
    table.add_column("boards")
    table.add_column("summary")
    for profile in shipped.profiles:
        here = profile.name == shipped.here
        table.add_row(
            "→" if here else "",
            profile.name,
            ", ".join(profile.boards),
            profile.summary,
            style="bold" if here else None,
        )
    return table
