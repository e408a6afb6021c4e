"""Kill a training twenty times at random, resume it each time, and compare the result with an uninterrupted run.

python benchmarks/kills.py [KILLS] [SEED]   (default: 20 0; exit 1 if a single bit differs)
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from edgeemo.artifact import hash_file
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "training" / "kills.json"
TRAIN = ["train", "--recipe", "demo", "--data", "synthetic:600", "--epochs", "110", "--batch-size", "64"]
EXACT = ["--threads", "1", "--checkpoint-steps", "3", "--resume"]
MAX_WAIT = 20.0  # seconds until a kill, of which starting takes about five


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start or resume the training in `folder`."""
    command = [sys.executable, str(ROOT / "cli.py"), "--quiet", *TRAIN, *EXACT, "--out", str(folder)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def newest(folder: Path) -> str:
    """Return the name of the last complete checkpoint."""
    return max((path.name for path in (folder / "checkpoints").glob("[0-9]*")), default="none")


def kill(folder: Path, rng: random.Random) -> dict[str, object] | None:
    """Start, wait a random time and send SIGKILL; return None if the training ended before."""
    process, wait = start(folder), rng.uniform(0.5, MAX_WAIT)
    try:
        process.wait(timeout=wait)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return {"seconds": round(wait, 2), "last_checkpoint": newest(folder)}
    return None


def hash_run(folder: Path) -> dict[str, str]:
    """Hash the output of a run: the model, and weights, optimizer and schedule of its last checkpoint."""
    last = folder / "checkpoints" / newest(folder)
    state = torch.load(last / "state.pt", weights_only=True)
    rest = io.BytesIO()
    torch.save({name: state[name] for name in ("optimizer", "schedule")}, rest)
    return {
        "model": hash_file(folder / "model.safetensors"),
        "checkpoint weights": hash_file(last / "weights.safetensors"),
        "optimizer and schedule": hashlib.sha256(rest.getvalue()).hexdigest(),
    }


def main() -> None:
    """Run the comparison."""
    kills, seed = (int(value) for value in (sys.argv[1:] + ["20", "0"][len(sys.argv) - 1 :])[:2])
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        begun = time.perf_counter()
        start(whole).wait()
        print(f"uninterrupted: {time.perf_counter() - begun:.0f} s", flush=True)
        while len(rows) < kills:
            row = kill(killed, rng)
            if row is None:
                sys.exit(f"the training ended after {len(rows)} kills; use fewer kills, or more epochs")
            rows.append(row)
            print(f"kill {len(rows)} after {row['seconds']} s, last checkpoint {row['last_checkpoint']}", flush=True)
        start(killed).wait()
        same = hash_run(whole) == hash_run(killed)
        settings, facts = {"command": TRAIN + EXACT, "seed": seed}, {"bit_identical": same, **hash_run(killed)}
        files.write(Measurement(header=make_header(), script="kills", settings=settings, rows=rows, facts=facts), OUT)
    print(f"{kills} kills: {'bit-identical' if same else 'DIFFERENT RESULT'}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
