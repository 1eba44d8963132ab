"""One real export of a small random network, shared by the tests that look at it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from musgd_cli.compress import export
from musgd_cli.records import Artifact, ExportReport

_NEEDED = ("torch", "ultralytics", "onnx", "onnxruntime", "openvino", "nncf", "pnnx", "ncnn")
if any(find_spec(name) is None for name in _NEEDED):
    collect_ignore_glob = ["test_*.py"]

SIZE = 64


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Contents and times of everything below a folder."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A folder with weights.pt (three classes, random) and a data set, squares.yaml."""
    import cv2
    import numpy as np

    from musgd_cli.train import checkpoint, sandbox

    sandbox.prepare()
    import torch
    from ultralytics.nn.tasks import DetectionModel

    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    model = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    model.names = {0: "disc", 1: "square", 2: "bar: long"}
    checkpoint.write_weights(folder / "weights.pt", model, {})
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 255, (48, 80, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            (folder / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    names = '[disc, square, "bar: long"]'
    (folder / "squares.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
    return folder


@pytest.fixture(scope="module")
def settled_material(given: Path, tmp_path_factory: pytest.TempPathFactory):
    """A small random network and six images.

    Its batch norms know what they normalize, or else nothing of the image would reach the output.
    """
    import torch

    from musgd_cli.compress import calibration, formats, parent
    from musgd_cli.train import checkpoint

    source = given / "weights.pt"
    model = checkpoint.load_weights(source, trust=False).train()
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(8, 3, SIZE, SIZE))
    network = parent.prepare(model, SIZE, nms_free=False, source=source)
    onnx = tmp_path_factory.mktemp("parent") / parent.FILE
    parent.write(network, onnx)
    images = tuple(sorted((given / "images" / "train").iterdir()))
    return formats.Material(("pi4b",), network, onnx, calibration.Inputs(images, SIZE), "minmax")


@pytest.fixture(scope="session")
def make_material(given: Path, tmp_path_factory: pytest.TempPathFactory):
    """Make what a format builds from: a float parent of the given weights, images that calibrate.

    Normalized by what it sees, and with scores about a half: a random network answers alike to all.
    """
    import torch

    from musgd_cli.compress import calibration, formats, parent
    from musgd_cli.compress.silence import silence
    from musgd_cli.data import load
    from musgd_cli.train.checkpoint import load_weights

    def make(*, nms_free: bool) -> formats.Material:
        weights = given / "weights.pt"
        model = load_weights(weights, trust=False)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        noise = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            model.train()(noise)
            head = model.model[-1]
            for branches, bias in (
                (head.cv2, 1.0),
                (head.one2one_cv2, 1.0),
                (head.cv3, 0.0),
                (head.one2one_cv3, 0.0),
            ):
                for i, branch in enumerate(branches):
                    branch[-1].weight.mul_(0.2)
                    branch[-1].bias.fill_(bias + 0.1 * i)  # of equal ones torch writes one
        file = tmp_path_factory.mktemp("parent") / parent.FILE
        with silence():
            network = parent.prepare(model, SIZE, nms_free=nms_free, source=weights)
            parent.write(network, file)
        inputs = calibration.choose(load(given / "squares.yaml"), 4, seed=0).at(SIZE)
        return formats.Material(("x86-gpu",), network, file, inputs, "minmax")

    return make


@pytest.fixture(scope="session")
def material(make_material):
    """Of the head that needs NMS."""
    return make_material(nms_free=False)


@pytest.fixture(scope="session")
def nms_free_material(make_material):
    """Of the head that needs none."""
    return make_material(nms_free=True)


@dataclass
class Job:
    """What one export did."""

    report: ExportReport
    place: Path
    before: dict[str, tuple[str, int]]
    after: dict[str, tuple[str, int]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def artifact(self, target: str, runtime: str, precision: str) -> Artifact:
        """The one artifact of that kind."""
        (found,) = (
            a
            for a in self.report.artifacts
            if (a.target, a.runtime, a.precision) == (target, runtime, precision)
        )
        return found


@pytest.fixture(scope="session")
def run_export(given: Path) -> Callable[..., Job]:
    """Export the given weights into a folder; keywords are those of `compress.export`."""

    def run(place: Path, **options) -> Job:
        before = fingerprint(given)
        notes: list[str] = []
        warnings: list[str] = []
        flags = {
            "train.data": str(given / "squares.yaml"),
            "train.imgsz": SIZE,
            "compress.calib": 4,
            **options.pop("flags", {}),
        }
        report = export(
            str(given / "weights.pt"),
            out=place,
            flags=flags,
            on_note=notes.append,
            on_warning=warnings.append,
            **options,
        )
        return Job(report, place, before, fingerprint(given), notes, warnings)

    return run


@pytest.fixture(scope="session")
def job(run_export: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """INT8 for every kind of target."""
    targets = ["x86-cpu", "pi4b", "jetson-nano"]
    return run_export(tmp_path_factory.mktemp("made"), targets=targets, int8=True)
