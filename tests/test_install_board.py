"""install.sh for the board it runs on: what it plans, does, does again and undoes."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from bare_machine import PYTHON, Machine, make

from musgd_cli.__main__ import main
from musgd_cli.hardware import boards

BOARDS = Path(__file__).parent / "boards"
TREES = sorted(tree.name for tree in BOARDS.iterdir())

# All that a board's system may lack nothing of: coreutils, findutils and mawk of a minimal Debian.
TOOLS = (
    *("chmod", "cut", "find", "head", "id", "ln", "od", "readlink", "rmdir", "sha256sum", "sort"),
    *("stat", "touch", "tr", "uname"),
)

REFUSED = {
    "jetson-tx1": "Python 3.5 is too old: musgd needs 3.11 or newer",
    "orin-nano": "Python 3.10 is too old: musgd needs 3.11 or newer",
    "wsl": "Python 3.10 is too old: musgd needs 3.11 or newer",
    "pi4b-32bit": "Raspberry Pi 4 Model B: the system is 32-bit, and the engines have no 32-bit "
    "wheels",
}
AGENTS = {"jetson-nano", "jetson-nano-2gb", "jetson-nano-docker"}

# What notes its arguments and does nothing.
IDLE = """#!/bin/sh
echo "${0##*/}" "$@" >>"$NOTES"
"""


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Machine:
    """A bare machine of no known kind: its board's extra is onnx alone."""
    machine = make(tmp_path, repository)
    for tool in TOOLS:
        machine.lend(tool)
    machine.environ |= {"MUSGD_BOARD": "generic", "NO_DESKTOP_OPENCV": "1"}
    for folder in ("musgd_cli", "profiles"):
        (machine.checkout / folder).mkdir()
    (machine.checkout / "musgd_cli/__init__.py").write_text("")
    (machine.checkout / "musgd_cli/board").mkdir()
    (machine.checkout / "musgd_cli/board/nano_agent.py").write_text("print('agent')\n")
    return machine


def plan_of(repository: Path, tree: Path, *arguments: str) -> tuple[int, dict[str, str], str]:
    """Plan for a recorded machine; return the exit code, the plan's lines and stderr."""
    done = subprocess.run(
        ["./install.sh", "--dry-run", "--root", tree, *arguments],
        cwd=repository,
        env={"PATH": os.environ["PATH"], "HOME": "/home/ada", "MUSGD_BOARD": "pi5"},
        capture_output=True,
        text=True,
    )
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return done.returncode, {key: value.strip() for key, _, value in lines}, done.stderr


def installed(machine: Machine) -> set[str]:
    """Everything below the home folder but the machine itself."""
    own = ("bin", "a checkout", "notes")
    return {
        str(path.relative_to(machine.folder))
        for path in machine.folder.rglob("*")
        if path.relative_to(machine.folder).parts[0] not in own
    }


# ---- the plan -----------------------------------------------------------------------------------


def test_the_table_of_boards_is_not_stale(repository: Path) -> None:
    table = runpy.run_path(str(repository / "docs/generate.py"))["render_table"]()
    assert (repository / "installer/boards.txt").read_text() == table, "python docs/generate.py"


