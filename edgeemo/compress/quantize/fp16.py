"""Float ONNX → FP16 ONNX: the same network with 16-bit weights and arithmetic, for GPUs.

The file is strongly typed: every tensor inside is float16, input and logits stay float32, and the engine chooses no
precision. The largest float16 is 65,504, so the range of activations is checked on real faces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgeemo.card import InputContract, Precision
from edgeemo.compress.export import silence, strip_metadata
from edgeemo.compress.quantize.fidelity import MIN_AGREEMENT, Fidelity
from edgeemo.compress.quantize.ranges import Ranges, predict_onnx
from edgeemo.data import Faces
from edgeemo.errors import GateError

FLOAT16_MAX = float(np.finfo(np.float16).max)
HEADROOM = 4.0  # factor by which new faces may exceed the observed range


def convert(source: Path, target: Path) -> None:
    """Convert the float model `source` to FP16; raise GateError if a weight exceeds the range of float16."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:  # the converter would clip it silently
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and np.abs(values).max(initial=0) > FLOAT16_MAX:
            raise GateError(
                f"{tensor.name} has a weight of {np.abs(values).max():.0f}; float16 ends at {FLOAT16_MAX:.0f}. This "
                "network cannot be FP16; leave out --fp16"
            )
    with silence():
        model = convert_float_to_float16(model, keep_io_types=True)
        ONNXModel(model).topological_sort()  # the converter appends its Cast nodes at the end
    onnx.checker.check_model(strip_metadata(model), full_check=True)
    onnx.save(model, target)


def check_overflow(
    source: Path, target: Path, ranges: Ranges, faces: Faces, contract: InputContract, *, threads: int
) -> Precision:
    """Check an FP16 file for overflow and agreement with float; return the precision section of its card.

    source, target: the float model and its FP16 form; ranges: those of `source` on `faces`. On a CPU, ONNX Runtime
    computes `target` in float32 with float16 weights, so only the ranges can reveal an overflow; the agreement measures
    the effect of rounded weights.

    Raises GateError if an activation exceeds the largest float16 divided by HEADROOM, logits are not finite, or
    predictions agree on less than MIN_AGREEMENT of the faces.
    """
    names = ranges.tensors.keys()  # TensorsData cannot be iterated over
    magnitudes = {name: max(map(abs, limits)) for name in names if (limits := ranges.get(name))}
    widest = max(magnitudes, key=magnitudes.__getitem__)
    if magnitudes[widest] * HEADROOM > FLOAT16_MAX:
        raise GateError(
            f"{widest} reaches {magnitudes[widest]:.0f} on {len(faces)} train faces; float16 ends at {FLOAT16_MAX:.0f} "
            f"and new faces may exceed this by a factor of {HEADROOM:g}. This network cannot be FP16; leave out --fp16"
        )
    logits = predict_onnx(target, faces, contract, threads=threads)
    if not np.isfinite(logits).all():
        count = (~np.isfinite(logits)).any(1).sum()
        raise GateError(f"FP16 gives {count} of {len(faces)} train faces no finite logits. Leave out --fp16")
    expected = predict_onnx(source, faces, contract, threads=threads)
    fidelity = Fidelity.compare(expected, logits)
    if fidelity.agreement < MIN_AGREEMENT:
        raise GateError(
            f"FP16 agrees with float32 on {100 * fidelity.agreement:.1f} % of {len(faces)} train faces; expected "
            f"{100 * MIN_AGREEMENT:g} % or more. Leave out --fp16"
        )
    return Precision(
        requested="float16",
        actual="float16 in the file",
        largest_activation=round(magnitudes[widest], 3),
        fidelity=fidelity.to_card(len(faces)),
        checked_in="float32 with float16 weights, and by the ranges of activations",
        weight_types=count_weight_types(target),
    )


def count_weight_types(path: Path) -> dict[str, int]:
    """Count the weight tensors of a file by type."""
    counts: dict[str, int] = {}
    for tensor in onnx.load(path).graph.initializer:
        name = numpy_helper.to_array(tensor).dtype.name
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
