"""The ONNX Runtime backend: the only file of the runtime that imports onnxruntime, and only to open a model."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.limits import check_shortage, is_shortage
from edgeemo.packages import require
from edgeemo.runtime.onnx_check import check_file, has_uint8_activations

DISABLE_TELEMETRY = "ORT_DISABLE_TELEMETRY"

# This optimizer quantizes weights that the file keeps in float on purpose, because their neighbours have 8 bits.
DISABLED = ("WeightBiasQuantization",)


TENSORRT = "onnxruntime-tensorrt"
# Execution provider by backend. Operators that a GPU's provider does not support run on the CPU.
PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    TENSORRT: "TensorrtExecutionProvider",
}


class OnnxBackend:
    """An open ONNX Runtime session: normalised batches in, logits out."""

    concurrent = True  # ONNX Runtime's documentation: Run is safe to call from several threads

    def __init__(self, path: Path, *, threads: int, name: str = "onnxruntime", exact: bool = False) -> None:
        """Open `path` on PROVIDERS[name].

        exact: use kernels that cannot saturate; only files whose weights are not limited need them (probe.py). They
        take half as much time again where the fast kernels can saturate; elsewhere twice the time, without any benefit.

        Raises IntegrityError if the file is not one that check_file accepts, or ONNX Runtime cannot read it; UsageError
        for a file with uint8 activations on TensorRT; MachineError if ONNX Runtime is not installed, or its provider is
        not available or does not start.
        """
        self.name = name
        graph = check_file(path)
        if name == TENSORRT and has_uint8_activations(graph):
            raise UsageError(
                f"{path} has uint8 activations, which TensorRT refuses or clips at half of their range.  Open the form "
                "with int8 activations (--target-format tensorrt), model.int8.tensorrt.onnx, or use another backend"
            )
        runtime = require_onnxruntime()
        provider = _check_provider(runtime, name)
        options = _make_options(runtime, threads)
        if exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session: Any = runtime.InferenceSession(
                path,
                options,
                providers=list(dict.fromkeys([provider, PROVIDERS["onnxruntime"]])),
                disabled_optimizers=list(DISABLED),
            )
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            check_shortage(error)
            reason = str(error).splitlines()[0]
            raise IntegrityError(
                f"{path} cannot be opened by ONNX Runtime {runtime.__version__}: {reason}\n"
                f"  copy the file again, or rebuild it:  edgeemo compress"
            ) from error
        if self._session.get_providers()[0] != provider:  # it would silently run on the CPU
            raise MachineError(f"ONNX Runtime's {provider} does not start here; see  edgeemo doctor")
        self._path = path
        self.inputs = [tuple(node.shape) for node in self._session.get_inputs()]
        self.outputs = [tuple(node.shape) for node in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name if self.inputs else ""

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Run (N, channels, size, size) float32, normalised; return (N, K) float32 logits.

        Raises IntegrityError if a kernel refuses the file, some of which is checked only when it runs, or MachineError
        if there is not enough memory for the batch.
        """
        session = self._session  # close may run in another thread
        if session is None:
            raise UsageError("the model is closed; open it again with edgeemo.load")
        try:
            logits: np.ndarray = session.run(None, {self._input: batch})[0]
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            reason = str(error).strip().splitlines()[0]
            if is_shortage(error):
                raise MachineError(
                    f"not enough memory to run {self._path} on {len(batch)} faces: {reason}.  Close other programs"
                ) from error
            raise IntegrityError(
                f"{self._path} is refused by ONNX Runtime for a batch of shape {batch.shape}: {reason}\n"
                f"  copy the file again, or rebuild it:  edgeemo compress"
            ) from error
        return logits

    def close(self) -> None:
        """Free the session's memory; may be called twice."""
        self._session = None


def _check_provider(runtime: ModuleType, name: str) -> str:
    provider, available = PROVIDERS[name], runtime.get_available_providers()
    if provider not in available:
        raise MachineError(
            f"ONNX Runtime {runtime.__version__} has {', '.join(available)}; {name} needs {provider}:  "
            "pip install onnxruntime-gpu"
        )
    return provider


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off; raise ImportError if it is not installed or does not load.

    From 1.29 on, importing it writes a device id and an upload queue to the user's cache folder and starts to upload.
    ORT_DISABLE_TELEMETRY prevents all of this. It is read only during the import, so it is set only for that time:
    neither the host program nor its child processes see it. A variable that is already set, to any value, is kept.

    If the host imported ONNX Runtime first, the id, the queue and one event that describes the process exist, and
    uploading is attempted for as long as the process lives; nothing undoes that. disable_telemetry_events still stops
    the events of future sessions, the host's included; those of sessions that the host has created may be queued.
    """
    if DISABLE_TELEMETRY in os.environ:
        return import_module("onnxruntime")
    if "onnxruntime" not in sys.modules:
        _import_without_telemetry()
    runtime = import_module("onnxruntime")
    runtime.disable_telemetry_events()
    return runtime


def _import_without_telemetry() -> None:
    os.environ[DISABLE_TELEMETRY] = "1"
    try:
        import_module("onnxruntime")
    finally:
        os.environ.pop(DISABLE_TELEMETRY, None)  # another thread may have done it


def require_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off; raise MachineError if it is not installed or does not load."""
    load = import_onnxruntime
    return require("onnxruntime", purpose="running .onnx files", install="pip install onnxruntime", load=load)


def _make_options(runtime: ModuleType, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL  # lower: Q/DQ unfused, 5x
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal errors; all others are raised as exceptions
    # Spinning threads compete for a busy core: 1.3 to 3.9 times slower there, and no faster on an idle one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Not session.set_denormal_as_zero: it changes the arithmetic of the calling thread and all threads started later.
    return options
