"""Weights that could saturate an x86 kernel are found in any ONNX file, whatever tool wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeemo.card import Overflow, read_card
from edgeemo.compress.quantize.overflow import MAX_SAFE_WEIGHT, check_weights
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import observe, predict_onnx
from edgeemo.data import Faces
from edgeemo.metrics import divergence


def one_layer(weights: np.ndarray | None, *, data: int = TensorProto.UINT8) -> onnx.ModelProto:
    """A QLinearMatMul with these weights; None: with weights as a second input."""
    constants = {"one": np.float32(1), "zero": np.zeros((), np.uint8 if data == TensorProto.UINT8 else np.int8)}
    inputs = [helper.make_tensor_value_info("data", data, [1, 4])]
    if weights is None:
        inputs.append(helper.make_tensor_value_info("weights", TensorProto.INT8, [4, 2]))
    else:
        constants["weights"] = weights
    constants["zero_weight"] = np.zeros((), np.int8 if weights is None else weights.dtype)
    order = ["data", "one", "zero", "weights", "one", "zero_weight", "one", "zero"]
    graph = helper.make_graph(
        [helper.make_node("QLinearMatMul", order, ["sum"])],
        "layer",
        inputs,
        [helper.make_tensor_value_info("sum", data, [1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check(model: onnx.ModelProto, folder: Path) -> Overflow:
    onnx.save(model, folder / "layer.onnx")
    return check_weights(folder / "layer.onnx")


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
@pytest.mark.parametrize(("reduce_range", "largest"), [(True, 64), (False, 127)])
def test_limited_weights_are_safe_and_full_range_is_not(
    target_format: str, reduce_range: bool, largest: int, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """In both formats."""
    ranges = observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format=target_format, reduce_range=reduce_range)
    result = check_weights(tmp_path / "int8.onnx")
    assert (result.safe, result.largest_weight) == (reduce_range, largest)
    assert bool(result.unsafe) != reduce_range


def test_the_limit_costs_little(float_model: Path, calibration_faces: Faces, tmp_path: Path) -> None:
    """With seven bits instead of eight, the divergence from float stays below 0.01 nats."""
    card = read_card(float_model)
    ranges = observe(float_model, calibration_faces, card.input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    exact, limited = (
        predict_onnx(path, calibration_faces, card.input, threads=1) for path in (float_model, tmp_path / "int8.onnx")
    )
    assert divergence(exact, limited) < 0.01


def test_a_float_file_cannot_saturate(float_model: Path) -> None:
    """No int8 weights, so no largest one."""
    assert check_weights(float_model) == Overflow(safe=True)


@pytest.mark.parametrize(("largest", "safe"), [(MAX_SAFE_WEIGHT, True), (MAX_SAFE_WEIGHT + 1, False)])
def test_the_bound_is_tight(largest: int, safe: bool, tmp_path: Path) -> None:
    """Two products of 255 and 64 fit in 16 bits, two of 255 and 65 do not; the sign does not matter."""
    assert (2 * 255 * largest < 2**15) == safe
    weights = np.zeros((4, 2), np.int8)
    weights[1, 1] = -largest
    result = check(one_layer(weights), tmp_path)
    assert (result.safe, result.largest_weight) == (safe, largest)


def test_integer_operators_are_checked_too(tmp_path: Path) -> None:
    """Other exporters write QLinear operators instead of Q/DQ pairs."""
    result = check(one_layer(np.full((4, 2), 127, np.int8)), tmp_path)
    assert (result.safe, result.unsafe) == (False, ("weights",))


def test_unsigned_weights_are_safe(tmp_path: Path) -> None:
    """x86 multiplies uint8 by uint8 in 32 bits."""
    assert check(one_layer(np.full((4, 2), 255, np.uint8)), tmp_path).safe


def test_weights_that_are_not_constant_are_unsafe(tmp_path: Path) -> None:
    """Their values are only known when the model runs."""
    assert not check(one_layer(None), tmp_path).safe


def qdq_layer(*, between: str = "", as_node: bool = False, inner: bool = False) -> onnx.ModelProto:
    """A MatMul of dequantized data and weights of 127, in a form that other exporters may write."""
    weights = np.full((4, 4), 127, np.int8)
    stored = {"scale": np.float32(1), "zero": np.uint8(0), "zero_weight": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["data"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "zero_weight"], ["w"]),
        helper.make_node(between or "Identity", ["w"], ["moved"]),
        helper.make_node("MatMul", ["data", "moved"], ["y"]),
    ]
    if as_node:
        nodes.insert(0, helper.make_node("Constant", [], ["weights"], value=numpy_helper.from_array(weights)))
    else:
        stored["weights"] = weights
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, [1, 4])], [value("y", TensorProto.FLOAT, [1, 4])]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, tensors)
    if inner:
        branch = helper.make_graph(nodes, "branch", [], outputs, tensors)
        choice = [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)]
        flag = [numpy_helper.from_array(np.asarray(True), "flag")]
        graph = helper.make_graph(choice, "outer", inputs, outputs, flag)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "shape", [{}, {"between": "Transpose"}, {"as_node": True}, {"inner": True}], ids=["plain", "moved", "node", "inner"]
)
def test_large_weights_are_found_anywhere_in_the_graph(shape: dict, tmp_path: Path) -> None:
    """Behind a Transpose that an optimiser would move, in a Constant node, and inside control flow."""
    model = qdq_layer(**shape)
    onnx.checker.check_model(model)
    result = check(model, tmp_path)
    assert (result.safe, result.largest_weight) == (False, 127)


@pytest.mark.parametrize(("zero_point", "safe"), [(np.int8(0), False), (np.uint8(0), True)])
def test_a_product_of_two_activations_is_safe_if_both_are_unsigned(
    zero_point: np.generic, safe: bool, tmp_path: Path
) -> None:
    """As in attention: there are no weights, and an int8 right-hand side may have any value."""
    stored = {"scale": np.float32(1), "zero": zero_point}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["data"]),
        helper.make_node("MatMul", ["data", "data"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in stored.items()]
    inputs, outputs = [value("x", TensorProto.FLOAT, [4, 4])], [value("y", TensorProto.FLOAT, [4, 4])]
    graph = helper.make_graph(nodes, "attention", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert check(model, tmp_path).safe == safe


def computed_layer(source: str, *, moved: bool = False, data: type = np.int8) -> onnx.ModelProto:
    """A MatMul whose 8-bit weights the graph computes from constants, in one of the forms that exporters write."""
    stored = {"scale": np.float32(1), "zero": np.uint8(0), "zero_weight": data(0), "exact": np.full((4, 4), 90.0, "f4")}
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, [1, 4])], [value("y", TensorProto.FLOAT, [1, 4])]
    producers = {
        "quantized": [helper.make_node("QuantizeLinear", ["exact", "scale", "zero_weight"], ["weights"])],
        "cast": [helper.make_node("Cast", ["exact"], ["weights"], to=helper.np_dtype_to_tensor_dtype(np.dtype(data)))],
        "input": [],
    }[source]
    if source == "input":
        stored["weights"] = np.full((4, 4), 1, np.int8)
        inputs.append(value("weights", TensorProto.INT8, [4, 4]))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["data"]),
        *producers,
        helper.make_node("Transpose" if moved else "Identity", ["weights"], ["placed"]),
        helper.make_node("DequantizeLinear", ["placed", "scale", "zero_weight"], ["w"]),
        helper.make_node("Identity", ["w"], ["moved"]),
        helper.make_node("MatMul", ["data", "moved"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in stored.items()]
    graph = helper.make_graph(nodes, "computed", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("source", ["quantized", "cast", "input"])
def test_computed_weights_are_unsafe(source: str, moved: bool, tmp_path: Path) -> None:
    """Quantized or cast from a constant at load time, or an input whose default value a caller may replace."""
    model = computed_layer(source, moved=moved)
    onnx.checker.check_model(model)
    assert not check(model, tmp_path).safe


@pytest.mark.parametrize("source", ["quantized", "cast"])
def test_computed_unsigned_weights_are_safe(source: str, tmp_path: Path) -> None:
    """The same as uint8."""
    assert check(computed_layer(source, data=np.uint8), tmp_path).safe
