"""TensorRT 10 and 11 on an NVIDIA GPU.

An engine fits one TensorRT on one kind of GPU, so it is no part of an artifact: it is built here
from the artifact's ONNX, once, and kept in this user's cache, from which the next build clears what
nobody has used for 30 days. An engine that came with an artifact
would also be machine code that anybody could have put there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt
from numpy.typing import NDArray

from musgd_cli.errors import MusgdError, UnsupportedError
from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.installation import pip
from musgd_cli.runtime import cuda, tensorrt_plan
from musgd_cli.runtime.engine import Model, cannot_load, cannot_run, check_input, check_output
from musgd_cli.storage import whole_folder

_PLAN, _FACTS = "model.engine", "built.json"
_KEPT_S = 30 * 86400.0

_OLDEST_INT8 = (6, 1)
_WITHOUT_INT8 = frozenset({(6, 2)})
"""CUDA's C++ Programming Guide: ``__dp4a`` came with compute capability 6.1. A Jetson TX2, which is
6.2, has no INT8, as NVIDIA's support matrices of TensorRT had it."""


@dataclass(frozen=True)
class Plan:
    """An engine of this machine."""

    data: bytes
    seconds: float
    """Of the build."""
    types: dict[str, int]
    """See `musgd_cli.runtime.tensorrt_plan.types_of`."""


