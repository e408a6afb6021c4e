"""The data audit finds planted faults."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgeemo.data import audit
from edgeemo.data.sample import DataSet, Sample
from edgeemo.errors import DataError
from edgeemo.labels import label_set
from edgeemo.report.files import read
from edgeemo.report.render import make_page
from edgeemo.stages import Audit


@pytest.fixture
def planted(folder_of_faces, tmp_path):
    """Train and valid folders with one exact copy, one mirrored copy and one unreadable file in valid."""
    root = tmp_path / "planted"
    shutil.copytree(folder_of_faces, root / "train")
    for label in (root / "train").iterdir():
        (root / "valid" / label.name).mkdir(parents=True)
        shutil.copy(label / "0.png", root / "valid" / label.name / "copy.png") if label.name == "fear" else None
        gradient = np.linspace(0, 255, 48 * 48, dtype=np.uint8).reshape(48, 48)
        noise = np.random.default_rng(len(label.name)).permutation(gradient.ravel()).reshape(48, 48)
        Image.fromarray(noise).save(root / "valid" / label.name / "own.png")
    with Image.open(root / "train" / "angry" / "0.png") as image:
        ImageOps.mirror(image).save(root / "valid" / "angry" / "mirrored.png")
    (root / "valid" / "happy" / "broken.png").write_bytes(b"\x89PNG")
    return root


def counts_of(split, protocol):
    (counts,) = (counts for counts in split.labels if counts.protocol == protocol)
    return counts


def test_planted_faults_are_found(planted):
    """One exact copy, one mirrored near copy and one unreadable file, by id, and nothing else."""
    report = audit.run(Audit(data=f"folder:{planted}"))
    (across,) = report.copies_across
    exact, mirrored = ["valid/fear/copy.png", "train/fear/0.png"], ["valid/angry/mirrored.png", "train/angry/0.png"]
    assert (across.split, across.other, across.exact, across.near) == (
        "valid",
        "train",
        [exact],
        [mirrored, exact],
    )
    train, valid = report.splits
    assert (train.split, valid.split) == ("train", "valid")
    assert list(valid.unreadable) == ["valid/happy/broken.png"]
    assert counts_of(train, "plurality").faces["fear"] == 10


def test_report_can_be_printed_and_tells_no_folder(planted, tmp_path):
    """The tables are made of the report alone, and the report of ids alone; the file gives the same ones."""
    report = audit.run(Audit(data=f"folder:{planted}", out=str(tmp_path / "audit.json")))
    page = make_page(report).to_markdown()
    assert "| valid in train |" in page
    assert "unreadable: " in page
    assert str(planted) not in json.dumps(report.to_json()) + page
    assert read(tmp_path / "audit.json") == report


def test_duplicates_within_a_split_are_pairs(folder_of_faces):
    """Each duplicate with the first face of the same pixels; near ones both ways, since neither is the original."""
    for name in ("x", "y"):
        shutil.copy(folder_of_faces / "fear" / "3.png", folder_of_faces / "fear" / f"{name}.png")
    shutil.copytree(folder_of_faces, folder_of_faces.parent / "laid" / "train")
    found = audit.run(Audit(data=f"folder:{folder_of_faces.parent / 'laid'}")).splits[0]
    three, x, y = (f"train/fear/{name}.png" for name in "3xy")
    assert found.exact_repeats == [[x, three], [y, three]]
    assert found.near_repeats == [[three, x], [x, three], [y, three]]


def test_near_duplicates_are_found_across_blocks(monkeypatch):
    """Hashes are compared in blocks; a face never matches itself, in whichever block it is."""
    monkeypatch.setattr(audit, "BLOCK", 2)
    hashes = [0, 2**40 - 1, 1, 2**64 - 1, 2**40 - 2]
    split = audit.SplitHashes(ids=list("abcde"), near=[(own, own ^ (2**20 - 1) << 22) for own in hashes])
    assert audit._find_near_pairs(split, split, 5) == [["a", "c"], ["b", "e"], ["c", "a"], ["e", "b"]]


def test_a_face_that_is_too_small_is_unreadable(planted):
    """The audit lists faces that would make training fail."""
    Image.new("L", (15, 48)).save(planted / "valid" / "fear" / "small.png")
    found = audit.run(Audit(data=f"folder:{planted}", near=0)).splits[1].unreadable
    assert "at least 16" in found["valid/fear/small.png"]


def test_ties_are_listed_but_not_faces_without_votes(monkeypatch):
    """Two labels with the most votes are a tie; if all votes are dropped, there is none."""
    votes = {"tied": {"fear": 5.0, "anger": 5.0}, "scattered": {"fear": 1.0, "anger": 1.0}, "clear": {"fear": 9.0}}
    found = [Sample(name, each, lambda: np.zeros((48, 48), np.uint8), ()) for name, each in votes.items()]
    opened = DataSet("x", "votes", {"train": "here"}, lambda _split: found)
    monkeypatch.setattr(audit.faces, "open_data", lambda _data: opened)
    split = audit.run(Audit(data="ferplus:x", near=0)).splits[0]
    assert split.ties == ["tied"]
    counts = counts_of(split, "majority")
    assert (counts.faces, counts.dropped) == (dict.fromkeys(label_set("six").labels, 0) | {"fear": 1}, 2)


def test_data_without_any_split_is_refused(tmp_path):
    """The error has the layout that was expected."""
    with pytest.raises(DataError, match=r"expected FER2013Train/label\.csv"):
        audit.run(Audit(data=f"ferplus:{tmp_path}"))


@pytest.mark.ferplus
def test_real_faces_leak_across_splits(ferplus):
    """279 of the 3,579 valid faces of FER+ are byte-identical to a train face."""
    (across,) = audit.run(Audit(data=ferplus, near=0)).copies_across
    assert (across.n, len(across.exact)) == (3579, 279)
