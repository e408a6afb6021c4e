"""The watch stage: a loop from capture to outputs, until the source ends or a signal asks to end."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import cast

from edgeemo import options
from edgeemo.card import card_path
from edgeemo.config_file import write_example
from edgeemo.console import print_text
from edgeemo.errors import UsageError
from edgeemo.faces import load_detector
from edgeemo.faces.passes import TILE_FACE, Faces
from edgeemo.faces.search import SearchDetector
from edgeemo.names import count
from edgeemo.runtime import Model, load
from edgeemo.stages import Watch
from edgeemo.watch.capture import Capture
from edgeemo.watch.frame import Frame
from edgeemo.watch.health import HealthServer
from edgeemo.watch.notify import Notifier
from edgeemo.watch.outputs.opening import Outputs, open_outputs
from edgeemo.watch.signals import Signals, catch_signals
from edgeemo.watch.smoothing import Smoothing
from edgeemo.watch.sources import Source, open_source
from edgeemo.watch.status import STALE_SECONDS, Status
from edgeemo.watch.stream import check_prior
from edgeemo.watch.swap import ModelHolder
from edgeemo.watch.unit import make_unit
from edgeemo.watch.watcher import Watcher

log = logging.getLogger(__name__)
POLL = 0.25  # seconds: how long a signal waits at most while no frame comes


@dataclass
class Watched:
    """What a run of `edgeemo watch` has seen."""

    frames: int = 0
    tracks: int = 0
    seconds: float = 0.0
    dropped: int = 0
    reconnects: int = 0


def run(config: Watch, *, show: Callable[[str], None] = print_text) -> Watched:
    """Watch as configured until the source ends, `seconds` have passed, or SIGINT or SIGTERM comes.

    show: prints the example or unit that was asked for; events go to the outputs.

    Raises UsageError for options that contradict each other, or no source; MachineError for a source, package or port
    that cannot be used, or an output that could not take all of a file or folder; KeyboardInterrupt if a signal ended
    one before its end, after all outputs were closed.
    """
    options.check(config)
    if config.print_config:
        show(write_example(config))
        return Watched()
    if config.source is None:
        raise UsageError("no source; name a camera, a video or a stream, or try  edgeemo watch synthetic")
    if config.print_unit:
        show(make_unit(config))
        return Watched()
    source = _open_source(config)
    with ExitStack() as stack:
        notifier = Notifier()
        stack.callback(notifier.close)
        holder = stack.enter_context(ModelHolder(partial(_load, config), notifier=notifier))
        signals = stack.enter_context(catch_signals(holder.request))
        detector = load_detector(
            config.detector, threads=config.threads, faces=cast("Faces", config.faces), threshold=config.threshold
        )
        watcher = _make_watcher(config, holder.take(), detector)
        capture = stack.enter_context(
            Capture(
                source,
                realtime=config.realtime,
                wait=config.wait,
                lost_after=config.timeout,
                frozen_after=config.timeout,
            )
        )
        status = Status(stale_seconds=max(STALE_SECONDS, config.timeout), aggregate=config.aggregate is not None)
        if config.health is not None:
            stack.enter_context(HealthServer(status, config.health, config.health_address))
        outputs = _open_outputs(config, holder.take(), source, signals)
        stack.callback(outputs.close)
        seconds = config.seconds or float("inf")
        watched = _Loop(seconds, signals, holder, detector, watcher, capture, outputs, status, notifier).run()
    _log_summary(source, watched, signals, people=config.aggregate is None)
    outputs.check(complete=not source.live and not signals.stopped_by)
    if signals.stopped_by and not source.live:
        raise KeyboardInterrupt
    return watched


@dataclass
class _Loop:
    """Takes frames until there is a reason to end."""

    seconds: float  # after which it ends
    signals: Signals
    holder: ModelHolder
    detector: SearchDetector
    watcher: Watcher
    capture: Capture
    outputs: Outputs
    status: Status
    notifier: Notifier
    watched: Watched = field(default_factory=Watched)

    def run(self) -> Watched:
        """Process every frame that comes; return what was seen."""
        start = monotonic()
        self.notifier.ready(f"watching {self.capture.source.name}")
        while not (self.signals.stopped_by or self.outputs.stopped):
            frame = self.capture.read(timeout=POLL)
            if self._is_over(frame, monotonic() - start):
                break
            self._report_state()
            if frame is not None:
                self._process(frame)
        self.notifier.stopping()
        self.watched.seconds = monotonic() - start
        self.watched.dropped, self.watched.reconnects = self.capture.dropped, self.capture.reconnects
        return self.watched

    def _is_over(self, frame: Frame | None, passed: float) -> bool:
        """Return whether the source has ended, or `seconds` have passed: of a file, in its own time."""
        if frame is None and self.capture.ended:
            return True
        if not self.capture.source.live:
            passed = (frame.position or 0.0) if frame else 0.0
        return passed >= self.seconds

    def _process(self, frame: Frame) -> None:
        model = self.holder.take()
        if model is not self.watcher.model:
            self.watcher.replace_model(model)
        watched = self.watcher.process(frame, self.capture.dropped)
        self.outputs.write(watched, reconnects=self.capture.reconnects)
        self.status.answered(watched)
        if not self.watched.frames:
            _log_frame(frame, self.detector)
        self.watched.frames += 1
        self.watched.tracks = max(self.watched.tracks, *(face.track for face in watched.faces), 0)

    def _report_state(self) -> None:
        """Report to metrics and systemd how it goes, also while no frame comes."""
        capture, model = self.capture, self.watcher.model
        self.status.source(
            capture.connected, frozen=capture.frozen, dropped=capture.dropped, reconnects=capture.reconnects
        )
        self.status.model(model.path.name, model.card.sha256, self.holder.swaps, self.holder.failures)
        for name, counts in self.outputs.count().items():
            self.status.output(name, counts.written, counts.lost, failed=counts.failed is not None)
        self.notifier.beat()


def _open_source(config: Watch) -> Source:
    width, height = _parse_size(config.size)
    return open_source(str(config.source), width=width, height=height, fps=config.fps, timeout=config.timeout)


def _parse_size(size: str | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    if not (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)):
        raise UsageError(f"--size {size}: expected WIDTHxHEIGHT in pixels, as 640x480")
    return int(found[1]), int(found[2])


def _load(config: Watch) -> Model:
    model = load(
        config.model,
        threads=config.threads,
        labels=config.label_set,
        prior=config.prior,
        prior_strength=config.prior_strength,
    )
    try:
        check_prior(model)
    except UsageError:
        model.close()
        raise
    return model


def _make_watcher(config: Watch, model: Model, detector: SearchDetector) -> Watcher:
    smoothing = Smoothing(config.time_constant, config.hysteresis, config.dwell)
    if config.time_constant:
        log.info("smoothing delays a change of emotion by about %.0f ms; less certain ones by more", smoothing.delay_ms)
    every = 1 if config.blur else config.detect_every  # a face is hidden from its first frame on
    return Watcher(model, detector, detect_every=every, smoothing=smoothing, augment=config.augment)


def _open_outputs(config: Watch, model: Model, source: Source, signals: Signals) -> Outputs:
    read = {Path(str(config.source)): "the source", model.path: "the model", card_path(model.path): "the model's card"}
    return open_outputs(config, model.labels, live=source.live, read=read, ending=lambda: bool(signals.stopped_by))


def _log_frame(frame: Frame, detector: SearchDetector) -> None:
    height, width = frame.pixels.shape[:2]
    smallest = detector.card.smallest_face * max(width, height)
    many = "; --faces many finds smaller ones, but is slower" if smallest > TILE_FACE else ""
    if detector.faces == "few":
        log.info("frames of %dx%d: faces at least about %.0f pixels wide are found%s", width, height, smallest, many)


def _log_summary(source: Source, watched: Watched, signals: Signals, *, people: bool) -> None:
    """Log what was seen; people: how many faces, too."""
    rate = watched.frames / watched.seconds if watched.seconds else 0.0
    log.info(
        "%s%s: %s in %.1f s (%.1f per second), %d dropped; %s%s",
        source.name,
        f", ended by {signals.stopped_by}" if signals.stopped_by else "",
        count(watched.frames, "frame"),
        watched.seconds,
        rate,
        watched.dropped,
        f"{count(watched.tracks, 'face')} tracked; " if people else "",
        count(watched.reconnects, "reconnect"),
    )