class TensorRtEngine:
    """One execution context on a stream of its own, between buffers that the GPU copies itself.

    An inference is the copy to the GPU, the model, the copy back and the wait for it.
    """

    version = tensorrt.__version__

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:  # noqa: ARG002
        self._artifact = artifact
        self._gpu = gpu = _open_gpu()
        self._log = tensorrt_plan.log_of(tensorrt)
        try:
            plan, self._engine = self._load(folder)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise tensorrt_plan.TensorRtError(self._log.words())
            # Engines of detailed verbosity otherwise name every kernel to the profiler.
            self._context.nvtx_verbosity = tensorrt.ProfilingVerbosity.NONE
            self._bind(folder)
        except (tensorrt_plan.TensorRtError, cuda.CudaError) as error:
            gpu.close()
            raise _in_words(folder, artifact, error) from error
        except BaseException:
            gpu.close()
            raise
        self.settings = {
            "device": gpu.name,
            "compute capability": ".".join(map(str, gpu.capability)),
            "driver": _driver(gpu),
            "built": f"on this machine in {plan.seconds:.0f} s",
        }
        if plan.types:
            self.settings["layers"] = _in_types(plan.types)

    def _load(self, folder: Path) -> tuple[Plan, Any]:
        """Load the engine; one in the cache that does not load is built anew."""
        runtime = tensorrt.Runtime(self._log)
        for is_last in (False, True):
            plan = _plan(folder, self._artifact, self._gpu, on_build=lambda: None)
            engine = runtime.deserialize_cuda_engine(plan.data)
            if engine is not None:
                return plan, engine
            failure = tensorrt_plan.TensorRtError(self._log.words())
            if is_last or failure.lacks_memory or failure.lacks_driver:
                raise failure
            shutil.rmtree(_place(self._artifact, self._gpu), ignore_errors=True)
        raise AssertionError("the loop returns or raises")

    def _bind(self, folder: Path) -> None:
        """Give the engine's input and output their memory, here and on the GPU."""
        engine, modes = self._engine, tensorrt.TensorIOMode
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs, outputs = (
            [name for name in names if engine.get_tensor_mode(name) == mode]
            for mode in (modes.INPUT, modes.OUTPUT)
        )
        if (len(inputs), len(outputs)) != (1, 1):
            raise tensorrt_plan.TensorRtError("it has more than one input or output")
        if {engine.get_tensor_dtype(name) for name in names} != {tensorrt.DataType.FLOAT}:
            raise tensorrt_plan.TensorRtError("it does not take and give float32")
        taken, given = (tuple(engine.get_tensor_shape(name)) for name in (*inputs, *outputs))
        check_input(folder, self._artifact, taken)
        check_output(folder, self._artifact, given)
        self._input, self._output = (self._gpu.pinned(shape) for shape in (taken, given))
        self._x, self._y = (
            self._gpu.allocate(array.nbytes) for array in (self._input, self._output)
        )
        for name, address in zip((*inputs, *outputs), (self._x, self._y), strict=True):
            self._context.set_tensor_address(name, address)

    @staticmethod
    def prepare(folder: Path, artifact: Model, on_build: Callable[[], None]) -> None:
        """See to it that the engine is in the cache; see `musgd_cli.runtime.prepare`."""
        gpu = _open_gpu()
        try:
            _plan(folder, artifact, gpu, on_build)
        except (tensorrt_plan.TensorRtError, cuda.CudaError) as error:
            raise _in_words(folder, artifact, error) from error
        finally:
            gpu.close()

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model; see :class:`musgd_cli.runtime.engine.Engine`."""
        gpu = self._gpu
        np.copyto(self._input, x)
        try:
            gpu.use()
            gpu.send(self._input, self._x)
            if not self._context.execute_async_v3(gpu.stream):
                raise cannot_run(self._artifact, self._log.words())
            gpu.fetch(self._y, self._output)
            gpu.wait()
        except cuda.CudaError as error:
            raise cannot_run(self._artifact, error) from error
        return self._output

    def close(self) -> None:
        """Free the model, its memory on the GPU and the stream."""
        del self._context, self._engine, self._input, self._output
        self._gpu.close()


def _open_gpu() -> cuda.Device:
    """Return the GPU, once this TensorRT is one that we know.

    Raises:
        UnsupportedError: There is none that works, or TensorRT is too old.
    """
    if int(TensorRtEngine.version.partition(".")[0]) < tensorrt_plan.STRONGLY_TYPED:
        raise UnsupportedError(
            f"TensorRT {TensorRtEngine.version} is too old: musgd runs 10 and newer",
            f"{pip('install --upgrade tensorrt')}; on a Jetson Nano: python3 nano_agent.py bench",
        )
    try:
        return cuda.Device()
    except cuda.CudaError as error:
        raise UnsupportedError(
            f"the NVIDIA GPU refuses to work: {error}", "see what nvidia-smi says of it"
        ) from error


def _in_types(types: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in types.items())


def _driver(gpu: cuda.Device) -> str:
    seen = first_gpu()
    return (seen.driver if seen else None) or f"of CUDA {gpu.cuda}"


def _in_words(folder: Path, artifact: Model, error: Exception) -> MusgdError:
    """Put into the user's words why an engine cannot be loaded."""
    failure = tensorrt_plan.TensorRtError(str(error))
    if failure.lacks_memory:
        return MusgdError(
            f"the GPU has too little memory left for {folder / artifact.files[0]}: {error}",
            "end what else uses it, as nvidia-smi lists it, or export at a smaller --imgsz",
        )
    if failure.lacks_driver:
        older = "install 'tensorrt<11'"
        return UnsupportedError(
            f"NVIDIA's driver is too old for TensorRT {TensorRtEngine.version}: {error}",
            f"update the driver, or install an older one: {pip(older)}",
        )
    return cannot_load(folder, artifact, error)


# ------------------------------------------------------------------------------------- the cache


def _plan(folder: Path, artifact: Model, gpu: cuda.Device, on_build: Callable[[], None]) -> Plan:
    """Return a model's engine from the cache, into which it is built if it is not there.

    Raises:
        UnsupportedError: This GPU, or this TensorRT, would compute it in another precision.
        MusgdError: TensorRT builds none, or the cache cannot be written.
    """
    place = _place(artifact, gpu)
    try:
        facts = json.loads((place / _FACTS).read_text("utf-8"))
        plan = Plan((place / _PLAN).read_bytes(), facts["seconds"], facts["types"])
        with suppress(OSError):  # a cache that may only be read
            os.utime(place)
        return plan
    except (OSError, ValueError, KeyError):
        _require_arithmetic(folder, artifact, gpu)
        on_build()
        return _build(folder, artifact, place)


