"""Which source a text means."""

from __future__ import annotations

import re
from glob import has_magic
from math import isfinite
from pathlib import Path

from edgeemo.errors import UsageError
from edgeemo.names import is_image_name
from edgeemo.watch.scene import CLEAR, Scene
from edgeemo.watch.sources.camera import Camera
from edgeemo.watch.sources.folder import Folder
from edgeemo.watch.sources.network import NetworkStream, split_url
from edgeemo.watch.sources.picamera import PiCamera
from edgeemo.watch.sources.source import Source, mask_secrets
from edgeemo.watch.sources.synthetic import Synthetic
from edgeemo.watch.sources.video import DEFAULT_FPS, VideoFile

EXPECTED = (
    "a camera's number (0) or device (/dev/video0), a video file, a folder or pattern of images ('frames/*.png'), a "
    "URL (rtsp, rtsps, http, https), picamera2[:NUMBER], or synthetic[:PEOPLE]; a file of such a name is ./NAME"
)
NAMED = re.compile(r"(picamera2|synthetic)(?::([0-9]{1,3}))?")
LARGEST = 16_384  # pixels a side
FASTEST = 1000  # frames a second
VISIT = 20.0  # seconds that each of several people in a rendered scene stays


def open_source(
    text: str,
    *,
    width: int | None = None,
    height: int | None = None,
    fps: float | None = None,
    timeout: float = 10.0,
) -> Source:
    """Return the source that a text means; nothing is opened before `Source.open`.

    text: 0 or /dev/video0, a camera; rtsp://, rtsps://, http:// or https://, a stream; a folder of images, a pattern,
    or an image; another file, a video; picamera2 or picamera2:1; synthetic or synthetic:PEOPLE, a rendered scene,
    in which several people come and go.
    width, height: of a frame in pixels, for cameras and `synthetic`. fps: frames per second, for these and folders.
    timeout: seconds without a frame after which a stream or picamera2 is lost.

    Raises UsageError for a text that means none of these, and settings that the source cannot follow.
    """
    _check_settings(width, height, fps, timeout)
    source = _choose(text, width, height, fps, timeout)
    sized, paced = isinstance(source, (Camera, PiCamera, Synthetic)), not isinstance(source, (VideoFile, NetworkStream))
    for name, value, allowed in (("width", width, sized), ("height", height, sized), ("fps", fps, paced)):
        if value is not None and not allowed:
            raise UsageError(f"{source.name} has its own {name}, which cannot be set to {value:g}; leave it out")
    return source


def _choose(text: str, width: int | None, height: int | None, fps: float | None, timeout: float) -> Source:
    if re.fullmatch(r"[0-9]{1,3}", text):
        return Camera(int(text), width, height, fps)
    if text.startswith("/dev/"):
        return Camera(text, width, height, fps)
    if found := NAMED.fullmatch(text):
        if found[1] == "picamera2":
            return PiCamera(int(found[2] or 0), width, height, fps, timeout)
        people = int(found[2] or 1)
        visit = VISIT if people > 1 else None
        return Synthetic(Scene(people, 0, width or 640, height or 480, fps or DEFAULT_FPS, labels=CLEAR, visit=visit))
    if "://" in text:
        split_url(text)
        return NetworkStream(text, timeout)
    return _choose_path(text, fps)


def _choose_path(text: str, fps: float | None) -> Source:
    path = Path(text)
    try:
        kinds = (path.is_dir(), path.exists()) if text else (False, False)
    except (OSError, ValueError):  # a NUL, or a name that is too long
        kinds = (False, False)
    is_folder, is_there = kinds
    if is_folder or (has_magic(text) and not is_there) or (is_there and is_image_name(path.name)):
        return Folder(path, fps or DEFAULT_FPS)
    if not is_there:
        raise UsageError(f"there is no source {mask_secrets(text)!r}; expected {EXPECTED}")
    return VideoFile(path)


def _check_settings(width: int | None, height: int | None, fps: float | None, timeout: float) -> None:
    for name, pixels in (("width", width), ("height", height)):
        if pixels is not None and not 16 <= pixels <= LARGEST:
            raise UsageError(f"{name} is {pixels}; expected 16 to {LARGEST:,} pixels")
    if fps is not None and not 0 < fps <= FASTEST:
        raise UsageError(f"fps is {fps:g}; expected above 0 to {FASTEST:,} frames a second")
    if not (isfinite(timeout) and timeout > 0):
        raise UsageError(f"timeout is {timeout:g}; expected seconds above 0")
