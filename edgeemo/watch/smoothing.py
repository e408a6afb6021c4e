"""One steady label per track, from the probabilities of single frames.

Three means against flicker, in this order: an exponential filter of the probabilities over time; a hysteresis, by which
another label must be more probable than the shown one; a shortest time for which a label is shown. All are in seconds,
so that the frame rate and dropped frames do not matter. `benchmarks/watch_flicker.py` measures what they bring.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, log

import numpy as np

from edgeemo.errors import DataError, UsageError

ROUNDING_MS = 1e-3  # of times that are multiples of a frame's


@dataclass(frozen=True)
class Smoothing:
    """Parameters of a Smoother; all 0: the label of each frame alone.

    time_constant_ms: of the exponential filter: after so long, 63 % of a probability is from the time since.
    hysteresis: by how much another label's filtered probability must exceed that of the shown one, 0 to below 1.
    dwell_ms: shortest time for which a label is shown.

    Raises UsageError for a value outside these ranges.
    """

    time_constant_ms: float = 100.0
    hysteresis: float = 0.2
    dwell_ms: float = 200.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, below in (("time_constant_ms", inf), ("hysteresis", 1.0), ("dwell_ms", inf)):
            if not 0 <= (value := getattr(self, name)) < below:
                raise UsageError(f"{name} of smoothing: expected a number from 0 to below {below:g}, got {value}")

    @property
    def delay_ms(self) -> float:
        """Milliseconds from a change to the new label, if the model is certain of the label before and after.

        The filtered probabilities then differ by 1 - 2 exp(-t / time_constant_ms), which must exceed the hysteresis.
        Frames show the new label from the first one on that is so long after the last frame before the change. A label
        that is less certain takes longer; so does one that follows another change by less than `dwell_ms`.
        """
        return self.time_constant_ms * log(2 / (1 - self.hysteresis))


@dataclass
class _State:
    """Of one track."""

    probabilities: np.ndarray  # (K,), filtered
    weight: float | None  # of the frames so far, 1 after a long time; None: a single frame
    seconds: float  # of the last frame
    label: int
    since: float  # seconds since which the label is shown


class Smoother:
    """Filters the probabilities of each track, and keeps its label until another one is clearly more probable.

    labels: how many there are, K.
    """

    def __init__(self, labels: int, smoothing: Smoothing | None = None) -> None:
        """Start without a track."""
        self.labels, self.smoothing = labels, smoothing or Smoothing()
        self._states: dict[int, _State] = {}

    def update(self, track: int, probabilities: np.ndarray, seconds: float) -> tuple[np.ndarray, int]:
        """Return a track's filtered probabilities, (K,) float64, sum 1, and the index of the label to show.

        probabilities: (K,) of this frame. seconds: when it was captured; a time before that of the last frame counts as
        the same. The label is not always the most probable one.

        Raises DataError for another shape, or a value that is not finite.
        """
        raw = np.asarray(probabilities, float)
        if raw.shape != (self.labels,) or not np.isfinite(raw).all() or not isfinite(seconds):
            raise DataError(f"expected {self.labels} finite probabilities and a time, got {probabilities}, {seconds} s")
        state = self._states.get(track)
        if state is None:
            state = self._states[track] = _State(raw.copy(), None, seconds, int(raw.argmax()), seconds)
        else:
            self._filter(state, raw, max(seconds, state.seconds))
            self._decide(state)
        return state.probabilities.copy(), state.label

    def drop(self, track: int) -> None:
        """Forget a track, if it is known."""
        self._states.pop(track, None)

    def _filter(self, state: _State, raw: np.ndarray, seconds: float) -> None:
        """Average exponentially; the first frames count as much as those after them, instead of as all before them."""
        constant = self.smoothing.time_constant_ms / 1000
        kept = float(np.exp(-(seconds - state.seconds) / constant)) if constant else 0.0
        before = (1 - kept if state.weight is None else state.weight) * kept
        weight = before + 1 - kept
        share = (1 - kept) / weight if weight else 0.5  # two frames of the same time count alike
        state.probabilities = (1 - share) * state.probabilities + share * raw
        state.weight, state.seconds = weight or None, seconds

    def _decide(self, state: _State) -> None:
        """Change the label if another one is clearly more probable, and this one was shown for long enough."""
        best = int(state.probabilities.argmax())
        lead = state.probabilities[best] - state.probabilities[state.label]
        shown = 1000 * (state.seconds - state.since)
        if lead > self.smoothing.hysteresis and shown >= self.smoothing.dwell_ms - ROUNDING_MS:
            state.label, state.since = best, state.seconds
