"""A queue and a thread before each receiver: nothing it does stalls the loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import waiting

from edgeemo.errors import ClosedPipeError
from edgeemo.watch.outputs.background import Background, RejectedError, UndeliveredError

SECONDS = 20.0  # after which a test fails that waits for a thread
FAST = (0.001, 0.001)


class Recorder:
    """A sink that keeps what is sent, after `answer` has allowed it."""

    name, batch = "a recorder", 2

    def __init__(self, answer: Callable[[Sequence[Any]], None] = lambda _items: None) -> None:
        self.items: list[Any] = []
        self.called, self.closed = threading.Event(), threading.Event()
        self._answer = answer

    def send(self, items: Sequence[Any]) -> None:
        """Keep items."""
        self.called.set()
        self._answer(items)
        self.items.extend(items)

    def abort(self) -> None:
        """Go on: the test decides when."""

    def close(self) -> None:
        """Tell it."""
        self.closed.set()


def test_what_is_written_arrives_in_order() -> None:
    """And the receiver is released at the end."""
    sink = Recorder()
    output = Background(sink)
    for item in range(7):
        output.write(item)
    output.close()
    assert sink.items == list(range(7))
    assert (output.written, output.lost, output.failed) == (7, 0, None)
    assert sink.closed.is_set()


def test_a_receiver_that_never_answers_stalls_nothing_and_costs_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    """Every write returns; one line says that items are dropped, another that it keeps up again."""
    answers = threading.Event()
    sink = Recorder(lambda _items: _wait(answers))
    output = Background(sink, capacity=3)
    output.write("first")
    assert sink.called.wait(SECONDS)
    with caplog.at_level(logging.WARNING):
        for item in range(10):
            output.write(item)
        assert output.lost == 7
        assert [record.getMessage() for record in caplog.records] == [
            "a recorder does not keep up; the oldest items are dropped"
        ]
        answers.set()
        output.close()
    assert sink.items == ["first", 7, 8, 9]
    assert caplog.records[-1].getMessage() == "a recorder keeps up again; 7 items lost"
    assert len(caplog.records) == 2


def test_a_receiver_that_never_answers_cannot_hold_the_end() -> None:
    """What is left is counted as lost."""
    answers = threading.Event()
    sink = Recorder(lambda _items: _wait(answers))
    output = Background(sink, flush_seconds=0.01)
    for item in range(5):
        output.write(item)
    assert sink.called.wait(SECONDS)
    output.close()
    assert (output.written, output.lost) == (0, 5)
    output.write("too late")
    assert output.lost == 6
    answers.set()
    assert sink.closed.wait(SECONDS)
    assert (output.written, output.lost) == (0, 6)


@pytest.mark.parametrize(
    "error", [OSError("no space left"), UndeliveredError("not now"), UndeliveredError("", after=0.001)]
)
def test_what_does_not_arrive_is_sent_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """One line says that it fails, another that it works again."""
    failures = iter([error] * 3)

    def answer(_items: Sequence[Any]) -> None:
        if failure := next(failures, None):
            raise failure

    sink = Recorder(answer)
    with caplog.at_level(logging.WARNING):
        output = Background(sink, back_off=FAST)
        output.write("item")
        _wait_for(lambda: output.written == 1)
        output.close()
    assert sink.items == ["item"]
    assert (output.lost, output.failed) == (0, None)
    assert [record.getMessage() for record in caplog.records] == [
        f"a recorder fails: {error}",
        "a recorder works again",
    ]


def test_what_is_rejected_is_lost_and_the_next_is_sent() -> None:
    """As after a record that a server does not accept."""

    def answer(items: Sequence[Any]) -> None:
        if "bad" in items:
            raise RejectedError("the server answers 400")

    sink = Recorder(answer)
    output = Background(sink, back_off=FAST)
    output.write("bad")
    _wait_for(lambda: output.lost == 1)
    assert output.failed == "the server answers 400"
    output.write("good")
    output.close()
    assert (sink.items, output.written, output.lost) == (["good"], 1, 1)


def test_any_other_error_ends_the_output_and_is_kept_for_the_loop() -> None:
    """As where nobody reads standard output any more."""

    def answer(_items: Sequence[Any]) -> None:
        raise ClosedPipeError("standard output is not read any more")

    output = Background(Recorder(answer))
    output.write("item")
    _wait_for(lambda: output.error is not None)
    output.write("another")
    output.close()
    assert isinstance(output.error, ClosedPipeError)
    assert output.lost == 2


def test_a_source_that_waits_loses_nothing() -> None:
    """A write waits for a place in the queue where that is wanted."""
    answers = threading.Event()
    sink = Recorder(lambda _items: _wait(answers))
    output = Background(sink, capacity=2, waits=True)
    writer = threading.Thread(target=lambda: [output.write(item) for item in range(50)], daemon=True)
    writer.start()
    assert sink.called.wait(SECONDS)
    answers.set()
    writer.join(SECONDS)
    output.close()
    assert (sink.items, output.lost) == (list(range(50)), 0)


def test_a_source_that_waits_goes_on_where_the_receiver_fails() -> None:
    """A full disk does not stop the program."""

    def answer(_items: Sequence[Any]) -> None:
        raise OSError("no space left")

    output = Background(Recorder(answer), capacity=2, waits=True, back_off=FAST, flush_seconds=0.01)
    writer = threading.Thread(target=lambda: [output.write(item) for item in range(50)], daemon=True)
    writer.start()
    writer.join(SECONDS)
    assert not writer.is_alive()
    output.close()
    assert (output.written, output.lost) == (0, 50)


def test_a_source_that_waits_is_let_go_when_the_program_ends() -> None:
    """A signal ends a program whose reader has stopped reading, as `| less`."""
    answers, ending = threading.Event(), threading.Event()
    sink = Recorder(lambda _items: _wait(answers))
    output = Background(sink, capacity=2, waits=True, ending=ending.is_set, flush_seconds=0.01)
    writer = threading.Thread(target=lambda: [output.write(item) for item in range(50)], daemon=True)
    writer.start()
    assert sink.called.wait(SECONDS)
    ending.set()
    writer.join(SECONDS)
    assert not writer.is_alive()
    answers.set()
    output.close()


def test_a_file_that_is_slow_to_finish_is_waited_for() -> None:
    """Longer than for what is still in the queue: a video on a slow disk would be lost with the process."""
    finishing, done = threading.Event(), threading.Event()

    class Slow(Recorder):
        def close(self) -> None:
            """Take until the test says so."""
            finishing.set()
            _wait(done)
            super().close()

    sink = Slow()
    output = Background(sink, flush_seconds=0.01, finish_seconds=SECONDS)
    closer = threading.Thread(target=output.close, daemon=True)
    closer.start()
    assert finishing.wait(SECONDS)
    closer.join(0.1)
    assert closer.is_alive()
    done.set()
    closer.join(SECONDS)
    assert sink.closed.is_set()


def test_an_end_that_fails_is_kept_for_who_closed_it() -> None:
    """As a video that cannot get its name: the program must not report success."""

    class Broken(Recorder):
        def close(self) -> None:
            """Fail."""
            raise ValueError("not renamed")

    output = Background(Broken())
    output.write("an item")
    output.close()
    assert str(output.error) == output.failed == "not renamed"


def _wait(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def _wait_for(condition: Callable[[], bool]) -> None:
    """Return as soon as another thread has made a condition true."""
    waiting.wait_until(condition, SECONDS)
