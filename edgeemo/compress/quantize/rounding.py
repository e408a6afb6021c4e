"""GPTQ: round the weights of an INT8 file for the least error in the output of each layer, not of each weight.

Frantar et al. 2023, after Optimal Brain Quantization: the weights of a layer are rounded input by input, and each
rounding error is compensated by the weights that are not rounded yet. On the shipped models this halved the divergence
due to weights of at most 64 (benchmarks/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

from edgeemo.card import InputContract
from edgeemo.compress.quantize.ranges import iterate_batches
from edgeemo.data import Faces
from edgeemo.progress import counter

FACES = 128  # from which the inputs of layers are sampled
ROWS = 30_000  # input vectors per layer, sampled over all positions of these faces
MAX_INPUTS = 2304  # of a layer, as 3 x 3 x 256; wider ones, which lose least, keep nearest rounding, to save time
BLOCK = 128  # inputs to round before their errors are compensated in all others, for speed
DAMPING = 0.01  # relative to the mean of the Hessian's diagonal, as in the paper; keeps it invertible


@dataclass(frozen=True)
class Layer:
    """A Q/DQ layer whose weights can be rounded: a convolution without groups or dilation, or a matrix product."""

    node: onnx.NodeProto
    stored: str  # name of its int8 tensor

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the operator by name."""
        return {attribute.name: helper.get_attribute_value(attribute) for attribute in self.node.attribute}

    @property
    def supported(self) -> bool:
        """Whether `sample_inputs` implements this layer."""
        attributes = self.attributes
        dense = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
        return bool(dense and attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and not attributes.get("transA", 0))

    def to_matrix(self, weights: np.ndarray) -> np.ndarray:
        """Reshape stored weights to (outputs, inputs); for matrices this is its own inverse."""
        if self.node.op_type == "Conv":
            return weights.reshape(len(weights), -1)
        return weights if self.attributes.get("transB", 0) else weights.T

    def sample_inputs(
        self, data: np.ndarray, kernel: tuple[int, ...], rows: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Sample at most `rows` of the (inputs,) vectors that the layer multiplies by its weights; data: (N, ...)."""
        if self.node.op_type != "Conv":
            vectors = data.reshape(-1, data.shape[-1])
            sampled: np.ndarray = vectors[_sample_rows(len(vectors), rows, rng)]
            return sampled
        top, left, bottom, right = self.attributes.get("pads", [0, 0, 0, 0])
        down, across = self.attributes.get("strides", [1, 1])
        padded = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::down, ::across]
        sides = (windows.shape[0], *windows.shape[2:4])
        face, y, x = np.unravel_index(_sample_rows(int(np.prod(sides)), rows, rng), sides)
        return windows[face, :, y, x].reshape(len(face), -1)


def round_weights(path: Path, exact: dict[str, np.ndarray], faces: Faces, contract: InputContract) -> int:
    """Round the weights of the Q/DQ file `path` by GPTQ on the faces; return the number of layers rounded.

    exact: weights before rounding, in units of their scale, by the name of the int8 tensor. No weight exceeds the
    largest stored one of its layer; scales, zero points and biases do not change. Layers with groups, dilation or more
    than MAX_INPUTS inputs are left unchanged.
    """
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    supported = (layer for layer in _iterate_layers(model) if layer.stored in exact and layer.supported)
    layers = [layer for layer in supported if layer.to_matrix(exact[layer.stored]).shape[1] <= MAX_INPUTS]
    hessians = _compute_hessians(model, layers, tensors, faces.take_evenly(FACES), contract)
    for layer, hessian in zip(layers, hessians, strict=True):
        before = numpy_helper.to_array(tensors[layer.stored])
        largest = int(np.abs(before.astype(int)).max())
        rounded = round_with_compensation(layer.to_matrix(exact[layer.stored]), hessian, largest=largest)
        after = rounded.reshape(before.shape) if layer.node.op_type == "Conv" else layer.to_matrix(rounded)
        tensors[layer.stored].CopyFrom(numpy_helper.from_array(after.astype(np.int8), layer.stored))
    onnx.save(model, path)
    return len(layers)


def compute_exact_weights(path: Path, floats: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Return the weights in `floats`, in units of their scale, by the name of the int8 tensor of the Q/DQ file."""
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    exact = {}
    for tensor in floats.initializer:
        dequantize = next((node for node in graph.node if node.input[0] == f"{tensor.name}_quantized"), None)
        if dequantize is None or stored[dequantize.input[0]].data_type != TensorProto.INT8:
            continue
        weights, scale = numpy_helper.to_array(tensor), numpy_helper.to_array(stored[dequantize.input[1]])
        axis = next((attribute.i for attribute in dequantize.attribute if attribute.name == "axis"), 1)
        exact[dequantize.input[0]] = weights / _broadcast_scale(scale, weights.ndim, axis)
    return exact


def _broadcast_scale(scale: np.ndarray, dimensions: int, axis: int) -> np.ndarray:
    """Reshape a scale, or one per channel, to divide weights with their channels at `axis`."""
    if scale.size == 1:
        return scale.reshape(())
    shape = [1] * dimensions
    shape[axis] = scale.size
    return scale.reshape(shape)


def round_with_compensation(weights: np.ndarray, hessian: np.ndarray, *, largest: int) -> np.ndarray:
    """Round (outputs, inputs) weights, in units of their scale, to integers of at most `largest`.

    hessian: (inputs, inputs), the mean outer product of the input vectors of the layer.
    """
    damped = hessian + np.eye(len(hessian)) * (DAMPING * float(np.mean(np.diag(hessian))) + 1e-12)
    order = np.argsort(-np.diag(damped))  # the largest first, while most weights are left for compensation
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = weights[:, order].astype(np.float64)
    for start in range(0, left.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        errors = _round_block(left[:, block], factor[block, block], largest)
        left[:, start + BLOCK :] -= errors @ factor[block, start + BLOCK :]
    restored = np.empty_like(left)
    restored[:, order] = left
    return restored


def _round_block(left: np.ndarray, factor: np.ndarray, largest: int) -> np.ndarray:
    """Round a block of inputs in place, with compensation within it; return the errors for later blocks."""
    errors = np.empty_like(left)
    for k in range(left.shape[1]):
        rounded = np.clip(np.rint(left[:, k]), -largest, largest)
        errors[:, k] = (left[:, k] - rounded) / factor[k, k]
        left[:, k:] -= errors[:, k, None] * factor[k, k:]
        left[:, k] = rounded
    return errors


def _iterate_layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """Yield the operators whose data and weights are both dequantized."""
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and set(node.input[:2]) <= sources.keys():
            yield Layer(node, sources[node.input[1]])


def _compute_hessians(
    model: onnx.ModelProto,
    layers: list[Layer],
    tensors: dict[str, onnx.TensorProto],
    faces: Faces,
    contract: InputContract,
) -> list[np.ndarray]:
    """Return the mean outer product of the input vectors of each layer in the quantized network."""
    session, names = _open_with_outputs(model, [layer.node.input[0] for layer in layers])
    kernels = [tuple(tensors[layer.stored].dims[2:]) for layer in layers]
    rng = np.random.default_rng(0)
    sums: list[Any] = [0.0] * len(layers)
    counts = [0] * len(layers)
    with counter("rounding weights", total=len(faces), unit="faces") as advance:
        for batch in iterate_batches(faces, contract, advance):
            rows = -(-ROWS * len(batch) // len(faces))  # rounded up
            activations = dict(zip(names, session.run(names, {session.get_inputs()[0].name: batch}), strict=True))
            for k, (layer, kernel) in enumerate(zip(layers, kernels, strict=True)):
                inputs = layer.sample_inputs(activations[layer.node.input[0]], kernel, rows, rng)
                sums[k] = sums[k] + (inputs.T @ inputs).astype(np.float64)
                counts[k] += len(inputs)
    return [total / count for total, count in zip(sums, counts, strict=True)]


def _open_with_outputs(model: onnx.ModelProto, tensors: list[str]) -> tuple[Any, list[str]]:
    """Open a session that returns the named tensors, computed without fused kernels."""
    names = list(dict.fromkeys(tensors))
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, names


def _sample_rows(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(count) if count <= most else rng.choice(count, most, replace=False)
