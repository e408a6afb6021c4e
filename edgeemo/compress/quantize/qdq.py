"""Float ONNX → INT8 ONNX: the numbers become 8 bits wide, and the file says so with Q/DQ nodes.

Two forms, because engines disagree. ONNX Runtime's fast x86 kernels want uint8 activations with a zero point; TensorRT
wants int8 around zero and float biases. The same ranges, written down twice.
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
    """How INT8 is written for one family of engines: options of ONNX Runtime's quantizer."""

    suffix: str  # of the file: model.int8.onnx, model.int8.tensorrt.onnx
    activations: QuantType
    operators: list[str]  # what is quantized
    options: dict[str, Any] = field(default_factory=dict)


# Of the network's input. A contract with mean 0.5 puts all 256 gray levels exactly half-way between two of 256 steps:
# which way each is rounded was then decided by the last bit of a float, in another way by every engine, and OpenVINO
# named another emotion on 1.2 % of FER+ valid for nano. With 254 the nearest tie is 0.002 of a step away. int8 around
# zero has 254 steps by itself.
INPUT_STEPS = 254

TARGET_FORMATS = {
    # Every activation gets its own range and zero point. Forced symmetric, edge_vgg took 0.86 ms instead of 0.64 and
    # its logits on FER+ were off by 0.034 RMS instead of 0.022. Logits stay float: in 8 bits 0.028, and many ties.
    "cpu": TargetFormat(
        "int8.onnx",
        QuantType.QUInt8,
        operators=sorted({*QLinearOpsRegistry, *QDQRegistry}),
        options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    ),
    # TensorRT refuses int32 biases and zero points, and fuses Conv with ReLU only if no Q/DQ stands between them.
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
    """Write the INT8 form of a float model to `target`: weights with a scale per output channel, activations with one.

    reduce_range: weights of -64..64, with which no kernel of any x86 processor saturates (overflow.py); without it
    -127..127. keep_float: layers, by their names in the network, that stay in float; only: if given, all other layers
    stay.
    UsageError if the network has no such layer.
    """
    form = TARGET_FORMATS[target_format]
    for name in (*keep_float, *only):
        if name not in ranges.layers:
            raise known("layer to keep in float", name, ranges.layers)
    with silence():
        writer = QDQQuantizer(
            copy.deepcopy(ranges.model),
            per_channel=True,
            reduce_range=reduce_range,  # of weights; activations keep all 8 bits
            weight_qType=QuantType.QInt8,
            activation_qType=form.activations,
            tensors_range=ranges.tensors,
            nodes_to_quantize=[ranges.layers[name] for name in only],
            nodes_to_exclude=[ranges.layers[name] for name in keep_float],
            op_types_to_quantize=form.operators,
            extra_options={**form.options, **_input_scale(ranges, form)},
        )
        writer.quantize_model()
        writer.model.topological_sort()
    model = strip_metadata(writer.model.model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _input_scale(ranges: Ranges, form: TargetFormat) -> dict[str, Any]:
    """The option that gives the network's input INPUT_STEPS steps over its range, where it has a zero point."""
    if form.activations != QuantType.QUInt8 or not (found := ranges.of(INPUT)):
        return {}
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = (high - low) / INPUT_STEPS
    parameters = {"scale": np.array(scale, np.float32), "zero_point": np.array(round(-low / scale), np.uint8)}
    return {"TensorQuantOverrides": {INPUT: [parameters]}}
