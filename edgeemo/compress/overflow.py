"""Can an x86 kernel saturate on a quantized file? A static check of its weights, and the bound that rules it out.

Without VNNI, x86 multiplies uint8 activations by int8 weights with `vpmaddubsw`, which adds two products in 16 bits and
clips the sum to -32,768..32,767 (Intel's Software Developer's Manual). Two products of 255 and 127 are 64,770. With
weights of at most 64 they are 32,640: no pair can leave 16 bits, and every kernel computes the same integers. This is
what ONNX Runtime calls reduce_range and NNCF an overflow fix; ONNX Runtime's documentation of quantization names it for
AVX2 and AVX-512 without VNNI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

# Operators with weights, and which of their inputs are data and weights.
OPERANDS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
ONLY_INTEGER = frozenset(OPERANDS) - {"Conv", "ConvTranspose", "Gemm", "MatMul"}
LARGEST_SAFE = 64  # 2 * 255 * 64 = 32,640 < 2**15 = 32,768 < 2 * 255 * 65


def check_weights(path: Path) -> dict[str, Any]:
    """What a card says of the weights of an ONNX file: whether they rule saturation out, and the largest one.

    Returns `safe`; `largest_weight`, the largest magnitude of a stored int8 weight that meets 8-bit data, None if there
    is none; `layers`, how many such layers there are; and `unsafe`, the first weight names of those that can saturate.
    uint8 weights are exact on every x86 kernel, float ones do not concern it.
    """
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    pairs = _integer_pairs(graph)
    largest = {weights: _largest(stored.get(weights)) for weights in pairs}
    unsafe = [name for name, value in largest.items() if value is None or value > LARGEST_SAFE]
    known = [value for value in largest.values() if value is not None]
    return {
        "safe": not unsafe,
        "largest_weight": max(known, default=None),
        "layers": len(pairs),
        "unsafe": unsafe[:3],
    }


def _integer_pairs(graph: onnx.GraphProto) -> list[str]:
    """Names of the 8-bit weights that meet 8-bit data in one operator, in the order of the graph."""
    dequantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    pairs = []
    for node in graph.node:
        if node.op_type not in OPERANDS:
            continue
        data, weights = (node.input[at] for at in OPERANDS[node.op_type])
        if node.op_type in ONLY_INTEGER or (data in dequantized and weights in dequantized):
            pairs.append(dequantized.get(weights, weights))
    return list(dict.fromkeys(pairs))


def _largest(tensor: onnx.TensorProto | None) -> int | None:
    """The largest magnitude of int8 weights, 0 for uint8; None where they are no constant of the file."""
    if tensor is None:
        return None
    if tensor.data_type == TensorProto.UINT8:
        return 0
    return int(np.abs(numpy_helper.to_array(tensor).astype(np.int32)).max(initial=0))
