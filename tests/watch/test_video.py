"""A video of watched frames: each when it was captured, and whole however the program ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from watched import make_watched

from edgeemo.errors import UsageError
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.outputs import video
from edgeemo.watch.outputs.background import Background
from edgeemo.watch.outputs.overlay import Overlay
from edgeemo.watch.outputs.video import VideoFile

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
SHADES = (20, 60, 100, 140, 180, 220)


def make_frame(shade: int, seconds: float, size: tuple[int, int] = (256, 320)) -> WatchedFrame:
    return make_watched(0, seconds=seconds, pixels=np.full((*size, 3), (shade, 0, 0), np.uint8))


def write(path: Path, *frames: WatchedFrame, keep: bool = False) -> None:
    sink = VideoFile(path, Overlay(), keep=keep)
    for frame in frames:
        sink.send([frame])
    sink.close()


def read(path: Path) -> tuple[list[int], float]:
    """Return the shade of red of each frame, and frames per second."""
    capture = cv2.VideoCapture(str(path))
    shades = []
    while (frame := capture.read()[1]) is not None:
        red = frame[..., 2].mean()
        shades.append(min(SHADES, key=lambda shade: abs(shade - red)))
        assert frame[..., 0].mean() < 15  # red has stayed red
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return shades, rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".MP4"])
def test_each_frame_is_shown_when_it_was_captured(suffix: str, tmp_path: Path) -> None:
    """At 25 frames a second, whatever the rate of the source: repeated in a gap, left out where there are too many."""
    path = tmp_path / f"out{suffix}"
    times = (0.0, 0.04, 0.20, 0.205, 0.21, 1.0)
    write(path, *map(make_frame, SHADES, times))
    shades, rate = read(path)
    assert rate == 25
    assert shades == [SHADES[0]] + [SHADES[1]] * 4 + [SHADES[4]] * 20 + [SHADES[5]]
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]


def test_a_long_gap_is_shortened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A camera that was away for a night adds no night of the same image; what follows keeps its distances."""
    write(tmp_path / "out.avi", *map(make_frame, SHADES, (0.0, 40_000.0, 40_000.2)))
    shades, _ = read(tmp_path / "out.avi")
    assert shades == [SHADES[0]] * 250 + [SHADES[1]] * 5 + [SHADES[2]]
    assert "40000 s without a frame are shortened to 10" in caplog.text


def test_a_clock_that_goes_back_shows_the_newer_frame(tmp_path: Path) -> None:
    """And does not end the video."""
    write(tmp_path / "out.avi", *map(make_frame, SHADES, (0.0, 0.2, 0.1)))
    assert read(tmp_path / "out.avi")[0] == [SHADES[0]] * 5 + [SHADES[2]]


def test_frames_of_another_size_are_resized(tmp_path: Path) -> None:
    """As after a camera has come back with other settings; odd sides lose a pixel."""
    write(tmp_path / "out.mp4", make_frame(20, 0.0, (257, 321)), make_frame(60, 0.04, (512, 640)))
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert [capture.read()[1].shape for _ in range(2)] == [(256, 320, 3)] * 2
    capture.release()


def test_without_a_frame_there_is_no_video(tmp_path: Path) -> None:
    """Nor a temporary file; a video of before stays."""
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an older one")
    write(path)
    assert path.read_bytes() == b"an older one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_recording_is_never_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A service that starts again has the same options; nobody can record the past again."""
    path = tmp_path / "out.mp4"
    for number in range(3):
        write(path, *[make_frame(SHADES[number], 0.0)], keep=True)
    shades = {file.name: read(file)[0] for file in tmp_path.iterdir()}
    assert shades == {"out.mp4": [SHADES[0]], "out-2.mp4": [SHADES[1]], "out-3.mp4": [SHADES[2]]}
    assert f"{path} exists; the video is written to {tmp_path / 'out-2.mp4'}" in caplog.text


def test_a_disk_that_is_nearly_full_ends_the_video_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before OpenCV would write a damaged one without saying so; the loop goes on."""
    monkeypatch.setattr(video.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1e6))
    output = Background(
        VideoFile(tmp_path / "out.mp4", Overlay()), waits=True, back_off=(0.001, 0.001), flush_seconds=0.05
    )
    for number in range(40):
        output.write(make_frame(SHADES[0], number / 25))
    output.close()
    assert read(tmp_path / "out.mp4")[0] == [SHADES[0]] * video.CHECK_FRAMES
    assert (output.written, output.lost) == (video.CHECK_FRAMES, 40 - video.CHECK_FRAMES)
    assert "the video has ended" in output.failed


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_program_leaves_a_video_under_a_temporary_name(tmp_path: Path) -> None:
    """It can be told from a whole one, is played as .avi, and is removed when the same name is replaced."""
    code = (
        "import sys, time; from pathlib import Path; from watched import *\n"
        "from edgeemo.watch.outputs.overlay import Overlay\n"
        "from edgeemo.watch.outputs.video import VideoFile\n"
        "sink = VideoFile(Path(sys.argv[1]), Overlay())\n"
        "rng = np.random.default_rng(0)\n"
        "for n in range(60): sink.send([make_watched(n, pixels=rng.integers(0, 255, (256, 320, 3), np.uint8))])\n"
        "print('running', flush=True)\n"
        "time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    path = tmp_path / "out.avi"
    with subprocess.Popen([sys.executable, "-c", code, path], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"running\n"
        process.kill()
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".out.")
    assert partial.name.endswith(".partial.avi")
    capture = cv2.VideoCapture(str(partial))
    assert capture.read()[0]
    capture.release()
    write(path, make_frame(20, 0.0), keep=True)
    assert sorted(tmp_path.iterdir()) == [partial, path]
    write(path, make_frame(20, 0.0))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """With the kinds that there are."""
    with pytest.raises(UsageError, match=r"ends in \.mp4, \.mkv, \.avi"):
        VideoFile(tmp_path / "out.gif", Overlay())
