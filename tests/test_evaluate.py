"""Runs and their ensemble on the same faces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeemo import evaluate
from edgeemo.cli import main
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.labels import label_set
from edgeemo.stages import RECIPES, Evaluate
from edgeemo.train import checkpoint, ensemble
from edgeemo.train.run import run as train

TINY = replace(RECIPES["demo"], data="synthetic:120", epochs=1, batch_size=32, threads=1)
ON_ONE = Evaluate(threads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of unlike networks: one sees 48 px, the other 64."""
    folder = tmp_path_factory.mktemp("runs")
    first = train(replace(TINY, out=str(folder / "first"))).parent
    second = train(replace(TINY, size=64, seed=1, out=str(folder / "second"))).parent
    return [first, second]


def test_an_ensemble_of_unlike_inputs_is_judged_beside_its_members(runs):
    """Rows: both members, with flips too, and the ensemble; each but the first paired with it."""
    result = evaluate.run(runs, replace(ON_ONE, flips=True, last=True))
    names = [row["name"] for row in result["rows"]]
    assert names[:3] == ["first", "first, last weights", "first, flips"]
    assert names[-1] == "ensemble of 2, flips"
    assert result["rows"][-1]["temperature_from"] == "valid"
    assert all(("against_first" in row) == (k > 0) for k, row in enumerate(result["rows"]))
    assert {row["n"] for row in result["rows"]} == {result["faces"]["n"]}


def test_the_result_is_written_and_holds_no_path(runs, tmp_path):
    """JSON as printed; run folders by their last name alone."""
    out = tmp_path / "result.json"
    shown = CliRunner().invoke(main, ["evaluate", *map(str, runs), "--threads", "1", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "ensemble of 2 against first" in shown.output
    text = out.read_text()
    assert str(runs[0].parent) not in text
    assert len(json.loads(text)["rows"]) == 3


def test_flips_average_a_face_and_its_mirror(runs):
    """A face and its mirror image get the same answer."""
    (member,) = ensemble.members(runs[:1])
    faces = evaluate._Decoded("synthetic:60", ON_ONE, label_set("six")).of(member)
    mirrored = replace(faces, pixels=np.ascontiguousarray(faces.pixels[:, :, ::-1]))
    assert member.logits(faces, flips=True) == pytest.approx(member.logits(mirrored, flips=True), abs=1e-4)


def test_runs_with_other_labels_are_refused(runs, tmp_path):
    """Both are named."""
    other = train(replace(TINY, label_set="happiness,sadness", out=str(tmp_path / "two"))).parent
    with pytest.raises(UsageError, match=r"two tells happiness, sadness; expected what gives neutral"):
        evaluate.run([runs[0], other], ON_ONE)


def test_last_weights_without_a_checkpoint_are_refused(tmp_path):
    """The moving average cannot be undone without them."""
    folder = train(replace(TINY, out=str(tmp_path / "run"))).parent
    checkpoint.remove(folder)
    with pytest.raises(IntegrityError, match="checkpoints"):
        evaluate.run([Path(folder)], replace(ON_ONE, last=True))


def test_damaged_last_weights_are_refused(tmp_path):
    """One byte changed in the checkpoint: named, not judged."""
    folder = train(replace(TINY, out=str(tmp_path / "run"))).parent
    file = checkpoint.in_folder(folder)[-1] / checkpoint.WEIGHTS
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged"):
        evaluate.run([folder], replace(ON_ONE, last=True))
