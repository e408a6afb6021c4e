"""Counts per period, without anything about one person."""

from __future__ import annotations

import json
from typing import Any

import pytest
from watched import LABELS, make_face, make_watched

from edgeemo.errors import UsageError
from edgeemo.watch.aggregate import Aggregate

PEOPLE = range(1, 6)


def run(frames: list[Any], **settings: Any) -> list[dict[str, Any]]:
    aggregate = Aggregate(60, LABELS, **settings)
    return [record for frame in frames for record in aggregate.update(frame)] + aggregate.finish()


def test_a_period_counts_people_by_their_most_frequent_label() -> None:
    """And the share of the time of all faces."""
    crowd = [
        [make_face(track, "anger" if track == 1 and number < 400 else "happiness") for track in PEOPLE]
        for number in range(1500)
    ]
    first, last = run([make_watched(number, *faces) for number, faces in enumerate([*crowd, []])])
    assert first["people"] == 5
    assert (first["time"], first["seconds"], first["partial"]) == ("2027-01-15T08:00:00.000Z", 60, False)
    assert first["frames"] == 1500
    assert {label: row["people"] for label, row in first["labels"].items()} == {
        "neutral": 0,
        "happiness": 5,
        "anger": 0,
    }
    assert first["labels"]["anger"]["share"] == 0.05
    assert (last["partial"], last["withheld"]) == (True, True)


def test_no_record_tells_tracks_boxes_or_moments() -> None:
    """The fields are these, whatever a face has."""
    frames = [make_watched(0, *map(make_face, PEOPLE), seconds=31.5)]
    (record,) = run(frames)
    assert set(record) == {
        "event", "time", "position", "seconds", "partial", "withheld", "frames", "people", "labels"
    }  # fmt: skip
    assert all(set(row) == {"people", "share"} for row in record["labels"].values())
    assert record["time"] == "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize("people", [0, 1, 4])
def test_nothing_is_counted_of_few_people(people: int) -> None:
    """Neither how many there were nor how many frames."""
    (record,) = run([make_watched(n, *map(make_face, range(people))) for n in range(3)])
    assert set(record) == {"event", "time", "position", "seconds", "partial", "withheld"}
    assert record["withheld"] is True


def test_people_of_another_period_do_not_count() -> None:
    """Three and three are not five."""
    frames = [make_watched(n, *(make_face(t) for t in ((1, 2, 3), (4, 5, 6))[n]), seconds=60 * n) for n in range(2)]
    assert [record["withheld"] for record in run(frames)] == [True, True]
    assert [record["withheld"] for record in run(frames, least_people=3)] == [False, False]


def test_a_file_is_counted_on_its_own_clock() -> None:
    """However fast it is read, periods are those of its positions."""
    frames = [make_watched(n, *map(make_face, PEOPLE), live=False, seconds=s) for n, s in enumerate((0, 59, 61, 200))]
    records = run(frames)
    assert [(one["position"], one["time"], one["partial"]) for one in records] == [
        (0, None, False), (60, None, False), (180, None, True)
    ]  # fmt: skip


def test_a_period_that_began_before_the_program_is_partial() -> None:
    """As is the one in which it ends."""
    records = run([make_watched(n, seconds=s) for n, s in enumerate((59.9, 60.0, 120.0))])
    assert [one["partial"] for one in records] == [True, False, True]


def test_time_without_frames_counts_for_no_label() -> None:
    """A camera that was away for a minute does not prolong what was seen after it."""
    seen = [(0, "anger"), (0.5, "anger"), (1, "happiness"), (59, "happiness")]
    frames = [make_watched(n, make_face(1, label), live=False, seconds=s) for n, (s, label) in enumerate(seen)]
    (record,) = run(frames, least_people=1)
    assert record["labels"]["anger"]["share"] == 0.25  # half a second; the others half a second and, of 58, one


def test_a_clock_that_is_set_back_a_little_makes_no_second_record() -> None:
    """As network time does."""
    records = run([make_watched(n, *map(make_face, PEOPLE), seconds=s) for n, s in enumerate((60.0, 59.9, 60.1))])
    assert [record["frames"] for record in records] == [3]


@pytest.mark.parametrize(("seconds", "people"), [(0, 5), (float("nan"), 5), (60, 0)])
def test_senseless_periods_are_refused(seconds: float, people: int) -> None:
    """With what was expected."""
    with pytest.raises(UsageError, match="expected at least 1"):
        Aggregate(seconds, LABELS, least_people=people)


def test_records_are_json() -> None:
    """NaN would not be."""
    for record in run([make_watched(0, *map(make_face, PEOPLE))]):
        json.dumps(record, allow_nan=False)
