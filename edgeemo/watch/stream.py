"""Watch a source from a program: an iterator of frames with their faces."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeemo.errors import UsageError
from edgeemo.faces import Detector, load_detector
from edgeemo.runtime import Model, load
from edgeemo.watch.capture import Capture
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.smoothing import Smoothing
from edgeemo.watch.sources import Source, open_source
from edgeemo.watch.watcher import Watcher

if TYPE_CHECKING:
    from typing_extensions import Self


def stream(
    source: str | int | Path | Source,
    *,
    model: Model | str | Path | None = None,
    detector: Detector | None = None,
    detect_every: int = 5,
    smoothing: Smoothing | None = None,
    augment: bool = False,
    realtime: bool = False,
    threads: int = 1,
) -> Stream:
    """Return an iterator over the frames of a source, with the faces in each, followed over time.

    source: a camera's number, a video file, a stream's URL, a folder of frames, `picamera2`, `synthetic`, or a Source
    of your own. Of a live source, frames that come while you are busy are dropped, so that you always get the newest
    one; of a file or folder you get every frame, unless `realtime`.

    model: a Model of yours, which stays open, or what `edgeemo.load` takes, with `threads`. detector: by
    default the packaged one, which searches each frame as a whole. smoothing: parameters of the labels' filter.

    Use it in a with-block, or close it. A loop that was left goes on where it was in the next one.

    Raises UsageError for a source or an option that is not known, MachineError if the source cannot be opened.
    """
    return Stream(
        source if not isinstance(source, (str, int, Path)) else open_source(str(source)),
        model,
        detector,
        realtime=realtime,
        threads=threads,
        watch_with={"detect_every": detect_every, "smoothing": smoothing, "augment": augment},
    )


class Stream:
    """Iterates over WatchedFrames; made by `stream`."""

    def __init__(
        self,
        source: Source,
        model: Model | str | Path | None,
        detector: Detector | None,
        *,
        realtime: bool,
        threads: int,
        watch_with: dict[str, Any],
    ) -> None:
        self._owned = None if isinstance(model, Model) else load(model, threads=threads)
        self.model: Model = self._owned or model  # type: ignore[assignment]  # a Model where none is owned
        try:
            check_prior(self.model)
            finder = detector or load_detector(faces="few", threads=threads)
            self._watcher = Watcher(self.model, finder, **watch_with)
            self.capture = Capture(source, realtime=realtime)
            self._started = False
            weakref.finalize(self, self.capture.close)  # its thread would go on in a program that forgets the stream
        except BaseException:
            self._close_model()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchedFrame:
        """Wait for the next frame and return it with its faces; the first call opens the source."""
        if not self._started and not self.capture.ended:
            self.capture.start()
            self._started = True
        frame = self.capture.read()
        if frame is None:
            raise StopIteration
        return self._watcher.process(frame, self.capture.dropped)

    def close(self) -> None:
        """End the capture, and close the model if `stream` opened it."""
        self.capture.close()
        self._close_model()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_model(self) -> None:
        if self._owned:
            self._owned.close()


def check_prior(model: Model) -> None:
    """Raise UsageError for a model whose prior is estimated from what it sees.

    A person who is watched for a minute would count as hundreds of faces.
    """
    if model.prior and model.prior.kind == "auto":
        raise UsageError(
            "prior auto estimates the mix of emotions from single photos; in a video one person counts as hundreds of "
            "faces. Give the shares instead:  --prior neutral=0.6,happiness=0.2"
        )
