"""What each text opens, what its frames are, and what is said where it cannot be opened."""

import logging
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cameras import FakeCapture, FakeOpenCV, FakePiCamera
from fake_sources import Clock
from PIL import Image

from edgeemo.errors import DataError, MachineError, UsageError
from edgeemo.watch.scene import Scene
from edgeemo.watch.sources import SourceLostError, camera, open_source, opencv
from edgeemo.watch.sources.network import NetworkStream
from edgeemo.watch.sources.synthetic import Synthetic
from edgeemo.watch.sources.video import FileClock


def read_all(source):
    source.open()
    frames = list(iter(source.read, None))
    source.close()
    return frames


def make_video(path, colours, size=(64, 48), fps=20):
    """Write an MP4 of frames of one RGB colour each."""
    pytest.importorskip("cv2")
    cv2 = opencv.require_opencv("a test")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for colour in colours:
        writer.write(np.full((size[1], size[0], 3), colour[::-1], np.uint8))
    writer.release()
    return path


@pytest.fixture
def fake_opencv(monkeypatch, tmp_path):
    """Return a class of captures that stands for all cameras, with /dev/video0 and /dev/video2 there."""
    capture = type("Capture", (FakeCapture,), {})
    writer = SimpleNamespace(fourcc=lambda *letters: "".join(letters))
    levels = SimpleNamespace(setLogLevel=lambda level: level, LOG_LEVEL_SILENT=0)
    fake = FakeOpenCV(VideoCapture=capture, VideoWriter=writer, utils=SimpleNamespace(logging=levels))
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    for number in (0, 2):
        (tmp_path / f"video{number}").touch()
    return capture


@pytest.mark.parametrize(
    ("text", "name", "live"),
    [
        ("0", "camera 0", True),
        ("/dev/v4l/by-id/usb-1", "/dev/v4l/by-id/usb-1", True),
        ("picamera2", "picamera2:0", True),
        ("picamera2:1", "picamera2:1", True),
        ("synthetic", "synthetic:1", True),
        ("synthetic:4", "synthetic:4", True),
        ("rtsp://10.0.0.7/live?channel=1", "rtsp://10.0.0.7/live?channel=1", True),
        ("https://example.org/a.m3u8", "https://example.org/a.m3u8", True),
        ("frames/*.png", "frames/*.png", False),
    ],
)
def test_a_text_means_a_source(text, name, live):
    source = open_source(text)
    assert (source.name, source.live) == (name, live)


def test_a_path_is_a_folder_an_image_or_a_video_by_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.mp4").touch()
    kinds = [type(open_source(text)).__name__ for text in ("./synthetic", "synthetic", ".", "a.jpg", "b.mp4")]
    assert kinds == ["Folder", "Synthetic", "Folder", "Folder", "VideoFile"]


@pytest.mark.parametrize("text", ["nothing.mp4", "", "a\0b", "x" * 5000, "-1", "synthetic:", "picamera2:x", "1234"])
def test_what_means_nothing_is_refused_with_what_was_expected(text):
    with pytest.raises(UsageError, match=r"there is no source .*expected a camera's number \(0\)"):
        open_source(text)


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "rtsp://", "rtsp://host:99999/", "rtsp://host:x/", "rtsp://[::1/", "file:///tmp/a.mp4"],
)
def test_a_url_of_no_stream_is_refused(text):
    with pytest.raises(UsageError, match="expected rtsp, rtsps, http, https as in rtsp://USER:PASSWORD@HOST"):
        open_source(text)


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("rtsp://host/x", {"width": 640}, "has its own width"),
        ("rtsp://host/x", {"fps": 5}, "has its own fps"),
        ("0", {"width": 1}, "expected 16 to 16,384 pixels"),
        ("0", {"fps": 0}, "expected above 0 to 1,000 frames"),
        ("0", {"timeout": 0}, "expected seconds above 0"),
        ("synthetic:99", {}, "expected 0 to 24"),
    ],
)
def test_settings_that_a_source_cannot_follow_are_refused(text, settings, said):
    with pytest.raises(UsageError, match=said):
        open_source(text, **settings)


