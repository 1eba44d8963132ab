"""Recorded machines that are changed while they are read, and time that passes on command."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from musgd_cli.hardware.power import Clock, PowerMeter
from musgd_cli.records import PowerReading

BOARDS = Path(__file__).parents[1] / "boards"
_NOBODY = 65534


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """A recorded tree of one's own, by its name."""

    def copy(name: str) -> Path:
        tree = tmp_path / name
        shutil.copytree(BOARDS / name, tree, symlinks=True)
        return tree

    return copy


@pytest.fixture
def as_nobody() -> Iterator[Callable[[str], Path]]:
    """A recorded tree, read by a user whom permissions stop."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    me = os.geteuid()

    def copy(name: str) -> Path:
        tree = folder / name
        shutil.copytree(BOARDS / name, tree, symlinks=True)
        if me == 0:
            for path in folder.rglob("*"):
                if not path.is_symlink():
                    os.chown(path, _NOBODY, _NOBODY)
            os.seteuid(_NOBODY)
        return tree

    try:
        yield copy
    finally:
        os.seteuid(me)
        shutil.rmtree(folder)


class ReplayClock(Clock):
    """Time that passes only while a meter waits for its next sample.

    Args:
        play: Makes the machine look as it did so many seconds after the replay's start.
        start_s: Where it starts.
    """

    def __init__(self, play: Callable[[float], None], start_s: float = 0.0) -> None:
        self._play = play
        self._now_s = self._end_s = start_s
        self._over = threading.Event()
        play(start_s)

    def now_s(self) -> float:
        return self._now_s

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self._now_s = min(self._now_s + seconds, self._end_s)
        self._play(self._now_s)
        if self._now_s < self._end_s:
            return stop.is_set()
        self._over.set()
        return stop.wait()

    def skip(self, seconds: float) -> None:
        """Let seconds pass with no window open."""
        self._now_s = self._end_s = self._end_s + seconds
        self._play(self._now_s)

    def measure(self, meter: PowerMeter, seconds: float) -> PowerReading | None:
        """Let ``meter`` measure the next seconds."""
        self._end_s += seconds
        self._over.clear()
        meter.begin()
        # A meter that has died waits no more.
        while not self._over.wait(0.01) and _runs(f"power {meter.source}"):
            pass
        self.skip(0.0)
        return meter.end()


def _runs(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


@pytest.fixture
def replay() -> type[ReplayClock]:
    return ReplayClock
