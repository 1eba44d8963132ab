"""install.sh demo and test on machines that lack things: what is said, done again, and left."""

from __future__ import annotations

import http.server
import os
import platform
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_machine import PYTHON, Machine, make

from musgd_cli.hardware import boards


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Machine:
    return make(tmp_path, repository)


WORK = "train,quantize,prune,onnx,openvino,ncnn,litert,report,tune"


def test_demo_installs_what_it_needs_once_and_runs(machine: Machine) -> None:
    code, out, err = machine.install("demo", "--name", "a b")
    assert code == 0, err
    assert out == "musgd speaks\n"
    assert [line[:5] for line in err] == ["[1/3]", "[2/3]", "[3/3]"]
    asked, torch, work, gone, headless, demo = machine.notes()
    assert asked == "asked https://download.pytorch.org/whl/cpu"
    assert torch.startswith("pip install --progress-bar off torch>=")
    assert "torchvision>=" in torch
    assert work == f"pip install --progress-bar off --editable {machine.checkout}[{WORK}]"
    assert gone == "pip uninstall --yes opencv-python"
    assert headless.endswith("--force-reinstall --no-deps opencv-python-headless==4.9.0.80")
    assert demo == "musgd demo --name a b"

    code, out, err = machine.install("demo")
    assert (code, out, err) == (0, "musgd speaks\n", [])
    assert machine.notes() == ["musgd demo"]
    assert not (machine.venv / "musgd/tmp").exists()


def test_test_adds_the_tools_and_runs_the_checks_in_order(machine: Machine) -> None:
    machine.install("demo")
    machine.notes()
    code, out, err = machine.install("test", "-k", "optim")
    assert code == 0, err
    assert machine.notes() == [
        f"pip install --progress-bar off --editable {machine.checkout}[dev]",
        "ruff check",
        "ruff format --check",
        "mypy",
        "lint-imports",
        "pytest -k optim",
    ]
    assert out.splitlines()[-1] == "pytest speaks"
    assert err[0].startswith("[4/4]")


def test_the_first_failing_check_ends_the_tests_with_its_code(machine: Machine) -> None:
    code, _, err = machine.install("test", TOOL_FAILS="mypy")
    assert code == 5
    assert err[-1] == "== mypy"
    assert machine.notes()[-1] == "mypy"


def test_a_change_of_the_project_installs_anew_but_keeps_torch(machine: Machine) -> None:
    machine.install("demo")
    machine.notes()
    project = machine.checkout / "pyproject.toml"
    project.write_text(project.read_text().replace('"psutil>=5.9"', '"psutil>=6.0"'))
    assert machine.install("demo")[0] == 0
    assert [line.split()[1] for line in machine.notes()] == [
        "install",
        "uninstall",
        "install",
        "demo",
    ]
    project.write_text(project.read_text() + "\n# a comment, or a setting of ruff\n")
    machine.install("demo")
    assert len(machine.notes()) == 1


@pytest.mark.parametrize("lost", ["musgd", "python"])
def test_what_somebody_removed_of_the_venv_is_made_again(machine: Machine, lost: str) -> None:
    machine.install("demo")
    (machine.venv / "bin" / lost).unlink()
    machine.notes()
    code, out, _ = machine.install("demo")
    # pip is a stand-in and brings no command back, so it is what it was asked for that counts.
    assert any("--editable" in line for line in machine.notes())
    assert lost == "musgd" or (code, out) == (0, "musgd speaks\n")


def test_a_moved_checkout_gets_a_venv_of_its_own(machine: Machine, tmp_path: Path) -> None:
    """The console script's first line and the editable path would point to the old place."""
    machine.install("demo")
    machine.notes()
    machine.checkout.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "moved")
    machine.checkout.symlink_to(tmp_path / "moved")
    assert machine.install("demo")[0] == 0
    assert any(f"{tmp_path / 'moved'}[{WORK}]" in line for line in machine.notes())


def test_a_venv_of_someone_else_is_left_alone(machine: Machine) -> None:
    (machine.venv / "tmp").mkdir(parents=True)
    code, out, err = machine.install("demo")
    assert (code, out) == (2, "")
    assert err[-2] == f"error: {machine.venv} was not made by this script"
    assert list(machine.venv.iterdir()) == [machine.venv / "tmp"]


