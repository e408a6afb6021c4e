"""The range of every activation on the calibration faces, from which both INT8 target formats are made.

A range determines the width of one of 255 steps. minmax clips nothing, but wastes steps on outliers; percentile and
entropy clip a few values to resolve the others. Which is best depends on the network, so `auto` measures: ranges from
one half of the calibration faces, divergence from the float model on the other half.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData, create_calibrator
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgeemo.artifact import temporary_folder
from edgeemo.card import InputContract
from edgeemo.compress.export import INPUT, silence
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.images import to_input
from edgeemo.progress import counter
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.probe import kernels_saturate

log = logging.getLogger(__name__)
PERCENTILE = 99.99  # of the values of an activation that `percentile` does not clip
BINS = 1024  # of a histogram; with ONNX Runtime's default of 128, the entropy method gives the ranges of minmax
METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": PERCENTILE}),
    "entropy": (CalibrationMethod.Entropy, {"num_bins": BINS}),
}
COPIES = 5  # of the model that calibration has in temporary files at a time, at most
MAX_BINS = 2 * BINS  # that the search for the entropy threshold goes through
# Histogram calibrators hold every activation of a batch in memory: about 90 MB for ResNet-50 at 224 px.
BATCH_PIXELS = 224 * 224
MAX_BATCH = 16
WEIGHTED = ["Conv", "Gemm", "MatMul"]


@dataclass(frozen=True)
class Ranges:
    """A float model prepared for quantization, and the observed range of each of its activations."""

    model: onnx.ModelProto  # with inferred shapes
    tensors: TensorsData
    method: str

    @cached_property
    def layers(self) -> dict[str, str]:
        """The node of every layer with weights, by the name of the layer in the network, in graph order."""
        nodes = (node for node in self.model.graph.node if node.op_type in WEIGHTED)
        return {node.input[1].removesuffix(".weight"): node.name for node in nodes}

    def get(self, tensor: str) -> tuple[float, float] | None:
        """Return the lowest and highest value of an activation, or None if it was not observed."""
        if tensor not in self.tensors.keys():  # noqa: SIM118  TensorsData is not a dict
            return None
        low, high = self.tensors[tensor].range_value
        return float(np.asarray(low).item()), float(
            np.asarray(high).item()
        )  # shape () or (1,), depending on the method


def observe(source: Path, faces: Faces, contract: InputContract, *, method: str) -> Ranges:
    """Observe the range of every activation of the float model `source` on the faces, by the named method.

    The range of the input is that of the contract, black to white, whatever the faces contain: it determines the
    integer of each gray level, and which of them are on a rounding tie (qdq.INPUT_STEPS).

    Raises UsageError if a method cannot build its histogram: the width of its bins is that of the first batch, and an
    activation that is nearly constant there and wide later would need millions of them.
    """
    kind, options = METHODS[method]
    bar = counter(f"calibrating, {method}", total=len(faces), unit="faces")
    place = temporary_folder(room=COPIES * source.stat().st_size)
    with place as folder, bar as advance, silence(logging.ERROR):  # ONNX Runtime logs what it raises
        prepared = folder / "prepared.onnx"
        # Symbolic shape inference fails on graphs of torch's exporter; ONNX's own shape inference is sufficient.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        calibrator = create_calibrator(
            prepared,
            sorted({*QLinearOpsRegistry, *QDQRegistry}),
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=kind,
            extra_options=options,
        )
        try:
            for batch in iterate_batches(faces, contract, advance):
                calibrator.collect_data(_OneBatchReader({INPUT: batch}))
            if method == "entropy":
                histograms = calibrator.collector.histogram_dict
                histograms.update({name: merge_bins(histogram) for name, histogram in histograms.items()})
            tensors = calibrator.compute_data()
        except (ValueError, MemoryError) as error:
            if method == "minmax":
                raise
            raise UsageError(
                f"--method {method} cannot build a histogram of this network's activations on these faces ({error}).  "
                "Use --method minmax, or auto, which skips it"
            ) from error
        low, high = (np.array(end, np.float32) for end in contract.range)
        tensors[INPUT] = TensorData(lowest=low, highest=high)
        return Ranges(onnx.load(prepared), tensors, method)


def merge_bins(histogram: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge adjacent bins of the histogram of an activation, so that at most MAX_BINS remain.

    histogram: (counts, edges, lowest, highest, limit) as ONNX Runtime collects it, symmetric about 0. Its bins keep the
    width of the first batch's, and the search for the entropy threshold is quadratic in their number: an activation of
    EfficientNet-B4 had 49,346 bins, for which the search did not end within an hour.
    """
    counts, edges, *rest = histogram
    factor = ceil(len(counts) / MAX_BINS)
    if factor == 1:
        return histogram
    missing = -(len(counts) // 2) % factor  # to add on either side, so that 0 stays an edge
    merged = np.pad(counts, missing).reshape(-1, factor).sum(1)
    margin = missing * (edges[1] - edges[0])
    return (merged, np.linspace(edges[0] - margin, edges[-1] + margin, len(merged) + 1, dtype=edges.dtype), *rest)


def iterate_batches(
    faces: Faces, contract: InputContract, advance: Callable[[int, str], None] = lambda *_: None
) -> Iterator[np.ndarray]:
    """Yield the faces as (N, channels, size, size) float32 input, in batches whose activations fit in memory."""
    size = max(1, min(MAX_BATCH, BATCH_PIXELS // contract.size**2))
    for number in range(ceil(len(faces) / size)):
        pixels = faces.pixels[number * size : (number + 1) * size]
        advance(len(pixels), "")
        yield to_input(pixels, contract)


@dataclass
class _OneBatchReader:
    """A CalibrationDataReader of ONNX Runtime that returns one batch, then None."""

    batch: dict[str, np.ndarray] | None = field(repr=False)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch, self.batch = self.batch, None
        return batch


def predict_onnx(path: Path, faces: Faces, contract: InputContract, *, threads: int) -> np.ndarray:
    """Return (N, K) float32 logits of an ONNX file that has no card yet, in exact arithmetic on every processor."""
    backend = OnnxBackend(path, threads=threads, exact=kernels_saturate())
    logits = np.concatenate([backend.logits(batch) for batch in iterate_batches(faces, contract)])
    backend.close()
    return logits
