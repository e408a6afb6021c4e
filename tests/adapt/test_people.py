"""Who is on each face: folders, file names or a table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeemo.adapt.people import find_people
from edgeemo.errors import DataError, UsageError

LABELS = ("anger", "happiness", "neutral")
IDS = ["happiness/anna/1.png", "anger/ben/2.png", "anger/ben/3.png"]


def test_the_folder_of_a_face_is_its_person() -> None:
    assert find_people("folder", IDS, LABELS) == ["anna", "ben", "ben"]
    assert find_people("folder", ["train/anger/ben/2.png"], LABELS) == ["ben"]
    assert find_people("folder", ["happiness/joy/1.png", "anger/ben/monday/2.png"], LABELS) == ["joy", "ben"]


@pytest.mark.parametrize("one", ["anger/4.png", "train/Happy/4.png", "4.png"])
def test_a_face_in_the_folder_of_its_label_has_no_person(one: str) -> None:
    """Synonyms are labels too."""
    with pytest.raises(DataError, match=r"1 of 4 faces have no person: .*; expected LABEL/PERSON/FACE.png"):
        find_people("folder", [*IDS, one], LABELS)


@pytest.mark.parametrize(
    ("pattern", "expected"), [("s[0-9]+", ["s01", "s2"]), ("_(s[0-9]+)_", ["s01", "s2"]), ("^(.)", ["x", "y"])]
)
def test_a_pattern_finds_the_person_in_the_file_name(pattern: str, expected: list[str]) -> None:
    """The first group, or all that matches; folders are not searched."""
    assert find_people(f"name:{pattern}", ["s99/x_s01_3.png", "anger/y_s2_1.png"], LABELS) == expected


def test_a_name_without_a_match_is_an_error() -> None:
    with pytest.raises(DataError, match=r"2 of 3 faces have no person: anger/ben/2.png.*no match of '1' in the file"):
        find_people("name:1", IDS, LABELS)
    with pytest.raises(UsageError, match="name:\\(: not a valid regular expression"):
        find_people("name:(", IDS, LABELS)


@pytest.mark.parametrize(
    ("header", "column", "name"),
    [("image,person", "", "{}"), ("file,subject", ":subject", "{}"), ("who,path", ":who", "photos\\{}")],
)
def test_a_table_names_people_by_file(tmp_path: Path, header: str, column: str, name: str) -> None:
    """By the id of a face, or its file name alone; the columns may have other names and orders."""
    table = tmp_path / "people.csv"
    rows = {"1.png": "anna", "ben/2.png": "ben", "anger/ben/3.png": "ben"}
    cells = [(name.format(one), who) for one, who in rows.items()]
    lines = [",".join(pair if header != "who,path" else pair[::-1]) for pair in cells]
    table.write_text("\n".join([header, *lines]), encoding="utf-8-sig")
    assert find_people(f"csv:{table}{column}", IDS, LABELS) == ["anna", "ben", "ben"]


def test_a_table_with_two_people_for_a_face_is_an_error(tmp_path: Path) -> None:
    """1.png may be of any of them."""
    table = tmp_path / "people.csv"
    table.write_text("image,person\na/1.png,anna\nb/1.png,ben\n")
    with pytest.raises(DataError, match=r"several people for happiness/anna/1.png: anna, ben"):
        find_people(f"csv:{table}", IDS, LABELS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image,who\n1.png,anna\n", "expected a column 'person' and one of image, path, file, name; got image, who"),
        ("", "got no row"),
        ("image,person\n1.png,anna\n2.png,\n3.png,ben\n", "1 of 3 faces have no person: anger/ben/2.png; no row of"),
        ("image,person\n1.png,anna\n2.png\n3.png,ben\n", "1 of 3 faces have no person"),
    ],
)
def test_a_table_that_lacks_something_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    table = tmp_path / "people.csv"
    table.write_text(content)
    with pytest.raises(DataError, match=words):
        find_people(f"csv:{table}", IDS, LABELS)


def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="cannot be read as a table: File name too long"):
        find_people(f"csv:{'a' * 300}", IDS, LABELS)
    (tmp_path / "latin.csv").write_bytes(b"image,person\n1.png,Andr\xe9\n")
    for name in ("absent.csv", "latin.csv", "pipe.csv"):
        with pytest.raises(DataError, match=f"{name} cannot be read as a table"):
            find_people(f"csv:{tmp_path / name}", IDS, LABELS)


@pytest.mark.parametrize("spec", ["", "folders", "folder:x", "name:", "csv:", "person"])
def test_another_way_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"expected folder, name:PATTERN or csv:FILE\[:COLUMN\]"):
        find_people(spec, IDS, LABELS)
