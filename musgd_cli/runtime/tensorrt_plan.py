"""TensorRT's plans: an ONNX built for one GPU and one version of TensorRT, and what came of it.

TensorRT 10, 11 and TensorRT-RTX build strongly typed engines: what the ONNX holds in float16 or
between int8 QuantizeLinear/DequantizeLinear pairs runs so, and nothing else does. TensorRT 11 knows
no other way: its builder flags of precisions are gone. The module is an argument everywhere, for
there are two: ``tensorrt`` and ``tensorrt_rtx``.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from musgd_cli.errors import MusgdError
from musgd_cli.installation import pip

STRONGLY_TYPED = 10
"""The first version of TensorRT that builds strongly typed engines from every ONNX of ours."""

INT8_SHARE = 0.8
"""`musgd_cli.records.INT8_SHARE`, which only pydantic could read here."""

# What TensorRT's logs and exceptions say of memory that is used up, and of a driver's age.
_MEMORY = re.compile(r"out of memory|OutOfMemory|out-of-memory", re.IGNORECASE)
_DRIVER = re.compile(r"cudaError 35|error: 35\b|driver version is insufficient", re.IGNORECASE)

# How engine inspectors name types: TensorRT 10 within a description of the format, such as
# "Thirty-two wide channel vectorized row major Int8 format", 11 also by themselves.
_TYPES = {
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "fp16": re.compile(r"\b(fp16|half)\b", re.IGNORECASE),
    "fp32": re.compile(r"\b(fp32|float)\b", re.IGNORECASE),
}


class TensorRtError(Exception):
    """TensorRT did not do what it was asked, in its own words."""

    @property
    def lacks_memory(self) -> bool:
        """The GPU's memory was used up."""
        return _MEMORY.search(str(self)) is not None

    @property
    def lacks_driver(self) -> bool:
        """The driver is older than this TensorRT asks for."""
        return _DRIVER.search(str(self)) is not None


def log_of(trt: Any) -> Any:
    """Return a logger that keeps TensorRT's errors: its own writes to stderr behind Python's back.

    Its ``words()`` are all that went wrong since they were last asked for.
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # the module is known at run time alone
        def __init__(self) -> None:
            super().__init__()
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors.append(message)

        def words(self) -> str:
            errors, self._errors = self._errors, []
            return "; ".join(dict.fromkeys(errors)) or "it does not say why"

    return Log()


def refused(name: str, why: object) -> MusgdError:
    """Put into the user's words that TensorRT builds no engine of a model."""
    away = pip(f"uninstall {name.replace('_', '-')}")
    return MusgdError(
        f"{name} builds no engine of this model: {why}",
        f"{away}: the ONNX is then exported without an engine",
    )


class Network:
    """An ONNX, parsed.

    Args:
        trt: TensorRT's module.
        onnx: The file.

    Raises:
        TensorRtError: TensorRT cannot read it, or does not work here.
    """

    def __init__(self, trt: Any, onnx: Path) -> None:
        self._trt = trt
        self._log = log_of(trt)
        try:
            self._builder = trt.Builder(self._log)
        except (RuntimeError, TypeError) as error:  # its libraries, or the GPU's driver
            raise TensorRtError(f"{error}; {self._log.words()}") from error
        self._network = self._builder.create_network(_network_flags(trt))
        # Kept: the network refers to the weights that the parser holds.
        self._parser = trt.OnnxParser(self._network, self._log)
        if not self._parser.parse_from_file(str(onnx)):
            several = self._parser.num_errors
            raise TensorRtError(self._parser.get_error(0).desc() if several else self._log.words())

    @property
    def precision(self) -> str:
        """What its convolutions compute in: ``fp32``, ``fp16``, ``int8`` or ``mixed-int8``.

        By their multiply-accumulates, as `musgd_cli.compress.precision.built` has it.
        """
        macs: Counter[str] = Counter()
        for kind, n in self._convolutions():
            macs[kind] += n
        int8, total = macs.pop("int8", 0), sum(macs.values())
        if int8:
            return "int8" if int8 >= INT8_SHARE * (int8 + total) else "mixed-int8"
        return max(macs, key=lambda kind: macs[kind], default="fp32")

    def _convolutions(self) -> Iterator[tuple[str, int]]:
        """Yield what each convolution computes in, and its multiply-accumulates."""
        trt, network = self._trt, self._network
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        makers = {
            layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)
        }
        names = {trt.DataType.HALF: "fp16", trt.DataType.FLOAT: "fp32", trt.DataType.BF16: "bf16"}
        for layer in layers:
            if layer.type != trt.LayerType.CONVOLUTION:
                continue
            layer.__class__ = trt.IConvolutionLayer  # as NVIDIA's own samples do
            image = layer.get_input(0)
            maker = makers.get(image.name)
            quantized = maker is not None and maker.type == trt.LayerType.DEQUANTIZE
            per_place = math.prod(layer.kernel_size_nd) * image.shape[1] // layer.num_groups
            kind = "int8" if quantized else names.get(image.dtype, str(image.dtype))
            yield kind, math.prod(layer.get_output(0).shape) * per_place

    def build(self) -> bytes:
        """Return the plan; it takes minutes, for every kernel is timed on the GPU.

        Raises:
            TensorRtError: There is none.
        """
        config = self._builder.create_builder_config()
        # Otherwise `types_of` would find names alone.
        config.profiling_verbosity = self._trt.ProfilingVerbosity.DETAILED
        plan = self._builder.build_serialized_network(self._network, config)
        if plan is None:
            raise TensorRtError(self._log.words())
        return bytes(plan)


def _network_flags(trt: Any) -> int:
    """Ask for strong types, where there is another kind to choose."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def types_of(trt: Any, engine: Any) -> dict[str, int]:
    """Return how many of an engine's layers take what: ``int8``, ``fp16``, ``fp32``.

    A layer counts once, as what is narrowest among its inputs. TensorRT fuses layers and drops
    others, so these are not the ONNX's. Empty where the inspector does not tell.

    Args:
        trt: TensorRT's module.
        engine: Built with detailed verbosity.
    """
    inspector = engine.create_engine_inspector()
    told = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(told)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = (_narrowest(layer) for layer in layers if isinstance(layer, Mapping))
    counted = Counter(kind for kind in found if kind is not None)
    return {kind: counted[kind] for kind in _TYPES if counted[kind]}


def _narrowest(layer: Mapping[str, Any]) -> str | None:
    inputs = layer.get("Inputs")
    words = [
        str(value)
        for tensor in (inputs if isinstance(inputs, list) else ())
        if isinstance(tensor, Mapping)
        for key, value in tensor.items()
        if key in ("Format/Datatype", "Format", "DataType", "Datatype")
    ]
    return next((kind for kind, name in _TYPES.items() if any(map(name.search, words))), None)
