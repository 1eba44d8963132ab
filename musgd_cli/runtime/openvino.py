"""OpenVINO on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from musgd_cli.errors import UnsupportedError
from musgd_cli.hardware.cpu import computes_bf16
from musgd_cli.runtime.engine import Model, cannot_load, cannot_run, check_input, check_output
from musgd_cli.runtime.native_stderr import quiet_native_code

_CAPABILITY = {"f16": "FP16", "bf16": "BF16", "f32": "FP32"}


class OpenVinoEngine:
    """One compiled model and one request, tuned for latency."""

    version = openvino.__version__.partition("-")[0]

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        file = folder / artifact.files[0]
        core = openvino.Core()
        precision = self._execution_precision(core, folder, artifact)
        try:
            with quiet_native_code():  # each frontend complains of a file that is not its own
                model = core.read_model(file)
            if (len(model.inputs), len(model.outputs)) != (1, 1):
                raise cannot_load(folder, artifact, "it has more than one input or output")
            check_input(folder, artifact, _sides(model.input().partial_shape))
            if model.is_dynamic():  # what is fixed now runs faster than what is fixed by each image
                model.reshape([1, 3, artifact.imgsz, artifact.imgsz])
            check_output(folder, artifact, _sides(model.output().partial_shape))
            compiled = core.compile_model(
                _with_float_ends(model),
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "NUM_STREAMS": 1,
                    "INFERENCE_NUM_THREADS": threads,
                    "INFERENCE_PRECISION_HINT": precision,
                },
            )
        except RuntimeError as error:
            raise cannot_load(folder, artifact, _reason(error, file)) from error
        self._folder, self._artifact = folder, artifact
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
        try:
            self._request.infer({0: x}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise cannot_run(self._artifact, error) from error
        output: NDArray[np.float32] = self._request.get_output_tensor(0).data
        check_output(self._folder, self._artifact, output.shape)
        return output

    def close(self) -> None:
        """Free the request, and the model with it."""
        del self._request


def _reason(error: RuntimeError, file: Path) -> str:
    """Name the version of an IR, where it is one that OpenVINO does not know, nor name."""
    with file.open("rb") as stream:
        version = re.search(rb'<net [^>]*version="(\d+)"', stream.read(4096))
    if version is None or "model format" not in str(error):
        return str(error)
    return f"its IR version {int(version[1])} is unknown, or it is damaged"


def _sides(shape: openvino.PartialShape) -> list[object]:
    return [side.get_length() if side.is_static else None for side in shape]


def _with_float_ends(model: openvino.Model) -> openvino.Model:
    """Let the runtime convert at the ends of a model that is in half precision all through."""
    ends = (*model.inputs, *model.outputs)
    if all(end.element_type == openvino.Type.f32 for end in ends):
        return model
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.f32)
    steps.output().tensor().set_element_type(openvino.Type.f32)
    return steps.build()
