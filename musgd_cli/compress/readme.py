"""The README of an artifact's folder: how to run the model without us."""

from __future__ import annotations

from musgd_cli.records import Artifact

_LOADING = {
    "onnxruntime": """import onnxruntime
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
output = session.run(None, {{"images": x}})[0]""",
    "openvino": """import openvino
model = openvino.Core().compile_model("{file}", "CPU")
output = model(x)[0]""",
    "ncnn": """import ncnn
net = ncnn.Net(); net.load_param("{file}"); net.load_model("model.ncnn.bin")
with net.create_extractor() as e:
    e.input("in0", ncnn.Mat(x[0])); output = e.extract("out0")[1]  # without the leading 1""",
}


def text(artifact: Artifact) -> str:
    """Return the README of an artifact."""
    size, n_classes = artifact.imgsz, len(artifact.names)
    output = (
        "(1, 300, 6): x1, y1, x2, y2 in input pixels, score, class; no NMS needed"
        if artifact.nms_free
        else f"(1, {4 + n_classes}, anchors): centre x, centre y, width, height in input pixels, "
        f"then {n_classes} class scores; NMS is left to you"
    )
    loading = _LOADING[artifact.runtime].format(file=artifact.files[0])
    return f"""# {artifact.runtime} {artifact.precision} for {artifact.target}, {size} px

Input: float32 (1, 3, {size}, {size}), RGB / 255, scaled to fit, padded to a square with 114 / 255.
Output: {output}. Class names, hashes and versions: `artifact.json`.

```python
{loading}
```

Licence: {artifact.license}, as Ultralytics states for models trained with it.
"""
