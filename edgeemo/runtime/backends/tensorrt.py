"""The TensorRT backend, for engines of TensorRT 10 and 11 and of TensorRT for RTX, built by `edgeemo build`.

An engine is native code for one GPU and one version. Its card records which, and an engine that does not match is never
loaded: TensorRT's own check does not protect against a damaged or foreign engine (NVIDIA's documentation of
getEngineValidity).
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgeemo.card import Card, Target, suggest_rebuild
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.machine import is_jetson, this_machine
from edgeemo.packages import require
from edgeemo.runtime.backends.cuda import Buffer, Cuda, Gpu

if TYPE_CHECKING:
    import tensorrt_rtx_bindings.tensorrt_rtx as trt  # stubgen reads its signatures from the real module

KEPT_MESSAGES = 20
# The build options that a card's target records, with their defaults.
BUILD_OPTIONS = {
    "version_compatible": False,
    "hardware_compatible": False,
    "max_batch": None,
    "dla_core": -1,
    "workspace_mib": 0,
}


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's two libraries; edgeemo makes the same calls in both."""

    name: str
    module: str
    extra: str  # edgeemo's extra that installs it


LIBRARIES = {
    "tensorrt": Library("TensorRT", "tensorrt", "tensorrt"),
    "rtx": Library("TensorRT for RTX", "tensorrt_rtx", "rtx"),
}


def import_library(name: str) -> Any:
    """Import the module of LIBRARIES[name]; raise MachineError if it is not installed."""
    library = LIBRARIES[name]
    module = require(library.module, purpose=library.name, install=_make_install_command(library))
    if not hasattr(module, "Builder"):  # a folder with only type stubs can be imported too
        raise MachineError(f"{library.name} needs {library.module}:  {_make_install_command(library)}")
    return module


def supports(name: str, module: Any, capability: str) -> bool:
    """Return whether a library builds engines for GPUs of a compute capability; TensorRT checks it in the build."""
    return name != "rtx" or hasattr(module.ComputeCapability, "SM" + capability.replace(".", ""))


def make_logger(module: Any) -> Any:
    """Return a logger that keeps the last error messages, in `messages`, and prints nothing."""

    class Quiet(module.ILogger):  # type: ignore[misc]  # a base class that is only known at run time
        """Keeps errors only."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=KEPT_MESSAGES)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            """Called by TensorRT, also from other threads."""
            if severity <= module.ILogger.Severity.ERROR:
                self.messages.append(msg)

    return Quiet()


T = TypeVar("T")


def require_result(make: Callable[[], T | None], what: str, logger: Any) -> T:
    """Return `make()`; raise MachineError with TensorRT's log if it returned None, or a null pointer to pybind11."""
    try:
        result = make()
    except TypeError as error:
        if "nullptr" not in str(error):
            raise
        result = None
    if result is None:
        raise MachineError(f"TensorRT returned no {what}: {join_messages(logger)}")
    return result


def join_messages(logger: Any) -> str:
    """Return the logged messages in one line."""
    return "; ".join(logger.messages) or "no reason given"


