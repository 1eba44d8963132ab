"""Models that musgd did not make: what their files tell of them, and that the engines run them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_artifact as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musgd_cli.__main__ import main
from musgd_cli.bench import foreign
from musgd_cli.errors import ExitCode, MusgdError
from musgd_cli.runs import ARTIFACT_FILE
from musgd_cli.runtime import open_engine

NEEDS = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "ncnn": ("ncnn",),
    "litert": ("ai_edge_litert",),
}
"""What must be installed to write the model and to run it."""

MAKERS = {
    "onnxruntime": tiny.make_onnx,
    "openvino": tiny.make_openvino,
    "ncnn": tiny.make_ncnn,
    "litert": tiny.make_litert,
}

NOTES = {
    "description": "Ultralytics YOLO26n model ",
    "author": "Ultralytics",
    "version": "8.4.190",
    "stride": 32,
    "task": "detect",
    "imgsz": [tiny.IMGSZ, tiny.IMGSZ],
    "names": dict(enumerate(tiny.NAMES)),
    "args": {"batch": 1, "quantize": None},
    "end2end": False,
}
"""As Ultralytics notes them."""


def needs(runtime: str) -> None:
    for module in NEEDS[runtime]:
        pytest.importorskip(module)


def bare(runtime: str, folder: Path) -> Path:
    """Write a model without a record, and return the file that opens it."""
    needs(runtime)
    artifact = MAKERS[runtime](folder)
    (folder / ARTIFACT_FILE).unlink()
    if runtime == "ncnn":  # which tells neither the image's size nor the classes itself
        note(folder, names=dict(enumerate(("class0", "class1", "class2"))), imgsz=[64, 64])
    return folder / artifact.files[0]


def note(folder: Path, **notes: object) -> None:
    """Put Ultralytics' metadata.yaml beside a model; JSON is YAML too."""
    (folder / "metadata.yaml").write_text(json.dumps(notes))


def onnx_with(folder: Path, change: Callable[[object], None]) -> Path:
    """Write the ONNX, changed."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny.onnx_model())
    change(model)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def answer(path: Path, x: np.ndarray) -> np.ndarray:
    subject = foreign.read(path)
    engine = open_engine(subject.folder, subject.artifact, threads=1)
    found = engine.infer(x).copy()
    engine.close()
    return found


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, 64, 64), np.float32)


# -------------------------------------------------------------------------- what the files tell


@pytest.mark.parametrize("runtime", sorted(MAKERS))
def test_a_bare_model_is_described_and_runs(runtime: str, tmp_path: Path, x: np.ndarray) -> None:
    file = bare(runtime, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    subject = foreign.read(file)
    artifact = subject.artifact
    assert (subject.folder, artifact.runtime, artifact.files[0]) == (tmp_path, runtime, file.name)
    assert (artifact.imgsz, artifact.nms_free, artifact.precision) == (64, False, "fp32")
    assert artifact.names == ("class0", "class1", "class2")
    assert artifact.target == "unknown"
    assert subject.made_by == "unknown exporter"
    assert foreign.read(tmp_path) == subject  # the folder will do
    np.testing.assert_allclose(answer(file, x), tiny.expected_output(x), atol=1e-5)
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_loads_no_engine(tmp_path: Path) -> None:
    # A board may have none but the one that runs the model; and damage kills an engine, not us.
    files = [bare(runtime, tmp_path / runtime) for runtime in ("onnxruntime", "openvino", "ncnn")]
    script = f"""
import sys
from pathlib import Path
from musgd_cli.__main__ import main
from musgd_cli.bench import foreign
for file in {list(map(str, files))}:
    foreign.read(Path(file))
print(*{{"numpy", "onnx", "onnxruntime", "openvino", "ncnn", "cv2"}} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_weights_lead_to_their_graph(tmp_path: Path) -> None:
    for runtime in ("openvino", "ncnn"):
        file = bare(runtime, tmp_path / runtime)
        assert foreign.read(file.with_suffix(".bin")) == foreign.read(file)


def test_the_model_of_an_artifact_is_the_artifact(tmp_path: Path) -> None:
    needs("onnxruntime")
    artifact = tiny.make_onnx(tmp_path)
    subject = foreign.read(tmp_path / "model.onnx")
    assert (subject.artifact, subject.made_by) == (artifact, None)


@pytest.mark.parametrize("runtime", sorted(MAKERS))
def test_ultralytics_notes_are_read(runtime: str, tmp_path: Path) -> None:
    file = bare(runtime, tmp_path)
    notes = NOTES | {"args": {"quantize": 8, "data": "/sets/coco128.yaml"}, "stride": 16}
    if runtime == "onnxruntime":
        onnx_with(tmp_path, lambda model: add_notes(model, notes))
    elif runtime == "litert":
        with zipfile.ZipFile(file, "a") as appended:
            appended.writestr("metadata.json", json.dumps(notes))
    else:
        note(tmp_path, **notes)
    subject = foreign.read(file)
    assert subject.made_by == "Ultralytics 8.4.190"
    assert subject.calibrated_on == "coco128.yaml"
    assert subject.artifact.names == tiny.NAMES
    assert subject.artifact.stride == 16
    assert (subject.artifact.precision_asked, subject.artifact.precision) == ("int8", "fp32")


def add_notes(model: object, notes: dict[str, object]) -> None:
    """Note them as texts, which is all that ONNX knows."""
    for key, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)


def test_notes_that_are_pythons_own_text(tmp_path: Path) -> None:
    # What Ultralytics appended to a .tflite before it was JSON.
    file = bare("litert", tmp_path)
    with zipfile.ZipFile(file, "a") as appended:
        appended.writestr("temp_meta.txt", str(NOTES))
    assert foreign.read(file).artifact.names == tiny.NAMES


