"""What every source of frames offers."""

from __future__ import annotations

import re
import time
from typing import Protocol

import numpy as np

from edgeemo.errors import MachineError
from edgeemo.names import escape_name
from edgeemo.watch.frame import Frame

# The last @ ends user and password, whatever characters, such as / and @, somebody forgot to encode in them.
CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
# In a query; or, as of some cameras, in the path, all of whose rest is then taken: /user=NAME_password=WORD_channel=1
SECRET = re.compile(
    r"(?i)([?&;/_](?:[^=&;#/]*(?:pass|pwd|psw|token|key|auth|secret|sig|user|usr|login)[^=&;#/]*|pw|p|u)=)[^&;#]*"
)


class SourceLostError(MachineError):
    """A live source that cannot be opened, or has delivered nothing for its time-out; it may come back."""


class Source(Protocol):
    """A source of frames, used by one thread at a time; it may be opened again after it was closed or lost."""

    @property
    def name(self) -> str:
        """For people, without passwords."""

    @property
    def live(self) -> bool:
        """Whether frames come whether they are read or not; known after `open`."""

    def open(self) -> None:
        """Start delivering; SourceLostError if a live source is not there now."""

    def read(self) -> Frame | None:
        """Return the next frame, None at the end.

        It blocks for at most the source's time-out; then, or when a live source is lost, it raises SourceLostError.
        """

    def close(self) -> None:
        """Release the device, file or connection; harmless when it is not open."""


def mask_secrets(text: str) -> str:
    """Return a source as text for people: without user and password of a URL, or values of keys such as `token`."""
    return escape_name(CREDENTIALS.sub("***@", SECRET.sub(r"\1***", text)))


def make_frame(pixels: np.ndarray, number: int, position: float | None = None) -> Frame:
    """Return a frame that was read just now."""
    return Frame(pixels, number, captured=time.monotonic(), time=time.time(), position=position)


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 from gray, (H, W) or (H, W, 1), or from RGB."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
