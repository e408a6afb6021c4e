"""The TensorRT backend, for engines of TensorRT 10 and 11 and of TensorRT for RTX: `edgeemo build` makes them.

An engine is native code for one GPU and one version, so its card says for which, and nothing is given to TensorRT that
does not fit: its own check of an engine is no protection against a damaged or foreign one (NVIDIA's documentation of
getEngineValidity).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeemo.card import Card
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.runtime.cuda import Buffer, Cuda, Gpu

if TYPE_CHECKING:
    import tensorrt_rtx_bindings.tensorrt_rtx as trt  # stubgen reads its signatures off the real module


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's two libraries; the calls that edgeemo makes are the same in both."""

    name: str
    module: str
    extra: str  # of edgeemo, which installs it


LIBRARIES = {
    "tensorrt": Library("TensorRT", "tensorrt", "tensorrt"),
    "rtx": Library("TensorRT for RTX", "tensorrt_rtx", "rtx"),
}


def library(name: str) -> Any:
    """The imported module of LIBRARIES[name]; MachineError if it is not installed."""
    wanted = LIBRARIES[name]
    try:
        module = import_module(wanted.module)
    except (ImportError, OSError) as error:  # OSError: its shared libraries do not load
        raise MachineError(f"{_needs(wanted)}  ({error})") from error
    if not hasattr(module, "Builder"):  # a folder of type stubs alone can be imported too
        raise MachineError(_needs(wanted))
    return module


def logger(found: Any) -> Any:
    """A logger that keeps the messages of errors, in `said`, and prints nothing."""

    class Quiet(found.ILogger):  # type: ignore[misc]  # a base class that is only known at run time
        """Errors alone."""

        def __init__(self) -> None:
            found.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            """Called by TensorRT, also from other threads."""
            if severity <= found.ILogger.Severity.ERROR:
                self.said.append(msg)

    return Quiet()


class TensorrtBackend:
    """An open engine on the first GPU: normalised batches in, logits out.

    With `graphs` the run of each batch size is recorded once as a CUDA graph, and launched as one from then on: a small
    network's many short kernels then wait less for the host.
    """

    def __init__(self, path: Path, card: Card, *, graphs: bool = False) -> None:
        """IntegrityError for an engine that is not what its card says; MachineError for one that cannot run here."""
        self.name = "tensorrt-graph" if graphs else "tensorrt"
        self._library, self._cuda, self.gpu = _place(path, card.target)
        self._open = True
        self._graphs: dict[int, Any] | None = {} if graphs else None  # by number of rows
        said = logger(self._library)
        self._runtime: trt.Runtime = self._library.Runtime(said)
        self._runtime.engine_host_code_allowed = bool(card.target.get("version_compatible"))
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise IntegrityError(
                f"{path} was made by {told(card.target)}; {self._library.__name__} {self._library.__version__} on "
                f"{self.gpu.name}, compute capability {self.gpu.capability}, refuses it: "
                f"{'; '.join(said.said) or 'no reason given'}\n  {_rebuild(card.target)}"
            )
        self._engine = engine
        self._context: trt.IExecutionContext = engine.create_execution_context()
        self._names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        sides = [engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT for name in self._names]
        self.inputs = [self._shape(name) for name, goes_in in zip(self._names, sides, strict=True) if goes_in]
        self.outputs = [self._shape(name) for name, goes_in in zip(self._names, sides, strict=True) if not goes_in]
        self._buffers: dict[str, Buffer] = {}
        self._stream = int(self._cuda.cudaStreamCreate())
        self._most = int(card.target.get("max_batch", 1))

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """(N, channels, size, size) float32, normalised → (N, K) float32; as many runs as the engine's batch asks."""
        if not self._open:
            raise UsageError("the model is closed; open it again with edgeemo.load")
        starts = range(0, len(batch), self._most)
        return np.concatenate([self._run(batch[start : start + self._most]) for start in starts])

    def close(self) -> None:
        """Free what lies on the GPU; twice is fine."""
        if not self._open:
            return
        self._open = False
        for graph in (self._graphs or {}).values():
            self._cuda.cudaGraphExecDestroy(graph)
        for buffer in self._buffers.values():
            buffer.close()
        self._cuda.cudaStreamDestroy(self._stream)
        del self._context, self._engine, self._runtime

    def _run(self, part: np.ndarray) -> np.ndarray:
        source, result = self._room(self._names[0], self.inputs[0]), self._room(self._names[1], self.outputs[0])
        source.upload(part, self._stream)
        if self._graphs is None:
            self._enqueue(part.shape)
        else:
            if len(part) not in self._graphs:
                self._enqueue(part.shape)  # what TensorRT prepares at a first run cannot be recorded
                self._graphs[len(part)] = self._recorded(part.shape)
            self._cuda.cudaGraphLaunch(self._graphs[len(part)], self._stream)
        return result.download(len(part), self._stream)

    def _enqueue(self, shape: tuple[int, ...]) -> None:
        fits = self._context.set_input_shape(self._names[0], shape)
        if not fits or not self._context.execute_async_v3(self._stream):
            raise MachineError(f"TensorRT did not run a batch of shape {shape}; its log says why")

    def _recorded(self, shape: tuple[int, ...]) -> Any:
        """The run of a batch of this shape as an executable CUDA graph."""
        self._cuda.cudaStreamSynchronize(self._stream)
        self._cuda.cudaStreamBeginCapture(self._stream, self._cuda.thread_local_capture)
        try:
            self._enqueue(shape)
        finally:
            graph = self._cuda.cudaStreamEndCapture(self._stream)
        recorded = self._cuda.cudaGraphInstantiate(graph, 0)
        self._cuda.cudaGraphDestroy(graph)
        return recorded

    def _room(self, name: str, shape: tuple[int | str | None, ...]) -> Buffer:
        """The buffer of a tensor, made and bound once for the largest batch."""
        if name not in self._buffers:
            whole = (self._most, *(int(side or 0) for side in shape[1:]))
            self._buffers[name] = Buffer(self._cuda, whole)
            self._context.set_tensor_address(name, self._buffers[name].address)
        return self._buffers[name]

    def _shape(self, name: str) -> tuple[int | str | None, ...]:
        """As the engine has it, None where a dimension varies."""
        sides = self._engine.get_tensor_shape(name)
        return tuple(None if sides[k] < 0 else int(sides[k]) for k in range(len(sides)))


