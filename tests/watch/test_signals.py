"""Signals set what a loop reads, and leave no handler behind."""

from __future__ import annotations

import signal
from threading import Thread

import pytest

from edgeemo.watch.signals import catch_signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_asks_to_end(name: str) -> None:
    """Afterwards the earlier handler is back."""
    before = signal.getsignal(getattr(signal, name))
    with catch_signals(lambda: None) as signals:
        assert not signals.stopped_by
        signal.raise_signal(getattr(signal, name))
        assert signals.stopped_by == name
    assert signal.getsignal(getattr(signal, name)) is before


def test_a_second_interrupt_does_not_wait() -> None:
    with catch_signals(lambda: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_hangup_asks_to_load_again() -> None:
    asked: list[bool] = []
    with catch_signals(lambda: asked.append(True)) as signals:
        signal.raise_signal(signal.SIGHUP)
    assert asked == [True]
    assert not signals.stopped_by


def test_another_thread_catches_nothing() -> None:
    """Python allows handlers in the main thread only."""
    caught: list[str] = []

    def work() -> None:
        with catch_signals(lambda: None) as signals:
            caught.append(signals.stopped_by)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert caught == [""]
