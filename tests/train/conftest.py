"""A data set, a model and runs so small that a training epoch takes a fraction of a second."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_model import MODEL

from musgd_cli import train
from musgd_cli.records import Host, Plan
from musgd_cli.runs import RunFolder, create_run
from musgd_cli.settings import settle

if find_spec("torch") is None or find_spec("ultralytics") is None:
    collect_ignore_glob = ["test_*.py"]

MakePlan = Callable[..., Plan]
Fingerprint = Callable[[Path], dict[str, tuple[str, int]]]


@pytest.fixture(scope="session", autouse=True)
def prepared(home: Path) -> None:  # which holds Ultralytics' private settings
    """Ultralytics with its doors shut. Tests import it inside, after this."""
    from musgd_cli.train import sandbox

    sandbox.prepare()


def draw_set(folder: Path, *, n_train: int = 10, n_val: int = 4) -> Path:
    """Write a set of two classes, bright and dark squares on noise, and return its YAML."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", n_train), ("val", n_val)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(count):
            height, width = (64, 80) if number % 3 else (80, 64)
            image = rng.integers(60, 190, (height, width, 3), np.uint8)
            left, top = (int(edge) for edge in rng.integers(4, 28, 2))
            image[top : top + 24, left : left + 24] = 255 * (number % 2)
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            x, y = (left + 12) / width, (top + 12) / height
            row = f"{number % 2} {x:.5f} {y:.5f} {24 / width:.5f} {24 / height:.5f}\n"
            (folder / "labels" / split / f"{number}.txt").write_text(row)
    file = folder / "squares.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [dark, bright]\n")
    return file


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a data set that no test changes."""
    return draw_set(tmp_path_factory.mktemp("given") / "squares")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model YAML of six layers."""
    file = tmp_path_factory.mktemp("model") / "tiny.yaml"
    file.write_text(MODEL)
    return file


@pytest.fixture(scope="session")
def make_plan(squares: Path, tiny_model: Path) -> MakePlan:
    """A function that settles a plan of two short epochs, changed by its keywords.

    ``optim__lr=.1`` is the setting ``optim.lr``.
    """

    def make(**changes: Any) -> Plan:
        flags = {
            "train.data": str(squares),
            "train.model": str(tiny_model),
            "train.epochs": 2,
            "train.imgsz": 64,
            "train.batch": 4,
            "train.threads": 1,
            "optim.warmup_epochs": 1,
            **{key.replace("__", "."): value for key, value in changes.items()},
        }
        return settle(host=Host(board="x86-cpu"), environ={}, flags=flags)

    return make


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[str], RunFolder]:
    """A function that creates a run's folder."""
    return lambda name: create_run(name, tmp_path / "runs")


@pytest.fixture(scope="session")
def finished(make_plan: MakePlan, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, which no test changes."""
    run = create_run("finished", tmp_path_factory.mktemp("runs"))
    train.train(make_plan(), run)
    return run


@pytest.fixture(scope="session")
def learned(make_plan: MakePlan, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run that finds some of the squares; no test changes it."""
    run = create_run("learned", tmp_path_factory.mktemp("runs"))
    train.train(make_plan(train__epochs=15, optim__name="adamw", optim__lr=0.01), run)
    assert run.result().map50 > 0.1
    return run


@pytest.fixture(scope="session")
def fingerprint() -> Fingerprint:
    """A function that tells whether anything below a folder was written, renamed or touched."""

    def of(folder: Path) -> dict[str, tuple[str, int]]:
        return {
            str(path.relative_to(folder)): (
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
                path.stat().st_mtime_ns,
            )
            for path in sorted((folder, *folder.rglob("*")))
        }

    return of


@pytest.fixture(scope="session")
def same_weights() -> Callable[[Path, Path], bool]:
    """A function that says whether two checkpoints hold the same values, bit for bit."""
    import torch

    from musgd_cli.train.checkpoint import load_weights

    def same(one: Path, other: Path) -> bool:
        ours, theirs = (load_weights(file).state_dict() for file in (one, other))
        return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)

    return same
