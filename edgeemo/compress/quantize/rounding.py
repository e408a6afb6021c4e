"""Round the weights of an INT8 file so that the output of each layer errs least, not each weight by itself.

GPTQ (Frantar et al. 2023, after Optimal Brain Quantization): the inputs of a layer are rounded one after another, and
the error that each one makes in the output is compensated by those that are still to be rounded. On the shipped models
it halved the divergence that the limit of +-64 costs (benchmarks/LOG.md).
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
from edgeemo.compress.quantize.ranges import batches
from edgeemo.data import Faces
from edgeemo.progress import counter

FACES = 128  # that the layers' inputs are taken from
ROWS = 30_000  # input vectors of a layer, drawn from all positions of these faces
MOST_INPUTS = 2304  # of a layer, as 3 x 3 of 256 channels; wider ones, which lose least, keep the nearest: time
BLOCK = 128  # inputs that are rounded before the error of all of them is compensated in the rest, for speed
DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper; keeps it invertible


@dataclass(frozen=True)
class Layer:
    """A Q/DQ layer whose weights can be rounded: a convolution without groups or dilation, or a matrix product."""

    node: onnx.NodeProto
    stored: str  # name of its int8 tensor

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the operator by name."""
        return {one.name: helper.get_attribute_value(one) for one in self.node.attribute}

    @property
    def supported(self) -> bool:
        """Whether the input vectors of this layer are those of `vectors`."""
        given = self.attributes
        plain = given.get("group", 1) == 1 and set(given.get("dilations", [1])) == {1}
        return bool(plain and given.get("auto_pad", b"NOTSET") == b"NOTSET" and not given.get("transA", 0))

    def by_output(self, weights: np.ndarray) -> np.ndarray:
        """Weights as stored → (outputs, inputs). Its own inverse for matrices, which is all that is transposed."""
        if self.node.op_type == "Conv":
            return weights.reshape(len(weights), -1)
        return weights if self.attributes.get("transB", 0) else weights.T

    def vectors(self, data: np.ndarray, kernel: tuple[int, ...], rows: int, rng: np.random.Generator) -> np.ndarray:
        """(N, ...) input of the layer → at most `rows` of the (inputs,) vectors that meet its weights, at random."""
        if self.node.op_type != "Conv":
            every = data.reshape(-1, data.shape[-1])
            chosen: np.ndarray = every[_choose(len(every), rows, rng)]
            return chosen
        top, left, bottom, right = self.attributes.get("pads", [0, 0, 0, 0])
        down, across = self.attributes.get("strides", [1, 1])
        padded = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::down, ::across]
        sides = (windows.shape[0], *windows.shape[2:4])
        face, y, x = np.unravel_index(_choose(int(np.prod(sides)), rows, rng), sides)
        chosen = windows[face, :, y, x]
        return chosen.reshape(len(face), -1)


def round_weights(path: Path, exact: dict[str, np.ndarray], faces: Faces, contract: InputContract) -> int:
    """Replace the int8 weights of the Q/DQ file `path` by integers that err least in each layer's output on the faces.

    exact: by the name of a stored int8 tensor, its weights before rounding, in units of its scale. No weight grows
    beyond the largest one stored; scales, zero points and biases stay as they are. Layers with groups, with
    dilation or of more than MOST_INPUTS inputs are left alone. Returns the number of layers that were rounded.
    """
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = (layer for layer in _layers(model) if layer.stored in exact and layer.supported)
    layers = [layer for layer in found if layer.by_output(exact[layer.stored]).shape[1] <= MOST_INPUTS]
    hessians = _hessians(model, layers, tensors, faces.take_evenly(FACES), contract)
    for layer, hessian in zip(layers, hessians, strict=True):
        before = numpy_helper.to_array(tensors[layer.stored])
        largest = int(np.abs(before.astype(int)).max())
        rounded = compensate(layer.by_output(exact[layer.stored]), hessian, largest=largest)
        after = rounded.reshape(before.shape) if layer.node.op_type == "Conv" else layer.by_output(rounded)
        tensors[layer.stored].CopyFrom(numpy_helper.from_array(after.astype(np.int8), layer.stored))
    onnx.save(model, path)
    return len(layers)


