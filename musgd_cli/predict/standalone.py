"""The command line of a bundle: `musgd predict` with nothing but the standard library around it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from musgd_cli.data.images import opencv
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError
from musgd_cli.predict import model as models
from musgd_cli.signals import StopRequest

REQUIREMENTS = "requirements.txt"


def main(folder: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the model in ``folder`` on what the command line names.

    Args:
        folder: Of an artifact.
        arguments: The command line. Default: this process's own.

    Returns:
        The exit code, as `musgd_cli.errors.ExitCode` has it.
    """
    options = _parser().parse_args(arguments)
    try:
        return _predict(folder, options)
    except MusgdError as error:
        _complain(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Find objects: predict.py photo.jpg",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("source", help="an image, a folder of images, a video, a camera's index (0) or a URL")
    add("--conf", type=_share, default=0.25, metavar="X", help="lowest score of a box")
    add("--iou", type=_share, default=0.7, metavar="X", help="overlap above which NMS drops a box")
    add("--max-det", type=_count, default=300, metavar="N", help="most boxes an image")
    add("--threads", type=_count, default=0, metavar="N", help="of the engine; 0: every core")
    add("--out", type=Path, metavar="DIR", help="for what is drawn; None: below predictions/")
    add("--no-save", action="store_true", help="draw and save nothing")
    add("--json", action="store_true", help="print one JSON object a frame on stdout")
    add("--quiet", "-q", action="store_true", help="print only results and errors")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _complain(error: MusgdError) -> None:
    mend = error.mend
    if isinstance(error, UnsupportedError) and "pip install" in mend:
        mend = f"pip install -r {REQUIREMENTS}"  # `mend` names an extra of musgd, which is not here
    sys.stderr.write(f"error: {error.what}\nmend: {mend}\n")


def _predict(folder: Path, options: argparse.Namespace) -> int:
    opencv()
    from musgd_cli.predict import session
    from musgd_cli.predict.output import Output, free_path
    from musgd_cli.predict.sources import open_source

    watched = sys.stderr.isatty() and not options.quiet
    model = models.read(folder)
    source = open_source(options.source)
    pictures = source.fps is None
    output = None
    if not options.no_save:
        output = Output(options.out or free_path(Path("predictions"), source.stem, ""), source)
    detector = session.open_detector(
        folder,
        model,
        threads=options.threads,
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
    )

    def show(found: session.Found) -> None:
        if options.json:
            sys.stdout.write(json.dumps(found.line(model.names), allow_nan=False) + "\n")
            sys.stdout.flush()
        elif pictures:
            sys.stdout.write(f"{found.frame.source}: {found.counts(model.names)}\n")
        if watched and not pictures:
            sys.stderr.write(f"\r\x1b[K{found.status(source, model.names)}")

    with StopRequest(lambda: None) as stop:
        summary = session.run(
            detector, source, model.names, output, on_frame=show, on_fault=_complain, stop=stop
        )
    if watched and not pictures:
        sys.stderr.write("\r\x1b[K")
    stream = sys.stderr if options.json else sys.stdout
    if summary.frames and not (options.json and options.quiet):
        stream.write(f"{summary}\n")
    if summary.saved is not None and not options.quiet:
        sys.stderr.write(f"saved {summary.saved}\n")
    if summary.error is not None:
        raise summary.error
    return int(summary.exit_code)
