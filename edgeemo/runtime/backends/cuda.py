"""The few CUDA runtime calls that an engine needs, through NVIDIA's cuda-bindings; no torch on the device."""

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

# The package's major version is that of CUDA: JetPack 6 has 12, JetPack 7 has 13.
INSTALL = "pip install cuda-bindings"
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """The GPU that an engine is built for."""

    name: str
    capability: str  # 8.7 is an Orin's
    driver: str  # the CUDA version that it supports, and its own version where Linux reports it: 12.6, 540.4.0


class Cuda:
    """The CUDA runtime; every failed call raises MachineError."""

    def __init__(self) -> None:
        """Raises MachineError if cuda-bindings is not installed."""
        self._calls: Any = require("cuda.bindings.runtime", purpose="using a GPU", install=INSTALL)

    def __getattr__(self, name: str) -> Any:
        """Return the runtime's function of that name; it returns its results without the status."""
        function = getattr(self._calls, name)

        def call(*arguments: Any) -> Any:
            status, *results = function(*arguments)
            if int(status):
                raise MachineError(f"{name}: {self._describe(status)}")
            return results[0] if len(results) == 1 else tuple(results)

        return call

    def gpu(self) -> Gpu:
        """Return the first GPU; raise MachineError if there is none."""
        try:
            count = self.cudaGetDeviceCount()
        except MachineError as error:
            remedy = (
                ""
                if "InsufficientDriver" not in str(error)
                else "; a driver for CUDA 12: pip install 'cuda-bindings<13'"
            )
            raise MachineError(f"an NVIDIA GPU with its driver ({error}{remedy})") from error
        if not count:
            raise MachineError("an NVIDIA GPU (the driver reports none)")
        properties, cuda = self.cudaGetDeviceProperties(0), int(self.cudaDriverGetVersion())
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        driver = ", ".join(filter(None, [f"{cuda // 1000}.{cuda % 1000 // 10}", _read_driver_version()]))
        return Gpu(name.rstrip("\\0"), f"{properties.major}.{properties.minor}", driver)

    @property
    def thread_local_capture(self) -> Any:
        """The mode of graph capture that does not restrict other threads."""
        return self._calls.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def copy(self, to: int, of: int, size_bytes: int, *, kind: str, stream: int) -> None:
        """Copy asynchronously; kind: HostToDevice or DeviceToHost."""
        direction = getattr(self._calls.cudaMemcpyKind, f"cudaMemcpy{kind}")
        self.cudaMemcpyAsync(to, of, size_bytes, direction, stream)

    def _describe(self, status: Any) -> str:
        texts = (self._calls.cudaGetErrorName(status)[1], self._calls.cudaGetErrorString(status)[1])
        return ", ".join(text.decode() if isinstance(text, bytes) else str(text) for text in texts)


def _read_driver_version() -> str:
    """Return the driver's own version; empty if the system does not report it."""
    if not DRIVER.is_file():
        return ""
    match = re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text(encoding="utf-8"))
    return match[0] if match else ""


class Buffer:
    """Memory for one tensor on the GPU, and its page-locked copy on the host."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...]) -> None:
        """`shape` of float32; raises MachineError if there is not enough memory."""
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
        """Copy (N, ...) float32 to the first N rows; N is at most that of the shape."""
        self.host[: len(batch)] = batch
        source = self.host.ctypes.data
        self._cuda.copy(self.address, source, self.host[: len(batch)].nbytes, kind="HostToDevice", stream=stream)

    def download(self, rows: int, stream: int) -> np.ndarray:
        """Return the first `rows` of the tensor, after the work queued on the stream."""
        part = self.host[:rows]
        self._cuda.copy(part.ctypes.data, self.address, part.nbytes, kind="DeviceToHost", stream=stream)
        self._cuda.cudaStreamSynchronize(stream)
        result: np.ndarray = part.copy()
        return result

    def close(self) -> None:
        """Free the memory: that on the GPU even if freeing that on the host fails."""
        del self.host
        try:
            self._cuda.cudaFreeHost(self._page_locked)
        finally:
            self._cuda.cudaFree(self.address)
