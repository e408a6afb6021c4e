"""A process that runs one ONNX file on one batch with the kernels of its processor; started by processors.py.

python -m edgeemo.bench.one_file MODEL.onnx BATCH.npy LOGITS.npy SATURATES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.probe import kernels_saturate

BATCH_SIZE = 64  # that of edgeemo.runtime


def main(model: str, batch: str, logits: str, saturates: str) -> None:
    """Read a batch, (N, channels, size, size) float32, and write its logits, (N, K) float32.

    saturates: "True" or "False", whether the fast kernels must saturate; otherwise masking or emulation has failed.
    """
    if str(kernels_saturate()) != saturates:
        sys.exit(
            f"its INT8 kernels saturate: {kernels_saturate()}, expected {saturates}; instruction sets are not hidden"
        )
    inputs = np.load(batch, allow_pickle=False)
    backend = OnnxBackend(Path(model), threads=1)
    starts = range(0, len(inputs), BATCH_SIZE)
    np.save(logits, np.concatenate([backend.logits(inputs[start : start + BATCH_SIZE]) for start in starts]))


if __name__ == "__main__":
    main(*sys.argv[1:])
