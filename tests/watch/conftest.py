"""Shared by the tests of watching."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

SECONDS = 20.0


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Returns as soon as another thread has made a condition true; fails after SECONDS."""
    never = threading.Event()

    def wait(condition: Callable[[], bool]) -> None:
        for _ in range(int(SECONDS / 0.005)):
            if condition():
                return
            never.wait(0.005)
        raise AssertionError

    return wait


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test ends the threads that it has started."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(SECONDS)
    assert set(threading.enumerate()) <= before
