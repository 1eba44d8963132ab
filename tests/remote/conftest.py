"""Boards on loopback for the tests of this folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import loopback
import pytest
import tiny_artifact as tiny


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[loopback.Network]:
    """A network that boards are added to, each test's under names of its own."""
    with loopback.network(tmp_path_factory.mktemp("network")) as opened:
        yield opened


@pytest.fixture
def workshop(network: loopback.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with a run ``r`` of one null artifact and a data set."""
    monkeypatch.setenv("MUSGD_SSH", shlex.join(["ssh", "-F", str(network.config)]))
    monkeypatch.chdir(tmp_path)
    tiny.make_null(Path(loopback.MODEL))
    tiny.make_data(Path("squares"), n_images=2)
    return tmp_path


@pytest.fixture(scope="session")
def pi(network: loopback.Network, repository: Path) -> Path:
    """The home folder of a board ``pi``, which has this very musgd."""
    home = network.board("pi")
    (home / ".bashrc").write_text("echo welcome, it is a fine day\n")
    program = shlex.join([sys.executable, "-m", "musgd_cli"])
    loopback.install(home, f'PYTHONPATH={shlex.quote(str(repository))} exec {program} "$@"')
    return home
