"""The TensorRT backend, for engines of TensorRT 10 and 11 and of TensorRT for RTX: `edgeemo build` makes them.

An engine is native code for one GPU and one version, so its card says for which, and nothing is given to TensorRT that
does not fit: its own check of an engine is no protection against a damaged or foreign one (NVIDIA's documentation of
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

from edgeemo.card import Card, Target, remake
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.machine import is_jetson, this_machine
from edgeemo.packages import require
from edgeemo.runtime.backends.cuda import Buffer, Cuda, Gpu

if TYPE_CHECKING:
    import tensorrt_rtx_bindings.tensorrt_rtx as trt  # stubgen reads its signatures off the real module

KEPT_MESSAGES = 20
# What a card's target tells of the options of the build, and the values that are not worth an option.
ASKED = {
    "version_compatible": False,
    "hardware_compatible": False,
    "max_batch": None,
    "dla_core": -1,
    "workspace_mib": 0,
}


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
    module = require(wanted.module, purpose=wanted.name, install=_install(wanted))
    if not hasattr(module, "Builder"):  # a folder of type stubs alone can be imported too
        raise MachineError(f"{wanted.name} needs {wanted.module}:  {_install(wanted)}")
    return module


def knows(name: str, found: Any, capability: str) -> bool:
    """Whether a library makes engines for GPUs of a compute capability; TensorRT says so itself when it builds."""
    return name != "rtx" or hasattr(found.ComputeCapability, "SM" + capability.replace(".", ""))


def logger(found: Any) -> Any:
    """A logger that keeps the last messages of errors, in `said`, and prints nothing."""

    class Quiet(found.ILogger):  # type: ignore[misc]  # a base class that is only known at run time
        """Errors alone."""

        def __init__(self) -> None:
            found.ILogger.__init__(self)
            self.said: deque[str] = deque(maxlen=KEPT_MESSAGES)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            """Called by TensorRT, also from other threads."""
            if severity <= found.ILogger.Severity.ERROR:
                self.said.append(msg)

    return Quiet()


Given = TypeVar("Given")


def given(make: Callable[[], Given | None], what: str, said: Any) -> Given:
    """What TensorRT returns; MachineError with what it logged where that is None, or nothing at all for pybind11."""
    try:
        found = make()
    except TypeError as error:
        if "nullptr" not in str(error):
            raise
        found = None
    if found is None:
        raise MachineError(f"TensorRT gave no {what}: {reasons(said)}")
    return found


def reasons(said: Any) -> str:
    """What a logger was told, in one line."""
    return "; ".join(said.said) or "no reason given"


class TensorrtBackend:
    """An open engine on the first GPU: normalised batches in, logits out.

    With `graphs` the run of each batch size is recorded once as a CUDA graph, and launched as one from then on: a small
    network's many short kernels then wait less for the host.
    """

    concurrent = False  # one execution context, with one pair of buffers

    def __init__(self, path: Path, card: Card, *, graphs: bool = False) -> None:
        """IntegrityError for an engine that is not what its card says; MachineError for one that cannot run here."""
        self.name = "tensorrt-graph" if graphs else "tensorrt"
        target = _target(path, card)
        self._library, self._cuda, self.gpu = _place(path, target)
        if graphs and target.library == "rtx":  # it has its own way, which edgeemo does not take yet
            raise MachineError(f"{LIBRARIES['rtx'].name} records no CUDA graphs here; use the backend tensorrt")
        self._open = True
        self._said = logger(self._library)
        self._runtime: trt.Runtime = given(lambda: self._library.Runtime(self._said), "runtime", self._said)
        self._runtime.engine_host_code_allowed = target.version_compatible
        if target.dla_core >= 0:
            self._runtime.DLA_core = target.dla_core
        self._engine = self._deserialised(path, target)
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        way_in = self._library.TensorIOMode.INPUT
        self._into = [name for name in names if self._engine.get_tensor_mode(name) == way_in]
        self._out_of = [name for name in names if name not in self._into]
        self._check_types(path, names)
        self.inputs, self.outputs = ([self._shape(name) for name in side] for side in (self._into, self._out_of))
        self._most = target.max_batch
        self._buffers: dict[str, Buffer] = {}
        self._graphs: dict[int, _Graph] | None = {} if graphs else None  # by number of rows
        self._context = self._new_context()
        self._stream = int(self._cuda.cudaStreamCreate())

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """(N, channels, size, size) float32, normalised → (N, K) float32; as many runs as the engine's batch asks."""
        if not self._open:
            raise UsageError("the model is closed; open it again with edgeemo.load")
        starts = range(0, len(batch), self._most)
        none = np.zeros((0, int(self.outputs[0][1] or 0)), np.float32)
        return np.concatenate([none, *(self._run(batch[start : start + self._most]) for start in starts)])

    def close(self) -> None:
        """Free what lies on the GPU; twice is fine."""
        if not self._open:
            return
        self._open = False
        with ExitStack() as left:  # each of them, whatever becomes of the others
            left.callback(self._cuda.cudaStreamDestroy, self._stream)
            for buffer in self._buffers.values():
                left.callback(buffer.close)
            for graph in (self._graphs or {}).values():
                left.callback(self._cuda.cudaGraphExecDestroy, graph.executable)
        self._graphs = None
        del self._context, self._engine, self._runtime

    def _deserialised(self, path: Path, target: Target) -> trt.ICudaEngine:
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise IntegrityError(
                f"{path} was made by {told(target)}; {self._library.__name__} {self._library.__version__} on "
                f"{self.gpu.name}, compute capability {self.gpu.capability}, refuses it: {reasons(self._said)}\n"
                f"  {_rebuild(target)}"
            )
        return engine

    def _check_types(self, path: Path, names: list[str]) -> None:
        """What edgeemo exports takes and gives float32, whatever lies between."""
        kinds = {name: self._engine.get_tensor_dtype(name) for name in names}
        if other := [f"{name} {kind}" for name, kind in kinds.items() if kind != self._library.DataType.FLOAT]:
            raise IntegrityError(f"{path} has tensors that are not float32: {', '.join(other)}.  {remake(path)}")

    def _new_context(self) -> trt.IExecutionContext:
        return given(self._engine.create_execution_context, "execution context", self._said)

    def _run(self, part: np.ndarray) -> np.ndarray:
        source, result = self._room(self._into[0], self.inputs[0]), self._room(self._out_of[0], self.outputs[0])
        source.upload(part, self._stream)
        if self._graphs is None:
            self._bind(self._context, part.shape)
            self._start(self._context)
        else:
            if len(part) not in self._graphs:
                self._graphs[len(part)] = self._recorded(part.shape)
            self._cuda.cudaGraphLaunch(self._graphs[len(part)].executable, self._stream)
        return result.download(len(part), self._stream)

    def _bind(self, context: trt.IExecutionContext, shape: tuple[int, ...]) -> None:
        bound = all(context.set_tensor_address(name, buffer.address) for name, buffer in self._buffers.items())
        if not bound or not context.set_input_shape(self._into[0], shape):
            raise MachineError(f"TensorRT did not take a batch of shape {shape}: {reasons(self._said)}")

    def _start(self, context: trt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._stream):
            raise MachineError(f"TensorRT did not run: {reasons(self._said)}")

    def _recorded(self, shape: tuple[int, ...]) -> _Graph:
        """The run of a batch of this shape as a CUDA graph, in a context that nothing else changes from then on."""
        context = self._new_context()
        self._bind(context, shape)
        self._start(context)  # what TensorRT prepares at a first run cannot be recorded
        self._cuda.cudaStreamSynchronize(self._stream)
        self._cuda.cudaStreamBeginCapture(self._stream, self._cuda.thread_local_capture)
        with ExitStack() as done:
            try:
                self._start(context)
            finally:
                graph = self._cuda.cudaStreamEndCapture(self._stream)
                done.callback(self._cuda.cudaGraphDestroy, graph)
            return _Graph(context, self._cuda.cudaGraphInstantiate(graph, 0))

    def _room(self, name: str, shape: tuple[int | str | None, ...]) -> Buffer:
        """The buffer of a tensor, made once for the largest batch."""
        if name not in self._buffers:
            whole = (self._most, *(int(side or 0) for side in shape[1:]))
            self._buffers[name] = Buffer(self._cuda, whole)
        return self._buffers[name]

    def _shape(self, name: str) -> tuple[int | str | None, ...]:
        """As the engine has it, None where a dimension varies."""
        sides = self._engine.get_tensor_shape(name)
        return tuple(None if sides[k] < 0 else int(sides[k]) for k in range(len(sides)))


