"""``musgd predict``: run a model on images, a video or a camera."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.options import Quiet, Threads

if TYPE_CHECKING:
    from musgd_cli.bench.subject import Subject
    from musgd_cli.predict.session import Found
    from musgd_cli.runtime.engine import Model


def predict(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An artifact's folder, another exporter's model file, or a run of one model.",
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An image, a folder of images, a video, a camera's index such as 0, or a URL: "
            "rtsp://, http://.",
        ),
    ],
    conf: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="Lowest score of a box.")
    ] = 0.25,
    iou: Annotated[
        float,
        typer.Option(metavar="X", min=0, max=1, help="Overlap above which NMS drops a box."),
    ] = 0.7,
    max_det: Annotated[
        int, typer.Option("--max-det", metavar="N", min=1, help="Most boxes an image.")
    ] = 300,
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For annotated pictures or the annotated clip. Default: runs/NAME/predict/SOURCE.",
        ),
    ] = None,
    no_save: Annotated[
        bool, typer.Option("--no-save", help="Draw and save nothing; it is faster.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a frame on stdout.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Find objects: [bold]musgd predict runs/demo/artifacts/x86-cpu-openvino-int8-320 photo.jpg[/]

    Images come back annotated under their names, all else as one clip with the frame rate in it.
    A camera or stream is read as fast as it comes: what the model cannot keep up with is dropped.
    Ctrl-C ends it; the clip is finished and stays.
    """
    from rich.text import Text

    from musgd_cli.console import Terminal, print_error
    from musgd_cli.data.images import opencv
    from musgd_cli.signals import StopRequest

    opencv()
    from musgd_cli.predict import session
    from musgd_cli.predict.output import Output, free_path
    from musgd_cli.predict.sources import open_source

    terminal = Terminal(as_json=as_json, quiet=quiet)
    folder, model, called, place = _model(artifact)
    frames = open_source(source)
    pictures = frames.fps is None
    output = None
    if not no_save:
        output = Output(out or free_path(place / "predict", frames.stem, ""), frames)
    detector = session.open_detector(
        folder, model, threads=threads or 0, conf=conf, iou=iou, max_det=max_det
    )
    terminal.say(f"{frames.name} through {called}")
    with StopRequest(lambda: terminal.say("stopping")) as stop, terminal.live(Text()) as live:

        def show(found: Found) -> None:
            terminal.emit_line(found.line(model.names))
            if pictures and not as_json:
                terminal.show(Text(f"{found.frame.source}: {found.counts(model.names)}"))
            if live is not None and not pictures:
                live.update(Text(found.status(frames, model.names), style="dim"))

        summary = session.run(
            detector, frames, model.names, output, on_frame=show, on_fault=print_error, stop=stop
        )
        if live is not None:
            live.update(Text())
    if summary.frames:
        terminal.show(Text(str(summary)))
        if as_json:
            terminal.say(str(summary))
    if summary.saved is not None:
        terminal.say(f"saved {summary.saved}")
    if summary.error is not None:
        raise summary.error
    if summary.exit_code:
        raise typer.Exit(int(summary.exit_code))


def _model(spec: str) -> tuple[Path, Model, Path, Path]:
    """Return a model's folder, its record, what to call it by, and the place of its outputs."""
    from musgd_cli.predict import model

    folder = Path(spec)
    if (folder / model.RECORD).is_file():  # the usual case needs no pydantic
        return folder, model.read(folder), folder, _place_of(folder)
    subject = the_one(spec)
    return subject.folder, subject.artifact, subject.path, place_of(subject)


def the_one(spec: str) -> Subject:
    """Return the model that ``spec`` names.

    Raises:
        UsageError: It names none, or several.
    """
    from musgd_cli.bench import choose
    from musgd_cli.errors import UsageError

    chosen = choose([spec])
    if len(chosen) > 1:
        raise UsageError(
            f"there are {len(chosen)} models in {spec}",
            "give one of them: " + ", ".join(str(subject.path) for subject in chosen),
        )
    return chosen[0]


def place_of(subject: Subject) -> Path:
    """Return the run that a model lies in, or a folder of ours named after it."""
    return _place_of(subject.folder) if subject.made_by is None else Path("runs") / subject.name


def _place_of(folder: Path) -> Path:
    if folder.absolute().parent.name == "artifacts":
        return folder.parent.parent
    return Path("runs") / folder.absolute().name
