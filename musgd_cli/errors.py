"""What can go wrong, in the user's words, and the exit code it ends with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended. Scripts rely on these numbers."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNSUPPORTED = 3
    """This machine cannot do it: a board, a runtime or an extra is missing."""
    CHECK_FAILED = 4
    """The work was done and its result failed a check or a threshold."""
    INTERRUPTED = 130


class MusgdError(Exception):
    """A failure we foresaw: what happened, and what to type to mend it.

    Args:
        what: What happened, with the value that caused it. One sentence, no full stop.
        mend: What the user does next, best a command. One sentence, no full stop.
        exit_code: How the process ends.
    """

    def __init__(self, what: str, mend: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[MusgdError], tuple[str, str, ExitCode]]:
        # BaseException pickles only ``args``; these cross process borders whole.
        return type(self), (self.what, self.mend, self.exit_code)


class UsageError(MusgdError):
    """The command line, a file or a name it points at is wrong (exit code 2)."""

    def __init__(self, what: str, mend: str, exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(what, mend, exit_code)


class UnsupportedError(MusgdError):
    """This machine cannot do what was asked (exit code 3)."""

    def __init__(self, what: str, mend: str, exit_code: ExitCode = ExitCode.UNSUPPORTED) -> None:
        super().__init__(what, mend, exit_code)


class CheckFailedError(MusgdError):
    """The work was done and its result failed a check (exit code 4)."""

    def __init__(self, what: str, mend: str, exit_code: ExitCode = ExitCode.CHECK_FAILED) -> None:
        super().__init__(what, mend, exit_code)