@dataclass(frozen=True)
class _Graph:
    """A recorded run, and the context that it was recorded in, which must stay as it was."""

    context: trt.IExecutionContext
    executable: Any


def told(target: Target) -> str:
    """Who made an engine and for what, in words."""
    name = LIBRARIES[target.library].name
    return f"{name} {target.version} for compute capability {', '.join(target.compute_capabilities)}"


def _target(path: Path, card: Card) -> Target:
    """What the engine was built by and for; IntegrityError if its card does not say."""
    if card.target is None:
        raise IntegrityError(
            f"the card of {path} does not say which library made the engine; make both with edgeemo build"
        )
    return card.target


def _place(path: Path, target: Target) -> tuple[Any, Cuda, Gpu]:
    """Library, CUDA and GPU that fit the engine; one error names everything that is missing here."""
    found: list[Any] = []
    missing: list[str] = []
    for part in (lambda: library(target.library), Cuda, lambda: Cuda().gpu()):
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


def _misfits(target: Target, version: str, gpu: Gpu) -> str:
    """What of this machine does not fit an engine; empty if all does.

    By default an engine runs on the version and the kind of GPU that made it. A version-compatible one runs on later
    versions of the same major one, a hardware-compatible one on any GPU from Ampere on, but on no Jetson. TensorRT's
    engines run on no other platform than made them (NVIDIA's documentation of engine compatibility).
    """
    if version != target.version and not (target.version_compatible and _later(version, target.version)):
        return f"{LIBRARIES[target.library].name} {version}"
    here = this_machine().system
    if target.library == "tensorrt" and target.platform != here:
        return f"{here}, not {target.platform}"
    fits = gpu.capability in target.compute_capabilities
    ampere_plus = target.hardware_compatible and float(gpu.capability) >= 8.0 and not is_jetson()
    return "" if fits or ampere_plus else f"{gpu.name} of compute capability {gpu.capability}"


def _later(version: str, made: str) -> bool:
    """Whether `version` is a later one of the same major version."""
    here, there = ([int(part) for part in re.findall(r"\d+", text)] for text in (version, made))
    return here[0] == there[0] and here > there


def _rebuild(target: Target) -> str:
    """The command that makes such an engine on this machine."""
    words = ["edgeemo", "build", target.source, "--library", target.library]
    for name, left_out in ASKED.items():
        if (asked := getattr(target, name)) != left_out:
            words += [f"--{name.replace('_', '-')}", *([] if asked is True else [str(asked)])]
    return f"build it here:  {shlex.join(words)}"


def _install(wanted: Library) -> str:
    """How to install a library on this machine."""
    if is_jetson():
        advice = {
            "tensorrt": "sudo apt-get install python3-libnvinfer, in an environment made with --system-site-packages",
            "rtx": "not for a Jetson; use TensorRT, which JetPack brings",
        }
        return advice[wanted.extra]
    return f"pip install 'edgeemo[{wanted.extra}]'"
