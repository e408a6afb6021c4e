"""Which faces a bench asks about, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import pytest
from PIL import Image

from edgeemo.bench import accuracy
from edgeemo.bench.accuracy import Trial
from edgeemo.errors import UsageError

CLEAR, TORN = "0,8,0,0,1,0,0,0,1,0", "3,4,0,2,0,0,0,0,1,0"  # votes for happiness, with and without a majority
SURE = np.eye(6)


@pytest.fixture
def ferplus_layout(tmp_path: Path, rng: np.random.Generator) -> str:
    """Three train faces; three valid faces, of which the first is a copy of a train face and the last is disputed."""
    faces = {f"fer{k}.png": rng.integers(0, 256, (48, 48), dtype=np.uint8) for k in range(6)}
    faces["fer3.png"] = faces["fer0.png"]
    for folder, names in {"FER2013Train": list(faces)[:3], "FER2013Valid": list(faces)[3:]}.items():
        (tmp_path / folder).mkdir()
        votes = [TORN if name == "fer5.png" else CLEAR for name in names]
        rows = [f'{name},"(0, 0, 48, 48)",{row}' for name, row in zip(names, votes, strict=True)]
        (tmp_path / folder / "label.csv").write_text("\n".join(rows) + "\n")
        for name in names:
            Image.fromarray(faces[name]).save(tmp_path / folder / name)
    return f"ferplus:{tmp_path}"


def asked(data: str, protocol: str = "plurality") -> Trial:
    return accuracy.trial(data, "valid", protocol, make_tiny.card())


def test_both_protocols_are_scored_and_the_one_asked_for_stands_first(ferplus_layout: str) -> None:
    answers = SURE[[1, 1, 0]]  # wrong on the disputed face
    found = accuracy.judged(answers, asked(ferplus_layout))
    assert (found["protocol"], found["n"], found["accuracy"]) == ("plurality", 3, pytest.approx(2 / 3))
    other = found["other_protocol"]
    assert (other["protocol"], other["n"], other["accuracy"]) == ("majority", 2, 1.0)


def test_asking_for_majority_judges_fewer_faces_and_still_shows_plurality(ferplus_layout: str) -> None:
    found = accuracy.judged(SURE[[1, 1, 0]], asked(ferplus_layout, "majority"))
    assert (found["protocol"], found["n"]) == ("majority", 2)
    assert (found["other_protocol"]["protocol"], found["other_protocol"]["n"]) == ("plurality", 3)
    assert found["ids_sha256"] != found["other_protocol"]["ids_sha256"]


def test_copies_of_train_faces_are_left_out_of_the_second_accuracy(ferplus_layout: str) -> None:
    clean = accuracy.judged(SURE[[1, 0, 1]], asked(ferplus_layout))["without_copies"]
    assert (clean["copies"], clean["n"], clean["accuracy"]) == (1, 2, 0.5)


def test_faces_without_a_crowd_have_one_protocol_and_synthetic_ones_no_copies() -> None:
    trial = asked("synthetic:60")
    found = accuracy.judged(SURE[trial.chosen.truth], trial)
    assert found["other_protocol"] is None
    assert found["without_copies"] is None
    assert found["accuracy"] == 1.0


def test_a_model_against_itself_shows_no_difference() -> None:
    trial = asked("synthetic:60")
    answers = SURE[np.arange(12) % 5]
    found = accuracy.compared(answers, answers, trial)
    assert (found["difference"], found["p_value"], found["agreement"]) == (0.0, 1.0, 1.0)
    assert set(found["recall_difference"].values()) == {0.0}


def test_what_a_label_lost_is_told_by_name() -> None:
    trial = asked("synthetic:60")  # labels in turn, two faces each
    baseline = SURE[trial.chosen.truth]
    worse = baseline.copy()
    worse[5] = SURE[0]  # one of two faces of fear
    found = accuracy.compared(baseline, worse, trial)
    assert found["recall_difference"]["fear"] == -0.5
    assert found["difference"] == pytest.approx(-1 / 12)
    assert found["only_baseline_right"] == 1


def test_models_of_other_labels_cannot_be_compared() -> None:
    card = make_tiny.card()
    with pytest.raises(UsageError, match="same labels"):
        accuracy.check_comparable(card, replace(card, labels=card.labels[::-1]))


def test_faces_that_the_model_was_chosen_on_are_called_so() -> None:
    trial = asked("synthetic:60")
    seen = replace(make_tiny.card(), data={"kind": "synthetic"}, metrics={"valid": {"selected_on_valid": True}})
    assert "chosen on these faces" in accuracy.caveat(seen, trial)
    assert "trained on these" in accuracy.caveat(seen, replace(trial, split="train"))
    assert accuracy.caveat(make_tiny.card(), trial) == ""
