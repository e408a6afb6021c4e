"""`edgeemo predict --prior`: what is assumed is logged once, and the predictions are corrected for it."""

from __future__ import annotations

import json
from pathlib import Path

import make_tiny
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgeemo.cli import main
from edgeemo.runtime.prior import MINIMUM


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def get_probabilities(done: Result) -> dict[str, float]:
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["faces"][0]["probabilities"]


def test_text_and_json_are_corrected(tmp_path: Path, face: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """Of ready crops, in merged labels; the assumption is logged once, not with the predictions."""
    Image.fromarray(face).save(tmp_path / "face.png")
    words = ["--crop", tmp_path / "face.png", "--label-set", "six", "--prior", "sadness=0.9,neutral=0"]
    done = call(*words, "--json")
    found, before = get_probabilities(done), get_probabilities(call(*words[:-2], "--json"))
    assert found["neutral"] == 0 < before["neutral"]
    assert found["sadness"] > before["sadness"]
    (logged,) = [message for message in caplog.messages if "mix of emotions" in message]
    assert logged.startswith("assumed mix of emotions, at strength 1: neutral 0.0 %, happiness ")
    text = call(*words)
    assert f"sadness {100 * found['sadness']:.1f} %" in text.stdout
    weak = get_probabilities(call(*words, "--json", "--prior-strength", "0.5"))
    assert before["sadness"] < weak["sadness"] < found["sadness"]


def test_an_estimate_is_logged_at_the_end(tmp_path: Path, face: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """With how many faces it is from; with too few, that nothing was corrected."""
    one = tmp_path / "face.png"
    Image.fromarray(face).save(one)
    call("--crop", one, "--prior", "auto")
    few = f"nothing was corrected: 1 face so far, the mix of emotions is estimated from {MINIMUM} faces on"
    assert few in caplog.messages
    for k in range(MINIMUM):
        Image.fromarray(face).save(tmp_path / f"{k}.png")
    call("--crop", tmp_path, "--prior", "auto")
    assert f"mix of emotions, estimated from the last {MINIMUM + 1} faces: neutral " in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prior", "neutral=0.9,fear=0.4"], "the shares sum to 1.3"),
        (["--prior", "contempt=0.5", "--label-set", "six"], "the model does not report 'contempt'"),
        (["--prior-strength", "0.5"], "--prior-strength has no effect without --prior"),
        (["--prior", "uniform", "--prior-strength", "2"], "not in the range 0<=x<=1"),
        (["--prior", "uniform", "--model", make_tiny.HERE / "tiny.onnx"], "does not state the shares of the labels"),
    ],
)
def test_a_prior_that_cannot_be_used_is_wrong_usage(words: list[object], message: str) -> None:
    done = call("--sample", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
