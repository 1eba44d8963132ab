"""install.sh for the board it runs on: what it plans, does, does again and undoes."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from bare_machine import PYTHON, Machine, make

from musgd_cli.__main__ import main
from musgd_cli.hardware import boards

BOARDS = Path(__file__).parent / "boards"
TREES = sorted(tree.name for tree in BOARDS.iterdir())

# All that a board's system may lack nothing of: coreutils, findutils and mawk of a minimal Debian.
TOOLS = (
    *("chmod", "cut", "find", "head", "id", "ln", "od", "rmdir", "sha256sum", "sort"),
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


def test_what_it_says_to_type_can_be_typed(repository: Path) -> None:
    done = subprocess.run(
        ["sh", "install.sh", "--dry-run", "--root", BOARDS / "orin-nano"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.stderr.endswith("then MUSGD_PYTHON=/path/to/python3.11 ./install.sh\n")


def test_training_on_a_pi_takes_a_torch_that_its_cores_can_run(repository: Path) -> None:
    _, plan, err = plan_of(repository, BOARDS / "pi3", "--extras", "train")
    assert plan["musgd"].startswith("with ncnn,onnx,train,")
    assert plan["torch"].startswith("below 2.10")
    assert plan["disk"] == "4 GB"
    assert err.splitlines()[0] == "warning: 908 MB of memory: 3500 to train without swapping"
    pins = (repository / "pyproject.toml").read_text()
    assert "torch>=2.6,<2.10; platform_machine == 'aarch64'" in pins


@pytest.mark.parametrize(
    ("tree", "extra", "torch", "disk"),
    [
        ("pi4b", "tensorrt", "none", "6 GB"),
        ("pi4b", "litert-export", "below 2.10", "6 GB"),
        ("x86-gpu", "tensorrt", "with CUDA", "15 GB"),
    ],
)
def test_what_brings_gigabytes_is_planned_for(
    repository: Path, tree: str, extra: str, torch: str, disk: str
) -> None:
    _, plan, _ = plan_of(repository, BOARDS / tree, "--extras", extra)
    assert plan["torch"].startswith(torch)
    assert plan["disk"] == disk


def test_swap_is_planned_for_its_flag_alone(repository: Path) -> None:
    _, plan, err = plan_of(repository, BOARDS / "pi-zero2")
    assert "swap" not in plan
    assert "--with-swap" in err
    _, plan, err = plan_of(repository, BOARDS / "pi-zero2", "--with-swap", "--prefix", "/srv/m/")
    assert plan["swap"].startswith("/srv/m/swap, 2048 MB")
    assert (plan["disk"], err) == ("3 GB", "")


def test_a_link_of_a_recorded_tree_leads_nowhere_else(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(BOARDS / "pi4b", tree)
    for link, to in (("bin/sh", "/bin/dash"), ("bin/dash", "../../../usr/lib/dash")):
        (tree / link).unlink(missing_ok=True)
        (tree / link).symlink_to(to)
    (tree / "usr/lib").mkdir(parents=True, exist_ok=True)
    shutil.copy(BOARDS / "pi4b/bin/sh", tree / "usr/lib/dash")
    (tree / "usr/bin/sh").unlink(missing_ok=True)
    (tree / "proc/meminfo").unlink()
    (tree / "proc/meminfo").symlink_to("/proc/meminfo")  # round and round
    _, plan, err = plan_of(repository, tree)
    # By its revision code a Pi of 4 GB.
    assert plan["system"] == "aarch64, Python 3.11, 4096 MB", err


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


def test_the_links_of_two_homes_go(machine: Machine) -> None:
    before = installed(machine)
    place = ("--yes", "--prefix", f"{machine.folder}/srv")
    for home in ("a", "b"):
        assert machine.install(*place, HOME=f"{machine.folder}/{home}")[0] == 0
        assert (machine.folder / home / ".local/bin/musgd").exists()
    assert machine.install("--uninstall", *place)[0] == 0
    assert installed(machine) == before


def test_a_changed_checkout_or_another_extra_is_installed_anew(machine: Machine) -> None:
    machine.install("--yes")
    (machine.checkout / "musgd_cli/__init__.py").write_text("__version__ = 'x'\n")
    machine.notes()
    assert machine.install("--yes")[0] == 0
    assert len(machine.notes()) == 2
    assert machine.install("--yes", "--extras", "report,onnx")[0] == 0
    assert machine.notes()[-1].endswith("[onnx,report]")


def test_what_was_chosen_once_holds_until_it_is_undone(machine: Machine) -> None:
    before = installed(machine)
    machine.put("mine", PYTHON)
    machine.put("python3", OLD_PYTHON)
    chosen = {"MUSGD_BOARD": "generic-arm64", "MUSGD_PYTHON": "mine"}
    assert machine.install("--yes", "--extras", "report", **chosen)[0] == 0
    machine.notes()
    code, _, err = machine.install("--yes", "--extras", "litert", MUSGD_BOARD="")
    assert code == 0, err
    assert machine.notes()[-1].endswith("[ncnn,onnx,report,litert]")
    assert not any("Python" in line for line in err if line.startswith("["))  # the same venv
    _, plan, _ = machine.install("--dry-run", MUSGD_BOARD="")
    assert "generic-arm64: 64-bit ARM board (MUSGD_BOARD of an earlier run)" in plan
    assert machine.install("--yes", MUSGD_BOARD="")[2][-1].startswith("nothing to do")
    (machine.folder / "bin/mine").rename(machine.folder / "bin/python3")
    assert machine.install("--dry-run", MUSGD_BOARD="")[0] == 0
    assert machine.install("--uninstall", "--yes", MUSGD_BOARD="")[0] == 0
    assert installed(machine) == before


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
    _, _, err = machine.install("--uninstall")
    assert err[-1].startswith("mend: ./install.sh --yes --uninstall goes on, --dry-run shows")
    assert "demo" not in err[-1]


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


def prefix_of(machine: Machine) -> Path:
    return machine.folder / ".local/share/musgd"


@pytest.mark.parametrize("name", ["venv", "swap", "manifest"])
def test_what_someone_else_has_in_the_prefix_stops_it_and_is_left(
    machine: Machine, name: str
) -> None:
    other = prefix_of(machine) / name
    other.parent.mkdir(parents=True)
    other.write_text(f"tree {machine.folder}/precious\n")
    before = installed(machine)
    code, _, err = machine.install("--yes", "--with-swap")
    assert code == 2
    assert err[-2].startswith(f"error: {other} was not ")
    assert machine.install("--uninstall", "--yes")[0] == (2 if name == "manifest" else 0)
    assert installed(machine) == before


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_where_the_agent_would_go_is_left(machine: Machine, folder: bool) -> None:
    other = prefix_of(machine) / "musgd"
    other.parent.mkdir(parents=True)
    other.mkdir() if folder else other.write_text("mine")
    machine.put("python3", OLD_PYTHON)
    before = installed(machine)
    code, _, err = machine.install("--yes", MUSGD_BOARD="jetson-nano")
    assert (code, err[-2]) == (2, f"error: {other} was not made by this script")
    assert installed(machine) == before


def test_a_manifest_leads_out_of_its_folder_in_vain(machine: Machine) -> None:
    machine.install("--yes")
    prefix = prefix_of(machine)
    for name in ("file", "bin2/musgd"):
        (machine.folder / "precious" / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.folder / "precious" / name).touch()
    (prefix / "mine").touch()
    with (prefix / "manifest").open("a") as manifest:
        for path in ("../../../precious", f"{prefix}/../../../precious", "mine", "."):
            manifest.writelines(f"{word} {path}\n" for word in ("made", "tree", "file", "swap"))
        (machine.folder / "precious/empty").mkdir()
        manifest.write(f"folder {machine.folder}/precious/empty\n")
    assert machine.install("--uninstall", "--yes")[0] == 0
    assert {path.name for path in (machine.folder / "precious").iterdir()} == {
        "file",
        "bin2",
        "empty",
    }
    assert [path.name for path in prefix.iterdir()] == ["mine"]


def test_a_prefix_is_one_place_however_it_is_spelled(machine: Machine) -> None:
    (machine.folder / "real").mkdir()
    (machine.folder / "spelled").symlink_to(machine.folder / "real")
    before = installed(machine)
    ways: list[tuple[list[str], dict[str, str]]] = [
        (["--prefix", f"{machine.folder}/real/musgd/"], {}),
        (["--prefix", "../spelled/./musgd"], {}),
        (["--prefix", f"{machine.folder}/spelled/../real//musgd"], {}),
        ([], {"XDG_DATA_HOME": "../spelled"}),
    ]
    for at, (arguments, environ) in enumerate(ways):
        assert machine.install("--yes", *arguments, **environ)[0] == 0
        other, others = ways[at - 1]
        assert machine.install("--yes", *other, **others)[2][0].startswith("nothing to do")
        assert machine.install("--uninstall", "--yes", *other, **others)[0] == 0
        assert installed(machine) == before
    code, _, err = machine.install("--yes", "--prefix", "not/there/../musgd")
    assert code == 2
    assert err[0] == "error: not/there/../musgd leads through a folder that is not there"


def test_what_cannot_be_removed_is_named_and_kept_in_mind(machine: Machine) -> None:
    machine.install("--yes")
    (machine.folder / "bin/rm").unlink()
    machine.put("rm", "#!/bin/sh\nexit 1\n")
    code, _, err = machine.install("--uninstall", "--yes")
    assert code == 1
    assert err[-2].startswith(f"error: still there: {prefix_of(machine)}/venv ")
    (machine.folder / "bin/rm").unlink()
    machine.lend("rm")
    assert machine.install("--uninstall", "--yes")[0] == 0
    assert not prefix_of(machine).exists()


def test_modules_in_the_folder_that_one_stands_in_are_not_run(machine: Machine) -> None:
    """As is musgd itself in a checkout, which a test import would find there."""
    for name in ("platform", "ensurepip", "venv", "pip", "sys", "json", "musgd_cli"):
        (machine.checkout / f"{name}.py").write_text("open('was_run', 'w')\n")
    seen = machine.folder / "seen"
    machine.put("python3", PYTHON.replace("#!/bin/sh\n", f"#!/bin/sh\necho \"$1\" >>'{seen}'\n", 1))
    assert machine.install("--dry-run")[0] == 0
    assert machine.install("--yes")[0] == 0
    assert machine.install("demo")[0] == 0
    assert set(seen.read_text().split()) == {"-I", "-P"}
    assert not (machine.checkout / "was_run").exists()


def test_a_misspelt_extra_is_told(machine: Machine) -> None:
    code, _, err = machine.install("--yes", "--extras", "report,trian")
    assert (code, err[0]) == (2, "error: musgd has no extra trian")
    extras = tomllib.loads((machine.checkout / "pyproject.toml").read_text())["project"]
    assert err[1] == f"mend: --extras, of {', '.join(extras['optional-dependencies'])}"


@pytest.mark.parametrize("lost", ["musgd", "python"])
def test_what_somebody_removed_is_made_again(machine: Machine, lost: str) -> None:
    machine.install("--yes")
    file = prefix_of(machine) / "venv/bin" / lost
    file.unlink()
    machine.notes()
    assert machine.install("--yes")[0] == 0
    assert len(machine.notes()) == 2  # pip's
    assert lost == "musgd" or file.exists()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="torch is a step of its own on x86-64")
def test_a_gpu_that_comes_later_is_more_to_do(machine: Machine) -> None:
    train = ("--yes", "--extras", "train")
    machine.put("df", "#!/bin/sh\necho Filesystem\necho / 9 9 99999999 1% /\n")
    code, _, err = machine.install(*train)
    assert code == 0
    steps = [line[:5] for line in err if line.startswith("[")]
    assert steps == ["[1/3]", "[2/3]", "[3/3]"]
    assert machine.install(*train)[2][-1].startswith("nothing to do")
    machine.put("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    machine.notes()
    assert machine.install(*train, CPU_TORCH="1")[0] == 0
    assert machine.notes()[0] == "pip uninstall --yes torch torchvision"
    assert machine.install(*train)[2][-1].startswith("nothing to do")


def test_a_failed_change_is_not_taken_for_what_was_there(machine: Machine) -> None:
    machine.install("--yes")
    code, _, _ = machine.install(
        "--yes", "--extras", "report", PIP_FAILS="report", PIP_SAYS="ERROR: gone"
    )
    assert code == 1
    machine.notes()
    assert machine.install("--yes")[0] == 0
    assert machine.notes()[-1].endswith("[onnx]")


def test_variables_of_others_are_not_taken_for_its_own(machine: Machine) -> None:
    machine.put("dpkg-query", "#!/bin/sh\nexit 1\n")
    _, out, _ = machine.install("--dry-run", list="evil", python="evil", packages="evil")
    assert "evil" not in out


def test_a_place_that_cannot_be_written_to_is_told_before_asking(machine: Machine) -> None:
    place = machine.folder / "theirs"
    place.mkdir(mode=0o555)
    if os.access(place, os.W_OK):
        pytest.skip("root may write anywhere")
    code, _, err = machine.install("--prefix", str(place))
    assert (code, err[0]) == (1, f"error: cannot write to {place}")


def test_a_home_that_cannot_be_written_to_goes_without_the_link(machine: Machine) -> None:
    home = machine.folder / "ro"
    home.mkdir(mode=0o555)
    if os.access(home, os.W_OK):
        pytest.skip("root may write anywhere")
    prefix = machine.folder / "a place"
    before = installed(machine)
    away = ("--yes", "--prefix", str(prefix))
    code, _, err = machine.install(*away, HOME=str(home))
    assert code == 0, err
    command = f"'{prefix}/venv/bin/musgd' doctor"
    assert err[:2] == [
        f"warning: cannot write to {home}, so there will be no command musgd",
        f"mend: {command}",
    ]
    assert f"command   {prefix}/venv/bin/musgd" in err
    assert f"{command} tells what" in err[-1]
    assert machine.install(*away, HOME=str(home))[2][-1].startswith("nothing to do")
    assert machine.install("--uninstall", *away, HOME=str(home))[0] == 0
    assert installed(machine) == before


@pytest.mark.parametrize("way", ["symlink", "CDPATH"])
def test_it_finds_its_folder_however_it_is_called(machine: Machine, way: str) -> None:
    environ = dict(machine.environ)
    command = ["sh", "install.sh"]
    place = machine.checkout
    if way == "symlink":
        place = machine.folder / "elsewhere"
        place.mkdir()
        (place / "install.sh").symlink_to(machine.checkout / "install.sh")
    else:
        environ["CDPATH"] = str(machine.folder)
        place = machine.folder
        command = ["sh", f"{machine.checkout.name}/install.sh"]
    done = subprocess.run(
        [*command, "--dry-run"], cwd=place, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"from {machine.checkout}\n" in done.stdout


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
    # Of two architectures, of which one was removed but for its settings.
    machine.put("dpkg-query", '#!/bin/sh\n[ -e "$NOTES.has" ] && printf "rc \\nii \\n"\n')
    machine.put("apt-get", f'{IDLE}[ "$1" = update ] || touch "$NOTES.has"\n')
    machine.put("sudo", f'{IDLE}exec "$@"\n')
    (machine.folder / "bin/id").unlink()
    machine.put("id", "#!/bin/sh\necho 1000\n")
    code, _, err = machine.install("--yes", "--no-apt")
    assert (code, err) == (
        3,
        ["error: missing: libstdc++6", "mend: sudo apt-get install libstdc++6"],
    )
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


def test_swap_that_cannot_be_made_takes_no_room(machine: Machine) -> None:
    (machine.folder / "bin/id").unlink()
    machine.put("id", "#!/bin/sh\necho 0\n")
    machine.put("dd", ': >"${2#of=}"\n')
    machine.put("mkswap", "#!/bin/sh\nexit 1\n")
    code, _, err = machine.install("--yes", "--with-swap")
    assert (code, err[-1]) == (1, "mend: run ./install.sh without --with-swap")
    assert not (prefix_of(machine) / "swap").exists()


def test_swap_in_a_folder_with_a_space_is_seen_and_taken_off(machine: Machine) -> None:
    (machine.folder / "bin/id").unlink()
    machine.put("id", "#!/bin/sh\necho 0\n")
    for tool in ("mkswap", "swapoff"):
        machine.put(tool, IDLE)
    # As the kernel prints it.
    machine.put(
        "swapon",
        """#!/bin/sh