RETRY = "WARNING: Retrying (Retry(total=%d, read=None)) after connection broken by 'x': /simple/y/"
NO_VERSION = "ERROR: Could not find a version that satisfies the requirement y (from versions: %s)"
NO_MATCH = "ERROR: No matching distribution found for y"


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (
            f"{RETRY % 1}\n{RETRY % 0}\n{NO_VERSION % 'none'}\n{NO_MATCH}",
            "error: pip cannot reach its package index",
        ),
        (f"{RETRY % 4}\n{NO_VERSION % '1.0, 2.0'}\n{NO_MATCH}", f"error: pip failed: {NO_MATCH}"),
        (f"{RETRY % 4}\n{NO_VERSION % 'none'}\n{NO_MATCH}", f"error: pip failed: {NO_MATCH}"),
        (
            "ERROR: Exception:\npip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.",
            "error: pip cannot reach its package index",
        ),
        ("ERROR: [Errno 28] No space left on device", "error: the disk is full"),
        ("  x\n  BrokenError: odd", "error: pip failed: BrokenError: odd"),
    ],
)
def test_pip_fails_in_words_and_the_next_run_goes_on(
    machine: Machine, says: str, error: str
) -> None:
    code, out, err = machine.install("demo", PIP_FAILS="--editable", PIP_SAYS=says)
    assert (code, out) == (1, "")
    assert err[-2] == error
    assert err[-1].startswith("mend: ")
    assert machine.stamps() == {"venv", "torch"}
    machine.notes()
    assert machine.install("demo")[0] == 0
    assert machine.notes()[0].startswith("pip install --progress-bar off --editable")