def test_names_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    file = bare("openvino", tmp_path)
    note(tmp_path, names={"2": "blue", "0": "red", "1": "green"})
    assert foreign.read(file).artifact.names == tiny.NAMES
    note(tmp_path, names=list(tiny.NAMES))
    assert foreign.read(file).artifact.names == tiny.NAMES


def test_the_producer_of_an_onnx_file_is_named(tmp_path: Path) -> None:
    def change(model: object) -> None:
        model.producer_name, model.producer_version = "pytorch", "2.14.1"

    assert foreign.read(onnx_with(tmp_path, change)).made_by == "pytorch 2.14.1"


def test_final_boxes_are_told_by_their_six_columns(tmp_path: Path) -> None:
    file = onnx_with(tmp_path, gives(1, 300, 6))
    # They do not tell how many classes there are.
    assert "metadata.yaml" in refused(file, "tells the classes")
    note(tmp_path, names=list(tiny.NAMES))
    artifact = foreign.read(file).artifact
    assert (artifact.nms_free, artifact.names) == (True, tiny.NAMES)


def gives(*shape: int | None) -> Callable[[object], None]:
    """Return a change of the ONNX: what it says that it gives."""

    def change(model: object) -> None:
        from onnx import TensorProto, helper

        value = helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)
        model.graph.output[0].CopyFrom(value)

    return change


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (25200, "as YOLOv5 and YOLOX do"),  # YOLOv5 at 640 px
        (8400, "as YOLOv5 and YOLOX do"),  # YOLOX at 640 px
        (252, "as YOLOv5 and YOLOX do"),  # at 64 px, which this one takes
        (84, "as YOLOv5 and YOLOX do"),
        (None, "nothing tells which"),
    ],
)
def test_candidates_of_one_class_are_no_final_boxes(
    rows: int | None, match: str, tmp_path: Path
) -> None:
    # Box, objectness and class are six numbers too.
    file = onnx_with(tmp_path, gives(1, rows, 6))
    note(tmp_path, names={0: "person"})
    refused(file, match)


@pytest.mark.parametrize("notes", [{"end2end": True}, {"args": {"nms": True}}])
def test_final_boxes_are_told_by_a_note(notes: dict[str, object], tmp_path: Path) -> None:
    file = onnx_with(tmp_path, gives(1, None, 6))
    note(tmp_path, names={0: "person"}, **notes)
    assert foreign.read(file).artifact.nms_free


def test_more_classes_than_any_detector_has(tmp_path: Path) -> None:
    refused(onnx_with(tmp_path / "rows", gives(1, 2**40, 2**41)), "has 1099511627772 classes")
    file = onnx_with(tmp_path / "names", gives(1, None, None))
    note(tmp_path / "names", names=list(range(10_001)))
    refused(file, "has 10001 classes")


def test_stored_tensors_that_are_listed_as_inputs(tmp_path: Path, x: np.ndarray) -> None:
    # Old ONNX files do so.
    from onnx import TensorProto, helper

    def change(model: object) -> None:
        boxes = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 4, 64])
        model.graph.input.append(boxes)

    file = onnx_with(tmp_path, change)
    np.testing.assert_allclose(answer(file, x), tiny.expected_output(x), atol=1e-5)


def test_weights_outside_of_the_onnx_file_belong_to_it(tmp_path: Path, x: np.ndarray) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(tiny.onnx_model())
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=100,
    )
    assert foreign.read(tmp_path).artifact.files == ("m.onnx", "m.data")
    np.testing.assert_allclose(answer(tmp_path, x), tiny.expected_output(x), atol=1e-5)
    (tmp_path / "m.data").unlink()
    refused(tmp_path, r"'m\.data', are not beside it", ExitCode.FAILED)


