"""A process that runs one ONNX file on one batch, in whatever kernels its processor has: processors.py starts it.

python -m edgeemo.bench.one_file MODEL.onnx BATCH.npy LOGITS.npy SATURATES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.probe import kernels_saturate

SLICE = 64  # as edgeemo.runtime runs them


def main(model: str, batch: str, logits: str, saturates: str) -> None:
    """Read (N, channels, size, size) float32, write (N, K) float32.

    saturates: True or False, what the fast kernels must do here; else the process stands in for another processor.
    """
    if str(kernels_saturate()) != saturates:
        sys.exit(
            f"its INT8 kernels saturate: {kernels_saturate()}, expected {saturates}; instruction sets are not hidden"
        )
    given = np.load(batch, allow_pickle=False)
    backend = OnnxBackend(Path(model), threads=1)
    np.save(logits, np.concatenate([backend.logits(given[k : k + SLICE]) for k in range(0, len(given), SLICE)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
