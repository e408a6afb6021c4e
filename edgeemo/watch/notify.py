"""Report the program's state to systemd: the protocol of sd_notify(3), in text over a Unix datagram socket.

Without NOTIFY_SOCKET in the environment, as outside a service, nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from edgeemo.names import escape_message

BEATS = 4  # per watchdog period; sd_watchdog_enabled(3) recommends at least two


class Notifier:
    """Sends the states of this process to systemd; never waits and never fails, because no frame depends on it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """environment: by default that of this process, in which systemd sets NOTIFY_SOCKET and WATCHDOG_USEC."""
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # @: in the abstract namespace
        self._socket: socket.socket | None = None
        if address and hasattr(socket, "AF_UNIX"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._period = _read_watchdog(environment) / BEATS
        self._last_beat = -float("inf")

    def ready(self, status: str = "") -> None:
        """Report that the program has started, or has finished reloading."""
        self._send("READY=1", *_state(status))

    def reloading(self) -> None:
        """Report that the configuration or the model is being loaded again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the program is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(*_state(text))

    def beat(self) -> None:
        """Report that the loop runs, if the unit has WatchdogSec; sent a few times per period, however often called.

        To be called also while the source is lost: systemd restarts a program that hangs, not one that waits.
        """
        if self._socket is None or not self._period:
            return
        now = time.monotonic()
        if now - self._last_beat >= self._period:
            self._last_beat = now
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; nothing is sent afterwards."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # nobody listens, or the queue is full
                self._socket.sendto("\n".join(lines).encode(), self._address)


def _state(text: str) -> tuple[str, ...]:
    return (f"STATUS={escape_message(text)}",) if text else ()


def _read_watchdog(environment: Mapping[str, str]) -> float:
    """Return the period in seconds after which systemd restarts a silent program; 0 without one for this process."""
    period, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdecimal() or (process and process != str(os.getpid())):
        return 0.0
    return int(period) / 1e6
