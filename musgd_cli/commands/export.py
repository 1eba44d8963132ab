"""``musgd export``: weights in, models that a board's runtime opens out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musgd_cli.commands.options import Data, Json, Quiet, Set, Source, Trust, split

if TYPE_CHECKING:
    from musgd_cli.records import Artifact, ExportReport


def export(
    source: Source = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Make int8 models too, calibrated on training images.")
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
            help="onnxruntime, openvino, ncnn, litert or tensorrt, in place of the target's own; "
            "several likewise.",
        ),
    ] = None,
    data: Data = None,
    imgsz: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of the square input, multiple of 32; several likewise. Default: the run's.",
        ),
    ] = None,
    nms_free: Annotated[
        bool | None,
        typer.Option(
            "--nms-free/--no-nms-free",
            help="Export the head that needs no NMS, or the other one. Default: the target's.",
        ),
    ] = None,
    calib: Annotated[
        int | None, typer.Option(metavar="N", help="Training images that calibrate int8.")
    ] = None,
    calib_method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="minmax, percentile or entropy: of activation ranges."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Most mAP50-95, of 1, that a model may lose against its float parent.",
        ),
    ] = None,
    auto_mixed: Annotated[
        bool,
        typer.Option(
            "--auto-mixed",
            help="Where int8 does not pass, return the layers that hurt most to float.",
        ),
    ] = False,
    quantize_all: Annotated[
        bool,
        typer.Option(
            "--quantize-all",
            help="Quantize every operation, as libraries do by default: see what that costs.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Make nothing if anything asked for cannot be made here."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the artifacts go. Default: into the run."),
    ] = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export for the board that will run it: [bold]musgd export --int8 --target pi4b,x86-cpu[/]

    Always makes the fp32 ONNX, the float parent, then what the target's runtimes want, and holds
    each against the parent on images that calibrated nothing. One that fails is kept, marked, and
    the exit code is 4. What cannot be made here is listed with its mend. Bare weights go to
    runs/NAME/artifacts.
    """
    from rich.text import Text

    from musgd_cli import compress
    from musgd_cli.commands.planning import settings_of
    from musgd_cli.console import Terminal
    from musgd_cli.errors import ExitCode
    from musgd_cli.report.terminal.artifacts import LICENSE_NOTE, export_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    sizes = _sizes(split(imgsz))
    options: dict[str, tuple[str, Any]] = {
        "train.data": ("--data", data),
        "train.imgsz": ("--imgsz", sizes[0] if sizes else None),  # each of them, in its turn
        "compress.nms_free": ("--nms-free" if nms_free else "--no-nms-free", nms_free),
        "compress.calib": ("--calib", calib),
        "compress.calib_method": ("--calib-method", calib_method),
        "compress.max_drop": ("--max-drop", max_drop),
        "compress.runtimes": ("--runtime", split(runtime) or None),
    }
    flags, spelling = settings_of(options, assignments)
    with terminal.live(Text()) as live:

        def show(text: str) -> None:
            if live is None:
                terminal.say(text)
            else:
                live.update(Text(text, style="dim"))

        def show_detail(text: str) -> None:
            if live is not None:
                live.update(Text(text, style="dim"))

        try:
            report = compress.export(
                source,
                targets=split(target),
                sizes=sizes,
                int8=int8,
                auto_mixed=auto_mixed,
                quantize_all=quantize_all,
                strict=strict,
                flags=flags,
                spelling=spelling,
                out=out,
                trust=trust,
                on_progress=show,
                on_detail=show_detail,
                on_note=terminal.say,
                on_warning=terminal.warn,
            )
        except KeyboardInterrupt:
            terminal.warn(
                "interrupted: the models that were finished are kept, and no half one",
                "the same command makes them all again",
            )
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        if live is not None:
            live.update(Text())
    terminal.say(LICENSE_NOTE)
    terminal.show(export_table(report))
    terminal.emit(report)
    _judge(report, auto_mixed)


def _judge(report: ExportReport, auto_mixed: bool) -> None:
    """End with the exit code that the outcome deserves."""
    from musgd_cli.errors import CheckFailedError, ExitCode, MusgdError, UnsupportedError

    for row in report.skipped:
        if row.exit_code is not None:
            raise MusgdError(
                f"{row.target} {row.runtime}: {row.why}", row.mend, ExitCode(row.exit_code)
            )
    failed = [a for a in report.artifacts if a.gate is not None and a.gate.verdict == "failed"]
    if failed:
        count = "1 model fails" if len(failed) == 1 else f"{len(failed)} models fail"
        raise CheckFailedError(
            f"{count} the gate: {', '.join(a.path for a in failed)}", _cure(failed, auto_mixed)
        )
    if report.unmade:
        (first, *_) = (row for row in report.skipped if row.target in report.unmade)
        raise UnsupportedError(
            f"of {', '.join(report.unmade)} nothing but the float parent can be made here",
            first.mend,
        )


def _cure(failed: list[Artifact], auto_mixed: bool) -> str:
    if not auto_mixed and any(artifact.precision_asked == "int8" for artifact in failed):
        return "add --auto-mixed, which returns to float what int8 harms most"
    # A larger --max-drop would not help where boxes differ.
    if any(artifact.gate is not None and artifact.gate.boxes_fall_short for artifact in failed):
        return "take a model of another precision or size; this one is kept, marked"
    return "take another model, or allow more with --max-drop; this one is kept, marked"


def _sizes(values: tuple[str, ...]) -> tuple[int, ...]:
    from musgd_cli.errors import UsageError

    for value in values:
        if not value.isdecimal():
            raise UsageError(f"--imgsz {value} is no number of pixels", "--imgsz 256,320")
    return tuple(map(int, values))
