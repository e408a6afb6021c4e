"""The newest frame of a live source, every frame of a file, and sources that are lost, come back or freeze."""

import logging
import threading
import time

import pytest
from fake_sources import LOST, Clock, Scripted

from edgeemo.errors import DataError, MachineError
from edgeemo.watch import capture as module
from edgeemo.watch.capture import Capture
from edgeemo.watch.sources import SourceLostError


def read_all(capture):
    with capture:
        return [frame.number for frame in capture]


def wait_for_thread(capture):
    capture._thread.join(10)
    assert not capture._thread.is_alive()


def take_all(capture):
    """Take frames until the end."""
    while capture.read() is not None:
        pass


@pytest.fixture
def gate():
    """An event that a read waits for, which is set at the end whatever happens."""
    event = threading.Event()
    yield event
    event.set()


def test_a_live_source_gives_its_newest_frame_and_counts_the_others_as_dropped(gate):
    reached = threading.Event()
    source = Scripted(1, 2, 3, 4, 5, reached.set, lambda: gate.wait(10), 6)
    with Capture(source) as capture:
        assert reached.wait(10)
        assert capture.read().number == 4
        assert (capture.dropped, capture.frames) == (4, 5)
        gate.set()
        assert capture.read().number == 5
        assert capture.dropped == 4


def test_every_frame_of_a_file_is_given_in_order_then_it_ends_and_is_closed():
    source = Scripted(*range(20), live=False, fps=25)
    capture = Capture(source)
    assert read_all(capture) == list(range(20))
    assert (capture.ended, capture.connected, capture.dropped) == (True, False, 0)
    assert source.calls == ["open", "close"]


def test_a_file_in_real_time_is_played_at_its_rate_and_drops_what_is_not_taken():
    clock = Clock()
    source = Scripted(*range(10), live=False, fps=10)
    capture = Capture(source, realtime=True, clock=clock, pause=clock.pause)
    before = time.monotonic()
    with capture:
        while capture.frames < 10:
            time.sleep(0)
        last = capture.read()
    assert (last.number, last.position, capture.dropped) == (9, 0.9, 9)
    assert last.captured >= before  # when it was due, not when it was decoded
    assert clock.pauses == pytest.approx([0.0] + [0.1] * 9)


def test_a_lost_source_is_opened_again_with_growing_pauses_and_one_line_each(caplog):
    clock = Clock()
    source = Scripted(1, LOST, *["no"] * 9, 2, None)
    capture = Capture(source, clock=clock, pause=clock.pause, pauses=(0.5, 30.0))
    caplog.set_level(logging.INFO)
    read_all(capture)
    assert (capture.reconnects, capture.frames) == (1, 2)
    assert caplog.messages == [
        "camera 0 delivers no frames any more; trying to reconnect",
        "camera 0 delivers frames again",
    ]
    longest = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert len(clock.pauses) == len(longest)
    assert all(most / 2 <= pause <= most for pause, most in zip(clock.pauses, longest, strict=True))
    assert source.calls == ["open", *["close", "open"] * 10, "close"]


def test_pauses_differ_so_that_many_devices_do_not_reconnect_at_once():
    clock = Clock()
    read_all(Capture(Scripted(1, LOST, *["no"] * 20, 2, None), clock=clock, pause=clock.pause, pauses=(1.0, 1.0)))
    assert len(set(clock.pauses)) > 15


def test_a_source_that_comes_and_goes_is_tried_less_and_less_often_and_a_steady_one_at_once_again():
    clock = Clock()

    def last_a_minute():
        clock.now += 60

    script = (1, LOST, 2, LOST, 3, LOST, 4, last_a_minute, LOST, 5, None)
    read_all(Capture(Scripted(*script), clock=clock, pause=clock.pause, pauses=(1.0, 64.0)))
    assert all(most / 2 <= pause <= most for pause, most in zip(clock.pauses, [1, 2, 4, 1], strict=True))


def test_a_live_source_that_cannot_be_opened_raises_at_once():
    capture = Capture(Scripted("no", 1))
    with pytest.raises(SourceLostError, match="cannot be opened"), capture:
        pass
    assert not capture._thread.is_alive()


def test_told_to_wait_it_keeps_trying_to_open_which_is_no_reconnect(caplog):
    clock = Clock()
    capture = Capture(Scripted("no", "no", "no", 1, None), wait=True, clock=clock, pause=clock.pause)
    assert read_all(capture) == [0]
    assert (capture.reconnects, len(clock.pauses)) == (0, 3)
    assert caplog.messages[0] == "camera 0 cannot be opened; trying to reconnect"
    assert len(caplog.records) == 2


def test_what_waiting_cannot_cure_is_raised_even_if_told_to_wait():
    source = Scripted()
    source.open = lambda: (_ for _ in ()).throw(MachineError("reading a camera needs cv2"))
    with pytest.raises(MachineError, match="needs cv2"), Capture(source, wait=True) as capture:
        capture.read()
    wait_for_thread(capture)


def test_an_error_of_a_file_is_raised_after_the_frames_before_it():
    capture = Capture(Scripted(1, 2, DataError("damaged"), live=False))
    taken = []
    with pytest.raises(DataError, match="damaged"), capture:
        taken.extend(frame.number for frame in capture)
    assert capture.ended
    wait_for_thread(capture)


