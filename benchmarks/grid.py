"""Train every backbone, mode and loss for a few steps on synthetic faces: does the loss fall, does the export agree?

python benchmarks/grid.py [OUT.json]   (default: benchmarks/results/training/grid.json, with a .md next to it)

The backbones start from random weights at 64 px, so `features` trains a head on random features: the table shows that
each combination works and its loss falls, not how accurate it becomes. Written after every backbone; finished ones are
kept.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

import edgeemo
from edgeemo.artifact import write_text
from edgeemo.card import Architecture, Card, InputContract
from edgeemo.card.history import list_versions
from edgeemo.compress.export import TOLERANCE, to_onnx
from edgeemo.data import Faces, load
from edgeemo.images import to_input
from edgeemo.labels import label_set
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.stages import Train
from edgeemo.train import network as networks
from edgeemo.train.fit import TrainingData, prepare, train_epoch
from edgeemo.train.network import EmotionNet

OUT = Path(__file__).parent / "results" / "training" / "grid.json"
FACES, BATCH, EPOCHS, SIZE = 96, 16, 5, 64
RARE = ("anger", "fear")  # every third face of these is kept, so that class weights differ
CALM = 0.2
MODES = ("features", "finetune", "gradual")
LOSSES: dict[str, dict[str, Any]] = {
    "label smoothing": {"smoothing": 0.1},
    "focal": {"loss": "focal", "smoothing": 0.0},
    "class-weighted": {"class_weights": "sqrt"},
    "votes": {"vote_share": 1.0, "smoothing": 0.0},
    "label and votes": {"vote_share": 0.5},
}
BASE = Train(
    data=f"synthetic:{FACES}",
    weights="none",
    size=SIZE,
    dropout=0.1,
    classifier_lr=3e-4,
    epochs=EPOCHS,
    batch_size=BATCH,
    unfreeze_epochs=1.0,
    warmup_epochs=0.0,
    augment="none",
    threads=1,
)

# Without BatchNorm vgg16 takes no larger steps from random weights, so it gets more of them.
SLOW = {("vgg16", mode): {"classifier_lr": 3e-5, "epochs": 3 * EPOCHS} for mode in ("finetune", "gradual")}


def main() -> None:
    """Run the grid and write its table."""
    logging.getLogger("edgeemo").setLevel(logging.WARNING)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    settings = {
        "faces": len(load_faces("edge_vgg")),
        "batch": BATCH,
        "epochs": EPOCHS,
        "pixels": SIZE,
        "tolerance": TOLERANCE,
    }
    cells, exports = read_cells(out, settings)
    for name in track(networks.BACKBONES, "training and exporting", total=len(networks.BACKBONES)):
        if name not in exports:
            cells += [train_cell(name, mode, loss) for mode, loss in product(MODES, LOSSES)]
            exports[name] = measure_export(name)
            write_result(out, settings, cells, exports)
    result = write_result(out, settings, cells, exports)
    print(page(result))
    sys.exit(0 if result.facts["all_fall"] else 1)


def read_cells(out: Path, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read the cells and exports of finished backbones, if settings and versions are the same."""
    if not out.is_file():
        return [], {}
    before = files.read_as(Measurement, out)
    same = (before.settings, before.header.versions) == (settings, list_versions())
    return (before.rows, before.facts["exports"]) if same else ([], {})


def write_result(
    out: Path, settings: dict[str, Any], cells: list[dict[str, Any]], exports: dict[str, Any]
) -> Measurement:
    """Write the result so far, and its page next to it; return the result."""
    facts = {"exports": exports, "all_fall": all(row["last_loss"] < row["first_loss"] for row in cells)}
    result = Measurement(header=make_header(), script="grid", settings=settings, rows=cells, facts=facts)
    files.write(result, out)
    write_text(out.with_suffix(".md"), page(result))
    return result


def train_cell(name: str, mode: str, loss: str) -> dict[str, Any]:
    """Train briefly; return the mean loss of the first and of the last epoch."""
    start, faces = perf_counter(), load_faces(name)
    config = replace(BASE, backbone=name, mode=mode, **LOSSES[loss])
    config = replace(config, **SLOW.get((name, mode), {}))
    network = make_network(name, torch.from_numpy(to_input(faces.pixels, contract(name))))
    data = TrainingData(faces, faces, label_set("six").labels, contract(name))
    context, state = prepare(network, data, config=config, folder=Path("nowhere"))
    losses = []
    while state.epoch < config.epochs:
        losses.append(train_epoch(context, state)["loss"])
        state.epoch, state.step = state.epoch + 1, 0
    row = {"backbone": name, "mode": mode, "loss": loss, "first_loss": losses[0], "last_loss": losses[-1]}
    return {**row, "seconds": round(perf_counter() - start, 1)}


