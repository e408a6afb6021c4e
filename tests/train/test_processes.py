"""Training in several processes, and in processes that are killed, started from the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from edgeemo.cli import main

ROOT = Path(__file__).parents[2]
FEW_STEPS = ["train", "--recipe", "demo", "--data", "synthetic:120", "--epochs", "2", "--batch-size", "24"]
EXACT = ["--threads", "1", "--precision", "fp32", "--checkpoint-steps", "1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def wait_for(process, output):
    process.join(300)
    assert process.exitcode == 0, output.read_text()


def kill_after(process, folder, checkpoints):
    """Send SIGKILL when that many more checkpoints have been started; partial files remain."""
    before, seen = list_started(folder), set()
    while process.is_alive() and len(seen) < checkpoints:
        seen |= list_started(folder) - before
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL  # it did not end on its own


def list_started(folder):
    """Return the numbers of all checkpoints in a run, complete or not."""
    return {re.sub(r"\D", "", path.name)[:8] for path in (folder / "checkpoints").glob("*")}


def test_a_run_killed_repeatedly_gives_bit_identical_results(tmp_path):
    """SIGKILL three times, between and during checkpoints, then resume: weights, optimizer and log are equal."""
    uninterrupted, parts, output = (tmp_path / name for name in ("uninterrupted", "parts", "output"))
    train = [*FEW_STEPS, *EXACT, "--data", "synthetic:60", "--batch-size", "12", "--out"]
    wait_for(forked.edgeemo(output, *train, uninterrupted), output)
    for checkpoints in (2, 2, 3):
        kill_after(forked.edgeemo(output, *train, parts, "--resume"), parts, checkpoints)
    wait_for(forked.edgeemo(output, *train, parts, "--resume"), output)
    first, second = ((folder / "model.safetensors").read_bytes() for folder in (uninterrupted, parts))
    assert first == second
    newest = [max((folder / "checkpoints").iterdir()) for folder in (uninterrupted, parts)]
    left, right = (load_file(path / "weights.safetensors") for path in newest)
    assert left.keys() == right.keys()
    assert all((left[name] == right[name]).all() for name in left)
    assert epochs(uninterrupted) == epochs(parts)
    states = [torch.load(path / "state.pt", weights_only=True) for path in newest]
    moments = [list(tensors(state["optimizer"])) for state in states]
    assert len(moments[0]) > 50
    assert all(torch.equal(one, other) for one, other in zip(*moments, strict=True))
    assert states[0]["schedule"] == states[1]["schedule"]


def tensors(part):
    """Yield every tensor in nested dicts and lists, in order."""
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, (dict, list, tuple)):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from tensors(inner)


def epochs(folder):
    rows = json.loads((folder / "log.json").read_text())["epochs"]
    return [(row["loss"], row["accuracy"]) for row in rows]


MODES = {"finetune": [], "gradual": ["--unfreeze-epochs", "0.5"]}
EVERY_MODE = """
import sys
import torch.distributed as dist
from edgeemo.cli import main
destroy, commands = dist.destroy_process_group, {commands}
for command in commands:
    # torchrun allows one process group: all trainings share it, and the last one destroys it
    dist.destroy_process_group = destroy if command is commands[-1] else lambda: None
    sys.argv = ["edgeemo", *command]
    main(standalone_mode=False)
"""


def test_two_processes_train_like_one(tmp_path):
    """With torchrun on the CPU (gloo): losses within 3 %, because BatchNorm sees half of each batch.

    One start of torchrun trains in both modes for which DDP is configured differently. Every such training itself
    checks that both processes end with the same weights.
    """

    def command(mode, out):
        deterministic = ("--augment", "none", "--dropout", "0")
        return [*FEW_STEPS, *EXACT, *deterministic, "--mode", mode, *MODES[mode], "--out", str(tmp_path / out)]

    program, output = tmp_path / "every_mode.py", tmp_path / "output"
    program.write_text(EVERY_MODE.format(commands=[command(mode, f"{mode}-two") for mode in MODES]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program]
    done = subprocess.run(torchrun, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for mode in MODES:
        wait_for(forked.edgeemo(output, *command(mode, f"{mode}-one")), output)
        one, two = (epochs(tmp_path / f"{mode}-{processes}") for processes in ("one", "two"))
        for (alone, _), (shared, _) in zip(one, two, strict=True):
            assert shared == pytest.approx(alone, rel=0.03)


def test_a_batch_size_that_processes_cannot_split_is_refused(tmp_path, monkeypatch):
    """Before any face is read."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main, [*FEW_STEPS, "--data", "folder:none", "--batch-size", "25", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "multiple of the 2 processes" in done.output