@pytest.mark.parametrize("name", TREES)
def test_a_recorded_board_is_told_as_doctor_tells_it_and_gets_its_own(
    name: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--root", str(BOARDS / name), "--json"])
    host = json.loads(capsys.readouterr().out)["host"]
    code, plan, err = plan_of(repository, BOARDS / name)
    if name in REFUSED:
        assert (code, plan) == (3, {})
        assert err.splitlines()[0] == f"error: {REFUSED[name]}"
        return
    assert code == 0, err
    board = boards.by_name(host["board"])
    assert plan["board"] == f"{board.name}: {board.title} ({host['decided_by']})"
    assert plan["system"] == (
        f"{'x86_64' if board.name.startswith('x86') else 'aarch64'}, "
        f"Python {host['python'] or 'unknown'}, {host['ram_mb']} MB"
    )
    assert plan["command"] == "/home/ada/.local/bin/musgd"
    assert ("agent" in plan) == (name in AGENTS)
    if name not in AGENTS:
        assert plan["musgd"] == f"with {','.join(board.extras)}, from {repository}"
        assert plan["venv"] == "/home/ada/.local/share/musgd/venv"
        assert plan["torch"].startswith("none") != board.trains


def test_training_on_a_pi_takes_a_torch_that_its_cores_can_run(repository: Path) -> None:
    _, plan, err = plan_of(repository, BOARDS / "pi3", "--extras", "train")
    assert plan["musgd"].startswith("with ncnn,onnx,train,")
    assert plan["torch"].startswith("below 2.10")
    assert plan["disk"] == "4 GB"
    assert err.splitlines()[0] == "warning: 908 MB of memory: 3500 to train without swapping"
    pins = (repository / "pyproject.toml").read_text()
    assert "torch>=2.6,<2.10; platform_machine == 'aarch64'" in pins


def test_swap_is_planned_for_its_flag_alone(repository: Path) -> None:
    _, plan, err = plan_of(repository, BOARDS / "pi-zero2")
    assert "swap" not in plan
    assert "--with-swap" in err
    _, plan, err = plan_of(repository, BOARDS / "pi-zero2", "--with-swap", "--prefix", "/srv/m/")
    assert plan["swap"].startswith("/srv/m/swap, 2048 MB")
    assert (plan["disk"], err) == ("3 GB", "")


def test_a_recorded_machine_is_only_planned_for(repository: Path) -> None:
    done = subprocess.run(
        ["./install.sh", "--yes", "--root", BOARDS / "pi4b"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --root reads a recorded machine")


# ---- doing it, again, and undoing it ------------------------------------------------------------


def test_it_installs_once_and_is_undone_without_a_trace(machine: Machine) -> None:
    before = installed(machine)
    code, out, err = machine.install("--yes")
    assert (code, out) == (0, ""), err
    gone, pip = machine.notes()
    assert gone == "pip uninstall --yes musgd-cli"
    assert pip == f"pip install --progress-bar off --only-binary :all: {machine.checkout}[onnx]"
    link = machine.folder / ".local/bin/musgd"
    assert link.resolve() == machine.folder / ".local/share/musgd/venv/bin/musgd"
    assert "musgd with onnx is installed; musgd doctor tells what this board can do" in err

    after = installed(machine)
    code, out, err = machine.install("--yes")
    assert (code, out) == (0, "")
    assert err == [
        f"nothing to do: musgd with onnx is installed in {machine.folder}/.local/share/musgd"
    ]
    assert machine.notes() == []
    assert installed(machine) == after

    (machine.folder / ".local/bin/other").touch()  # someone else's, made since
    code, out, err = machine.install("--uninstall", "--yes")
    assert code == 0
    assert installed(machine) - before == {".local", ".local/bin", ".local/bin/other"}
    code, _, err = machine.install("--uninstall", "--yes")
    assert code == 0
    assert err[0].startswith("nothing to do")


def test_what_is_half_installed_is_undone_too(machine: Machine) -> None:
    before = installed(machine)
    code, _, err = machine.install("--yes", PIP_FAILS="--only-binary", PIP_SAYS="ERROR: gone")
    assert code == 1
    assert err[-2] == "error: pip failed: ERROR: gone"
    assert machine.install("--uninstall", "--yes")[0] == 0
    assert installed(machine) == before


def test_a_changed_checkout_or_another_extra_is_installed_anew(machine: Machine) -> None:
    machine.install("--yes")
    (machine.checkout / "musgd_cli/__init__.py").write_text("__version__ = 'x'\n")
    machine.notes()
    assert machine.install("--yes")[0] == 0
    assert len(machine.notes()) == 2
    assert machine.install("--yes", "--extras", "report,onnx")[0] == 0
    assert machine.notes()[-1].endswith("[onnx,report]")


def test_without_a_yes_and_without_a_terminal_nothing_is_done(machine: Machine) -> None:
    for arguments in ((), ("--extras", "train")):
        before = installed(machine)
        code, out, err = machine.install(*arguments)
        assert (code, out) == (2, "")
        assert err[-1].startswith("mend: ./install.sh --yes")
        assert "./install.sh demo" in err[-1]
        assert installed(machine) == before
    machine.install("--yes")
    assert machine.install("--uninstall")[0] == 2
    assert (machine.folder / ".local/bin/musgd").is_symlink()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_a_person_is_asked(machine: Machine, answer: str, code: int) -> None:
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        ["./install.sh"],
        cwd=machine.checkout,
        env=machine.environ,
        stdin=screen,
        stdout=subprocess.DEVNULL,
        stderr=screen,
    )
    os.close(screen)
    os.write(keyboard, f"{answer}\n".encode())
    assert process.wait(timeout=60) == code
    os.close(keyboard)
    assert (machine.folder / ".local/bin/musgd").is_symlink() == (code == 0)


def test_a_dry_run_leaves_nothing(machine: Machine) -> None:
    before = installed(machine)
    code, out, _ = machine.install("--dry-run")
    assert code == 0
    assert "venv      " in out
    assert (installed(machine), machine.notes()) == (before, [])


def test_a_command_of_someone_else_is_left_alone(machine: Machine) -> None:
    other = machine.folder / ".local/bin/musgd"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    code, _, err = machine.install("--yes")
    assert code == 2
    assert err[-2] == f"error: {other} is there already and leads elsewhere"
    assert other.read_text() == "mine"


def test_the_wheel_for_another_cpu_is_named(machine: Machine) -> None:
    code, _, err = machine.install("--yes", SMOKE_OF="onnxruntime", SMOKE="132")
    assert code == 3
    assert err[-2].startswith("error: the wheel of onnxruntime 4.9.0.80 is for another CPU")
    assert "echo 'onnxruntime<4.9.0.80' >avoid.txt; PIP_CONSTRAINT=avoid.txt" in err[-1]
    assert machine.install("--yes")[0] == 0  # once it is avoided, the rest is done


def test_a_board_whose_clock_lags_is_told_before_pip_fails(machine: Machine) -> None:
    os.utime(machine.checkout / "install.sh", (4e9, 4e9))
    code, _, err = machine.install("--yes")
    assert code == 3
    assert err[-1] == "mend: sudo timedatectl set-ntp true, then run ./install.sh again"


def test_a_full_disk_is_told_before_anything_is_made(machine: Machine) -> None:
    (machine.folder / "bin/df").unlink()
    machine.put("df", "#!/bin/sh\necho Filesystem\necho /dev/x 9000000 8900000 100000 99% /\n")
    before = installed(machine)
    code, _, err = machine.install("--yes", "--prefix", f"{machine.folder}/x/y")
    assert code == 3
    assert err[-2] == f"error: 0 GB are free in {machine.folder}, and the installation needs 1"
    assert installed(machine) == before


# ---- the system's packages and swap -------------------------------------------------------------


def test_only_missing_packages_are_asked_of_apt(machine: Machine) -> None:
    machine.put("dpkg", '#!/bin/sh\n[ -e "$NOTES.has" ] && echo "Status: install ok installed"\n')
    machine.put("apt-get", f'{IDLE}[ "$1" = update ] || touch "$NOTES.has"\n')
    machine.put("sudo", f'{IDLE}exec "$@"\n')
    (machine.folder / "bin/id").unlink()
    machine.put("id", "#!/bin/sh\necho 1000\n")
    code, _, err = machine.install("--yes", "--no-apt")
    assert (code, err[-2]) == (3, "error: missing: libstdc++6 ")
    assert machine.install("--yes")[0] == 0
    asked = "apt-get install --yes --no-install-recommends libstdc++6"
    assert machine.notes()[:2] == [f"sudo {asked}", asked]
    assert machine.install("--yes")[2][0].startswith("nothing to do")
    _, _, err = machine.install("--uninstall", "--yes")
    assert err[-1].startswith("kept: libstdc++6")
    assert machine.notes() == []


def test_swap_is_made_for_its_flag_alone(machine: Machine) -> None:
    (machine.folder / "bin/id").unlink()
    machine.put("id", "#!/bin/sh\necho 0\n")
    for tool in ("mkswap", "swapon", "swapoff"):
        machine.put(tool, IDLE)
    machine.put("dd", f'{IDLE}: >"${{2#of=}}"\n')
    machine.install("--yes")
    assert {line.split()[0] for line in machine.notes()} == {"pip"}
    assert machine.install("--yes", "--with-swap")[0] == 0
    swap = machine.folder / ".local/share/musgd/swap"
    assert machine.notes() == [
        f"dd if=/dev/zero of={swap} bs=1048576 count=2048",
        f"mkswap {swap}",
        f"swapon {swap}",
    ]
    machine.install("--uninstall", "--yes")
    assert not swap.parent.exists()


# ---- JetPack 4 ----------------------------------------------------------------------------------

OLD_PYTHON = """#!/bin/sh
case "$*" in
    "-c import platform"*) echo 3.6.9 ;;
    --version) echo Python 3.6.9 ;;
    *nano_agent.py*) exec "$REAL_PYTHON" "$@" ;;
    *) exit 1 ;;
esac
"""


def test_a_jetson_nano_gets_the_agent(machine: Machine) -> None:
    machine.put("python3", OLD_PYTHON)
    before = installed(machine)
    nano = {"MUSGD_BOARD": "jetson-nano"}
    code, _, err = machine.install("--yes", **nano)
    assert code == 0, err
    done = subprocess.run(
        [machine.folder / ".local/bin/musgd", "bench"],
        env=machine.environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "agent\n")
    assert machine.notes() == []  # pip was not asked
    assert machine.install("--yes", **nano)[2][-1].startswith("nothing to do")
    assert machine.install("--uninstall", "--yes", **nano)[0] == 0
    assert installed(machine) == before


def test_training_is_refused_where_python_is_too_old(machine: Machine) -> None:
    machine.put("python3", OLD_PYTHON)
    code, _, err = machine.install("--yes", "--extras", "train", MUSGD_BOARD="jetson-nano")
    assert code == 3
    assert "musgd needs 3.11 or newer" in err[-2]


# ---- without a network --------------------------------------------------------------------------

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def house(machine: Machine) -> Path:
    """A wheelhouse for this machine, as `musgd wheelhouse` lays it out."""
    folder = machine.folder / "a house"
    folder.mkdir()
    (folder / "musgd_cli-0.1.0-py3-none-any.whl").write_text("ours")
    record = {"machine": os.uname().machine, "pythons": [VERSION], "extras": ["onnx", "report"]}
    (folder / "wheelhouse.json").write_text(json.dumps(record))
    add_up(folder)
    return folder


def add_up(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
            for file in sorted(folder.glob("*"))
            if file.name != "SHA256SUMS"
        )
    )


def test_a_wheelhouse_is_installed_from_and_nothing_else(machine: Machine, house: Path) -> None:
    code, _, err = machine.install("--yes", "--offline", str(house))
    assert code == 0, err
    assert machine.notes()[-1] == (
        f"pip install --progress-bar off --no-index --find-links {house} --only-binary :all: "
        f"{house}/musgd_cli-0.1.0-py3-none-any.whl[onnx,report]"
    )
    code, _, err = machine.install("--yes", "--offline", str(house))
    assert (code, machine.notes()) == (0, [])
    assert err[0].startswith("nothing to do: musgd with onnx,report")


def damage(house: Path) -> None:
    (house / "musgd_cli-0.1.0-py3-none-any.whl").write_text("theirs")


def slip_in(house: Path) -> None:
    (house / "evil-1-py3-none-any.whl").write_text("theirs")


def lose(house: Path) -> None:
    (house / "musgd_cli-0.1.0-py3-none-any.whl").unlink()


def age(house: Path) -> None:
    record = {"machine": os.uname().machine, "pythons": ["3.99"], "extras": ["onnx"]}
    (house / "wheelhouse.json").write_text(json.dumps(record))
    add_up(house)


def move(house: Path) -> None:
    record = {"machine": "riscv64", "pythons": [VERSION], "extras": ["onnx"]}
    (house / "wheelhouse.json").write_text(json.dumps(record))
    add_up(house)


@pytest.mark.parametrize(
    ("spoil", "code", "error"),
    [
        (damage, 1, "musgd_cli-0.1.0-py3-none-any.whl of the wheelhouse is damaged"),
        (slip_in, 1, "evil-1-py3-none-any.whl was not in the wheelhouse when it was made"),
        (lose, 1, "musgd_cli-0.1.0-py3-none-any.whl of the wheelhouse is missing"),
        (age, 3, f"the wheelhouse is for Python 3.99, and this is {VERSION}"),
        (move, 3, f"the wheelhouse is for riscv64, and this is {os.uname().machine}"),
    ],
)
def test_a_wheelhouse_that_does_not_fit_is_refused(
    machine: Machine, house: Path, spoil, code: int, error: str
) -> None:
    spoil(house)
    before = installed(machine)
    got, _, err = machine.install("--yes", "--offline", str(house))
    assert (got, err[0]) == (code, f"error: {error}")
    assert err[1].startswith("mend: ")
    assert (installed(machine), machine.notes()) == (before, [])


def test_a_wheelhouse_without_what_is_asked_for(machine: Machine, house: Path) -> None:
    code, _, err = machine.install("--yes", "--offline", str(house), "--extras", "train")
    assert code == 2
    assert err == [
        "error: the wheelhouse has no train",
        "mend: musgd wheelhouse --target generic --extras train",
    ]
    code, _, err = machine.install("--yes", "--offline", "elsewhere")
    assert (code, err[0]) == (2, f"error: {machine.checkout}/elsewhere is no wheelhouse")


def test_the_wheelhouse_has_the_installer_which_needs_no_checkout(
    machine: Machine, house: Path
) -> None:
    for name in ("pyproject.toml", "musgd_cli", "profiles"):
        (machine.checkout / name).rename(machine.folder / name)
    assert machine.install("--yes", "--offline", str(house))[0] == 0
    code, _, err = machine.install("demo")
    assert (code, err[0]) == (2, f"error: {machine.checkout} holds no sources of musgd")


def test_a_wrong_option(machine: Machine) -> None:
    code, _, err = machine.install("--dryrun")
    assert (code, err) == (2, ["error: no such option: --dryrun", "mend: ./install.sh --help"])
    code, _, err = machine.install("--prefix")
    assert (code, err[0]) == (2, "error: --prefix needs a value")
    code, _, err = machine.install("--yes", MUSGD_BOARD="pi7")
    assert (code, err[0]) == (2, "error: MUSGD_BOARD=pi7 names no board")
    assert "pi4b, pi400" in err[1]


def test_the_python_that_stands_in_is_the_one_asked_for(machine: Machine) -> None:
    machine.put("mine", PYTHON)
    assert machine.install("--yes", MUSGD_PYTHON="mine")[0] == 0
    assert machine.notes()[-1].endswith("[onnx]")
