"""How many requests may be in work or wait for a worker at once, in all and per client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, inf
from time import perf_counter

from edgeemo.serve.problems import Problem

WEIGHT = 0.1  # of the newest request in the mean time that one takes


class Admission:
    """Counts the requests in work; used by the event loop alone."""

    def __init__(self, limit: int, per_client: int | None = None, *, workers: int = 1, max_bytes: float = inf) -> None:
        """limit: images in work or waiting, in all; per_client: of one client, by default as many.

        max_bytes: what their files may take together.
        """
        self.limit, self.per_client, self.max_bytes = limit, per_client or limit, max_bytes
        self.count = self.bytes = 0
        self._clients: Counter[str] = Counter()
        self._workers, self._seconds = workers, 0.0

    @contextmanager
    def admit(self, client: str, images: int = 1, size: int = 0) -> Iterator[None]:
        """Count images of `size` bytes as being in work inside the block; raise Problem 429 if they are too many.

        Raises Problem 413 for more images at once than are ever admitted.
        """
        most = min(self.limit, self.per_client)
        if images > most:
            raise Problem(413, f"{images} images in one request; this server takes at most {most}: send fewer")
        if self._clients[client] + images > self.per_client:
            raise self._refuse(f"this client has {self._clients[client]} images in work, of {self.per_client} at most")
        if self.count + images > self.limit:
            raise self._refuse(f"the queue is full, with {self.count} of {self.limit} images")
        if self.bytes + size > self.max_bytes:
            raise self._refuse(f"the images in work take {self.bytes:,} of {self.max_bytes:,} bytes")
        started = perf_counter()
        self.count += images
        self.bytes += size
        self._clients[client] += images
        try:
            yield
        finally:
            share = (perf_counter() - started) * self._workers / max(self.count, self._workers)
            self.count -= images
            self.bytes -= size
            self._clients[client] -= images
            if not self._clients[client]:
                del self._clients[client]
            self._seconds += WEIGHT * (share - self._seconds)

    def _refuse(self, reason: str) -> Problem:
        seconds = min(60, max(1, ceil(self.count * self._seconds / self._workers)))
        return Problem(429, f"{reason}; try again in {seconds} s", {"Retry-After": str(seconds)})
