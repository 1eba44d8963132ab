"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from musgd_cli.runtime.engine import Model, cannot_load, cannot_run, check_input, check_output

_TYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OnnxRuntimeEngine:
    """One session, its output bound to memory of ours.

    A model in half precision at its ends is fed and read in it: both conversions are part of the
    inference, as they are wherever such a model runs. One of no fixed size is fed as it is.
    """

    version = onnxruntime.__version__

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin while they wait halve the speed where cores are fewer than believed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # its errors are exceptions
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / artifact.files[0]), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise cannot_load(folder, artifact, error) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (len(inputs), len(outputs)) != (1, 1):
            raise cannot_load(folder, artifact, "it has more than one input or output")
        x, y = inputs[0], outputs[0]
        if not {x.type, y.type} <= _TYPES.keys():
            raise cannot_load(folder, artifact, f"it turns {x.type} into {y.type}, not floats")
        check_input(folder, artifact, x.shape)
        check_output(folder, artifact, y.shape)
        self._folder, self._artifact = folder, artifact
        self._input = x.name
        # Where a model that takes half precision finds its image.
        side = artifact.imgsz
        is_half = _TYPES[x.type] == np.float16
        self._half = np.empty((1, 3, side, side), np.float16) if is_half else None
        self._binding = self._session.io_binding()
        self._output: NDArray[Any] | None = None
        if all(isinstance(size, int) for size in y.shape):
            self._output = np.empty(y.shape, _TYPES[y.type])
            self._binding.bind_output(
                y.name, "cpu", 0, self._output.dtype, y.shape, self._output.ctypes.data
            )
        else:  # its size comes with the image's: ONNX Runtime finds the memory
            self._binding.bind_output(y.name, "cpu")
        self.settings = {
            "threads": str(self._session.get_session_options().intra_op_num_threads),
            "provider": self._session.get_providers()[0],
        }

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        image: NDArray[Any] = x
        if self._half is not None:
            np.copyto(self._half, x, casting="same_kind")
            image = self._half
        self._binding.bind_input(self._input, "cpu", 0, image.dtype, image.shape, image.ctypes.data)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # its exceptions share no base of their own
            raise cannot_run(self._artifact, error) from error
        output = self._output
        if output is None:
            (output,) = self._binding.copy_outputs_to_cpu()
            check_output(self._folder, self._artifact, output.shape)
        return output.astype(np.float32, copy=False)

    def close(self) -> None:
        """Free the session."""
        del self._binding, self._session
