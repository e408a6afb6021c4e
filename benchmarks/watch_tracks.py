"""Id switches and time of the tracker of `edgeemo watch`, on simulated people who cross, beside ByteTrack.

python benchmarks/watch_tracks.py [--peer-python PATH]     (writes benchmarks/results/watch/tracks.json)

PATH: the Python of a virtual environment with the PyPI package trackers, whose ByteTrack gets the same detections in a
process of its own, byte_track.py; without it, only edgeemo's tracker is measured.

Heads in 640x480 px at 25 fps walk between random points and hide each other. The detector does not find a head of
which a nearer one covers a part of COVERED, nor a tenth of the others, for two frames at a time on average, and places
boxes with noise. Nobody comes or leaves, which favours keeping lost tracks for long.

A switch is counted as in CLEAR MOT (Bernardin and Stiefelhagen 2008): a person who is matched with another track than
at the last match; an earlier match is kept while it overlaps by MIN_IOU. Hidden people are not counted. Parameters of
both trackers were chosen on TUNED seeds; these are others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import thread_time_ns
from typing import Any

import numpy as np

from edgeemo.faces import Detection
from edgeemo.faces.merge import compute_iou, intersect
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.watch.tracking import Tracker

PEER = Path(__file__).parent / "byte_track.py"
OUT = Path(__file__).parent / "results" / "watch" / "tracks.json"
PEOPLE, SEEDS, TUNED = (1, 3, 8, 20), range(100, 108), range(6)
WIDTH, HEIGHT, FPS, FRAMES = 640, 480, 25, 1500
SIDES = {1: 100.0, 3: 80.0, 8: 60.0, 20: 44.0}  # of a head, by the number of people
SPEED, ACCELERATION = 2.0, 4.0  # in heads a second, and heads a second squared
MISSED, MISSED_FRAMES = 0.1, 2.0  # share of heads that are not found though visible, and for how many frames
PLACE_NOISE, SIZE_NOISE = 0.03, 0.04  # standard deviations, in sizes of the head
COVERED, MIN_IOU = 0.4, 0.5
PEER_VERSION = "trackers 2.6.1"
PEERS: dict[str, dict[str, Any]] = {
    "ByteTrack": {},
    "ByteTrack, tuned": {"lost_track_buffer": 60, "minimum_iou_threshold": 0.02},  # as long as edgeemo keeps tracks
}

Boxes = np.ndarray  # (N, 4): x, y, width, height


@dataclass(frozen=True)
class Room:
    """What is true, and what a detector finds of it."""

    people: int
    truth: np.ndarray  # (FRAMES, people, 4)
    visible: np.ndarray  # (FRAMES, people) bool
    found: list[np.ndarray]  # per frame (M, 5): box and score


def simulate(people: int, seed: int) -> Room:
    """Let people walk between random points, each at its own distance from the camera."""
    rng = np.random.default_rng([seed, people])
    near = rng.uniform(0.75, 1.3, people)
    place, speed, aim = (rng.uniform(0, 1, (people, 2)) * (WIDTH, HEIGHT) for _ in range(3))
    speed *= 0
    missed = np.zeros(people, bool)
    truth, visible, found = [], [], []
    for frame in range(FRAMES):
        side = SIDES[people] * near * (1 + 0.1 * np.sin(frame / FPS / 2 + near * 40))
        away = aim - place
        distance = np.linalg.norm(away, axis=1, keepdims=True)
        arrived = distance[:, 0] < side
        aim[arrived] = rng.uniform(0, 1, (int(arrived.sum()), 2)) * (WIDTH, HEIGHT)
        wanted = SPEED * side[:, None] * away / np.maximum(distance, 1)
        push = wanted - speed
        most = ACCELERATION * side[:, None] / FPS
        speed += push * np.minimum(1, most / np.maximum(np.linalg.norm(push, axis=1, keepdims=True), 1e-9))
        place = place + speed / FPS
        boxes = np.concatenate([place - side[:, None] / 2, np.repeat(side[:, None], 2, axis=1)], axis=1)
        seen = find_visible(boxes)
        missed = rng.random(people) < np.where(missed, 1 - 1 / MISSED_FRAMES, MISSED / (1 - MISSED) / MISSED_FRAMES)
        truth.append(boxes)
        visible.append(seen)
        found.append(detect(boxes[seen & ~missed], rng))
    return Room(people, np.array(truth), np.array(visible), found)


def find_visible(boxes: Boxes) -> np.ndarray:
    """Return which heads no nearer, larger one covers, (N,)."""
    area = boxes[:, 2] * boxes[:, 3]
    covered = (intersect(boxes, boxes) > COVERED * area[:, None]) & (area[None] > area[:, None])
    visible: np.ndarray = ~covered.any(axis=1)
    return visible


def detect(boxes: Boxes, rng: np.random.Generator) -> np.ndarray:
    """Return noisy boxes with scores, (M, 5), in random order."""
    side = boxes[:, 2:]
    centre = boxes[:, :2] + side / 2 + PLACE_NOISE * side * rng.normal(size=side.shape)
    size = side * np.exp(SIZE_NOISE * rng.normal(size=side.shape))
    score = np.clip(0.99 - np.abs(rng.normal(0, 0.12, (len(boxes), 1))), 0.5, 1)
    return rng.permutation(np.concatenate([centre - size / 2, size, score], axis=1))


@dataclass
class Followed:
    """What a tracker answers per frame: numbers and boxes of its tracks, and which the detector has just found."""

    numbers: list[list[int]]
    boxes: list[Boxes]
    detected: list[list[bool]]
    ms: float  # per frame
    searched: float = 1.0  # share of the frames that the detector searched


def follow(room: Room, every: int = 1) -> Followed:
    """Run edgeemo's tracker; every: the detector runs in every Nth frame, or when the tracker needs it."""
    tracker, numbers, boxes, detected, spent, searched = Tracker(), [], [], [], 0, 0
    since = every
    for frame, found in enumerate(room.found):
        detections = [Detection(tuple(row[:4]), row[4]) for row in found.tolist()]
        since += 1
        search = since >= every or tracker.needs_detection
        start = thread_time_ns()
        tracks = tracker.update(detections, frame / FPS) if search else tracker.predict(frame / FPS)
        spent += thread_time_ns() - start
        searched += search
        since = 0 if search else since
        numbers.append([one.number for one in tracks])
        boxes.append(np.array([one.detection.box for one in tracks]).reshape(-1, 4))
        detected.append([one.detected for one in tracks])
    return Followed(numbers, boxes, detected, spent / 1e6 / FRAMES, searched / FRAMES)


