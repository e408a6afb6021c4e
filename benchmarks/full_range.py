"""Make a packaged model with weights of the full 8-bit range, which saturate x86 kernels without VNNI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgeemo.card import Overflow, read_card, write_card
from edgeemo.runtime import shipped


def full_range(path: Path, name: str = "nano") -> Path:
    """Write the model with doubled weights in steps of half their scale, and a card that does not call it safe."""
    model = onnx.load(shipped.find(name))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            values = numpy_helper.to_array(tensors[node.input[0]]).astype(int)
            doubled = (2 * values).clip(-127, 127) if values.ndim > 1 else 2 * values
            scale = numpy_helper.to_array(tensors[node.input[1]]) / 2
            kind = np.int8 if values.ndim > 1 else np.int32
            tensors[node.input[0]].CopyFrom(numpy_helper.from_array(doubled.astype(kind), node.input[0]))
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(scale.astype(np.float32), node.input[1]))
    onnx.save(model, path)
    card = read_card(shipped.find(name))
    write_card(path, replace(card, precision=replace(card.precision, overflow=Overflow(safe=False))))
    return path