def test_frames_before_an_error_are_not_lost():
    with Capture(Scripted(1, 2, DataError("damaged"), live=False)) as capture:
        assert [capture.read().number, capture.read().number] == [0, 1]
        with pytest.raises(DataError):
            capture.read()


def test_numbers_that_jump_are_frames_that_the_source_dropped():
    source = Scripted(1, lambda: setattr(source, "number", 10), 2, None)
    capture = Capture(source)
    read_all(capture)
    assert capture.dropped >= 10


def test_the_very_same_image_for_long_is_noticed_once_and_is_not_healthy(caplog, gate):
    clock, reached = Clock(), threading.Event()
    tick = lambda: clock.pause(1.0)  # noqa: E731
    source = Scripted(7, *[tick, 7] * 12, reached.set, lambda: gate.wait(10), tick, 8, None)
    with Capture(source, clock=clock, frozen_after=10.0) as capture:
        assert reached.wait(10)
        assert (capture.frozen, capture.connected, capture.healthy) == (True, True, False)
        gate.set()
        take_all(capture)
        assert not capture.frozen
    said = caplog.messages
    assert len(said) == 2
    assert "frozen: it has delivered the very same image for 10 s" in said[0]
    assert "change again" in said[1]


def test_an_image_that_changes_a_little_is_not_frozen(caplog):
    clock = Clock()
    tick = lambda: clock.pause(1.0)  # noqa: E731
    read_all(capture := Capture(Scripted(*[7, tick, 8, tick] * 12, None), clock=clock, frozen_after=3.0))
    assert not capture.frozen
    assert not caplog.records


def test_a_folder_of_equal_images_is_not_frozen(caplog):
    clock = Clock()
    tick = lambda: clock.pause(1.0)  # noqa: E731
    capture = Capture(Scripted(*[7, tick] * 12, live=False, fps=25), clock=clock, frozen_after=3.0)
    read_all(capture)
    assert not capture.frozen
    assert not caplog.records


def test_what_draws_on_a_frame_does_not_hide_that_the_source_is_frozen():
    clock, reached, go = Clock(), threading.Event(), threading.Event()
    source = Scripted(7, reached.set, lambda: go.wait(10), lambda: clock.pause(5.0), 7, None)
    with Capture(source, clock=clock, frozen_after=3.0) as capture:
        assert reached.wait(10)
        capture.read().pixels[:] = 0
        go.set()
        assert capture.read() is not None
        assert capture.frozen


def test_a_source_that_blocks_for_too_long_is_not_connected_and_said_once(caplog, gate):
    clock, reached = Clock(), threading.Event()
    source = Scripted(1, reached.set, lambda: gate.wait(10), LOST, 2, None)
    with Capture(source, clock=clock, pause=clock.pause, lost_after=0.02) as capture:
        assert reached.wait(10)
        assert capture.read().number == 0
        assert capture.connected
        clock.now += 1.0
        assert not capture.connected
        assert capture.read(timeout=0.05) is None
        gate.set()
        assert capture.read().number == 1
        assert capture.reconnects == 1
    assert caplog.messages == [
        "camera 0 has delivered no frame for 0.02 s; trying to reconnect",
        "camera 0 delivers frames again",
    ]


def test_reading_with_a_timeout_returns_none_without_an_end(gate):
    with Capture(Scripted(lambda: gate.wait(10), 1)) as capture:
        assert capture.read(timeout=0.01) is None
        assert not capture.ended
        assert not capture.connected  # nothing has come yet


def test_closing_returns_while_a_read_blocks_and_the_thread_ends_with_the_read(monkeypatch, gate):
    monkeypatch.setattr(module, "CLOSING", 0.02)
    reached, source = threading.Event(), Scripted()
    source.script = [reached.set, lambda: gate.wait(10), 1]
    capture = Capture(source)
    capture.start()
    assert reached.wait(10)
    capture.close()
    assert capture._thread.is_alive()
    assert capture._thread.daemon
    assert "close" not in source.calls  # releasing what is being read would crash
    assert capture.read() is None
    gate.set()
    wait_for_thread(capture)
    assert source.calls[-1] == "close"


def test_closing_ends_a_pause_between_attempts_at_once():
    capture = Capture(Scripted(LOST, *["no"] * 100), pauses=(3600.0, 3600.0))
    capture.start()
    capture.close()
    wait_for_thread(capture)


def test_closing_wakes_who_waits_for_a_frame(gate):
    capture, taken = Capture(Scripted(lambda: gate.wait(10))), []
    capture.start()
    waiting = threading.Thread(target=lambda: taken.append(capture.read()))
    waiting.start()
    gate_later = threading.Timer(0, capture.close)
    gate_later.start()
    gate.set()
    waiting.join(10)
    gate_later.join(10)
    assert taken == [None]
    wait_for_thread(capture)


def test_closing_a_file_half_way_leaves_no_thread():
    source = Scripted(*range(100), live=False, fps=25)
    with Capture(source) as capture:
        assert capture.read().number == 0
    wait_for_thread(capture)
    assert source.calls == ["open", "close"]