@dataclass
class Score:
    """CLEAR MOT counts of a room."""

    switches: int
    matched: int
    visible: int
    false: int  # tracks on nobody
    off: list[float]  # distances along either axis of detected tracks from the true centre, in sides of the head


def evaluate(room: Room, followed: Followed) -> Score:
    """Count switches, matched people and false tracks."""
    last: dict[int, int] = {}
    score = Score(0, 0, 0, 0, [])
    frames = zip(room.truth, room.visible, followed.numbers, followed.boxes, followed.detected, strict=True)
    for truth, visible, numbers, boxes, detected in frames:
        pairs = {who: k for who, k in match(compute_iou(truth, boxes), numbers, last) if visible[who]}
        score.switches += sum(last.get(who, numbers[k]) != numbers[k] for who, k in pairs.items())
        score.matched += len(pairs)
        score.visible += int(visible.sum())
        hidden = compute_iou(boxes, truth[~visible]).max(axis=1, initial=0) >= MIN_IOU
        score.false += sum(not hidden[k] for k in range(len(numbers)) if k not in pairs.values())
        last |= {who: numbers[k] for who, k in pairs.items()}
        for who, k in pairs.items():
            if detected[k]:
                error = boxes[k, :2] + boxes[k, 2:] / 2 - truth[who, :2] - truth[who, 2:] / 2
                score.off += (error / truth[who, 2:]).tolist()
    return score


