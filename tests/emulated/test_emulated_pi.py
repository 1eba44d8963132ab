"""The emulated Raspberry Pi 4B, where this machine can play one, and the tools of its script."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musgd_cli.errors import ExitCode

SCRIPT = "tests/emulated/run.sh"
BOX = {"name": "red", "class_id": 0, "score": 0.8, "x1": 10.0, "y1": 10.0, "x2": 60.0, "y2": 50.0}


def run_script(
    repository: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [repository / SCRIPT, *arguments],
        env={**os.environ, "MUSGD_PYTHON": sys.executable, **environ},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_musgd_on_an_emulated_pi4b(release: str, repository: Path) -> None:
    # Not below the tests' empty home: what was fetched once is not fetched again.
    home = pwd.getpwuid(os.getuid()).pw_dir
    done = run_script(repository, "--release", release, "--cache", f"{home}/.cache/musgd/emulated")
    if done.returncode == ExitCode.UNSUPPORTED:
        pytest.skip(done.stderr.strip())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_machine_without_qemu_is_told_what_to_install(repository: Path, tmp_path: Path) -> None:
    for name in ("bash", "dirname", "realpath", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    # Who is not root hears of that first.
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "id").chmod(0o755)
    done = run_script(repository, "--cache", str(tmp_path / "cache"), PATH=str(tmp_path))
    assert done.returncode == ExitCode.UNSUPPORTED
    error, mend = done.stderr.splitlines()
    assert error == "error: qemu-user-static is missing"
    assert mend == "mend: sudo apt-get install qemu-user-static mmdebstrap util-linux"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trian"], "no such option: --trian"),
        (["--cache"], "--cache needs a value"),
        (["--release", "sid"], "no such release: sid"),
        (["--wheelhouse", "/no/such"], "there is no /no/such"),
        (["--model", "/no/such.pt"], "there is no /no/such.pt"),
    ],
)
def test_wrong_options_are_usage_errors(repository: Path, arguments: list[str], said: str) -> None:
    done = run_script(repository, *arguments)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(f"error: {said}\nmend: ")


def test_help_is_the_head_of_the_script(repository: Path) -> None:
    done = run_script(repository, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("A Raspberry Pi 4B in emulation")
    assert "--wheelhouse DIR" in done.stdout
    assert "#" not in done.stdout


def test_the_script_is_clean(repository: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; the dev extra brings it")
    done = subprocess.run([shellcheck, repository / SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------------------------ same.py


def compare(
    repository: Path, folder: Path, here: list[Any], there: list[Any]
) -> subprocess.CompletedProcess[str]:
    for name, boxes in (("here.json", here), ("there.json", there)):
        line = json.dumps({"source": "photos/a.jpg", "boxes": boxes})
        (folder / name).write_text(f"{line}\n")
    return subprocess.run(
        [sys.executable, repository / "tests/emulated/same.py", "here.json", "there.json"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_last_digits_may_differ(repository: Path, tmp_path: Path) -> None:
    near = {**BOX, "score": 0.805, "x2": 60.2}
    # Of two objects of one class each is held against its own; order does not count.
    other = {**BOX, "x1": 100.0, "x2": 150.0}
    # On the threshold one of the machines may see an object, and the other not.
    faint = {**BOX, "class_id": 2, "score": 0.252}
    done = compare(repository, tmp_path, [BOX, other, faint], [other, near])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 objects in 1 images; scores differ by at most 0.0050, boxes ")


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ([BOX], [], "found here alone"),
        ([], [BOX], "found there alone"),
        ([BOX], [{**BOX, "class_id": 1}], "found here alone"),
        ([BOX], [{**BOX, "x1": 14.0}], "found here alone"),
        ([BOX], [BOX, BOX], "found there alone"),
        ([BOX], [{**BOX, "score": 0.75}], "scores differ by 0.05"),
        ([], [], "nothing is found"),
    ],
)
def test_what_differs_is_told(
    repository: Path, tmp_path: Path, here: list[Any], there: list[Any], said: str
) -> None:
    done = compare(repository, tmp_path, here, there)
    assert done.returncode == 1
    assert said in done.stderr