printf 'Filename Type Size Used Priority\\n%s file 1 0 -2\\n' \
    "$(printf '%s' "$1" | sed 's/ /\\\\040/g')" >"$NOTES.swaps"
""",
    )
    real_awk = (machine.folder / "bin/awk").readlink()
    (machine.folder / "bin/awk").unlink()
    machine.put(
        "awk",
        f"""#!/bin/sh
for word; do
    shift
    [ "$word" != /proc/swaps ] || word=$NOTES.swaps
    set -- "$@" "$word"
done
exec {real_awk} "$@"
""",
    )
    Path(f"{machine.environ['NOTES']}.swaps").write_text("Filename\n")
    machine.put("dd", ': >"${2#of=}"\n')
    place = ["--prefix", f"{machine.folder}/a place"]
    assert machine.install("--yes", "--with-swap", *place)[0] == 0
    assert machine.install("--yes", "--with-swap", *place)[2][0].startswith("nothing to do")
    machine.notes()
    assert machine.install("--uninstall", "--yes", *place)[0] == 0
    assert machine.notes() == [f"swapoff {machine.folder}/a place/swap"]
    assert not (machine.folder / "a place").exists()


# ---- JetPack 4 ----------------------------------------------------------------------------------

OLD_PYTHON = """#!/bin/sh
case "$*" in
    "-I -c import platform"*) echo 3.6.9 ;;
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


