"""ONNX files of an older opset, for engines that do not read the exporter's: rewritten, and compared by running both.

torch's exporter and onnx's version converter do not go below opset 18. Of the operators in our networks, only those in
`lower` changed between OLDEST and DEFAULT; onnx's checker refuses a file in which another one does not fit.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, version_converter

from edgeemo.errors import GateError
from edgeemo.runtime.backends.ort import OnnxBackend

OLDEST = 13  # the first with quantization per output channel
DEFAULT = 20  # of the exporter of torch 2.14
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum")
LATER_ATTRIBUTES = {"Reshape": (14, "allowzero"), "AveragePool": (19, "dilations")}  # dropped at their default only
TOLERANCE = 1e-4  # of a logit; a HardSwish in two operators is rounded once more


def lower(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model in an older opset, OLDEST to DEFAULT, with the IR version of that time.

    Raises GateError if an operator of the model does not exist in that opset.
    """
    lowered = copy.deepcopy(model)
    graph = lowered.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [new for node in graph.node for new in _lower_node(node, opset, constants, graph)]
    del graph.node[:]
    graph.node.extend(nodes)
    _remove_unused(graph)
    for imported in lowered.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = opset
    lowered.ir_version = helper.find_min_ir_version_for(lowered.opset_import)
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise GateError(
            f"this network cannot be written with --opset {opset} ({reason}); choose a later one"
        ) from error
    return lowered


def _lower_node(
    node: NodeProto, opset: int, constants: dict[str, np.ndarray], graph: onnx.GraphProto
) -> list[NodeProto]:
    """Return the nodes that replace a node in an older opset."""
    if node.op_type in REDUCTIONS and opset < 18 and (node.op_type != "ReduceSum"):  # that one has them since 13
        return [_move_axes(node, constants)]
    if node.op_type == "HardSwish" and opset < 14:
        gate = f"{node.output[0]}_gate"
        return [
            helper.make_node("HardSigmoid", list(node.input), [gate], name=f"{node.name}_gate", alpha=1 / 6, beta=0.5),
            helper.make_node("Mul", [node.input[0], gate], list(node.output), name=node.name),
        ]
    if node.op_type == "Shape" and opset < 15 and node.attribute:
        return _select_dimensions(node, graph)
    since, name = LATER_ATTRIBUTES.get(node.op_type, (0, ""))
    if opset < since:
        kept = [one for one in node.attribute if one.name != name or not _is_default(one)]
        del node.attribute[:]
        node.attribute.extend(kept)
    return [node]


def _move_axes(node: NodeProto, constants: dict[str, np.ndarray]) -> NodeProto:
    """Return a reduction with its axes as an attribute, as before opset 18."""
    attributes = {
        one.name: helper.get_attribute_value(one) for one in node.attribute if one.name != "noop_with_empty_axes"
    }
    if len(node.input) > 1 and node.input[1] in constants:
        attributes["axes"] = [int(axis) for axis in constants[node.input[1]]]
    return helper.make_node(node.op_type, [node.input[0]], list(node.output), name=node.name, **attributes)


def _select_dimensions(node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    """Return a Shape followed by a Gather, for the part that its attributes select since opset 15."""
    bounds = {one.name: one.i for one in node.attribute}
    output, whole = node.output[0], f"{node.output[0]}_whole"
    if bounds.get("end", -1) < 0:  # depends on the rank; the checker refuses it
        return [node]
    selected = np.arange(bounds.get("start", 0), bounds["end"], dtype=np.int64)
    graph.initializer.append(numpy_helper.from_array(selected, f"{output}_selected"))
    return [
        helper.make_node("Shape", list(node.input), [whole], name=f"{node.name}_whole"),
        helper.make_node("Gather", [whole, f"{output}_selected"], [output], name=node.name),
    ]


def _is_default(attribute: onnx.AttributeProto) -> bool:
    """Return whether a later attribute has the value that stands for the older behaviour: 0, or ones."""
    return attribute.i == 0 and all(value == 1 for value in attribute.ints)


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def check_logits(file: Path, reference: onnx.ModelProto, batch: np.ndarray) -> None:
    """Raise GateError unless a file in an older opset gives the logits of its form in DEFAULT.

    reference: that form; batch: (N, C, S, S) float32.
    """
    default = file.with_name(f"{file.stem}.default{file.suffix}")
    try:
        onnx.save(reference, default)
        expected, actual = (_run(path, batch) for path in (default, file))
    finally:
        default.unlink(missing_ok=True)
    if not (gap := float(np.abs(expected - actual).max())) <= TOLERANCE:  # also true for NaN
        raise GateError(f"the older opset changes logits by {gap:.2g}; allowed: {TOLERANCE:g}.  Choose a later --opset")


def raise_to_default(file: Path) -> onnx.ModelProto:
    """Return the model of a file in DEFAULT, as onnx's version converter rewrites it."""
    return version_converter.convert_version(onnx.load(file), DEFAULT)


def _run(path: Path, batch: np.ndarray) -> np.ndarray:
    backend = OnnxBackend(path, threads=1)
    try:
        return backend.logits(batch)
    finally:
        backend.close()
