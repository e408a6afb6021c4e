"""Float ONNX → INT8 ONNX: the numbers become 8 bits wide, and the file says so with Q/DQ nodes.

Two forms, because engines disagree. ONNX Runtime's fast x86 kernels want uint8 activations with a zero point; TensorRT
wants int8 around zero and float biases. The same ranges, written down twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.export import INPUT, quiet, stripped
from edgeemo.images import to_input
from edgeemo.progress import counter

PERCENTILE = 99.99  # of an activation's values that `percentile` keeps in range
METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
# `percentile` holds every activation of a batch in memory: about 90 MB for ResNet-50 at 224 px.
BATCH_PIXELS = 224 * 224
LARGEST_BATCH = 16
WEIGHTED = ["Conv", "Gemm", "MatMul"]


@dataclass(frozen=True)
class Flavour:
    """How INT8 is written for one family of engines: options of ONNX Runtime's quantize_static."""

    suffix: str  # of the file: model.int8.onnx, model.int8.tensorrt.onnx
    activations: QuantType
    operators: list[str] | None = None  # what is quantized; None: all that the quantizer knows
    options: dict[str, Any] = field(default_factory=dict)


FLAVOURS = {
    # Every activation gets its own range and zero point. Forced symmetric, edge_vgg took 0.86 ms instead of 0.64 and
    # its logits on FER+ were off by 0.034 RMS instead of 0.022. Logits stay float: in 8 bits 0.028, and many ties.
    "cpu": Flavour("int8.onnx", QuantType.QUInt8, options={"OpTypesToExcludeOutputQuantization": ["Gemm"]}),
    # TensorRT refuses int32 biases and zero points, and fuses Conv with ReLU only if no Q/DQ stands between them.
    "tensorrt": Flavour(
        "int8.tensorrt.onnx",
        QuantType.QInt8,
        operators=WEIGHTED,
        options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": WEIGHTED,
        },
    ),
}


def quantize(source: Path, target: Path, faces: Faces, contract: InputContract, *, flavour: str, method: str) -> None:
    """Write the INT8 form of the float model `source` to `target`; `faces` show the range of every activation.

    Weights get a scale per output channel, activations one per tensor.
    """
    form = FLAVOURS[flavour]
    bar = counter("calibrating", total=len(faces))
    with tempfile.TemporaryDirectory() as folder, bar as advance, quiet():
        prepared = Path(folder) / "prepared.onnx"
        # Symbolic shape inference fails on what torch's exporter writes; ONNX's own is enough.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Reader(faces, contract, advance),
            op_types_to_quantize=form.operators,
            per_channel=True,
            activation_type=form.activations,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options={**form.options, "CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
        )
    model = stripped(onnx.load(target))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


class _Reader:
    """Faces in batches, a window of them at a time, so that the calibrator need not hold all at once.

    What ONNX Runtime calls a CalibrationDataReader; it asks for the methods, not for the base class.
    """

    def __init__(self, faces: Faces, contract: InputContract, advance: Callable[[int, str], None]) -> None:
        self._faces, self._contract, self._advance = faces, contract, advance
        self._size = max(1, min(LARGEST_BATCH, BATCH_PIXELS // contract.size**2))
        self._window = iter(range(len(self)))

    def __len__(self) -> int:
        return ceil(len(self._faces) / self._size)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these batches."""
        self._window = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch of the window, normalised, or None at its end."""
        number = next(self._window, None)
        if number is None:
            return None
        rows = slice(number * self._size, (number + 1) * self._size)
        pixels = self._faces.pixels[rows]
        self._advance(len(pixels), "")
        return {INPUT: to_input(pixels, self._contract)}
