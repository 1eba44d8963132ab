"""NVIDIA's CUDA driver, as far as running a model takes: a GPU, its memory, copies, a stream.

By ctypes from ``libcuda.so.1``: it belongs to the driver, so it is wherever a GPU works, while
packages that wrap CUDA's runtime come in versions that have to fit TensorRT's. Both share a GPU's
primary context, and their streams and addresses are one another's.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import UnsupportedError

LIBRARY = "libcuda.so.1"

# Of cuda.h: CUresult, CUdevice_attribute and the flags of streams.
OUT_OF_MEMORY = 2
_NO_DEVICE = 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NON_BLOCKING = 1

_ADDRESS = ctypes.c_uint64
_POINTER = ctypes.c_void_p
_OUT = ctypes.c_void_p
"""What a call writes to."""

_CALLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuGetErrorString": (ctypes.c_int, _OUT),
    "cuDriverGetVersion": (_OUT,),
    "cuDeviceGetCount": (_OUT,),
    "cuDeviceGet": (_OUT, ctypes.c_int),
    "cuDeviceGetName": (_OUT, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetAttribute": (_OUT, ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_OUT, ctypes.c_int),
    "cuDevicePrimaryCtxRelease_v2": (ctypes.c_int,),
    "cuCtxSetCurrent": (_POINTER,),
    "cuMemAlloc_v2": (_OUT, ctypes.c_size_t),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemHostAlloc": (_OUT, ctypes.c_size_t, ctypes.c_uint),
    "cuMemFreeHost": (_POINTER,),
    "cuStreamCreate": (_OUT, ctypes.c_uint),
    "cuStreamDestroy_v2": (_POINTER,),
    "cuStreamSynchronize": (_POINTER,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _POINTER, ctypes.c_size_t, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _ADDRESS, ctypes.c_size_t, _POINTER),
}


class CudaError(Exception):
    """The driver refused a call.

    Args:
        code: Its ``CUresult``.
        words: What it calls that.
    """

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class Driver:
    """The driver's library, loaded and ready.

    Raises:
        UnsupportedError: There is none, or it works with no GPU here.
    """

    def __init__(self) -> None:
        # NVML counts GPUs so: the one that computes is the one whose power is read.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise UnsupportedError(
                f"there is no NVIDIA driver here: {error}",
                "run it where an NVIDIA GPU is; a container gets it by --gpus all",
            ) from error
        try:
            for name, arguments in _CALLS.items():
                getattr(self._library, name).argtypes = arguments
        except AttributeError as error:
            raise UnsupportedError(
                f"NVIDIA's driver is too old: {error}", "install a newer driver"
            ) from error
        try:
            self.call("cuInit", 0)
            if not self.number("cuDeviceGetCount"):
                raise CudaError(_NO_DEVICE, "no CUDA-capable device is detected")
        except CudaError as error:
            raise UnsupportedError(
                f"no NVIDIA GPU works here: {error}",
                "see what nvidia-smi says; after an update of the driver, restart the machine",
            ) from error

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver.

        Raises:
            CudaError: It says no.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            words = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(words))
            raise CudaError(code, (words.value or b"unknown error").decode())

    def number(self, name: str, *arguments: object) -> int:
        """Return the int that a function writes to its first argument."""
        found = ctypes.c_int()
        self.call(name, ctypes.byref(found), *arguments)
        return found.value

    def pointer(self, name: str, *arguments: object) -> int:
        """Return the pointer that a function writes to its first argument; see `number`."""
        found = ctypes.c_uint64()
        self.call(name, ctypes.byref(found), *arguments)
        return found.value


class Device:
    """The first GPU, with one stream.

    What it gave is freed by `close`, in which arrays from `pinned` die too.

    Raises:
        UnsupportedError: See `Driver`.
        CudaError: The GPU refuses.
    """

    def __init__(self) -> None:
        self._driver = driver = Driver()
        self._device = driver.number("cuDeviceGet", 0)
        name = ctypes.create_string_buffer(256)
        driver.call("cuDeviceGetName", name, len(name), self._device)
        self.name = name.value.decode()
        """What NVIDIA calls it."""
        major, minor = (
            driver.number("cuDeviceGetAttribute", which, self._device)
            for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
        )
        self.capability = (major, minor)
        """CUDA's number for what its cores can do: (8, 9) is Ada."""
        version = driver.number("cuDriverGetVersion")
        self.cuda = f"{version // 1000}.{version % 1000 // 10}"
        """The newest CUDA that the driver knows."""
        self._context = driver.pointer("cuDevicePrimaryCtxRetain", self._device)
        self._memory: list[int] = []
        self._pinned: list[int] = []
        self.use()
        # One that waits for CUDA's default stream would wait for whatever else is on that.
        self.stream = driver.pointer("cuStreamCreate", _NON_BLOCKING)
        """Handle of the stream."""

    def use(self) -> None:
        """Make it the one that this thread's calls are about."""
        self._driver.call("cuCtxSetCurrent", self._context)

    def allocate(self, n_bytes: int) -> int:
        """Return the address of memory on the GPU.

        Raises:
            CudaError: There is too little.
        """
        address = self._driver.pointer("cuMemAlloc_v2", n_bytes)
        self._memory.append(address)
        return address

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array of float32 in memory of the machine that the GPU copies by itself."""
        n = math.prod(shape)
        kind = ctypes.c_float * n
        address = self._driver.pointer("cuMemHostAlloc", ctypes.sizeof(kind), 0)
        self._pinned.append(address)
        array: NDArray[np.float32] = np.ctypeslib.as_array(kind.from_address(address))
        return array.reshape(shape)

    def send(self, array: NDArray[np.float32], address: int) -> None:
        """Have a pinned array copied to the GPU, when all before it on the stream is done."""
        self._driver.call(
            "cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, self.stream
        )

    def fetch(self, address: int, array: NDArray[np.float32]) -> None:
        """Have memory of the GPU copied to a pinned array; see `send`."""
        self._driver.call(
            "cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self.stream
        )

    def wait(self) -> None:
        """Wait until all on the stream is done.

        Raises:
            CudaError: Something on it failed.
        """
        self._driver.call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        """Free what was allocated, the stream and the context."""
        call = self._driver.call
        with contextlib.suppress(CudaError):  # after a fault the GPU refuses all, and frees all
            for address in self._memory:
                call("cuMemFree_v2", address)
            for address in self._pinned:
                call("cuMemFreeHost", address)
            call("cuStreamDestroy_v2", self.stream)
            call("cuDevicePrimaryCtxRelease_v2", self._device)