def contract(name: str) -> InputContract:
    """Return the input contract of a backbone at the grid's size."""
    return networks.contract_for(name, SIZE, gray_faces=True)


def load_faces(name: str) -> Faces:
    """Load the synthetic faces for a backbone: fewer faces of two labels, and votes spread as by a crowd."""
    labels = label_set("six")
    whole = load(BASE.data, "train", labels, contract=contract(name))
    rare = np.isin(whole.truth, [labels.index(label) for label in RARE])
    faces = whole.take(np.flatnonzero(~rare | (np.cumsum(rare) % 3 == 0)))
    others = np.random.default_rng(0).dirichlet(np.ones(len(labels.labels)), size=len(faces))
    votes = 0.7 * faces.votes + 0.3 * others
    return replace(faces, votes=votes.astype(np.float32))


def make_network(name: str, batch: torch.Tensor) -> EmotionNet:
    """Make a random network in evaluation mode with BatchNorm statistics of a batch; without them its outputs vanish.

    The statistics include as much noise, on which `to_onnx` compares. Residual branches are scaled down: a random
    EfficientNet-B4 amplifies float32 rounding to a tenth of a logit, in torch as well, which would hide errors of the
    export.
    """
    torch.manual_seed(0)
    network = networks.build(architecture(name))
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    for last in filter(None, map(last_norm, network.modules())):
        nn.init.constant_(last.weight, CALM)
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.train()(torch.cat([batch, noise]))
    for layer, own in zip(norms, momenta, strict=True):
        layer.momentum = own
    return network.eval()


def last_norm(block: nn.Module) -> nn.Module | None:
    """Return the last BatchNorm of the branch of a torchvision residual block; None for other modules."""
    if getattr(block, "use_res_connect", False):
        return [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)][-1]
    return getattr(block, "bn3", block.bn2) if hasattr(block, "downsample") else None


def architecture(name: str) -> Architecture:
    """Describe a backbone with the enhanced head and attention."""
    return networks.describe(name, labels=6, head="enhanced", attention=True, dropout=BASE.dropout)


def measure_export(name: str) -> dict[str, float]:
    """Measure the largest difference of a logit between torch and the exported file in ONNX Runtime.

    Also the largest standard deviation of a logit over the faces: constant outputs would prove nothing.
    """
    batch = to_input(load_faces(name).pixels, contract(name))
    network = make_network(name, torch.from_numpy(batch))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "model.onnx"
        to_onnx(network, Card(label_set("six").labels, "six", contract(name), architecture(name)), path)
        with edgeemo.load(path) as model:
            exact = network(torch.from_numpy(batch)).numpy()
            gap = np.abs(model.logits(batch) - exact).max()
    return {"gap": float(gap), "spread": float(exact.std(0).max())}


def page(result: Measurement) -> str:
    """Return the page: a table per mode, of the loss of the first epoch → of the last, and one of the exports."""
    about = result.settings
    verdict = "every one falls" if result.facts["all_fall"] else "NOT EVERY ONE FALLS"
    setting = (
        f"{about['faces']} synthetic faces of {about['pixels']} px, batch {about['batch']}, {about['epochs']} epochs"
    )
    slow = "vgg16, which has no BatchNorm, at a tenth of the rate for three times the epochs but in features"
    blocks = [f"{setting}, from random weights; {slow}. Mean loss of the first epoch → of the last: {verdict}."]
    for table in (*(losses_table(result, mode) for mode in MODES), exports_table(result)):
        blocks += [f"**{table.title}**", table.to_markdown()]
    return "\n\n".join(blocks) + "\n"


def losses_table(result: Measurement, mode: str) -> Table:
    """Make a table with a row per backbone and a column per loss."""
    by_name = {
        name: [row for row in result.rows if (row["backbone"], row["mode"]) == (name, mode)]
        for name in networks.BACKBONES
    }
    rows = [(name, *map(format_losses, cells)) for name, cells in by_name.items() if cells]
    return Table(mode, ("backbone", *LOSSES), rows)


def exports_table(result: Measurement) -> Table:
    """Make a table with a row per backbone."""
    head = ("backbone", "largest difference of a logit, torch to ONNX Runtime", "its largest deviation over faces")
    exports = [(name, result.facts["exports"][name]) for name in networks.BACKBONES if name in result.facts["exports"]]
    return Table("export", head, [(name, f"{one['gap']:.1e}", f"{one['spread']:.2f}") for name, one in exports])


def format_losses(row: dict[str, Any]) -> str:
    """Format the first and the last loss of a cell."""
    return f"{row['first_loss']:.2f} → {row['last_loss']:.2f}"


if __name__ == "__main__":
    main()
