"""Does every backbone survive compression? Train on synthetic faces, prune, quantize, and evaluate on new faces.

python benchmarks/backbones.py [OUT.json [BACKBONE...]]   (default: all, into results/compression/backbones.json)

INT8 must predict the same label as its float form on 98 % of 512 synthetic faces that neither has seen. If it does not,
other calibration methods are tried, then quantization-aware training, layers in float, and both; a network that still
disagrees is refused as `edgeemo compress` would refuse it. The file is written after every backbone; backbones that it
has under the same settings are not measured again.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edgeemo.artifact import write_text
from edgeemo.card import read_card
from edgeemo.card.history import list_versions
from edgeemo.compress.compare import predict_model
from edgeemo.compress.quantize import fidelity
from edgeemo.compress.run import run as compress
from edgeemo.data import load
from edgeemo.errors import EdgeemoError, GateError
from edgeemo.labels import label_set
from edgeemo.options import public_settings
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.stages import Compress, Train
from edgeemo.train.network import BACKBONES
from edgeemo.train.run import run as train

OUT = Path(__file__).parent / "results" / "compression" / "backbones.json"
MIN_LABELS = 5  # a network that predicts fewer labels has not learned, so its agreement means nothing
MIN_AGREEMENT = 0.98  # fraction of the faces with the same label in INT8 and float
EVALUATION = "synthetic:2560"  # its valid split has 512 faces
TRAIN = Train(
    data="synthetic:4000",
    weights="none",
    size=48,
    dropout=0.1,
    epochs=6,  # 1,500 steps
    batch_size=16,
    accumulate=1,
    sampler="shuffle",
    vertical_flips=False,
    patience=0,
    augment="none",  # and no smoothing: with both a ResNet-18 had learned 45 % after 16,000 faces
    smoothing=0.0,
    schedule="cosine",
    threads=1,
)
# At 48 px their last feature maps are 2 by 2, and they learn little in so few steps: 17 to 47 % at best.
LARGER = {"size": 96}
# Depthwise convolutions train twice as fast in fp32 as in bf16 on this CPU; in 1,500 steps two of them learn 62 %.
DEPTHWISE = {"precision": "fp32", "epochs": 12, **LARGER}
OWN = {
    "resnet50": {"classifier_lr": 5e-4, **LARGER},
    "resnet101": {"classifier_lr": 5e-4, **LARGER},
    "densenet121": LARGER,
    "vgg16": {"classifier_lr": 1e-4},  # without BatchNorm it takes no larger steps from random weights
    "efficientnet_b4": DEPTHWISE,
    "mobilenet_v3_large": DEPTHWISE,
    "efficientnet_lite0": DEPTHWISE,
}
COMPRESS = Compress(
    run="to be replaced",
    prune=0.3,
    epochs=1,
    int8=True,
    calibration_count=512,
    min_int8_share=0,
    min_agreement=0,
    time=False,
    threads=1,
)  # no gates, so that failures are measured too
ATTEMPTS = {
    "minmax": {},
    "auto": {"method": "auto"},
    "tuned": {"method": "auto", "qat": True},
    "worst layers in float": {"method": "auto", "keep_float": "auto"},
    "tuned, worst layers in float": {"method": "auto", "qat": True, "keep_float": "auto"},
}


def main() -> None:
    """Measure every backbone and print the table."""
    logging.getLogger("edgeemo").setLevel(logging.WARNING)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    gates = {"agreement": MIN_AGREEMENT, "labels_named": MIN_LABELS}
    how = {
        "train": public_settings(TRAIN),
        "own": OWN,
        "compress": public_settings(COMPRESS),
        "roads": ATTEMPTS,
        "judges": EVALUATION,
    }
    settings = {**how, "gates": gates, "versions": list_versions()}
    rows = read_rows(out, settings)
    names = sys.argv[2:] or list(BACKBONES)
    for name in track(names, "compressing", total=len(names)):
        if name not in {row["backbone"] for row in rows}:
            rows.append(compress_backbone(name))
            rows.sort(key=lambda row: list(BACKBONES).index(row["backbone"]))
            result = Measurement(header=make_header(), script="backbones", settings=settings, rows=rows)
            write_result(out, result, page(result))
    print(table(rows).to_markdown())


def read_rows(out: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the rows of an interrupted run, if it had the same settings."""
    if not out.is_file():
        return []
    before = files.read_as(Measurement, out)
    return before.rows if before.settings == settings else []