# Passwords


SECRETS = [
    "rtsp://admin:s3cret@127.0.0.1:1/live",
    "rtsp://admin:a@s3cret@127.0.0.1:1/live",
    "rtsp://127.0.0.1:1/live?user=me&password=s3cret&channel=2",
    "http://127.0.0.1:1/stream?token=s3cret#t",
    "http://127.0.0.1:1/stream?api_key=s3cret",
    "http://127.0.0.1:1/stream?u=me&pw=s3cret",
    "rtsp://127.0.0.1:1/user=me_password=s3cret_channel=1_stream=0.sdp",
    "rtsp://127.0.0.1:1/channel=1_password=s3_cret=s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_passwords_are_in_no_name_error_or_representation(url):
    pytest.importorskip("cv2")
    source = open_source(url, timeout=1.0)
    with pytest.raises(SourceLostError, match=r"no connection to 127\.0\.0\.1 port 1") as caught:
        source.open()
    for text in (source.name, repr(source), str(caught.value)):
        assert "s3cret" not in text
        assert "127.0.0.1" in source.name


@pytest.mark.parametrize("url", ["rtsp://me:12/s3cret@host/", "rtsp://me:12?s3cret@host/", "rtsp://me:s3cret@:x/"])
def test_a_password_that_is_not_encoded_is_not_taken_for_the_host_nor_shown(url):
    with pytest.raises(UsageError, match="%2F") as caught:
        open_source(url)
    assert "s3cret" not in str(caught.value)


# Cameras


def test_a_camera_is_asked_for_size_and_rate_and_gives_rgb(fake_opencv):
    image = np.zeros((480, 640, 3), np.uint8)
    image[..., 2] = 200  # red, as OpenCV stores it
    fake_opencv.images = [image] * 2
    source = open_source("0", width=1280, height=720, fps=30)
    source.open()
    assert fake_opencv.last.given["source"] == 0
    assert fake_opencv.last.given["backend"] == "CAP_V4L2"
    asked = {name: fake_opencv.last.given[f"CAP_PROP_{name}"] for name in ("FRAME_WIDTH", "FRAME_HEIGHT", "FPS")}
    assert asked == {"FRAME_WIDTH": 1280, "FRAME_HEIGHT": 720, "FPS": 30}
    assert fake_opencv.last.given["CAP_PROP_FOURCC"] == "MJPG"
    frames = [source.read(), source.read()]
    assert [frame.number for frame in frames] == [0, 1]
    assert frames[0].pixels[0, 0].tolist() == [200, 0, 0]
    assert frames[0].position is None
    source.close()
    assert fake_opencv.last.released


def test_a_camera_that_chooses_another_size_is_reported(fake_opencv, caplog):
    fake_opencv.overrides = {"CAP_PROP_FRAME_WIDTH": 320}
    open_source("0", width=640, height=480).open()
    assert [record.message for record in caplog.records] == [
        "camera 0 does not deliver what was asked for, but frame_width 320"
    ]


@pytest.mark.parametrize(
    "image",
    [np.full((4, 6), 77, np.uint8), np.full((4, 6, 1), 77, np.uint8), np.full((4, 6), 77 << 8, np.uint16)],
)
def test_a_gray_or_16_bit_camera_gives_rgb(fake_opencv, image):
    fake_opencv.images = [image]
    source = open_source("0")
    source.open()
    pixels = source.read().pixels
    assert (pixels.shape, pixels.dtype, set(pixels.ravel().tolist())) == ((4, 6, 3), np.uint8, {77})


def test_a_missing_camera_is_an_error_with_those_that_are_there(fake_opencv, tmp_path):
    with pytest.raises(SourceLostError, match=r"video7 does not exist\.  Video devices found: .*video0, .*video2"):
        open_source("7").open()
    for path in tmp_path.glob("video*"):
        path.unlink()
    with pytest.raises(SourceLostError, match=r"There is no /dev/video\*: plug in a camera"):
        open_source("7").open()
    assert not hasattr(fake_opencv, "last")


def test_a_camera_of_another_group_is_an_error_with_the_command(fake_opencv, monkeypatch):
    monkeypatch.setattr(camera.os, "access", lambda *_: False)
    with pytest.raises(SourceLostError, match="sudo usermod -aG video"):
        open_source("0").open()
    assert not hasattr(fake_opencv, "last")


def test_a_camera_in_use_is_an_error_and_released(fake_opencv):
    fake_opencv.opens = False
    with pytest.raises(SourceLostError, match="another program may be using it"):
        open_source("0").open()
    assert fake_opencv.last.released


def test_an_unplugged_camera_is_lost_and_its_numbers_go_on_when_it_is_back(fake_opencv):
    fake_opencv.images = [np.zeros((4, 6, 3), np.uint8)]
    source = open_source("0")
    source.open()
    source.read()
    with pytest.raises(SourceLostError, match="is it plugged in"):
        source.read()
    source.close()
    source.open()
    assert source.read().number == 1


@pytest.mark.parametrize("text", ["0", "rtsp://127.0.0.1/x", "video.mp4"])
def test_without_opencv_the_error_has_the_command_that_installs_it(text, monkeypatch, tmp_path, fake_opencv):
    assert fake_opencv.opens
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "video.mp4").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MachineError, match=r"needs cv2:  pip install 'edgeemo\[video\]'") as caught:
        open_source(text).open()
    assert not isinstance(caught.value, SourceLostError)  # which would be tried again and again


