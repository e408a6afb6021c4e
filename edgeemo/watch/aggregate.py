"""Counts per period instead of faces: how many people, and which emotions, without anything about one of them.

A record, one per period in which there was a frame:

    event      `period`
    time       when the period began: UTC in ISO 8601; null for a file or folder
    position   when it began, in seconds since the start of a file or folder; null for a live source
    seconds    length of a period
    partial    whether the source began after the period did, or ended within it
    withheld   whether fewer people than the threshold were seen; then the record ends here, without any count
    frames     how many were answered
    people     tracks that were seen
    labels     per label: `people`, whose smoothed label it was for most of the time, and `share`, of the time of all
               faces, 0..1

Periods are multiples of their length: since 1970 of a live source, so that 60 are the minutes of the clock; since its
start of a file. No track, box, image, or time within a period is recorded.

What this protects against: reading one person's emotions off the records when few people were there. What it does not
protect against, because the threshold counts people in one period, not in the difference of two:

- Differencing. If five people stay and a sixth comes, the difference of two periods is about the sixth. The same holds
  for two programs that watch the same place with other periods or thresholds.
- Knowledge from elsewhere. Who knows the emotions of all people but one can subtract them; and if all people have one
  label, it is known of everybody who was there. A label's own count may be 1.
- A track is not a person. Somebody who leaves and returns counts again, so fewer people may reach the threshold.

The threshold is no differential privacy, and counts are not noisy. Longer periods and a higher threshold help; do not
offer both aggregates and another output of the same camera.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import floor, isfinite

from edgeemo.errors import UsageError
from edgeemo.watch.events import Record, format_time
from edgeemo.watch.frame import WatchedFrame

LEAST_PEOPLE = 5  # by default
SHARE_DECIMALS = 2  # more would reveal small changes of single people
SHORTEST, LONGEST = 0.001, 1.0  # seconds for which one frame counts; after a gap nobody knows what was seen in it


class Aggregate:
    """Counts people and emotions per period.

    seconds: length of a period, at least 1. labels: all that the model has, in the order of the records. least_people:
    in periods with fewer, counts are withheld.

    Raises UsageError for other values.
    """

    def __init__(self, seconds: float, labels: Sequence[str], *, least_people: int = LEAST_PEOPLE) -> None:
        if not (isfinite(seconds) and seconds >= 1):
            raise UsageError(f"--aggregate {seconds:g}: expected at least 1 second, such as 60")
        if least_people < 1:
            raise UsageError(f"--least-people {least_people}: expected at least 1")
        self._seconds, self._labels, self._least_people = seconds, tuple(labels), least_people
        self._period: int | None = None
        self._live, self._partial, self._frames = True, False, 0
        self._previous: float | None = None  # clock of the frame before
        self._time: dict[int, dict[str, float]] = {}  # by track and label, in seconds

    def update(self, watched: WatchedFrame) -> list[Record]:
        """Count a frame; return the record of the period before if this frame is in another one."""
        frame = watched.frame
        moment = frame.time if frame.position is None else frame.position
        period = floor(moment / self._seconds)
        records = self._close(partial=period < (self._period or 0)) if self._is_other(period) else []
        if self._period is None:
            self._period, self._live = period, frame.position is None
            self._partial = self._previous is None and moment > period * self._seconds
        weight = SHORTEST if self._previous is None else min(max(frame.clock - self._previous, SHORTEST), LONGEST)
        self._previous = frame.clock
        self._frames += 1
        for face in watched.faces:
            times = self._time.setdefault(face.track, defaultdict(float))
            times[face.smoothed.label] += weight
        return records

    def finish(self) -> list[Record]:
        """Return the record of the last period, if there was a frame in it, as a partial one."""
        return self._close(partial=True)

    def _is_other(self, period: int) -> bool:
        """Return whether a frame's period is not the current one; a clock that is set back a little changes nothing."""
        return self._period is not None and period not in (self._period, self._period - 1)

    def _close(self, *, partial: bool) -> list[Record]:
        if self._period is None:
            return []
        start = self._period * self._seconds
        record: Record = {
            "event": "period",
            "time": format_time(start) if self._live else None,
            "position": None if self._live else start,
            "seconds": self._seconds,
            "partial": partial or self._partial,
            "withheld": len(self._time) < self._least_people,
        }
        if not record["withheld"]:
            record |= self._count()
        self._period, self._frames, self._time = None, 0, {}
        return [record]

    def _count(self) -> Record:
        people, spent = dict.fromkeys(self._labels, 0), dict.fromkeys(self._labels, 0.0)
        for times in self._time.values():
            people[max(times, key=times.__getitem__)] += 1
            for label, seconds in times.items():
                spent[label] += seconds
        total = sum(spent.values())
        shares = {label: round(seconds / total, SHARE_DECIMALS) for label, seconds in spent.items()}
        labels = {label: {"people": people[label], "share": shares[label]} for label in self._labels}
        return {"frames": self._frames, "people": len(self._time), "labels": labels}
