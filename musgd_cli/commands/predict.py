"""``musgd predict``: run a model on images, a video or a camera."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.options import Quiet, Threads

if TYPE_CHECKING:
    from musgd_cli.bench.subject import Subject
    from musgd_cli.console import Terminal
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
    from musgd_cli.console import Terminal
    from musgd_cli.data.images import opencv

    opencv()
    from musgd_cli.predict.session import Job
    from musgd_cli.predict.session import predict as find

    folder, model, called, place = _model(artifact)
    job = Job(
        source=source,
        save=not no_save,
        out=out,
        place=place / "predict",
        threads=threads or 0,
        conf=conf,
        iou=iou,
        max_det=max_det,
    )
    speaker = _Speaker(Terminal(as_json=as_json, quiet=quiet))
    code = find(folder, model, str(called), job, speaker)
    if code:
        raise typer.Exit(int(code))


class _Speaker:
    """A `musgd_cli.predict.session.Speaker` for this terminal."""

    def __init__(self, terminal: Terminal) -> None:
        from musgd_cli.console import print_error

        self._terminal = terminal
        self.as_json = terminal.as_json
        self.say = terminal.say
        self.emit_line = terminal.emit_line
        self.complain = print_error

    def show_line(self, text: str) -> None:
        from rich.text import Text

        self._terminal.show(Text(text))

    @contextmanager
    def live_line(self) -> Iterator[Callable[[str], None] | None]:
        from rich.text import Text

        if self.as_json and sys.stdout.isatty():  # the lines would run through it
            yield None
            return
        with self._terminal.live(Text()) as live:
            yield None if live is None else lambda text: live.update(Text(text, style="dim"))
            if live is not None:
                live.update(Text())


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
    if subject.made_by is None:
        return _place_of(subject.folder)
    from musgd_cli.paths import RUNS

    return RUNS / subject.name


def _place_of(folder: Path) -> Path:
    from musgd_cli.paths import RUNS, run_around

    return run_around(folder) or RUNS / folder.resolve().name