def told(target: dict[str, Any]) -> str:
    """Who made an engine and for what, in words."""
    name = LIBRARIES[target["library"]].name
    return f"{name} {target['version']} for compute capability {', '.join(target['compute_capabilities'])}"


def _place(path: Path, target: dict[str, Any]) -> tuple[Any, Cuda, Gpu]:
    """Library, CUDA and GPU that fit the engine; one error names everything that is missing here."""
    if target.get("library") not in LIBRARIES:
        raise IntegrityError(
            f"the card of {path} does not say which library made the engine; make both with edgeemo build"
        )
    found: list[Any] = []
    missing: list[str] = []
    for part in (lambda: library(target["library"]), Cuda, lambda: Cuda().gpu()):
        try:
            found.append(part())
        except MachineError as error:
            missing.append(str(error))
    if missing:
        reasons = "".join(f"\n  - {reason}" for reason in dict.fromkeys(missing))
        raise MachineError(
            f"{path} is an engine of {told(target)}, and this machine lacks what runs it:{reasons}\n"
            "  see everything that is here:  edgeemo doctor;  on a CPU, run the .onnx file that it was built from"
        )
    module, cuda, gpu = found
    if wrong := _misfits(target, module.__version__, gpu):
        raise MachineError(f"{path} is an engine of {told(target)}; here is {wrong}\n  {_rebuild(target)}")
    return module, cuda, gpu


def _misfits(target: dict[str, Any], version: str, gpu: Gpu) -> str:
    """What of this machine does not fit an engine; empty if all does.

    By default an engine runs on the version that made it; a version-compatible one on later ones of its major version.
    """
    same_major = version.partition(".")[0] == target["version"].partition(".")[0]
    if version != target["version"] and not (target.get("version_compatible") and same_major):
        return f"{LIBRARIES[target['library']].name} {version}"
    fits = gpu.capability in target["compute_capabilities"]
    later = target.get("hardware_compatible") and float(gpu.capability) >= 8.0  # NVIDIA's AMPERE_PLUS
    return "" if fits or later else f"{gpu.name} of compute capability {gpu.capability}"


def _rebuild(target: dict[str, Any]) -> str:
    return f"build it here:  edgeemo build {target.get('source', 'model.onnx')} --library {target['library']}"


def _needs(wanted: Library) -> str:
    return f"{wanted.name}:  pip install 'edgeemo[{wanted.extra}]'"
