"""Can an x86 kernel saturate on a quantized file? A static check of its weights against a safe bound.

Without VNNI, x86 multiplies uint8 activations by int8 weights with `vpmaddubsw`, which adds two products in 16 bits and
clips the sum to -32,768..32,767 (Intel's Software Developer's Manual). Two products of 255 and 127 are 64,770. With
weights of at most 64 they are 32,640: no pair can overflow 16 bits, and every kernel computes the same integers. ONNX
Runtime calls this reduce_range, NNCF an overflow fix; ONNX Runtime's documentation of quantization recommends it for
AVX2 and AVX-512 without VNNI.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from edgeemo.card import Overflow

# Operators with weights, and the index of the input that holds them.
WEIGHT_INPUT = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
}
ONLY_INTEGER = frozenset(WEIGHT_INPUT) - {"Conv", "ConvTranspose", "Gemm", "MatMul"}
MAX_SAFE_WEIGHT = 64  # 2 * 255 * 64 = 32,640 < 2**15 = 32,768 < 2 * 255 * 65
MAX_LISTED = 3  # names of unsafe weights in the card


def check_weights(path: Path) -> Overflow:
    """Check the weights of an ONNX file; return the section for its card.

    All int8 constants are checked, wherever they are in the graph, because optimisers move the operators between
    constant and kernel; scalars, such as zero points, are not. The result has `safe`, whether saturation is ruled out;
    `largest_weight`, the largest magnitude, None without int8 constants; and `unsafe`, the first names of tensors that
    can saturate: constants with a value over 64, and int8 weights that are not constant, because the graph computes
    them or they are an input with a default value. uint8 weights are exact on every x86 kernel, float weights are not
    concerned.
    """
    model = onnx.load(path)
    nodes = [node for graph in (model.graph, *model.functions) for node in _iterate_nodes(graph)]
    weights = {
        name: _max_magnitude(tensor)
        for name, tensor in _iterate_constants(model, nodes)
        if tensor.data_type == TensorProto.INT8 and np.prod(tensor.dims) > 1
    }
    inputs = {value.name for value in model.graph.input}
    unsafe = [name for name, largest in weights.items() if largest > MAX_SAFE_WEIGHT or name in inputs]
    unsafe += [*_find_dynamic_weights(model, nodes), *_find_computed_weights(model, nodes)]
    return Overflow(not unsafe, max(weights.values(), default=None), tuple(unsafe[:MAX_LISTED]))


def _iterate_nodes(graph: Any) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph or function, including those inside control flow."""
    for node in graph.node:
        yield node
        for inner in _iterate_subgraphs(node):
            yield from _iterate_nodes(inner)


def _iterate_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)


def _iterate_constants(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield the initializers of all graphs and the values of Constant nodes, by name."""
    inner = [graph for node in nodes for graph in _iterate_subgraphs(node)]
    for graph in (model.graph, *inner):
        yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in nodes:
        if node.op_type == "Constant":
            yield from ((node.output[0], one.t) for one in node.attribute if one.type == AttributeProto.TENSOR)


def _find_dynamic_weights(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[str]:
    """Return 8-bit weights that are computed or an input, and not known to be uint8."""
    constants = dict(_iterate_constants(model, nodes))
    dequantize = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    dynamic = []
    for node in nodes:
        if node.op_type not in WEIGHT_INPUT or len(node.input) <= WEIGHT_INPUT[node.op_type]:
            continue
        name = node.input[WEIGHT_INPUT[node.op_type]]
        source = dequantize.get(name)
        stored = source.input[0] if source else name
        if stored in constants or not (source or node.op_type in ONLY_INTEGER):
            continue
        zero_point = constants.get(source.input[2]) if source and len(source.input) > 2 else None
        if zero_point is None or zero_point.data_type != TensorProto.UINT8:
            dynamic.append(stored)
    return dynamic


def _find_computed_weights(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[str]:
    """Return tensors that the graph quantizes or casts to int8 from constants alone, whatever their values."""
    constants = dict(_iterate_constants(model, nodes))
    is_vector = {
        name: np.prod(tensor.dims) > 1 for name, tensor in constants.items()
    }  # by tensor derived from constants
    computed = []
    for node in _sort_constant_nodes(nodes, is_vector):
        is_vector.update(dict.fromkeys(node.output, any(is_vector.get(name, False) for name in node.input)))
        if is_vector[node.output[0]] and _may_output_int8(node, constants):
            computed.append(node.output[0])
    return computed


def _sort_constant_nodes(nodes: list[onnx.NodeProto], derived: dict[str, bool]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes whose inputs all derive from constants, in topological order."""
    remaining = [node for node in nodes if node.input]
    while remaining:
        ready: list[onnx.NodeProto] = []
        waiting: list[onnx.NodeProto] = []
        for node in remaining:
            (ready if all(not name or name in derived for name in node.input) else waiting).append(node)
        if not ready:
            return
        yield from ready
        remaining = waiting


def _may_output_int8(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Return whether the output may be int8; a zero point that is not constant may have any type."""
    if node.op_type == "Cast":
        return any(one.name == "to" and one.i == TensorProto.INT8 for one in node.attribute)
    if node.op_type != "QuantizeLinear":
        return False
    if len(node.input) > 2 and node.input[2]:
        return node.input[2] not in constants or constants[node.input[2]].data_type == TensorProto.INT8
    return any(one.name == "output_dtype" and one.i == TensorProto.INT8 for one in node.attribute)


def _max_magnitude(tensor: onnx.TensorProto) -> int:
    return int(np.abs(numpy_helper.to_array(tensor).astype(np.int32)).max(initial=0))
