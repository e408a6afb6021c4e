"""All outputs of a program, as one."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from edgeemo.errors import MachineError
from edgeemo.names import count
from edgeemo.predict.outputs import check_targets
from edgeemo.stages import Watch
from edgeemo.watch.aggregate import Aggregate
from edgeemo.watch.events import Changes, Record, list_faces
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.outputs.background import Background, Sink
from edgeemo.watch.outputs.lines import Csv, JsonLines, LineFile, StandardOutput, Text
from edgeemo.watch.outputs.mqtt import Mqtt, parse_broker
from edgeemo.watch.outputs.overlay import Overlay
from edgeemo.watch.outputs.terminal import Terminal
from edgeemo.watch.outputs.video import VideoFile
from edgeemo.watch.outputs.webhook import Webhook
from edgeemo.watch.outputs.window import Window

STDOUT = "-"
FINISH_SECONDS = 60.0  # at most, until a video is on a slow disk; see TimeoutStopSec in unit.py
VIDEO_CAPACITY = 8  # frames in the queue of a video: 7 MB of 640x480, 50 MB of 1920x1080


@dataclass(frozen=True)
class Counts:
    """Of one output, for metrics: items written and lost, and why it fails now (None: it works)."""

    written: int
    lost: int
    failed: str | None


class Outputs:
    """Everything that becomes of watched frames.

    `write` never waits for a receiver, with two exceptions that `open_outputs` explains. stopped: the user has closed
    the window.
    """

    def __init__(
        self,
        *,
        frames: Sequence[Background] = (),
        records: Sequence[tuple[str, Background]] = (),
        aggregate: Aggregate | None = None,
        window: Window | None = None,
        status: Terminal | None = None,
    ) -> None:
        """Take outputs of frames, and of records with the kind that each gets."""
        self.stopped = False
        self._frames, self._window, self._status = frames, window, status
        self._records: dict[str, list[Background]] = defaultdict(list)
        for kind, output in records:
            self._records[kind].append(output)
        self._changes, self._aggregate = Changes(), aggregate

    def write(self, watched: WatchedFrame, *, reconnects: int = 0) -> None:
        """Hand a frame, and what is recorded of it, to all outputs.

        Raises what ended an output for good: ClosedPipeError where nobody reads standard output any more.
        """
        self.check()
        for video in self._frames:
            video.write(watched)
        self._hand_over(
            frames=lambda: list_faces(watched),
            changes=lambda: self._changes.update(watched),
            periods=lambda: self._aggregate.update(watched) if self._aggregate else [],
        )
        if self._window and not self.stopped:
            self.stopped = not self._window.show(watched)
        if self._status:
            self._status.update(watched, reconnects=reconnects, lost=sum(output.lost for output in self._all()))

    def check(self, *, complete: bool = False) -> None:
        """Raise what has ended an output for good; after `close`, also what its last items or its end have met.

        complete: raise MachineError if an output did not get all that was to be written or sent to it.
        """
        for output in self._all():
            if output.error:
                raise output.error
        for output in self._all():
            if complete and output.lost:
                why = output.failed or "too slow"
                raise MachineError(f"{output.name} did not get {count(output.lost, 'item')}: {why}")

    def close(self) -> None:
        """Write the last records, flush all outputs at the same time, and release them."""
        self._hand_over(
            frames=list,
            changes=self._changes.finish,
            periods=lambda: self._aggregate.finish() if self._aggregate else [],
        )
        for output in self._all():
            output.stop()
        for output in self._all():
            output.close()
        if self._window:
            self._window.close()
        if self._status:
            self._status.close()

    def count(self) -> dict[str, Counts]:
        """Return what every output has done so far, by its name."""
        return {output.name: Counts(output.written, output.lost, output.failed) for output in self._all()}

    def _hand_over(self, **make: Callable[[], list[Record]]) -> None:
        for kind, outputs in self._records.items():
            for record in make[kind]():
                for output in outputs:
                    output.write(record)

    def _all(self) -> list[Background]:
        return [*self._frames, *(output for outputs in self._records.values() for output in outputs)]


def open_outputs(
    config: Watch,
    labels: Sequence[str],
    *,
    live: bool,
    read: Mapping[Path, str] | None = None,
    status: bool = True,
    ending: Callable[[], bool] = lambda: False,
) -> Outputs:
    """Open all outputs that are configured; without one for records, text on standard output.

    config: checked. labels: of the model. live: whether the source goes on by itself. If it does not, as a video file,
    files and the video get every frame: `write` then waits while the disk is slower than the model, until `ending`
    returns that the program shall end. A window is drawn
    by `write` itself, in milliseconds. read: files that are read and must not be written to, and what each is. status:
    show a line with the state on standard error.

    Raises UsageError as the outputs do; MachineError for what is missing.
    """
    check_targets(_list_targets(config), read or {}, options="two of --jsonl, --csv and --save")
    period, aggregate = config.aggregate, None
    if period is not None:
        aggregate = Aggregate(period, labels, least_people=config.least_people)
    with ExitStack() as stack:  # closes what is open if a later output cannot be

        def start(sink: Sink, **settings: Any) -> Background:
            output = Background(sink, ending=ending, **settings)
            stack.callback(output.close)
            return output

        window = Window(Overlay(blur=config.blur)) if config.show else None
        outputs = Outputs(
            frames=[
                start(sink, capacity=VIDEO_CAPACITY, waits=not live, finish_seconds=FINISH_SECONDS)
                for sink in _open_videos(config, live=live)
            ],
            records=[
                *((kind, start(sink, waits=not live)) for kind, sink in _open_files(config, labels)),
                *((kind, start(sink)) for kind, sink in _open_peers(config)),
            ],
            aggregate=aggregate,
            window=window,
            status=Terminal(faces=period is None) if status else None,
        )
        stack.pop_all()
    return outputs


def _open_videos(config: Watch, *, live: bool) -> Iterator[Sink]:
    if config.save:
        yield VideoFile(config.save, Overlay(blur=config.blur), keep=live)


def _open_files(config: Watch, labels: Sequence[str]) -> Iterator[tuple[str, Sink]]:
    kind = "periods" if config.aggregate is not None else config.events or "frames"
    if not (config.jsonl or config.csv or config.mqtt or config.webhook):
        text = Text(erase=_is_terminal(sys.stdout) and _is_terminal(sys.stderr))
        yield "changes" if config.aggregate is None else "periods", StandardOutput(text)
    if config.jsonl:
        form = JsonLines()
        yield kind, StandardOutput(form) if config.jsonl == STDOUT else LineFile(Path(config.jsonl), form)
    if config.csv:
        yield kind, LineFile(config.csv, Csv(kind, labels))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _open_peers(config: Watch) -> Iterator[tuple[str, Sink]]:
    kind = "periods" if config.aggregate is not None else config.publish or "changes"
    if config.mqtt:
        yield kind, Mqtt(parse_broker(config.mqtt))
    if config.webhook:
        yield kind, Webhook(config.webhook)


def _list_targets(config: Watch) -> list[Path]:
    jsonl = [Path(config.jsonl)] if config.jsonl and config.jsonl != STDOUT else []
    return [*jsonl, *filter(None, (config.csv, config.save))]
