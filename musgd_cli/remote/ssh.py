"""One board over the system's ssh, with the user's own keys, config and known hosts.

Nothing that guards a connection is turned off: a host key is checked as the user's ssh checks it,
and where ssh would ask for a word it fails instead (``BatchMode``), for several boards cannot ask
at once and a build at night has nobody to answer.

A board is connected to once; what follows shares that connection (``ControlMaster``). The variable
``MUSGD_SSH`` holds the ssh to call in place of ``ssh``, with options: ``MUSGD_SSH="ssh -F file"``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.remote.answers import printable
from musgd_cli.remote.speech import Ear

PROGRAM = "MUSGD_SSH"
"""The variable with the ssh to call."""

_OPTIONS = (
    *("-T", "-x", "-a"),
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=15"),
    # A board that computes on every core answers late; one that is gone is noticed in a minute.
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=4"),
    # What a config may want for a person's session, and would be in the way of ours.
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "RemoteCommand=none"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "LogLevel=ERROR"),
)

_BEGIN = "--- musgd begins ---"
"""Before it stands what the board's shell prints of itself."""

_FAILED = 255
"""What ssh ends with when it fails; every other exit code is the command's."""

_LOST = frozenset({_FAILED, -signal.SIGTERM, -signal.SIGKILL})
"""Exit codes of a connection that failed or was ended here."""

GRACE_S = 10.0
"""What a board has to end its work in before the line is cut."""

GREETING_S = 60.0
"""What a board has to let us in and start a shell in; one that computes on every core is slow."""

MOST_BYTES = 2**26
"""Of what a command prints; reports of hours are smaller."""

MOST_LINES = 10_000
"""Of what a command says on stderr."""

_LINE = 2**12
"""Bytes of one line; what is longer is taken as several."""

_CHUNK = 2**16
"""Bytes that are read at once."""

_HOLD = f"echo '{_BEGIN}'; echo \"$HOME\"; exec cat >/dev/null"
"""Keeps the connection open for as long as our end of its stdin."""

# The work ends with the line: stdin ends when this end closes it, dies, or is cut off. Background
# jobs of sh ignore SIGINT, so it is SIGTERM that asks musgd to end. Only one that was told to end
# clears the folder: a lost line must not take along what was measured.
_WORK = f"""
exec 3<&0 </dev/null
echo '{_BEGIN}'
cd "$1" || exit
clear=$2
shift 2
"$@" 3<&- &
work=$!
{{
    while read -r word; do
        [ "$word" != end ] || [ -z "$clear" ] || : >"$clear/.end"
    done
    kill -TERM "$work"
    sleep 20
    kill -KILL "$work"
}} <&3 >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$work"
code=$?
exec 2>/dev/null
kill "$watch"
[ ! -e "$clear/.end" ] || rm -rf "$clear"
exit "$code"
"""


@dataclass(frozen=True)
class Finished:
    """What came of a command on a board."""

    code: int
    out: str
    """Its stdout, without what the login shell printed before it."""


def require_destination(text: str) -> None:
    """See that a board is written as ssh wants it.

    Args:
        text: ``host``, ``user@host``, a ``Host`` of the ssh config or ``ssh://user@host:port``.

    Raises:
        UsageError: It is none of these.
    """
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise UsageError(f"{text!r} is no host", "give user@board, or a Host of ~/.ssh/config")
    name, colon, port = text.rpartition(":")
    if colon and ":" not in name and port.isdecimal():
        raise UsageError(
            f"{text} is no host to ssh", f"write a port as ssh does: ssh://{name}:{port}"
        )