def match(overlap: np.ndarray, numbers: Sequence[int], last: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Yield people and columns of tracks: first those matched before, then the largest overlap."""
    left = np.where(overlap >= MIN_IOU, overlap, 0.0)
    for person, number in last.items():
        if number in numbers and left[person, numbers.index(number)] > 0:
            column = numbers.index(number)
            left[person] = left[:, column] = 0
            yield person, column
    while left.size and left.max() > 0:
        person, column = np.unravel_index(left.argmax(), left.shape)
        left[person] = left[:, column] = 0
        yield int(person), int(column)


def make_row(name: str, people: int, rooms: Sequence[Room], run: Callable[[Room], Followed]) -> dict[str, Any]:
    """Return what a tracker does in rooms of so many people."""
    followed = [run(room) for room in rooms]
    scores = [evaluate(room, one) for room, one in zip(rooms, followed, strict=True)]
    minutes = len(rooms) * people * FRAMES / FPS / 60
    each = [one.switches / (people * FRAMES / FPS / 60) for one in scores]
    return {
        "tracker": name,
        "people": people,
        "face_minutes": minutes,
        "switches_per_face_minute": round(sum(one.switches for one in scores) / minutes, 2),
        "standard_error": round(float(np.std(each, ddof=1) / len(each) ** 0.5), 2),
        "matched": round(sum(one.matched for one in scores) / sum(one.visible for one in scores), 4),
        "false_per_frame": round(sum(one.false for one in scores) / len(rooms) / FRAMES, 4),
        "box_off": round(float(np.sqrt(np.mean(np.square([value for one in scores for value in one.off])))), 4),
        "ms_per_frame": round(float(np.median([one.ms for one in followed])), 3),
        "searched": round(float(np.mean([one.searched for one in followed])), 3),
    }


def ask_peer(python: str, rooms: Sequence[Room], settings: dict[str, Any]) -> list[Followed]:
    """Run ByteTrack on the detections of rooms, in the peer's environment."""
    asked = json.dumps(
        {
            "settings": {"frame_rate": FPS, **settings},
            "rooms": [[found.tolist() for found in room.found] for room in rooms],
        }
    )
    done = subprocess.run([python, str(PEER)], input=asked, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["version"] != PEER_VERSION:
        sys.exit(f"expected {PEER_VERSION} in {python}, got {answer['version']}")
    return [
        Followed(
            numbers=one["numbers"],
            boxes=[np.array(rows).reshape(-1, 4) for rows in one["boxes"]],
            detected=[[True] * len(numbers) for numbers in one["numbers"]],  # it answers no other tracks
            ms=one["ms"],
        )
        for one in answer["rooms"]
    ]


def measure(people: int, seeds: Sequence[int], python: str | None, peers: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per tracker in rooms of so many people."""
    rooms = [simulate(people, seed) for seed in seeds]
    rows = [make_row("edgeemo", people, rooms, follow)]
    rows += [make_row(f"edgeemo, every {n}", people, rooms, partial(follow, every=n)) for n in (5, 10)]
    for name, settings in peers.items() if python else ():
        answers = dict(zip(map(id, rooms), ask_peer(str(python), rooms, settings), strict=True))
        rows.append(make_row(name, people, rooms, lambda room, of=answers: of[id(room)]))
    return rows


def main() -> None:
    """Measure, and write the result."""
    python = sys.argv[2] if sys.argv[1:2] == ["--peer-python"] else None
    rows = [row for people in PEOPLE for row in measure(people, SEEDS, python, PEERS)]
    settings = {"frame": [WIDTH, HEIGHT], "fps": FPS, "frames": FRAMES, "seeds": list(SEEDS), "missed": MISSED}
    settings |= {"place_noise": PLACE_NOISE, "size_noise": SIZE_NOISE, "covered": COVERED, "min_iou": MIN_IOU}
    settings |= {"peer": PEER_VERSION if python else None}
    settings |= {
        "speed": SPEED,
        "acceleration": ACCELERATION,
        "sides": {str(people): side for people, side in SIDES.items()},
        "peers": PEERS if python else {},
    }
    header = make_header(timed=True)
    files.write(Measurement(header=header, script="watch_tracks", settings=settings, rows=rows), OUT)
    for row in rows:
        print(*row.values(), sep="\t")


if __name__ == "__main__":
    main()
