"""What labelling writes: it can be stopped, killed and resumed at any time, and reads back as labelled faces."""

from __future__ import annotations

import csv
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from candidates import LABELS, make_candidate

from edgeemo import artifact, images
from edgeemo.card import Crop
from edgeemo.data.crop_record import CropRecord
from edgeemo.data.label_record import COLUMNS
from edgeemo.data.label_record import LABELS as TABLE
from edgeemo.data.layouts.folder import open_folder
from edgeemo.errors import DataError, MachineError, UsageError
from edgeemo.label.find import Candidate
from edgeemo.label.session import OtherFaceError, Session
from edgeemo.label.store import Store

KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [{fixtures!r}]
from candidates import LABELS, make_candidate
import numpy as np
from edgeemo.label.store import Store
store = Store(Path({out!r}), LABELS, None)
store.prepare()
Path.replace = lambda *_: os.kill(os.getpid(), {signal})
store.add(make_candidate(0, Path({photo!r})), "anger", np.zeros((40, 40), np.uint8))
"""


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def list_crops(out: Path) -> list[str]:
    return sorted(file.relative_to(out).as_posix() for file in out.glob("*/*/*"))


def number_of(session: Session) -> int:
    assert session.shown
    return session.shown.face.number


def test_a_label_writes_a_crop_and_a_row(session: Session, crops: list[Candidate], out: Path) -> None:
    """The pixels as they are, below label and person."""
    session.label(0, "anger")
    (row,) = read_table(out)
    assert (row["image"], row["box"], row["person"], row["label"]) == ("anna/0.png", "0 0 40 40", "anna", "anger")
    assert row["when"].endswith("+00:00")
    (name,) = list_crops(out)
    assert name.startswith("anger/anna/0-")
    assert np.array_equal(images.read(out / name), crops[0].photo.source.read())


def test_the_next_call_goes_on_where_the_last_one_stopped(open_session: Callable[[], Session]) -> None:
    """Labelled and skipped faces are not shown again, and still counted."""
    first = open_session()
    first.label(0, "anger")
    first.label(1, "")
    second = open_session()
    assert number_of(second) == 2
    progress = second.get_progress()
    assert (progress.labelled, progress.skipped, progress.left) == (1, 1, 2)
    assert progress.labels == {"neutral": 0, "happiness": 0, "anger": 1}
    assert progress.people == {"anna": 1, "ben": 0}


def test_undo_removes_crop_and_row_and_shows_the_face_again(session: Session, out: Path) -> None:
    """And the one that was shown after it; empty folders, which data sets refuse, go with it."""
    session.label(0, "anger")
    session.label(1, "happiness")
    assert session.undo() == "happiness"
    assert number_of(session) == 1
    assert [row["label"] for row in read_table(out)] == ["anger"]
    assert not (out / "happiness").exists()
    session.label(1, "neutral")
    assert number_of(session) == 2


def test_undo_reaches_skipped_faces_and_those_of_an_earlier_call(open_session: Callable[[], Session]) -> None:
    """Until nothing is left to undo."""
    open_session().label(0, "anger")
    session = open_session()
    session.label(1, "")
    assert [session.undo(), number_of(session)] == ["skipped", 1]
    assert [session.undo(), number_of(session)] == ["anger", 0]
    assert session.undo() == ""
    assert session.get_progress().left == 4


def test_the_last_answer_can_be_undone_when_all_faces_are_done(session: Session) -> None:
    for number in range(4):
        session.label(number, "anger")
    assert session.shown is None
    session.undo()
    assert number_of(session) == 3


def test_an_answer_to_another_face_is_refused(session: Session, out: Path) -> None:
    """As after a double click: the second one must not label the face that came next."""
    session.label(0, "anger")
    with pytest.raises(OtherFaceError):
        session.label(0, "anger")
    assert len(read_table(out)) == 1


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_photo_that_is_gone_or_changed_is_left_out(
    session: Session, crops: list[Candidate], change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the reason; its face would be cut out of another picture."""
    file = crops[1].photo.source.path
    assert file
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes((file.parent / "3.png").read_bytes())
    session.label(0, "anger")
    assert number_of(session) == 2
    assert ("does not exist" if change == "gone" else "has changed") in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="no process of Windows ends by a signal")
def test_a_process_killed_before_the_rename_leaves_nothing_that_counts(
    open_session: Callable[[], Session], crops: list[Candidate], out: Path
) -> None:
    """Its row has no crop: the face is shown again, and what the dead process left is removed."""
    fixtures = str(Path(__file__).parents[1] / "fixtures")
    photo = str(crops[0].photo.source.path)
    # Creates the folder and then dies at the first rename, that of the crop.
    open_session()
    program = KILLED.format(fixtures=fixtures, out=str(out), photo=photo, signal=int(signal.SIGKILL))
    program = program.replace("store.prepare()", "store._size = (store.out / 'labels.csv').stat().st_size")
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read_table(out)) == 1
    assert [name.rpartition("/")[2][0] for name in list_crops(out)] == ["."]
    session = open_session()
    assert number_of(session) == 0
    assert read_table(out) == []
    assert list_crops(out) == []


def test_a_row_that_was_cut_is_dropped(open_session: Callable[[], Session], out: Path) -> None:
    """As when the power fails while it is written."""
    session = open_session()
    session.label(0, "anger")
    session.label(1, "anger")
    whole = (out / TABLE).read_bytes()
    (out / TABLE).write_bytes(whole[:-9])
    assert number_of(open_session()) == 1
    assert len(read_table(out)) == 1


