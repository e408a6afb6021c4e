"""A network → one ONNX file with its card beside it, proven to compute the same logits."""

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

from edgeemo.artifact import written
from edgeemo.card import Card, InputContract, write_card
from edgeemo.errors import GateError
from edgeemo.runtime.backends.ort import OnnxBackend

log = logging.getLogger(__name__)
INPUT, OUTPUT = "images", "logits"
OPSET = 20  # what the exporter of torch 2.14 writes by itself
TOLERANCE = 1e-3  # of a logit; folding BatchNorm into convolutions moves one by about 1e-5
# Weights below this are written as 0. Long weight decay drives those of a dead channel towards 0 without end, and a CPU
# computes denormal numbers (below 1.2e-38) in microcode: with 3 % of its channels there edge_vgg took 94 ms for a face
# instead of 1.5, with 25 % around 1e-20, whose products are denormal, 2.3; with 25 % around 1e-15 still 1.5.
NEGLIGIBLE = 1e-15


def to_onnx(network: nn.Module, card: Card, path: Path) -> Card:
    """Write `network` in evaluation mode as ONNX, batch size free, and its card; returns the card as written.

    BatchNorm is folded into the layer before it, NEGLIGIBLE weights are 0, all weights lie inside the file, and no path
    of this machine does.
    GateError if ONNX Runtime's logits differ from torch's by more than TOLERANCE.
    """
    still = copy.deepcopy(network).cpu().eval()
    model = flush_weights(stripped(_translated(still, card.input)))
    onnx.checker.check_model(model, full_check=True)
    with written(path) as partial:
        onnx.save(model, partial)
        gap = _gap(partial, still, card.input)
        if not gap <= TOLERANCE:  # a NaN is no agreement either
            raise GateError(f"{path.name} not written: logits {gap:.2g} off torch's, allowed is {TOLERANCE:g}")
    log.info("%s: %d bytes, logits within %.1g of torch", path.name, path.stat().st_size, gap)
    return write_card(path, card)


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without notes: exporters leave stack traces with file paths of the machine on every node."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    inside = (part for function in model.functions for part in (function, *function.node))
    for part in (model, graph, *graph.node, *values, *inside):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def flush_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with NEGLIGIBLE weights as 0, in place; scalars, such as a division's epsilon, stay."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            weights = numpy_helper.to_array(tensor)
            flushed = np.where(np.abs(weights) < NEGLIGIBLE, np.float32(0), weights)
            tensor.CopyFrom(numpy_helper.from_array(flushed, tensor.name))
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed, warned or logged below an error: torch and ONNX Runtime tell much that no user can act on."""
    chatter = io.StringIO()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(chatter), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
    log.debug("kept quiet: %s", chatter.getvalue())


def _translated(network: nn.Module, contract: InputContract) -> onnx.ModelProto:
    example = torch.zeros(2, contract.channels, contract.size, contract.size)  # torch.export takes 1 for a constant
    with quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    return cast("torch.onnx.ONNXProgram", program).model_proto  # None only where torch writes the file itself


def _gap(path: Path, network: nn.Module, contract: InputContract) -> float:
    """Largest difference of a logit between the file and torch, on noise in batches of one and of five."""
    backend = OnnxBackend(path, threads=1)
    noise = np.random.default_rng(0).standard_normal((5, contract.channels, contract.size, contract.size))
    gaps = []
    for batch in (noise[:1].astype(np.float32), noise.astype(np.float32)):
        with torch.inference_mode():
            ours = network(torch.from_numpy(batch)).numpy()
        gaps.append(np.abs(backend.logits(batch) - ours).max())
    backend.close()
    return float(np.max(gaps))
