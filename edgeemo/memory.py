"""Memory that this process can still use: of the machine, of its control groups and under its own limit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edgeemo.control_groups import list_control_groups, read_text

MEMINFO = Path("/proc/meminfo")
OWN_SIZE = Path("/proc/self/statm")
# Files of a control group of version 2, then 1: limit, use, and the statistics of pages that the kernel can drop.
GROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def available_memory() -> int | None:
    """Return the bytes of memory that this process can still allocate; None if the system does not report them.

    It is the smallest of: MemAvailable of the kernel; limit minus use of the process's control groups and their
    parents, whose cached files do not count as used; and the address space that `ulimit -v` leaves.
    """
    known = [*_read_machine(), *_read_groups(), *_read_limit()]
    return max(0, min(known)) if known else None


def format_bytes(count: float) -> str:
    """Return a number of bytes in decimal units with two or three digits: 750 B, 6.9 MB, 60 GB."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = 0
    while count >= 999.5 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.{1 if power and count < 9.95 else 0}f} {units[power]}"


def _read_machine() -> Iterator[int]:
    with suppress(OSError):
        for line in MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _read_groups() -> Iterator[int]:
    """Yield what the limit of each control group leaves."""
    for group in list_control_groups("memory"):
        for limit_file, used_file, dropped in GROUP_FILES:
            with suppress(ValueError):  # no such file, or the limit is "max"
                limit, used = int(read_text(group / limit_file)), int(read_text(group / used_file))
                lines = (line.split() for line in read_text(group / "memory.stat").splitlines())
                yield limit - used + sum(int(value) for name, value in lines if name in dropped)


def _read_limit() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  does not exist on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError):
            pages = int(OWN_SIZE.read_text(encoding="utf-8").split()[0])
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")
