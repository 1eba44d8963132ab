"""The whole loop against Ultralytics' own predict and val, on real images and one ONNX model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.bench import measure_all
from musgd_cli.bench.subject import Subject
from musgd_cli.data import load
from musgd_cli.data.images import read_image
from musgd_cli.records import Artifact, BenchReport, BenchSettings
from musgd_cli.runtime import open_engine
from musgd_cli.runtime.detector import Detector

IMGSZ = 320
QUICK = BenchSettings(threads=1, duration_s=0.1, repeats=1, warmup_s=0, idle_s=0)


def measure(model: Exported, data: Path) -> BenchReport:
    subject = Subject(model.folder, model.artifact)
    (outcome,) = measure_all([subject], settings=QUICK, data=str(data), keep=False)
    assert outcome.report is not None
    return outcome.report


@dataclass(frozen=True)
class Exported:
    """One model, as Ultralytics and as we take it."""

    folder: Path
    artifact: Artifact

    @property
    def onnx(self) -> str:
        return str(self.folder / "model.onnx")


def export(ultralytics: ModuleType, weights: Path, folder: Path, *, nms_free: bool) -> Exported:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = ultralytics.YOLO(weights)
    options = {"nms": False} if nms_free else {}
    file = model.export(format="onnx", imgsz=IMGSZ, opset=17, simplify=False, **options)
    folder.mkdir()
    shutil.move(file, folder / "model.onnx")
    names = tuple(model.names.values())
    fields = {"imgsz": IMGSZ, "names": names, "nms_free": nms_free}
    return Exported(folder, tiny.describe(folder, "onnxruntime", ("model.onnx",), **fields))


@pytest.fixture(scope="module")
def coco_weights(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = shared / "models/yolo26n-coco.pt"
    if not weights.is_file():
        pytest.skip(f"no {weights}")
    # Ultralytics exports beside the weights.
    return Path(shutil.copy(weights, tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module", params=["nms", "nms-free"])
def coco(
    request: pytest.FixtureRequest,
    ultralytics: ModuleType,
    coco_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    folder = tmp_path_factory.mktemp("coco") / "artifact"
    return export(ultralytics, coco_weights, folder, nms_free=request.param == "nms-free")


def copied(shared: Path, name: str, to: Path) -> Path:
    """Ultralytics writes label caches beside the data."""
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"no {name} in {shared}")
    shutil.copytree(shared / "data" / name, to / name)
    return to / name / f"{name}.yaml"


def their_val(ultralytics: ModuleType, model: str, data: Path, split: str, out: Path):
    validation = ultralytics.YOLO(model, task="detect").val(
        data=str(data),
        split=split,
        imgsz=IMGSZ,
        batch=1,
        rect=False,
        plots=False,
        workers=0,
        project=str(out),
    )
    return validation.box


@pytest.mark.slow
def test_boxes_and_scores_are_those_of_predict(
    ultralytics: ModuleType, coco: Exported, shared: Path
) -> None:
    theirs = ultralytics.YOLO(coco.onnx, task="detect")
    ours = Detector(open_engine(coco.folder, coco.artifact, 1), coco.artifact)
    n = 0
    for path in islice(load(shared / "data/coco128").images("val"), 50):
        image = read_image(path)
        (result,) = theirs.predict(image, conf=0.25, iou=0.7, imgsz=IMGSZ)
        expected, found = result.boxes.data.numpy(), ours.detect(image)
        assert len(found) == len(expected), path.name
        np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=0.5)
        np.testing.assert_allclose(found[:, 4], expected[:, 4], atol=1e-3)
        np.testing.assert_array_equal(found[:, 5], expected[:, 5])
        n += len(found)
    assert n > 100


@pytest.mark.slow
def test_map_on_coco128_is_that_of_val(
    ultralytics: ModuleType, coco: Exported, shared: Path, tmp_path: Path
) -> None:
    data = copied(shared, "coco128", tmp_path)
    report = measure(coco, data)
    theirs = their_val(ultralytics, coco.onnx, data, "val", tmp_path)
    assert report.n_images == 128
    assert report.map50_95 == pytest.approx(theirs.map, abs=0.003)
    assert report.map50 == pytest.approx(theirs.map50, abs=0.003)
    assert report.map50_95 > 0.3


@pytest.mark.slow
def test_map_on_bccd_is_that_of_val(
    ultralytics: ModuleType, coco_weights: Path, shared: Path, tmp_path: Path
) -> None:
    data = copied(shared, "bccd", tmp_path)
    model = ultralytics.YOLO(coco_weights)
    model.train(
        data=str(data),
        epochs=2,
        imgsz=192,
        batch=8,
        optimizer="AdamW",
        lr0=0.002,
        device="cpu",
        workers=0,
        plots=False,
        val=False,
        project=str(tmp_path),
    )
    weights = Path(model.trainer.last)
    exported = export(ultralytics, weights, tmp_path / "artifact", nms_free=False)
    report = measure(exported, data)
    theirs = their_val(ultralytics, exported.onnx, data, "test", tmp_path)
    assert (report.split, report.n_images) == ("test", 72)
    assert report.map50_95 == pytest.approx(theirs.map, abs=0.003)
    assert report.map50 == pytest.approx(theirs.map50, abs=0.003)
    by_class = dict(zip(theirs.ap_class_index.tolist(), theirs.ap.tolist(), strict=True))
    for class_id, ap in by_class.items():
        assert report.ap50_95[exported.artifact.names[class_id]] == pytest.approx(ap, abs=0.003)
    assert report.map50_95 > 0.02, "a model that finds nothing agrees with anything"
