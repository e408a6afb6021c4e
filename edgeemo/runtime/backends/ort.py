"""The ONNX Runtime backend. The one file of the runtime that imports onnxruntime, and only when a model is opened."""

from __future__ import annotations

import mmap
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.packages import require

MAX_BYTES = 512 * 2**20  # a ResNet-50 has 100 MB; a larger file is not a model for an edge device

# TensorProto.external_data {key: "location"} as it stands in a serialised ONNX file. Such weights lie in a second file,
# which the card's hash does not cover.
OUTSIDE_WEIGHTS = b"\x0a\x08location\x12"

DISABLE_TELEMETRY = "ORT_DISABLE_TELEMETRY"

# It gives 8 bits to weights that the file keeps in float on purpose, because their neighbours have 8.
DISABLED = ("WeightBiasQuantization",)


# Where a session runs, by the backend's name. What a GPU's provider does not take, the CPU does.
PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}


class OnnxBackend:
    """An open ONNX Runtime session: normalised batches in, logits out."""

    concurrent = True  # ONNX Runtime's documentation: Run is safe to call from several threads

    def __init__(self, path: Path, *, threads: int, name: str = "onnxruntime", exact: bool = False) -> None:
        """Open `path` on PROVIDERS[name]; IntegrityError if ONNX Runtime cannot read it.

        exact: use kernels that cannot saturate. Where the fast ones can, this costs half as much time again, elsewhere
        twice the time for nothing, and only files whose weights are not limited need it (probe.py). MachineError if
        ONNX Runtime is not installed, or its provider is not there or does not start.
        """
        self.name = name
        check_file(path)
        runtime = require_onnxruntime()
        provider = _provider(runtime, name)
        options = _options(runtime, threads)
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
            reason = str(error).splitlines()[0]
            raise IntegrityError(
                f"{path} cannot be opened by ONNX Runtime {runtime.__version__}: {reason}\n"
                f"  copy the file again, or make it anew with:  edgeemo compress"
            ) from error
        if self._session.get_providers()[0] != provider:  # it would go on without a word, on the CPU
            raise MachineError(f"ONNX Runtime's {provider} does not start here; see  edgeemo doctor")
        self.inputs = [tuple(node.shape) for node in self._session.get_inputs()]
        self.outputs = [tuple(node.shape) for node in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name if self.inputs else ""

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """(N, channels, size, size) float32, normalised → (N, K) float32."""
        if self._session is None:
            raise UsageError("the model is closed; open it again with edgeemo.load")
        logits: np.ndarray = self._session.run(None, {self._input: batch})[0]
        return logits

    def close(self) -> None:
        """Free the session's memory; twice is fine."""
        self._session = None


def check_file(path: Path) -> None:
    """IntegrityError for a file that is empty, too large, or keeps weights in a second one."""
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_BYTES:
        raise IntegrityError(f"{path} has {size_bytes:,} bytes; expected 1 to {MAX_BYTES:,}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(OUTSIDE_WEIGHTS) >= 0:
            raise IntegrityError(f"{path} keeps weights in a second file; export it with all weights inside")


def _provider(runtime: ModuleType, name: str) -> str:
    provider, here = PROVIDERS[name], runtime.get_available_providers()
    if provider not in here:
        raise MachineError(
            f"ONNX Runtime {runtime.__version__} here has {', '.join(here)}; {name} needs {provider}:  "
            "pip install onnxruntime-gpu"
        )
    return provider


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime, imported with its telemetry off; ImportError if it is not installed or does not load.

    From 1.29 on, importing it writes a device id and an upload queue to the user's cache folder and starts to upload.
    ORT_DISABLE_TELEMETRY prevents all of this; it is read during the import alone, so it is set for no longer and
    neither the host program nor its child processes see it. A variable that is already set, to any value, is left.

    If the host imported ONNX Runtime first, the id, the queue and one event that describes the process exist, and its
    upload is tried for as long as the process lives; nothing undoes that. disable_telemetry_events still stops the
    events of sessions to come, the host's included; those of sessions that the host has created may be in the queue.
    """
    if DISABLE_TELEMETRY in os.environ:
        return import_module("onnxruntime")
    if "onnxruntime" not in sys.modules:
        _import_disabled()
    runtime = import_module("onnxruntime")
    runtime.disable_telemetry_events()
    return runtime


def _import_disabled() -> None:
    os.environ[DISABLE_TELEMETRY] = "1"
    try:
        import_module("onnxruntime")
    finally:
        os.environ.pop(DISABLE_TELEMETRY, None)  # another thread may have done it


def require_onnxruntime() -> ModuleType:
    """ONNX Runtime, imported with its telemetry off; MachineError if it is not installed or does not load."""
    load = import_onnxruntime
    return require("onnxruntime", purpose="running .onnx files", install="pip install onnxruntime", load=load)


def _options(runtime: ModuleType, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL  # less leaves Q/DQ unfused: 5x
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they also come as exceptions
    # Spinning threads fight for a busy core: 1.3 to 3.9 times slower there, and no faster on an idle one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Not session.set_denormal_as_zero: it changes the arithmetic of the calling thread and of every thread begun later.
    return options
