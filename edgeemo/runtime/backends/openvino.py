"""The OpenVINO backend for .onnx files: faster than ONNX Runtime on some Intel CPUs, larger to install."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeemo.errors import IntegrityError, UsageError
from edgeemo.limits import check_shortage
from edgeemo.packages import require
from edgeemo.runtime.onnx_check import check_file

TELEMETRY = "openvino_telemetry"  # the package through which OpenVINO's Python modules send usage data


class OpenvinoBackend:
    """A model compiled for this CPU: normalised batches in, logits out."""

    name = "openvino"
    concurrent = False  # one infer request holds one input

    def __init__(self, path: Path, *, threads: int) -> None:
        """Compile `path`.

        Raises IntegrityError if the file is not one that check_file accepts, or OpenVINO cannot read it; MachineError
        if OpenVINO is not installed.
        """
        check_file(path)
        library = require_openvino()
        core = library.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",  # of float layers; by default bf16 where the CPU supports it
        }
        try:
            model = core.read_model(path)
            self._compiled: Any = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            check_shortage(error)
            reason = str(error).strip().splitlines()[-1]
            raise IntegrityError(
                f"{path} cannot be opened by OpenVINO {library.__version__}: {reason}\n"
                f"  copy the file again, or rebuild it:  edgeemo compress"
            ) from error
        self._path = path
        self.inputs = [_read_shape(port) for port in model.inputs]
        self.outputs = [_read_shape(port) for port in model.outputs]
        self._request: Any = self._compiled.create_infer_request()

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Run (N, channels, size, size) float32, normalised; return (N, K) float32 logits.

        Raises IntegrityError if OpenVINO refuses the file only when it runs.
        """
        if self._request is None:
            raise UsageError("the model is closed; open it again with edgeemo.load")
        try:
            logits: np.ndarray = self._request.infer([batch])[0].copy()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise IntegrityError(
                f"{self._path} is refused by OpenVINO for a batch of shape {batch.shape}: {reason}\n"
                f"  copy the file again, or rebuild it:  edgeemo compress"
            ) from error
        return logits

    def close(self) -> None:
        """Free the compiled model; may be called twice."""
        self._request = self._compiled = None


def _read_shape(port: Any) -> tuple[int | str | None, ...]:
    """Return a shape as ONNX Runtime reports it: None where a dimension varies."""
    return tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)


def import_openvino() -> ModuleType:
    """Import OpenVINO with its telemetry off; raise ImportError if it is not installed or does not load.

    Importing it writes a client id to ~/intel and sends events to Google Analytics, and only a file in the user's home
    or CI=true would prevent that. OpenVINO also works without its telemetry package, so the package is hidden during
    the import; OpenVINO's own stub then replaces it for the life of the process.

    If the host imported OpenVINO first, the id has been written and the events sent; nothing undoes that. Reading,
    compiling and running a model sends no more.
    """
    if "openvino" in sys.modules:
        return import_module("openvino")
    hidden = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ModuleNotFoundError
    try:
        return import_module("openvino")
    finally:
        sys.modules.pop(TELEMETRY, None)
        if hidden:
            sys.modules[TELEMETRY] = hidden


def require_openvino() -> ModuleType:
    """Import OpenVINO with its telemetry off; raise MachineError if it is not installed or does not load."""
    return require("openvino", purpose="the OpenVINO backend", extra="openvino", load=import_openvino)
