"""A model so small that its answers are known: it sees squares of pure colour on an 8 px grid.

The input is 64 px a side. Each of its 64 cells is one place; the class scores of a place are the
mean red, green and blue in its cell, and its box is the cell. On an image whose objects fill cells
with pure red, green or blue, it finds all of them, with a score of 1, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from musgd_cli.records import Artifact, Calibration
from musgd_cli.runs import ARTIFACT_FILE
from musgd_cli.storage import sha256_of, write_record

IMGSZ = 64
CELL = 8
CELLS = IMGSZ // CELL
NAMES = ("red", "green", "blue")


def boxes() -> np.ndarray:
    """The (4, 64) centre x, centre y, width and height of every place, in pixels."""
    rows, columns = np.divmod(np.arange(CELLS**2), CELLS)
    side = np.full(CELLS**2, CELL)
    return np.stack(((columns + 0.5) * CELL, (rows + 0.5) * CELL, side, side)).astype(np.float32)


def expected_output(x: np.ndarray) -> np.ndarray:
    """What any engine must answer to ``x``, (1, 3, 64, 64)."""
    cells = x[0].reshape(3, CELLS, CELL, CELLS, CELL).mean(axis=(2, 4)).reshape(3, -1)
    return np.concatenate((boxes(), cells))[None]


def make_onnx(folder: Path, **fields: object) -> Artifact:
    """Write the model for ONNX Runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx_model())
    return describe(folder, "onnxruntime", ("model.onnx",), **fields)


