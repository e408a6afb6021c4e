"""Float ONNX → INT8 ONNX with Q/DQ nodes.

There are two target formats, because engines differ: ONNX Runtime's fast x86 kernels need uint8 activations with a zero
point, TensorRT needs symmetric int8 and float biases. Both are made from the same ranges.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgeemo.compress.export import INPUT, silence, strip_metadata
from edgeemo.compress.quantize.ranges import WEIGHTED, Ranges
from edgeemo.errors import known


@dataclass(frozen=True)
class TargetFormat:
    """INT8 for one family of engines: options of ONNX Runtime's quantizer."""

    suffix: str  # of the file: model.int8.onnx, model.int8.tensorrt.onnx
    activations: QuantType
    operators: list[str]  # to quantize
    options: dict[str, Any] = field(default_factory=dict)


# Of the network's input. With a mean of 0.5 and 255 steps, all 256 gray levels lie exactly half-way between two steps:
# the last bit of a float decides how each is rounded, differently in every engine, and OpenVINO predicted another
# emotion on 1.2 % of FER+ valid for nano. With 254 steps the nearest tie is 0.002 steps away. Symmetric int8 has 254
# steps anyway.
INPUT_STEPS = 254

TARGET_FORMATS = {
    # Every activation has its own range and zero point. With symmetric ranges, edge_vgg took 0.86 ms instead of 0.64,
    # and the RMS error of its logits on FER+ was 0.034 instead of 0.022. Logits stay float: in 8 bits their error was
    # 0.028, with many ties.
    "cpu": TargetFormat(
        "int8.onnx",
        QuantType.QUInt8,
        operators=sorted({*QLinearOpsRegistry, *QDQRegistry}),
        options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    ),
    # TensorRT accepts neither int32 biases nor zero points, and fuses Conv and ReLU only without Q/DQ between them.
    "tensorrt": TargetFormat(
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


def quantize(
    ranges: Ranges,
    target: Path,
    *,
    target_format: str,
    reduce_range: bool = True,
    keep_float: Collection[str] = (),
    only: Collection[str] = (),
) -> None:
    """Quantize a float model to `target`: weights per output channel, activations per tensor.

    reduce_range: weights of -64..64, with which no x86 kernel saturates (overflow.py), instead of -127..127.
    keep_float: layers to keep in float, by their names in the network; only: if given, the only layers to quantize.

    Raises UsageError if the network has no such layer.
    """
    options = TARGET_FORMATS[target_format]
    for name in (*keep_float, *only):
        if name not in ranges.layers:
            raise known("layer to keep in float", name, ranges.layers)
    with silence():
        quantizer = QDQQuantizer(
            copy.deepcopy(ranges.model),
            per_channel=True,
            reduce_range=reduce_range,  # of weights; activations keep all 8 bits
            weight_qType=QuantType.QInt8,
            activation_qType=options.activations,
            tensors_range=ranges.tensors,
            nodes_to_quantize=[ranges.layers[name] for name in only],
            nodes_to_exclude=[ranges.layers[name] for name in keep_float],
            op_types_to_quantize=options.operators,
            extra_options={**options.options, **_make_input_override(ranges, options)},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    model = strip_metadata(quantizer.model.model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _make_input_override(ranges: Ranges, target_format: TargetFormat) -> dict[str, Any]:
    """Return the option that divides the range of an input with a zero point into INPUT_STEPS steps."""
    if target_format.activations != QuantType.QUInt8 or not (limits := ranges.get(INPUT)):
        return {}
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = (high - low) / INPUT_STEPS
    parameters = {"scale": np.array(scale, np.float32), "zero_point": np.array(round(-low / scale), np.uint8)}
    return {"TensorQuantOverrides": {INPUT: [parameters]}}
