"""A stream over the network: RTSP, or HTTP as MJPEG, HLS or a file."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from edgeemo.errors import UsageError
from edgeemo.watch.frame import Frame
from edgeemo.watch.sources.opencv import Reader, require_opencv
from edgeemo.watch.sources.source import SourceLostError, make_frame, mask_secrets
from edgeemo.watch.sources.video import FileClock

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
# TCP, since lost packets of UDP smear faces. low_delay: without it FFmpeg decodes as many frames at once as there are
# cores, and each waits for the ones after it.
OPTIONS = {"rtsp": "rtsp_transport;tcp|flags;low_delay", "http": "flags;low_delay"}
OPTIONS |= {"rtsps": OPTIONS["rtsp"], "https": OPTIONS["http"]}


@dataclass
class NetworkStream:
    """A stream; `live` turns False on opening where the server states how many frames there are, as of a file.

    url: rtsp, rtsps, http or https, with user and password where the camera asks for them. timeout: seconds without a
    frame after which it is lost; opening may take as long. clock: seconds that only increase.
    """

    url: str = field(repr=False)
    timeout: float = 10.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    live: bool = field(default=True, init=False)
    _reader: Reader | None = field(default=None, init=False, repr=False)
    _file: FileClock | None = field(default=None, init=False, repr=False)
    _number: int = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """The URL without its password."""
        return mask_secrets(self.url)

    def open(self) -> None:
        """Connect; raise SourceLostError with the reason as far as it can be known."""
        cv2 = require_opencv("reading a stream")
        parts = split_url(self.url)
        self._connect(parts)
        milliseconds = max(1, round(1000 * self.timeout))
        reader = Reader(
            cv2,
            self.url,
            backend=cv2.CAP_FFMPEG,
            settings=(
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
            ),
            options=OPTIONS[parts.scheme],
        )
        if not reader.is_open:
            reader.close()
            raise SourceLostError(
                f"{self.name}: the server answers, but delivers no video within {self.timeout:g} s; check path, user "
                "and password, as with  ffprobe URL"
            )
        self._reader = reader
        if parts.scheme.startswith("http") and reader.get("CAP_PROP_FRAME_COUNT") > 0:
            self.live, self._file = False, FileClock(reader, self.name)

    def _connect(self, parts: SplitResult) -> None:
        """Connect once without a protocol, since FFmpeg does not say why it could not; not where a proxy would."""
        if parts.scheme in getproxies():
            return
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        try:
            socket.create_connection((host, port), timeout=self.timeout).close()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceLostError(f"{self.name}: no connection to {host} port {port} ({reason})") from error

    def read(self) -> Frame | None:
        """Return the next frame; SourceLostError if none comes within the time-out or the server has closed."""
        if self._file:
            return self._file.read()
        start = self.clock()
        pixels = self._reader.read() if self._reader else None
        # When the time is up FFmpeg still gives the frame that it was keeping until the next one: it is too old.
        if pixels is None or self.clock() - start >= self.timeout:
            raise SourceLostError(f"{self.name} delivers no more frames (time-out {self.timeout:g} s)")
        self._number += 1
        return make_frame(pixels, self._number - 1)

    def close(self) -> None:
        """Disconnect."""
        if self._reader:
            self._reader.close()
        self._reader = self._file = None


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL of a stream; UsageError for another scheme, no host or no valid port."""
    try:
        parts = urlsplit(url)
        # An @ further on most likely ends a password with a / or ?, part of which would be taken for the host.
        unambiguous = "@" not in url.partition("://")[2].removeprefix(parts.netloc)
        valid = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0 and unambiguous
    except ValueError:  # of a port that is no number, or a bracket
        valid = False
    if not valid:
        raise UsageError(
            f"{mask_secrets(url)} is no URL of a stream; expected {', '.join(PORTS)} as in "
            "rtsp://USER:PASSWORD@HOST:554/PATH, with / ? and @ in a password as %2F, %3F and %40"
        )
    return parts
