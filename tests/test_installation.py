"""How to add to musgd, in environments that it came to in each of the ways there are."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musgd_cli.errors import ExitCode
from musgd_cli.installation import ExtraError


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that has nothing in it."""
    folder = tmp_path_factory.mktemp("share") / "musgd"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    return folder


@pytest.fixture
def record(prefix: Path) -> Any:
    """Return what notes in the environment where pip took musgd from."""
    made: list[Path] = []

    def note(direct_url: object) -> None:
        site = next((prefix / "venv/lib").glob("python*/site-packages"))
        info = site / "musgd_cli-0.1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: musgd-cli\nVersion: 0.1.0\n")
        made.append(info / "direct_url.json")
        made[-1].write_text(json.dumps(direct_url) if direct_url is not None else "")

    yield note
    (prefix / "manifest").unlink(missing_ok=True)
    for file in made:
        file.unlink(missing_ok=True)


def add(prefix: Path, repository: Path, cwd: Path, **environment: str) -> str:
    python = prefix / "venv/bin/python"
    code = "from musgd_cli.installation import how_to_add; print(how_to_add('train'))"
    done = subprocess.run(
        [python, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(repository), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_of_an_index(prefix: Path, repository: Path, tmp_path: Path, record: Any) -> None:
    record(None)
    python = prefix / "venv/bin/python"
    assert add(prefix, repository, tmp_path) == f"{python} -m pip install 'musgd-cli[train]'"


def test_the_pip_that_is_meant_by_the_word(
    prefix: Path, repository: Path, tmp_path: Path, record: Any
) -> None:
    record(None)
    pip = prefix / "venv/bin/pip"
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    path = f"{pip.parent}:{os.environ['PATH']}"
    assert add(prefix, repository, tmp_path, PATH=path) == "pip install 'musgd-cli[train]'"
    pip.unlink()


@pytest.mark.parametrize(("editable", "flag"), [(True, "-e "), (False, "")])
def test_of_a_checkout(
    prefix: Path, repository: Path, tmp_path: Path, record: Any, editable: bool, flag: str
) -> None:
    checkout = tmp_path / "my musgd"
    checkout.mkdir()
    record({"url": checkout.as_uri(), "dir_info": {"editable": editable}})
    said = add(prefix, repository, tmp_path)
    assert said.endswith(f" -m pip install {flag}'{checkout}[train]'")
    assert add(prefix, repository, checkout).endswith(f" -m pip install {flag}'.[train]'")


def test_of_the_install_script(prefix: Path, repository: Path, tmp_path: Path, record: Any) -> None:
    record({"url": tmp_path.as_uri(), "dir_info": {}})
    head = (repository / "installer/board.sh").read_text().split('MANIFEST_HEAD="')[1]
    (prefix / "manifest").write_text(head.split('"')[0] + "\nmade venv\n")
    assert add(prefix, repository, tmp_path) == "install.sh --extras train of a checkout of musgd"
    script = tmp_path / "install.sh"
    script.touch()
    said = add(prefix, repository, tmp_path)
    assert said == f"sh {script} --extras train --prefix {prefix}"
    usual = add(prefix, repository, tmp_path, XDG_DATA_HOME=str(prefix.parent))
    assert usual == f"sh {script} --extras train"


def test_of_a_wheelhouse(prefix: Path, repository: Path, tmp_path: Path, record: Any) -> None:
    wheel = tmp_path / "musgd_cli-0.1.0-py3-none-any.whl"
    record({"url": wheel.as_uri(), "archive_info": {}})
    (prefix / "manifest").write_text("# What musgd's install.sh has made; and so on\n")
    assert "musgd wheelhouse --target BOARD --extras train" in add(prefix, repository, tmp_path)


@pytest.mark.parametrize("damaged", [[], {}, {"url": 3}, {"url": "https://a.b/c"}, {"url": "["}])
def test_what_cannot_be_read_is_an_index(
    prefix: Path, repository: Path, tmp_path: Path, record: Any, damaged: object
) -> None:
    record(damaged)
    (prefix / "manifest").write_bytes(b"\xff\xfe")
    assert add(prefix, repository, tmp_path).endswith("install 'musgd-cli[train]'")


def test_the_error_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(ExtraError("optuna is not installed here", "tune")))
    assert (error.what, error.extra) == ("optuna is not installed here", "tune")
    assert "[tune]'" in error.mend
    assert error.exit_code is ExitCode.UNSUPPORTED
