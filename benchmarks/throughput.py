"""Training throughput of edge_vgg: bf16 and fp32, one and two threads, alone and next to a busy process.

python benchmarks/throughput.py [OUT.json]   (default: benchmarks/results/training/throughput.json, a .md next to it)

Each case runs in its own process, because a thread pool keeps its size. Run it on an idle machine.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from edgeemo.artifact import write_text
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "training" / "throughput.json"
COUNT, EPOCHS = 1500, 3  # synthetic faces and epochs of a case; the first epoch warms up and is not counted
CASE = """
import json, logging, sys
from pathlib import Path
from edgeemo.data import load
from edgeemo.labels import label_set
from edgeemo.stages import RECIPES
from dataclasses import replace
from edgeemo.train import network as networks
from edgeemo.train.fit import TrainingData, prepare, train_epoch
precision, threads, count, epochs = sys.argv[1], *map(int, sys.argv[2:])
config = replace(RECIPES["edge"], data=f"synthetic:{count}", precision=precision, threads=threads, epochs=epochs)
contract = networks.contract_for(config.backbone, gray_faces=True)
faces = load(config.data, "train", label_set("six"), contract=contract)
network = networks.build(networks.describe("edge_vgg", labels=6, head="linear", attention=False, dropout=0.2))
data = TrainingData(faces, faces, label_set("six").labels, contract)
context, state = prepare(network, data, config=config, folder=Path("nowhere"))
rows = []
while state.epoch < epochs:
    rows.append(train_epoch(context, state))
    state.epoch, state.step = state.epoch + 1, 0
print(json.dumps(rows[1:]))
"""


def main() -> None:
    """Measure every case and write the table."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    rows = []
    for beside, threads, precision in product(("nothing", "a busy process"), (1, 2), ("fp32", "bf16")):
        about = {"beside": beside, "threads": threads, "precision": precision}
        rows.append({**about, **measure_case(beside, threads, precision)})
        print(rows[-1], flush=True)
    settings = {"network": "edge_vgg at 48 px, recipe edge, batch 128"}
    result = Measurement(header=make_header(), script="throughput", settings=settings, rows=rows)
    files.write(result, out)
    write_text(out.with_suffix(".md"), page(result))
    print(page(result))


def measure_case(beside: str, threads: int, precision: str) -> dict[str, Any]:
    """Measure images per second, and the fraction of the time spent on batches, of the epochs after the first."""
    busy = None
    if beside != "nothing":
        busy = multiprocessing.Process(target=spin, daemon=True)
        busy.start()
    try:
        command = [sys.executable, "-c", CASE, precision, str(threads), str(COUNT), str(EPOCHS)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    finally:
        if busy:
            busy.terminate()
    epochs = json.loads(output.splitlines()[-1])
    return {
        "images_per_second": [row["images_per_second"] for row in epochs],
        "data_share": round(sum(row["data_share"] for row in epochs) / len(epochs), 4),
    }


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def page(result: Measurement) -> str:
    """Return the page: the network, and a table with a row per case."""
    head = ("beside", "threads", "arithmetic", "images/s", "ms an image", "making batches")
    table = Table("throughput", head, [cells(row) for row in result.rows], align="lrlrrr")
    return f"{result.settings['network']}\n\n{table.to_markdown()}\n"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table, with the mean of its epochs."""
    speed = sum(row["images_per_second"]) / len(row["images_per_second"])
    about = (row["beside"], str(row["threads"]), row["precision"])
    return (*about, f"{speed:.0f}", f"{1000 / speed:.2f}", f"{100 * row['data_share']:.1f} %")


if __name__ == "__main__":
    main()
