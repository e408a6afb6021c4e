"""The check of an .onnx file, and its limits."""

from __future__ import annotations

import mmap
import stat
from math import prod
from pathlib import Path

from edgeemo.errors import IntegrityError
from edgeemo.limits import check_shortage
from edgeemo.runtime.onnx_check.graph import UINT8, Graph, Node, Shape, Tensor, read_graph
from edgeemo.runtime.onnx_check.operators import OPERATORS, Cost, Inputs
from edgeemo.runtime.onnx_check.protobuf import Reader

MAX_BYTES = 512 * 2**20  # a ResNet-50 has 100 MB; larger files are not models for edge devices
MAX_NODES = 2000
MAX_FIELDS = 100_000
# Of all tensors that the nodes make, and of the buffer of one convolution, per number of the input: every backbone of
# edgeemo makes fewer than 1,200, in INT8 too. Constants that the nodes make of weights come on top.
MAX_GROWTH = 4096
MAX_ELEMENTS = 2**30  # of one face of any size; an EfficientNet-B4 of 512 pixels makes 0.83 of it in INT8
CONSTANTS_PER_BYTE = 2  # of the file: INT8 weights are one byte each, and are dequantized
MAX_MACS_PER_INPUT = 2**20  # multiply-adds per number of the input; edgeemo's backbones need up to 115,000
BATCH_SIZE = 64  # the most faces that edgeemo runs at once

QUANTIZED = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear")
SEVERAL_OUTPUTS = ("Dropout", "MaxPool")  # of the same shape


def check_file(path: Path) -> Graph:
    """Return the graph of an .onnx file that an engine may open; raise IntegrityError for any other.

    Refused is what could make an engine read other files, or take memory or time without end: no regular file, empty,
    over MAX_BYTES; weights outside the file; operators that are not in OPERATORS, of foreign domains, with graphs
    inside or defined in the file; tensors whose bytes do not match their shape; more than MAX_NODES nodes; shapes that
    do not fit, or that need more memory or multiply-adds than the limits above.

    Not bounded: what the engine needs for itself, such as copies of weights in the layout of a kernel.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError(f"{path} is not a regular file; expected an .onnx file")
        if not 0 < status.st_size <= MAX_BYTES:
            raise IntegrityError(f"{path} has {status.st_size:,} bytes; expected 1 to {MAX_BYTES:,}")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            graph = read_graph(Reader(content, max_fields=MAX_FIELDS), status.st_size, max_nodes=MAX_NODES)
        for batch in (1, BATCH_SIZE):
            _check_cost(graph, status.st_size, batch)
    except OSError as error:
        check_shortage(error)
        raise IntegrityError(f"{path} cannot be read ({error.strerror}); copy the file again") from error
    except ValueError as error:
        raise IntegrityError(
            f"{path} is not opened, because {error}\n  copy the file again, or rebuild it:  edgeemo compress"
        ) from error
    return graph


def has_uint8_activations(graph: Graph) -> bool:
    """Return whether a file quantizes to uint8, which TensorRT refuses, or clips at half of its range.

    QuantizeLinear without a zero point gives uint8, unless an attribute says otherwise.
    """
    types = {name: tensor.type for name, tensor in graph.tensors.items()}
    types |= {node.outputs[0]: value.type for node in graph.nodes if (value := _get_value(node))}
    return any(_is_uint8(node, types) for node in graph.nodes)


def is_quantized(graph: Graph) -> bool:
    """Return whether a file has quantized tensors."""
    return any(node.operator in QUANTIZED for node in graph.nodes)


def _is_uint8(node: Node, types: dict[str, int]) -> bool:
    if node.operator == "QuantizeLinear" and (len(node.inputs) < 3 or not node.inputs[2]):
        return node.attributes.get("output_dtype", UINT8) in (0, UINT8)
    return node.operator in QUANTIZED and any(types.get(name) == UINT8 for name in node.inputs)


def _check_cost(graph: Graph, size_bytes: int, batch: int) -> None:
    """Raise ValueError for an unknown operator, or a graph that needs more than the limits for a batch of faces."""
    known = {name: tensor.values for name, tensor in graph.tensors.items()}
    inputs = {name: _resolve_shape(name, sides, batch) for name, sides in graph.inputs.items() if name not in known}
    size = sum(map(prod, inputs.values()))
    max_elements = min(size * MAX_GROWTH, MAX_ELEMENTS * batch) + size_bytes * CONSTANTS_PER_BYTE
    shapes: dict[str, Shape] = {**inputs, **{name: tensor.dims for name, tensor in graph.tensors.items()}}
    elements = macs = 0
    for node in graph.nodes:
        cost = _compute_cost(node, shapes, known)
        _add_outputs(node, cost.shape, shapes)
        known[node.outputs[0]] = cost.values
        elements, macs = elements + prod(cost.shape), macs + cost.macs
        if max(elements, cost.buffer * batch) > max_elements or macs > size * MAX_MACS_PER_INPUT:
            raise ValueError(
                f"up to {node} it needs {max(elements, cost.buffer * batch):,} numbers in memory and {macs:,} "
                f"multiply-adds; expected at most {max_elements:,} and {size * MAX_MACS_PER_INPUT:,} for this input"
            )


def _compute_cost(node: Node, shapes: dict[str, Shape], known: dict[str, tuple[int, ...] | None]) -> Cost:
    if node.operator not in OPERATORS:
        raise ValueError(f"{node} is not an operator of image classifiers, which are: {', '.join(sorted(OPERATORS))}")
    if unknown := [name for name in node.inputs if name and name not in shapes]:
        raise ValueError(f"{node} reads {unknown[0]!r}, which nothing before it makes")
    inputs = Inputs([shapes.get(name) for name in node.inputs], [known.get(name) for name in node.inputs])
    try:
        return OPERATORS[node.operator](node, inputs)
    except ValueError as error:
        raise ValueError(f"{node} does not fit: {error}") from error


def _resolve_shape(name: str, sides: tuple[int | None, ...], batch: int) -> Shape:
    """Return the shape of an input for a batch; only its first side may vary."""
    if None in sides[1:]:
        raise ValueError(f"the input {name!r} has the shape {sides}; expected fixed sides after the first")
    return tuple(batch if side is None else side for side in sides)


def _add_outputs(node: Node, shape: Shape, shapes: dict[str, Shape]) -> None:
    outputs = [name for name in node.outputs if name]
    if not outputs or (len(outputs) > 1 and node.operator not in SEVERAL_OUTPUTS):
        raise ValueError(f"{node} has {len(outputs)} outputs")
    for name in outputs:
        if name in shapes:
            raise ValueError(f"{node} makes {name!r}, which is already there")
        shapes[name] = shape


def _get_value(node: Node) -> Tensor | None:
    value = node.attributes.get("value") if node.operator == "Constant" else None
    return value if isinstance(value, Tensor) else None
