"""Do this processor's INT8 kernels saturate? Measured with one small convolution, not read from a list of processors.

Without VNNI, ONNX Runtime's fast x86 kernels add two products of uint8 activations and int8 weights in 16 bits, and
clip the sum. /proc/cpuinfo does not show which kernels a library chose, and other systems have no such file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from edgeemo.runtime.backends.ort import OnnxBackend

PROBE = Path(__file__).with_name("probe.onnx")  # tests/fixtures/make_probe.py writes it
EXACT = 255  # the output for four pixels of 255; 129 where pairs are clipped to 16 bits
EXACT_COST = 1.5  # times the latency where exact arithmetic is needed: 1.40 to 1.60 (benchmarks/results/processors)


@cache
def kernels_saturate() -> bool:
    """Return whether ONNX Runtime's fast INT8 kernels clip sums on this processor.

    Raises MachineError if ONNX Runtime is not installed.
    """
    return run_probe(exact=False) != EXACT


def run_probe(*, exact: bool) -> int:
    """Return the output of the probe with the fast kernels, or in exact arithmetic."""
    backend = OnnxBackend(PROBE, threads=1, exact=exact)
    output = int(backend.logits(np.full((1, 4, 1, 1), 255, np.uint8)).item())
    backend.close()
    return output
