"""The range of every activation on the calibration faces: what both INT8 target formats are made from.

A range decides what one of 255 steps is worth. The widest value seen (minmax) clips nothing and wastes steps on
outliers; percentile and entropy clip a few values to resolve the rest. Which is best depends on the network, so `auto`
measures: ranges from one half of the calibration faces, divergence from the float model on the other half.
"""

from __future__ import annotations

import logging
import tempfile
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

from edgeemo.card import InputContract
from edgeemo.compress.export import INPUT, silence
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.images import to_input
from edgeemo.progress import counter
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.probe import kernels_saturate

log = logging.getLogger(__name__)
PERCENTILE = 99.99  # of an activation's values that `percentile` keeps in range
BINS = 1024  # of a histogram; at ONNX Runtime's default of 128 its entropy method finds the ranges of minmax
METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": PERCENTILE}),
    "entropy": (CalibrationMethod.Entropy, {"num_bins": BINS}),
}
MOST_BINS = 2 * BINS  # that its search goes through
# A histogram's calibrator holds every activation of a batch in memory: about 90 MB for ResNet-50 at 224 px.
BATCH_PIXELS = 224 * 224
LARGEST_BATCH = 16
WEIGHTED = ["Conv", "Gemm", "MatMul"]


@dataclass(frozen=True)
class Ranges:
    """A float model ready to be quantized, and the range that each of its activations had."""

    model: onnx.ModelProto  # with inferred shapes
    tensors: TensorsData
    method: str

    @cached_property
    def layers(self) -> dict[str, str]:
        """Node of every layer with weights, by the name of the layer in the network, in the order of the graph."""
        nodes = (node for node in self.model.graph.node if node.op_type in WEIGHTED)
        return {_layer_name(node): node.name for node in nodes}

    def of(self, tensor: str) -> tuple[float, float] | None:
        """Lowest and highest value of an activation, or None where none was measured."""
        if tensor not in self.tensors.keys():  # noqa: SIM118  TensorsData is no dict
            return None
        low, high = self.tensors[tensor].range_value
        return float(np.asarray(low).item()), float(np.asarray(high).item())  # of shape () or (1,), by method


def observe(source: Path, faces: Faces, contract: InputContract, *, method: str) -> Ranges:
    """Run the float model `source` over the faces and note the range of every activation, by the named method.

    The input's range is that of the contract, black to white, whatever the faces hold: it decides which integer each
    gray level becomes, and which of them lie on a rounding tie (quantize.INPUT_STEPS).
    UsageError where a method cannot draw its histogram: its bins are those of the first batch, and an activation that
    was all but constant there and wide later would need millions of them.
    """
    kind, options = METHODS[method]
    bar = counter(f"calibrating, {method}", total=len(faces))
    with tempfile.TemporaryDirectory() as folder, bar as advance, silence():
        prepared = Path(folder) / "prepared.onnx"
        # Symbolic shape inference fails on what torch's exporter writes; ONNX's own is enough.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        calibrator = create_calibrator(
            prepared,
            sorted({*QLinearOpsRegistry, *QDQRegistry}),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=kind,
            extra_options=options,
        )
        try:
            for batch in batches(faces, contract, advance):
                calibrator.collect_data(_Once({INPUT: batch}))
            if method == "entropy":
                histograms = calibrator.collector.histogram_dict
                histograms.update({name: coarser(found) for name, found in histograms.items()})
            tensors = calibrator.compute_data()
        except (ValueError, MemoryError) as error:
            if method == "minmax":
                raise
            raise UsageError(
                f"--method {method} cannot draw a histogram of this network's activations on these faces ({error}).  "
                "Use --method minmax, or auto, which passes over it"
            ) from error
        low, high = (np.array(end, np.float32) for end in contract.range)
        tensors[INPUT] = TensorData(lowest=low, highest=high)
        return Ranges(onnx.load(prepared), tensors, method)


def coarser(histogram: tuple[Any, ...]) -> tuple[Any, ...]:
    """The histogram of an activation with as many bins added up to one as leaves at most MOST_BINS.

    (counts, edges, lowest, highest, limit) as ONNX Runtime collects it, symmetric about 0. It grows at the width of the
    first batch's bins, and the search for the entropy takes the square of their number: one activation of an
    EfficientNet-B4 came to 49,346 bins, and after an hour the search was not at its end.
    """
    counts, edges, *rest = histogram
    factor = ceil(len(counts) / MOST_BINS)
    if factor == 1:
        return histogram
    missing = -(len(counts) // 2) % factor  # on either side, so that 0 stays an edge
    added = np.pad(counts, missing).reshape(-1, factor).sum(1)
    reach = missing * (edges[1] - edges[0])
    return (added, np.linspace(edges[0] - reach, edges[-1] + reach, len(added) + 1, dtype=edges.dtype), *rest)


def _layer_name(node: onnx.NodeProto) -> str:
    weight: str = node.input[1]
    return weight.removesuffix(".weight")


def batches(
    faces: Faces, contract: InputContract, advance: Callable[[int, str], None] = lambda *_: None
) -> Iterator[np.ndarray]:
    """The faces as input, (N, channels, size, size) float32, in batches whose activations fit in memory."""
    size = max(1, min(LARGEST_BATCH, BATCH_PIXELS // contract.size**2))
    for number in range(ceil(len(faces) / size)):
        pixels = faces.pixels[number * size : (number + 1) * size]
        advance(len(pixels), "")
        yield to_input(pixels, contract)


@dataclass
class _Once:
    """One batch, then nothing: what ONNX Runtime calls a CalibrationDataReader."""

    batch: dict[str, np.ndarray] | None = field(repr=False)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch, self.batch = self.batch, None
        return batch


def file_logits(path: Path, faces: Faces, contract: InputContract, *, threads: int) -> np.ndarray:
    """(N, K) float32 logits of an ONNX file that has no card yet, computed in exact integers on every processor."""
    backend = OnnxBackend(path, threads=threads, exact=kernels_saturate())
    out = np.concatenate([backend.logits(batch) for batch in batches(faces, contract)])
    backend.close()
    return out
