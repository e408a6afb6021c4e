"""Several processes, and processes that are killed: real ones, with the words of the command line."""

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


def finished(process, said):
    process.join(300)
    assert process.exitcode == 0, said.read_text()


def killed_after(process, folder, checkpoints):
    """SIGKILL as soon as so many more checkpoints have been begun; whatever is half written stays."""
    before, seen = begun(folder), set()
    while process.is_alive() and len(seen) < checkpoints:
        seen |= begun(folder) - before
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL  # it did not end by itself


def begun(folder):
    """Numbers of the checkpoints that lie in a run, whole or not."""
    return {re.sub(r"\D", "", path.name)[:8] for path in (folder / "checkpoints").glob("*")}


def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path):
    """SIGKILL three times between and inside checkpoints, resumed each time: weights, optimizer and log are equal."""
    whole, parts, said = (tmp_path / name for name in ("whole", "parts", "said"))
    train = [*FEW_STEPS, *EXACT, "--data", "synthetic:60", "--batch-size", "12", "--out"]
    finished(forked.edgeemo(said, *train, whole), said)
    for checkpoints in (2, 2, 3):
        killed_after(forked.edgeemo(said, *train, parts, "--resume"), parts, checkpoints)
    finished(forked.edgeemo(said, *train, parts, "--resume"), said)
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


MODES = {"finetune": [], "gradual": ["--unfreeze-epochs", "0.5"]}
EVERY_MODE = """
import sys
import torch.distributed as dist
from edgeemo.cli import main
leave, commands = dist.destroy_process_group, {commands}
for command in commands:
    # torchrun lets them meet once: all trainings are one meeting's, and the last ends it
    dist.destroy_process_group = leave if command is commands[-1] else lambda: None
    sys.argv = ["edgeemo", *command]
    main(standalone_mode=False)
"""


def test_two_processes_train_as_one_does(tmp_path):
    """Started by torchrun on CPU (gloo): the loss of one within 3 %, since BatchNorm sees half of a batch each.

    One start trains in every mode that DDP is set up for in another way, and thereby twice. That both processes hold
    the same weights in the end is checked by every such training itself.
    """

    def command(mode, out):
        still = ("--augment", "none", "--dropout", "0")
        return [*FEW_STEPS, *EXACT, *still, "--mode", mode, *MODES[mode], "--out", str(tmp_path / out)]

    program, said = tmp_path / "every_mode.py", tmp_path / "said"
    program.write_text(EVERY_MODE.format(commands=[command(mode, f"{mode}-two") for mode in MODES]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program]
    done = subprocess.run(torchrun, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for mode in MODES:
        finished(forked.edgeemo(said, *command(mode, f"{mode}-one")), said)
        one, two = (epochs(tmp_path / f"{mode}-{processes}") for processes in ("one", "two"))
        for (alone, _), (shared, _) in zip(one, two, strict=True):
            assert shared == pytest.approx(alone, rel=0.03)


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    """Said before any face is looked for."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main, [*FEW_STEPS, "--data", "folder:none", "--batch-size", "25", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "multiple of the 2 processes" in done.output