def kept_outside(name: str, location: str) -> object:
    """Make a tensor whose values are in another file."""
    from onnx import TensorProto

    tensor = TensorProto(name=name, dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_weights_outside_are_found_wherever_they_hang(tmp_path: Path) -> None:
    # What is not found is neither hashed nor bundled, and may lead out of the folder.
    from onnx import SparseTensorProto, helper

    def sparse(values: str, indices: str) -> SparseTensorProto:
        tensors = kept_outside("v", values), kept_outside("i", indices)
        return SparseTensorProto(values=tensors[0], indices=tensors[1], dims=[1])

    inner = helper.make_graph([], "inner", [], [], [kept_outside("w", "in-subgraph")])
    branches = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    constant = helper.make_node("Constant", [], ["k"], value=kept_outside("k", "in-constant"))
    odd = helper.make_node("Odd", [], ["o"], domain="theirs")
    odd.attribute.add(name="t", type=9).tensors.append(kept_outside("t", "in-list"))
    odd.attribute.add(name="g", type=10).graphs.append(
        helper.make_graph([constant], "deep", [], [])
    )
    odd.attribute.add(name="s", type=11).sparse_tensor.CopyFrom(sparse("values", "indices"))

    def change(model: object) -> None:
        model.graph.initializer.append(kept_outside("i", "in-graph"))
        model.graph.sparse_initializer.append(sparse("sparse-values", "sparse-indices"))
        model.graph.node.extend([branches, odd])
        function = helper.make_function("theirs", "F", [], ["k"], [constant], [])
        function.node[0].attribute[0].t.external_data[0].value = "in-function"
        model.functions.append(function)

    locations = {
        *("in-subgraph", "in-constant", "in-list", "in-graph", "in-function"),
        *("values", "indices", "sparse-values", "sparse-indices"),
    }
    for name in locations:
        (tmp_path / name).write_bytes(b"0000")
    file = onnx_with(tmp_path, change)
    assert set(foreign.read(file).artifact.files) == {file.name, *locations}


@pytest.mark.parametrize("location", ["../m.data", "{tmp}/m.data", "link", "", "sub/../../m.data"])
def test_weights_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    def change(model: object) -> None:
        tensor = model.graph.initializer[1]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location.format(tmp=tmp_path)

    (tmp_path / "m.data").write_bytes(bytes(tiny.boxes().nbytes))
    file = onnx_with(tmp_path / "given", change)
    (tmp_path / "given" / "link").symlink_to(tmp_path / "m.data")
    refused(file, "are not in its folder", ExitCode.FAILED)


def test_weights_that_are_a_link_out_of_the_folder(tmp_path: Path) -> None:
    weights = bare("openvino", tmp_path / "given").with_suffix(".bin")
    weights.rename(tmp_path / "theirs")
    weights.symlink_to(tmp_path / "theirs")
    refused(tmp_path / "given", r"model\.bin' of .* leads out")


def test_a_link_to_a_model_is_that_model(tmp_path: Path) -> None:
    file = bare("openvino", tmp_path / "given")
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "best.xml"
    link.symlink_to(file)
    assert foreign.read(link) == foreign.read(file)
    # As caches have them, named by their hash.
    file = onnx_with(tmp_path, lambda model: None)
    blob = file.rename(tmp_path / "6e1f")
    (tmp_path / "links" / "m.onnx").symlink_to(blob)
    assert "cp -L" in refused(tmp_path / "links" / "m.onnx", r"'m\.onnx' of .* leads out")


# -------------------------------------------------------------------------------- precision


def two_convolutions(
    folder: Path, int8: tuple[bool, bool], weights: type = np.float32, stride: int = 1
) -> Path:
    """Write an ONNX with a 3 x 3 convolution of 3 to 8 channels, then one of 1 x 1 to 8.

    No shapes are noted. A convolution in int8 has its data and weights dequantized, and its result
    quantized.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    float_type = helper.np_dtype_to_tensor_dtype(np.dtype(weights))
    nodes, stored = [], []

    def constant(name: str, values: np.ndarray) -> str:
        stored.append(numpy_helper.from_array(values, name))
        return name

    def rounded(name: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"])
        )
        return f"{name}_d"

    constant("scale", np.array(0.1, weights))
    constant("zero", np.array(0, np.int8))
    x = "images"
    for i, (channels, kernel) in enumerate(((3, 3), (8, 1))):
        values = np.ones((8, channels, kernel, kernel))
        if int8[i]:
            nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [constant(f"w{i}_q", values.astype(np.int8)), "scale", "zero"],
                    [f"w{i}"],
                )
            )
            x = x if x.endswith("_d") else rounded(x)
        else:
            constant(f"w{i}", values.astype(weights))
        side = kernel // 2
        nodes.append(
            helper.make_node(
                "Conv",
                [x, f"w{i}"],
                [f"y{i}"],
                kernel_shape=[kernel, kernel],
                pads=[side] * 4,
                strides=[stride, stride],
            )
        )
        x = rounded(f"y{i}") if int8[i] else f"y{i}"
    constant("shape", np.array([1, 8, -1], np.int64))
    nodes.append(helper.make_node("Reshape", [x, "shape"], ["output0"]))
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("images", float_type, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", float_type, [1, 8, None])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    assert float_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "two.onnx").write_bytes(model.SerializeToString())
    return folder / "two.onnx"


@pytest.mark.parametrize(
    ("int8", "stride", "share", "precision"),
    [
        ((True, True), 1, 1.0, "int8"),
        ((False, False), 1, 0.0, "fp32"),
        # 27 MACs a place and channel against 8.
        ((False, True), 1, 8 / 35, "mixed-int8"),
        # 27 at 32 x 32 places against 8 at 16 x 16.
        ((True, False), 2, 27 * 4 / (27 * 4 + 8), "int8"),
    ],
)
def test_onnx_counts_the_share_of_int8(
    int8: tuple[bool, bool], stride: int, share: float, precision: str, tmp_path: Path
) -> None:
    from musgd_cli.compress import onnx_graph

    artifact = foreign.read(two_convolutions(tmp_path, int8, stride=stride)).artifact
    assert artifact.int8_macs_share == pytest.approx(share, abs=1e-4)
    assert artifact.precision == precision
    # What the exporter reads back with onnx and its shape inference.
    built = onnx_graph.read_back(tmp_path / "two.onnx")
    assert built.int8_macs_share == pytest.approx(share, abs=1e-4)


def test_half_precision_is_told_by_the_weights(tmp_path: Path, x: np.ndarray) -> None:
    halves = two_convolutions(tmp_path / "half", (False, False), np.float16)
    wholes = two_convolutions(tmp_path / "whole", (False, False), np.float32)
    assert foreign.read(halves).artifact.precision == "fp16"
    # Its input and output are half, too: the engine feeds it so.
    found = answer(halves, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, answer(wholes, x), rtol=5e-3)


def test_openvino_takes_half_at_its_ends(tmp_path: Path, x: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino")
    source = two_convolutions(tmp_path, (False, False), np.float16)
    openvino.save_model(openvino.Core().read_model(source), tmp_path / "ov" / "two.xml")
    assert foreign.read(tmp_path / "ov").artifact.precision == "fp16"
    np.testing.assert_allclose(answer(tmp_path / "ov", x), answer(source, x), rtol=5e-3)


def test_ncnn_tells_its_precision(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    from musgd_cli.compress import ncnn_files, ncnn_int8
    from musgd_cli.compress.ncnn_files import Layer

    weights = np.ones(16 * 3 * 9, np.float32)
    parameters = {0: "16", 1: "3", 4: "1", 5: "1", 6: str(weights.size)}
    tensors = (weights, np.zeros(16, np.float32))
    convolution = Layer("Convolution", "c", ("in0",), ("out0",), parameters, tensors)
    image = Layer("Input", "in0", (), ("in0",), {0: "64", 1: "64", 2: "3"})
    note(tmp_path, names={i: str(i) for i in range(12)})
    for layer, precision in (
        (convolution, "fp32"),
        (ncnn_int8.halve(convolution), "fp16"),
        (ncnn_int8.quantize(convolution, 1.0), "int8"),
    ):
        ncnn_files.write([image, layer], tmp_path)
        artifact = foreign.read(tmp_path).artifact
        assert (artifact.precision, artifact.imgsz) == (precision, 64)


@pytest.mark.parametrize(
    ("types", "precision"),
    [
        (("float32", "float32", "float32"), "fp32"),
        (("int8", "int8", "int8"), "int8"),
        # Weights alone: LiteRT may compute in int8, or not.
        (("float32", "int8", "float32"), "mixed-int8"),
    ],
)
def test_litert_tells_its_precision(
    types: tuple[str, str, str], precision: str, tmp_path: Path
) -> None:
    needs("litert")
    from tiny_tflite import Tflite

    model = Tflite()
    image = model.tensor((1, 64, 64, 3), types[0])
    kernel = model.constant(np.ones((7, 3, 3, 3), types[1]))
    seen = model.operation("CONV_2D", [image, kernel], (1, 64, 64, 7), types[2])
    shape = model.constant(np.array([1, 7, 4096], np.int32))
    output = model.operation("RESHAPE", [seen, shape], (1, 7, 4096), types[2])
    (tmp_path / "model.tflite").write_bytes(model.pack([image], [output]))
    artifact = foreign.read(tmp_path).artifact
    assert (artifact.precision, artifact.imgsz, len(artifact.names)) == (precision, 64, 3)


# ------------------------------------------------------------- models that differ at their ends


def with_loose_sides(model: object) -> None:
    for value, names in (
        (model.graph.input[0], ("batch", "", "height", "width")),
        (model.graph.output[0], ("batch", "rows", "places")),
    ):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                dim.dim_param = name


def test_a_dynamic_model_takes_the_size_that_is_noted(tmp_path: Path, x: np.ndarray) -> None:
    def change(model: object) -> None:
        with_loose_sides(model)
        add_notes(model, NOTES)

    file = onnx_with(tmp_path, change)
    assert foreign.read(file).artifact.imgsz == 64
    np.testing.assert_allclose(answer(file, x), tiny.expected_output(x), atol=1e-5)
    np.testing.assert_allclose(answer(file, x / 2), tiny.expected_output(x / 2), atol=1e-5)


def test_openvino_settles_a_dynamic_model(tmp_path: Path, x: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino")
    source = onnx_with(tmp_path / "source", with_loose_sides)
    openvino.save_model(openvino.Core().read_model(source), tmp_path / "ov" / "model.xml")
    note(tmp_path / "ov", **NOTES)
    np.testing.assert_allclose(answer(tmp_path / "ov", x), tiny.expected_output(x), atol=1e-5)


def channels_last(folder: Path, type_: str, *, shares: bool) -> Path:
    """Write the model as TensorFlow's converters do, its numbers in steps of 1/127 in int8."""
    needs("litert")
    from tiny_tflite import Tflite

    model, scale = Tflite(), 1 / 127
    cells = tiny.CELLS
    image = model.tensor((1, tiny.IMGSZ, tiny.IMGSZ, 3), type_, scale=scale)
    pooled = model.operation(
        "AVERAGE_POOL_2D",
        [image],
        (1, cells, cells, 3),
        type_,
        scale=scale,
        options="Pool2DOptions",
        filterHeight=tiny.CELL,
        filterWidth=tiny.CELL,
        strideH=tiny.CELL,
        strideW=tiny.CELL,
        padding=1,  # none
    )
    to_first = model.constant(np.array([0, 3, 1, 2], np.int32))
    first = model.operation(
        "TRANSPOSE", [pooled, to_first], (1, 3, cells, cells), type_, scale=scale
    )
    shape = model.constant(np.array([1, 3, cells**2], np.int32))
    scores = model.operation("RESHAPE", [first, shape], (1, 3, cells**2), type_, scale=scale)
    boxes = tiny.boxes()[None] / (tiny.IMGSZ if shares else 1)
    if type_ == "int8":
        boxes = np.rint(boxes / scale).astype(np.int8)
    output = model.operation(
        "CONCATENATION",
        [model.constant(boxes, scale), scores],
        (1, 7, cells**2),
        type_,
        scale=scale,
        options="ConcatenationOptions",
        axis=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(model.pack([image], [output]))
    return folder / "model.tflite"


@pytest.mark.parametrize("shares", [True, False])
def test_litert_with_channels_last(shares: bool, tmp_path: Path, x: np.ndarray) -> None:
    # Nothing but its output tells whether boxes are pixels or shares of the image.
    file = channels_last(tmp_path, "float32", shares=shares)
    np.testing.assert_allclose(answer(file, x), tiny.expected_output(x), atol=1e-5)


def test_litert_with_integers_at_its_ends(tmp_path: Path, x: np.ndarray) -> None:
    file = channels_last(tmp_path, "int8", shares=True)
    found, expected = answer(file, x), tiny.expected_output(x)
    # Half a step of boxes, in pixels; of scores a whole one, as they are rounded twice.
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=64 * 0.51 / 127)
    np.testing.assert_allclose(found[:, 4:], expected[:, 4:], atol=1.01 / 127)


def test_integers_without_a_scale_say_nothing(tmp_path: Path) -> None:
    needs("litert")
    from tiny_tflite import Tflite

    model = Tflite()
    image = model.tensor((1, 3, 64, 64), "int8", scale=0)
    shape = model.constant(np.array([1, 6, 2048], np.int32))
    output = model.operation("RESHAPE", [image, shape], (1, 6, 2048), "int8", scale=0)
    (tmp_path / "model.tflite").write_bytes(model.pack([image], [output]))
    subject = foreign.read(tmp_path)
    with pytest.raises(MusgdError, match=r"cannot load .* scale"):
        open_engine(subject.folder, subject.artifact, threads=1)


def test_ultralytics_litert_gives_shares(tmp_path: Path, x: np.ndarray) -> None:
    file = bare("litert", tmp_path)
    with zipfile.ZipFile(file, "a") as appended:
        appended.writestr("metadata.json", json.dumps(NOTES))
    expected = tiny.expected_output(x)
    expected[:, :4] *= 64  # this model's are pixels, and taken for shares
    np.testing.assert_allclose(answer(file, x), expected, rtol=1e-5)


# ---------------------------------------------------------------------------------- refusals


def refused(path: Path, match: str, code: ExitCode = ExitCode.USAGE) -> str:
    """See that a path is refused in these words, and return the mend."""
    with pytest.raises(MusgdError, match=match) as caught:
        foreign.read(path)
    assert caught.value.exit_code is code
    assert "\n" not in caught.value.what + caught.value.mend
    return caught.value.mend


def test_a_folder_with_two_models(tmp_path: Path) -> None:
    file = bare("onnxruntime", tmp_path)
    (tmp_path / "other.onnx").write_bytes(file.read_bytes())
    assert str(file) in refused(tmp_path, "2 models: model.onnx, other.onnx")
    assert foreign.read(file).artifact.files == ("model.onnx",)


def test_what_pnnx_leaves_behind_is_no_model(tmp_path: Path) -> None:
    file = bare("ncnn", tmp_path)
    (tmp_path / "model.pnnx.param").write_text(file.read_text())
    assert foreign.read(tmp_path).artifact.files[0] == file.name


def test_annotations_are_no_models(tmp_path: Path) -> None:
    file = bare("openvino", tmp_path)
    (tmp_path / "image.xml").write_text("<annotation><object/></annotation>")
    assert foreign.read(tmp_path).artifact.files[0] == file.name
    refused(tmp_path / "image.xml", "annotation", ExitCode.FAILED)


@pytest.mark.parametrize(
    ("name", "match", "code"),
    [
        ("best.engine", "is a TensorRT engine", ExitCode.UNSUPPORTED),
        ("best.torchscript", "no engine for", ExitCode.UNSUPPORTED),
        ("best.bin", "without their graph", ExitCode.USAGE),
        ("notes.txt", "no model that musgd knows", ExitCode.USAGE),
        ("best.onnx", "it is empty", ExitCode.FAILED),
        ("best.param", "cut short, or is none", ExitCode.FAILED),
        ("best.xml", "no element found", ExitCode.FAILED),
    ],
)
def test_files_that_are_no_models(name: str, match: str, code: ExitCode, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name, match, code)


def test_places_without_a_model(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.onnx", "does not exist")
    refused(tmp_path, "there is no model in")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.pt").touch()
    assert "musgd export" in refused(tmp_path / "weights", "holds weights")
    data = tiny.make_data(tmp_path / "data")
    assert "--data" in refused(data.parent, "is a data set")
    (tmp_path / "saved_model.pb").touch()
    refused(tmp_path, r"no engine for .*saved_model\.pb", ExitCode.UNSUPPORTED)


@pytest.mark.parametrize("runtime", ["openvino", "ncnn"])
def test_half_of_a_model(runtime: str, tmp_path: Path) -> None:
    file = bare(runtime, tmp_path)
    weights = file.with_suffix(".bin")
    data = weights.read_bytes()
    weights.unlink()
    refused(file, f"{weights.name}, are not beside it", ExitCode.FAILED)
    weights.write_bytes(data)
    file.unlink()
    refused(tmp_path, "weights without their graph")


def test_openvino_weights_that_are_cut_short(tmp_path: Path) -> None:
    weights = bare("openvino", tmp_path).with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(tmp_path, r"model\.bin .* cut short", ExitCode.FAILED)


@pytest.mark.parametrize(
    ("shape", "match", "mend"),
    [
        ((2, 3, 64, 64), "2 images at once", "batch=1"),
        ((1, 3, 32, 64), "images of 64 x 32", "imgsz=64"),
        ((1, 1, 64, 64), "not an image in three colours", "detection"),
        ((1, 3, None, None), "the size of its images", "fixed size"),
        ((1, 3, 16, 16), "16 px; measured are 32 to 8192", "imgsz"),
        ((1, 3, 2**40, 2**40), "1099511627776 px", "imgsz"),
        ((1, 3, 0, 0), " 0 px", "imgsz"),
    ],
)
def test_images_that_are_not_made_here(
    shape: tuple[int | None, ...], match: str, mend: str, tmp_path: Path
) -> None:
    def change(model: object) -> None:
        for dim, side in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
            dim.ClearField("dim_value")
            if side is not None:
                dim.dim_value = side

    assert mend in refused(onnx_with(tmp_path, change), match)


@pytest.mark.parametrize(
    ("shape", "notes", "match"),
    [
        ((1, 116, 84), {"task": "segment"}, "task 'segment'"),
        ((1, 1000), {}, r"gives \[1, 1000\]"),
        ((1, 25200, 85), {}, "as YOLOv5 and YOLOX do"),
        ((1, 56, 84), {"names": {0: "person"}}, "for 1 classes"),
        ((None, None, None), {}, "tells the classes"),
    ],
)
def test_outputs_that_are_not_understood(
    shape: tuple[int | None, ...], notes: dict[str, object], match: str, tmp_path: Path
) -> None:
    def change(model: object) -> None:
        gives(*shape)(model)
        add_notes(model, notes)

    refused(onnx_with(tmp_path, change), match)


def test_another_exporters_words_are_let_be(tmp_path: Path) -> None:
    notes = {"version": "1.0", "names": "red,green,blue", "imgsz": "large", "args": "--fast"}
    file = onnx_with(tmp_path, lambda model: add_notes(model, notes))
    assert foreign.read(file).artifact.names == ("class0", "class1", "class2")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    notes=st.dictionaries(
        st.sampled_from([*NOTES, "anything"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=4,
        ),
    )
)
def test_any_notes_are_understood_or_refused(notes: dict[str, object], tmp_path: Path) -> None:
    if not (tmp_path / "model.xml").exists():
        bare("openvino", tmp_path)
    note(tmp_path, **notes)
    try:
        foreign.read(tmp_path)
    except MusgdError as error:
        assert "\n" not in error.what + error.mend


def test_notes_that_make_no_sense(tmp_path: Path) -> None:
    file = bare("openvino", tmp_path)
    note(tmp_path, names=7)
    refused(file, "metadata: names", ExitCode.FAILED)
    (tmp_path / "metadata.yaml").write_text("names: [red,\n}")
    refused(file, r"metadata\.yaml", ExitCode.FAILED)


def test_wrong_classes_are_found_out_by_the_output(tmp_path: Path, x: np.ndarray) -> None:
    # ncnn's files do not tell their output's size.
    bare("ncnn", tmp_path)
    note(tmp_path, names=["red", "green"], imgsz=64)
    with pytest.raises(MusgdError, match=r"gives \[1, 7, 64\], .* 2 classes"):
        answer(tmp_path, x)


def test_what_fails_as_it_runs_is_said_in_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(model: object) -> None:
        with_loose_sides(model)
        add_notes(model, NOTES | {"imgsz": [128, 128]})  # its Reshape is for 64

    subject = foreign.read(onnx_with(tmp_path, change))
    engine = open_engine(subject.folder, subject.artifact, threads=1)
    with pytest.raises(MusgdError, match=r"cannot run model\.onnx: .*cannot be reshaped") as caught:
        engine.infer(np.zeros((1, 3, 128, 128), np.float32))
    assert caught.value.exit_code is ExitCode.FAILED
    assert "onnxruntime_src" not in caught.value.what
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------- made for a newer runtime than is here


def of_newer_onnx(folder: Path) -> None:
    def change(model: object) -> None:
        model.ir_version = 99

    onnx_with(folder, change)


def of_newer_opset(folder: Path) -> None:
    def change(model: object) -> None:
        model.opset_import[0].version = 99

    onnx_with(folder, change)


def of_newer_openvino(folder: Path) -> None:
    file = bare("openvino", folder)
    file.write_text(re.sub(r'(<net [^>]*version=)"\d+"', r'\1"99"', file.read_text()))


def of_newer_ncnn(folder: Path) -> None:
    file = bare("ncnn", folder)
    file.write_text(file.read_text().replace("Pooling ", "Blooming "))


def of_newer_litert(folder: Path) -> None:
    needs("litert")
    from tiny_tflite import Tflite

    model = Tflite()
    image = model.tensor((1, 3, 64, 64))
    shape = model.constant(np.array([1, 7, 64], np.int32))
    output = model.operation("RESHAPE", [image, shape], (1, 7, 64), version=99)
    (folder / "model.tflite").write_bytes(model.pack([image], [output]))


@pytest.mark.parametrize(
    ("make", "match", "wheel"),
    [
        (of_newer_onnx, "IR version: 99", "onnxruntime"),
        (of_newer_opset, "Opset 99", "onnxruntime"),
        (of_newer_openvino, "IR version 99", "openvino"),
        (of_newer_ncnn, "layer Blooming", "ncnn"),
        (of_newer_litert, "version '99'", "ai-edge-litert"),
    ],
)
def test_a_newer_model_asks_for_a_newer_runtime(
    make: Callable[[Path], None], match: str, wheel: str, tmp_path: Path
) -> None:
    make(tmp_path)
    subject = foreign.read(tmp_path)
    pytest.importorskip(wheel.replace("-", "_"))
    with pytest.raises(MusgdError, match=match) as caught:
        open_engine(subject.folder, subject.artifact, threads=1)
    assert caught.value.exit_code is ExitCode.UNSUPPORTED
    assert f"pip install --upgrade {wheel}" in caught.value.mend
    assert "\n" not in caught.value.what
    assert "onnxruntime_src" not in caught.value.what


# ---------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "text",
    [
        "names: !!int ''",
        "names: !!bool perhaps",
        "names: !!timestamp soon",
        "names: !!float ''",
        "{{}}",
        "{[]: 1}",
        "[" * 5000,
        "names: {0: !!binary YWJj}",
        "stride: 0",
        f"imgsz: {'9' * 5000}",
        "# " + "x" * (1 << 21),
    ],
)
def test_yaml_that_trips_its_parser(text: str, tmp_path: Path) -> None:
    bare("openvino", tmp_path)
    (tmp_path / "metadata.yaml").write_text(text)
    refused(tmp_path, r"metadata\.yaml|metadata: ", ExitCode.FAILED)


@pytest.mark.parametrize(
    "last",
    [
        "names: *z",
        "names: {0: *z}",
        "args: {int8: true, data: *z}\nauthor: Ultralytics",
        "imgsz: *z",
        "author: *z",
    ],
)
def test_yaml_that_multiplies_itself(last: str, tmp_path: Path) -> None:
    # Thirty lines, and a billion names once they are written out.
    bare("openvino", tmp_path)
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = [f"a: &a [{'red,' * 9}]"]
    lines += [f"{y}: &{y} [{f'*{x},' * 9}]" for x, y in itertools.pairwise(names)]
    (tmp_path / "metadata.yaml").write_text("\n".join([*lines, last]))
    try:
        assert "red" not in str(foreign.read(tmp_path).made_by)
    except MusgdError as error:
        assert len(error.what) < 1000


def test_yaml_that_merges_itself(tmp_path: Path) -> None:
    bare("openvino", tmp_path)
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = ["a: &a {x: 1}"]
    lines += [f"{y}: &{y} {{<<: [{f'*{x},' * 9}]}}" for x, y in itertools.pairwise(names)]
    (tmp_path / "metadata.yaml").write_text("\n".join(lines))
    refused(tmp_path, r"metadata\.yaml", ExitCode.FAILED)


@pytest.mark.parametrize("text", ["{{}}", "[" * 5000, "{[]: 1}", "9" * 5000, "-" * 200_000])
def test_notes_that_are_no_python(text: str, tmp_path: Path) -> None:
    # They are texts then, of a kind that no note is.
    notes = {"author": "Ultralytics", "imgsz": text}
    file = onnx_with(tmp_path / "onnx", lambda model: add_notes(model, notes))
    refused(file, "metadata: imgsz", ExitCode.FAILED)
    file = bare("litert", tmp_path / "litert")
    with zipfile.ZipFile(file, "a") as appended:
        appended.writestr("temp_meta.txt", text)
    assert foreign.read(file).artifact.names == ("class0", "class1", "class2")


def test_notes_that_are_packed_too_well(tmp_path: Path) -> None:
    file = bare("litert", tmp_path)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as appended:
        appended.writestr("metadata.json", json.dumps(NOTES | {"padding": " " * (1 << 26)}))
    before = file.stat().st_size
    assert before < 1 << 17
    assert foreign.read(file).artifact.names == ("class0", "class1", "class2")


@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan, 3e38])
def test_a_resize_beyond_all_bounds(scale: float, tmp_path: Path) -> None:
    from onnx import helper, numpy_helper

    def change(model: object) -> None:
        scales = np.array([1, 1, scale, scale], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
        model.graph.node.insert(0, helper.make_node("Resize", ["images", "", "scales"], ["large"]))

    file = onnx_with(tmp_path, change)
    if np.isfinite(scale):
        assert foreign.read(file).artifact.imgsz == 64
    else:
        refused(file, "infinitely large", ExitCode.FAILED)


def test_convolutions_that_compute_nothing(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    file = two_convolutions(tmp_path, (True, False))
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("w"):
            tensor.dims[0] = 0
    file.write_bytes(model.SerializeToString())
    artifact = foreign.read(file).artifact
    assert (artifact.int8_macs_share, artifact.precision) == (None, "mixed-int8")


def test_a_side_of_minus_one_is_a_loose_one(tmp_path: Path) -> None:
    def change(model: object) -> None:
        for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dim.dim_value = -1
        add_notes(model, NOTES)

    assert foreign.read(onnx_with(tmp_path, change)).artifact.imgsz == 64


@pytest.mark.parametrize(
    ("dims", "match"),
    [
        ([-1, 4, 64], "negative side"),
        ([1] * 100, "too many sides"),
        ([1] * 1_000_000, "more parts"),
    ],
)
def test_tensors_of_no_engines_shape(dims: list[int], match: str, tmp_path: Path) -> None:
    def change(model: object) -> None:
        del model.graph.initializer[1].dims[:]
        model.graph.initializer[1].dims.extend(dims)

    refused(onnx_with(tmp_path, change), match, ExitCode.FAILED)


def test_more_parts_than_any_model(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(message(7, message(1, b"") * 1_000_000))  # a graph of empty nodes
    refused(file, "more parts", ExitCode.FAILED)


def test_a_packed_shape_is_not_unpacked_without_end(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    tensor = message(1, b"\x01" * 30_000_000)
    file.write_bytes(message(7, message(5, tensor)))
    begin = time.perf_counter()
    refused(file, "too many sides", ExitCode.FAILED)
    assert time.perf_counter() - begin < 2


def message(number: int, content: bytes) -> bytes:
    """Write a field of a message as protocol buffers do."""
    length, left = bytearray(), len(content)
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes((number << 3 | 2, *length, left)) + content


def test_attributes_of_other_nodes_may_be_long(tmp_path: Path, x: np.ndarray) -> None:
    from onnx import helper

    def change(model: object) -> None:
        node = helper.make_node("Constant", [], ["unused"], value_ints=list(range(100_000)))
        model.graph.node.append(node)

    file = onnx_with(tmp_path, change)
    np.testing.assert_allclose(answer(file, x), tiny.expected_output(x), atol=1e-5)


def test_openvino_with_more_ways_than_layers(tmp_path: Path) -> None:
    # Each Concat takes the one before it four times: 4 ** 60 ways from the last to the first.
    ports = [f'<port id="{i}"><dim>1</dim></port>' for i in range(4)]
    image, result = (
        "".join(f"<dim>{side}</dim>" for side in sides) for sides in ((1, 3, 64, 64), (1, 7, 64))
    )
    output = '<output><port id="9"><dim>1</dim></port></output>'
    layers = [
        f'<layer id="i" type="Parameter"><output><port id="9">{image}</port></output></layer>',
        f'<layer id="q" type="FakeQuantize"><data levels="256"/>{output}</layer>',
        f'<layer id="w" type="Const"><data element_type="i8" offset="0" size="1"/>{output}</layer>',
    ]
    edges, last = [], "q"
    for name in map(str, range(1, 61)):
        layers.append(
            f'<layer id="{name}" type="Concat"><input>{"".join(ports)}</input>{output}</layer>'
        )
        edges += [edge(last, name, port) for port in range(4)]
        last = name
    layers += [
        f'<layer id="c" type="Convolution"><input>{"".join(ports[:2])}</input>{output}</layer>',
        f'<layer id="r" type="Result"><input><port id="0">{result}</port></input></layer>',
    ]
    edges += [edge(last, "c", 0), edge("w", "c", 1), edge("c", "r", 0)]
    (tmp_path / "m.xml").write_text(
        f"<net><layers>{''.join(layers)}</layers><edges>{''.join(edges)}</edges></net>"
    )
    (tmp_path / "m.bin").write_bytes(b"0")
    assert foreign.read(tmp_path).artifact.precision == "int8"


def edge(source: str, target: str, port: int) -> str:
    """Write one of OpenVINO's edges; all outputs are port 9."""
    return f'<edge from-layer="{source}" from-port="9" to-layer="{target}" to-port="{port}"/>'


@pytest.mark.parametrize("runtime", sorted(MAKERS))
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(cut=st.floats(0, 1), at=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_damage_is_said_in_words_or_not_seen(
    runtime: str, tmp_path: Path, cut: float, at: float, byte: int
) -> None:
    file = tmp_path / "whole" if not (tmp_path / "whole").exists() else None
    if file is not None:
        bare(runtime, file)
    source = next(
        path for path in (tmp_path / "whole").iterdir() if path.suffix not in (".bin", ".yaml")
    )
    data = bytearray(source.read_bytes())
    damaged = tmp_path / "damaged"
    damaged.mkdir(exist_ok=True)
    for path in (tmp_path / "whole").iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    data[int(at * len(data))] = byte
    (damaged / source.name).write_bytes(data[: max(int(cut * len(data)), 1)])
    try:
        foreign.read(damaged / source.name)
    except MusgdError as error:
        assert "\n" not in error.what + error.mend


# ------------------------------------------------------------------------------ from outside


def test_bench_scores_it_and_writes_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given_folder = tmp_path / "given"
    file = onnx_with(given_folder, lambda model: add_notes(model, NOTES))
    data = tiny.make_data(tmp_path / "squares", n_images=2)
    options = ("--threads", "1", "--repeats", "1", "--duration", "0.2")
    quick = (*options, "--set", "bench.warmup_s=0", "--json")
    assert main(["bench", str(file), "--data", str(data), *quick]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["made_by"] == "Ultralytics 8.4.190"
    assert (report["target"], report["runtime"], report["precision"]) == (
        "unknown",
        "onnxruntime",
        "fp32",
    )
    assert report["map50_95"] == pytest.approx(0.995)  # as Ultralytics interpolates 1
    assert list(given_folder.iterdir()) == [file]

    # Nobody says what a foreign model was trained on: without --data it is timed alone.
    assert main(["bench", str(file), *quick]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["map50_95"] is None

    (tmp_path / "squares" / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [a, b]\n"
    )
    assert main(["bench", str(file), "--data", str(data), *quick]) == ExitCode.USAGE
    assert "3 classes" in capsys.readouterr().err


# ------------------------------------------------------------------- against Ultralytics itself


@pytest.fixture(scope="module")
def exports(
    shared: Path, ultralytics: object, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a door to real exports at 320 px."""

    def export(name: str, **arguments: object) -> Path:
        folder = tmp_path_factory.mktemp(name)
        weights = folder / "yolo26n.pt"
        weights.write_bytes((shared / "models" / "yolo26n-coco.pt").read_bytes())
        model = ultralytics.YOLO(weights)
        return Path(model.export(imgsz=320, **arguments))

    return export


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, about its own exporters
@pytest.mark.parametrize(
    ("name", "arguments", "precision", "nms_free"),
    [
        ("plain", {"format": "onnx", "simplify": False}, "fp32", False),
        ("half", {"format": "onnx", "simplify": False, "quantize": 16}, "fp16", False),
        ("dynamic", {"format": "onnx", "simplify": False, "dynamic": True}, "fp32", False),
        ("end2end", {"format": "onnx", "simplify": False, "nms": False}, "fp32", True),
        ("nms", {"format": "onnx", "simplify": False, "nms": True}, "fp32", True),
        ("openvino", {"format": "openvino"}, "fp32", False),
        (
            "openvino-half-dynamic",
            {"format": "openvino", "quantize": 16, "dynamic": True},
            "fp16",
            False,
        ),
        ("ncnn", {"format": "ncnn"}, "fp32", False),
    ],
)
def test_boxes_are_those_of_ultralytics(
    name: str,
    arguments: dict[str, object],
    precision: str,
    nms_free: bool,
    exports: Callable[..., Path],
    shared: Path,
    ultralytics: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cv2

    from musgd_cli.runtime.detector import Detector

    runtime = {"onnx": "onnxruntime"}.get(str(arguments["format"]), str(arguments["format"]))
    needs(runtime)
    path = exports(name, **arguments)
    subject = foreign.read(path)
    artifact = subject.artifact
    assert (artifact.precision, artifact.nms_free, artifact.imgsz) == (precision, nms_free, 320)
    assert len(artifact.names) == 80
    assert subject.made_by == f"Ultralytics {ultralytics.__version__}"
    if runtime == "openvino":
        in_float32(monkeypatch)
    engine = open_engine(subject.folder, artifact, threads=1)
    ours, theirs = Detector(engine, artifact), ultralytics.YOLO(path, task="detect")
    n = 0
    for file in sorted((shared / "data" / "coco128" / "images").rglob("*.jpg"))[:8]:
        image = cv2.imread(str(file))
        found = ours.detect(image)
        (result,) = theirs.predict(image, imgsz=320, rect=False, device="cpu", verbose=False)
        expected = result.boxes.data.numpy()
        assert len(found) == len(expected)
        n += len(found)
        order, other = (np.lexsort((boxes[:, 0], -boxes[:, 4])) for boxes in (found, expected))
        np.testing.assert_allclose(found[order, :4], expected[other, :4], atol=0.5)
        np.testing.assert_allclose(found[order, 4], expected[other, 4], atol=1e-3)
        np.testing.assert_array_equal(found[order, 5], expected[other, 5])
    assert n > 10
    engine.close()


def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Ultralytics from bf16, which OpenVINO takes unasked where the CPU has it."""
    import openvino

    compile_model = openvino.Core.compile_model

    def compiled(
        self: object, model: object, device_name: str, config: dict[str, object]
    ) -> object:
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        return compile_model(self, model, "CPU", {**config, **hint})

    monkeypatch.setattr(openvino.Core, "compile_model", compiled)