def onnx_model() -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node(
                "AveragePool",
                ["images"],
                ["cells"],
                kernel_shape=[CELL, CELL],
                strides=[CELL, CELL],
            ),
            helper.make_node("Reshape", ["cells", "shape"], ["scores"]),
            helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
        ],
        "cells",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, IMGSZ, IMGSZ])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, CELLS**2])],
        [
            numpy_helper.from_array(np.array([1, 3, CELLS**2], np.int64), "shape"),
            numpy_helper.from_array(boxes()[None], "boxes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_openvino(folder: Path, **fields: object) -> Artifact:
    """Write the model for OpenVINO."""
    import openvino

    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.onnx"
    source.write_bytes(onnx_model())
    openvino.save_model(
        openvino.convert_model(source), folder / "model.xml", compress_to_fp16=False
    )
    source.unlink()
    return describe(folder, "openvino", ("model.xml", "model.bin"), **fields)


def make_ncnn(folder: Path, **fields: object) -> Artifact:
    """Write the model for ncnn, whose files are simple enough to write by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    places = CELLS**2
    layers = (
        "Input        in0     0 1 in0",
        f"Pooling      cells   1 1 in0 cells 0=1 1={CELL} 2={CELL}",
        f"Reshape      scores  1 1 cells scores 0={places} 1=3",
        f"MemoryData   boxes   0 1 boxes 0={places} 1=4",
        "Concat       out     2 1 boxes scores out0 0=0",
    )
    (folder / "model.ncnn.param").write_text("\n".join(("7767517", "5 5", *layers)) + "\n")
    (folder / "model.ncnn.bin").write_bytes(boxes().tobytes())
    return describe(folder, "ncnn", ("model.ncnn.param", "model.ncnn.bin"), **fields)


def make_litert(folder: Path, **fields: object) -> Artifact:
    """Write the model for LiteRT, whose pooling has the channels last."""
    from tiny_tflite import Tflite

    folder.mkdir(parents=True, exist_ok=True)
    model = Tflite()
    image = model.tensor((1, 3, IMGSZ, IMGSZ))
    to_last = model.constant(np.array([0, 2, 3, 1], np.int32))
    to_first = model.constant(np.array([0, 3, 1, 2], np.int32))
    last = model.operation("TRANSPOSE", [image, to_last], (1, IMGSZ, IMGSZ, 3))
    pooled = model.operation(
        "AVERAGE_POOL_2D",
        [last],
        (1, CELLS, CELLS, 3),
        options="Pool2DOptions",
        filterHeight=CELL,
        filterWidth=CELL,
        strideH=CELL,
        strideW=CELL,
        padding=1,  # none
    )
    cells = model.operation("TRANSPOSE", [pooled, to_first], (1, 3, CELLS, CELLS))
    shape = model.constant(np.array([1, 3, CELLS**2], np.int32))
    scores = model.operation("RESHAPE", [cells, shape], (1, 3, CELLS**2))
    places = model.constant(boxes()[None])
    output = model.operation(
        "CONCATENATION",
        [places, scores],
        (1, 7, CELLS**2),
        options="ConcatenationOptions",
        axis=1,
    )
    (folder / "model.tflite").write_bytes(model.pack([image], [output]))
    return describe(folder, "litert", ("model.tflite",), **fields)


def make_null(folder: Path, **fields: object) -> Artifact:
    """Write an artifact without a model."""
    folder.mkdir(parents=True, exist_ok=True)
    return describe(folder, "null", (), **fields)


def make_tensorrt(folder: Path, precision: str = "fp32", **fields: object) -> Artifact:
    """Write the model for TensorRT, which runs on no machine without an NVIDIA GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(typed_onnx_model(precision))
    return describe(folder, "tensorrt", ("model.onnx",), precision=precision, **fields)


def typed_onnx_model(precision: str) -> bytes:
    """The model with a convolution for its pooling, typed as TensorRT is to compute it.

    Args:
        precision: ``fp32``, ``fp16`` or ``int8``.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.full((3, 1, CELL, CELL), 1 / CELL**2, np.float32)
    constants = {"shape": np.array([1, 3, CELLS**2], np.int64), "boxes": boxes()[None]}
    convolution = {
        "group": 3,
        "kernel_shape": [CELL, CELL],
        "strides": [CELL, CELL],
    }
    if precision == "int8":
        scale, zero = np.float32(1 / 127), np.int8(0)
        constants |= {"scale": scale, "zero": zero, "by": np.float32(CELL**-2)}
        constants["weights"] = np.ones(weights.shape, np.int8)
        nodes = [
            helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
            helper.make_node("DequantizeLinear", ["weights", "by", "zero"], ["w"]),
            helper.make_node("Conv", ["x", "w"], ["cells"], **convolution),
        ]
    elif precision == "fp16":
        constants["weights"] = weights.astype(np.float16)
        nodes = [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT16),
            helper.make_node("Conv", ["x", "weights"], ["y"], **convolution),
            helper.make_node("Cast", ["y"], ["cells"], to=TensorProto.FLOAT),
        ]
    else:
        constants["weights"] = weights
        nodes = [helper.make_node("Conv", ["images", "weights"], ["cells"], **convolution)]
    nodes += [
        helper.make_node("Reshape", ["cells", "shape"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, IMGSZ, IMGSZ])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, CELLS**2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def describe(folder: Path, runtime: str, files: tuple[str, ...], **fields: object) -> Artifact:
    """Write ``artifact.json`` for the model files in ``folder``."""
    known = {
        "path": str(folder),
        "files": files,
        "sha256": sha256_of(folder / name for name in files),
        "parent_sha256": None,
        "target": "x86-cpu",
        "runtime": runtime,
        "precision_asked": "fp32",
        "precision": "fp32",
        "imgsz": IMGSZ,
        "names": NAMES,
        "nms_free": False,
        "size_mb": 0.01,
    }
    artifact = Artifact.model_validate(known | fields)
    write_record(folder / ARTIFACT_FILE, artifact)
    return artifact


def calibrated_on(*images: str) -> Calibration:
    """A calibration on these images, by their path in the data set."""
    return Calibration(method="minmax", n_images=len(images), seed=0, split="train", images=images)


def draw(objects: list[tuple[int, int]]) -> np.ndarray:
    """A 64 px BGR image with one square per (place, class)."""
    image = np.zeros((IMGSZ, IMGSZ, 3), np.uint8)
    for place, class_id in objects:
        row, column = divmod(place, CELLS)
        cell = image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        cell[..., 2 - class_id] = 255
    return image


def make_data(folder: Path, n_images: int = 6, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write a data set of such images with their labels, and return its YAML."""
    rng = np.random.default_rng(0)
    for split in splits:
        for i in range(n_images):
            places = rng.choice(CELLS**2, size=4, replace=False).tolist()
            objects = [(place, i % 3) for i, place in enumerate(places)]
            image_file = folder / "images" / split / f"{i}.png"
            label_file = folder / "labels" / split / f"{i}.txt"
            image_file.parent.mkdir(parents=True, exist_ok=True)
            label_file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image_file), draw(objects))
            rows = [
                " ".join(map(str, (class_id, *(boxes()[:, place] / IMGSZ))))
                for place, class_id in objects
            ]
            label_file.write_text("\n".join(rows) + "\n")
    lines = [f"{split}: images/{split}" for split in splits]
    yaml = folder / "data.yaml"
    yaml.write_text("\n".join((*lines, f"names: [{', '.join(NAMES)}]")) + "\n")
    return yaml