def test_an_interrupted_swap_of_opencv_is_done_again(machine: Machine) -> None:
    machine.install("demo", PIP_FAILS="headless", PIP_SAYS="ERROR: gone")
    assert "musgd" not in machine.stamps()
    machine.notes()
    machine.install("demo")
    assert [line.split()[1] for line in machine.notes()] == [
        "install",
        "uninstall",
        "install",
        "demo",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_cut_off_installation_leaves_no_stamp(
    machine: Machine, number: signal.Signals, code: int
) -> None:
    process = machine.start("demo", PIP_HANGS="torch>=")
    deadline = time.monotonic() + 30
    while not any(line.startswith("pip") for line in machine.notes()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    if number == signal.SIGINT:
        assert err.splitlines()[-1].startswith("interrupted")
    assert machine.stamps() == {"venv"}
    assert machine.install("demo")[0] == 0


def test_a_person_sees_a_clock_and_one_line_a_step(machine: Machine) -> None:
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        ["./install.sh", "demo"],
        cwd=machine.checkout,
        env=machine.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=screen,
    )
    os.close(screen)
    assert process.wait(timeout=60) == 0
    seen = os.read(keyboard, 65536).decode()
    with pytest.raises(OSError, match="Input/output"):  # no clock is left that could write
        os.read(keyboard, 1)
    os.close(keyboard)
    left = [line.split("\r")[-1] for line in seen.removesuffix("\r\n").split("\r\n")]
    assert [re.sub(r"  \d+ s$", "  n s", line) for line in left] == [
        f"[1/3] Python {platform.python_version()} in .venv  n s",
        "[2/3] torch as pip finds it (https://download.pytorch.org/whl/cpu does not answer)  n s",
        f"[3/3] musgd with {WORK}  n s",
    ]


def test_no_python(machine: Machine) -> None:
    (machine.folder / "bin/python3").unlink()
    assert machine.install("demo") == (
        3,
        "",
        ["error: python3 is missing", "mend: sudo apt-get install python3 python3-venv"],
    )
    assert not machine.venv.exists()


def test_an_old_python_is_passed_over_for_a_newer_one(machine: Machine) -> None:
    machine.put("python3", "#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.2\n")
    code, _, err = machine.install("demo")
    assert code == 3
    assert err[0] == "error: Python 3.9.2 is too old: musgd needs 3.11 or newer"
    machine.put("python3.12", PYTHON)
    assert machine.install("demo")[0] == 0


def test_a_python_of_ones_own_choice(machine: Machine) -> None:
    machine.put("mine", PYTHON)
    machine.put("python3", "#!/bin/sh\nexit 1\n")
    assert machine.install("demo", MUSGD_PYTHON="mine")[0] == 0
    code, _, err = machine.install("demo", MUSGD_PYTHON="/no/python")
    assert code == 3
    assert err[0] == "error: MUSGD_PYTHON=/no/python is no Python 3.11 or newer"


def test_a_debian_without_python3_venv(machine: Machine) -> None:
    code, _, err = machine.install("demo", NO_ENSUREPIP="1")
    assert code == 3
    assert "python3-venv is missing" in err[-2]
    assert err[-1] == "mend: sudo apt-get install python3-venv"
    assert not machine.venv.exists()


def test_a_disk_without_room(machine: Machine) -> None:
    (machine.folder / "bin/df").unlink()
    machine.put("df", "#!/bin/sh\necho Filesystem\necho //nas/my disk 9 7000000 2000000 78% /a b\n")
    code, _, err = machine.install("demo")
    assert code == 3
    assert err[-2] == f"error: 1 GB are free in {machine.checkout}, and the installation needs 10"
    assert not any(line.startswith("pip") for line in machine.notes())


def test_a_build_for_another_cpu_is_named(machine: Machine) -> None:
    code, _, err = machine.install("demo", SMOKE="132")
    assert code == 3
    assert "another CPU" in err[-2]
    assert "musgd" not in machine.stamps()


def test_a_machine_with_a_gpu_takes_torch_as_pip_finds_it(machine: Machine) -> None:
    machine.put("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    code, _, err = machine.install("demo")
    assert code == 0
    assert err[1] == "[2/3] torch as pip finds it"
    assert machine.notes()[0].startswith("pip install --progress-bar off torch>=")


def test_a_gpu_that_comes_later_brings_another_torch(machine: Machine) -> None:
    machine.install("demo")
    machine.notes()
    machine.put("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    assert machine.install("demo", CPU_TORCH="1")[0] == 0
    gone, torch, demo = machine.notes()
    assert gone == "pip uninstall --yes torch torchvision"
    assert torch.startswith("pip install --progress-bar off torch>=")
    assert demo == "musgd demo"


@pytest.fixture
def index() -> Iterator[str]:
    """A package index that has a page for torch."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/cpu/torch/" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its own name)
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_index_that_answers_is_used(machine: Machine, index: str) -> None:
    code, _, err = machine.install("demo", ASK="1", MUSGD_TORCH_INDEX=f"{index}/cpu")
    assert code == 0
    assert err[1] == f"[2/3] torch from {index}/cpu"
    pip = machine.notes()[1]
    assert pip.startswith(f"pip install --progress-bar off --index-url {index}/cpu torch>=")


def test_an_index_without_torch_is_not_used(machine: Machine, index: str) -> None:
    _, _, err = machine.install("demo", ASK="1", MUSGD_TORCH_INDEX=index)
    assert err[1] == f"[2/3] torch as pip finds it ({index} does not answer)"
    assert "--index-url" not in machine.notes()[1]


def test_an_index_that_keeps_silent_is_given_up_within_seconds(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        _, _, err = machine.install("demo", ASK="1", MUSGD_TORCH_INDEX=url)
        took = time.monotonic() - began
    assert "does not answer" in err[1]
    assert took < 10


def test_help_and_a_wrong_verb(machine: Machine) -> None:
    code, out, err = machine.install("--help")
    assert (code, err) == (0, [])
    assert "./install.sh test" in out
    code, _, err = machine.install("tset")
    assert code == 2
    assert err == ["error: no such command: tset", "mend: ./install.sh demo, or ./install.sh test"]


def test_the_scripts_are_clean(repository: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; the dev extra brings it")
    done = subprocess.run(
        [shellcheck, "install.sh", ".ci/run", *sorted(repository.glob("installer/*.sh"))],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_extras_it_installs_exist(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    script = (repository / "install.sh").read_text()
    assert f"EXTRAS={WORK}\n" in script
    assert tuple(WORK.split(",")) == boards.by_name("x86-cpu").extras
    assert {*WORK.split(","), "dev"} <= set(extras)