# Video files


def test_frames_of_a_video_are_rgb_with_the_positions_that_it_states(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(250, 20, 20), (20, 250, 20), (20, 20, 250)] * 3)
    frames = read_all(open_source(str(path)))
    assert [frame.number for frame in frames] == list(range(9))
    assert [frame.pixels[24, 32].argmax() for frame in frames] == [0, 1, 2] * 3
    assert [frame.position for frame in frames] == pytest.approx([number / 20 for number in range(9)])
    assert frames[0].pixels.shape == (48, 64, 3)


def test_a_video_of_a_turned_phone_is_upright(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(200, 200, 200)] * 3)
    content = path.read_bytes()
    matrix = content.index(b"tkhd") + 44  # a track header of version 0 (ISO/IEC 14496-12, 8.3.2)
    one = 1 << 16
    turned = np.array([0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content[:matrix] + turned + content[matrix + 36 :])
    assert read_all(open_source(str(path)))[0].pixels.shape == (64, 48, 3)


def test_a_video_that_ends_early_is_reported(tmp_path, caplog):
    path = make_video(tmp_path / "a.mp4", [(level, 0, 0) for level in range(0, 250, 5)])
    source = open_source(str(path))
    source.open()
    stated = {"CAP_PROP_FRAME_COUNT": 500.0}
    reader = source._clock.reader
    reader.get = lambda name, get=reader.get: stated.get(name) or get(name)
    while source.read():
        pass
    assert [record.message for record in caplog.records] == [f"{path} ended after 50 frames of 500; it may be damaged"]


def test_a_video_goes_on_behind_damage(caplog):
    """FFmpeg fails for some reads and then finds the next frame, at its own time."""

    class Damaged:
        def __init__(self):
            self.frames = [0, 1, None, None, None, 7, 8, 9]

        def read(self):
            self.at = self.frames.pop(0) if self.frames else None
            return None if self.at is None else np.zeros((4, 4, 3), np.uint8)

        def get(self, name):
            return {"CAP_PROP_FRAME_COUNT": 10.0, "CAP_PROP_FPS": 25.0, "CAP_PROP_POS_MSEC": 40.0 * (self.at or 0)}[
                name
            ]

    clock, positions = FileClock(Damaged(), "a.mp4"), []
    while (frame := clock.read()) is not None:
        positions.append(round(frame.position * 25))
    assert positions == [0, 1, 7, 8, 9]
    assert [record.message for record in caplog.records] == [
        "a.mp4 is damaged after 2 frames; it goes on behind",
        "a.mp4 ended after 5 frames of 10; it may be damaged",
    ]


READ = """
import sys
from edgeemo.watch.sources import open_source
source = open_source(sys.argv[1], timeout=0.3)
source.open()
while source.read():
    pass
"""


def test_what_is_no_video_is_refused_without_a_word_of_the_libraries(tmp_path):
    pytest.importorskip("cv2")
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(range(256)) * 8)
    done = subprocess.run([sys.executable, "-c", READ, path], check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("edgeemo.errors.DataError:")
    assert "holds no video that FFmpeg can decode" in done.stderr
    assert "moov" not in done.stderr  # FFmpeg's message
    assert "[" not in done.stderr.replace("[sources", "")  # the mark of OpenCV's and FFmpeg's


def test_a_file_whose_name_looks_like_a_protocol_is_read_as_a_file(tmp_path, monkeypatch):
    make_video(tmp_path / "a.mp4", [(9, 9, 9)] * 3).rename(tmp_path / "concat:a.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read_all(open_source("concat:a.mp4"))) == 3


def test_a_video_over_http_ends_as_a_file_does(tmp_path):
    make_video(tmp_path / "a.mp4", [(9, 9, 9)] * 5)
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        source = open_source(f"http://127.0.0.1:{server.server_address[1]}/a.mp4", timeout=5.0)
        frames = read_all(source)
        server.shutdown()
        thread.join()
    assert not source.live
    assert [frame.number for frame in frames] == list(range(5))
    assert frames[-1].position == pytest.approx(0.2)


def test_options_of_the_user_for_ffmpeg_count_and_ours_do_not_stay(monkeypatch):
    seen = []

    def capture(*_):
        seen.append(dict(opencv.os.environ))
        return SimpleNamespace(set=lambda *_: None)

    fake = SimpleNamespace(VideoCapture=capture, CAP_PROP_ORIENTATION_AUTO=0)
    monkeypatch.delenv(opencv.FFMPEG_OPTIONS, raising=False)
    opencv.Reader(fake, "x", backend=0, options="rtsp_transport;tcp")
    assert opencv.FFMPEG_OPTIONS not in opencv.os.environ
    monkeypatch.setenv(opencv.FFMPEG_OPTIONS, "rtsp_transport;udp")
    opencv.Reader(fake, "x", backend=0, options="rtsp_transport;tcp")
    assert [one[opencv.FFMPEG_OPTIONS] for one in seen] == ["rtsp_transport;tcp", "rtsp_transport;udp"]
    assert opencv.os.environ[opencv.FFMPEG_OPTIONS] == "rtsp_transport;udp"


def test_a_frame_that_comes_only_when_the_time_is_up_is_none():
    clock, pixels = Clock(), np.zeros((4, 6, 3), np.uint8)
    source = NetworkStream("rtsp://127.0.0.1/x", timeout=5.0, clock=clock)
    source._reader = SimpleNamespace(read=lambda: (clock.pause(4.9), pixels)[1])
    assert source.read().number == 0
    source._reader = SimpleNamespace(read=lambda: (clock.pause(5.0), pixels)[1])
    with pytest.raises(SourceLostError, match=r"time-out 5 s"):
        source.read()


# Folders


def save(path, value, mode="RGB"):
    Image.new(mode, (32, 24), value).save(path)


def test_images_of_a_folder_are_frames_in_natural_order(tmp_path):
    for number in (1, 2, 10):
        save(tmp_path / f"frame{number}.png", (number, 0, 0))
    frames = read_all(open_source(str(tmp_path), fps=10))
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert [frame.position for frame in frames] == pytest.approx([0.0, 0.1, 0.2])
    assert len(read_all(open_source(str(tmp_path / "*1*.png")))) == 2


def test_a_gray_image_is_an_rgb_frame(tmp_path):
    save(tmp_path / "a.png", 90, "L")
    (frame,) = read_all(open_source(str(tmp_path / "a.png")))
    assert frame.pixels.shape == (24, 32, 3)


def test_an_image_that_cannot_be_read_is_reported_and_its_time_remains(tmp_path, caplog):
    for number in (1, 2, 3):
        save(tmp_path / f"{number}.png", (number, 0, 0))
    (tmp_path / "2.png").write_bytes(b"no image")
    frames = read_all(open_source(str(tmp_path)))
    assert [(frame.number, frame.position) for frame in frames] == [(0, 0.0), (2, 0.08)]
    assert [record.message.endswith("; skipped") for record in caplog.records] == [True]
    assert "2.png" in caplog.text


def test_a_folder_without_one_readable_image_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_source(str(tmp_path)).open()
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        read_all(open_source(str(tmp_path)))


# Raspberry Pi


@pytest.fixture
def pi_camera(monkeypatch):
    fake = type("Picamera2", (FakePiCamera,), {})
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=fake))
    return fake