def write_result(out: Path, result: Measurement, page: str) -> None:
    """Write the rows so far as JSON with their settings, and the page next to it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(result, out)
    write_text(out.with_suffix(".md"), page)


def compress_backbone(name: str) -> dict[str, Any]:
    """Return the attempts up to the first one in which INT8 agrees with float."""
    start, tried = perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        config = replace(TRAIN, backbone=name, out=folder, **OWN.get(name, {}))
        run = train(config).parent
        for road, options in ATTEMPTS.items():
            rate = config.classifier_lr
            tried.append({"road": road, **compress_run(run, Path(folder) / "compressed", options, rate)})
            print(name, tried[-1], flush=True)
            if _agrees(tried[-1]):
                break
    agrees = _agrees(tried[-1])
    about = {"backbone": name, "size": config.size, "agrees": agrees}
    return {**about, "tried": tried, "seconds": round(perf_counter() - start, 1)}


def _agrees(attempt: dict[str, Any]) -> bool:
    return attempt.get("agreement", 0) >= MIN_AGREEMENT and attempt["labels_named"] >= MIN_LABELS


def _refusal(attempt: dict[str, Any]) -> str:
    """Return the error of `edgeemo compress` for an INT8 file like this one, when no option is left to try."""
    try:
        fidelity.check_agreement(fidelity.Fidelity(math.nan, attempt["agreement"]), attempt["n"], least=MIN_AGREEMENT)
    except GateError as error:
        return str(error)
    labels = attempt["labels_named"]
    return f"it predicts {labels} labels, expected at least {MIN_LABELS}: the network has not learned"


def compress_run(run: Path, out: Path, options: dict[str, Any], rate: float) -> dict[str, Any]:
    """Compress, then evaluate the float and the INT8 file on faces that neither has seen."""
    try:
        tuning = {"qat_lr": rate / 20} if options.get("qat") else {}
        config = replace(COMPRESS, run=str(run), out=str(out), lr=rate / 3, **tuning, **options)
        path = compress(config)
    except EdgeemoError as error:
        return {"refused": str(error)}
    card = read_card(path)
    faces = load(EVALUATION, "valid", label_set("six"), contract=card.input)
    exact, rounded = (predict_model(path.with_name(name), faces, threads=1) for name in ("model.float.onnx", path.name))
    return {
        "agreement": float((exact.argmax(1) == rounded.argmax(1)).mean()),
        "n": len(faces),
        "float_accuracy": float((exact.argmax(1) == faces.truth).mean()),
        "int8_accuracy": float((rounded.argmax(1) == faces.truth).mean()),
        "labels_named": len(np.unique(exact.argmax(1))),
        "int8_share_of_macs": card.precision.int8_share_of_macs,
        "method": card.precision.calibration_method,
        "keep_float": card.precision.keep_float,
        "size_bytes": path.stat().st_size,
    }


def page(result: Measurement) -> str:
    """Return the page: the comparison in a sentence, and the table."""
    n = result.rows[0]["tried"][-1].get("n", 0)
    about = f"INT8 against the pruned (30 %) float form of the same network, on {n} synthetic faces new to both."
    return f"{about}\n\n{table(result.rows).to_markdown()}\n"


def table(rows: list[dict[str, Any]]) -> Table:
    """Make a table with a row per backbone: the attempt that succeeded, or else the best one."""
    head = ("backbone", "px", "agreement %", "labels predicted", "float %", "INT8 %", "in integers %", "options", "KB")
    return Table("backbones", head, [_cells(row) for row in rows], align="lrrrrrrlr")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    measured = [one for one in row["tried"] if "agreement" in one]
    if not measured:
        refused = f"refused: {row['tried'][-1]['refused']}"
        return (row["backbone"], str(row["size"]), refused, "", "", "", "", "", "")
    best = max(measured, key=lambda one: one["agreement"])
    agreement, *shares = (
        f"{100 * best[name]:.1f}" for name in ("agreement", "float_accuracy", "int8_accuracy", "int8_share_of_macs")
    )
    road = best["road"] if row["agrees"] else f"**refused**: {_refusal(best)}"
    numbers = (agreement, str(best["labels_named"]), *shares)
    return (row["backbone"], str(row["size"]), *numbers, road, f"{best['size_bytes'] / 1000:,.0f}")


if __name__ == "__main__":
    main()
