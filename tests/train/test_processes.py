"""Several processes, and processes that are killed: real ones, on the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
FEW_STEPS = ["train", "--recipe", "demo", "--data", "synthetic:120", "--epochs", "2", "--batch-size", "24"]
EXACT = ["--threads", "1", "--precision", "fp32", "--checkpoint-steps", "1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def edgeemo(*arguments):
    return subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *map(str, arguments)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def killed_after(process, folder, checkpoints):
    """SIGKILL as soon as so many more checkpoints have been begun; whatever is half written stays."""
    before, seen = begun(folder), set()
    while process.poll() is None and len(seen) < checkpoints:
        seen |= begun(folder) - before
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said  # it did not end by itself


def begun(folder):
    """Numbers of the checkpoints that lie in a run, whole or not."""
    return {re.sub(r"\D", "", path.name)[:8] for path in (folder / "checkpoints").glob("*")}


def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path):
    """SIGKILL three times between and inside checkpoints, resumed each time: weights, optimizer and log are equal."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished(edgeemo(*FEW_STEPS, *EXACT, "--out", whole))
    for checkpoints in (2, 2, 3):
        killed_after(edgeemo(*FEW_STEPS, *EXACT, "--out", parts, "--resume"), parts, checkpoints)
    finished(edgeemo(*FEW_STEPS, *EXACT, "--out", parts, "--resume"))
    first, second = ((folder / "model.safetensors").read_bytes() for folder in (whole, parts))
    assert first == second
    newest = [max((folder / "checkpoints").iterdir()) for folder in (whole, parts)]
    left, right = (load_file(path / "weights.safetensors") for path in newest)
    assert left.keys() == right.keys()
    assert all((left[name] == right[name]).all() for name in left)
    assert epochs(whole) == epochs(parts)
    states = [torch.load(path / "state.pt", weights_only=True) for path in newest]
    moments = [list(tensors(state["optimizer"])) for state in states]
    assert len(moments[0]) > 50
    assert all(torch.equal(one, other) for one, other in zip(*moments, strict=True))
    assert states[0]["schedule"] == states[1]["schedule"]


def tensors(part):
    """Every tensor in nested dicts and lists, in order."""
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, (dict, list, tuple)):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from tensors(inner)


def epochs(folder):
    rows = json.loads((folder / "log.json").read_text())["epochs"]
    return [(row["loss"], row["accuracy"]) for row in rows]


@pytest.mark.parametrize("mode", [["finetune"], ["gradual", "--unfreeze-epochs", "0.5"]], ids=lambda mode: mode[0])
def test_two_processes_train_as_one_does(tmp_path, mode):
    """Started by torchrun on CPU (gloo): the loss of one within 3 %, since BatchNorm sees half of a batch each.

    That both hold the same weights in the end is checked by every such training itself.
    """
    same = [*FEW_STEPS, *EXACT, "--augment", "none", "--dropout", "0", "--mode", *mode]
    finished(edgeemo(*same, "--out", tmp_path / "one"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, ROOT / "cli.py", *same, "--out", tmp_path / "two"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for (alone, _), (shared, _) in zip(epochs(tmp_path / "one"), epochs(tmp_path / "two"), strict=True):
        assert shared == pytest.approx(alone, rel=0.03)


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    """Said before any face is looked for."""
    process = subprocess.run(
        [sys.executable, ROOT / "cli.py", *FEW_STEPS, "--data", "folder:none", "--batch-size", "25", "--out", tmp_path],
        env={**ENVIRONMENT, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 2
    assert "multiple of the 2 processes" in process.stderr
