"""The faces of a bench, and the scores of predictions on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import pytest
import sections
from PIL import Image

from edgeemo.bench import accuracy
from edgeemo.bench.accuracy import EvalSet
from edgeemo.card import Answers, Card, Data, FaceList
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import label_set
from edgeemo.report.sections.answers import make_threshold_table
from edgeemo.runtime import load

CLEAR, TORN = "0,8,0,0,1,0,0,0,1,0", "3,4,0,2,0,0,0,0,1,0"  # votes for happiness, with and without a majority
SURE = np.eye(6)


def lay_out(root: Path, faces: dict[str, np.ndarray], votes: dict[str, str]) -> str:
    """FER+ folders of six faces, three in train and three in valid, with these votes; returns the data name."""
    for folder, names in {"FER2013Train": list(faces)[:3], "FER2013Valid": list(faces)[3:]}.items():
        (root / folder).mkdir()
        rows = [f'{name},"(0, 0, 48, 48)",{votes[name]}' for name in names]
        (root / folder / "label.csv").write_text("\n".join(rows) + "\n")
        for name in names:
            Image.fromarray(faces[name]).save(root / folder / name)
    return f"ferplus:{root}"


@pytest.fixture
def six_faces(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Noise under FER+ names."""
    return {f"fer{k}.png": rng.integers(0, 256, (48, 48), dtype=np.uint8) for k in range(6)}


@pytest.fixture
def ferplus_layout(tmp_path: Path, six_faces: dict[str, np.ndarray]) -> str:
    """Three train faces; three valid faces, of which the first is a copy of a train face and the last is disputed."""
    faces = six_faces | {"fer3.png": six_faces["fer0.png"]}
    return lay_out(tmp_path, faces, dict.fromkeys(faces, CLEAR) | {"fer5.png": TORN})


def make_eval_set(data: str, protocol: str = "plurality") -> EvalSet:
    return accuracy.make_eval_set(data, "valid", protocol, make_tiny.card())


def test_both_protocols_are_scored_and_the_one_asked_for_stands_first(ferplus_layout: str) -> None:
    """Wrong on the one disputed face: two of three under plurality, two of two under majority."""
    predicted = SURE[[1, 1, 0]]  # wrong on the disputed face
    scored = accuracy.score(predicted, make_eval_set(ferplus_layout))
    assert (scored.faces.protocol, scored.n, scored.accuracy) == ("plurality", 3, pytest.approx(2 / 3))
    other = scored.other_protocol
    assert (other.faces.protocol, other.n, other.accuracy) == ("majority", 2, 1.0)


def test_asking_for_majority_judges_fewer_faces_and_still_shows_plurality(ferplus_layout: str) -> None:
    """The other protocol keeps other faces, and its fingerprint says so."""
    scored = accuracy.score(SURE[[1, 1, 0]], make_eval_set(ferplus_layout, "majority"))
    assert (scored.faces.protocol, scored.n) == ("majority", 2)
    assert (scored.other_protocol.faces.protocol, scored.other_protocol.n) == ("plurality", 3)
    assert scored.faces.ids_sha256 != scored.other_protocol.faces.ids_sha256


def test_faces_without_any_majority_have_plurality_alone(tmp_path: Path, six_faces: dict[str, np.ndarray]) -> None:
    """Then there is no second row, and requesting majority is an error."""
    torn = lay_out(tmp_path, six_faces, dict.fromkeys(six_faces, TORN))
    scored = accuracy.score(SURE[[1, 1, 1]], make_eval_set(torn))
    assert (scored.n, scored.other_protocol) == (3, None)
    with pytest.raises(DataError, match="'majority'"):
        make_eval_set(torn, "majority")


def test_copies_of_train_faces_are_left_out_of_the_second_accuracy(ferplus_layout: str) -> None:
    """One of three valid faces is a copy; one of the other two is right."""
    clean = accuracy.score(SURE[[1, 0, 1]], make_eval_set(ferplus_layout)).without_copies
    assert (clean.copies, clean.n, clean.accuracy) == (1, 2, 0.5)


def test_faces_without_a_crowd_have_one_protocol_and_synthetic_ones_no_copies() -> None:
    """Where nothing differs there is no second row."""
    eval_set = make_eval_set("synthetic:60")
    scored = accuracy.score(SURE[eval_set.labelled.truth], eval_set)
    assert scored.other_protocol is None
    assert scored.without_copies is None
    assert scored.accuracy == 1.0


def test_selective_accuracy_is_measured_at_the_card_s_threshold_too() -> None:
    """Of the requested protocol's faces, in the order of the thresholds; without one, at the usual ones alone."""
    eval_set = make_eval_set("synthetic:60")
    truth = eval_set.labelled.truth
    predicted = np.full((len(truth), 6), 0.03)
    predicted[np.arange(len(truth)), truth] = np.where(np.arange(len(truth)) < 3, 0.85, 0.6)
    answers = accuracy.score(predicted, eval_set, card_threshold=0.82).answers
    assert answers.card_threshold == 0.82
    assert [point.least_probability for point in answers.points] == [0.5, 0.7, 0.82, 0.9]
    assert [point.answered for point in answers.points] == [len(truth), 3, 3, 0]
    assert accuracy.score(predicted, eval_set).answers.card_threshold is None


