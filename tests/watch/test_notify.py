"""What systemd is told, received by a real datagram socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeemo.watch.notify import Notifier

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 108 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("notify")
        listener.settimeout(5)
        yield listener


def receive(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().splitlines()


def test_each_state_is_sent_as_systemd_reads_it(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "notify"})
    notifier.ready("watching camera 0")
    assert receive(systemd) == ["READY=1", "STATUS=watching camera 0"]
    notifier.status("25 fps")
    assert receive(systemd) == ["STATUS=25 fps"]
    notifier.stopping()
    assert receive(systemd) == ["STOPPING=1"]
    notifier.close()
    notifier.ready()  # after close nothing happens


def test_reloading_has_the_time_of_the_monotonic_clock(systemd: socket.socket) -> None:
    """Systemd ignores a reload without it."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier({"NOTIFY_SOCKET": "notify"}).reloading()
    state, clock = receive(systemd)
    assert state == "RELOADING=1"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_status_stays_one_line(systemd: socket.socket) -> None:
    """A line break would let the name of a file or stream send another state."""
    Notifier({"NOTIFY_SOCKET": "notify"}).status("a\nSTOPPING=1")
    assert receive(systemd) == ["STATUS=a\\x0aSTOPPING=1"]


def test_the_watchdog_hears_a_few_beats_per_period(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four in 20 s, although the loop calls it for every frame."""
    clock = iter([0.0, 0.04, 4.9, 5.0, 5.04, 10.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    notifier = Notifier({"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())})
    for _ in range(6):
        notifier.beat()
    systemd.setblocking(False)
    assert [receive(systemd) for _ in range(3)] == [["WATCHDOG=1"]] * 3
    with pytest.raises(BlockingIOError):
        receive(systemd)


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}]
)
def test_without_a_watchdog_there_are_no_beats(systemd: socket.socket, watchdog: dict[str, str]) -> None:
    """Nor with one that was set for another process."""
    Notifier({"NOTIFY_SOCKET": "notify", **watchdog}).beat()
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        receive(systemd)


def test_an_abstract_socket_is_reached() -> None:
    """Systemd writes its leading zero byte as @."""
    name = f"edgeemo-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        try:
            listener.bind(f"\0{name}")
        except OSError:
            pytest.skip("this system has no abstract Unix sockets")
        listener.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert receive(listener) == ["READY=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "nobody-listens"}])
def test_without_systemd_nothing_happens(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notifier = Notifier(environment)
    for send in (notifier.ready, notifier.reloading, notifier.stopping, notifier.beat, notifier.close):
        send()
    assert list(tmp_path.iterdir()) == []
