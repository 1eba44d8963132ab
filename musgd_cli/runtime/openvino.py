"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from musgd_cli.errors import UnsupportedError
from musgd_cli.hardware.cpu import computes_bf16
from musgd_cli.runtime.engine import Model, cannot_load, check_shapes

_CAPABILITY = {"f16": "FP16", "bf16": "BF16", "f32": "FP32"}


class OpenVinoEngine:
    """One compiled model and one request, tuned for latency."""

    version = openvino.__version__.partition("-")[0]

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        core = openvino.Core()
        precision = self._execution_precision(core, folder, artifact)
        try:
            model = core.read_model(folder / artifact.files[0])
            x, y = model.input(0), model.output(0)
            if model.is_dynamic():
                raise cannot_load(folder, artifact, "its shapes are dynamic")
            check_shapes(folder, artifact, list(x.shape), list(y.shape))
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "NUM_STREAMS": 1,
                    "INFERENCE_NUM_THREADS": threads,
                    "INFERENCE_PRECISION_HINT": precision,
                },
            )
        except RuntimeError as error:
            raise cannot_load(folder, artifact, error) from error
        self._request = compiled.create_infer_request()
        self.settings = {
            "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
            "precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
        }

    @staticmethod
    def _execution_precision(core: openvino.Core, folder: Path, artifact: Model) -> str:
        """Say what the float operations run in.

        Left to itself OpenVINO runs fp32 and int8 models in bf16 where the CPU has it, and takes
        a wish for f16 as one for bf16; the figures would then belong to another model.
        """
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        wanted = {"fp16": "f16", "bf16": "bf16"}.get(artifact.precision, "f32")
        # Asked for what a CPU lacks, OpenVINO takes something else without a word.
        if wanted == "bf16" and not (_CAPABILITY[wanted] in capabilities and computes_bf16()):
            raise UnsupportedError(
                f"{folder} is bf16, which this CPU does not compute", "bench the fp32 artifact"
            )
        if _CAPABILITY[wanted] in capabilities:
            return wanted
        return "f32"  # weights stored in fp16 are widened once, when the model is compiled

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        self._request.infer({0: x}, share_inputs=True, share_outputs=True)
        output: NDArray[np.float32] = self._request.get_output_tensor(0).data
        return output

    def close(self) -> None:
        """Free the request, and the model with it."""
        del self._request
