"""What is recorded of a watched frame: every face of every frame, or only what changes.

All records are dicts of JSON values. These fields are in each:

    event        `face`, or of a change `appeared`, `changed`, `ended`
    time         when the frame was read: UTC in ISO 8601 with milliseconds, as 2026-11-28T17:54:03.120Z
    position     seconds since the start of a file or folder; null for a live source
    frame        number of the frame in its source, from 0; dropped frames count
    track        number of the face, from 1, never used again while the program runs
    label        the smoothed label; of `ended`, the last one
    probability  of `label`, smoothed, 0..1

`face`, one per face and frame:

    box            x, y, width, height in pixels of the upright image; it may extend over the edges
    unsure         whether `probability` is below the card's threshold; null: the card has none
    flags          why the prediction may be poor: `small`, `tilted`, `clipped`
    detected       whether the detector found the face in this frame; false: the box is extrapolated
    probabilities  `smoothed` and `raw`: of every label, over time and of this frame alone

`appeared`, when a track is seen for the first time: box, unsure.
`changed`, when the smoothed label of a track changes: box, unsure, and
    previous       the label before
`ended`, when a track is given up, or the program stops:
    lasted         seconds from the track's first frame to its last
    reason         `lost`: the face was not found for a while; `stopped`: it was there when the source or program ended
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from edgeemo.names import count
from edgeemo.runtime.prediction import Prediction
from edgeemo.watch.frame import Frame, TrackedFace, WatchedFrame

Record = dict[str, Any]
Stream = Literal["frames", "changes"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
DECIMALS = {"box": 1, "probability": 4, "seconds": 3}


@dataclass
class _Seen:
    """A track as of its last frame."""

    frame: Frame
    face: TrackedFace


class Changes:
    """Remembers the tracks of a source, and records what changes."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def update(self, watched: WatchedFrame) -> list[Record]:
        """Return the records of what changed in a frame, ended tracks first."""
        records = [self._end(track, watched.frame, "lost") for track in watched.ended if track in self._seen]
        for face in watched.faces:
            before = self._seen.get(face.track)
            self._seen[face.track] = _Seen(watched.frame, face)
            if before is None:
                records.append(_describe_change("appeared", watched.frame, face))
            elif (previous := before.face.smoothed.label) != face.smoothed.label:
                records.append({**_describe_change("changed", watched.frame, face), "previous": previous})
        return records

    def finish(self) -> list[Record]:
        """Return an `ended` record, as of its last frame, for every track that has none yet."""
        return [self._end(track, self._seen[track].frame, "stopped") for track in list(self._seen)]

    def _end(self, track: int, frame: Frame, reason: str) -> Record:
        last = self._seen.pop(track).face
        lasted = round(last.seconds, DECIMALS["seconds"])
        return {**_start_record("ended", frame, last), "lasted": lasted, "reason": reason}


def list_faces(watched: WatchedFrame) -> list[Record]:
    """Return a `face` record for each face of a frame."""
    return [
        {
            **_start_record("face", watched.frame, face),
            "box": _round_all(face.box, DECIMALS["box"]),
            "unsure": face.smoothed.unsure,
            "flags": list(face.flags),
            "detected": face.detected,
            "probabilities": {"smoothed": _list_shares(face.smoothed), "raw": _list_shares(face.prediction)},
        }
        for face in watched.faces
    ]


def describe(record: Record) -> str:
    """Return a record as text on one line."""
    at = record["time"] if record.get("position") is None else f"{record['position']:.2f} s"
    if record["event"] == "period":
        return f"{at}: {_describe_period(record)}"
    shown = f"{record['label']}{'?' * bool(record.get('unsure'))} {100 * record['probability']:.0f} %"
    said = {
        "face": "{shown}",
        "appeared": "appears: {shown}",
        "changed": "changes: {previous} -> {shown}",
        "ended": "leaves after {lasted:.1f} s"
        if record.get("reason") == "lost"
        else "stays to the end, {lasted:.1f} s",
    }[record["event"]]
    return f"{at}: face {record['track']} {said.format(shown=shown, **record)}"


def _describe_period(record: Record) -> str:
    length = f"{record['seconds']:g} s{' (partial)' * record['partial']}"
    if record["withheld"]:
        return f"{length}: withheld, fewer people than --least-people"
    shares = sorted(record["labels"].items(), key=lambda item: -item[1]["share"])
    seen = ", ".join(f"{label} {row['people']} ({100 * row['share']:.0f} %)" for label, row in shares if row["share"])
    return f"{length}: {count(record['people'], 'face')}" + (f": {seen}" if seen else "")


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as UTC in ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _describe_change(event: str, frame: Frame, face: TrackedFace) -> Record:
    box = _round_all(face.box, DECIMALS["box"])
    return {**_start_record(event, frame, face), "box": box, "unsure": face.smoothed.unsure}


def _start_record(event: str, frame: Frame, face: TrackedFace) -> Record:
    return {
        "event": event,
        "time": format_time(frame.time),
        "position": None if frame.position is None else round(frame.position, DECIMALS["seconds"]),
        "frame": frame.number,
        "track": face.track,
        "label": face.smoothed.label,
        "probability": round(face.smoothed.probability, DECIMALS["probability"]),
    }


def _list_shares(prediction: Prediction) -> dict[str, float]:
    return {label: round(share, DECIMALS["probability"]) for label, share in prediction.probabilities.items()}


def _round_all(values: Iterable[float], places: int) -> list[float]:
    return [round(float(value), places) for value in values]
