"""``musgd export``: weights in, models that a board's runtime opens out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from musgd_cli.commands.options import Data, ImgSz, Json, Quiet, Set


def export(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|WEIGHTS]",
            help="A run, its folder or its name, or a .pt. Default: the run that finished last.",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to int8, calibrated on training images.")
    ] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Profile of the machine that will run it; several by commas or repeated; auto: "
            "this machine. Default: the run's."
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino or ncnn, in place of the target's own; several likewise.",
        ),
    ] = None,
    data: Data = None,
    imgsz: ImgSz = None,
    calib: Annotated[
        int | None, typer.Option(metavar="N", help="Training images that calibrate int8.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the artifacts go. Default: into the run."),
    ] = None,
    assignments: Set = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Load weights that may run code. Only if you know the author."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export for the board that will run it: [bold]musgd export --int8 --target pi4b,x86-cpu[/]

    Always makes the fp32 ONNX, the float parent, then what the target's runtimes want. What cannot
    be made here is listed with its mend. Bare weights go to runs/NAME/artifacts.
    """
    from rich.text import Text

    from musgd_cli import compress
    from musgd_cli.console import Terminal
    from musgd_cli.report.terminal.artifacts import LICENSE_NOTE, export_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    flags, spelling = _flags(data, imgsz, calib, _split(runtime), assignments)
    with terminal.live(Text()) as live:

        def show(text: str) -> None:
            if live is None:
                terminal.say(text)
            else:
                live.update(Text(text, style="dim"))

        report = compress.export(
            source,
            targets=_split(target),
            int8=int8,
            flags=flags,
            spelling=spelling,
            out=out,
            trust=trust,
            on_progress=show,
            on_note=terminal.say,
            on_warning=terminal.warn,
        )
        if live is not None:
            live.update(Text())
    terminal.say(LICENSE_NOTE)
    terminal.show(export_table(report))
    terminal.emit(report)


def _split(values: list[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for value in values or () for part in value.split(",") if part)


def _flags(
    data: str | None,
    imgsz: int | None,
    calib: int | None,
    runtimes: tuple[str, ...],
    assignments: list[str] | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings that options give, and how each was typed."""
    from musgd_cli.errors import UsageError
    from musgd_cli.settings import parse_assignments

    options: dict[str, tuple[str, Any]] = {
        "train.data": ("--data", data),
        "train.imgsz": ("--imgsz", imgsz),
        "compress.calib": ("--calib", calib),
        "compress.runtimes": ("--runtime", runtimes or None),
    }
    given = {key: value for key, (_, value) in options.items() if value is not None}
    assigned = parse_assignments(assignments or ())
    for key in given.keys() & assigned.keys():
        raise UsageError(
            f"{key} is given twice, by {options[key][0]} and by --set", "leave one of them out"
        )
    return given | assigned, {key: flag for key, (flag, _) in options.items()}