def test_a_pi_camera_is_configured_for_rgb_without_stale_frames_and_with_a_timeout(pi_camera):
    source = open_source("picamera2", width=1280, height=720, fps=30, timeout=3.0)
    source.open()
    assert pi_camera.calls[0] == {
        "main": {"size": (1280, 720), "format": "BGR888"},
        "controls": {"FrameRate": 30},
        "queue": False,
    }
    frame = source.read()
    assert (frame.number, frame.pixels[0, 0].tolist()) == (0, [200, 0, 0])
    source.close()
    assert pi_camera.calls[1:] == ["start", ("main", 3.0), "stop", "close"]


def test_a_pi_camera_that_is_missing_busy_or_silent_is_lost(pi_camera):
    with pytest.raises(SourceLostError, match="rpicam-hello --list-cameras"):
        open_source("picamera2:1").open()
    pi_camera.fails = "start"
    with pytest.raises(SourceLostError, match="did not complete"):
        open_source("picamera2").open()
    assert pi_camera.calls[-1] == "close"  # otherwise the next attempt would find it in use
    pi_camera.fails = "read"
    source = open_source("picamera2")
    source.open()
    with pytest.raises(SourceLostError, match="TimeoutError"):
        source.read()


def test_without_picamera2_the_error_says_how_raspberry_pi_os_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(MachineError, match=r"sudo apt install -y python3-picamera2 .*--system-site-packages"):
        open_source("picamera2").open()


# Synthetic


def test_a_synthetic_scene_is_paced_and_skips_what_is_read_too_late():
    clock, scene = Clock(), Scene(1, fps=20)
    source = Synthetic(scene, clock, clock.pause)
    source.open()
    numbers = [source.read().number for _ in range(3)]
    assert clock.now == pytest.approx(100.1)
    clock.now += 0.51
    late = source.read()
    assert numbers == [0, 1, 2]
    assert late.number == 12
    assert (late.pixels == scene.frame(12)[0]).all()


def test_a_synthetic_scene_goes_on_after_it_was_closed():
    clock = Clock()
    source = Synthetic(Scene(0, fps=20), clock, clock.pause)
    assert source.read().number == 0
    source.close()
    clock.now += 100
    assert source.read().number == 1


def test_synthetic_frames_have_the_size_that_was_asked_for():
    source = open_source("synthetic:2", width=320, height=240, fps=100)
    source.open()
    assert source.read().pixels.shape == (240, 320, 3)


def test_nothing_is_logged_where_nothing_is_wrong(tmp_path, caplog, capfd):
    caplog.set_level(logging.WARNING)
    read_all(open_source(str(make_video(tmp_path / "a.mp4", [(9, 9, 9)] * 3))))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