def exact_weights(path: Path, floats: onnx.GraphProto) -> dict[str, np.ndarray]:
    """By the name of each stored int8 tensor of the Q/DQ file, its weights in `floats` in units of its scale."""
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for tensor in floats.initializer:
        dequantize = next((node for node in graph.node if node.input[0] == f"{tensor.name}_quantized"), None)
        if dequantize is None or stored[dequantize.input[0]].data_type != TensorProto.INT8:
            continue
        weights, scale = numpy_helper.to_array(tensor), numpy_helper.to_array(stored[dequantize.input[1]])
        axis = next((one.i for one in dequantize.attribute if one.name == "axis"), 1)
        found[dequantize.input[0]] = weights / _along(scale, weights.ndim, axis)
    return found


def _along(scale: np.ndarray, dimensions: int, axis: int) -> np.ndarray:
    """A scale, or one per channel, shaped so that it divides weights with their channels at `axis`."""
    if scale.size == 1:
        return scale.reshape(())
    shape = [1] * dimensions
    shape[axis] = scale.size
    return scale.reshape(shape)


def compensate(weights: np.ndarray, hessian: np.ndarray, *, largest: int) -> np.ndarray:
    """(outputs, inputs) weights in steps of their scale → integers of at most `largest`, with the least output error.

    hessian: (inputs, inputs), the mean outer product of the layer's input vectors.
    """
    damped = hessian + np.eye(len(hessian)) * (DAMPING * float(np.mean(np.diag(hessian))) + 1e-12)
    order = np.argsort(-np.diag(damped))  # the inputs that carry most first, while most is left to compensate with
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
    """Round some inputs in place, compensating within them; returns their errors, for the inputs after them."""
    errors = np.empty_like(left)
    for k in range(left.shape[1]):
        rounded = np.clip(np.rint(left[:, k]), -largest, largest)
        errors[:, k] = (left[:, k] - rounded) / factor[k, k]
        left[:, k:] -= errors[:, k, None] * factor[k, k:]
        left[:, k] = rounded
    return errors


def _layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """Operators whose data and weights both come dequantized."""
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and set(node.input[:2]) <= source.keys():
            yield Layer(node, source[node.input[1]])


def _hessians(
    model: onnx.ModelProto,
    layers: list[Layer],
    tensors: dict[str, onnx.TensorProto],
    faces: Faces,
    contract: InputContract,
) -> list[np.ndarray]:
    """The mean outer product of each layer's input vectors, as they come in the quantized network."""
    session, names = _exposed(model, [layer.node.input[0] for layer in layers])
    kernels = [tuple(tensors[layer.stored].dims[2:]) for layer in layers]
    rng = np.random.default_rng(0)
    sums: list[Any] = [0.0] * len(layers)
    counts = [0] * len(layers)
    with counter("rounding weights", total=len(faces)) as advance:
        for batch in batches(faces, contract, advance):
            share = -(-ROWS * len(batch) // len(faces))  # rounded up
            seen = dict(zip(names, session.run(names, {session.get_inputs()[0].name: batch}), strict=True))
            for at, (layer, kernel) in enumerate(zip(layers, kernels, strict=True)):
                rows = layer.vectors(seen[layer.node.input[0]], kernel, share, rng)
                sums[at] = sums[at] + (rows.T @ rows).astype(np.float64)
                counts[at] += len(rows)
    return [total / count for total, count in zip(sums, counts, strict=True)]


def _exposed(model: onnx.ModelProto, tensors: list[str]) -> tuple[Any, list[str]]:
    """A session that also returns the named tensors, computed as the file says, without fused kernels."""
    names = list(dict.fromkeys(tensors))
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    del open_model.graph.output[:]
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(open_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, names


def _choose(count: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(count) if count <= wanted else rng.choice(count, wanted, replace=False)
