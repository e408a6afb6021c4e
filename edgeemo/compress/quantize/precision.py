"""Actual precision: the share of the multiply-adds that is executed in integers.

Q/DQ nodes only request INT8: the engine fuses those around a convolution into an integer kernel, or, where it cannot,
computes in float, slower than before. So one face is run under the profiler, and the multiply-adds of all executed
kernels are counted.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgeemo.artifact import temporary_folder
from edgeemo.card import Precision
from edgeemo.compress.quantize.overflow import WEIGHT_INPUT
from edgeemo.errors import GateError
from edgeemo.runtime.backends.ort import DISABLED

# Operators that multiply and add, and the index of the input that holds the weights: those of files, and ONNX Runtime's
# fused ones. The products of ConvTranspose, which no network here has, would have to be counted in another way.
FUSED = ("FusedConv", "NhwcFusedConv", "FusedGemm", "FusedMatMul")
COUNTED = {name: index for name, index in WEIGHT_INPUT.items() if name != "ConvTranspose"} | dict.fromkeys(FUSED, 1)
INTEGER_TYPES = ("int8", "uint8")


@dataclass(frozen=True)
class Kernel:
    """One operator with weights, as executed on one face."""

    operator: str
    macs: int  # multiply-adds
    integer: bool


def count_integer_share(path: Path, *, target_format: str) -> Precision:
    """Count the share of multiply-adds in integers; return the section for the card of an INT8 file.

    `cpu`: the kernels executed here, with all of ONNX Runtime's optimisations. `tensorrt`: what the file requests,
    since the precision that TensorRT chooses is only known on the target.
    """
    kernels = list_executed(path) if target_format == "cpu" else list_requested(path)
    total = sum(kernel.macs for kernel in kernels)
    share = sum(kernel.macs for kernel in kernels if kernel.integer) / total
    by = "executed by" if target_format == "cpu" else "requested of the engine; read by"
    return Precision(
        int8_share_of_macs=round(share, 4),
        macs=total,
        operators=dict(Counter(kernel.operator for kernel in kernels)),
        counted_by=f"{by} onnxruntime {onnxruntime.__version__}",
    )


def check_integer_share(section: Precision, *, least: float) -> None:
    """Raise GateError if less than the share `least` of the multiply-adds is in integers."""
    share = section.int8_share_of_macs or 0.0
    if share < least:
        raise GateError(
            f"only {100 * share:.1f} % of the multiply-adds are in integers ({section.counted_by}: "
            f"{section.operators}), expected {100 * least:g} %; the model would be slow. "
            f"Choose another --target-format, keep fewer layers in float, or accept it with --min-int8-share"
        )


def list_executed(path: Path) -> list[Kernel]:
    """List the kernels with weights that ONNX Runtime executes; integer if their input has 8 bits."""
    graph, profile = _profile(path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return [
        Kernel(
            node.op_type,
            _count_macs(node, graph, profile[node.name]),
            _read_input_type(profile[node.name]) in INTEGER_TYPES,
        )
        for node in graph.node
        if node.op_type in COUNTED
    ]


def list_requested(path: Path) -> list[Kernel]:
    """List the operators with weights in the file; integer if data and weights are both dequantized from integers."""
    graph, profile = _profile(path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [
        Kernel(node.op_type, _count_macs(node, graph, profile[node.name]), set(node.input[:2]) <= dequantized)
        for node in graph.node
        if node.op_type in COUNTED
    ]


def _profile(path: Path, level: onnxruntime.GraphOptimizationLevel) -> tuple[onnx.GraphProto, dict[str, Any]]:
    """Run one face; return ONNX Runtime's graph of the file and its profiler's record of every node, by name."""
    with temporary_folder(room=2 * path.stat().st_size) as folder:
        optimised = folder / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(optimised)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.log_severity_level = 3  # it warns that the optimised file is for this machine only
        # Its blocked layout pads float weights, which would inflate the count of multiply-adds.
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer", *DISABLED]
        )
        face = session.get_inputs()[0]
        session.run(None, {face.name: np.zeros((1, *face.shape[1:]), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return onnx.load(optimised).graph, _read_events(events)


def _read_events(events: list[dict[str, Any]]) -> dict[str, Any]:
    suffix = "_kernel_time"
    kernels = (event for event in events if event.get("cat") == "Node" and event["name"].endswith(suffix))
    return {event["name"].removesuffix(suffix): event["args"] for event in kernels}


def _count_macs(node: onnx.NodeProto, graph: onnx.GraphProto, record: dict[str, Any]) -> int:
    """Count the multiply-adds of one run: every weight is used once per output position."""
    weights = _find_weight_shape(node.input[COUNTED[node.op_type]], graph)
    output = _read_shape(record["output_type_shape"])
    # The first weight axis of a convolution is its output channels, whatever the layout of its output.
    channels = weights[0] if "Conv" in node.op_type else output[-1]
    return prod(output) // channels * prod(weights)


def _find_weight_shape(name: str, graph: onnx.GraphProto) -> tuple[int, ...]:
    """Return the shape of a weight initializer, which may be the input of a DequantizeLinear."""
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return shapes[sources.get(name, name)]


def _read_input_type(record: dict[str, Any]) -> str:
    return str(next(iter(record["input_type_shape"][0])))


def _read_shape(shapes: list[dict[str, list[int]]]) -> list[int]:
    return next(iter(shapes[0].values()))
