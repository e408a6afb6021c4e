"""Parts that several kinds of results share: the machine, the faces, the model and its latency."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import edgeemo
from edgeemo.card.history import list_versions
from edgeemo.machine import Machine, this_machine
from edgeemo.metrics import PairedComparison

Section = dict[str, Any]  # a section of a card, as the card holds it


@dataclass(frozen=True)
class Header:
    """The software and the machine that made a result. None and {}: not recorded."""

    edgeemo: str | None
    versions: dict[str, str]  # by package
    machine: Machine | None
    measured_utc: str | None = None  # ISO 8601; of results with timings
    load_1min: float | None = None  # load average just before it


def make_header(*, timed: bool = False) -> Header:
    """Return the header of a new result; timed: with the time and the machine's load."""
    common = (edgeemo.__version__, list_versions(), this_machine())
    if not timed:
        return Header(*common)
    load_1min = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return Header(*common, datetime.now(timezone.utc).isoformat(timespec="seconds"), load_1min)


@dataclass(frozen=True)
class Unreadable:
    """Faces that were passed over because they cannot be read (--skip-unreadable)."""

    n: int
    first: list[str]  # ids


@dataclass(frozen=True)
class FacesBlock:
    """The faces of a result."""

    data: str  # ferplus, folder or synthetic; no path
    split: str
    protocol: str
    n: int
    ids_sha256: str | None  # fingerprint of their ids in order; None: not recorded
    unreadable: Unreadable | None = None  # faces of the split that are not among them

    @property
    def name(self) -> str:
        """Data set and split: ferplus valid; with the number of faces that were passed over."""
        left_out = f" without {self.unreadable.n} unreadable" if self.unreadable else ""
        return f"{self.data} {self.split}{left_out}"


@dataclass(frozen=True)
class Timing:
    """Runs of one piece of code, in milliseconds."""

    n: int
    ms_p50: float
    ms_p95: float
    ms_p99: float
    ms_min: float
    ms_mean: float
    samples_us: str  # every run in whole microseconds, in order, separated by spaces


@dataclass(frozen=True)
class SettingTiming:
    """One model at batch 1 on the named cores."""

    threads: int
    cores: list[int]
    pinned: bool
    unstable: bool  # p95 is far above p50: another process used the cores
    total: Timing
    inference: Timing  # the part of it inside the backend


@dataclass(frozen=True)
class Latency:
    """One model on one core and, where there are more, on all."""

    one_core: SettingTiming
    all_cores: SettingTiming | None = None

    def by_setting(self) -> dict[str, SettingTiming]:
        """Return the measured settings, one core first."""
        both = {"one core": self.one_core, "all cores": self.all_cores}
        return {name: timing for name, timing in both.items() if timing}


@dataclass(frozen=True)
class FrameTiming:
    """One core from a frame to the answers for its faces; the parts are those of the same runs as the total."""

    width: int
    height: int
    drawn: int  # faces in the frame
    found: int  # faces that the detector finds in it, all of which are cropped and classified
    unstable: bool  # p95 of the total is far above p50: another process used the core
    detect: Timing
    crop: Timing
    classify: Timing
    total: Timing

    @property
    def size(self) -> str:
        """Width x height, in pixels."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class DetectorFacts:
    """The facts that identify a face detector and how it searches; without a path."""

    name: str
    sha256: str
    size_bytes: int
    threshold: float  # lowest score of a face
    faces: str | None  # few or many; None: by the size of the image


@dataclass(frozen=True)
class Frames:
    """A detector and a model on frames of several sizes with several faces, on the core of `Latency.one_core`."""

    detector: DetectorFacts
    rows: list[FrameTiming]


@dataclass(frozen=True)
class ColdStart:
    """A process that starts, loads a model and predicts once: milliseconds of each part, and its peak memory."""

    interpreter_ms: float
    import_ms: float
    load_ms: float
    first_prediction_ms: float
    total_ms: float
    memory_bytes: int | None  # None: the system does not report it


@dataclass(frozen=True)
class ModelFacts:
    """The facts that identify a model, from its card and its file; without a path."""

    file: str
    sha256: str
    size_bytes: int
    labels: list[str]
    architecture: Section
    precision: Section
    input: Section
    backend: str | None = None  # None, here and below: not recorded
    overflow_safe: bool | None = None
    exact_arithmetic: bool | None = None
    advice: list[str] = field(default_factory=list)

    @property
    def network(self) -> str:
        """The network's name in the card."""
        return str(self.architecture.get("backbone") or self.architecture.get("name") or "not stated")

    @property
    def precision_name(self) -> str:
        """The actual precision according to the card, with its target format."""
        return (
            " ".join(str(self.precision[key]) for key in ("got", "flavour") if self.precision.get(key)) or "not stated"
        )


@dataclass(frozen=True, kw_only=True)
class PairedWith(PairedComparison):
    """A paired comparison, second, with the named model, first."""

    name: str
