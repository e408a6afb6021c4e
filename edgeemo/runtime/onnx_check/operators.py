"""The operators that a file may have, each with the shape that it gives and its number of multiply-adds.

None makes a large tensor from a small constant (ConstantOfShape, Expand, Tile, Resize, Pad, …), draws numbers, holds a
graph or calls a function. Range, in which the exporter numbers the faces of a batch, needs a limit that is known.
Shapes follow the ONNX specification: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from edgeemo.runtime.onnx_check.graph import MAX_RANK, MAX_VALUES, Node, Shape, Tensor


@dataclass(frozen=True)
class Cost:
    """What a node makes: a tensor of this shape, after `macs` multiply-adds, with `buffer` elements beside it.

    values: those of a short list of whole numbers that decides a shape, where they are known.
    """

    shape: Shape
    macs: int = 0
    buffer: int = 0
    values: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Inputs:
    """The inputs of a node: the shape of each, None for one that is left out, and the values that are known."""

    shapes: list[Shape | None]
    known: list[tuple[int, ...] | None]

    def shape(self, index: int) -> Shape:
        """Return the shape of an input that must be there; ValueError if it is not."""
        shape = self.shapes[index] if index < len(self.shapes) else None
        if shape is None:
            raise ValueError(f"it has no input {index}")
        return shape

    def values(self, index: int) -> tuple[int, ...] | None:
        """Return the values of an input that decides a shape, None if it is left out; ValueError if unknown."""
        if index >= len(self.shapes) or self.shapes[index] is None:
            return None
        values = self.known[index]
        if values is None:
            raise ValueError(f"its input {index} decides a shape and is neither a short constant nor a side of a shape")
        return values


Rule = Callable[[Node, Inputs], Cost]


def _require(holds: object, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _keep(_: Node, inputs: Inputs) -> Cost:
    return Cost(inputs.shape(0), values=inputs.known[0])


def _broadcast(_: Node, inputs: Inputs) -> Cost:
    return Cost(_broadcast_shapes([inputs.shape(k) for k in range(len(inputs.shapes))]))


def _broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes), default=0)
    sides = list(zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True))
    widest = tuple(next((side for side in column if side != 1), 1) for column in sides)
    fits = all(side in (1, wide) for column, wide in zip(sides, widest, strict=True) for side in column)
    _require(fits, f"its inputs have the shapes {shapes}, which do not broadcast")
    return widest


def _constant(node: Node, _: Inputs) -> Cost:
    value = node.attributes.get("value")
    if len(node.attributes) == 1 and isinstance(value, Tensor):
        return Cost(value.dims, values=value.values)
    _require([*node.attributes] == ["value_float"], "its value is not a tensor")
    return Cost(())


def _shape(node: Node, inputs: Inputs) -> Cost:
    data = inputs.shape(0)
    sides = data[_get_int(node, "start", 0) : _get_int(node, "end", len(data))]
    return Cost((len(sides),), values=sides)


def _range(_: Node, inputs: Inputs) -> Cost:
    ends = [inputs.values(k) for k in range(3)]
    _require(all(end is not None and len(end) == 1 for end in ends), "it is not a range from one number to another")
    start, limit, step = (end[0] for end in ends if end)
    _require(step, "its step is 0")
    return Cost((max(0, -(-(limit - start) // step)),))


def _gather(node: Node, inputs: Inputs) -> Cost:
    data, indices, known = inputs.shape(0), inputs.shape(1), inputs.known
    (axis,) = _find_axes([_get_int(node, "axis", 0)], len(data))
    shape = (*data[:axis], *indices, *data[axis + 1 :])
    if known[0] is None or known[1] is None or len(data) != 1:
        return Cost(shape)
    count = len(known[0])
    _require(all(-count <= index < count for index in known[1]), f"it takes {known[1]} of {count} values")
    return Cost(shape, values=tuple(known[0][index] for index in known[1]))


def _quantize(node: Node, inputs: Inputs) -> Cost:
    """QuantizeLinear or DequantizeLinear: one scale, or one for each index of an axis."""
    data, scale = inputs.shape(0), inputs.shape(1)
    if prod(scale) != 1:
        (axis,) = _find_axes([_get_int(node, "axis", 1)], len(data))
        _require(scale == (data[axis],), f"{scale} scales do not fit axis {axis} of {data}")
    return Cost(data)


def _conv(node: Node, inputs: Inputs, *, weights_at: int = 1, bias_at: int = 2) -> Cost:
    data, weights = inputs.shape(0), inputs.shape(weights_at)
    groups, kernel = _get_int(node, "group", 1), tuple(_get_ints(node, "kernel_shape", []))
    bias = inputs.shapes[bias_at] if bias_at < len(inputs.shapes) else None
    _require(bias in (None, weights[:1]), f"its bias has the shape {bias}, its weights {weights}")
    _require(kernel in ((), weights[2:]), f"its kernel is {kernel}, its weights have the shape {weights}")
    fits = len(data) == len(weights) > 2 and groups > 0 and data[1] == weights[1] * groups
    _require(fits and weights[0] % groups == 0, f"weights of shape {weights} do not fit an input of shape {data}")
    spatial = _slide(node, data[2:], weights[2:])
    shape = (data[0], weights[0], *spatial)
    return Cost(shape, prod(shape) * prod(weights[1:]), buffer=prod(spatial) * prod(weights[1:]) * groups)


def _pool(node: Node, inputs: Inputs) -> Cost:
    data, kernel = inputs.shape(0), tuple(_get_ints(node, "kernel_shape", []))
    _require(len(data) > 2 and all(side > 0 for side in kernel), f"its kernel is {kernel}")
    shape = (*data[:2], *_slide(node, data[2:], kernel))
    return Cost(shape, prod(shape) * prod(kernel))


def _slide(node: Node, sides: Shape, kernel: Shape) -> Shape:
    """Return the output sides of a window that slides over the input."""
    rank, same = len(sides), node.attributes.get("auto_pad") in ("SAME_UPPER", "SAME_LOWER")
    strides, dilations = (_get_ints(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = _get_ints(node, "pads", [0] * 2 * rank)
    sizes = (len(kernel), len(strides), len(dilations), len(pads))
    _require(sizes == (rank, rank, rank, 2 * rank), f"its window has {sizes} sides for {rank} of the input")
    _require(min((*strides, *dilations), default=1) > 0 and min(pads, default=0) >= 0, "its window moves backwards")
    found = []
    for k in range(rank):
        reach = (kernel[k] - 1) * dilations[k] + 1
        free = sides[k] - 1 if same else sides[k] + pads[k] + pads[k + rank] - reach
        _require(free >= 0, f"its window of {reach} does not fit an input of {sides[k]}")
        found.append(-(-free // strides[k]) + 1 if _get_int(node, "ceil_mode", 0) else free // strides[k] + 1)
    return tuple(found)


def _pool_all(_: Node, inputs: Inputs) -> Cost:
    data = inputs.shape(0)
    return Cost((*data[:2], *(1 for _ in data[2:])))


def _reduce(node: Node, inputs: Inputs) -> Cost:
    data, axes = inputs.shape(0), _get_axes(node, inputs)
    if axes is None and _get_int(node, "noop_with_empty_axes", 0):
        return Cost(data)
    gone = set(range(len(data))) if axes is None else _find_axes(axes, len(data))
    keep = _get_int(node, "keepdims", 1)
    return Cost(tuple(1 if k in gone else side for k, side in enumerate(data) if keep or k not in gone))


def _gemm(node: Node, inputs: Inputs) -> Cost:
    left, right = inputs.shape(0), inputs.shape(1)
    _require(len(left) == len(right) == 2, f"its inputs have the shapes {left} and {right}; expected two sides each")
    rows, inner = left[::-1] if _get_int(node, "transA", 0) else left
    inner_too, columns = right[::-1] if _get_int(node, "transB", 0) else right
    _require(inner == inner_too, f"its inputs have {inner} and {inner_too} columns and rows to multiply")
    return Cost((rows, columns), rows * inner * columns)


def _matmul(_: Node, inputs: Inputs, *, right_at: int = 1) -> Cost:
    left, right = inputs.shape(0), inputs.shape(right_at)
    fits = len(left) > 1 and len(right) > 1 and left[-1] == right[-2]
    _require(fits, f"its inputs have the shapes {left} and {right}")
    shape = (*_broadcast_shapes([left[:-2], right[:-2]]), left[-2], right[-1])
    return Cost(shape, prod(shape) * left[-1])


def _flatten(node: Node, inputs: Inputs) -> Cost:
    data, axis = inputs.shape(0), _get_int(node, "axis", 1)
    _require(-len(data) <= axis <= len(data), f"its axis {axis} is not one of {len(data)}")
    return Cost((prod(data[:axis]), prod(data[axis:])))


def _reshape(node: Node, inputs: Inputs) -> Cost:
    data, target = inputs.shape(0), inputs.values(1)
    _require(target is not None and len(target) <= MAX_RANK, f"its new shape is {target}")
    kept = not _get_int(node, "allowzero", 0)
    sides = [data[k] if side == 0 and kept and k < len(data) else side for k, side in enumerate(target or ())]
    if sides.count(-1) == 1:
        known = prod(side for side in sides if side != -1)
        sides[sides.index(-1)] = prod(data) // known if known > 0 else 0
    _require(min(sides, default=0) >= 0 and prod(sides) == prod(data), f"{target} is not a shape for {data}")
    return Cost(tuple(sides), values=inputs.known[0])


def _transpose(node: Node, inputs: Inputs) -> Cost:
    data = inputs.shape(0)
    order = _get_ints(node, "perm", list(range(len(data)))[::-1])
    _require(sorted(order) == list(range(len(data))), f"its order {order} is not one of {len(data)} axes")
    return Cost(tuple(data[k] for k in order))


def _concat(node: Node, inputs: Inputs) -> Cost:
    shapes = [inputs.shape(k) for k in range(len(inputs.shapes))]
    first = inputs.shape(0)
    (axis,) = _find_axes([_get_int(node, "axis", 0)], len(first))
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    _require(len(others) == 1 and all(len(shape) == len(first) for shape in shapes), f"{shapes} do not join")
    parts = [values for values in inputs.known if values is not None]
    joined = tuple(value for part in parts for value in part)
    known = len(parts) == len(shapes) and len(joined) <= MAX_VALUES
    shape = (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])
    return Cost(shape, values=joined if known and len(first) == 1 else None)


def _squeeze(node: Node, inputs: Inputs) -> Cost:
    data, axes = inputs.shape(0), _get_axes(node, inputs)
    gone = {k for k, side in enumerate(data) if side == 1} if axes is None else _find_axes(axes, len(data))
    _require(all(data[k] == 1 for k in gone), f"it removes the axes {axes} of {data}")
    return Cost(tuple(side for k, side in enumerate(data) if k not in gone), values=inputs.known[0])


def _unsqueeze(node: Node, inputs: Inputs) -> Cost:
    data, axes = inputs.shape(0), _get_axes(node, inputs) or ()
    rank = len(data) + len(axes)
    _require(rank <= MAX_RANK, f"its output has {rank} axes")
    new, rest = _find_axes(axes, rank), iter(data)
    _require(len(new) == len(axes), f"it adds the axes {axes}")
    return Cost(tuple(1 if k in new else next(rest) for k in range(rank)), values=inputs.known[0])


def _get_axes(node: Node, inputs: Inputs) -> Sequence[int] | None:
    """Return the axes of a node, which older operator sets have as an attribute; None if it names none."""
    return inputs.values(1) or _get_ints(node, "axes", []) or None


def _find_axes(axes: Sequence[int], rank: int) -> set[int]:
    _require(all(-rank <= axis < rank for axis in axes), f"its axes {list(axes)} are not among {rank}")
    return {axis % rank for axis in axes}


def _get_int(node: Node, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    _require(isinstance(value, int), f"its {name} is not a whole number")
    return int(value)


def _get_ints(node: Node, name: str, default: list[int]) -> list[int]:
    value = node.attributes.get(name) or default
    _require(isinstance(value, list), f"its {name} is not a list of whole numbers")
    return list(value)


SAME_SHAPE = (
    *("Abs", "BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "LogSoftmax", "Mish", "Neg", "PRelu"),
    *("Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt", "Tanh"),
)
OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(SAME_SHAPE, _keep),
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"), _broadcast),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _quantize),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _pool_all),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "QLinearConv": lambda node, inputs: _conv(node, inputs, weights_at=3, bias_at=8),
    "QLinearMatMul": lambda node, inputs: _matmul(node, inputs, right_at=3),
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
