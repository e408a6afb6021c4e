"""Make the float form of an INT8 file, to compare its speed if the original network no longer exists.

python benchmarks/float_form.py NAME.tensorrt.onnx OUT.onnx

The int8 weights are multiplied out and all quantization of activations is left out. The format for TensorRT is taken,
whose biases are float and whose ReLUs are still nodes. Shapes and operators are those of the float network; its weights
are the stored ones, rounded to 8 bits, so its accuracy is not exactly that of the original.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgeemo.card import Precision, read_card, write_card


def without_quantization(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a Q/DQ network with float biases to float: weights dequantized, activations not quantized."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    source: dict[str, str] = {}  # by removed tensor, its replacement
    kept = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
            values, scale = stored[node.input[0]].astype(np.float32), stored[node.input[1]]
            shape = [scale.size if at == axis else 1 for at in range(values.ndim)]
            model.graph.initializer.append(numpy_helper.from_array(values * scale.reshape(shape), node.output[0]))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source[node.output[0]] = source.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [source.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return model


def main() -> None:
    """Write the float form with a card."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = map(Path, sys.argv[1:])
    onnx.save(without_quantization(onnx.load(source)), target)
    precision = Precision("float32", actual="float32", weights="multiplied out of 8 bits")
    write_card(target, replace(read_card(source), precision=precision, golden=None))


if __name__ == "__main__":
    main()
