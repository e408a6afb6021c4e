"""The ONNX Runtime backend, which imports onnxruntime only to open a model."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.limits import check_shortage, is_shortage
from edgeemo.runtime.onnx_check import check_file, has_uint8_activations
from edgeemo.sessions import make_options, require_onnxruntime

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
        options = make_options(runtime, threads)
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
