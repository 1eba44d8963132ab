"""Write what is told twice from where it is told first: ``python docs/generate.py``.

``docs/cli.md`` from the command line, ``installer/boards.txt`` from the table of boards. Tests fail
while they are stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

PAGE = Path(__file__).with_name("cli.md")
TABLE = Path(__file__).parents[1] / "installer/boards.txt"

HEAD = """# Every verb and option

Written by `python docs/generate.py`; do not edit. Each verb also takes `-h` and `--help`.
"""

TABLE_HEAD = """\
# Written by `python docs/generate.py` from musgd_cli/hardware/boards.py; do not edit. Where two
# rows would match, the first does.
# board|title|extras|agent|device-tree compatible|Raspberry Pi types|modules of TNSPEC
"""


def render() -> str:
    """Return the page."""
    from musgd_cli.commands import app

    return HEAD + "".join(_sections(typer.main.get_command(app), "musgd"))


def render_table() -> str:
    """Return the boards as ``install.sh`` reads them."""
    from musgd_cli.hardware.boards import BOARDS

    rows = (
        (
            board.name,
            board.title,
            ",".join(board.extras),
            "yes" if board.agent else "no",
            " ".join(board.compatible),
            " ".join(map(str, board.pi_types)),
            " ".join(board.modules),
        )
        for board in BOARDS
    )
    return TABLE_HEAD + "".join("|".join(row) + "\n" for row in rows)


def _sections(command: Any, path: str) -> Iterator[str]:
    heading = "#" * max(2, path.count(" ") + 1)
    yield f"\n{heading} {path}\n\n{_text(command.help)}\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    options = [option for option in options if "completion" not in option.name]
    if arguments or options:
        yield "\n| | |\n|---|---|\n"
    for parameter in (*arguments, *options):
        spelling = _spelling(parameter).replace("|", "\\|")  # it ends a cell, even within code
        yield f"| {spelling} | {_text(parameter.help or '')}{_default(parameter)} |\n"
    if not hasattr(command, "commands"):
        return
    context = command.make_context(path, [], resilient_parsing=True)
    for name in command.list_commands(context):
        _, below, _ = command.resolve_command(context, [name])
        yield from _sections(below, f"{path} {name}")


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = (parameter.metavar or parameter.name.upper()).strip("[].")
        shown += "..." if parameter.nargs == -1 else ""
        return f"`{shown}`" if parameter.required else f"`[{shown}]`"
    spellings = sorted((*parameter.opts, *parameter.secondary_opts), key=len)
    takes = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(f"`{spelling}{takes}`" for spelling in spellings)


def _default(parameter: Any) -> str:
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f" Default: {default}." if plain and parameter.show_default else ""


def _text(help_text: str) -> str:
    """Turn rich's markup and docstring wrapping into Markdown paragraphs."""
    marked = re.sub(r"\[bold\](.*?)\[/(?:bold)?\]", r"`\1`", help_text)
    paragraphs = re.split(r"\n\s*\n", marked.strip())
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return text.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    TABLE.write_text(render_table(), encoding="utf-8")
