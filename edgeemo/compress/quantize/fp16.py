"""Float ONNX → FP16 ONNX: the same network with weights and arithmetic of 16 bits, for GPUs.

The file is strongly typed: every tensor inside is float16, input and logits stay float32, and an engine has nothing to
choose. float16 ends at 65,504, so the activations of real faces are looked at first.
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
from edgeemo.compress.quantize.fidelity import ENOUGH, Fidelity
from edgeemo.compress.quantize.ranges import Ranges, file_logits
from edgeemo.data import Faces
from edgeemo.errors import GateError

LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 4.0  # faces to come may go this much beyond the faces seen


def halve(source: Path, target: Path) -> None:
    """Write the FP16 form of the float model `source` to `target`; GateError for a weight beyond float16."""
    exact = onnx.load(source)
    for tensor in exact.graph.initializer:  # the converter would clip it without a word
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and np.abs(values).max(initial=0) > LARGEST:
            raise GateError(
                f"{tensor.name} has a weight of {np.abs(values).max():.0f}; float16 ends at {LARGEST:.0f}. This "
                "network cannot be FP16; leave out --fp16"
            )
    with silence():
        model = convert_float_to_float16(exact, keep_io_types=True)
        ONNXModel(model).topological_sort()  # the converter appends its casts
    onnx.checker.check_model(strip_metadata(model), full_check=True)
    onnx.save(model, target)


def overflow(
    source: Path, target: Path, ranges: Ranges, faces: Faces, contract: InputContract, *, threads: int
) -> Precision:
    """What was looked at, for the card; GateError where a face comes near the end of float16 or gives a NaN.

    ranges: those of the float model `source` on `faces`; `target` is its FP16 form. On a CPU ONNX Runtime computes it
    in float32 with float16 weights, so only the ranges tell of an overflow; the answers tell what rounded weights cost.
    """
    seen = {name: max(map(abs, found)) for name in ranges.tensors.keys() if (found := ranges.of(name))}  # noqa: SIM118
    widest = max(seen, key=seen.__getitem__)
    if seen[widest] * HEADROOM > LARGEST:
        raise GateError(
            f"{widest} reaches {seen[widest]:.0f} on {len(faces)} train faces; float16 ends at {LARGEST:.0f} and faces "
            f"to come may go {HEADROOM:g} times as far. This network cannot be FP16; leave out --fp16"
        )
    got = file_logits(target, faces, contract, threads=threads)
    if not np.isfinite(got).all():
        raise GateError(f"FP16 gives {(~np.isfinite(got)).any(1).sum()} of {len(faces)} train faces no finite logits")
    expected = file_logits(source, faces, contract, threads=threads)
    same = Fidelity.of(expected, got)
    if same.agreement < ENOUGH:
        raise GateError(
            f"FP16 names the emotion of float32 on {100 * same.agreement:.1f} % of {len(faces)} train faces; expected "
            f"{100 * ENOUGH:g} % or more. Leave out --fp16"
        )
    return Precision(
        requested="float16",
        actual="float16 in the file",
        largest_activation=round(seen[widest], 3),
        fidelity=same.section(len(faces)),
        checked_in="float32 with float16 weights, and by the ranges of activations",
        weight_types=types(target),
    )


def types(path: Path) -> dict[str, int]:
    """How many weight tensors of each type a file holds."""
    counts: dict[str, int] = {}
    for tensor in onnx.load(path).graph.initializer:
        name = numpy_helper.to_array(tensor).dtype.name
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
