"""Kill a training twenty times at random moments, resume it each time, and compare the end with a run left in peace.

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

from edgeemo.artifact import sha256_of
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "training" / "kills.json"
TRAIN = ["train", "--recipe", "demo", "--data", "synthetic:600", "--epochs", "110", "--batch-size", "64"]
EXACT = ["--threads", "1", "--checkpoint-steps", "3", "--resume"]
LONGEST = 20.0  # seconds until a kill; starting takes about five of them


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A training in `folder`, from its last checkpoint on."""
    command = [sys.executable, str(ROOT / "cli.py"), "--quiet", *TRAIN, *EXACT, "--out", str(folder)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def newest(folder: Path) -> str:
    """Name of the last whole checkpoint."""
    return max((path.name for path in (folder / "checkpoints").glob("[0-9]*")), default="none")


def killed(folder: Path, rng: random.Random) -> dict[str, object] | None:
    """Start, wait a random time, SIGKILL; None if the training ended before."""
    process, wait = start(folder), rng.uniform(0.5, LONGEST)
    try:
        process.wait(timeout=wait)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return {"seconds": round(wait, 2), "last_checkpoint": newest(folder)}
    return None


def contents(folder: Path) -> dict[str, str]:
    """Hashes of what a run leaves: the model, and weights, optimizer and schedule of its last checkpoint."""
    last = folder / "checkpoints" / newest(folder)
    state = torch.load(last / "state.pt", weights_only=True)
    rest = io.BytesIO()
    torch.save({name: state[name] for name in ("optimizer", "schedule")}, rest)
    return {
        "model": sha256_of(folder / "model.safetensors"),
        "checkpoint weights": sha256_of(last / "weights.safetensors"),
        "optimizer and schedule": hashlib.sha256(rest.getvalue()).hexdigest(),
    }


def main() -> None:
    """Run the comparison."""
    kills, seed = (int(value) for value in (sys.argv[1:] + ["20", "0"][len(sys.argv) - 1 :])[:2])
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        peace, war = Path(scratch) / "peace", Path(scratch) / "war"
        begun = time.perf_counter()
        start(peace).wait()
        print(f"left in peace: {time.perf_counter() - begun:.0f} s", flush=True)
        while len(rows) < kills:
            row = killed(war, rng)
            if row is None:
                sys.exit(f"the training ended after {len(rows)} kills; ask for fewer, or make it longer")
            rows.append(row)
            print(f"kill {len(rows)} after {row['seconds']} s, last checkpoint {row['last_checkpoint']}", flush=True)
        start(war).wait()
        same = contents(peace) == contents(war)
        settings, facts = {"command": TRAIN + EXACT, "seed": seed}, {"bit_identical": same, **contents(war)}
        files.write(Measurement(header=make_header(), script="kills", settings=settings, rows=rows, facts=facts), OUT)
    print(f"{kills} kills: {'the same bits' if same else 'ANOTHER END'}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
