"""All outputs of a program, as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeemo.errors import UsageError
from edgeemo.predict.outputs import check_targets
from edgeemo.watch.aggregate import LEAST_PEOPLE, Aggregate
from edgeemo.watch.events import Changes, Record, Stream, list_faces
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.outputs.background import Background, Sink
from edgeemo.watch.outputs.lines import Csv, JsonLines, LineFile, StandardOutput, Text
from edgeemo.watch.outputs.mqtt import Mqtt, parse_broker
from edgeemo.watch.outputs.overlay import Overlay
from edgeemo.watch.outputs.terminal import Terminal
from edgeemo.watch.outputs.video import FPS, VideoFile
from edgeemo.watch.outputs.webhook import Webhook
from edgeemo.watch.outputs.window import Window

STDOUT = "-"
VIDEO_CAPACITY = 8  # frames in the queue of a video: 7 MB of 640x480, 50 MB of 1920x1080


@dataclass(frozen=True)
class OutputOptions:
    """What is to be written where; nothing by default.

    text: lines for people on standard output, of changes. jsonl: a file, or - for standard output. csv: a file. mqtt,
    webhook: URLs. events, publish: which records go to files, and to MQTT and the webhook; None: `frames` and
    `changes`. aggregate: seconds of a period whose counts all of these get instead. least_people: for `aggregate`.
    save: a video; fps: its frame rate; blur: hide faces in it and in the window. show: a window. status: a line on
    standard error.
    """

    text: bool = False
    jsonl: str | None = None
    csv: Path | None = None
    mqtt: str | None = None
    webhook: str | None = None
    events: Stream | None = None
    publish: Stream | None = None
    aggregate: float | None = None
    least_people: int = LEAST_PEOPLE
    save: Path | None = None
    fps: float = FPS
    blur: bool = False
    show: bool = False
    status: bool = True


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
        for output in self._all():
            if output.error:
                raise output.error
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
    options: OutputOptions, labels: Sequence[str], *, live: bool, read: Mapping[Path, str] | None = None
) -> Outputs:
    """Open all outputs that are configured.

    labels: of the model. live: whether the source goes on by itself. If it does not, as a video file, files and the
    video get every frame: `write` then waits while the disk is slower than the model. A window is drawn by `write`
    itself, in milliseconds. read: files that are read and must not be written to, and what each is.

    Raises UsageError for options that contradict each other, and as the outputs do; MachineError for what is missing.
    """
    _check(options)
    check_targets(_list_targets(options), read or {}, options="two of --jsonl, --csv and --save")
    period, aggregate = options.aggregate, None
    if period is not None:
        aggregate = Aggregate(period, labels, least_people=options.least_people)
    with ExitStack() as stack:  # closes what is open if a later output cannot be

        def start(sink: Sink, **settings: Any) -> Background:
            output = Background(sink, **settings)
            stack.callback(output.close)
            return output

        window = Window(Overlay(blur=options.blur)) if options.show else None
        outputs = Outputs(
            frames=[start(sink, capacity=VIDEO_CAPACITY, waits=not live) for sink in _open_videos(options)],
            records=[
                *((kind, start(sink, waits=not live)) for kind, sink in _open_files(options, labels)),
                *((kind, start(sink)) for kind, sink in _open_peers(options)),
            ],
            aggregate=aggregate,
            window=window,
            status=Terminal(faces=period is None) if options.status else None,
        )
        stack.pop_all()
    return outputs


def _open_videos(options: OutputOptions) -> Iterator[Sink]:
    if options.save:
        yield VideoFile(options.save, Overlay(blur=options.blur), fps=options.fps)


def _open_files(options: OutputOptions, labels: Sequence[str]) -> Iterator[tuple[str, Sink]]:
    kind = "periods" if options.aggregate is not None else options.events or "frames"
    if options.text:
        yield "changes" if options.aggregate is None else "periods", StandardOutput(Text())
    if options.jsonl:
        form = JsonLines()
        yield kind, StandardOutput(form) if options.jsonl == STDOUT else LineFile(Path(options.jsonl), form)
    if options.csv:
        yield kind, LineFile(options.csv, Csv(kind, labels))


def _open_peers(options: OutputOptions) -> Iterator[tuple[str, Sink]]:
    kind = "periods" if options.aggregate is not None else options.publish or "changes"
    if options.mqtt:
        yield kind, Mqtt(parse_broker(options.mqtt))
    if options.webhook:
        yield kind, Webhook(options.webhook)


def _list_targets(options: OutputOptions) -> list[Path]:
    jsonl = [Path(options.jsonl)] if options.jsonl and options.jsonl != STDOUT else []
    return [*jsonl, *filter(None, (options.csv, options.save))]


def _check(options: OutputOptions) -> None:
    """Raise UsageError for options that contradict each other, or would do nothing."""
    if options.text and options.jsonl == STDOUT:
        raise UsageError("--jsonl - writes to standard output; text goes there already")
    files, peers = bool(options.jsonl or options.csv), bool(options.mqtt or options.webhook)
    if options.aggregate is not None:
        if options.save or options.show:
            raise UsageError("--aggregate records nothing about one person, --save and --show do; choose one of them")
        if options.events or options.publish:
            raise UsageError("--aggregate records counts, --events and --publish choose other records; leave them out")
        if not (files or peers or options.text):
            raise UsageError("--aggregate: say where its counts go, with --jsonl, --csv, --mqtt or --webhook")
    if options.blur and not (options.save or options.show):
        raise UsageError("--blur would do nothing without --save or --show")
    if options.events and not files:
        raise UsageError("--events would do nothing without --jsonl or --csv")
    if options.publish and not peers:
        raise UsageError("--publish would do nothing without --mqtt or --webhook")