class Connection:
    """A board that is connected to, from entering the context until leaving it.

    One thread works with it; `abandon` and `cut` may be called from another.

    Args:
        destination: As typed; see `require_destination`.
    """

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.home = ""
        """The home folder there."""
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._ear: Ear | None = None
        self._working: dict[subprocess.Popen[bytes], bool] = {}
        """Those at work on the board; true where a thread of ours writes to them."""
        self._abandoned = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            UnsupportedError: There is no ssh here.
            MusgdError: The board cannot be reached, is not the one that is known, or refuses.
        """
        # Not TMPDIR, which may be deep: the path of a socket has 104 characters at most.
        self._folder = Path(tempfile.mkdtemp(prefix="musgd-", dir="/tmp"))
        try:
            with self._lock:
                if self._abandoned:
                    raise self._broke("interrupted")
                self._master = self._start(
                    ["sh", "-c", _HOLD],
                    options=("-o", "ControlMaster=yes", "-o", "ControlPersist=no"),
                )
            self._ear = Ear(self._master)
            self.home = self._greeting(self._master)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(
        self,
        command: Sequence[str],
        *,
        folder: str = ".",
        clear: str = "",
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> Finished:
        """Run a command on the board; it ends when this process or the connection does.

        Args:
            command: Words, none of them read by a shell.
            folder: Where; relative to the home folder.
            clear: A folder to remove when the command has ended, an absolute path; ``""``: none.
                It stays for a day where the connection breaks: it holds what was measured.
            on_line: Called with each line of its stderr as it comes.

        Raises:
            MusgdError: The connection broke, or the command prints without end.
        """
        out: list[bytes] = []
        last, n_lines = "", 0
        with self._at_work(["sh", "-c", _WORK, "musgd", folder, clear, *command]) as worker:
            stdout, stderr = worker.stdout, worker.stderr
            assert stdout is not None
            assert stderr is not None

            def read() -> None:
                for chunk in iter(lambda: stdout.read(_CHUNK), b""):
                    out.append(chunk)
                    if len(out) * _CHUNK > MOST_BYTES:
                        _signal(worker, signal.SIGTERM)
                        return

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            for line in iter(lambda: stderr.readline(_LINE), b""):
                last = printable(line.decode("utf-8", "replace")).rstrip()
                on_line(last)
                n_lines += 1
                if n_lines > MOST_LINES:
                    _signal(worker, signal.SIGTERM)
                    break
            reader.join()
            code = worker.wait()
        if n_lines > MOST_LINES or len(out) * _CHUNK > MOST_BYTES:
            raise MusgdError(
                f"{self.destination}: {printable(command[0])} there prints without end",
                f"see what it prints: {self._typed()}",
            )
        if code in _LOST:
            raise self._broke(last, clear)
        if clear:
            with contextlib.suppress(MusgdError):  # what it printed is here, and counts
                self.run(["rm", "-rf", clear])
        _, _, text = b"".join(out).decode("utf-8", "replace").partition(f"{_BEGIN}\n")
        return Finished(code, text)

    def send(self, script: str, *arguments: str, write: Callable[[IO[bytes]], None]) -> None:
        """Run a shell script on the board that reads what ``write`` writes.

        Args:
            script: For ``sh``; ends with 0 only where all of it worked.
            arguments: Its ``$1`` and on.
            write: Is given its stdin.

        Raises:
            MusgdError: The script failed, or the connection broke.
        """
        with self._at_work(["sh", "-c", script, "musgd", *arguments], writes=True) as sender:
            ear = Ear(sender)
            assert sender.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the exit code says why
                write(sender.stdin)
                sender.stdin.close()
            code = sender.wait()
            said = printable(ear.heard()).strip().splitlines() or [""]
        if code in _LOST:
            raise self._broke(said[-1])
        if code:
            # Of several lines the first names the cause: tar goes on to complain of the rest.
            raise MusgdError(
                f"{self.destination}: cannot write there: {said[0] or f'exit code {code}'}",
                f"look for room and permissions: {self._typed()} df -h .cache",
            )

    def abandon(self) -> None:
        """Ask what is at work on the board to end, and start nothing more. From any thread."""
        with self._lock:
            self._abandoned = True
            working = dict(self._working)
            connecting = self._master if not self.home else None
        for process, writes in working.items():
            _hang_up(process, writes=writes)
        if connecting is not None:
            _signal(connecting, signal.SIGTERM)

    def cut(self) -> None:
        """End all that is left of an abandoned connection at this end."""
        with self._lock:
            left = [*self._working, *([self._master] if self._master else [])]
        for process in left:
            _signal(process, signal.SIGKILL)

    # ------------------------------------------------------------------------------- processes

    def _start(
        self, command: Sequence[str], *, options: Sequence[str] = ("-o", "ControlMaster=no")
    ) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        program = _program()
        try:
            return subprocess.Popen(
                [
                    *program,
                    *_OPTIONS,
                    *options,
                    *("-o", f"ControlPath={self._folder / 'line'}"),
                    "--",
                    self.destination,
                    _line(command),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        except OSError as error:
            mend = f"check {program[0]} and its permissions"
            if os.environ.get(PROGRAM):
                mend = f"check the variable {PROGRAM}"
            elif isinstance(error, FileNotFoundError):
                mend = "apt install openssh-client"
            raise UnsupportedError(f"cannot call {program[0]}: {error.strerror}", mend) from error

    def _greeting(self, master: subprocess.Popen[bytes]) -> str:
        """Wait until the board's shell has begun, and return the home folder there."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _signal(master, signal.SIGTERM)

        timer = threading.Timer(GREETING_S, give_up)
        timer.daemon = True
        timer.start()
        begun, home = False, ""
        try:
            stdout = master.stdout
            assert stdout is not None
            lines = iter(lambda: stdout.readline(_LINE), b"")
            # What a shell prints of itself, as a title, may lack the end of its line.
            begun = any(line.rstrip().endswith(_BEGIN.encode()) for line in lines)
            if begun:
                home = os.fsdecode(next(lines, b"").rstrip(b"\n"))
            if home:
                return home
            _hang_up(master)
            code = master.wait()
        finally:
            timer.cancel()
        if late.is_set():
            raise MusgdError(
                f"{self.destination}: its shell has not begun within {GREETING_S:g} s",
                f"see what it waits for, perhaps in its .bashrc: {self._typed()} true",
            )
        if begun:
            raise MusgdError(
                f"{self.destination}: its HOME is empty",
                f"give the user there a home folder: {self._typed()} getent passwd",
            )
        raise self._refused(code)

    @contextlib.contextmanager
    def _at_work(
        self, command: Sequence[str], *, writes: bool = False
    ) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            if self._abandoned:
                raise self._broke("interrupted")
            process = self._start(command)
            self._working[process] = writes
        try:
            yield process
        finally:
            _hang_up(process, writes=process.poll() is None and writes)
            _wait_or_kill(process)
            with self._lock:
                del self._working[process]

    def _close(self) -> None:
        if self._master is not None:
            _hang_up(self._master)
            _wait_or_kill(self._master)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # ----------------------------------------------------------------------------------- words

    def _said(self) -> str:
        """Return what the connection's own ssh said."""
        return "" if self._ear is None else printable(self._ear.heard()).strip()

    def _typed(self) -> str:
        """Return how a person connects, for a mend."""
        return shlex.join([*_program(), self.destination])

    def _broke(self, last: str, left: str = "") -> MusgdError:
        said = (self._said() or last).splitlines()
        mend = "see that the board has power and network, then run the command again"
        if left:
            mend += f"; what it had measured stays there for a day, in {printable(left)}"
        return MusgdError(
            f"{self.destination}: the connection broke{f': {said[-1].strip()}' if said else ''}",
            mend,
        )

    def _refused(self, code: int) -> MusgdError:
        typed, said = self._typed(), self._said()
        lines = said.splitlines()
        if code != _FAILED:  # we were let in, and what was said is the board's
            return MusgdError(
                f"{self.destination}: its shell ended with exit code {code}"
                + (f": {lines[-1].strip()}" if lines else ""),
                f"see what it does, perhaps in its .bashrc: {typed} true",
            )
        for pattern, what, mend in _REFUSALS:
            if re.search(pattern, said):
                return MusgdError(f"{self.destination}: {what}", mend(typed, said))
        lines = lines or ["it did not answer"]
        return MusgdError(
            f"{self.destination}: {lines[-1].removeprefix('ssh: ').strip()}",
            f"see that it is on and in this network: {typed}",
        )


