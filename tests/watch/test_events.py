"""Records: each face of each frame, and what changes."""

from __future__ import annotations

import json

from watched import LABELS, make_face, make_watched

from edgeemo.watch.aggregate import Aggregate
from edgeemo.watch.events import Changes, describe, list_faces


def test_a_face_is_recorded_with_time_place_and_both_predictions() -> None:
    """As JSON, rounded; the label is the smoothed one."""
    (record,) = list_faces(make_watched(3, make_face(1, "neutral", raw="anger")))
    assert json.loads(json.dumps(record)) == record
    shares = record.pop("probabilities")
    assert record == {
        "event": "face",
        "time": "2027-01-15T08:00:00.120Z",
        "position": None,
        "frame": 3,
        "track": 1,
        "label": "neutral",
        "probability": 0.8,
        "box": [80.0, 30.0, 48.0, 48.0],
        "unsure": False,
        "flags": [],
        "detected": True,
    }
    assert shares["smoothed"]["neutral"] == shares["raw"]["anger"] == 0.8
    assert set(shares["smoothed"]) == set(shares["raw"]) == set(LABELS)


def test_a_file_has_positions() -> None:
    """Seconds since its start."""
    (record,) = list_faces(make_watched(3, make_face(1), live=False))
    assert record["position"] == 0.12


def test_a_frame_without_faces_has_no_record() -> None:
    """Nothing was seen."""
    assert list_faces(make_watched(0)) == []


def test_changes_tell_when_a_track_appears_changes_and_ends() -> None:
    """And nothing in between, also when the label of single frames changes."""
    changes = Changes()
    assert [one["event"] for one in changes.update(make_watched(0, make_face(1)))] == ["appeared"]
    assert changes.update(make_watched(1, make_face(1, raw="anger", seconds=0.04))) == []
    (changed,) = changes.update(make_watched(2, make_face(1, "anger", seconds=0.08)))
    assert (changed["event"], changed["previous"], changed["label"]) == ("changed", "neutral", "anger")
    (ended,) = changes.update(make_watched(50, ended=(1,)))
    assert (ended["event"], ended["reason"], ended["label"]) == ("ended", "lost", "anger")
    assert (ended["frame"], ended["time"], ended["lasted"]) == (50, "2027-01-15T08:00:02.000Z", 0.08)
    assert changes.finish() == []


def test_every_track_that_appeared_ends_once() -> None:
    """Those that are there at the end are stopped; a track that was never shown does not end."""
    changes = Changes()
    changes.update(make_watched(0, make_face(1), make_face(2)))
    changes.update(make_watched(1, make_face(2, seconds=0.04), ended=(1, 7)))
    (ended,) = changes.finish()
    assert (ended["track"], ended["reason"], ended["lasted"]) == (2, "stopped", 0.04)
    assert changes.finish() == []


def test_changes_are_told_in_words() -> None:
    """A line each, with the position in a file."""
    changes = Changes()
    records = changes.update(make_watched(0, make_face(1), live=False))
    records += changes.update(make_watched(25, make_face(1, "anger", seconds=1.0), live=False))
    records += changes.finish()
    assert [describe(record) for record in records] == [
        "0.00 s: face 1 appears: neutral 80 %",
        "1.00 s: face 1 changes: neutral -> anger 80 %",
        "1.00 s: face 1 stays to the end, 1.0 s",
    ]
    (face,) = list_faces(make_watched(0, make_face(1)))
    assert describe(face) == "2027-01-15T08:00:00.000Z: face 1 neutral 80 %"


def test_periods_are_told_in_words() -> None:
    """The labels that were seen, the most frequent first; nothing of too few people."""
    aggregate = Aggregate(60, LABELS, least_people=2)
    records = aggregate.update(make_watched(0, make_face(1), seconds=0.0))
    records += aggregate.update(make_watched(1, *map(make_face, (1, 2, 3)), make_face(4, "anger"), seconds=60.0))
    records += aggregate.finish()
    assert [describe(record) for record in records] == [
        "2027-01-15T08:00:00.000Z: 60 s: withheld, fewer people than --least-people",
        "2027-01-15T08:01:00.000Z: 60 s (partial): 4 faces: neutral 3 (75 %), anger 1 (25 %)",
    ]
