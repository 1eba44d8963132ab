"""Several boards side by side: connect, copy, measure there, keep the reports here."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from musgd_cli.bench.selection import report_file
from musgd_cli.bench.session import Outcome
from musgd_cli.bench.subject import Subject
from musgd_cli.data import load
from musgd_cli.errors import MusgdError
from musgd_cli.records import BenchReport, Host, Plan
from musgd_cli.remote.speech import Tell
from musgd_cli.remote.ssh import GRACE_S, Connection, require_destination
from musgd_cli.storage import require_writable, write_record


@dataclass(frozen=True)
class Request:
    """What is to be measured on each board, and how."""

    subjects: Sequence[Subject]
    plan_for: Callable[[Host], Plan]
    """Settles how a board measures."""
    require: Callable[[Host, Sequence[int] | None], object] = lambda _host, _threads: None
    """Called with a board before anything is copied there; what it raises ends the board's part.

    The second is the thread counts it measures at, where it takes no other.
    """
    options: tuple[str, ...] = ()
    """More words of ``musgd bench``, understood there as they are here."""
    decided: frozenset[str] = frozenset()
    """Settings that they decide, which the plan's values are not to contradict."""
    data: str | None = None
    """Data set; without one, the set that each model's run was trained on, if it is here."""


Found = Iterator[tuple[Subject, BenchReport | MusgdError]]


class Measure(Protocol):
    """Measures on one board that is connected to, in its own way."""

    def __call__(self, connection: Connection, request: Request, tell: Tell, /) -> Found:
        """Yield what came of each model; a model may have several reports, or none and an error."""
        ...


@dataclass
class _Board:
    """One board, and what came of it so far."""

    name: str
    measure: Measure
    connection: Connection
    outcomes: list[Outcome] = field(default_factory=list)
    unforeseen: BaseException | None = None


_Event = Callable[[], None]


def measure_on(
    boards: Sequence[tuple[str, Measure]], request: Request, tell: Tell
) -> Generator[Outcome, None, None]:
    """Measure on several boards at once; what ails one does not keep the others from it.

    A report is kept here as soon as its board has sent it, below the model's run, with the paths
    of this machine in it: of the model, and of the data that was copied.

    Args:
        boards: How each is reached, and how it measures.
        request: What.
        tell: Is told what goes on, from this thread.

    Yields:
        The outcomes board by board, in their order, once all have ended. ``threads`` is 0 where an
        error is of no single thread count.

    Raises:
        UsageError: A board is not written as ssh wants it.
        MusgdError: Reports cannot be written where they belong.
        Exception: What nobody foresaw, on one of the boards; once all outcomes are yielded.
    """
    for name, _ in boards:
        require_destination(name)
    if request.data is not None:
        load(request.data)
    for subject in request.subjects:
        require_writable(report_file(subject, 0, datetime.now()).parent)
    events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
    parts = [_Board(name, measure, Connection(name)) for name, measure in boards]
    threads = [
        threading.Thread(target=_work, args=(part, request, tell, events.put), daemon=True)
        for part in parts
    ]
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            event = events.get()
            if event is None:
                left -= 1
            else:
                event()
    finally:
        for part in parts:
            part.connection.abandon()
        _join(threads, GRACE_S)
        for part in parts:
            part.connection.cut()
        _join(threads, GRACE_S)
    for part in parts:
        yield from part.outcomes
    for part in parts:
        if part.unforeseen is not None:
            raise part.unforeseen


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    until = time.monotonic() + seconds
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, until - time.monotonic()))


def _work(
    board: _Board, request: Request, tell: Tell, put: Callable[[_Event | None], None]
) -> None:
    """Do one board's part, in a thread of its own; all that it says goes through ``put``."""

    def pass_on(name: str, what: str, *, warns: bool = False, mend: str | None = None) -> None:
        put(lambda: tell(name, what, warns=warns, mend=mend))

    try:
        with board.connection as connection:
            for subject, found in board.measure(connection, request, pass_on):
                put(_noting(board, subject, found, tell))
    except MusgdError as error:
        put(_failing(board, request, error))
    except OSError as error:
        file = error.filename or "what it is to measure"
        what = f"{board.name}: cannot send {file}: {error.strerror or error}"
        put(_failing(board, request, MusgdError(what, "check the file and its permissions")))
    except Exception as error:
        board.unforeseen = error
    finally:
        put(None)


def _noting(board: _Board, subject: Subject, found: BenchReport | MusgdError, tell: Tell) -> _Event:
    def note() -> None:
        if isinstance(found, MusgdError):
            board.outcomes.append(Outcome(subject, 0, error=found, board=board.name))
            return
        # In the main thread: two boards that end in one second must not choose one name.
        report = found.model_copy(update={"artifact": str(subject.path), "reached_as": board.name})
        file = report_file(subject, report.threads, datetime.now())
        outcome = Outcome(subject, report.threads, report=report, board=board.name)
        try:
            write_record(file, report)
        except MusgdError as error:  # a disk that is full here ends no board's work
            board.outcomes.append(replace(outcome, error=error))
        else:
            board.outcomes.append(replace(outcome, kept=file))
            tell(board.name, f"kept {file}")

    return note


def _failing(board: _Board, request: Request, error: MusgdError) -> _Event:
    """Note an error of the whole board: with each model that it kept from being measured."""

    def note() -> None:
        done = {outcome.subject.path for outcome in board.outcomes}
        missing = [subject for subject in request.subjects if subject.path not in done]
        for subject in missing:
            board.outcomes.append(Outcome(subject, 0, error=error, board=board.name))
        if not missing:
            board.outcomes[-1] = replace(board.outcomes[-1], error=error)

    return note
