"""Nodes and tensors of an .onnx file; what a tensor declares must match its bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

from edgeemo.runtime.onnx_check.protobuf import Reader, Span
from edgeemo.runtime.onnx_check.schema import ATTRIBUTE_TYPES, MODEL, SECOND_FILE

Shape = tuple[int, ...]
MAX_RANK = 8
MAX_VALUES = 64  # of a tensor whose values decide a shape
DOMAINS = ("", "ai.onnx")  # both names of ONNX's own operators

INT64, UINT8 = 7, 2
# Element types by their number in TensorProto: bytes of one, and the field that holds them if raw_data does not.
TYPES = {
    1: (4, "float_data"),
    UINT8: (1, "int32_data"),
    3: (1, "int32_data"),  # int8
    6: (4, "int32_data"),
    INT64: (8, "int64_data"),
    9: (1, "int32_data"),  # bool
    10: (2, "int32_data"),  # float16
    11: (8, "double_data"),
}
DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
FIXED_BYTES = {"float_data": 4, "double_data": 8}  # of an element; the others are varints


@dataclass(frozen=True)
class Tensor:
    """A constant of the file: an initializer, or the value of a Constant node."""

    dims: Shape
    type: int
    values: tuple[int, ...] | None = None  # of a small int64 tensor


@dataclass(frozen=True)
class Node:
    """A node: `attributes` holds ints, lists of ints, texts and a Tensor; floats, which decide no shape, are None."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"the {self.operator} {self.name!r}"


@dataclass(frozen=True)
class Graph:
    """The graph of a file: `inputs` has the shape of each, None for a dimension that varies."""

    nodes: list[Node]
    tensors: dict[str, Tensor]
    inputs: dict[str, tuple[int | None, ...]]


def read_graph(reader: Reader, size: int, *, max_nodes: int) -> Graph:
    """Read the graph of a model of `size` bytes; ValueError if it has anything that edgeemo does not accept."""
    model = reader.read(MODEL, 0, size, what="the model")
    if "graph" not in model:
        raise ValueError("the model has no graph")
    imported = [one.get("domain", "") for one in model.get("opset_import", [])]
    if sum(domain in DOMAINS for domain in imported) != 1:
        raise ValueError(f"the model imports the operator sets {imported}; expected ONNX's own, '', once")
    graph = model["graph"]
    nodes = graph.get("node", [])
    if not 0 < len(nodes) <= max_nodes:
        raise ValueError(f"the graph has {len(nodes):,} nodes; expected 1 to {max_nodes:,}")
    tensors: dict[str, Tensor] = {}
    for raw in graph.get("initializer", []):
        name = raw.get("name", "")
        if name in tensors:
            raise ValueError(f"two initializers have the name {name!r}")
        tensors[name] = _read_tensor(reader, raw, f"the initializer {name!r}")
    inputs = {value.get("name", ""): _read_shape(value) for value in graph.get("input", [])}
    return Graph([_read_node(reader, raw) for raw in nodes], tensors, inputs)


def _read_node(reader: Reader, raw: dict[str, Any]) -> Node:
    operator, name = raw.get("op_type", ""), raw.get("name", "")
    if (domain := raw.get("domain", "")) not in DOMAINS:
        raise ValueError(f"the node {name!r} is a {operator} of {domain!r}, not an operator of ONNX itself")
    attributes: dict[str, Any] = {}
    for attribute in raw.get("attribute", []):
        key = attribute.get("name", "")
        if key in attributes:
            raise ValueError(f"the {operator} {name!r} has the attribute {key!r} twice")
        attributes[key] = _read_attribute(reader, attribute, f"{key!r} of the {operator} {name!r}")
    return Node(operator, name, tuple(raw.get("input", [])), tuple(raw.get("output", [])), attributes)


def _read_attribute(reader: Reader, raw: dict[str, Any], what: str) -> Any:
    """Return the value of an attribute; where proto3 leaves out a zero, that zero."""
    kind = ATTRIBUTE_TYPES.get(raw.get("type", 0))
    if kind is None or {*ATTRIBUTE_TYPES.values()} & {*raw} - {kind}:
        raise ValueError(f"the attribute {what} has a value that does not fit its type {raw.get('type', 0)}")
    if kind == "t":
        return _read_tensor(reader, raw.get("t", {}), f"the attribute {what}")
    return raw.get(kind, {"i": 0, "s": "", "ints": []}.get(kind)) if kind in ("i", "s", "ints") else None


def _read_tensor(reader: Reader, raw: dict[str, Any], what: str) -> Tensor:
    """Return a tensor, after comparing its bytes with its type and dimensions."""
    if raw.get("data_location", 0) != 0:
        raise ValueError(f"{what} {SECOND_FILE}")
    dims, kind = tuple(raw.get("dims", ())), raw.get("data_type", 0)
    if kind not in TYPES:
        raise ValueError(f"{what} has elements of type {kind}; expected one of {', '.join(map(str, TYPES))}")
    if len(dims) > MAX_RANK or any(side < 0 for side in dims):
        raise ValueError(f"{what} has the shape {dims}; expected at most {MAX_RANK} sides of 0 or more")
    given = [field for field in DATA if field in raw and raw[field][0] < raw[field][1]]
    if len(given) > 1:
        raise ValueError(f"{what} has its values twice, as {' and '.join(given)}")
    expected, found = prod(dims), _count_elements(reader, raw, given, kind, what)
    if expected != found:
        raise ValueError(f"{what} has the shape {dims}, {expected:,} elements, but bytes for {found:,}")
    values = _read_values(reader, raw, given, what) if kind == INT64 and expected <= MAX_VALUES else None
    return Tensor(dims, kind, values)


def _count_elements(reader: Reader, raw: dict[str, Any], given: list[str], kind: int, what: str) -> float:
    """Return the elements of a tensor by its bytes; a fraction if they do not end with an element."""
    if not given:
        return 0
    (field,) = given
    element_bytes, typed = TYPES[kind]
    if field not in ("raw_data", typed):
        raise ValueError(f"{what} has elements of type {kind} in {field}; expected them in {typed}")
    span: Span = raw[field]
    if field == "raw_data" or field in FIXED_BYTES:
        return (span[1] - span[0]) / FIXED_BYTES.get(field, element_bytes)
    return reader.count_varints(span, what)


def _read_values(reader: Reader, raw: dict[str, Any], given: list[str], what: str) -> tuple[int, ...]:
    if not given:
        return ()
    (field,) = given
    if field != "raw_data":
        return tuple(reader.read_ints(raw[field], what))
    content = reader.bytes_of(raw[field])
    return tuple(value for (value,) in struct.iter_unpack("<q", content))


def _read_shape(value: dict[str, Any]) -> tuple[int | None, ...]:
    """Return the shape of an input of the graph."""
    name = value.get("name", "")
    shape = value.get("type", {}).get("tensor_type", {}).get("shape")
    if shape is None:
        raise ValueError(f"the input {name!r} has no shape")
    sides = [side.get("dim_value") for side in shape.get("dim", [])]
    if any(len({"dim_value", "dim_param"} & {*side}) == 2 for side in shape.get("dim", [])):
        raise ValueError(f"the input {name!r} has a side with both a length and a name")
    if len(sides) > MAX_RANK or any(side is not None and side < 0 for side in sides):
        raise ValueError(f"the input {name!r} has the shape {sides}")
    return tuple(sides)