def _place(artifact: Model, gpu: cuda.Device) -> Path:
    """Return where in the cache a model's engine lies: all that it depends on is in its name."""
    import platformdirs

    capability = "".join(map(str, gpu.capability))
    parts = (
        artifact.sha256[:16],
        f"trt{TensorRtEngine.version}",
        gpu.name,
        f"sm{capability}",
        f"driver {_driver(gpu)}",
    )
    name = re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower())
    return platformdirs.user_cache_path("musgd") / "tensorrt" / name


def _require_arithmetic(folder: Path, artifact: Model, gpu: cuda.Device) -> None:
    """Refuse int8 where the GPU has none: TensorRT would compute it in float without a word."""
    has_int8 = gpu.capability >= _OLDEST_INT8 and gpu.capability not in _WITHOUT_INT8
    if "int8" in artifact.precision and not has_int8:
        raise UnsupportedError(
            f"{folder} is {artifact.precision}, and the {gpu.name} has no int8 arithmetic: its "
            f"compute capability is {'.'.join(map(str, gpu.capability))}",
            "bench the fp16 artifact",
        )


def _build(folder: Path, artifact: Model, place: Path) -> Plan:
    onnx = folder / artifact.files[0]
    if onnx.suffix != ".onnx":
        raise UnsupportedError(
            f"{onnx} is an engine of the machine it was built on, and no ONNX lies first",
            "musgd export makes an artifact with its ONNX",
        )
    try:
        network = tensorrt_plan.Network(tensorrt, onnx)
        if network.precision != artifact.precision:
            raise UnsupportedError(
                f"TensorRT {TensorRtEngine.version} would compute {onnx} in {network.precision}, "
                f"not in {artifact.precision} as its record says: an ONNX for TensorRT 8.2 leaves "
                "the types to the builder",
                "musgd export --target x86-gpu makes one for this machine",
            )
        began = time.monotonic()
        data = network.build()
        seconds = time.monotonic() - began
        types = _types_in(data)
    except tensorrt_plan.TensorRtError as error:
        if error.lacks_memory or error.lacks_driver:
            raise
        raise tensorrt_plan.refused("tensorrt", error) from error
    lower = artifact.precision.removeprefix("mixed-")
    if types and lower != "fp32" and lower not in types:
        raise MusgdError(
            f"TensorRT {TensorRtEngine.version} built {onnx} without a layer in {lower}: "
            f"there are {_in_types(types)}",
            "please report it, with the versions that musgd doctor shows",
        )
    plan = Plan(data, round(seconds, 1), types)
    try:
        with whole_folder(place) as temporary:
            (temporary / _PLAN).write_bytes(data)
            facts = {"seconds": plan.seconds, "types": types}
            (temporary / _FACTS).write_text(json.dumps(facts) + "\n", "utf-8")
    except MusgdError as error:
        raise MusgdError(
            f"the engine that was built cannot be kept: {error.what}",
            "set XDG_CACHE_HOME to a folder with some room that you may write to",
        ) from error
    _clear(place.parent)
    return plan


def _clear(cache: Path) -> None:
    """Remove the engines that nobody has used of late: of models and drivers that are gone."""
    for place in cache.iterdir():
        with suppress(OSError):  # another process clears it, too
            if time.time() - place.stat().st_mtime > _KEPT_S:
                shutil.rmtree(place)


def _types_in(data: bytes) -> dict[str, int]:
    """Read back from an engine what its layers compute in."""
    log: Any = tensorrt_plan.log_of(tensorrt)
    engine = tensorrt.Runtime(log).deserialize_cuda_engine(data)
    if engine is None:
        raise tensorrt_plan.TensorRtError(log.words())
    return tensorrt_plan.types_of(tensorrt, engine)
