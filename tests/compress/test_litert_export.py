"""LiteRT models of a real network: what is converted, what is int8 in them, what stays float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("litert_torch", reason="pip install 'musgd-cli[litert-export]'")
pytest.importorskip("ai_edge_quantizer", reason="pip install 'musgd-cli[litert-export]'")

from musgd_cli.compress import calibration, litert, onnx_graph
from musgd_cli.compress.formats import Material
from musgd_cli.compress.silence import silence
from musgd_cli.records import Precision
from musgd_cli.runtime import engine_class

pytestmark = pytest.mark.slow

SIZE = 64


@pytest.fixture(scope="module")
def material(settled_material: Material) -> Material:
    return settled_material


Build = Callable[..., Path]


@pytest.fixture
def build(material: Material, tmp_path: Path) -> Build:
    """Build and return the folder; the method is in ``method.txt``. All share one memo."""

    def run(precision: Precision = "int8", **fields: object) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with silence():
            method = litert.build(replace(material, **fields), folder, precision)
        (folder / "method.txt").write_text(str(method))
        return folder

    return run


@pytest.fixture(scope="module")
def convolutions(material: Material) -> list[str]:
    graph = onnx_graph.load(material.onnx).graph
    return [node.name for node in graph.node if node.op_type == "Conv"]


def answer(folder: Path, runtime: str, file: str, x: np.ndarray) -> np.ndarray:
    artifact = SimpleNamespace(
        files=(file,), imgsz=SIZE, names=("a", "b", "c"), nms_free=False, runtime=runtime
    )
    engine = engine_class(runtime)(folder, artifact, 1)
    try:
        return np.array(engine.infer(x))
    finally:
        engine.close()


def ask(folder: Path, material: Material) -> np.ndarray:
    return answer(folder, "litert", "model.tflite", next(iter(material.inputs)))


def ask_parent(material: Material) -> np.ndarray:
    folder, x = material.onnx.parent, next(iter(material.inputs))
    return answer(folder, "onnxruntime", material.onnx.name, x)


def test_the_float_model_answers_as_its_parent(build, material):
    folder = build("fp32")
    got, expected = ask(folder, material), ask_parent(material)
    np.testing.assert_allclose(got[:, :4], expected[:, :4], atol=1e-4 * SIZE)
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], atol=1e-4)
    assert litert.read_back(folder).precision == "fp32"
    assert (folder / "method.txt").read_text() == "None"


def test_the_convolutions_bear_the_names_of_the_parents_nodes(build, convolutions):
    found = litert.read_back(build("fp32"))
    assert sorted(found.float_layers) == sorted(convolutions)


def test_int8_is_all_but_attention_and_the_last_convolutions(build, material, convolutions):
    folder = build()
    found = litert.read_back(folder)
    assert found.precision == "int8"
    assert found.int8_macs_share > 0.9
    assert sorted([*found.int8_layers, *found.float_layers]) == sorted(convolutions)
    last = [name for name in found.float_layers if "/attn/" not in name]
    # A branch of boxes and one of scores at each of three strides.
    assert {name.rpartition("/")[0].rpartition(".")[2] for name in last} == {"2"}
    assert (len(last), len(found.float_layers)) == (6, 12)
    got, expected = ask(folder, material), ask_parent(material)
    assert np.abs(got[:, :4] - expected[:, :4]).mean() < 0.01 * SIZE
    assert np.abs(got[:, 4:] - expected[:, 4:]).max() < 0.05
    assert (folder / "model.tflite").stat().st_size < 3.5e6


def test_quantizing_everything_costs_the_scores(build, material):
    folder = build(quantize_all=True)
    found = litert.read_back(folder)
    assert (found.int8_macs_share, found.float_layers) == (1.0, ())
    # Boxes and scores share a scale of a quarter pixel: a score is 0 or gone wild.
    assert len(np.unique(ask(folder, material)[:, 4:])) < 8


def test_decoding_returned_to_float_brings_the_scores_back(build, material):
    decode = onnx_graph.decode_nodes(onnx_graph.load(material.onnx).graph)
    folder = build(quantize_all=True, keep_float=decode)
    assert litert.read_back(folder).float_layers == ()
    got, expected = ask(folder, material), ask_parent(material)
    assert np.abs(got[:, 4:] - expected[:, 4:]).max() < 0.05


def test_a_named_convolution_stays_float(build):
    chosen = "/model.4/cv1/conv/Conv"
    usual = litert.read_back(build())
    found = litert.read_back(build(keep_float=frozenset({chosen})))
    assert set(found.float_layers) == {*usual.float_layers, chosen}


def test_all_of_the_parent_kept_float_is_the_float_model(build, material):
    nodes = frozenset(node.name for node in onnx_graph.load(material.onnx).graph.node)
    folder = build(keep_float=nodes)
    assert litert.read_back(folder).precision == "fp32"
    assert np.abs(ask(folder, material) - ask_parent(material)).max() < 0.05 * SIZE


def test_a_rebuild_neither_converts_nor_calibrates(build, material, convolutions):
    build()
    nothing = calibration.Inputs((Path("gone.png"),), SIZE)
    again = build(inputs=nothing, network=None, keep_float=frozenset(convolutions[:1]))
    assert convolutions[0] in litert.read_back(again).float_layers


def test_the_method_recorded_is_the_one_used(build):
    recorded = {
        method: (build(method=method) / "method.txt").read_text()
        for method in ("minmax", "percentile", "entropy")
    }
    assert recorded == {
        "minmax": "mean-minmax",
        "percentile": "mean-percentile-99.99",
        "entropy": "mean-minmax",
    }


def test_no_step_is_spent_on_what_silu_turns_into_nothing(build, material):
    from ai_edge_litert.interpreter import Interpreter

    found = litert.read_back(build())
    interpreter = Interpreter(str(build() / "model.tflite"))
    details = {d["name"]: d["quantization"] for d in interpreter.get_tensor_details()}
    lowest = {name: details[name][0] * (-128 - details[name][1]) for name in found.int8_layers}
    before_silu = [value for name, value in lowest.items() if name.endswith("/conv/Conv")]
    assert len(before_silu) > 80
    assert min(before_silu) > litert.SILU_FLOOR - 0.2


def test_the_same_network_gives_the_same_bytes(build):
    first = (build() / "model.tflite").read_bytes()
    assert (build(memo={}) / "model.tflite").read_bytes() == first


def test_nothing_is_printed_and_nothing_left_behind(build, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = build(memo={})
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in folder.iterdir()) == ["method.txt", "model.tflite"]
    assert list(tmp_path.iterdir()) == [folder]
