"""Real engines on an NVIDIA GPU agree with ONNX Runtime, for any batch size and as CUDA graphs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgeemo.build import run as build
from edgeemo.card import read_card, write_card
from edgeemo.compress.quantize import fp16
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import observe
from edgeemo.data import Faces
from edgeemo.errors import MachineError
from edgeemo.images import to_input
from edgeemo.runtime import load
from edgeemo.runtime.backends.cuda import Cuda
from edgeemo.runtime.backends.tensorrt import LIBRARIES, import_library, supports
from edgeemo.stages import Build

pytestmark = pytest.mark.gpu
# Largest difference of a probability from ONNX Runtime: TensorFloat-32 and float16 have 10 bits of mantissa, and a
# tensor that INT8 rounds differently changes by one of 255 steps.
TOLERANCES = {"float": 0.01, "fp16": 0.02, "int8": 0.1}
MAX_BATCH = 8
DRIVER = Path("/dev/nvidiactl")


@pytest.fixture(scope="module", params=LIBRARIES)
def maker(request: pytest.FixtureRequest) -> str:
    """A library that builds and runs engines here; tests are not skipped if it and a GPU are available."""
    try:
        gpu, module = Cuda().gpu(), import_library(request.param)
    except MachineError as error:
        if DRIVER.exists() and find_spec(LIBRARIES[request.param].module):
            raise
        pytest.skip(f"engines cannot run here: {error}")
    if not supports(request.param, module, gpu.capability):
        pytest.skip(f"{module.__name__} builds no engines for compute capability {gpu.capability}")
    return str(request.param)


@pytest.fixture(scope="module", params=TOLERANCES)
def form(request: pytest.FixtureRequest, float_model: Path, calibration_faces: Faces, tmp_path_factory) -> Path:
    """The trained network in one precision, as ONNX."""
    path = tmp_path_factory.mktemp("forms") / f"{request.param}.onnx"
    card = read_card(float_model)
    if request.param == "float":
        path.write_bytes(float_model.read_bytes())
    elif request.param == "fp16":
        fp16.convert(float_model, path)
    else:
        quantize(observe(float_model, calibration_faces, card.input, method="minmax"), path, target_format="tensorrt")
    write_card(path, card)
    return path


@pytest.fixture(scope="module")
def engine(maker: str, form: Path) -> Path:
    return build(Build(model=str(form), out=str(form.with_suffix(f".{maker}.trt")), library=maker, max_batch=MAX_BATCH))


def test_an_engine_agrees_with_onnx_runtime(engine: Path, form: Path, calibration_faces: Faces) -> None:
    """On 64 faces: the same labels except for near ties, and probabilities within the tolerance of the precision."""
    with load(form) as exact, load(engine) as built:
        expected, actual = (model.probabilities(calibration_faces.pixels) for model in (exact, built))
    assert (expected.argmax(1) == actual.argmax(1)).mean() >= 0.98
    assert np.abs(expected - actual).max() <= TOLERANCES[form.stem]


def test_more_faces_than_the_largest_batch_keep_their_order(engine: Path, calibration_faces: Faces) -> None:
    """Logits are those of single faces, up to the rounding of other kernels."""
    with load(engine) as model:
        batch = to_input(calibration_faces.pixels[: 2 * MAX_BATCH + 3], model.card.input)
        alone = np.concatenate([model.logits(face[None]) for face in batch])
        np.testing.assert_allclose(model.logits(batch), alone, atol=0.2)


def test_an_engine_for_single_faces_accepts_a_batch(maker: str, form: Path, calibration_faces: Faces) -> None:
    """With max_batch 1, its shapes are fixed, so faces run one by one."""
    single = build(Build(model=str(form), out=str(form.with_suffix(f".{maker}.1.trt")), library=maker, max_batch=1))
    with load(form) as exact, load(single) as built:
        expected, actual = (model.probabilities(calibration_faces.pixels[:9]) for model in (exact, built))
    assert np.abs(expected - actual).max() <= TOLERANCES[form.stem]


def test_cuda_graphs_give_the_logits_of_plain_runs(maker: str, engine: Path, calibration_faces: Faces) -> None:
    """Bit-identical, both when a graph is recorded and when it is launched again."""
    if maker == "rtx":
        pytest.skip("TensorRT for RTX has its own way to record graphs, which edgeemo does not support")
    with load(engine) as plain, load(engine, backend="tensorrt-graph") as recorded:
        for _ in range(2):
            for count in (1, MAX_BATCH, 3):
                batch = to_input(calibration_faces.pixels[:count], plain.card.input)
                np.testing.assert_array_equal(recorded.logits(batch), plain.logits(batch))
