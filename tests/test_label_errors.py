"""Wrong labels: one in ten does not spoil a training, and the audit finds them with the trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgeemo.cli import main
from edgeemo.compress.export import to_onnx
from edgeemo.data import audit, samples
from edgeemo.labels import label_set
from edgeemo.metrics import find_label_errors
from edgeemo.report.files import read
from edgeemo.report.render import make_page
from edgeemo.stages import RECIPES, Audit
from edgeemo.train import run as training
from edgeemo.train import run_folder

SIX = label_set("six")
COUNT = 600  # training faces, a tenth of which get the next label


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic faces in folders; every tenth training and test face is in the folder of another label."""
    root = tmp_path_factory.mktemp("faces")
    for split in ("train", "valid", "test"):
        for k, sample in enumerate(samples(f"synthetic:{COUNT}", split, SIX)):
            label = SIX.index(next(iter(sample.votes)))
            wrong = split != "valid" and k % 10 == 0
            folder = root / split / SIX.labels[(label + wrong) % 6]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.read()).save(folder / f"{'wrong' if wrong else 'right'}{k}.png")
    return root


@pytest.fixture(scope="module")
def model(mislabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network trained on these faces."""
    folder = tmp_path_factory.mktemp("run")
    recipe = replace(RECIPES["demo"], epochs=10, ema=0.0, augment="none", precision="fp32")
    training.run(replace(recipe, data=f"folder:{mislabelled}", batch_size=16, threads=1, out=folder))
    network, card = run_folder.load(folder)
    assert card.metrics["valid"].accuracy > 0.6, "one wrong label in ten has spoilt the training"
    to_onnx(network, card, folder / "model.onnx")
    return folder / "model.onnx"


def test_planted_label_errors_are_found_first(mislabelled: Path, model: Path, tmp_path: Path) -> None:
    """On faces that the model has not seen: those with wrong labels are ranked before those that it gets wrong."""
    out = tmp_path / "audit.json"
    words = f"data audit --near 0 --data folder:{mislabelled} --model {model}".split()
    done = CliRunner().invoke(main, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = read(out)
    test = report.splits[2]
    planted = [one for one in test.label_errors if "wrong" in one.id]
    assert len(planted) >= 0.6 * COUNT / 50
    assert sum("wrong" in one.id for one in test.label_errors[:10]) >= 5, "one face in ten has a wrong label"
    assert all(one.label_probability < one.suggested_probability for one in test.label_errors)
    shown = " ".join(make_page(report).to_markdown().split())
    assert f"probable label errors of test by model.onnx: {len(test.label_errors)} of {COUNT // 5} faces" in shown
    assert "The model was trained on faces of this kind of data set" in shown


def test_without_a_model_nothing_is_suspected(mislabelled: Path) -> None:
    """None, not an empty list: it was not looked for."""
    report = audit.run(Audit(data=f"folder:{mislabelled}", near=0))
    assert [split.label_errors for split in report.splits] == [None, None, None]


def test_a_label_is_suspect_only_where_another_reaches_its_own_threshold() -> None:
    """Thresholds are the mean confidences of the given labels: 0.75 and 0.6 here."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.35, 0.65], [0.2, 0.8], [0.85, 0.15]])
    truth = np.array([0, 0, 1, 1, 1, 1])
    assert find_label_errors(probabilities, truth) == [(5, 0)]
    assert find_label_errors(probabilities, np.array([0, 0, 0, 0, 1, 1])) == [(5, 0), (3, 1), (2, 1)]


def test_a_label_without_faces_is_never_suggested() -> None:
    """It has no threshold."""
    assert find_label_errors(np.array([[0.1, 0.3, 0.6], [0.2, 0.3, 0.5]]), np.array([0, 1])) == [(0, 1)]
