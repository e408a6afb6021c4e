"""Synthetic faces: the same seed gives the same face, and action units move what they move in a person."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edgeemo.data.drawing import PROTOTYPES, draw_face
from edgeemo.data.drawing.actions import ACTION_UNITS, sample_actions
from edgeemo.data.drawing.geometry import shape_face
from edgeemo.data.drawing.person import Identity


def actions(*units: int) -> np.ndarray:
    """(2, 28) float64: these action units at full strength on both sides."""
    both_sides = np.zeros((2, ACTION_UNITS))
    both_sides[:, list(units)] = 1.0
    return both_sides


REST = shape_face(Identity(), actions())


def eye_gap(features, side: int = 0) -> float:
    """The distance between the lids in the middle of an eye, in half head heights."""
    return features.lower_lids[side][6, 1] - features.upper_lids[side][6, 1]


def mouth_gap(features) -> float:
    """The distance between the lips in the middle of the mouth, in half head heights."""
    return features.mouth_bottom[6, 1] - features.mouth_top[6, 1]


@pytest.mark.parametrize("label", PROTOTYPES)
def test_same_seed_draws_the_same_bytes(label):
    """A label and a seed determine one image."""
    assert draw_face(label, seed=7).tobytes() == draw_face(label, seed=7).tobytes()


def test_face_is_the_same_in_another_process():
    """The seed does not depend on Python's string hash, which differs between processes."""
    code = (
        "import sys; from edgeemo.data.drawing import draw_face;"
        "sys.stdout.buffer.write(draw_face('fear', seed=3, size=32).tobytes())"
    )
    elsewhere = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=elsewhere)
    assert other.stdout == draw_face("fear", seed=3, size=32).tobytes()


def test_different_seeds_and_labels_draw_different_faces():
    """No two of these 24 images are equal."""
    faces = {draw_face(label, seed=seed).tobytes() for label in PROTOTYPES for seed in range(3)}
    assert len(faces) == 3 * len(PROTOTYPES)


@pytest.mark.parametrize("size", [32, 48, 64, 224])
@pytest.mark.parametrize("label", PROTOTYPES)
def test_every_prototype_draws_a_grey_square_of_the_requested_size(label, size):
    """Each label gives (size, size) uint8 with contrast."""
    face = draw_face(label, seed=1, size=size)
    assert (face.shape, face.dtype) == ((size, size), np.uint8)
    assert face.std() > 10.0  # sensor noise alone has at most 9 grey levels


def test_size_changes_the_resolution_but_not_the_person():
    """The same seed at twice the size, downscaled, is the same image except for sensor noise and blur."""
    small = draw_face("happiness", seed=5, size=64).astype(float)
    large = draw_face("happiness", seed=5, size=128).astype(float).reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.9  # two seeds correlate by less than 0.8


def test_an_unknown_label_is_refused_with_the_known_ones():
    """The error lists the labels that can be drawn."""
    with pytest.raises(ValueError, match=r"'joy'.*neutral.*happiness.*contempt"):
        draw_face("joy", seed=0)


@pytest.mark.parametrize(("unit", "moves_up"), [(12, True), (15, False)])
def test_lip_corners_rise_with_au12_and_fall_with_au15(unit, moves_up):
    """The zygomatic major lifts both lip corners; the depressor anguli oris lowers them."""
    moved = shape_face(Identity(), actions(unit))
    rise = REST.lip_top[[0, -1], 1] - moved.lip_top[[0, -1], 1]  # y grows downward
    assert (rise > 0.05).all() if moves_up else (rise < -0.05).all()


def test_au26_opens_the_mouth_and_drops_the_jaw():
    """Closed lips touch at rest; a dropped jaw parts them by more than their own thickness."""
    moved = shape_face(Identity(), actions(26))
    assert mouth_gap(REST) == pytest.approx(0.0)
    assert mouth_gap(moved) > 2 * Identity().lip
    assert moved.jaw_drop > REST.jaw_drop


def test_au20_stretches_and_au23_tightens_the_lips():
    """AU20 widens the mouth; AU23 narrows it and makes the red of the lips thinner."""
    width = {u: np.ptp(shape_face(Identity(), actions(u)).lip_top[:, 0]) for u in (20, 23)}
    thin = shape_face(Identity(), actions(23))
    assert width[20] > np.ptp(REST.lip_top[:, 0]) > width[23]
    assert np.ptp([thin.lip_top[6, 1], thin.lip_bottom[6, 1]]) < np.ptp([REST.lip_top[6, 1], REST.lip_bottom[6, 1]])


def test_au1_lifts_the_inner_brow_and_au2_the_outer():
    """Each half of the frontalis lifts its own end of the brow by more than the other end."""
    inner_by_1, outer_by_1 = (REST.brows[1] - shape_face(Identity(), actions(1)).brows[1])[[0, -1], 1]
    inner_by_2, outer_by_2 = (REST.brows[1] - shape_face(Identity(), actions(2)).brows[1])[[0, -1], 1]
    assert inner_by_1 > 0.05 > outer_by_1
    assert outer_by_2 > 0.05 > inner_by_2


def test_au4_lowers_the_brows_and_draws_them_together():
    """The corrugator brings the inner ends down and closer to each other."""
    moved = shape_face(Identity(), actions(4))
    assert all(moved.brows[side][0, 1] > REST.brows[side][0, 1] for side in (0, 1))
    assert moved.brows[1][0, 0] - moved.brows[0][0, 0] < REST.brows[1][0, 0] - REST.brows[0][0, 0]


def test_au5_opens_the_eyes_and_au6_and_au7_narrow_them():
    """A raised upper lid shows more of the eye; raised cheeks and tight lids show less."""
    assert eye_gap(shape_face(Identity(), actions(5))) > eye_gap(REST)
    assert all(0.0 < eye_gap(shape_face(Identity(), actions(u))) < eye_gap(REST) for u in (6, 7))
    assert eye_gap(shape_face(Identity(), actions(6, 7, 9))) > 0.0  # lids never cross


@pytest.mark.parametrize("seed", range(8))
def test_contempt_moves_one_side_only(seed):
    """One side of the face is at rest."""
    moved = sample_actions("contempt", np.random.default_rng(seed)).sum(axis=1)
    assert moved.min() == 0.0 < moved.max()


def test_neutral_is_every_muscle_at_rest_and_intensities_are_fractions():
    """Intensities are in 0..1, for units that the renderer supports; neutral has none."""
    assert PROTOTYPES["neutral"] == {}
    assert all(0 < unit < ACTION_UNITS for units in PROTOTYPES.values() for unit in units)
    assert all(0.0 < value <= 1.0 for units in PROTOTYPES.values() for value in units.values())


@pytest.mark.parametrize("label", PROTOTYPES)
def test_every_unit_of_a_prototype_has_at_least_half_its_intensity(label):
    """On the stronger side of the face."""
    for seed in range(20):
        shown = sample_actions(label, np.random.default_rng(seed)).max(axis=0)
        assert all(shown[unit] >= 0.5 * value for unit, value in PROTOTYPES[label].items())
