"""LiteRT, once TensorFlow Lite, on the CPU: what XNNPACK does not know, LiteRT's kernels run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from musgd_cli.runtime.engine import Model, cannot_load, cannot_run, check_input, check_output
from musgd_cli.runtime.native_stderr import quiet_native_code
from musgd_cli.runtime.tflite_notes import read_notes

_INTEGERS = (np.int8, np.uint8, np.int16)


class LiteRtEngine:
    """One interpreter.

    Models from elsewhere differ at their ends: channels last, integers, boxes as shares of the
    image's side. They are fed and read so; the conversions are part of the inference, as they are
    wherever such a model runs.
    """

    version = metadata.version("ai-edge-litert")

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        self._folder, self._artifact = folder, artifact
        file = folder / artifact.files[0]
        try:
            with quiet_native_code():  # it greets on stderr
                self._interpreter = Interpreter(str(file), num_threads=threads)
                self._settle_size()
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            # That its ops could not be registered it adds to the reason why.
            why = str(error).replace("Registration failed.", "")
            raise cannot_load(folder, artifact, why) from error
        inputs, outputs = self._ends()
        if (len(inputs), len(outputs)) != (1, 1):
            raise cannot_load(folder, artifact, "it has more than one input or output")
        self._x, self._y = inputs[0], outputs[0]
        self._channels_last = _has_channels_last(self._x["shape"])
        check_input(folder, artifact, _channels_first(self._x["shape"].tolist()))
        check_output(folder, artifact, self._y["shape"].tolist())
        for end in (self._x, self._y):
            if end["dtype"] not in (np.float32, *_INTEGERS):
                kinds = f"{self._x['dtype'].__name__} into {self._y['dtype'].__name__}"
                raise cannot_load(folder, artifact, f"it turns {kinds}")
            if end["dtype"] in _INTEGERS and end["quantization"][0] == 0:
                raise cannot_load(folder, artifact, "its integers have no scale")
        self._in_shares = self._gives_shares(file)
        # It tells neither its threads nor its delegate: these are as they were asked for.
        self.settings = {"threads": str(threads), "delegate": "xnnpack"}

    def _ends(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def _settle_size(self) -> None:
        for end in self._ends()[0]:
            if (end["shape_signature"] < 0).any():
                side = self._artifact.imgsz
                last = _has_channels_last(end["shape_signature"])
                shape = (1, side, side, 3) if last else (1, 3, side, side)
                self._interpreter.resize_tensor_input(end["index"], shape)

    def _gives_shares(self, file: Path) -> bool | None:
        """Tell whether boxes are shares of the image's side, not pixels, as far as the file says.

        Ultralytics' are, that int8 may resolve them; only final boxes of what has the channels
        first are in pixels. Others have the channels last from onnx2tf, as Ultralytics once had.
        """
        if self._artifact.nms_free:
            return self._channels_last
        return True if read_notes(file).get("author") == "Ultralytics" else None

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        output = self._run(x)
        if self._in_shares is None:  # the centres of all places span the image
            self._in_shares = bool(output[0, :2].max() < 2)
        if self._in_shares:
            boxes = output[:, :, :4] if self._artifact.nms_free else output[:, :4]
            boxes *= self._artifact.imgsz
        return output

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        image: NDArray[Any] = x.transpose(0, 2, 3, 1) if self._channels_last else x
        if self._x["dtype"] in _INTEGERS:
            image = _quantized(image, self._x)
        try:
            self._interpreter.set_tensor(self._x["index"], image)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise cannot_run(self._artifact, error) from error
        output: NDArray[Any] = self._interpreter.get_tensor(self._y["index"])
        check_output(self._folder, self._artifact, output.shape)
        if self._y["dtype"] in _INTEGERS:
            scale, zero = self._y["quantization"]
            output = (output.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return output

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter


def _has_channels_last(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[1] != 3 and shape[3] == 3


def _channels_first(shape: list[int]) -> list[int]:
    return [shape[i] for i in (0, 3, 1, 2)] if _has_channels_last(shape) else shape


def _quantized(image: NDArray[np.float32], end: dict[str, Any]) -> NDArray[Any]:
    scale, zero = end["quantization"]
    limits = np.iinfo(end["dtype"])
    steps = np.rint(image * np.float32(1 / scale)) + np.float32(zero)
    found: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(end["dtype"])
    return found
