"""Can an x86 kernel saturate on a quantized file? A static check of its weights, and the bound that rules it out.

Without VNNI, x86 multiplies uint8 activations by int8 weights with `vpmaddubsw`, which adds two products in 16 bits and
clips the sum to -32,768..32,767 (Intel's Software Developer's Manual). Two products of 255 and 127 are 64,770. With
weights of at most 64 they are 32,640: no pair can leave 16 bits, and every kernel computes the same integers. This is
what ONNX Runtime calls reduce_range and NNCF an overflow fix; ONNX Runtime's documentation of quantization names it for
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

# Operators with weights, and which of their inputs holds them.
WEIGHTS_AT = {
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
ONLY_INTEGER = frozenset(WEIGHTS_AT) - {"Conv", "ConvTranspose", "Gemm", "MatMul"}
LARGEST_SAFE = 64  # 2 * 255 * 64 = 32,640 < 2**15 = 32,768 < 2 * 255 * 65
NAMED = 3  # of the unsafe weights


def check_weights(path: Path) -> Overflow:
    """What a card says of the weights of an ONNX file: whether they rule saturation out, and the largest one.

    Every int8 constant counts, wherever it stands and whatever lies between it and an operator, because optimisers move
    what lies between; single values, such as zero points, do not. Returns `safe`; `largest_weight`, the largest
    magnitude, None without int8 constants; `unsafe`, the first names of what can saturate: constants with a value over
    64, and int8 weights that are no constant: computed by the graph, or an input with a default value. uint8 weights
    are exact on every x86 kernel, float ones do not matter.
    """
    model = onnx.load(path)
    nodes = [node for graph in (model.graph, *model.functions) for node in _nodes(graph)]
    weights = {name: _largest(tensor) for name, tensor in _int8_constants(model, nodes)}
    inputs = {value.name for value in model.graph.input}
    unsafe = [name for name, largest in weights.items() if largest > LARGEST_SAFE or name in inputs]
    unsafe += [*_loose_weights(model, nodes), *_computed_weights(model, nodes)]
    return Overflow(not unsafe, max(weights.values(), default=None), tuple(unsafe[:NAMED]))


def _nodes(graph: Any) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph or function, those inside of control flow included."""
    for node in graph.node:
        yield node
        for inner in _graphs_in(node):
            yield from _nodes(inner)


def _graphs_in(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)


def _constants(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initializers of all graphs, and the values of Constant nodes."""
    inner = [graph for node in nodes for graph in _graphs_in(node)]
    for graph in (model.graph, *inner):
        yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in nodes:
        if node.op_type == "Constant":
            yield from ((node.output[0], one.t) for one in node.attribute if one.type == AttributeProto.TENSOR)


def _int8_constants(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    for name, tensor in _constants(model, nodes):
        if tensor.data_type == TensorProto.INT8 and np.prod(tensor.dims) > 1:
            yield name, tensor


def _loose_weights(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[str]:
    """8-bit weights that are computed or come as an input, and are not known to be uint8."""
    constants = dict(_constants(model, nodes))
    dequantize = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    loose = []
    for node in nodes:
        if node.op_type not in WEIGHTS_AT or len(node.input) <= WEIGHTS_AT[node.op_type]:
            continue
        name = node.input[WEIGHTS_AT[node.op_type]]
        source = dequantize.get(name)
        stored = source.input[0] if source else name
        if stored in constants or not (source or node.op_type in ONLY_INTEGER):
            continue
        zero_point = constants.get(source.input[2]) if source and len(source.input) > 2 else None
        if zero_point is None or zero_point.data_type != TensorProto.UINT8:
            loose.append(stored)
    return loose


def _computed_weights(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[str]:
    """Tensors that the graph quantizes or casts to int8 from constants alone; what they hold is not computed here."""
    constants = dict(_constants(model, nodes))
    many = {name: np.prod(tensor.dims) > 1 for name, tensor in constants.items()}  # derived from constants; of a vector
    found = []
    for node in _in_order(nodes, many):
        many.update(dict.fromkeys(node.output, any(many.get(name, False) for name in node.input)))
        if many[node.output[0]] and _makes_int8(node, constants):
            found.append(node.output[0])
    return found


def _in_order(nodes: list[onnx.NodeProto], derived: dict[str, bool]) -> Iterator[onnx.NodeProto]:
    """Nodes whose inputs all derive from constants, each after those that it depends on."""
    left = [node for node in nodes if node.input]
    while left:
        ready: list[onnx.NodeProto] = []
        waiting: list[onnx.NodeProto] = []
        for node in left:
            (ready if all(not name or name in derived for name in node.input) else waiting).append(node)
        if not ready:
            return
        yield from ready
        left = waiting


def _makes_int8(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether its output may be int8; a zero point that is not stored may have any type."""
    if node.op_type == "Cast":
        return any(one.name == "to" and one.i == TensorProto.INT8 for one in node.attribute)
    if node.op_type != "QuantizeLinear":
        return False
    if len(node.input) > 2 and node.input[2]:
        return node.input[2] not in constants or constants[node.input[2]].data_type == TensorProto.INT8
    return any(one.name == "output_dtype" and one.i == TensorProto.INT8 for one in node.attribute)


def _largest(tensor: onnx.TensorProto) -> int:
    return int(np.abs(numpy_helper.to_array(tensor).astype(np.int32)).max(initial=0))
