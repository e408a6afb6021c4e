"""Images as frames: of a folder, a pattern or one file."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgeemo.errors import DataError
from edgeemo.names import escape_message, escape_name
from edgeemo.predict.sources import Source as Image
from edgeemo.predict.sources import list_sources
from edgeemo.watch.frame import Frame
from edgeemo.watch.sources.source import make_frame, to_rgb
from edgeemo.watch.sources.video import DEFAULT_FPS

log = logging.getLogger(__name__)


@dataclass
class Folder:
    """The images of a folder and below it, or of a pattern, as frames in natural order: frame2 before frame10.

    fps: frames per second that their positions follow. An image that cannot be read is logged and skipped; its number
    and its time remain free.
    """

    path: Path
    fps: float = DEFAULT_FPS
    live: ClassVar[bool] = False
    _images: list[Image] = field(default_factory=list, init=False, repr=False)
    _next: int = field(default=0, init=False, repr=False)
    _readable: int = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """The path."""
        return escape_name(str(self.path))

    def open(self) -> None:
        """List the images; DataError if there is none."""
        failed: list[DataError] = []
        self._images = sorted(list_sources([self.path], failed), key=lambda image: _split_numbers(image.name))
        self._next = self._readable = 0
        if not self._images:
            raise failed[0]
        for error in failed:
            log.warning("%s", escape_message(str(error)))

    def read(self) -> Frame | None:
        """Return the next image that can be read; None at the end, DataError there if none could be."""
        while self._next < len(self._images):
            number, self._next = self._next, self._next + 1
            try:
                pixels = self._images[number].read()
            except DataError as error:
                log.warning("%s; skipped", escape_message(str(error)))
                continue
            self._readable += 1
            return make_frame(to_rgb(pixels), number, number / self.fps)
        if self._images and not self._readable:
            raise DataError(f"{self.name}: none of its {len(self._images)} images can be read")
        return None

    def close(self) -> None:
        """Forget the list."""
        self._images = []


def _split_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key by which numbers in names sort by their value."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]
