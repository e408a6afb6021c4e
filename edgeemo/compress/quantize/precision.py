"""Precision truth: how much of the arithmetic really runs in integers, whatever the file claims.

A Q/DQ file is a wish. The engine grants it by fusing the nodes around a convolution into an integer kernel; where it
cannot, it computes in float and the model is slower than before. So one face is run under the profiler, and the
multiply-adds of every kernel that ran are counted.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgeemo.card import Precision
from edgeemo.errors import GateError
from edgeemo.runtime.backends.ort import DISABLED

# Operators that multiply and add, and which of their inputs holds the weights.
WEIGHTS_AT = {
    "Conv": 1,
    "FusedConv": 1,
    "NhwcFusedConv": 1,
    "ConvInteger": 1,
    "Gemm": 1,
    "FusedGemm": 1,
    "MatMul": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
}
INTEGERS = ("int8", "uint8")


@dataclass(frozen=True)
class Kernel:
    """One operator with weights, as it ran on one face."""

    operator: str
    macs: int  # multiply-adds
    integer: bool


def count_integer_share(path: Path, *, target_format: str) -> Precision:
    """What the card says of an INT8 file: share of the multiply-adds in integers, operators, and who counted.

    `cpu`: kernels that ran here, under ONNX Runtime's full optimisation. `tensorrt`: what the file asks for, since
    only the engine of a target can tell more.
    """
    found = list_executed(path) if target_format == "cpu" else list_requested(path)
    total = sum(kernel.macs for kernel in found)
    share = sum(kernel.macs for kernel in found if kernel.integer) / total
    by = "executed by" if target_format == "cpu" else "asked of the engine; read by"
    return Precision(
        int8_share_of_macs=round(share, 4),
        macs=total,
        operators=dict(Counter(kernel.operator for kernel in found)),
        counted_by=f"{by} onnxruntime {onnxruntime.__version__}",
    )


def check(found: Precision, *, least: float) -> None:
    """GateError if less than the share `least` of the multiply-adds is in integers."""
    share = found.int8_share_of_macs or 0.0
    if share < least:
        raise GateError(
            f"only {100 * share:.1f} % of the multiply-adds are in integers ({found.counted_by}: "
            f"{found.operators}), expected {100 * least:g} %; the model would be slow, not small and fast. "
            f"Choose another --target-format, keep fewer layers in float, or accept it with --min-int8-share"
        )


def list_executed(path: Path) -> list[Kernel]:
    """The kernels with weights that ONNX Runtime runs; integer if what flows in has 8 bits."""
    graph, profile = _run(path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return [
        Kernel(node.op_type, _macs(node, graph, profile[node.name]), _input_type(profile[node.name]) in INTEGERS)
        for node in graph.node
        if node.op_type in WEIGHTS_AT
    ]


def list_requested(path: Path) -> list[Kernel]:
    """The operators with weights as they stand in the file; integer if data and weights both come dequantized."""
    graph, profile = _run(path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [
        Kernel(node.op_type, _macs(node, graph, profile[node.name]), set(node.input[:2]) <= dequantized)
        for node in graph.node
        if node.op_type in WEIGHTS_AT
    ]


def _run(path: Path, level: onnxruntime.GraphOptimizationLevel) -> tuple[onnx.GraphProto, dict[str, Any]]:
    """The graph that ONNX Runtime makes of the file, and what its profiler saw of every node on one face."""
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(optimised)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 3  # a warning says that an optimised file fits this machine only, as it should
        # Its blocked layout pads float weights, which would count multiply-adds that nobody asked for.
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer", *DISABLED]
        )
        face = session.get_inputs()[0]
        session.run(None, {face.name: np.zeros((1, *face.shape[1:]), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return onnx.load(optimised).graph, _kernels(events)


def _kernels(events: list[dict[str, Any]]) -> dict[str, Any]:
    suffix = "_kernel_time"
    ran = (event for event in events if event.get("cat") == "Node" and event["name"].endswith(suffix))
    return {event["name"].removesuffix(suffix): event["args"] for event in ran}


def _macs(node: onnx.NodeProto, graph: onnx.GraphProto, seen: dict[str, Any]) -> int:
    """Multiply-adds of one run: every weight is used once per output position."""
    weights = _weight_shape(node.input[WEIGHTS_AT[node.op_type]], graph)
    output = _shape(seen["output_type_shape"])
    # A convolution's first weight axis is its output channels, whatever the layout of its output.
    channels = weights[0] if "Conv" in node.op_type else output[-1]
    return prod(output) // channels * prod(weights)


def _weight_shape(name: str, graph: onnx.GraphProto) -> tuple[int, ...]:
    """Shape of an initialiser, looked up through the DequantizeLinear that may stand before it."""
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return shapes[sources.get(name, name)]


def _input_type(seen: dict[str, Any]) -> str:
    return str(next(iter(seen["input_type_shape"][0])))


def _shape(described: list[dict[str, list[int]]]) -> list[int]:
    return next(iter(described[0].values()))
