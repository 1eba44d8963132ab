"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from musgd_cli.runtime.engine import Model, cannot_load, check_shapes


class OnnxRuntimeEngine:
    """One session, its output bound to memory of ours."""

    version = onnxruntime.__version__

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin while they wait halve the speed where cores are fewer than believed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / artifact.files[0]), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise cannot_load(folder, artifact, error) from error
        x, y = self._session.get_inputs()[0], self._session.get_outputs()[0]
        check_shapes(folder, artifact, x.shape, y.shape)
        self._input = x.name
        self._output = np.empty(y.shape, np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_output(
            y.name, "cpu", 0, np.float32, self._output.shape, self._output.ctypes.data
        )
        self.settings = {
            "threads": str(self._session.get_session_options().intra_op_num_threads),
            "provider": self._session.get_providers()[0],
        }

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        self._binding.bind_input(self._input, "cpu", 0, np.float32, x.shape, x.ctypes.data)
        self._session.run_with_iobinding(self._binding)
        return self._output

    def close(self) -> None:
        """Free the session."""
        del self._binding, self._session
