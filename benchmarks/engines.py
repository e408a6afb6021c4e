"""Does every backbone build to a TensorRT for RTX engine? Train briefly on synthetic faces, compress, build all forms.

python benchmarks/engines.py [OUT.json]   (default: results/engines/rtx.json, with a .md next to it)

Engines are compiled for several GPUs at once, on a machine without one: this shows that NVIDIA's parser and compiler
accept the files, but not their speed or outputs on a GPU. Written after every backbone; finished ones are kept.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones import TRAIN, read_rows, write_result

from edgeemo.build import run as build
from edgeemo.card import read_card
from edgeemo.compress.run import run as compress
from edgeemo.errors import EdgeemoError
from edgeemo.options import public_settings
from edgeemo.progress import track
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.stages import Build, Compress
from edgeemo.train.network import BACKBONES
from edgeemo.train.run import run as train

OUT = Path(__file__).parent / "results" / "engines" / "rtx.json"
BRIEF = replace(TRAIN, data="synthetic:200", epochs=1)
COMPRESS = Compress(
    run="to be replaced",
    int8=True,
    target_format="tensorrt",
    fp16=True,
    calibration_count=64,
    min_int8_share=0,
    min_agreement=0,
    time=False,
    threads=1,
)
FORMS = {  # the compiler refuses FP32 convolutions and matrix products for compute capability 7.5
    "model.float.onnx": "8.0,8.6,8.9,12.0,12.1",
    "model.fp16.onnx": "7.5,8.0,8.6,8.9,12.0,12.1",
    "model.int8.tensorrt.onnx": "8.0,8.6,8.9,12.0,12.1",
}


def main() -> None:
    """Build every backbone and print the table."""
    logging.getLogger("edgeemo").setLevel(logging.WARNING)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    settings = {"train": public_settings(BRIEF), "compress": public_settings(COMPRESS), "forms": FORMS}
    rows = read_rows(out, settings)
    for name in track(BACKBONES, "building", total=len(BACKBONES)):
        if name not in {row["backbone"] for row in rows}:
            rows.append({"backbone": name, "engines": build_engines(name)})
            result = Measurement(header=make_header(), script="engines", settings=settings, rows=rows)
            write_result(out, result, page(result))
    print(table(rows).to_markdown())


def build_engines(name: str) -> dict[str, Any]:
    """Build each form of one backbone; return its sizes, or why it was refused."""
    engines: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = train(replace(BRIEF, backbone=name, out=folder)).parent
        out = Path(folder) / "compressed"
        compress(replace(COMPRESS, run=str(run), out=str(out)))
        for form, capabilities in FORMS.items():
            try:
                path = build(Build(model=str(out / form), library="rtx", compute_capability=capabilities))
            except EdgeemoError as error:
                engines[form] = {"refused": str(error).replace(folder, "")}
                continue
            card = read_card(path)
            built = card.history[-1]
            engines[form] = {
                "size_bytes": path.stat().st_size,
                "onnx_bytes": (out / form).stat().st_size,
                "layers": built.measured["layers"],
                "seconds": built.seconds,
                "compute_capabilities": card.target.compute_capabilities,
            }
    return engines


def page(result: Measurement) -> str:
    """Return the page of the table."""
    return table(result.rows).to_markdown() + "\n"


def table(rows: list[dict[str, Any]]) -> Table:
    """Make a table with a row per backbone: megabytes of the engine, or `refused`."""
    forms = list(FORMS)
    head = ("backbone", "float, MB", "FP16, MB", "INT8, MB", "INT8 built in s")
    cells = []
    for row in rows:
        seconds = row["engines"][forms[-1]].get("seconds", "-")
        cells.append((row["backbone"], *(_megabytes(row["engines"][form]) for form in forms), str(seconds)))
    return Table("engines", head, cells)


def _megabytes(engine: dict[str, Any]) -> str:
    return "refused" if "refused" in engine else f"{engine['size_bytes'] / 1e6:.1f}"


if __name__ == "__main__":
    main()
