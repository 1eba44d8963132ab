"""LiteRT, once TensorFlow Lite, on the CPU: what XNNPACK does not know, LiteRT's kernels run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from musgd_cli.runtime.engine import Model, cannot_load, check_shapes
from musgd_cli.runtime.native_stderr import quiet_native_code


class LiteRtEngine:
    """One interpreter with its default delegate, XNNPACK."""

    version = metadata.version("ai-edge-litert")

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        try:
            with quiet_native_code():  # it greets on stderr
                self._interpreter = Interpreter(
                    str(folder / artifact.files[0]), num_threads=threads
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise cannot_load(folder, artifact, error) from error
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if (len(inputs), len(outputs)) != (1, 1):
            raise cannot_load(folder, artifact, "it has more than one input or output")
        x, y = inputs[0], outputs[0]
        check_shapes(folder, artifact, x["shape"].tolist(), y["shape"].tolist())
        if x["dtype"] != np.float32 or y["dtype"] != np.float32:
            raise cannot_load(folder, artifact, "its input and output are not float32")
        self._input, self._output = x["index"], y["index"]
        # It tells neither its threads nor its delegate: these are as they were asked for.
        self.settings = {"threads": str(threads), "delegate": "xnnpack"}

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        self._interpreter.set_tensor(self._input, x)
        self._interpreter.invoke()
        output: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return output

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter
