"""Corruptions of a camera: their effect on pixels, and how bench reports them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeemo.bench import accuracy, gates, robustness
from edgeemo.bench.robustness import CORRUPTIONS, STRENGTHS, corrupt
from edgeemo.bench.run import run, write
from edgeemo.card import InputContract
from edgeemo.data import load
from edgeemo.errors import UsageError
from edgeemo.labels import label_set
from edgeemo.report.result import BenchResult
from edgeemo.runtime import Model
from edgeemo.runtime import load as open_model
from edgeemo.stages import Bench

SIX = label_set("six")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return load("synthetic:60", "valid", SIX, contract=InputContract(48)).pixels


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_is_further_from_the_face(faces: np.ndarray, name: str) -> None:
    """Every corruption changes the pixels, and more of it changes them more; shape, type and the originals stay."""
    before = faces.copy()
    seen = [corrupt(faces, name, strength) for strength in range(len(STRENGTHS))]
    changes = [distance(faces, one) for one in seen]
    assert 1 < changes[0] < changes[1] < changes[2]
    assert {(one.shape, one.dtype) for one in seen} == {(faces.shape, faces.dtype)}
    assert np.array_equal(faces, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_face_is_corrupted_alike_whoever_asks_and_in_colour_too(faces: np.ndarray, name: str) -> None:
    """By the seed of its own number; a gray face in three channels stays gray but for noise and JPEG's colours."""
    assert np.array_equal(corrupt(faces[:3], name, 2), corrupt(faces, name, 2)[:3])
    coloured = np.repeat(faces[:3, ..., None], 3, axis=3)
    result = corrupt(coloured, name, 1)
    assert result.shape == coloured.shape
    if name not in ("sensor noise", "JPEG"):
        assert distance(result[..., 0], corrupt(faces[:3], name, 1)) < 1


def test_known_pixels_move_and_darken_as_said() -> None:
    """A gray of 100 becomes 60 where it is dark; a bright dot moves by a tenth of the side, or lies outside a crop."""
    face = np.full((1, 40, 40), 100, np.uint8)
    assert set(np.unique(corrupt(face, "dark", 0))) == {60}
    face[0, 20, 20] = 255
    (found,) = np.argwhere(corrupt(face, "crop off centre", 1)[0] == 255)
    assert sorted(np.abs(found - 20)) == [4, 4]
    face[0, 0, 0] = 255
    assert corrupt(face, "crop too tight", 1)[0, 0, 0] == 100
    assert (corrupt(face, "partly covered", 1)[0] == 0).sum() == 12 * 12


def test_accuracy_is_that_of_the_corrupted_faces_and_the_mean_over_all() -> None:
    """With the packaged model, whose correct predictions under noise can be counted separately."""
    with open_model() as model:
        eval_set = accuracy.make_eval_set("synthetic:80", "valid", "plurality", model.card)
        pixels = accuracy.decode_faces(eval_set, model.card.input)
        found = robustness.measure_robustness(model, pixels, eval_set)
        predicted = model.probabilities(corrupt(pixels, "sensor noise", 2)).argmax(1)
    assert found.accuracy["sensor noise"][2] == (predicted == eval_set.labelled.truth).mean()
    assert found.mean == pytest.approx(np.mean([share for shares in found.accuracy.values() for share in shares]))
    assert set(found.accuracy) == set(CORRUPTIONS)


def test_a_model_of_one_channel_in_three_meets_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """For gray3 the noise is the same in all channels, as in every image of its contract."""
    with open_model() as model:
        eval_set = accuracy.make_eval_set("synthetic:80", "valid", "plurality", model.card)
        pixels = np.repeat(accuracy.decode_faces(eval_set, model.card.input)[..., None], 3, axis=3)
        card = replace(model.card, input=replace(model.card.input, colour="gray3"))
        gray3 = Model(model.path, card, model.backend, model.label_set)
    shown: list[np.ndarray] = []

    def right(_: object, seen: np.ndarray) -> np.ndarray:
        shown.append(seen)
        return np.eye(len(eval_set.labels.labels))[np.zeros(len(seen), int)]

    monkeypatch.setattr(accuracy, "predict_probabilities", right)
    robustness.measure_robustness(gray3, pixels, eval_set)
    assert len(shown) == 1 + len(CORRUPTIONS) * len(STRENGTHS)
    assert all((seen == seen[..., :1]).all() and seen.shape[1:] == (48, 48, 3) for seen in shown)


@pytest.mark.usefixtures("quick")
def test_bench_tells_it_and_can_hold_a_gate_on_it(tiny: Path, tmp_path: Path) -> None:
    """A table in the report and a gate; without the option the gate names the missing option."""
    (tmp_path / "t.toml").write_text("robust_accuracy = 99\n")
    config = Bench(engine=str(tiny), data="synthetic:60", runs=5, target=str(tmp_path / "t.toml"), robustness=True)
    result = run(config)
    (row,) = result.gates
    assert row.measured == result.robustness.mean
    assert row.outcome == "fail"
    page = write(result, tmp_path / "page.json").read_text()
    assert "## Robustness: accuracy under corruption" in page
    assert "| out of focus |" in page
    assert run(replace(config, robustness=False)).gates[0].says.endswith("not measured: add --robustness")


def test_without_faces_there_is_nothing_to_corrupt(tiny: Path) -> None:
    """Refused before anything is measured."""
    with pytest.raises(UsageError, match="--robustness has no effect without --data"):
        run(Bench(engine=str(tiny), robustness=True))


def test_a_gate_on_robustness_without_the_measurement_is_not_measured(result: BenchResult) -> None:
    """It names the option that is missing."""
    (row,) = gates.check_gates(gates.Target("robust", {"robust_accuracy": 0.5}), replace(result, robustness=None))
    assert row.outcome == "not measured"
