"""The float parent: weights as a static fp32 ONNX, from which everything else is made.

Ultralytics' exporter writes beside the weights and stamps the date; here the same weights give the
same bytes, in a folder of the caller's.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.errors import MusgdError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = "model.onnx"

OPSET = 13
"""The newest that TensorRT 8.2 reads, and the oldest that quantizes weights per channel."""

TOLERANCE = 1e-4
"""Most that ONNX Runtime may differ from torch: in score, and in box side as a share of imgsz."""

INPUT, OUTPUT = "images", "output0"
"""Names of the two ends, as Ultralytics gives them."""

LICENSE = "AGPL-3.0 License (https://ultralytics.com/license)"


@dataclass(frozen=True)
class Network:
    """A detection network ready to be traced at one size."""

    module: nn.Module
    """Fused, in evaluation mode, gives one tensor."""
    imgsz: int
    nms_free: bool
    names: tuple[str, ...]
    stride: int
    metadata: dict[str, Any]
    """What Ultralytics' own runner reads from an export."""


def prepare(model: nn.Module, imgsz: int, *, nms_free: bool, source: Path) -> Network:
    """Make a copy of a trained model that exports one static output.

    Args:
        model: As `musgd_cli.train.checkpoint.load_weights` returns it; it is left as it is.
        imgsz: Side of the square input, pixels.
        nms_free: Take the one-to-one head, which needs no NMS, in place of the one-to-many head.
        source: The weights' path, to name them by.

    Raises:
        UsageError: The model cannot be exported so.
    """
    import torch

    network: Any = deepcopy(model).eval().requires_grad_(False)
    head = network.model[-1]
    stride = int(max(network.stride))
    channels = network.yaml.get("channels", 3)
    if channels != 3:
        raise UsageError(
            f"{source} takes images of {channels} channels", "give weights for RGB images"
        )
    if imgsz % stride:
        raise UsageError(
            f"{imgsz} px is no multiple of the stride of {source}, {stride}",
            f"--imgsz {max(round(imgsz / stride), 1) * stride}",
        )
    if nms_free and getattr(head, "one2one_cv2", None) is None:
        raise UsageError(
            f"{source} has no head that is free of NMS", "--set compress.nms_free=false"
        )
    network.end2end = nms_free
    network = network.fuse(verbose=False)
    head.export, head.format, head.dynamic = True, "onnx", False
    # Once through, so that the trace finds the anchors made and keeps them as constants.
    with torch.no_grad():
        network(torch.zeros(1, 3, imgsz, imgsz))
    names = tuple(str(network.names[index]) for index in range(head.nc))
    return Network(
        module=network,
        imgsz=imgsz,
        nms_free=nms_free,
        names=names,
        stride=stride,
        metadata=_metadata(network, imgsz, stride, names, nms_free=nms_free),
    )


def _metadata(
    network: Any, imgsz: int, stride: int, names: tuple[str, ...], *, nms_free: bool
) -> dict[str, Any]:
    import ultralytics

    from musgd_cli import __version__

    stem = Path(str(network.yaml.get("yaml_file", "YOLO"))).stem
    return {
        "description": f"{stem}, exported by musgd {__version__}",
        "author": "musgd",
        "version": ultralytics.__version__,
        "license": LICENSE,
        "docs": "https://docs.ultralytics.com",
        "stride": stride,
        "task": "detect",
        "head": "Detect",
        "batch": 1,
        "imgsz": [imgsz, imgsz],
        "names": dict(enumerate(names)),
        "args": {"batch": 1, "dynamic": False},
        "channels": 3,
        "end2end": nms_free,
    }


def write(network: Network, file: Path) -> None:
    """Write the parent and see that ONNX Runtime computes what torch does.

    Args:
        network: What `prepare` returned.
        file: The ``.onnx`` to write.

    Raises:
        MusgdError: The two differ by more than `TOLERANCE`.
    """
    import onnx
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, network.imgsz, network.imgsz, generator=generator)
    torch.onnx.export(
        network.module,
        (x,),
        str(file),
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=False,  # the other exporter needs onnxscript, and knows no opset below 18
    )
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {k: str(v) for k, v in network.metadata.items()})
    onnx.save(model, file)
    with torch.no_grad():
        _compare(network, file, x, network.module(x))


def _compare(network: Network, file: Path, x: Tensor, expected: Tensor) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {INPUT: x.numpy()})
    wanted = expected.numpy()
    if got.shape != wanted.shape:
        off = np.inf
    elif network.nms_free:
        # Rows are ordered by score, and noise gives ties: compare the scores alone.
        off = np.abs(got[..., 4] - wanted[..., 4]).max()
    else:
        boxes = np.abs(got[:, :4] - wanted[:, :4]).max() / network.imgsz
        off = max(boxes, np.abs(got[:, 4:] - wanted[:, 4:]).max())
    # NaN compares false, so ask for what is wanted.
    if not off <= TOLERANCE:
        raise MusgdError(
            f"the ONNX differs from the weights by {off:.2g}, more than {TOLERANCE:.0e}",
            "please report it, with the versions of torch and onnxruntime that musgd doctor shows",
        )
