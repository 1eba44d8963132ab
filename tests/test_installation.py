"""How to add to musgd, in environments that it came to in each of the ways there are."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
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
    return ask("how_to_add('train')", prefix, repository, cwd, **environment)


def ask(what: str, prefix: Path, repository: Path, cwd: Path, **environment: str) -> str:
    python = prefix / "venv/bin/python"
    code = f"from musgd_cli.installation import *; print({what})"
    done = subprocess.run(
        [python, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(repository), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def elsewhere(repository: Path, tmp_path: Path) -> Path:
    """The code alone, as in an installation: no checkout is around it."""
    package = tmp_path / "site/musgd_cli"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "installation.py"):
        shutil.copy(repository / "musgd_cli" / name, package)
    return package.parent


@pytest.mark.parametrize("damaged", [None, [], {}, {"url": 3}, {"url": "a:b"}, {"url": "["}])
def test_of_nowhere_that_is_known_it_is_a_checkout(
    prefix: Path, elsewhere: Path, tmp_path: Path, record: Any, damaged: object
) -> None:
    """Never by musgd-cli alone: on an index that may be anybody's."""
    record(damaged)
    (prefix / "manifest").write_bytes(b"\xff\xfe")
    python = prefix / "venv/bin/python"
    assert add(prefix, elsewhere, tmp_path) == (
        f"{python} -m pip install '/path/to/musgd[train]', of a checkout"
    )


def test_of_a_checkout_that_is_not_installed(
    prefix: Path, repository: Path, tmp_path: Path, record: Any
) -> None:
    record(None)
    assert add(prefix, repository, tmp_path).endswith(f" -m pip install '{repository}[train]'")


@pytest.mark.parametrize(
    ("recorded", "source"),
    [
        ({"url": "https://a.b/c", "archive_info": {}}, "https://a.b/c"),
        ({"url": "https://a.b/c", "vcs_info": {"vcs": "git"}}, "git+https://a.b/c"),
        (
            {"url": "ssh://a/b.git", "vcs_info": {"vcs": "git", "requested_revision": "v1"}},
            "git+ssh://a/b.git@v1",
        ),
        ({"url": "file:///a/b", "vcs_info": {"vcs": "git"}}, "git+file:///a/b"),
    ],
)
def test_of_a_url(
    prefix: Path, elsewhere: Path, tmp_path: Path, record: Any, recorded: object, source: str
) -> None:
    record(recorded)
    said = add(prefix, elsewhere, tmp_path)
    assert said.endswith(f" -m pip install 'musgd-cli[train] @ {source}'")


def test_the_pip_that_is_meant_by_the_word(
    prefix: Path, elsewhere: Path, tmp_path: Path, record: Any
) -> None:
    record({"url": "https://a.b/c", "archive_info": {}})
    pip = prefix / "venv/bin/pip"
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    path = f"{pip.parent}:{os.environ['PATH']}"
    said = add(prefix, elsewhere, tmp_path, PATH=path)
    assert said == "pip install 'musgd-cli[train] @ https://a.b/c'"
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
    again = ask("how_to_repair()", prefix, repository, tmp_path)
    assert again.endswith(f" -m pip install --force-reinstall --no-deps {flag}'{checkout}'")


def test_of_the_install_script(prefix: Path, repository: Path, tmp_path: Path, record: Any) -> None:
    record({"url": tmp_path.as_uri(), "dir_info": {}})
    head = (repository / "installer/board.sh").read_text().split('MANIFEST_HEAD="')[1]
    (prefix / "manifest").write_text(head.split('"')[0] + "\nmade venv\n")
    assert add(prefix, repository, tmp_path) == (
        f"sh /path/to/musgd/install.sh --extras train --prefix {prefix}, of a checkout"
    )
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
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"

    def said(board: str, extras: str, hint: str = "") -> str:
        return (
            f"on a machine with a network: musgd wheelhouse --target {board} --python {python} "
            f"--extras {extras}{hint}; then here, with the folder that it made: "
            f"sh wheelhouse-{board}/install.sh --offline wheelhouse-{board} --prefix {prefix}"
        )

    unknown = said("BOARD", "train", ", where BOARD is what musgd doctor calls this one")
    house = wheel.with_name("wheelhouse.json")
    assert add(prefix, repository, tmp_path) == unknown
    for damaged in ("", "[]", '{"target": "pi4b"}', '{"target": "pi4b", "extras": 3}'):
        house.write_text(damaged)
        assert add(prefix, repository, tmp_path) == unknown
    house.write_text('{"target": "pi4b", "extras": ["ncnn", "onnx"]}')
    assert add(prefix, repository, tmp_path) == said("pi4b", "ncnn,onnx,train")


def test_no_mend_is_of_another_pythons_pip(repository: Path) -> None:
    """install.sh puts no pip on the PATH: the one that is there is not musgd's."""
    of_a_board = {"commands/bundle.py"}
    package = repository / "musgd_cli"
    bare = [
        f"{name}: {line.strip()}"
        for file in sorted(package.rglob("*.py"))
        if (name := file.relative_to(package).as_posix()) not in of_a_board
        for line in file.read_text("utf-8").splitlines()
        if re.search(r"""^[^#]*"[^"`]*(?<!-m )\bpip (un)?install\b""", line)
    ]
    assert bare == []


def test_the_error_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(ExtraError("optuna is not installed here", "tune")))
    assert (error.what, error.extra) == ("optuna is not installed here", "tune")
    assert "[tune]'" in error.mend
    assert error.exit_code is ExitCode.UNSUPPORTED
