"""Mutations of models and cards, for fuzz_models.py: of bytes, of text, of protobuf messages and of JSON values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Mutation = Callable[[random.Random, bytes], bytes]


def mutate_model(rng: random.Random, model: bytes, other: bytes) -> bytes:
    """Mutate a model: half of the time its bytes, else what they mean; `other` is a donor of parts."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, model)
    if rng.random() < 0.2:
        return splice(rng, model, other)
    parsed = onnx.ModelProto.FromString(model)
    for _ in range(rng.choice((1, 1, 2, 5))):
        rng.choice(MESSAGES)(rng, parsed)
    mutated = parsed.SerializeToString()
    return mutated if mutated != model else mutate_bytes(rng, model)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, cut, remove, insert, zero or repeat bytes; the result always differs."""
    mutated = content
    while mutated == content:
        mutated = rng.choice(BYTES)(rng, content)
    return mutated


def _flip(rng: random.Random, content: bytes) -> bytes:
    """A few bits; half of the time among the first or last kilobytes, where there are more fields than weights."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        near = rng.randrange(min(4096, len(changed)))
        place = rng.choice((near, len(changed) - 1 - near, rng.randrange(len(changed)), rng.randrange(len(changed))))
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _span(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content))
    return start, min(len(content), start + rng.choice((1, 4, 64, 4096)))


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _remove(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + content[end:]


def _insert(rng: random.Random, content: bytes) -> bytes:
    start, _ = _span(rng, content)
    return content[:start] + rng.randbytes(rng.choice((1, 4, 64))) + content[start:]


def _zero(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + bytes(end - start) + content[end:]


def _repeat(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:end] + content[start:]


BYTES: tuple[Mutation, ...] = (_flip, _flip, _flip, _cut, _remove, _insert, _zero, _repeat)


def splice(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return content[: rng.randrange(1, len(content))] + other[rng.randrange(len(other) - 1) :]


SIDES = (0, -1, 1, 2, 3, 255, 1 << 16, 1 << 31, 1 << 40, -(1 << 63), (1 << 63) - 1)
OPERATORS = (
    *("Relu", "Conv", "Add", "MatMul", "Gemm", "Concat", "Reshape", "Flatten", "Transpose", "MaxPool", "Softmax"),
    *("Identity", "Mul", "Range", "Gather", "Shape", "Unsqueeze", "QuantizeLinear", "DequantizeLinear", "ReduceSum"),
    *("ConstantOfShape", "Expand", "Tile", "Loop", "If", "Scan", "Resize", "Pad", "RandomNormal", "NonExistent"),
)


def _node(rng: random.Random, model: onnx.ModelProto) -> onnx.NodeProto:
    return rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _tensor(rng: random.Random, model: onnx.ModelProto) -> onnx.TensorProto:
    return rng.choice(model.graph.initializer) if model.graph.initializer else model.graph.initializer.add()


def _change_dims(rng: random.Random, model: onnx.ModelProto) -> None:
    dims = _tensor(rng, model).dims
    if dims and rng.random() < 0.7:
        dims[rng.randrange(len(dims))] = rng.choice(SIDES)
    else:
        dims.append(rng.choice(SIDES))


def _turn_dims(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another shape for the same bytes."""
    tensor = _tensor(rng, model)
    tensor.dims[:] = rng.sample(list(tensor.dims), len(tensor.dims))


def _change_type(rng: random.Random, model: onnx.ModelProto) -> None:
    _tensor(rng, model).data_type = rng.randrange(24)


def _move_values(rng: random.Random, model: onnx.ModelProto) -> None:
    """From one field to two, or to a second file."""
    tensor = _tensor(rng, model)
    if rng.random() < 0.5:
        tensor.float_data.extend([0.0] * rng.randrange(1, 9))
        return
    tensor.data_location = rng.choice((0, 1))
    for entry in rng.sample([("location", "../weights.bin"), ("offset", "0"), ("length", "99999999999")], 2):
        tensor.external_data.add(key=entry[0], value=entry[1])


def _change_values(rng: random.Random, model: onnx.ModelProto) -> None:
    """Large, tiny or no numbers in place of weights, scales or axes."""
    tensor = _tensor(rng, model)
    try:
        values = numpy_helper.to_array(tensor).copy()
        values.ravel()[rng.randrange(values.size)] = rng.choice((0, 1, -1, 127, 1e30, np.nan, np.inf))
    except (ValueError, OverflowError, TypeError):
        return
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _change_operator(rng: random.Random, model: onnx.ModelProto) -> None:
    _node(rng, model).op_type = rng.choice(OPERATORS)


def _change_domain(rng: random.Random, model: onnx.ModelProto) -> None:
    _node(rng, model).domain = rng.choice(("com.microsoft", "ai.onnx.ml", "mine", "ai.onnx"))


def _change_attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    node = _node(rng, model)
    if not node.attribute or rng.random() < 0.2:
        name = rng.choice(("pads", "strides", "dilations", "group", "axis", "axes", "perm", "kernel_shape", "keepdims"))
        node.attribute.append(helper.make_attribute(name, rng.choice(([1 << 30] * 4, 1 << 40, [-1, 0]))))
        return
    attribute = rng.choice(node.attribute)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIDES)
    else:
        attribute.i = rng.choice(SIDES)


def _swap_names(rng: random.Random, model: onnx.ModelProto) -> None:
    """Connect a node to the input or output of another one."""
    one, other = _node(rng, model), _node(rng, model)
    names = [*other.input, *other.output, ""]
    places = one.input if rng.random() < 0.7 or not one.output else one.output
    if places:
        places[rng.randrange(len(places))] = rng.choice(names)


def _swap_nodes(rng: random.Random, model: onnx.ModelProto) -> None:
    """Remove a node, repeat one, or change the order."""
    nodes = list(model.graph.node)
    taken = nodes.pop(rng.randrange(len(nodes))) if nodes else helper.make_node("Relu", ["x"], ["y"])
    for _ in range(rng.randrange(3)):
        nodes.insert(rng.randrange(len(nodes) + 1), taken)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _remove_tensor(rng: random.Random, model: onnx.ModelProto) -> None:
    if model.graph.initializer:
        del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def _change_interface(rng: random.Random, model: onnx.ModelProto) -> None:
    """Sides or type of an input or output, or the operator set."""
    value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    sides = value.type.tensor_type.shape.dim
    if rng.random() < 0.2:
        model.opset_import[0].version = rng.choice((1, 7, 13, 99))
    elif rng.random() < 0.3 or not sides:
        value.type.tensor_type.elem_type = rng.randrange(20)
    else:
        sides[rng.randrange(len(sides))].dim_value = rng.choice(SIDES)


MESSAGES: tuple[Callable[[random.Random, onnx.ModelProto], None], ...] = (
    *(_change_dims, _turn_dims, _change_type, _move_values, _change_values, _change_operator, _change_domain),
    *(_change_attribute, _swap_names, _swap_nodes, _remove_tensor, _change_interface),
)

VALUES = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-308, 1e308, 10**30, -(10**400), 2**53 + 1),
    *(
        "",
        "x",
        "x" * 5000,
        "\n",
        "\x00",
        "é",
        "\ud800",
        "six",
        "gray",
        "rgb",
        "int8",
        [],
        {},
        [[]],
        ["a", "a"],
        [1] * 500,
    ),
)


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """Change one to five values of a JSON object: replace, remove, rename, repeat, swap or reverse."""
    raw = json.loads(content)
    before = json.dumps(raw)
    while json.dumps(raw) == before:
        for _ in range(rng.choice((1, 1, 2, 5))):
            _change_value(rng, raw)
    return json.dumps(raw).encode()


def _change_value(rng: random.Random, raw: Any) -> None:
    holders = [raw, *(one for one in _iterate(raw) if isinstance(one, (dict, list)) and one)]
    holder = raw if rng.random() < 0.3 else rng.choice(holders)
    keys: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return
    key, other = rng.choice(keys), rng.choice(keys)
    action = rng.randrange(6)
    if action == 0:
        del holder[key]
    elif action == 1:
        holder[key], holder[other] = holder[other], holder[key]
    elif action == 2 and isinstance(holder[key], list):
        holder[key] = holder[key][::-1]
    elif action == 3 and isinstance(holder, dict):
        holder[rng.choice(("", "more", "labels", "seal", "format", "input"))] = holder[key]
    elif action == 4 and type(holder[key]) in (int, float):
        holder[key] *= rng.choice((-1, 2, 1000, 1e-9))
    else:
        holder[key] = rng.choice(VALUES)


def _iterate(raw: Any) -> list[Any]:
    """Return all values inside a JSON value."""
    inner = list(raw.values()) if isinstance(raw, dict) else raw if isinstance(raw, list) else []
    return [value for one in inner for value in (one, *_iterate(one))]


def mutate_text(rng: random.Random, content: bytes) -> bytes:
    """Insert what JSON or its readers may stumble over, at a place where a value or a key stands."""
    text = content.decode()
    places = [k for k, letter in enumerate(text) if letter in "{[:,"]
    place = rng.choice(places) + 1
    return (text[:place] + rng.choice(TEXTS) + text[place:]).encode()


TEXTS = (
    *(
        '"format": 2,',
        '"labels": ["a", "b"],',
        "NaN,",
        "Infinity,",
        "-",
        "1" * 5000,
        "[" * 20_000,
        "\ufeff",
        " ",
        "\n\t",
    ),
    *('"seal": "",', '"seal": null,', "/* */", "\\u0000", "true,", "{}", "1e999999,", '"x": {"y": 1, "y": 2},'),
)
