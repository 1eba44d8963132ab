"""A Jetson Nano that is a recorded tree, with a trtexec that only plays it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from musgd_cli.board import NANO_AGENT
from musgd_cli.records import Artifact
from musgd_cli.storage import sha256_of, write_record

BOARDS = Path(__file__).parents[1] / "boards"
FAKE = Path(__file__).parent / "fake_trtexec.py"
METER = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"


class Nano:
    """A board to measure on, an artifact to measure, and how its trtexec shall behave."""

    def __init__(self, folder: Path, board: str = "jetson-nano") -> None:
        self.root = folder / board
        shutil.copytree(BOARDS / board, self.root, symlinks=True)
        self.trtexec = self.root / "usr/src/tensorrt/bin/trtexec"
        self.trtexec.parent.mkdir(parents=True)
        self.trtexec.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
        self.trtexec.chmod(0o755)
        self.artifact = folder / "jetson-nano-tensorrt-fp16-320"
        self.home = folder / "home"
        self.engines = self.home / ".cache/musgd/engines"
        self.how: dict[str, Any] = {}
        self.describe()

    @property
    def meter(self) -> Path:
        return self.root / METER

    def describe(self, onnx: bytes = b"a model.", **fields: Any) -> None:
        """Write the artifact anew."""
        self.artifact.mkdir(exist_ok=True)
        (self.artifact / "model.onnx").write_bytes(onnx)
        known: dict[str, Any] = {
            "path": "runs/a/artifacts/jetson-nano-tensorrt-fp16-320",
            "files": ("model.onnx",),
            "sha256": sha256_of([self.artifact / "model.onnx"]),
            "parent_sha256": "p" * 64,
            "target": "jetson-nano",
            "boards": ("jetson-nano", "jetson-nano-2gb"),
            "runtime": "tensorrt",
            "precision_asked": "fp16",
            "precision": "fp16",
            "imgsz": 320,
            "names": ("red", "green"),
            "nms_free": False,
            "size_mb": 5.25,
        }
        write_record(self.artifact / "artifact.json", Artifact.model_validate(known | fields))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the agent as a board would: its own file, and no package of anybody's."""
        return subprocess.Popen(
            [sys.executable, "-I", "-S", NANO_AGENT, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "FAKE_TRTEXEC": json.dumps(self.how),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Measure for as short as can be: at once, unless power is to be sampled."""
        self.how.setdefault("hurry", "meter" not in self.how)
        short = ("--duration", "1", "--repeats", "1", "--warmup", ".1", "--idle", "0")
        return self.run("bench", str(self.artifact), "--root", str(self.root), *short, *arguments)

    def report(self) -> dict[str, Any]:
        """The one report that was kept."""
        (file,) = (self.artifact / "bench").glob("*.json")
        return json.loads(file.read_text())

    def left(self) -> set[str]:
        """What lies in the artifact's folder besides the artifact, and in the home folder."""
        found = [*self.artifact.rglob("*"), *self.home.rglob("*")]
        return {path.name for path in found if path.is_file()} - {"model.onnx", "artifact.json"}


@pytest.fixture
def nano(tmp_path: Path) -> Nano:
    return Nano(tmp_path)


@pytest.fixture
def nano_of(tmp_path: Path) -> Callable[[str], Nano]:
    """The same of another recorded board."""
    return lambda board: Nano(tmp_path, board)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Nano, str, Path]:
    """A whole run of three repeats on a changing power, what it said, and the true energies.

    A machine too busy to sample ten times a second gets a second and a third chance.
    """
    for _ in range(3):
        nano = Nano(tmp_path_factory.mktemp("measured"))
        truth = nano.root / "truth"
        nano.how = {"meter": str(nano.meter), "truth": str(truth)}
        arguments = ("--duration", "3", "--repeats", "3", "--warmup", "1.8", "--idle", "1.5")
        done = nano.run("bench", str(nano.artifact), "--root", str(nano.root), *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{next((nano.artifact / 'bench').iterdir())}\n"
        if nano.report()["power_w"] and nano.report()["idle_w"]:
            break
    return nano, done.stderr, truth
