"""What every test stands on: a home of its own, no settings from outside, the shared data."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parents[1]

# As musgd itself has it for training; torch's OpenMP reads it once, when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
if "PYTEST_XDIST_WORKER" in os.environ:  # the others have the other cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy board is slow, not wrong: no example fails for the time it took.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One empty home folder for the whole session: nobody's caches and settings are touched."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        for name in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.delenv(f"XDG_{name}_HOME", raising=False)
        yield folder


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, board or colour that whoever runs the tests has exported."""
    for name in os.environ:
        if name.startswith("MUSGD_") and name != "MUSGD_SHARED":
            monkeypatch.delenv(name)
    for name in ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    # A machine that has an NVIDIA GPU answers as one without: tests of a GPU bring their own.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights that lies outside the repository, or a skip."""
    folder = Path(os.environ.get("MUSGD_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data in {folder}; set MUSGD_SHARED")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def check_command_line(repository: Path) -> Callable[[str], None]:
    """Return a check that a ``musgd …`` line parses: its verbs and options exist, values fit.

    Nothing is run. Paths are looked up from the repository's root.
    """
    import typer

    from musgd_cli.commands import app

    def check(line: str) -> None:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "musgd", line
        command, context, name = typer.main.get_command(app), None, "musgd"
        try:
            while True:
                context = command.make_context(name, arguments, parent=context)
                if not hasattr(command, "resolve_command"):
                    return
                rest = [*context._protected_args, *context.args]
                name, command, arguments = command.resolve_command(context, rest)
        except (typer.Exit, SystemExit):  # --version, --help and their like end the parsing
            return
        except typer.TyperException as error:
            if not str(error):  # a bare group, which shows its help
                return
            pytest.fail(f"{line}: {getattr(error, 'format_message', error.__str__)()}")

    return check


@pytest.fixture(scope="session")
def ultralytics() -> ModuleType:
    """Ultralytics to compare with, its outward doors shut, or a skip."""
    if find_spec("ultralytics") is None:
        pytest.skip("Ultralytics is not installed")
    from musgd_cli.train import sandbox

    sandbox.prepare()
    return import_module("ultralytics")