def test_the_table_marks_the_card_s_threshold() -> None:
    """And a threshold that no face reaches has no accuracy."""
    eval_set = make_eval_set("synthetic:60")
    predicted = SURE[eval_set.labelled.truth] * 0.8 + 0.2 / 6
    table = make_threshold_table(accuracy.score(predicted, eval_set, card_threshold=0.82).answers)
    assert [row[0] for row in table.rows] == ["50 %", "70 %", "82 % (card)", "90 %"]
    assert table.rows[2][2:4] == ("100.00 %", "100.00 %")
    assert table.rows[3][2:4] == ("0.00 %", "-")


def test_a_model_against_itself_shows_no_difference() -> None:
    """Full agreement, p = 1, no recall moved."""
    eval_set = make_eval_set("synthetic:60")
    predicted = SURE[np.arange(12) % 5]
    scored = accuracy.compare_models(predicted, predicted, eval_set)
    assert (scored.difference, scored.p_value, scored.agreement) == (0.0, 1.0, 1.0)
    assert set(scored.recall_difference.values()) == {0.0}


def test_what_a_label_lost_is_told_by_name() -> None:
    """One of the two fear faces lost is half of its recall."""
    eval_set = make_eval_set("synthetic:60")  # labels in turn, two faces each
    baseline = SURE[eval_set.labelled.truth]
    worse = baseline.copy()
    worse[5] = SURE[0]  # one of two faces of fear
    scored = accuracy.compare_models(baseline, worse, eval_set)
    assert scored.recall_difference["fear"] == -0.5
    assert scored.difference == pytest.approx(-1 / 12)
    assert (scored.only_first, scored.only_second) == (1, 0)


def test_models_of_other_labels_cannot_be_compared() -> None:
    """The same labels in another order are other labels."""
    turned = label_set(",".join(make_tiny.card().labels[::-1]))
    tiny = make_tiny.HERE / "tiny.onnx"
    with load(tiny) as model, load(tiny, labels=turned) as other, pytest.raises(UsageError, match="same labels"):
        accuracy.check_comparable(model, other)


def chosen_on(eval_set: EvalSet, **metrics: object) -> Card:
    """The card of a model whose training was evaluated on the faces of the EvalSet."""
    about = FaceList(1, eval_set.ids_sha256("plurality"))
    data = Data("synthetic", "plurality", train=about, valid=about)
    return replace(make_tiny.card(), data=data, metrics={"valid": sections.metrics(**metrics)})


def test_what_was_chosen_on_these_faces_is_told() -> None:
    """Each choice by its own sentence: the epoch flatters the accuracy, the temperature the calibration error."""
    eval_set = make_eval_set("synthetic:60")
    epoch = accuracy.make_caveat(chosen_on(eval_set, selected_on_valid=True), eval_set)
    temperature = accuracy.make_caveat(
        chosen_on(eval_set, selected_on_valid=False, temperature_fitted_on="valid"), eval_set
    )
    assert epoch == "The epoch was chosen on these faces: expect a little less on new ones."
    assert temperature.startswith("The temperature was fitted on these faces")
    assert "epoch" not in temperature
    assert "threshold" not in temperature
    fitted = replace(
        chosen_on(eval_set, temperature_fitted_on="valid"), answers=Answers(0.7, 0.9, 0.92, 0.9, 0.94, 0.8, 500)
    )
    assert "The threshold was fitted on these faces" in accuracy.make_caveat(fitted, eval_set)
    assert "trained on these" in accuracy.make_caveat(chosen_on(eval_set), replace(eval_set, split="train"))
    assert accuracy.make_caveat(make_tiny.card(), eval_set) == ""


def test_other_faces_of_the_same_kind_are_not_called_known() -> None:
    """Two folders, or two synthetic sets, are distinguished by their ids."""
    seen = chosen_on(make_eval_set("synthetic:60"), selected_on_valid=True, temperature_fitted_on="valid")
    assert accuracy.make_caveat(seen, make_eval_set("synthetic:120")) == ""


def test_known_faces_stay_known_where_bench_judges_fewer_of_them(ferplus_layout: str) -> None:
    """The card's list is of its own protocol; majority keeps a part of it."""
    eval_set = make_eval_set(ferplus_layout, "majority")
    card = chosen_on(eval_set, temperature_fitted_on="valid")
    assert "fitted on these" in accuracy.make_caveat(replace(card, data=replace(card.data, kind="ferplus")), eval_set)


def test_the_bar_counts_without_changing_the_probabilities(rng: np.random.Generator) -> None:
    """130 faces in three slices give what the model gives for them at once."""
    pixels = rng.integers(0, 256, (130, 48, 48), dtype=np.uint8)
    with load(make_tiny.HERE / "tiny.onnx") as model:
        assert np.array_equal(accuracy.predict_probabilities(model, pixels), model.probabilities(pixels))
