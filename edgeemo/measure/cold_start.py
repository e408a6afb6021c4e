"""A process that starts, loads a model, predicts once and prints the time of each part; started by latency.py.

    python -m edgeemo.measure.cold_start MODEL BACKEND STARTED_NS

Nothing heavy is imported at the top, because importing is part of what is measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter_ns

PARTS = ("interpreter_ms", "import_ms", "load_ms", "first_prediction_ms")


def time_cold_start(model: str, backend: str, started_ns: int) -> dict[str, float | None]:
    """Return milliseconds from the start of the process to the first prediction, by part, and peak memory in bytes.

    started_ns: perf_counter_ns of the parent just before it started this process; the clock is system-wide.
    """
    marks = [started_ns, perf_counter_ns()]
    import numpy as np  # noqa: PLC0415  timed

    from edgeemo.runtime import open_model  # noqa: PLC0415  timed

    marks.append(perf_counter_ns())
    opened = open_model(model, backend=backend)
    marks.append(perf_counter_ns())
    opened.predict(np.arange(96 * 96, dtype=np.uint8).reshape(96, 96))
    marks.append(perf_counter_ns())
    spans = {name: (end - start) / 1e6 for name, start, end in zip(PARTS, marks[:-1], marks[1:], strict=True)}
    return {**spans, "total_ms": (marks[-1] - started_ns) / 1e6, "memory_bytes": read_peak_memory()}


def read_peak_memory() -> int | None:
    """Return the largest resident size of this process so far in bytes; None if the system does not report it.

    On Linux VmHWM, because ru_maxrss still counts the parent's pages after fork and exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.split() for line in status.read_text(encoding="utf-8").splitlines())
        return next((int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:"), None)
    try:
        import resource  # noqa: PLC0415  Windows has none
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    json.dump(time_cold_start(sys.argv[1], sys.argv[2], int(sys.argv[3])), sys.stdout)
