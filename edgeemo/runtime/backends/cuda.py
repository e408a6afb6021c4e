"""The few calls of the CUDA runtime that an engine needs, through NVIDIA's cuda-bindings; no torch on the device."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.errors import MachineError
from edgeemo.packages import require

# Its major version is that of CUDA: JetPack 6 has 12, JetPack 7 has 13.
INSTALL = "pip install cuda-bindings"
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """What an engine is built for."""

    name: str
    capability: str  # 8.7 is an Orin's
    driver: str  # the CUDA version that it speaks, and its own version where Linux tells: 12.6, 540.4.0


class Cuda:
    """The CUDA runtime, with every call's error raised."""

    def __init__(self) -> None:
        """MachineError without cuda-bindings."""
        self._calls: Any = require("cuda.bindings.runtime", purpose="using a GPU", install=INSTALL)

    def __getattr__(self, name: str) -> Any:
        """The call of that name, which returns what the runtime returns, without its status."""
        function = getattr(self._calls, name)

        def called(*arguments: Any) -> Any:
            status, *found = function(*arguments)
            if int(status):
                raise MachineError(f"{name}: {self._meaning(status)}")
            return found[0] if len(found) == 1 else tuple(found)

        return called

    def gpu(self) -> Gpu:
        """The first GPU; MachineError if there is none."""
        try:
            count = self.cudaGetDeviceCount()
        except MachineError as error:
            old = (
                ""
                if "InsufficientDriver" not in str(error)
                else "; a driver for CUDA 12: pip install 'cuda-bindings<13'"
            )
            raise MachineError(f"an NVIDIA GPU with its driver ({error}{old})") from error
        if not count:
            raise MachineError("an NVIDIA GPU (the driver counts none)")
        about, speaks = self.cudaGetDeviceProperties(0), int(self.cudaDriverGetVersion())
        name = about.name.decode() if isinstance(about.name, bytes) else str(about.name)
        driver = ", ".join(filter(None, [f"{speaks // 1000}.{speaks % 1000 // 10}", _driver()]))
        return Gpu(name.rstrip("\0"), f"{about.major}.{about.minor}", driver)

    @property
    def thread_local_capture(self) -> Any:
        """The mode of recording a graph in which other threads may go on as they like."""
        return self._calls.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def copy(self, to: int, of: int, size_bytes: int, *, kind: str, stream: int) -> None:
        """Copy asynchronously; kind: HostToDevice or DeviceToHost."""
        way = getattr(self._calls.cudaMemcpyKind, f"cudaMemcpy{kind}")
        self.cudaMemcpyAsync(to, of, size_bytes, way, stream)

    def _meaning(self, status: Any) -> str:
        texts = (self._calls.cudaGetErrorName(status)[1], self._calls.cudaGetErrorString(status)[1])
        return ", ".join(text.decode() if isinstance(text, bytes) else str(text) for text in texts)


def _driver() -> str:
    """The driver's own version, where the system tells it."""
    if not DRIVER.is_file():
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text(encoding="utf-8"))
    return found[0] if found else ""


class Buffer:
    """Room for one tensor on the GPU and, page-locked, beside it on the host."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...]) -> None:
        """`shape` of float32; MachineError if the memory is not there."""
        self._cuda = cuda
        size_bytes = 4 * prod(shape)
        self._page_locked = int(cuda.cudaMallocHost(size_bytes))
        try:
            self.address = int(cuda.cudaMalloc(size_bytes))
        except MachineError:
            cuda.cudaFreeHost(self._page_locked)
            raise
        block = (ctypes.c_float * prod(shape)).from_address(self._page_locked)
        self.host = np.ctypeslib.as_array(block).reshape(shape)

    def upload(self, batch: np.ndarray, stream: int) -> None:
        """Put (N, ...) float32 in front, N at most the room's."""
        self.host[: len(batch)] = batch
        source = self.host.ctypes.data
        self._cuda.copy(self.address, source, self.host[: len(batch)].nbytes, kind="HostToDevice", stream=stream)

    def download(self, rows: int, stream: int) -> np.ndarray:
        """The first `rows` of the tensor, once the stream has come to them."""
        part = self.host[:rows]
        self._cuda.copy(part.ctypes.data, self.address, part.nbytes, kind="DeviceToHost", stream=stream)
        self._cuda.cudaStreamSynchronize(stream)
        done: np.ndarray = part.copy()
        return done

    def close(self) -> None:
        """Give the memory back, on the GPU even if the host does not take its own."""
        del self.host
        try:
            self._cuda.cudaFreeHost(self._page_locked)
        finally:
            self._cuda.cudaFree(self.address)
