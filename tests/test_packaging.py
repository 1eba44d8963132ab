"""What leaves the house: profiles and types are in the sdist, its wheel, and in this checkout."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from musgd_cli import profiles
from musgd_cli.installation import ENGINE_EXTRAS

pytest.importorskip("hatchling", reason="the dev extra is not installed")


def build(source: Path, out: Path, target: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", out],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(repository, folder / "built", "sdist")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("musgd_cli-*")
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the source distribution as an installer would."""
    return zipfile.ZipFile(build(sdist, tmp_path_factory.mktemp("wheel") / "built", "wheel"))


def shipped(repository: Path) -> set[str]:
    return {file.name for file in repository.glob("profiles/*.toml")}


def test_the_sdist_holds_what_it_takes_to_build_and_test(repository: Path, sdist: Path) -> None:
    assert shipped(sdist) == shipped(repository) != set()
    for name in ("install.sh", "LICENSE", "CHANGELOG.md", "tests/conftest.py", "pyproject.toml"):
        assert (sdist / name).is_file(), name
    assert os.access(sdist / "install.sh", os.X_OK)


def test_the_wheel_holds_the_package_its_types_and_its_profiles(
    repository: Path, wheel: zipfile.ZipFile
) -> None:
    names = set(wheel.namelist())
    assert {f"musgd_cli/_profiles/{name}" for name in shipped(repository)} <= names
    assert "musgd_cli/py.typed" in names
    modules = {str(file.relative_to(repository)) for file in repository.glob("musgd_cli/**/*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {name.split("/")[0].split("-")[0] for name in names} == {"musgd_cli"}


def test_the_agent_for_boards_without_musgd_runs_from_the_wheel_alone(
    repository: Path, sdist: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    path = "musgd_cli/board/nano_agent.py"
    assert (sdist / path).is_file()
    copied = Path(wheel.extract(path, tmp_path))
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            copied,
            "doctor",
            "--root",
            repository / "tests/boards/jetson-nano",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["board"] == "jetson-nano"


def test_the_wheel_finds_its_profiles_far_from_the_repository(
    repository: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "musgd_cli", "profiles", "list", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = json.loads(done.stdout)["profiles"]
    assert {f"{profile['name']}.toml" for profile in listed} == shipped(repository)


def test_this_installation_lists_every_profile(repository: Path) -> None:
    assert {f"{profile.name}.toml" for profile in profiles.available()} == shipped(repository)


def test_every_extra_that_an_error_names_exists(repository: Path) -> None:
    """What a mend line tells to install must not be a dead end."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    named = set(ENGINE_EXTRAS.values())
    for file in repository.glob("musgd_cli/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case (
                    ast.Call(ast.Name("how_to_add"), [ast.Constant(str(extra))])
                    | ast.Call(ast.Name("ExtraError"), [_, ast.Constant(str(extra)), *_])
                    | ast.Assign([ast.Name("EXTRA")], ast.Constant(str(extra)))
                ):
                    named.add(extra)
    assert {"train", "prune", "quantize", "tune", "report", "litert-export"} <= named <= extras


def test_the_headless_opencv_comes_with_every_runtime(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for runtime in ("onnx", "openvino", "ncnn", "litert", "tensorrt"):
        assert any(need.startswith("opencv-python-headless") for need in extras[runtime]), runtime
