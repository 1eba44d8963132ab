"""The command line of a bundle: `musgd predict` with nothing but the standard library around it."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from musgd_cli.data.images import opencv
from musgd_cli.errors import ExitCode, MusgdError, UsageError
from musgd_cli.installation import ExtraError
from musgd_cli.predict import model as models

REQUIREMENTS = "requirements.txt"

N = TypeVar("N", int, float)


def main(folder: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the model in ``folder`` on what the command line names.

    Args:
        folder: Of an artifact; beside it lie the requirements.
        arguments: The command line. Default: this process's own.

    Returns:
        The exit code, as `musgd_cli.errors.ExitCode` has it.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that is no UTF-8, or a locale that is not, must not end the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    speaker = Speaker(folder.parent / REQUIREMENTS)
    try:
        options = _parser().parse_args(arguments)
        speaker.as_json, speaker.quiet = options.json, options.quiet
        code = _predict(folder, options, speaker)
        sys.stdout.flush()
    except MusgdError as error:
        speaker.complain(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # a reader that has seen enough, as in `predict.py … | head`
        _give_up_stdout()
        return int(ExitCode.DONE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _give_up_stdout()
        what = os.strerror(error.errno)
        speaker.complain(MusgdError(what, "free some space, then run the command again"))
        return int(ExitCode.FAILED)
    return code


def _give_up_stdout() -> None:
    # What is still in its buffer would fail once more, with a complaint, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"{self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="predict.py",
        description="Find objects: predict.py photo.jpg",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("source", help="an image, a folder of images, a video, a camera's index (0) or a URL")
    add("--conf", type=_share, default=0.25, metavar="X", help="lowest score of a box")
    add("--iou", type=_share, default=0.7, metavar="X", help="overlap above which NMS drops a box")
    add("--max-det", type=_positive, default=300, metavar="N", help="most boxes an image")
    add("--threads", type=_count, default=0, metavar="N", help="of the engine; 0: every core")
    add("--out", type=Path, metavar="DIR", help="for what is drawn; None: below predictions/")
    add("--no-save", action="store_true", help="draw and save nothing")
    add("--json", action="store_true", help="print one JSON object a frame on stdout")
    add("--quiet", "-q", action="store_true", help="print only results and errors")
    return parser


def _number(text: str, kind: type[N]) -> N:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no {kind.__name__}") from None


def _share(text: str) -> float:
    value = _number(text, float)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = _number(text, int)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _positive(text: str) -> int:
    value = _number(text, int)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


class Speaker:
    """A `musgd_cli.predict.session.Speaker` of plain text.

    Args:
        requirements: Installs what a bundle needs.
    """

    def __init__(self, requirements: Path) -> None:
        self.as_json = False
        self.quiet = False
        self._requirements = requirements

    def emit_line(self, record: Mapping[str, Any]) -> None:
        """See `musgd_cli.predict.session.Speaker`, as for the others."""
        if self.as_json:
            sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
            sys.stdout.flush()

    def show_line(self, text: str) -> None:
        """Print a result for people."""
        if not self.as_json:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def say(self, text: str) -> None:
        """Tell how the work goes."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")

    def complain(self, error: MusgdError) -> None:
        """Tell what failed."""
        mend = error.mend
        if isinstance(error, ExtraError):  # of musgd, which is not here
            python = shlex.quote(sys.executable or "python3")
            mend = f"{python} -m pip install -r {shlex.quote(str(self._requirements))}"
        sys.stderr.write(f"error: {error.what}\nmend: {mend}\n")

    @contextmanager
    def live_line(self) -> Iterator[Callable[[str], None] | None]:
        """Redraw a line on stderr."""
        is_alone = not (self.as_json and sys.stdout.isatty())
        if self.quiet or not is_alone or not sys.stderr.isatty():
            yield None
            return

        def redraw(text: str) -> None:
            width = shutil.get_terminal_size().columns - 1  # what wraps is not redrawn
            sys.stderr.write(f"\r\x1b[K{text[:width]}")
            sys.stderr.flush()

        yield redraw
        redraw("")


def _predict(folder: Path, options: argparse.Namespace, speaker: Speaker) -> int:
    opencv()
    from musgd_cli.predict import session

    job = session.Job(
        source=options.source,
        save=not options.no_save,
        out=options.out,
        place=Path("predictions"),
        threads=options.threads,
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
    )
    called = folder.parent.name
    return int(session.predict(folder, models.read(folder), called, job, speaker))
