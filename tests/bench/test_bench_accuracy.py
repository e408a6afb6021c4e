"""Which faces a bench asks about, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import pytest
import sections
from PIL import Image

from edgeemo.bench import accuracy
from edgeemo.bench.accuracy import Trial
from edgeemo.card import Card, Data, FaceList
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import label_set
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


def asked(data: str, protocol: str = "plurality") -> Trial:
    return accuracy.trial(data, "valid", protocol, make_tiny.card())


def test_both_protocols_are_scored_and_the_one_asked_for_stands_first(ferplus_layout: str) -> None:
    """Wrong on the one disputed face: two of three under plurality, two of two under majority."""
    answers = SURE[[1, 1, 0]]  # wrong on the disputed face
    found = accuracy.judged(answers, asked(ferplus_layout))
    assert (found.faces.protocol, found.n, found.accuracy) == ("plurality", 3, pytest.approx(2 / 3))
    other = found.other_protocol
    assert (other.faces.protocol, other.n, other.accuracy) == ("majority", 2, 1.0)


def test_asking_for_majority_judges_fewer_faces_and_still_shows_plurality(ferplus_layout: str) -> None:
    """The other protocol keeps other faces, and its fingerprint says so."""
    found = accuracy.judged(SURE[[1, 1, 0]], asked(ferplus_layout, "majority"))
    assert (found.faces.protocol, found.n) == ("majority", 2)
    assert (found.other_protocol.faces.protocol, found.other_protocol.n) == ("plurality", 3)
    assert found.faces.ids_sha256 != found.other_protocol.faces.ids_sha256


def test_faces_without_any_majority_have_plurality_alone(tmp_path: Path, six_faces: dict[str, np.ndarray]) -> None:
    """There is no second row then, and only who asks for majority gets an error."""
    torn = lay_out(tmp_path, six_faces, dict.fromkeys(six_faces, TORN))
    found = accuracy.judged(SURE[[1, 1, 1]], asked(torn))
    assert (found.n, found.other_protocol) == (3, None)
    with pytest.raises(DataError, match="'majority'"):
        asked(torn, "majority")


def test_copies_of_train_faces_are_left_out_of_the_second_accuracy(ferplus_layout: str) -> None:
    """One of three valid faces is a copy; one of the other two is right."""
    clean = accuracy.judged(SURE[[1, 0, 1]], asked(ferplus_layout)).without_copies
    assert (clean.copies, clean.n, clean.accuracy) == (1, 2, 0.5)


def test_faces_without_a_crowd_have_one_protocol_and_synthetic_ones_no_copies() -> None:
    """Where nothing differs there is no second row."""
    trial = asked("synthetic:60")
    found = accuracy.judged(SURE[trial.chosen.truth], trial)
    assert found.other_protocol is None
    assert found.without_copies is None
    assert found.accuracy == 1.0


def test_a_model_against_itself_shows_no_difference() -> None:
    """Full agreement, p = 1, no recall moved."""
    trial = asked("synthetic:60")
    answers = SURE[np.arange(12) % 5]
    found = accuracy.compared(answers, answers, trial)
    assert (found.difference, found.p_value, found.agreement) == (0.0, 1.0, 1.0)
    assert set(found.recall_difference.values()) == {0.0}


def test_what_a_label_lost_is_told_by_name() -> None:
    """One of the two fear faces lost is half of its recall."""
    trial = asked("synthetic:60")  # labels in turn, two faces each
    baseline = SURE[trial.chosen.truth]
    worse = baseline.copy()
    worse[5] = SURE[0]  # one of two faces of fear
    found = accuracy.compared(baseline, worse, trial)
    assert found.recall_difference["fear"] == -0.5
    assert found.difference == pytest.approx(-1 / 12)
    assert (found.only_first, found.only_second) == (1, 0)


def test_models_of_other_labels_cannot_be_compared() -> None:
    """The same labels in another order are other labels."""
    turned = label_set(",".join(make_tiny.card().labels[::-1]))
    tiny = make_tiny.HERE / "tiny.onnx"
    with load(tiny) as model, load(tiny, labels=turned) as other, pytest.raises(UsageError, match="same labels"):
        accuracy.check_comparable(model, other)


def chosen_on(trial: Trial, **metrics: object) -> Card:
    """The card of a model whose training judged itself on the faces of the trial."""
    about = FaceList(1, trial.ids_sha256("plurality"))
    data = Data("synthetic", "plurality", train=about, valid=about)
    return replace(make_tiny.card(), data=data, metrics={"valid": sections.metrics(**metrics)})


def test_what_was_chosen_on_these_faces_is_told() -> None:
    """Each choice by its own sentence: the epoch flatters the accuracy, the temperature the calibration error."""
    trial = asked("synthetic:60")
    epoch = accuracy.caveat(chosen_on(trial, selected_on_valid=True), trial)
    temperature = accuracy.caveat(chosen_on(trial, selected_on_valid=False, temperature_fitted_on="valid"), trial)
    assert epoch == "The epoch was chosen on these faces: expect a little less on new ones."
    assert temperature.startswith("The temperature was fitted on these faces")
    assert "epoch" not in temperature
    assert "trained on these" in accuracy.caveat(chosen_on(trial), replace(trial, split="train"))
    assert accuracy.caveat(make_tiny.card(), trial) == ""


def test_other_faces_of_the_same_kind_are_not_called_known() -> None:
    """Two folders, or two draws, are told apart by their ids."""
    seen = chosen_on(asked("synthetic:60"), selected_on_valid=True, temperature_fitted_on="valid")
    assert accuracy.caveat(seen, asked("synthetic:120")) == ""


def test_known_faces_stay_known_where_bench_judges_fewer_of_them(ferplus_layout: str) -> None:
    """The card's list is of its own protocol; majority keeps a part of it."""
    trial = asked(ferplus_layout, "majority")
    card = chosen_on(trial, temperature_fitted_on="valid")
    assert "fitted on these" in accuracy.caveat(replace(card, data=replace(card.data, kind="ferplus")), trial)


def test_the_bar_counts_without_changing_the_probabilities(rng: np.random.Generator) -> None:
    """130 faces in three slices give what the model gives for them at once."""
    pixels = rng.integers(0, 256, (130, 48, 48), dtype=np.uint8)
    with load(make_tiny.HERE / "tiny.onnx") as model:
        assert np.array_equal(accuracy.probabilities(model, pixels), model.probabilities(pixels))
