"""ONNX Runtime for every session of edgeemo: imported without its telemetry, and with the same session options."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from edgeemo.packages import require

DISABLE_TELEMETRY = "ORT_DISABLE_TELEMETRY"


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


def make_options(runtime: ModuleType, threads: int) -> Any:
    """Return the options of every session: all optimizations, threads that do not spin, nothing logged."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL  # lower: Q/DQ unfused, 5x
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal errors; all others are raised as exceptions
    # Spinning threads compete for a busy core: 1.3 to 3.9 times slower there, and no faster on an idle one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Not session.set_denormal_as_zero: it changes the arithmetic of the calling thread and all threads started later.
    return options
