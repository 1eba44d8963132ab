"""The README of an artifact's folder: how to run the model without us."""

from __future__ import annotations

from musgd_cli.compress import tensorrt
from musgd_cli.records import Artifact

_LOADING = {
    "onnxruntime": """import onnxruntime
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
output = session.run(None, {{"images": x}})[0]""",
    "openvino": """import openvino
model = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})
output = model(x)[0]""",
    "ncnn": """import ncnn
net = ncnn.Net(); net.load_param("{file}"); net.load_model("model.ncnn.bin")
with net.create_extractor() as e:
    e.input("in0", ncnn.Mat(x[0])); output = e.extract("out0")[1]  # without the leading 1""",
    "litert": """from ai_edge_litert.interpreter import Interpreter
model = Interpreter("{file}"); model.allocate_tensors()
model.set_tensor(model.get_input_details()[0]["index"], x); model.invoke()
output = model.get_tensor(model.get_output_details()[0]["index"])""",
}

_OPENVINO_HINTS = {"bf16": "bf16"}
"""Of the precision that is not in the file but asked of the engine; f32 for the others."""


def text(artifact: Artifact) -> str:
    """Return the README of an artifact."""
    size, n_classes = artifact.imgsz, len(artifact.names)
    output = (
        "(1, 300, 6): x1, y1, x2, y2 in input pixels, score, class; no NMS needed"
        if artifact.nms_free
        else f"(1, {4 + n_classes}, anchors): centre x, centre y, width, height in input pixels, "
        f"then {n_classes} class scores; NMS is left to you"
    )
    return f"""# {artifact.runtime} {artifact.precision} for {artifact.target}, {size} px

Input: float32 (1, 3, {size}, {size}), RGB / 255, scaled to fit, padded to a square with 114 / 255.
Output: {output}. Class names, hashes and versions: `artifact.json`.
{_gate(artifact)}
{_loading(artifact)}

Licence: {artifact.license}, as Ultralytics states for models trained with it.
"""


def _gate(artifact: Artifact) -> str:
    gate = artifact.gate
    if gate is None:
        return ""
    drop = "" if gate.map50_95_drop is None else f", drop of mAP50-95 {gate.map50_95_drop:.4f}"
    reasons = "".join(f" {reason}." for reason in gate.reasons)
    return (
        f"Gate: {gate.verdict} against its float parent on {gate.n_images} images{drop}, scored by "
        f"{gate.scored_by}.{reasons}\n"
    )


def _loading(artifact: Artifact) -> str:
    if artifact.runtime == "tensorrt":
        built = "".join(f" (`{file}` was built here)" for file in artifact.files[1:])
        return f"""Build the engine on the machine that runs it{built}, and time it:

```sh
{_trtexec(artifact)}
```"""
    hint = _OPENVINO_HINTS.get(artifact.precision, "f32")
    code = _LOADING[artifact.runtime].format(file=artifact.files[0], hint=hint)
    return f"```python\n{code}\n```"


def _trtexec(artifact: Artifact) -> str:
    model, engine = f"--onnx={artifact.files[0]}", "--saveEngine=model.engine"
    if tensorrt.old_version(artifact.boards):  # JetPack's, not on the PATH; the board has 4 GB
        return f"/usr/src/tensorrt/bin/trtexec {model} --fp16 --workspace=1024 {engine}"
    return f"trtexec {model} --stronglyTyped {engine}"
