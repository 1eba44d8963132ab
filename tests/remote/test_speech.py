"""Lines of a board's stderr are sorted into narration, warnings and failures."""

from __future__ import annotations

import subprocess

from musgd_cli.errors import ExitCode, UnsupportedError, UsageError
from musgd_cli.remote.speech import Ear, Speech


def heard(*lines: str, code: int) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    told: list[tuple[object, ...]] = []

    def tell(board: str, what: str, /, *, warns: bool = False, mend: str | None = None) -> None:
        told.append((what, warns, mend))

    speech = Speech("pi", tell)
    for line in lines:
        speech(line)
    return told, [(type(e), e.what, e.mend, e.exit_code) for e in speech.failures(code)]


def test_narration_is_passed_on_but_for_where_reports_are_kept_there() -> None:
    assert heard("measuring a: b", "", "kept runs/a/bench/b.json", code=0) == (
        [("measuring a: b", False, None)],
        [],
    )


def test_a_warning_may_have_a_mend() -> None:
    told, _ = heard("warning: hot", "mend: a fan", "warning: emulated", "on", "warning: x", code=0)
    assert told == [
        ("hot", True, "a fan"),
        ("emulated", True, None),
        ("on", False, None),
        ("x", True, None),
    ]


def test_failures_are_of_the_kind_that_the_exit_code_tells() -> None:
    lines = ("error: a", "mend: b", "error: c", "mend: d")
    for code, kind in ((0, UnsupportedError), (2, UsageError), (3, UnsupportedError)):
        _, failures = heard(*lines, code=code)
        assert [one[:3] for one in failures] == [(kind, "pi: a", "b"), (kind, "pi: c", "d")]
    _, failures = heard(*lines, code=1)
    assert [one[3] for one in failures] == [ExitCode.FAILED, ExitCode.FAILED]


def test_an_end_without_a_word_is_a_failure_too() -> None:
    assert heard(code=0) == ([], [])
    _, ((_, what, mend, code),) = heard("Traceback", "Segmentation fault", code=139)
    assert what == "pi: it ended with exit code 139: Segmentation fault"
    assert (mend, code) == ("run the same command on the board to see all it says", 1)


def test_of_endless_words_the_first_and_the_last_are_kept() -> None:
    says = "exec >&2; echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last"
    with subprocess.Popen(["sh", "-c", says], stderr=subprocess.PIPE) as process:
        ear = Ear(process)
        process.wait()
        heard = ear.heard()
    assert heard.startswith("first\nx")
    assert heard.endswith("x\nlast\n")
    assert len(heard) == 2**16