def _program() -> list[str]:
    """Return the ssh to call.

    Raises:
        UsageError: The variable cannot be read.
    """
    try:
        return shlex.split(os.environ.get(PROGRAM) or "") or ["ssh"]
    except ValueError as error:
        raise UsageError(
            f"{PROGRAM} cannot be read: {error}", "write it as for a shell: ssh -F file"
        ) from error


def _line(command: Sequence[str]) -> str:
    """Return words as a line that every login shell hands on alike, to an sh.

    ssh gives the line to whichever shell that is. What stands in single quotes is left alone by
    all of them, but that csh takes no end of a line there, nor a ``!``, and fish no ``\\\\``.
    """
    text = f"exec {shlex.join(command)}"
    for letter in "\\\n!":  # the backslash first
        text = text.replace(letter, f"\\0{ord(letter):03o}")
    return f"""sh -c 'eval "$(printf %b "$1")"' musgd {shlex.quote(text)}"""


def _let_in(typed: str, _: str) -> str:
    """Return how a key of ours comes to the board, or to our ssh."""
    *program, destination = shlex.split(typed)
    copies = ["ssh-copy-id"]
    if Path(program[0]).name == "ssh":
        copies = [f"{program[0]}-copy-id", *program[1:]]
    if url := re.fullmatch(r"ssh://(.+?)(?::(\d+))?/?", destination):  # which it does not read
        copies += ["-p", url[2]] if url[2] else []
        destination = url[1]
    return f"{shlex.join([*copies, destination])}, once; or ssh-add, if your key has a passphrase"


