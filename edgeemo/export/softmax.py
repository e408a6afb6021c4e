"""A form of an .onnx model that returns probabilities: adaptation, temperature and softmax become nodes of the graph.

For hosts that take what a model returns for probabilities. The file is edited as a protobuf message, because the base
install has no onnx: all fields are copied as they are, the graph's output is replaced, and two nodes are added.
Field numbers: onnx.proto3 of ONNX 1.23; encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.errors import IntegrityError
from edgeemo.runtime.onnx_check import check_file

OUTPUT = "probabilities"
SCALED = "edgeemo/scaled_logits"
FLOAT = 1  # TensorProto.FLOAT
GRAPH, NODE, INITIALIZER, GRAPH_OUTPUT = 7, 1, 5, 12  # of ModelProto, and of its GraphProto


def write_probabilities(model: Path, card: Card, out: Path) -> None:
    """Write `model`, an .onnx file that `check_file` accepts, to `out` with (N, K) float32 probabilities as its output.

    They are those of Model.probabilities without a prior, in 32-bit instead of 64-bit floats. Raises IntegrityError for
    a file without exactly one output, or that uses the name of the new one.
    """
    fields = list(_split(model.read_bytes()))
    changed = [
        _field(GRAPH, _edit(_content(field), card, model)) if number == GRAPH else field for number, field in fields
    ]
    out.write_bytes(b"".join(changed))
    check_file(out)


def _edit(graph: bytes, card: Card, model: Path) -> bytes:
    """Return a GraphProto with other nodes at its end and another output."""
    fields = list(_split(graph))
    outputs = [_content(field) for number, field in fields if number == GRAPH_OUTPUT]
    if len(outputs) != 1:
        raise IntegrityError(f"{model} has {len(outputs)} outputs; expected one, its logits")
    (name,) = (_content(field).decode() for number, field in _split(outputs[0]) if number == 1)
    kept = [field for number, field in fields if number != GRAPH_OUTPUT]
    nodes, tensors = _scale(name, card)
    nodes.append(_node("Softmax", [SCALED], OUTPUT))
    added = [_field(NODE, node) for node in nodes] + [_field(INITIALIZER, tensor) for tensor in tensors]
    return b"".join([*kept, *added, _field(GRAPH_OUTPUT, _describe(OUTPUT, len(card.labels)))])


def _scale(logits: str, card: Card) -> tuple[list[bytes], list[bytes]]:
    """Return the node that adapts logits and divides them by the temperature, and its constants."""
    if card.adaptation is None:
        temperature = np.array(card.temperature, np.float32)
        name = "edgeemo/temperature"
        return [_node("Div", [logits, name], SCALED)], [_tensor(name, temperature)]
    matrix = (np.array(card.adaptation.matrix) / card.temperature).T.astype(np.float32)
    bias = (np.array(card.adaptation.bias) / card.temperature).astype(np.float32)
    names = ["edgeemo/adaptation_matrix", "edgeemo/adaptation_bias"]
    tensors = [_tensor(name, values) for name, values in zip(names, (matrix, bias), strict=True)]
    return [_node("Gemm", [logits, *names], SCALED)], tensors


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    """Return a NodeProto; Softmax without attributes works along the last axis of (N, K) in every operator set."""
    parts = [(1, name) for name in inputs] + [(2, output), (3, f"edgeemo/{operator}"), (4, operator)]
    return b"".join(_field(number, text.encode()) for number, text in parts)


def _tensor(name: str, values: np.ndarray) -> bytes:
    """Return a TensorProto of float32."""
    dims = b"".join(_varint(side) for side in values.shape)
    packed = _field(1, dims) if dims else b""
    return packed + _number(2, FLOAT) + _field(8, name.encode()) + _field(9, values.astype("<f4").tobytes())


def _describe(name: str, labels: int) -> bytes:
    """Return the ValueInfoProto of (batch, labels) float32."""
    shape = _field(1, _field(2, b"batch")) + _field(1, _number(1, labels))
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, FLOAT) + _field(2, shape)))


def _split(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields of a well-formed message without groups: number, and its bytes with tag and length."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _read_varint(message, at)
        elif wire_type == 2:
            size, at = _read_varint(message, at)
            at += size
        else:
            at += {1: 8, 5: 4}[wire_type]
        yield tag >> 3, message[start:at]


def _content(field: bytes) -> bytes:
    """Return the content of a delimited field."""
    _, at = _read_varint(field, 0)
    _, at = _read_varint(field, at)
    return field[at:]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content
