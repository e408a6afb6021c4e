"""ByteTrack of the PyPI package trackers, on detections that watch_tracks.py writes to standard input.

Runs in a virtual environment of its own: pip install trackers 2.6.1 and what it imports. Its dependencies would replace
edgeemo's own OpenCV.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from time import thread_time_ns

import numpy as np
import supervision
from trackers import ByteTrackTracker


def main() -> None:
    """Print, per room, numbers and boxes of every frame, and milliseconds per update."""
    asked = json.load(sys.stdin)
    answers = []
    for room in asked["rooms"]:
        tracker = ByteTrackTracker(**asked["settings"])
        numbers, boxes, spent = [], [], 0
        for rows in room:
            found = np.array(rows, np.float32).reshape(-1, 5)
            corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
            detections = supervision.Detections(xyxy=corners, confidence=found[:, 4])
            start = thread_time_ns()
            tracks = tracker.update(detections)
            spent += thread_time_ns() - start
            kept = tracks.tracker_id >= 0 if len(tracks) else np.zeros(0, bool)
            corners = tracks.xyxy[kept]
            numbers.append([int(one) for one in tracks.tracker_id[kept]] if len(tracks) else [])
            boxes.append(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist())
        answers.append({"numbers": numbers, "boxes": boxes, "ms": spent / 1e6 / len(room)})
    print(json.dumps({"version": f"trackers {version('trackers')}", "rooms": answers}))


if __name__ == "__main__":
    main()
