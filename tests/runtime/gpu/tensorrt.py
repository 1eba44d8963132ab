"""The part of TensorRT's Python API that musgd calls, over ONNX Runtime.

Names and behaviour are those of the wheels tensorrt-cu12-bindings 10.16.1.11 and 11.4.0.106, as
their docstrings have them, and of tensorrt-rtx-cu12 1.7.1: the same API, run on a machine without a
GPU, whence the words about an old driver. ``STUB_TENSORRT`` chooses the version, and
``STUB_TENSORRT_FAULT`` what goes wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
from enum import IntEnum
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

__version__ = os.environ.get("STUB_TENSORRT", "11.4.0.106")

_MAGIC = b"plan of the stub\n"
_OLD_DRIVER = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at "
    "/_src/common/dispatch/cudaResources.cpp:25 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)


def _fault(name: str) -> bool:
    return os.environ.get("STUB_TENSORRT_FAULT") == name


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT64 = 8
    BF16 = 7


class LayerType(IntEnum):
    CONVOLUTION = 0
    DEQUANTIZE = 33
    OTHER = 99


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ProfilingVerbosity(IntEnum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class LayerInformationFormat(IntEnum):
    ONELINE = 0
    JSON = 1


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def __init__(self) -> None:
        pass


class _Tensor:
    def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class ILayer:
    """As TensorRT hands it out: what a convolution is besides shows once it is cast to one."""

    def __init__(self, node, tensors) -> None:
        self._node, self._tensors = node, tensors
        kinds = {"Conv": LayerType.CONVOLUTION, "DequantizeLinear": LayerType.DEQUANTIZE}
        self.type = kinds.get(node.op_type, LayerType.OTHER)
        self.num_outputs = len(node.output)

    def get_input(self, index: int) -> _Tensor:
        return self._tensors[self._node.input[index]]

    def get_output(self, index: int) -> _Tensor:
        return self._tensors[self._node.output[index]]


class IConvolutionLayer(ILayer):
    def _attribute(self, name: str):
        return next(a for a in self._node.attribute if a.name == name)

    @property
    def kernel_size_nd(self) -> tuple[int, ...]:
        return tuple(self._attribute("kernel_shape").ints)

    @property
    def num_groups(self) -> int:
        return self._attribute("group").i


class _Network:
    def __init__(self) -> None:
        self.layers: list[ILayer] = []
        self.onnx = b""

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class _Config:
    profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        if _fault("driver"):
            logger.log(ILogger.Severity.ERROR, _OLD_DRIVER)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> _Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        if _fault("build"):
            self._logger.log(ILogger.Severity.WARNING, "this is no error")
            self._logger.log(ILogger.Severity.ERROR, "Error Code 10: could not find a tactic")
            return None
        with Path(os.environ["STUB_BUILDS"]).open("a") as builds:
            builds.write(f"{__version__}\n")
        head = {"version": __version__, "detailed": config.profiling_verbosity == 2}
        return memoryview(_MAGIC + json.dumps(head).encode() + b"\n" + network.onnx)


class _ParserError:
    def desc(self) -> str:
        return "In parseGraph: no importer registered for op: Unheard"


class OnnxParser:
    num_errors = 1

    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network = network

    def get_error(self, index: int) -> _ParserError:
        return _ParserError()

    def parse_from_file(self, path: str) -> bool:
        self._network.onnx = Path(path).read_bytes()
        graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
        if any(node.op_type == "Unheard" for node in graph.node):
            return False
        types = {
            TensorProto.FLOAT: DataType.FLOAT,
            TensorProto.FLOAT16: DataType.HALF,
            TensorProto.INT8: DataType.INT8,
            TensorProto.INT64: DataType.INT64,
        }
        tensors = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            shape = tuple(side.dim_value for side in kind.shape.dim)
            tensors[value.name] = _Tensor(value.name, types[kind.elem_type], shape)
        for one in graph.initializer:
            tensors[one.name] = _Tensor(one.name, types[one.data_type], tuple(one.dims))
        self._network.layers = [ILayer(node, tensors) for node in graph.node]
        return True


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes):
        if not plan.startswith(_MAGIC):
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTag failed.")
            return None
        head, _, model = plan[len(_MAGIC) :].partition(b"\n")
        return _Engine(self._logger, json.loads(head)["detailed"], model)


class _Engine:
    def __init__(self, logger: ILogger, detailed: bool, model: bytes) -> None:
        import onnxruntime

        self.logger, self._detailed = logger, detailed
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = self.session.get_inputs(), self.session.get_outputs()
        self._graph = onnx.load_from_string(model).graph

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def _end(self, name: str):
        return next(end for end in (*self.inputs, *self.outputs) if end.name == name)

    def get_tensor_name(self, index: int) -> str:
        return (*self.inputs, *self.outputs)[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        is_input = name in [end.name for end in self.inputs]
        return TensorIOMode.INPUT if is_input else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._end(name).shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF}[
            self._end(name).type
        ]

    def create_execution_context(self):
        if _fault("memory"):
            self.logger.log(
                ILogger.Severity.ERROR,
                "Error Code 2: OutOfMemory (Requested size was 21474836480 bytes.)",
            )
            return None
        return _Context(self)

    def create_engine_inspector(self):
        return _Inspector(self._graph, self._detailed)


class _Inspector:
    """Tells a layer a convolution: 10 in one word, 11 in two."""

    def __init__(self, graph, detailed: bool) -> None:
        self._graph, self._detailed = graph, detailed

    def get_engine_information(self, how: LayerInformationFormat) -> str:
        names = [node.name for node in self._graph.node]
        if not self._detailed:
            return json.dumps({"Layers": names})
        kinds = {node.op_type for node in self._graph.node}
        if _fault("float") or not kinds & {"DequantizeLinear", "Cast"}:
            told = ("Float", "Row major linear FP32")
        elif "DequantizeLinear" in kinds:
            told = ("Int8", "Thirty-two wide channel vectorized row major Int8 format")
        else:
            told = ("Half", "Channel major FP16 format where channel % 8 == 0")
        if int(__version__.partition(".")[0]) < 11:
            tensor = {"Name": "x", "Dimensions": [1], "Format/Datatype": told[1]}
        else:
            tensor = {"Name": "x", "Dimensions": [1], "DataType": told[0], "Format": told[1]}
        layers = [{"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [tensor]}]
        return json.dumps({"Layers": layers})


class _Context:
    nvtx_verbosity = ProfilingVerbosity.DETAILED

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def _memory(self, end) -> np.ndarray:
        n = int(np.prod(end.shape))
        memory = (ctypes.c_float * n).from_address(self._addresses[end.name])
        return np.ctypeslib.as_array(memory).reshape(end.shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == 9
        if _fault("run"):
            self._engine.logger.log(ILogger.Severity.ERROR, "Error Code 1: Cuda Driver (launch)")
            return False
        (x,), (y,) = self._engine.inputs, self._engine.outputs
        (answer,) = self._engine.session.run(None, {x.name: self._memory(x)})
        self._memory(y)[...] = answer
        return True
