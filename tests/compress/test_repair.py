"""A model broken on purpose fails its gate; what broke it goes back to float, and it passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from musgd_cli import data
from musgd_cli.__main__ import main
from musgd_cli.compress import onnx_graph, repair

N_IMAGES = 24


@pytest.fixture(scope="module")
def street(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some images of COCO128, as a data set of their own."""
    folder = tmp_path_factory.mktemp("street")
    source = shared / "data" / "coco128"
    images = sorted((source / "images").rglob("*.jpg"))[:N_IMAGES]
    for image in images:
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        for kind, file in (("images", image), ("labels", label)):
            place = folder / kind / file.name
            place.parent.mkdir(exist_ok=True)
            if file.exists():
                shutil.copyfile(file, place)
    (described,) = source.glob("*.yaml")
    names = data.load(described).names
    text = f"train: images\nval: images\nnames: {json.dumps(names)}\n"
    (folder / "street.yaml").write_text(text)
    return folder / "street.yaml"


def test_attention_can_go_back_to_float(material, tmp_path):
    """ONNX Runtime's own scheme keeps it float; OpenVINO, ncnn and TensorRT quantize it."""
    file = repair.quantize_all_that_some_do(material, tmp_path)
    layers = onnx_graph.read_back(file, needs_rounded_result=False)
    assert any("/attn/qkv/" in name for name in layers.int8_layers)
    last = onnx_graph.last_convolutions(onnx_graph.load(material.onnx).graph)
    assert last <= set(layers.float_layers)


@pytest.mark.parametrize("repaired", [False, True])
def test_quantizing_everything(street, shared, tmp_path, monkeypatch, capsys, repaired):
    monkeypatch.chdir(tmp_path)
    options = ["--int8", "--quantize-all", "--runtime", "onnxruntime", "--imgsz", "192"]
    code = main(
        [
            *("export", str(shared / "models" / "yolo26n-coco.pt"), "--data", str(street)),
            *("--target", "x86-cpu", *options, "--json"),
            *(["--auto-mixed"] if repaired else []),
        ]
    )
    out, err = capsys.readouterr()
    _, model = json.loads(out)["artifacts"]
    gate = model["gate"]
    assert gate["n_images"] == N_IMAGES - N_IMAGES // 4  # the same images train and score
    if not repaired:
        assert (code, gate["verdict"]) == (4, "failed")
        assert gate["match_recall"] < 0.8
        assert err.splitlines()[-2].startswith("error: 1 model fails the gate: ")
        assert "failed" in (Path(model["path"]) / "README.md").read_text()
        return
    assert code == 0, err
    mended = model["repair"]
    assert gate["verdict"] != "failed"
    assert gate["map50_95_drop"] < mended["drop_before"] / 4
    # The part that puts boxes and scores into one tensor is the one that ruins them.
    assert any(node.startswith("/model.23/Concat") for node in mended["nodes"])
    assert model["int8_macs_share"] >= 0.8
