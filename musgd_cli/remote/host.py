"""A board that has musgd: its own ``musgd bench`` measures there."""

from __future__ import annotations

import shlex

from musgd_cli import profiles
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError
from musgd_cli.installation import ENGINE_EXTRAS
from musgd_cli.records import Artifact, BenchReports, DoctorReport, Host
from musgd_cli.remote.answers import ONE_VERSION, blame, read_answer
from musgd_cli.remote.layout import Layout
from musgd_cli.remote.parcels import Shelf
from musgd_cli.remote.session import Found, Request
from musgd_cli.remote.speech import Speech, Tell
from musgd_cli.remote.ssh import Connection
from musgd_cli.report.wording import count

# Where install.sh puts it is in a person's PATH, and often not in that of a command over ssh.
_FIND = 'command -v musgd || command -v "$HOME/.local/bin/musgd"'

_AGENT = "on a Jetson with JetPack 4.6"
"""Stands in the help of the agent, which install.sh puts on a Nano under the same name."""


def measure(connection: Connection, request: Request, tell: Tell) -> Found:
    """Have a board's musgd measure models. See `musgd_cli.remote.session.Measure`.

    Only models whose runtime the board has are copied there, and what scores them: the split that
    is scored, of the data set given or of each run's own where that is here.

    Raises:
        MusgdError: The board has no musgd, the Nano's agent, or one of another major schema; its
            disk cannot be written; or the connection broke.
        UsageError: A setting or the data set is wrong.
    """
    board = connection.destination
    musgd = next(iter(connection.run(["sh", "-c", _FIND]).out.splitlines()), "")
    if not musgd:
        raise MusgdError(
            f"{board}: there is no musgd, neither in its PATH nor as ~/.local/bin/musgd",
            "run install.sh there; for a board that cannot: musgd bench --agent "
            f"{shlex.quote(board)}",
        )
    try:
        host = _host(connection, musgd)
    except MusgdError:
        if _AGENT not in connection.run([musgd, "--help"]).out:
            raise
        raise MusgdError(
            f"{board}: its musgd is the agent for a Jetson Nano, and --host is for a whole one",
            f"musgd bench --agent {shlex.quote(board)}",
        ) from None
    words = [musgd, "bench", "--json", *request.options, *_settings(board, request, host)]

    def runs_there(artifact: Artifact) -> bool:
        return artifact.runtime == "null" or bool(host.runtimes.get(artifact.runtime))

    usable = [subject for subject in request.subjects if runs_there(subject.artifact)]
    lacking = [subject for subject in request.subjects if subject not in usable]
    if usable:  # of a run that was exported for several boards the others' models are no failure
        elsewhere = [
            one for one in lacking if host.board not in (one.artifact.boards or (host.board,))
        ]
        if elsewhere:
            tell(board, f"left out: {count(len(elsewhere), 'model')} for other boards")
        lacking = [one for one in lacking if one not in elsewhere]
    for subject in lacking:
        runtime = subject.artifact.runtime
        what = f"{board}: {runtime} is not installed there"
        extra = ENGINE_EXTRAS.get(runtime, runtime)
        mend = f"there, where musgd came from: ./install.sh --extras {extra}"
        yield subject, UnsupportedError(what, mend)
    if usable:
        layout = Layout(usable, request.data, runs_there)
        yield from _bench(connection, words, layout, tell)


def _host(connection: Connection, musgd: str) -> Host:
    """Ask the board what it is."""
    speech = Speech(connection.destination, lambda *_, **__: None)
    answer = connection.run([musgd, "doctor", "--json"], on_line=speech)
    if not answer.out.strip():
        raise speech.failures(answer.code or ExitCode.FAILED)[0]
    return read_answer(connection.destination, answer.out, DoctorReport).host


def _settings(board: str, request: Request, host: Host) -> list[str]:
    """Return the settings that are not of the board's own profile, for its command line."""
    with blame(board):
        request.require(host, None)
        settled = request.plan_for(host).settings
        own = f"profile {profiles.match(host).name}"
    words = []
    for key, setting in settled.items():
        if key.startswith("bench.") and setting.source != own and key not in request.decided:
            words += ["--set", f"{key}={setting.value}"]
    return words


def _bench(connection: Connection, words: list[str], layout: Layout, tell: Tell) -> Found:
    board = connection.destination
    shelf = Shelf(connection)
    folder = layout.send(shelf, tell)
    sets = layout.sets_there(shelf)
    given = layout.given_there(shelf)
    speech = Speech(board, tell)
    finished = connection.run(
        [*words, *(["--data", given] if given else []), "--", *layout.subjects],
        folder=folder,
        clear=folder,
        on_line=speech,
    )
    left = dict(layout.subjects)
    if finished.out.strip():
        for report in read_answer(board, finished.out, BenchReports).reports:
            subject = layout.subjects.get(report.artifact)
            if subject is None:
                what = f"{board}: its musgd measured {report.artifact}, which nobody asked for"
                raise MusgdError(what, ONE_VERSION)
            left.pop(report.artifact, None)
            data = sets.get(report.data or "", report.data)
            yield subject, report.model_copy(update={"data": data and str(data)})
    failures = speech.failures(finished.code)
    # It does not say which is of which model; those without a report have them all between them.
    for i, subject in enumerate(left.values()):
        silent = MusgdError(f"{board}: it sent no report of {subject.path}", ONE_VERSION)
        yield subject, failures[min(i, len(failures) - 1)] if failures else silent
    for failure in failures[len(left) :]:
        yield next(iter(layout.subjects.values())), failure