def test_a_crop_that_cannot_be_written_leaves_no_row(
    session: Session, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk; the face is still shown."""

    def fail(_: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(artifact, "_sync", fail)
    with pytest.raises(MachineError, match="No space left"):
        session.label(0, "anger")
    assert number_of(session) == 0
    assert read_table(out) == []
    assert list_crops(out) == []


def test_a_crop_removed_by_hand_is_shown_again_and_a_moved_one_is_relabelled(
    open_session: Callable[[], Session], out: Path
) -> None:
    """What is in the folders counts, so that mistakes can be corrected in a file manager."""
    session = open_session()
    session.label(0, "anger")
    session.label(1, "anger")
    removed, moved = (out / name for name in list_crops(out))
    removed.unlink()
    target = out / "neutral" / "ben" / moved.name
    target.parent.mkdir(parents=True)
    moved.rename(target)
    again = open_session()
    assert number_of(again) == 0
    assert [(row["image"], row["label"]) for row in read_table(out)] == [("ben/1.png", "neutral")]


def test_another_process_on_the_same_folder_is_noticed(open_session: Callable[[], Session], out: Path) -> None:
    """Neither loses the rows of the other."""
    first, second = open_session(), open_session()
    first.label(0, "anger")
    with pytest.raises(UsageError, match="changed by another program"):
        second.label(0, "neutral")
    with pytest.raises(UsageError, match="changed by another program"):
        second.label(0, "")
    assert [row["label"] for row in read_table(out)] == ["anger"]
    assert len(list_crops(out)) == 1


def test_a_box_that_has_moved_a_little_is_the_same_face(session: Session, crops: list[Candidate], out: Path) -> None:
    """Detectors differ in the last digits between processors; another face of the photo is a new one."""
    session.label(0, "anger")
    store = Store(out, LABELS, None)
    moved, other = (replace(crops[0], box=box) for box in ((0.01, 2.0, 39.0, 40.0), (30.0, 0.0, 40.0, 40.0)))
    assert store.leave_out_known([moved, other]) == [other]


@pytest.mark.parametrize("content", ["notes.txt", "labels.csv"])
def test_a_folder_of_something_else_is_refused(out: Path, content: str) -> None:
    """Also one with a table of the same name."""
    out.mkdir()
    (out / content).write_text("image,label\na.png,1\n")
    with pytest.raises(UsageError, match="not written by edgeemo label"):
        Store(out, LABELS, None)
    assert [file.name for file in out.iterdir()] == [content]


def test_an_empty_folder_is_taken_and_a_file_is_not(out: Path) -> None:
    """Also one with the files of a file manager."""
    out.mkdir()
    (out / ".DS_Store").touch()
    Store(out, LABELS, None).prepare()
    with pytest.raises(UsageError, match="is no folder"):
        Store(out / TABLE, LABELS, None)


def test_labels_of_another_model_are_refused(session: Session, out: Path) -> None:
    """They would be read as a label that it lacks."""
    session.label(0, "anger")
    with pytest.raises(UsageError, match="labelled anger, which the model does not predict"):
        Store(out, ("bored", "tired"), None)


def test_crops_of_another_kind_are_refused(session: Session, out: Path) -> None:
    """Ready crops and those of whole photos in one folder would be read as cropped alike."""
    session.label(0, "anger")
    with pytest.raises(UsageError, match="holds ready crops, not crops of whole photos"):
        Store(out, LABELS, CropRecord(1, Crop(2.8, 0.3, 10.0)))


def test_a_faulty_row_is_reported_with_its_line(session: Session, out: Path) -> None:
    """And nothing is changed."""
    session.label(0, "anger")
    with (out / TABLE).open("a") as file:
        file.write("a.png,1 2 3,anna,anger,now\n")
    before = (out / TABLE).read_bytes()
    with pytest.raises(DataError, match="line 3: expected image, box, person, label, when"):
        Store(out, LABELS, None)
    assert (out / TABLE).read_bytes() == before


def test_odd_names_of_photos_come_back(out: Path, tmp_path: Path) -> None:
    """Commas, quotes and letters of any alphabet."""
    file = tmp_path / 'ä, "b" 笑.png'
    images.Image.fromarray(np.zeros((40, 40), np.uint8)).save(file)
    one = make_candidate(0, file)
    store = Store(out, LABELS, None)
    store.prepare()
    store.add(one, "anger", np.zeros((40, 40), np.uint8))
    assert Store(out, LABELS, None).leave_out_known([one]) == []


@pytest.mark.parametrize(
    ("labels", "person"),
    [(LABELS, "anna"), (LABELS, "test"), (("bored", "tired", "calm"), "anna"), (("bored", "tired", "test"), "anna")],
)
def test_the_folder_reads_back_as_labelled_faces(
    labels: tuple[str, ...], person: str, out: Path, crops: list[Candidate], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a warning; also people and labels with the name of a split, and labels that are no emotions."""
    caplog.set_level(logging.INFO)
    store = Store(out, labels, CropRecord(1, Crop(2.8, 0.3, 10.0)))
    store.prepare()
    for number, one in enumerate(crops):
        photo = replace(one.photo, person=person if number < 2 else "ben")
        store.add(replace(one, photo=photo), labels[number % 3], one.photo.source.read())
    data = open_folder(out)
    found = [(sample.id.split("/")[:2], sample.votes) for sample in data.samples("train")]
    expected = [([labels[k % 3], person if k < 2 else "ben"], {labels[k % 3]: 1.0}) for k in range(4)]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert data.crop == Crop(2.8, 0.3, 10.0)
    assert data.unused == []
    assert not caplog.records
    assert read_table(out)[0].keys() == set(COLUMNS)
