"""musgd wheelhouse: what another board needs, by its rules, whole or not at all.

pip is real; its index is a folder of empty wheels.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from musgd_cli.__main__ import main
from musgd_cli.errors import MusgdError
from musgd_cli.hardware import boards
from musgd_cli.remote import own_wheel, wheelhouse
from musgd_cli.storage import sha256_of

ANY = "py3-none-any"
A64 = "manylinux_2_28_aarch64"
RETRY = (
    "WARNING: Retrying (Retry(total=%d, connect=None, read=None, redirect=None, status=None)) "
    "after connection broken by 'NewConnectionError('refused')': /simple/rich/"
)
NONE = (
    "ERROR: Could not find a version that satisfies the requirement rich (from versions: none)\n"
    "ERROR: No matching distribution found for rich"
)
"""As pip 23.2 says it where an index does not answer, and where it lacks what is asked for."""

PI4B = next(board for board in boards.BOARDS if board.name == "pi4b")


def put_wheel(folder: Path, name: str, version: str, tag: str = ANY, requires: str = "") -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own wheel, built from this checkout, where a file is called as pip is."""
    pytest.importorskip("hatchling", reason="the dev extra is not installed")
    trap = tmp_path_factory.mktemp("trap")
    (trap / "pip.py").write_text("raise SystemExit('not pip')")
    with contextlib.chdir(trap):
        return own_wheel.make(tmp_path_factory.mktemp("own"))


@pytest.fixture
def index(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip can find: our needs at the lowest versions that we allow, and traps."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(own) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        needs = re.findall(
            r"^Requires-Dist: ([\w-]+)[^;\n]*?>=([\d.]+)",
            archive.read(name).decode(),
            re.MULTILINE,
        )
    for name, version in needs:
        if name not in ("ncnn", "torch", "onnxruntime"):
            put_wheel(folder, name, version)
    for python in ("311", "313"):
        put_wheel(folder, "ncnn", "1.0.20250101", f"cp{python}-cp{python}-{A64}")
    put_wheel(
        folder,
        "onnxruntime",
        "1.21.0",
        requires="for-this-machine; platform_machine == 'x86_64' or python_version < '3.11'",
    )
    for version in ("2.9.1", "2.12.0"):
        put_wheel(folder, "torch", version, f"cp311-cp311-{A64}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)

    def make(place: Path) -> Path:
        return Path(shutil.copy(own, place))

    monkeypatch.setattr(own_wheel, "make", make)
    monkeypatch.chdir(tmp_path)
    return folder


def test_it_holds_the_boards_wheels_by_the_boards_rules(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wheelhouse", "--target", "pi4b", "--json", "--out", "a b"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    house = tmp_path / "a b"
    assert printed["path"] == house.name
    assert (printed["target"], printed["machine"]) == ("pi4b", "aarch64")
    assert (printed["pythons"], printed["extras"]) == (["3.11", "3.13"], list(PI4B.extras))
    names = {wheel["file"] for wheel in printed["wheels"]}
    assert names == {wheel.name for wheel in house.glob("*.whl")}
    assert {f"ncnn-1.0.20250101-cp{v}-cp{v}-{A64}.whl" for v in ("311", "313")} <= names
    assert not any(name.startswith(("torch", "for_this")) for name in names)
    assert "on the board: sh 'a b/install.sh' --offline 'a b'" in err

    record = json.loads((house / "wheelhouse.json").read_text())
    assert {**record, "path": house.name} == printed
    listed = dict(
        reversed(line.split("  ")) for line in (house / "SHA256SUMS").read_text().splitlines()
    )
    files = {path for path in house.rglob("*") if path.is_file() and path.name != "SHA256SUMS"}
    assert listed == {str(path.relative_to(house)): sha256_of([path]) for path in files}
    assert {"install.sh", "installer/board.sh", "installer/boards.txt"} <= set(listed)
    assert str(index) not in "".join(
        file.read_text() for file in (house / "wheelhouse.json", house / "SHA256SUMS")
    )


def test_torch_for_a_pi_is_one_that_its_cores_can_run(index: Path, tmp_path: Path) -> None:
    """This machine is no ARM one: its own answer to platform_machine would take 2.12."""
    house = wheelhouse.fetch("pi4b", tmp_path / "w", pythons=["3.11"], extras=["train"])
    assert house.extras == (*PI4B.extras, "train")
    assert [w.file for w in house.wheels if w.file.startswith("torch-")] == [
        f"torch-2.9.1-cp311-cp311-{A64}.whl"
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--target", "pi4"], 2, "there is no wheelhouse for pi4 (did you mean pi4b?)"),
        (["--target", "jetson-nano"], 3, "a NVIDIA Jetson Nano takes no wheels"),
        (["--target", "pi4b", "--python", "3.9"], 2, "--python 3.9 is no Python that runs musgd"),
        (
            ["--target", "pi4b", "--extras", "trian"],
            2,
            "musgd has no extra 'trian' (did you mean train?)",
        ),
        (
            ["--target", "pi4b", "--python", "3.12"],
            3,
            "there is no such wheel for Python 3.12 on aarch64 (glibc 2.35)",
        ),
        (["--target", "pi4b", "--out", "index"], 2, "index exists already"),
    ],
)
def test_what_cannot_be_leaves_nothing(
    index: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    error: str,
) -> None:
    assert main(["wheelhouse", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert error in err
    assert "mend: " in err
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        (f"{RETRY % 4}\n{RETRY % 0}\n{NONE}", "pip cannot reach its package index"),
        (f"{RETRY % 4}\n{NONE}", "there is no such wheel"),
        (f"{RETRY % 0}\n{NONE.replace('none', '1.0')}", "there is no such wheel"),
        ("ERROR: x: Max retries exceeded with url: /y", "pip cannot reach its package index"),
        ("ERROR: Exception:\nTraceback\nx: Read timed out.", "pip cannot reach its package index"),
        (f"{RETRY % 4}\nERROR: Cannot install a and b", "pip failed: Cannot install a and b"),
        ("ERROR: odd", "pip failed: odd"),
    ],
)
def test_pip_fails_in_words(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, error: str
) -> None:
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\nprintf '%s\\n' \"{says}\"\nexit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(MusgdError, match=re.escape(error)) as caught:
        wheelhouse.fetch("pi4b", tmp_path / "w")
    assert caught.value.mend
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "pip"]