class TensorrtBackend:
    """An open engine on the first GPU: normalised batches in, logits out.

    With `graphs`, the run of each batch size is captured once as a CUDA graph and then launched as one: the many short
    kernels of a small network wait less for the host.
    """

    concurrent = False  # one execution context, with one pair of buffers

    def __init__(self, path: Path, card: Card, *, graphs: bool = False) -> None:
        """Raises IntegrityError if the engine does not match its card, MachineError if it cannot run here."""
        self.name = "tensorrt-graph" if graphs else "tensorrt"
        target = _read_target(path, card)
        self._library, self._cuda, self.gpu = _check_machine(path, target)
        if graphs and target.library == "rtx":  # it has its own CUDA graphs, which edgeemo does not use yet
            raise MachineError(f"edgeemo uses no CUDA graphs with {LIBRARIES['rtx'].name}; use the backend tensorrt")
        self._open = True
        self._logger = make_logger(self._library)
        self._runtime: trt.Runtime = require_result(
            lambda: self._library.Runtime(self._logger), "runtime", self._logger
        )
        self._runtime.engine_host_code_allowed = target.version_compatible
        if target.dla_core >= 0:
            self._runtime.DLA_core = target.dla_core
        self._engine = self._deserialise(path, target)
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        input_mode = self._library.TensorIOMode.INPUT
        self._input_names = [name for name in names if self._engine.get_tensor_mode(name) == input_mode]
        self._output_names = [name for name in names if name not in self._input_names]
        self._check_types(path, names)
        self.inputs = [self._read_shape(name) for name in self._input_names]
        self.outputs = [self._read_shape(name) for name in self._output_names]
        self._max_batch = target.max_batch
        self._buffers: dict[str, Buffer] = {}
        self._graphs: dict[int, _Graph] | None = {} if graphs else None  # by number of rows
        self._context = self._make_context()
        self._stream = int(self._cuda.cudaStreamCreate())

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Run (N, channels, size, size) float32, normalised, in batches of the engine; return (N, K) float32 logits."""
        if not self._open:
            raise UsageError("the model is closed; open it again with edgeemo.load")
        starts = range(0, len(batch), self._max_batch)
        empty = np.zeros((0, int(self.outputs[0][1] or 0)), np.float32)
        return np.concatenate([empty, *(self._run(batch[start : start + self._max_batch]) for start in starts)])

    def close(self) -> None:
        """Free the memory on the GPU; may be called twice."""
        if not self._open:
            return
        self._open = False
        with ExitStack() as stack:  # frees each of them, even if freeing another fails
            stack.callback(self._cuda.cudaStreamDestroy, self._stream)
            for buffer in self._buffers.values():
                stack.callback(buffer.close)
            for graph in (self._graphs or {}).values():
                stack.callback(self._cuda.cudaGraphExecDestroy, graph.executable)
        self._graphs = None
        del self._context, self._engine, self._runtime

    def _deserialise(self, path: Path, target: Target) -> trt.ICudaEngine:
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise IntegrityError(
                f"{path} was built by {describe_target(target)}; {self._library.__name__} {self._library.__version__} "
                f"on {self.gpu.name}, compute capability {self.gpu.capability}, refuses it: "
                f"{join_messages(self._logger)}\n  {_rebuild_command(target)}"
            )
        return engine

    def _check_types(self, path: Path, names: list[str]) -> None:
        """Raise IntegrityError unless inputs and outputs are float32, as in every model that edgeemo exports."""
        types = {name: self._engine.get_tensor_dtype(name) for name in names}
        if other := [f"{name} {dtype}" for name, dtype in types.items() if dtype != self._library.DataType.FLOAT]:
            raise IntegrityError(
                f"{path} has tensors that are not float32: {', '.join(other)}.  {suggest_rebuild(path)}"
            )

    def _make_context(self) -> trt.IExecutionContext:
        return require_result(self._engine.create_execution_context, "execution context", self._logger)

    def _run(self, part: np.ndarray) -> np.ndarray:
        source = self._make_buffer(self._input_names[0], self.inputs[0])
        result = self._make_buffer(self._output_names[0], self.outputs[0])
        source.upload(part, self._stream)
        if self._graphs is None:
            self._bind(self._context, part.shape)
            self._start(self._context)
        else:
            if len(part) not in self._graphs:
                self._graphs[len(part)] = self._capture(part.shape)
            self._cuda.cudaGraphLaunch(self._graphs[len(part)].executable, self._stream)
        return result.download(len(part), self._stream)

    def _bind(self, context: trt.IExecutionContext, shape: tuple[int, ...]) -> None:
        bound = all(context.set_tensor_address(name, buffer.address) for name, buffer in self._buffers.items())
        if not bound or not context.set_input_shape(self._input_names[0], shape):
            raise MachineError(f"TensorRT did not accept a batch of shape {shape}: {join_messages(self._logger)}")

    def _start(self, context: trt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._stream):
            raise MachineError(f"TensorRT did not run: {join_messages(self._logger)}")

    def _capture(self, shape: tuple[int, ...]) -> _Graph:
        """Capture the run of a batch of this shape as a CUDA graph, in a context that is not used for anything else."""
        context = self._make_context()
        self._bind(context, shape)
        self._start(context)  # the preparations of TensorRT's first run cannot be captured
        self._cuda.cudaStreamSynchronize(self._stream)
        self._cuda.cudaStreamBeginCapture(self._stream, self._cuda.thread_local_capture)
        with ExitStack() as stack:
            try:
                self._start(context)
            finally:
                graph = self._cuda.cudaStreamEndCapture(self._stream)
                stack.callback(self._cuda.cudaGraphDestroy, graph)
            return _Graph(context, self._cuda.cudaGraphInstantiate(graph, 0))

    def _make_buffer(self, name: str, shape: tuple[int | str | None, ...]) -> Buffer:
        """Return the buffer of a tensor, allocated once for the largest batch."""
        if name not in self._buffers:
            largest = (self._max_batch, *(int(side or 0) for side in shape[1:]))
            self._buffers[name] = Buffer(self._cuda, largest)
        return self._buffers[name]

    def _read_shape(self, name: str) -> tuple[int | str | None, ...]:
        """Return the shape of a tensor; None where a dimension varies."""
        sides = self._engine.get_tensor_shape(name)
        return tuple(None if sides[k] < 0 else int(sides[k]) for k in range(len(sides)))


@dataclass(frozen=True)
class _Graph:
    """A captured run, and the context in which it was captured, which must not change."""

    context: trt.IExecutionContext
    executable: Any


def describe_target(target: Target) -> str:
    """Return library, version and compute capabilities of an engine, in words."""
    name = LIBRARIES[target.library].name
    return f"{name} {target.version} for compute capability {', '.join(target.compute_capabilities)}"


def _read_target(path: Path, card: Card) -> Target:
    """Return what the engine was built by and for; raise IntegrityError if its card does not record it."""
    if card.target is None:
        raise IntegrityError(
            f"the card of {path} does not record which library built the engine; rebuild both:  edgeemo build"
        )
    return card.target


def _check_machine(path: Path, target: Target) -> tuple[Any, Cuda, Gpu]:
    """Return library, CUDA and GPU for the engine; raise one MachineError with everything that is missing."""
    available: list[Any] = []
    missing: list[str] = []
    for part in (lambda: import_library(target.library), Cuda, lambda: Cuda().gpu()):
        try:
            available.append(part())
        except MachineError as error:
            missing.append(str(error))
    if missing:
        reasons = "".join(f"\n  - {reason}" for reason in dict.fromkeys(missing))
        raise MachineError(
            f"{path} is an engine of {describe_target(target)}; this machine lacks:{reasons}\n"
            "  list what is available:  edgeemo doctor;  on a CPU, run the .onnx file that it was built from"
        )
    module, cuda, gpu = available
    if mismatch := _find_mismatch(target, module.__version__, gpu):
        raise MachineError(
            f"{path} is an engine of {describe_target(target)}; here is {mismatch}\n  {_rebuild_command(target)}"
        )
    return module, cuda, gpu


def _find_mismatch(target: Target, version: str, gpu: Gpu) -> str:
    """Return what on this machine does not match an engine; empty if everything does.

    By default an engine runs on the version and the kind of GPU that it was built with. A version-compatible one runs
    on later versions of the same major version, a hardware-compatible one on any GPU from Ampere on, but on no Jetson.
    TensorRT's engines run only on the platform on which they were built (NVIDIA's documentation of engine
    compatibility).
    """
    if version != target.version and not (target.version_compatible and _is_later(version, target.version)):
        return f"{LIBRARIES[target.library].name} {version}"
    system = this_machine().system
    if target.library == "tensorrt" and target.platform != system:
        return f"{system}, not {target.platform}"
    same_capability = gpu.capability in target.compute_capabilities
    ampere_plus = target.hardware_compatible and float(gpu.capability) >= 8.0 and not is_jetson()
    return "" if same_capability or ampere_plus else f"{gpu.name} of compute capability {gpu.capability}"


def _is_later(version: str, built_with: str) -> bool:
    """Return whether `version` is a later one of the same major version."""
    new, old = ([int(part) for part in re.findall(r"\d+", text)] for text in (version, built_with))
    return new[0] == old[0] and new > old


def _rebuild_command(target: Target) -> str:
    """Return the command that builds such an engine on this machine."""
    words = ["edgeemo", "build", target.source, "--library", target.library]
    for name, default in BUILD_OPTIONS.items():
        if (value := getattr(target, name)) != default:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return f"build it here:  {shlex.join(words)}"


def _make_install_command(library: Library) -> str:
    """Return how to install a library on this machine."""
    if is_jetson():
        advice = {
            "tensorrt": "sudo apt-get install python3-libnvinfer, in an environment made with --system-site-packages",
            "rtx": "not for a Jetson; use TensorRT, which comes with JetPack",
        }
        return advice[library.extra]
    return f"pip install 'edgeemo[{library.extra}]'"