def test_the_agent_makes_room_for_musgd_and_both_are_undone(machine: Machine) -> None:
    before = installed(machine)
    machine.put("python3", OLD_PYTHON)
    assert machine.install("--yes", MUSGD_BOARD="jetson-nano")[0] == 0
    machine.put("python3", PYTHON)
    assert machine.install("--yes", "--extras", "onnx", MUSGD_BOARD="jetson-nano")[0] == 0
    assert (machine.folder / ".local/bin/musgd").readlink() == prefix_of(machine) / "venv/bin/musgd"
    assert machine.install("--uninstall", "--yes")[0] == 0
    assert installed(machine) == before


def test_a_prefix_is_no_part_of_the_agents_script(machine: Machine) -> None:
    machine.put("python3", OLD_PYTHON)
    prefix = machine.folder / '$(touch evil) `touch evil` "quoted"'
    nano = {"MUSGD_BOARD": "jetson-nano"}
    assert machine.install("--yes", "--prefix", str(prefix), **nano)[0] == 0
    done = subprocess.run(
        [machine.folder / ".local/bin/musgd", "bench"],
        cwd=machine.folder,
        env=machine.environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "agent\n")
    assert not list(machine.folder.rglob("evil"))


def test_what_it_says_to_type_holds_its_spaces_together(machine: Machine) -> None:
    words = ["--prefix", f"{machine.folder}/Ada's home", "--extras", "report"]
    _, _, err = machine.install(*words)
    assert shlex.split(err[-1].partition(" goes on")[0])[1:] == ["./install.sh", "--yes", *words]
    (machine.checkout / "pyproject.toml").unlink()
    script = f"{machine.checkout.name}/install.sh"
    done = subprocess.run(
        ["sh", script, *words],
        cwd=machine.folder,
        env=machine.environ,
        capture_output=True,
        text=True,
    )
    mend = done.stderr.splitlines()[-1]
    assert shlex.split(mend)[1:] == [script, "--offline", str(machine.checkout), *words]


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


def blur(house: Path) -> None:
    (house / "wheelhouse.json").write_text('["no record"]')
    add_up(house)


def unsum(house: Path) -> None:
    (house / "SHA256SUMS").write_bytes(b"\xff\n")


def cut(house: Path) -> None:
    (house / "SHA256SUMS").write_text("0123\n")


def empty(house: Path) -> None:
    (house / "musgd_cli-0.1.0-py3-none-any.whl").unlink()
    add_up(house)


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
        (blur, 1, "wheelhouse.json of the wheelhouse cannot be read"),
        (unsum, 1, "SHA256SUMS of the wheelhouse is damaged"),
        (cut, 1, "SHA256SUMS of the wheelhouse is damaged"),
        (empty, 1, "musgd's own wheel is not in the wheelhouse's sums"),
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