def test_torch_for_x86_without_a_gpu_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With whatever extras: those boards have train of their own."""
    known = {board.name: board for board in boards.BOARDS}
    assert all("train" in board.extras for board in boards.BOARDS if board.trains)
    monkeypatch.setattr(wheelhouse, "_cpu_index_answers", lambda: True)
    cpu = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    assert wheelhouse._torch_index(known["x86-cpu"]) == cpu
    assert wheelhouse._torch_index(known["x86-gpu"]) == wheelhouse._torch_index(PI4B) == []
    monkeypatch.setenv("MUSGD_TORCH_INDEX", "https://a.b")
    assert wheelhouse._torch_index(known["x86-gpu"]) == ["--extra-index-url", "https://a.b"]


def test_ctrl_c_ends_pip_and_leaves_nothing(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "pip"
    pip.write_text("#!/bin/sh\necho Downloading some-1-py3-none-any.whl\nexec sleep 60\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))

    def interrupt(line: str) -> None:
        if "some-1" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wheelhouse.fetch("pi4b", tmp_path / "w", on_progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "pip"]


def test_tensorrt_which_has_no_wheel_is_left_out_in_words(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(wheelhouse, "_download", lambda *arguments: asked.append(arguments))
    warned = []
    house = wheelhouse.fetch(
        "x86-gpu", tmp_path / "w", on_warning=lambda what, mend: warned.append((what, mend))
    )
    assert "tensorrt" not in house.extras
    assert house.machine == "x86_64"
    assert [what for what, _ in warned] == ["tensorrt is left out"]


def test_an_installed_musgd_packs_itself_into_the_wheel_that_it_came_from(
    own: Path, tmp_path: Path
) -> None:
    """The wheel is installed, packed and installed again: the same files, and a true list."""
    site = tmp_path / "site"
    with zipfile.ZipFile(own) as archive:
        archive.extractall(site)
    (info,) = site.glob("*.dist-info")
    (info / "INSTALLER").write_text("pip\n")
    with (info / "RECORD").open("a") as record:
        record.write(f"{info.name}/INSTALLER,,\n../../bin/musgd,,\n")
    (tmp_path / "out").mkdir()
    code = (
        "import sys; from pathlib import Path; from musgd_cli.remote import own_wheel; "
        "assert own_wheel.checkout() is None; print(own_wheel.make(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    packed = Path(done.stdout.strip())
    assert packed.name == own.name
    with zipfile.ZipFile(own) as first, zipfile.ZipFile(packed) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        assert all(
            first.read(name) == second.read(name)
            for name in first.namelist()
            if not name.endswith("RECORD")
        )
    (found,) = importlib.metadata.distributions(path=[str(packed)])
    lines = found.read_text("RECORD").splitlines()
    assert len(lines) == len(second.namelist())
    data = (site / "musgd_cli/__init__.py").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    assert f"musgd_cli/__init__.py,sha256={digest},{len(data)}" in lines
