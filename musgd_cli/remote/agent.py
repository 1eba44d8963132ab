"""A board that cannot run musgd: one file of ours measures there with TensorRT's ``trtexec``.

That is a Jetson Nano, whose JetPack 4.6 ends at Python 3.6; see `musgd_cli.board.nano_agent`. The
engine that it builds stays there, for the next time; none is sent, for it is machine code, and one
that came with a model could be anybody's.
"""

from __future__ import annotations

import re
from pathlib import Path

from musgd_cli.board import NANO_AGENT
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError
from musgd_cli.records import BenchReports, Host, Plan
from musgd_cli.remote.answers import blame, read_answer
from musgd_cli.remote.parcels import Parcel, Shelf, in_words, of_model
from musgd_cli.remote.session import Found, Request
from musgd_cli.remote.speech import Speech, Tell
from musgd_cli.remote.ssh import Connection
from musgd_cli.report.wording import count

_LENGTHS = {
    "bench.duration_s": "--duration",
    "bench.repeats": "--repeats",
    "bench.warmup_s": "--warmup",
    "bench.idle_s": "--idle",
}
"""Settings that the agent takes, and as what."""

_ONNX = re.compile(r".+\.onnx([._]data)?")
"""Names of a model, and of its data: all that is sent."""

_THREADS = (1,)
"""What its reports say: a GPU is timed."""


def measure(connection: Connection, request: Request, tell: Tell) -> Found:
    """Have the agent measure models on a board. See `musgd_cli.remote.session.Measure`.

    It takes those built for TensorRT and for that board; the others are left out.

    Raises:
        MusgdError: The board has no Python, its disk cannot be written, or the connection broke.
        UnsupportedError: None of the models is for it.
        UsageError: A setting is wrong.
    """
    board = connection.destination
    if connection.run(["sh", "-c", "command -v python3"]).code:
        raise MusgdError(f"{board}: there is no python3", "on the board: sudo apt install python3")
    shelf = Shelf(connection)
    script = Path(NANO_AGENT)
    agent = Parcel("agent", {script.name: script})
    for parcel in shelf.lacking([agent]):
        shelf.send(parcel)
    program = ["python3", f"{shelf.place(agent)}/{script.name}"]
    host = _host(connection, program)
    with blame(board):
        request.require(host, _THREADS)
        options = _options(request.plan_for(host))
    fitting = [
        subject
        for subject in request.subjects
        if subject.artifact.runtime == "tensorrt"
        and host.board in (subject.artifact.target, *subject.artifact.boards)
    ]
    if not fitting:
        raise UnsupportedError(
            f"{board}: none of the models is built for TensorRT on a {host.board}",
            f"musgd export RUN --target {host.board}",
        )
    if left_out := len(request.subjects) - len(fitting):
        tell(board, f"left out: {count(left_out, 'model')} not for TensorRT on a {host.board}")
    sound = [one for one in fitting if all(map(_ONNX.fullmatch, one.artifact.files))]
    for subject in fitting:
        if subject not in sound:
            files = ", ".join(subject.artifact.files)
            what = f"{board}: {subject.path} holds more than an ONNX and its data: {files}"
            yield subject, MusgdError(what, f"musgd export RUN --target {host.board}")
    models = [of_model(subject) for subject in sound]
    if lacking := shelf.lacking(models):
        tell(board, f"copying {in_words(lacking)}: {count(len(lacking), 'model')}")
        for parcel in lacking:
            shelf.send(parcel)
    for subject, model in zip(sound, models, strict=True):
        tell(board, f"measuring {subject.path}")
        folder = shelf.lay_out({}, {})
        speech = Speech(board, tell)
        finished = connection.run(
            [*program, "bench", shelf.place(model), *options, "--json", "--out", "report.json"],
            folder=folder,
            clear=folder,
            on_line=speech,
        )
        if finished.code == ExitCode.DONE:
            for report in read_answer(board, finished.out, BenchReports).reports:
                yield subject, report
        for failure in speech.failures(finished.code):
            yield subject, failure


def _host(connection: Connection, program: list[str]) -> Host:
    speech = Speech(connection.destination, lambda *_, **__: None)
    answer = connection.run([*program, "doctor"], on_line=speech)
    if answer.code != ExitCode.DONE:
        raise speech.failures(answer.code)[0]
    return read_answer(connection.destination, answer.out, Host)


def _options(plan: Plan) -> list[str]:
    return [
        word for key, option in _LENGTHS.items() for word in (option, str(plan.settings[key].value))
    ]
