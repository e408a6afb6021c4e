"""Which face comes first, whose it is, and the keys of its labels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from candidates import make_candidate

from edgeemo.errors import UsageError
from edgeemo.label.keys import RESERVED, assign_keys, find_label
from edgeemo.label.photos import NOBODY, name_photos
from edgeemo.label.queue import _rank, sort_candidates
from edgeemo.label.run import choose_labels
from edgeemo.labels import FERPLUS8, LABEL_SETS
from edgeemo.predict.sources import list_sources

# Margin by person, of faces numbered in this order.
MARGINS = (("anna", 0.1), ("anna", 0.2), ("anna", 0.3), ("ben", 0.9), ("ben", 0.8), ("cy", 0.5))
FACES = [
    make_candidate(number, Path(f"{number}.png"), person=person, margin=margin)
    for number, (person, margin) in enumerate(MARGINS)
]


def list_numbers(**about: object) -> list[int]:
    return [one.number for one in sort_candidates(FACES, **about)]


def test_people_take_turns_and_the_smallest_margin_comes_first() -> None:
    """In each turn, and among the faces of a person."""
    assert list_numbers(order="margin") == [0, 5, 4, 1, 3, 2]


def test_whoever_has_fewer_labelled_faces_comes_first() -> None:
    """After a stop, the turns go on where they were."""
    assert list_numbers(order="margin", labelled={"anna": 2, "ben": 1}) == [5, 4, 0, 3, 1, 2]


def test_the_random_order_takes_turns_and_does_not_depend_on_the_list() -> None:
    """The same faces come in the same order whatever the order in which they were found, and not by margin."""
    first = [one.image for one in sort_candidates(FACES, order="random")]
    assert first == [one.image for one in sort_candidates(FACES[::-1], order="random")]
    assert {name.partition("/")[0] for name in first[:3]} == {"anna", "ben", "cy"}
    several = [make_candidate(number, Path(f"{number}.png"), margin=number / 100) for number in range(20)]
    assert [one.number for one in sort_candidates(several, order="random")] != list(range(20))


def test_mixed_takes_the_least_margin_and_any_face_in_turn() -> None:
    """From where the labels of a person are; every second person starts with any face."""
    faces = [make_candidate(k, Path(f"{k}.png"), person="anna", margin=k / 100) for k in range(40)]
    closest, drawn = (sort_candidates(faces, order=order) for order in ("margin", "random"))
    ranked = _rank(faces, "mixed", start=0)
    assert (ranked[0], ranked[2]) == (closest[0], next(one for one in closest[1:] if one not in ranked[:2]))
    assert ranked[1] == next(one for one in drawn if one != closest[0])
    assert _rank(faces, "mixed", start=1)[0] == drawn[0]
    assert sorted(one.number for one in ranked) == list(range(40))
    others = [make_candidate(40 + k, Path(f"b{k}.png"), person="ben", margin=k / 100) for k in range(40)]
    first = sort_candidates([*faces, *others])[:2]
    assert {one.number for one in first} == {0, sort_candidates(others, order="random")[0].number}
    assert sort_candidates(faces, labelled={"anna": 1}) == _rank(faces, "mixed", start=1)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def name_all(*paths: Path) -> dict[str, str]:
    return {photo.name: photo.person for photo in name_photos(list_sources(paths, []))}


def test_the_person_is_the_first_folder_below_the_one_that_was_named(tmp_path: Path) -> None:
    """Photos directly in it count as one person."""
    touch(tmp_path, "loose.png", "anna/a.png", "anna/monday/b.png", "ben/a.png")
    assert name_all(tmp_path) == {
        "anna/a.png": "anna",
        "anna/monday/b.png": "anna",
        "ben/a.png": "ben",
        "loose.png": NOBODY,
    }


def test_several_folders_are_named_as_the_one_above_them(tmp_path: Path) -> None:
    """So are files in several folders, as a shell expands a pattern; and a photo named twice is one."""
    touch(tmp_path, "anna/a.png", "ben/a.png")
    whole = name_all(tmp_path)
    assert whole == {"anna/a.png": "anna", "ben/a.png": "ben"}
    assert name_all(tmp_path / "anna", tmp_path / "ben") == whole
    assert name_all(*tmp_path.glob("*/a.png"), tmp_path / "anna" / "a.png") == whole
    assert name_all(tmp_path / "*" / "a.png") == whole


def test_folders_below_several_folders_are_the_people(tmp_path: Path) -> None:
    touch(tmp_path, "door/anna/a.png", "hall/anna/a.png")
    assert name_all(tmp_path / "door", tmp_path / "hall") == {"door/anna/a.png": "anna", "hall/anna/a.png": "anna"}


def test_photos_of_the_same_name_are_refused(tmp_path: Path) -> None:
    """labels.csv could not tell them apart."""
    touch(tmp_path, "x/anna/a.png", "y/anna/a.png")
    with pytest.raises(UsageError, match="give the folder that contains both"):
        name_all(tmp_path / "x" / "anna", tmp_path / "y" / "anna")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such folders")
def test_people_get_folders_that_every_system_allows(tmp_path: Path) -> None:
    """Changed names are marked, so that two people stay two."""
    touch(tmp_path, "a:b/1.png", "a?b/1.png", "CON/1.png", "Zoë/1.png")
    people = name_all(tmp_path)
    assert people["Zoë/1.png"] == "Zoë"
    assert len(set(people.values())) == 4
    assert all(":" not in name and "?" not in name and name != "CON" for name in people.values())


def test_every_label_has_a_digit_and_a_letter_of_its_own() -> None:
    """Its first one where that is free."""
    keys = assign_keys(FERPLUS8)
    assert [own[0] for own in keys.values()] == list("12345678")
    letters = [own[1] for own in keys.values()]
    assert letters == ["n", "h", "r", "e", "a", "d", "f", "c"]
    assert not RESERVED & set(letters)


def test_more_labels_than_keys_are_found_by_their_name() -> None:
    """No label gets the key of another."""
    labels = [f"a{'a' * number}" for number in range(12)]
    keys = assign_keys(labels)
    assert keys[labels[0]] == "1a"
    assert keys[labels[11]] == ""
    assert find_label(labels[11].upper(), keys) == labels[11]


@pytest.mark.parametrize(
    ("text", "label"), [("H", "happiness"), ("5", "anger"), ("Anger", "anger"), (" n\n", "neutral")]
)
def test_a_key_or_a_name_is_a_label(text: str, label: str) -> None:
    assert find_label(text, assign_keys(FERPLUS8)) == label


@pytest.mark.parametrize("text", ["", "s", "u", "9", "ha", "12", "fearful"])
def test_anything_else_is_none(text: str) -> None:
    assert find_label(text, assign_keys(FERPLUS8)) is None


def test_chosen_labels_are_the_models() -> None:
    """Synonyms too, once each, in the order that was chosen; without a choice all of them."""
    assert choose_labels((), FERPLUS8) == FERPLUS8
    assert choose_labels(("happy", "Neutral", "joy"), FERPLUS8) == ("happiness", "neutral")
    assert choose_labels(("six",), FERPLUS8) == LABEL_SETS["six"].labels


@pytest.mark.parametrize("chosen", [("bored",), ("happy", "bored"), ("seventeen",)])
def test_a_label_that_the_model_does_not_predict_is_refused(chosen: tuple[str, ...]) -> None:
    """With those that it predicts."""
    with pytest.raises(UsageError, match=r"unknown label '(bored|seventeen)'; known: neutral, .*six"):
        choose_labels(chosen, FERPLUS8)


def test_a_merged_label_is_not_offered() -> None:
    """A face labelled contempt is not silently stored as neutral."""
    with pytest.raises(UsageError, match="unknown label 'contempt'"):
        choose_labels(("contempt",), LABEL_SETS["six"].labels)
