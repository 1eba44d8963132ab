"""ncnn on the CPU."""

from __future__ import annotations

from pathlib import Path

import ncnn
import numpy as np
from numpy.typing import NDArray

from musgd_cli.hardware.cpu import read_cpu
from musgd_cli.hardware.tree import Tree
from musgd_cli.runtime.engine import Model, cannot_load, cannot_run, check_output
from musgd_cli.runtime.native_stderr import quiet_native_code


class NcnnEngine:
    """One network; every inference takes an extractor of its own, as ncnn wants it."""

    version = ncnn.__version__

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        # On by default, on ARM: an fp32 artifact would run in fp16.
        half = artifact.precision == "fp16"
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
        options.use_bf16_storage = artifact.precision == "bf16"
        if hasattr(options, "use_bf16_packed"):  # an option of its own only of late
            options.use_bf16_packed = options.use_bf16_storage
        options.use_int8_inference = artifact.precision in ("int8", "mixed-int8")
        if artifact.precision == "int8" and "vnni" in (read_cpu(Tree()).features or ()):
            # Its products in int8 beat Winograd's fewer ones in int16, by 5 % of YOLO26n's time at
            # 640 px, one thread of a Zen 4; on ARM ncnn itself decides so where there are any.
            # Float convolutions, of which a mixed model has many, take twice as long without it.
            options.use_winograd_convolution = False
        if len(artifact.files) < 2:
            raise cannot_load(folder, artifact, "its record does not name a .param and a .bin")
        param, weights = artifact.files[:2]
        # ncnn answers with a number and writes its reason to stderr.
        with quiet_native_code() as said:
            reads_param = self._net.load_param(str(folder / param)) == 0
            reads_weights = reads_param and self._net.load_model(str(folder / weights)) == 0
        if not reads_param:
            raise cannot_load(folder, artifact, said[0] if said else "the .param file is damaged")
        if not reads_weights:
            raise cannot_load(folder, artifact, "the .bin file does not fit the .param file")
        inputs, outputs = self._net.input_names(), self._net.output_names()
        if (len(inputs), len(outputs)) != (1, 1):
            raise cannot_load(folder, artifact, "it has more than one input or output")
        self._folder, self._artifact = folder, artifact
        self._input, self._output = inputs[0], outputs[0]
        self.settings = {
            "threads": str(options.num_threads),
            "fp16_arithmetic": str(options.use_fp16_arithmetic).lower(),
            "bf16_storage": str(options.use_bf16_storage).lower(),
            "int8_inference": str(options.use_int8_inference).lower(),
            "winograd": str(options.use_winograd_convolution).lower(),
        }

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        with self._net.create_extractor() as extractor:
            extractor.input(self._input, ncnn.Mat(x[0]))
            failed, output = extractor.extract(self._output)
        if failed:  # it has no size that could be checked before
            raise cannot_run(
                self._artifact, f"it stops with {failed}, as on an image of a wrong size"
            )
        # The view keeps the Mat alive.
        found = np.asarray(output)[None]
        check_output(self._folder, self._artifact, found.shape)
        return found

    def close(self) -> None:
        """Free the network."""
        self._net.clear()
