"""Limit the weights of finished INT8 files to +-64, if their float networks no longer exist.

python benchmarks/limit_weights.py FOLDER DATA [NAME...]   (FOLDER: full-range NAME.onnx, NAME.tensorrt.onnx and cards)

Where the largest weight of an output channel exceeds 64, its scale is enlarged so that it becomes 64; int32 biases
follow their scale. The input gets 254 steps instead of 255 (compress/quantize.py says why). The weights are rounded to
the least error of each layer on the calibration faces of the card, which are train faces; nothing is retrained. Each
file is evaluated again on the valid faces of DATA, its temperature and threshold fitted and its card continued, and it
replaces the model that edgeemo ships under that name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from onnx import numpy_helper

from edgeemo.artifact import atomic_write
from edgeemo.card import Card, Metrics, from_json, get_label_set, read_card, to_json, write_card
from edgeemo.card.history import make_entry
from edgeemo.compress.compare import predict_golden, predict_model
from edgeemo.compress.export import INPUT
from edgeemo.compress.quantize import calibrate
from edgeemo.compress.quantize.fidelity import Fidelity
from edgeemo.compress.quantize.overflow import MAX_SAFE_WEIGHT, check_weights
from edgeemo.compress.quantize.qdq import INPUT_STEPS
from edgeemo.compress.quantize.rounding import round_weights
from edgeemo.data import Faces, load
from edgeemo.metrics import compare_paired, fit_temperature, scores, softmax
from edgeemo.runtime import shipped
from edgeemo.runtime.golden import record
from edgeemo.selective import fit_answers
from edgeemo.stages import Compress


@dataclass(frozen=True)
class Limit:
    """The settings of this step, for the card's history."""

    largest: int = MAX_SAFE_WEIGHT
    rounding: str = "gptq"


def limit_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Limit int8 weights to 64 in place; scales and int32 biases follow.

    Returns by name the weights before they were rounded, in units of their new scale.
    """
    exact = {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    factors: dict[str, np.ndarray] = {}  # by layer: the factor of each output channel's scale
    pairs = [node.input[:2] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    stored = [(values, scale) for values, scale in pairs if values in tensors]
    for values, scale in stored:
        weights = numpy_helper.to_array(tensors[values])
        if weights.dtype != np.int8:
            continue
        by_channel = weights.reshape(len(weights), -1).astype(float)
        factor = np.maximum(1, np.abs(by_channel).max(1) / MAX_SAFE_WEIGHT)
        exact[values] = (by_channel / factor[:, None]).reshape(weights.shape)
        _replace(tensors[values], np.rint(exact[values]).astype(np.int8))
        _scale(tensors[scale], factor)
        factors[_layer(values)] = factor
    first = _first_layer(model)
    steps = _widen_input(model, tensors)
    for values, scale in stored:
        biases = numpy_helper.to_array(tensors[values])
        if biases.dtype == np.int32:
            factor = factors[_layer(values)] * (steps if _layer(values) == first else 1)
            _replace(tensors[values], np.rint(biases / factor).astype(np.int32))
            _scale(tensors[scale], factor)
    return exact


def _widen_input(model: onnx.ModelProto, tensors: dict[str, onnx.TensorProto]) -> float:
    """Give an input that has a zero point INPUT_STEPS over the same range; returns the factor of its scale."""
    node = next(node for node in model.graph.node if node.input[0] == INPUT)
    if numpy_helper.to_array(tensors[node.input[2]]).dtype != np.uint8:
        return 1.0
    factor = 255 / INPUT_STEPS
    _scale(tensors[node.input[1]], np.array(factor))
    return factor


def _first_layer(model: onnx.ModelProto) -> str:
    """The layer that meets the input."""
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    return _layer(source[first.input[1]])


def _layer(tensor: str) -> str:
    return tensor.removesuffix("_quantized").rpartition(".")[0]


def _scale(tensor: onnx.TensorProto, factor: np.ndarray) -> None:
    _replace(tensor, (numpy_helper.to_array(tensor) * factor).astype(np.float32))


def _replace(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def suggest_rebuild(name: str, target_format: str, folder: Path, data: str) -> None:
    """Limit one file, evaluate it and write it with its card where edgeemo's models are."""
    start, source = perf_counter(), folder / (name + shipped.SUFFIXES[target_format])
    card, target = read_card(source), shipped.FOLDER / source.name
    labels = get_label_set(card)
    valid = load(data, "valid", labels, contract=card.input, protocol=card.data.protocol)
    model = onnx.load(source)
    exact = limit_weights(model)
    with atomic_write(target) as partial:
        onnx.save(model, partial)
        round_weights(partial, exact, _calibration(card, data), card.input)
    write_card(target, card)
    before, after = (predict_model(path, valid, threads=1) for path in (source, target))
    new = replace(_update_card(card, target, valid, before, after), golden=record(predict_golden(target, threads=1)))
    pair = compare_paired(before.argmax(1), after.argmax(1), valid.truth, card.labels)
    measured = {"accuracy": new.metrics["valid"].accuracy, "against_source": vars(pair), "n": len(valid)}
    line = make_entry("limit weights", Limit(), seconds=perf_counter() - start, parent=card.sha256, **measured)
    write_card(target, new.with_entry(line))
    accuracy = measured["accuracy"]
    print(f"{target.name}: {100 * accuracy:.2f} %, {100 * pair.difference:+.2f} points, p = {pair.p_value:.2f}")


def _calibration(card: Card, data: str) -> Faces:
    """Return the calibration faces, sampled again; they must be those of the card."""
    recorded = card.precision.calibration
    how = {"protocol": recorded.protocol, "count": recorded.count, "seed": recorded.seed}
    chosen = calibrate.draw(data, get_label_set(card), **how)
    if chosen.sha256 != recorded.ids_sha256:
        sys.exit(f"{data} does not give the calibration faces of the card")
    return calibrate.load_faces(chosen, data, card.input)


def _update_card(card: Card, path: Path, valid: Faces, before: np.ndarray, after: np.ndarray) -> Card:
    """Return the card with temperature and scores of the new logits, and the effect of the limit on the valid faces."""
    temperature = fit_temperature(after, valid.truth)
    probabilities = softmax(after, temperature=temperature)
    scored = scores(probabilities, valid.truth, card.labels)
    answers = fit_answers(probabilities, valid.truth, Compress.answer_accuracy / 100)
    changed = Fidelity.compare(before, after).to_card(len(valid))
    safety = check_weights(path)
    precision = replace(card.precision, overflow=safety, reduce_range=True, against_full_range=changed)
    metrics = {"valid": from_json(Metrics, {**to_json(card.metrics["valid"]), **scored.to_dict()})}
    return replace(card, temperature=temperature, answers=answers, metrics=metrics, precision=precision)


def main() -> None:
    """Remake every named model in both target formats."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, data, *names = sys.argv[1:]
    for name in names or shipped.NAMES:
        for target_format in shipped.SUFFIXES:
            suggest_rebuild(name, target_format, Path(folder), data)


if __name__ == "__main__":
    main()