def _forget(typed: str, said: str) -> str:
    command = "ssh-keygen -R with the host's name"
    for line in said.splitlines():
        with contextlib.suppress(ValueError):  # a quote that does not end
            match shlex.split(line):
                case ["ssh-keygen", "-f", _, "-R", _] as words:
                    command = shlex.join(words)  # quoted anew: a board can say such words too
    return f"if it was set up anew: {command}, then {typed}; if you know of no reason, do not"


_REFUSALS: tuple[tuple[str, str, Callable[[str, str], str]], ...] = (
    (
        "IDENTIFICATION HAS CHANGED|DIFFERENT HOST KEY|host key .* has changed",
        "its host key is another than the one that is known: it was set up anew, or is not it",
        _forget,
    ),
    (
        "Host key verification failed|No .* host key is known",
        "its host key is not known here",
        lambda typed, _: f"connect once and compare the key it shows: {typed}",
    ),
    (
        "Permission denied|Too many authentication failures",
        "it does not let us in by key, and nobody is asked for a password",
        _let_in,
    ),
    (
        "Could not resolve hostname",
        "there is no host of this name",
        lambda typed, _: f"check the name, or give the board's address; try {typed}",
    ),
)
"""What ssh says when it does not connect, in our words, with how that is mended."""


def _hang_up(process: subprocess.Popen[bytes], *, writes: bool = False) -> None:
    """Let a process know that nothing more comes: what works on the board ends by it."""
    if writes:  # its stdin is in use by the thread that writes
        _signal(process, signal.SIGTERM)
    elif process.stdin is not None:
        # It may have ended, or another thread of ours have hung up.
        with contextlib.suppress(BrokenPipeError, ValueError):
            process.stdin.write(b"end\n")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and what it started: an ssh, where `PROGRAM` names a script."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
