"""The line that tells how it goes, and the window."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fake_cv2 import FakeCv2
from watched import make_face, make_watched

from edgeemo.errors import MachineError
from edgeemo.watch.outputs import window
from edgeemo.watch.outputs.overlay import Overlay
from edgeemo.watch.outputs.terminal import Terminal
from edgeemo.watch.outputs.window import Window


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def run(terminal_stream: io.StringIO, seconds: float, **settings: Any) -> None:
    """Watch at 20 frames a second."""
    now = [0.0]
    terminal = Terminal(terminal_stream, clock=lambda: now[0], **settings)
    for number in range(1, round(20 * seconds) + 1):
        now[0] = number / 20
        latency = 0.030 if number % 10 else 0.200
        terminal.update(replace(make_watched(number, make_face(1)), latency=latency, dropped=7), reconnects=2, lost=3)
    terminal.close()


def test_a_terminal_is_refreshed_at_most_twice_a_second() -> None:
    """On one line, which is erased at the end, where the summary follows."""
    screen = Screen()
    run(screen, 10)
    lines = screen.getvalue().split("\r\x1b[K")[1:]
    assert len(lines) == 21
    assert lines[-2] == "20.0 fps | latency p50 30 ms, p95 200 ms | dropped 7 | faces 1 | reconnects 2 | not written 3"
    assert not lines[-1]
    assert "\n" not in "".join(lines)


def test_a_log_gets_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A journal would fill up otherwise."""
    with caplog.at_level(logging.INFO, logger="edgeemo"):
        run(io.StringIO(), 185)
    assert len(caplog.records) == 3
    assert caplog.records[0].getMessage().startswith("20.0 fps | latency p50 30 ms")


def test_the_number_of_faces_is_not_told_where_people_shall_not_be_known() -> None:
    """A journal is kept as well."""
    screen = Screen()
    run(screen, 1, faces=False)
    assert "faces" not in screen.getvalue()


def test_a_terminal_that_is_gone_does_not_end_the_program() -> None:
    """As after an SSH connection has broken."""
    broken = SimpleNamespace(isatty=lambda: True, write=_fail, flush=_fail)
    run(broken, 1)


def _fail(*_args: object) -> None:
    raise OSError("Input/output error")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes the OpenCV that there shall be, and whether there is a screen."""

    def install(cv2: FakeCv2, *, screen: bool = True) -> FakeCv2:
        monkeypatch.setattr(window, "require", lambda *_args, **_kwargs: cv2)
        monkeypatch.setattr(window.sys, "platform", "linux")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("DISPLAY", ":0" if screen else "")
        return cv2

    return install


@pytest.mark.parametrize("key", [ord("q"), 27, 0x100000 | 27])
def test_q_and_escape_end_it(key: int, use: Any) -> None:
    """Other keys do not."""
    cv2 = use(FakeCv2((-1, ord("x"), key)))
    shown = Window(Overlay())
    assert [shown.show(make_watched(0)) for _ in range(3)] == [True, True, False]
    shown.close()
    assert len(cv2.shown) == 3
    assert cv2.closed


def test_a_window_that_the_user_closes_ends_it(use: Any) -> None:
    """It is not opened again."""
    cv2 = use(FakeCv2(visible=0.0))
    shown = Window(Overlay())
    assert [shown.show(make_watched(0)) for _ in range(2)] == [True, False]
    assert len(cv2.shown) == 1


def test_an_opencv_without_windows_is_refused_with_what_to_do(use: Any) -> None:
    """Instead of an error in the first frame."""
    use(FakeCv2(gui="NONE"))
    with pytest.raises(MachineError, match=r"--save out\.mp4.*pip install opencv-python"):
        Window(Overlay())


def test_a_machine_without_a_screen_is_refused_with_what_to_do(use: Any) -> None:
    """OpenCV would end the process."""
    use(FakeCv2(), screen=False)
    with pytest.raises(MachineError, match=r"no screen.*--save out\.mp4"):
        Window(Overlay())
