"""The secondary classifier of DeepStream: nvinfer's arithmetic, repeated in ONNX Runtime, and its keys."""

from __future__ import annotations

from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_tiny
import numpy as np
import pytest

import edgeemo
from edgeemo.build import run
from edgeemo.card import Answers, InputContract, Precision, card_path, read_card, write_card
from edgeemo.errors import UsageError
from edgeemo.export.deepstream import compute_scaling
from edgeemo.images import to_input, to_pixels
from edgeemo.runtime import shipped
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.golden import list_faces
from edgeemo.stages import Build

# Keys of nvinfer's group [property] that are written; of NVIDIA's gstnvinfer_property_parser.h.
KEYS = {
    *("gie-unique-id", "process-mode", "operate-on-gie-id", "network-type", "model-engine-file", "onnx-file"),
    *("network-mode", "batch-size", "infer-dims", "model-color-format", "net-scale-factor", "offsets"),
    *("maintain-aspect-ratio", "scaling-compute-hw", "scaling-filter", "output-blob-names", "labelfile-path"),
    *("classifier-type", "classifier-threshold", "classifier-async-mode", "secondary-reinfer-interval"),
    *("input-object-min-width", "input-object-min-height"),
}


def export(tmp_path: Path, model: str = "small", **options: Any) -> tuple[Path, dict[str, str]]:
    """The folder, and the keys of its configuration."""
    out = run(Build(model=model, for_="deepstream", out=tmp_path / "deepstream", **options))
    parser = ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys as they are written
    parser.read(out / "config_infer_secondary_emotion.txt", encoding="utf-8")
    assert parser.sections() == ["property"]
    return out, dict(parser["property"])


def normalise(pixels: np.ndarray, keys: dict[str, str]) -> np.ndarray:
    """Return net-scale-factor * (x - offset) in float32 of (N, size, size) gray pixels x, as nvinfer does."""
    factor, (offset,) = np.float32(keys["net-scale-factor"]), map(np.float32, keys["offsets"].split(";"))
    return factor * (pixels[:, None].astype(np.float32) - offset)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_nvinfers_arithmetic_gives_the_models_probabilities(name: str, tmp_path: Path) -> None:
    """From the same crops: preprocessing by the keys, then the exported graph."""
    out, keys = export(tmp_path, name)
    with edgeemo.load(shipped.find(name, target_format="tensorrt")) as model:
        faces = np.stack([to_pixels(face, model.card.input) for face in list_faces()])
        expected = model.probabilities(faces)
        labels = model.labels
    exported = OnnxBackend(out / "model.onnx", threads=1)
    actual = exported.logits(normalise(faces, keys))
    exported.close()
    assert np.abs(actual - expected).max() <= 1e-6
    assert (out / keys["labelfile-path"]).read_text() == ";".join(labels) + "\n"


def test_every_gray_level_is_normalised_as_the_card_says() -> None:
    """And every channel of a colour model."""
    levels = np.arange(256, dtype=np.uint8)
    gray = InputContract(size=16, mean=(0.449,), std=(0.226,))
    factor, (offset,) = compute_scaling(gray)
    expected = to_input(levels.reshape(1, 16, 16), gray).reshape(-1)
    assert np.abs(factor * (levels - offset) - expected).max() < 1e-6
    rgb = replace(gray, colour="rgb", mean=(0.4, 0.5, 0.6), std=(0.25,) * 3)
    factor, offsets = compute_scaling(rgb)
    expected = to_input(np.repeat(levels.reshape(1, 16, 16, 1), 3, axis=3), rgb).reshape(3, -1)
    assert np.abs(factor * (levels - np.array(offsets)[:, None]) - expected).max() < 1e-6


def test_the_configuration_describes_the_packaged_model(tmp_path: Path) -> None:
    """A secondary classifier of gray faces, with the card's threshold; INT8 needs an engine that was built before."""
    out, keys = export(tmp_path, max_batch=16)
    card = read_card(shipped.find("small", target_format="tensorrt"))
    assert set(keys) == KEYS - {"onnx-file"}
    expected = {
        "process-mode": "2",
        "network-type": "1",
        "operate-on-gie-id": "1",
        "network-mode": "1",
        "batch-size": "16",
        "infer-dims": "1;48;48",
        "model-color-format": "2",
        "output-blob-names": "probabilities",
        "model-engine-file": "model.engine",
    }
    assert {key: keys[key] for key in expected} == expected
    assert float(keys["classifier-threshold"]) == card.answers.least_probability
    readme = (out / "README.md").read_text()
    assert "Not run on a Jetson" in readme
    assert "--maxShapes=images:16x1x48x48 --saveEngine=model.engine" in readme


def test_nvinfer_builds_the_engine_of_a_float_model(tmp_path: Path) -> None:
    """Without a threshold in the card, every face gets a label."""
    source = make_tiny.write(tmp_path / "model.onnx")
    _, keys = export(tmp_path, str(source))
    assert set(keys) == KEYS
    assert (keys["onnx-file"], keys["network-mode"]) == ("model.onnx", "0")
    assert keys["model-engine-file"] == "model.onnx_b8_gpu0_fp32.engine"
    assert float(keys["classifier-threshold"]) == 0
    answers = Answers(0.6, 0.9, 0.92, 0.91, 0.93, 0.8, 1000)
    write_card(source, replace(make_tiny.card(), precision=Precision("float16"), answers=answers))
    _, keys = export(tmp_path / "half", str(source))
    assert (keys["network-mode"], keys["classifier-threshold"]) == ("2", "0.6")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input": InputContract(size=48, colour="gray3", mean=(0.5,) * 3, std=(0.25,) * 3)},
            "which nvinfer cannot make",
        ),
        ({"input": InputContract(size=48, colour="rgb", mean=(0.5,) * 3, std=(0.2, 0.3, 0.3))}, "one net-scale-factor"),
        ({"labels": ("a;b", *make_tiny.LABELS[1:])}, "'a;b' has a semicolon"),
    ],
)
def test_what_nvinfer_cannot_do_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Before anything is written."""
    source = make_tiny.write(tmp_path / "model.onnx")
    write_card(source, replace(make_tiny.card(), label_set="own", **changes))
    with pytest.raises(UsageError, match=message):
        export(tmp_path, str(source))
    assert not (tmp_path / "deepstream").exists()


def test_a_file_that_tensorrt_does_not_accept_is_refused(tmp_path: Path) -> None:
    """A packaged model in the cpu format, given by its path."""
    source = tmp_path / "small.onnx"
    packaged = shipped.find("small")
    source.write_bytes(packaged.read_bytes())
    card_path(source).write_bytes(card_path(packaged).read_bytes())
    with pytest.raises(UsageError, match="uint8 activations"):
        export(tmp_path, str(source))


def test_nvidias_parser_and_compiler_accept_the_model(tmp_path: Path) -> None:
    """Of TensorRT for RTX, which needs no GPU for it; TensorRT has the same parser."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")
    out, _ = export(tmp_path, "nano")
    packaged = read_card(shipped.find("nano", target_format="tensorrt"))
    write_card(out / "model.onnx", packaged)  # of other outputs, which building does not read
    engine = run(Build(model=str(out / "model.onnx"), library="rtx", compute_capability="8.6"))
    assert read_card(engine).history[-1].measured["size_bytes"] > 100_000
