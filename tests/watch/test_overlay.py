"""Boxes and labels on frames, and faces that nobody can recognise."""

from __future__ import annotations

import numpy as np
import pytest
import scenes
from watched import make_face, make_prediction, make_watched

from edgeemo.faces import load_detector
from edgeemo.faces.detection import Box
from edgeemo.predict import paint
from edgeemo.watch.frame import TrackedFace, WatchedFrame
from edgeemo.watch.outputs.overlay import BLOCKS, Overlay, hide

PLACES = ((40, 60, 150), (250, 60, 150))  # x, y, side


def draw_scene() -> np.ndarray:
    """Return a colour image with two synthetic faces, which the detector finds."""
    return scenes.draw((300, 460), *PLACES)[..., None].repeat(3, axis=2)


def watch(pixels: np.ndarray, *boxes: Box, seconds: float = 0.0, unclassified: tuple[Box, ...] = ()) -> WatchedFrame:
    faces = (
        TrackedFace(k + 1, box, 0.9, (), make_prediction("neutral"), make_prediction("anger"), 0.0, detected=True)
        for k, box in enumerate(boxes)
    )
    watched = make_watched(0, *faces, seconds=seconds, pixels=pixels)
    return WatchedFrame(watched.frame, watched.faces, unclassified=unclassified)


@pytest.fixture(scope="module")
def found() -> list[Box]:
    """The boxes that the packaged detector finds in the scene."""
    boxes = [one.box for one in load_detector().detect(draw_scene())]
    assert len(boxes) == 2
    return boxes


@pytest.mark.parametrize(("blur", "name"), [(False, "#1"), (True, "")])
def test_the_label_is_the_smoothed_one_and_names_nobody_where_faces_are_hidden(
    blur: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The track's number would tell that two videos show the same person."""
    lines = []
    real = paint._measure
    monkeypatch.setattr(paint, "_measure", lambda text, *rest: lines.append(text) or real(text, *rest))
    Overlay(blur=blur).paint(watch(draw_scene(), (40.0, 60.0, 150.0, 150.0)))
    assert lines[0] == f"{name} anger 80 %".strip()


def test_the_frame_itself_is_not_changed() -> None:
    """Other outputs and the next detection use it."""
    pixels = draw_scene()
    painted = Overlay(blur=True).paint(watch(pixels, (40.0, 60.0, 150.0, 150.0)))
    assert (pixels == draw_scene()).all()
    assert painted.shape == pixels.shape
    assert painted.dtype == np.uint8


def test_the_detector_does_not_find_a_hidden_face(found: list[Box]) -> None:
    """Neither a classified nor another one; without --blur, it finds both."""
    detector, pixels = load_detector(), draw_scene()
    assert len(detector.detect(Overlay().paint(watch(pixels, *found)))) == 2
    assert detector.detect(Overlay(blur=True).paint(watch(pixels, found[0], unclassified=(found[1],)))) == []


def test_a_hidden_face_is_a_few_flat_blocks(found: list[Box]) -> None:
    """Of BLOCKS x BLOCKS colours, over more than its box; two different faces of one mean would look the same."""
    hidden = hide(draw_scene(), found[:1])
    x, y, width, height = found[0]
    area = hidden[int(y) : int(y + height), int(x) : int(x + width)].reshape(-1, 3)
    assert len(np.unique(area, axis=0)) <= BLOCKS**2
    changed = (hidden != draw_scene()).any(axis=2).any(axis=0).nonzero()[0]
    assert changed.min() < x - 0.2 * width
    assert changed.max() > x + 1.2 * width


def test_detail_within_a_block_does_not_show() -> None:
    """Two images whose blocks have the same means become the same."""
    rng = np.random.default_rng(0)
    image = np.full((100, 100, 3), 128, np.uint8)
    sign = rng.permuted(np.tile([-60, 60], 2048).reshape(16, 256), axis=1).reshape(4, 4, 16, 16)
    noisy = image.copy().astype(int)
    noisy[18:82, 18:82] += sign.transpose(0, 2, 1, 3).reshape(64, 64)[..., None]
    box = (30.0, 30.0, 40.0, 40.0)  # enlarged, it covers 18 to 82
    assert (hide(noisy.astype(np.uint8), [box]) == hide(image, [box])).all()


def test_a_face_stays_hidden_for_a_second_after_it_was_lost(found: list[Box]) -> None:
    """The tracker may have lost it while it is still there."""
    pixels, overlay = draw_scene(), Overlay(blur=True)
    first = overlay.paint(watch(pixels, *found, seconds=0.0))
    assert not (overlay.paint(watch(pixels, seconds=0.9)) == pixels).all()
    assert first.shape == pixels.shape
    assert (overlay.paint(watch(pixels, seconds=1.1)) == pixels).all()


def test_a_face_that_moves_is_hidden_once() -> None:
    """Where it is now; areas of many frames on top of each other would show finer blocks."""
    pixels, overlay = draw_scene(), Overlay(blur=True)
    for step in range(10):
        overlay.paint(watch(pixels, (40.0 + step, 60.0, 150.0, 150.0), seconds=step / 25))
    assert len(overlay._recent) == 1


@pytest.mark.parametrize(
    "box", [(-500.0, 0.0, 10.0, 10.0), (-20.0, -20.0, 60.0, 60.0), (440.0, 290.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)]
)
def test_boxes_at_and_over_the_edges_are_hidden_as_far_as_they_are_there(box: Box) -> None:
    """No box ends the video."""
    assert hide(draw_scene(), [box]).shape == (300, 460, 3)


def test_a_face_of_a_shared_frame_can_be_painted_twice() -> None:
    """A window and a video paint the same frames."""
    watched = make_watched(0, make_face(1))
    assert (Overlay().paint(watched) == Overlay().paint(watched)).all()
