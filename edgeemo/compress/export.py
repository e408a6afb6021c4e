"""Export of a network to a single ONNX file with its card, verified to compute the same logits."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from edgeemo.artifact import atomic_write
from edgeemo.card import Card, InputContract, write_card
from edgeemo.compress import opset
from edgeemo.errors import GateError
from edgeemo.packages import no_caches
from edgeemo.runtime.backends.ort import OnnxBackend

log = logging.getLogger(__name__)
INPUT, OUTPUT = "images", "logits"
TOLERANCE = 1e-3  # of a logit; folding BatchNorm into convolutions changes one by about 1e-5
# Weights below this are written as 0. Weight decay keeps shrinking the weights of dead channels, and CPUs compute
# denormal numbers (below 1.2e-38) in microcode. Latency of edge_vgg per face: 1.5 ms; 94 ms with 3 % of its channels
# denormal; 2.3 ms with 25 % around 1e-20, whose products are denormal; 1.5 ms with 25 % around 1e-15.
NEGLIGIBLE = 1e-15


def to_onnx(network: nn.Module, card: Card, path: Path, *, version: int = opset.DEFAULT) -> Card:
    """Write `network` in evaluation mode as ONNX, with a dynamic batch size, and its card; return the card as written.

    BatchNorm is folded into the preceding layer and NEGLIGIBLE weights are set to 0. The file contains all weights, and
    no path of this machine. version: the ONNX opset, from opset.OLDEST to opset.DEFAULT.

    Raises GateError if ONNX Runtime's logits differ from torch's by more than TOLERANCE, or from those of the default
    opset by more than opset.TOLERANCE.
    """
    frozen = copy.deepcopy(network).cpu().eval()
    model = flush_weights(strip_metadata(_export_graph(frozen, card.input)))
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(path) as partial:
        if version == opset.DEFAULT:
            onnx.save(model, partial)
        else:
            onnx.save(opset.lower(model, version), partial)
            opset.check_logits(partial, model, _make_noise(card.input))
        gap = _measure_gap(partial, frozen, card.input)
        if not gap <= TOLERANCE:  # also true for NaN
            raise GateError(
                f"{path.name} not written: its logits differ from torch's by {gap:.2g}; allowed: {TOLERANCE:g}"
            )
    log.info("%s: %d bytes, logits within %.1g of torch", path.name, path.stat().st_size, gap)
    return write_card(path, card)


def strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove all metadata, in place: exporters store stack traces with file paths of this machine on every node."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    inside = (part for function in model.functions for part in (function, *function.node))
    for part in (model, graph, *graph.node, *values, *inside):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def flush_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Set NEGLIGIBLE weights to 0, in place; scalars, such as the epsilon of a division, are kept."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            weights = numpy_helper.to_array(tensor)
            flushed = np.where(np.abs(weights) < NEGLIGIBLE, np.float32(0), weights)
            tensor.CopyFrom(numpy_helper.from_array(flushed, tensor.name))
    return model


@contextlib.contextmanager
def silence(level: int = logging.WARNING) -> Iterator[None]:
    """Suppress output, warnings and logs up to a level: torch and ONNX Runtime print much that users cannot act on."""
    output = io.StringIO()
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with contextlib.redirect_stdout(output), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
    log.debug("suppressed output: %s", output.getvalue())


def _export_graph(network: nn.Module, contract: InputContract) -> onnx.ModelProto:
    example = torch.zeros(
        2, contract.channels, contract.size, contract.size
    )  # torch.export would treat 1 as a constant
    with silence(), no_caches():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset.DEFAULT,
            external_data=False,
            verbose=False,
        )
    return cast("torch.onnx.ONNXProgram", program).model_proto  # None only if torch writes the file itself


def _make_noise(contract: InputContract) -> np.ndarray:
    shape = (5, contract.channels, contract.size, contract.size)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _measure_gap(path: Path, network: nn.Module, contract: InputContract) -> float:
    """Return the largest difference of a logit between file and torch, for noise in batches of one and of five."""
    backend = OnnxBackend(path, threads=1)
    noise = _make_noise(contract)
    gaps = []
    for batch in (noise[:1], noise):
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch)).numpy()
        gaps.append(np.abs(backend.logits(batch) - expected).max())
    backend.close()
    return float(np.max(gaps))
