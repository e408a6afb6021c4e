"""Do this processor's INT8 kernels saturate? Measured on one small convolution, not read off a list of processors.

Without VNNI, ONNX Runtime's fast x86 kernels add two products of uint8 activations and int8 weights in 16 bits, and
clip the sum. What /proc/cpuinfo lists does not say which kernels a library chose, and other systems have no such file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from edgeemo.runtime.backends.ort import OnnxBackend

PROBE = Path(__file__).with_name("probe.onnx")  # tests/fixtures/make_probe.py writes it
EXACT = 255  # the answer to four pixels of 255; 129 where pairs are clipped to 16 bits
EXACT_COST = 1.5  # times the time where it is needed: 1.40 to 1.60 (benchmarks/results/processors)


@cache
def kernels_saturate() -> bool:
    """Whether ONNX Runtime's fast INT8 kernels clip sums on this processor; MachineError if it is not installed."""
    return measure_probe(exact=False) != EXACT


def measure_probe(*, exact: bool) -> int:
    """What the probe answers in the fast kernels, or in exact arithmetic."""
    backend = OnnxBackend(PROBE, threads=1, exact=exact)
    answer = int(backend.logits(np.full((1, 4, 1, 1), 255, np.uint8)).item())
    backend.close()
    return answer
