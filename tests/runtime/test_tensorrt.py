"""The TensorRT backend around a fake of TensorRT and CUDA: what an engine must fit, and what is done with batches."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import fake_cudart
import fake_tensorrt
import make_tiny
import numpy as np
import pytest
import sections
from fake_cudart import Machine
from fake_tensorrt import MAGIC, Scene

import edgeemo
from edgeemo.build import run as build
from edgeemo.card import card_path, read_card, write_card
from edgeemo.cli import main
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.machine import this_machine
from edgeemo.runtime.backends import tensorrt
from edgeemo.stages import Build

pytestmark = pytest.mark.usefixtures("orin")
TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
CONTRACT = read_card(TINY).input
FACE = (CONTRACT.channels, CONTRACT.size, CONTRACT.size)


def engine(folder: Path, content: bytes = MAGIC, **target: object) -> Path:
    path = folder / "model.trt"
    path.write_bytes(content)
    here = {"version": fake_tensorrt.__version__, "platform": this_machine().system}
    write_card(path, replace(read_card(TINY), target=sections.target(**here | target)))
    return path


def test_an_engine_answers_batches_of_any_size(tmp_path, rng):
    """More faces than the engine takes at once run in parts, fewer in one, and rows stay in order."""
    labels = len(read_card(TINY).labels)
    batch = rng.random((11, *FACE), np.float32)
    with edgeemo.load(engine(tmp_path)) as model:
        for n in (11, 4, 1):
            expected = batch[:n].sum((1, 2, 3))[:, None] * np.arange(labels)
            np.testing.assert_allclose(model.logits(batch[:n]), expected, rtol=1e-5)


def test_a_recorded_graph_answers_as_plain_runs_do(tmp_path, rng, monkeypatch):
    """Each batch size is captured once and then launched, and new pixels give new outputs."""
    monkeypatch.setattr(Machine, "launches", 0)
    path = engine(tmp_path)
    with edgeemo.load(path) as plain, edgeemo.load(path, backend="tensorrt-graph") as recorded:
        for n in (4, 1, 6, 1, 4):
            batch = rng.random((n, *FACE), np.float32)
            np.testing.assert_array_equal(recorded.logits(batch), plain.logits(batch))
        assert Machine.launches == 6  # six faces are a batch of four and one of two
        assert len(Machine.graphs) == 3


def test_a_closed_engine_says_so(tmp_path):
    """And closing twice is fine."""
    model = edgeemo.load(engine(tmp_path))
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.logits(np.zeros((1, *FACE), np.float32))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"version": "10.7.0"}, r"TensorRT 10\.7\.0 .*here is TensorRT 10\.3\.0"),
        ({"version": "9.9.0", "version_compatible": True}, r"here is TensorRT 10\.3\.0"),
        ({"version": "10.16.1", "version_compatible": True}, r"10\.16\.1 .*here is TensorRT 10\.3\.0"),
        ({"platform": "Windows AMD64"}, "not Windows AMD64"),
        ({"compute_capabilities": ["8.6"]}, r"8\.6; here is Orin of compute capability 8\.7"),
    ],
)
def test_an_engine_of_another_place_is_refused(tmp_path, target, message):
    """Both sides are named, and the command that builds it here."""
    with pytest.raises(MachineError, match=message) as refused:
        edgeemo.load(engine(tmp_path, **target))
    assert "edgeemo build model.onnx --library tensorrt" in str(refused.value)


def test_the_command_builds_just_such_an_engine(tmp_path):
    """With all options of the engine that does not match, and its name quoted for a shell."""
    options = {"version_compatible": True, "dla_core": 1, "workspace_mib": 256}
    with pytest.raises(MachineError) as refused:
        edgeemo.load(engine(tmp_path, version="9.9.0", source="my model.onnx", **options))
    program, command, *words = shlex.split(str(refused.value).partition("build it here:  ")[2])
    assert program == "edgeemo"
    understood = main.commands[command].make_context(command, words).params
    assert Build(**understood) == Build(model="my model.onnx", library="tensorrt", max_batch=4, **options)


@pytest.mark.parametrize(
    "target",
    [{"version": "10.1.0", "version_compatible": True}, {"compute_capabilities": ["8.6"], "hardware_compatible": True}],
)
def test_a_compatible_engine_is_taken(tmp_path, target, monkeypatch):
    """Of an earlier version of the same major one, or of another GPU from Ampere on, off a Jetson."""
    monkeypatch.setattr(Machine, "minor", 7 if "version" in target else 9)
    with edgeemo.load(engine(tmp_path, **target)) as model:
        assert model.logits(np.ones((1, *FACE), np.float32)).shape == (1, len(model.labels))


def test_an_engine_that_tensorrt_refuses_is_told(tmp_path):
    """None from TensorRT becomes a message with what TensorRT logged."""
    with pytest.raises(IntegrityError, match="magic tag does not match"):
        edgeemo.load(engine(tmp_path, b"something else"))


def test_every_missing_thing_is_named_at_once(tmp_path, monkeypatch):
    """Library and GPU: one look is enough, and the exit code is that of the environment."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(Machine, "gpus", 0)
    with pytest.raises(MachineError) as refused:
        edgeemo.load(engine(tmp_path))
    assert refused.value.exit_code == 5
    for needed in ("edgeemo[tensorrt]", "cudaErrorNoDevice", "edgeemo doctor"):
        assert needed in str(refused.value)


def test_type_stubs_are_not_taken_for_tensorrt(tmp_path, monkeypatch):
    """A folder of stubs can be imported, and has nothing in it."""
    monkeypatch.setitem(sys.modules, "tensorrt", type(sys)("tensorrt"))
    with pytest.raises(MachineError, match="pip install"):
        edgeemo.load(engine(tmp_path))


def test_hardware_compatible_engines_are_not_for_a_jetson(tmp_path, monkeypatch):
    """There the GPU must be the one that the engine was built for."""
    monkeypatch.setattr(tensorrt, "is_jetson", lambda: True)
    path = engine(tmp_path, compute_capabilities=["8.6"], hardware_compatible=True)
    with pytest.raises(MachineError, match=r"here is Orin of compute capability 8\.7"):
        edgeemo.load(path)


@pytest.mark.parametrize(
    ("what", "message"), [("starts", "returned no runtime"), ("contexts", "returned no execution context")]
)
def test_what_tensorrt_does_not_give_is_told(tmp_path, monkeypatch, what, message):
    """A runtime that CUDA does not let start, and a context for which there is no memory."""
    monkeypatch.setattr(Scene, what, False)
    with pytest.raises(MachineError, match=message):
        edgeemo.load(engine(tmp_path))


def test_tensors_of_another_type_are_refused(tmp_path, monkeypatch):
    """Half floats read as floats would be noise."""
    monkeypatch.setattr(Scene, "dtype", fake_tensorrt.DataType.HALF)
    with pytest.raises(IntegrityError, match="not float32"):
        edgeemo.load(engine(tmp_path))


def test_an_engine_runs_on_the_dla_core_it_was_built_for(tmp_path):
    """Not on the first, which is the default."""
    with edgeemo.load(engine(tmp_path, dla_core=1)):
        assert Scene.runtime.DLA_core == 1


def test_no_faces_have_no_logits(tmp_path):
    """As in every backend."""
    with edgeemo.load(engine(tmp_path)) as model:
        assert model.probabilities(np.zeros((0, 48, 48), np.uint8)).shape == (0, 6)


def test_graphs_of_tensorrt_for_rtx_are_refused(tmp_path, monkeypatch):
    """It records them in its own way."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt)
    with pytest.raises(MachineError, match="use the backend tensorrt"):
        edgeemo.load(engine(tmp_path, library="rtx"), backend="tensorrt-graph")


def test_a_recording_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """No graph, no memory: the fixture looks."""
    with edgeemo.load(engine(tmp_path), backend="tensorrt-graph") as model:
        begin = fake_cudart.cudaStreamBeginCapture

        def begin_and_break(stream, mode):
            monkeypatch.setattr(Scene, "fails", True)
            return begin(stream, mode)

        monkeypatch.setattr(fake_cudart, "cudaStreamBeginCapture", begin_and_break)
        with pytest.raises(MachineError, match="did not run"):
            model.logits(np.zeros((1, *FACE), np.float32))


def test_a_card_without_target_is_refused(tmp_path):
    """Nothing is guessed about who made an engine."""
    path = engine(tmp_path)
    write_card(path, read_card(TINY))
    with pytest.raises(IntegrityError, match="does not record which library"):
        edgeemo.load(path)


def test_too_little_memory_is_told(tmp_path, monkeypatch):
    """By CUDA's own name for it."""
    monkeypatch.setattr(Machine, "room", 10)
    with edgeemo.load(engine(tmp_path)) as model, pytest.raises(MachineError, match="cudaErrorMemoryAllocation"):
        model.logits(np.zeros((1, *FACE), np.float32))


def test_a_run_that_fails_is_told(tmp_path, monkeypatch):
    """TensorRT says no more than False."""
    monkeypatch.setattr(Scene, "fails", True)
    with edgeemo.load(engine(tmp_path)) as model, pytest.raises(MachineError, match="did not run: no reason given"):
        model.logits(np.zeros((1, *FACE), np.float32))


@pytest.fixture(params=["fake", "rtx"])
def two_engines(request, tmp_path):
    """Two whole engines with their cards: what the fake takes for some, and real ones of TensorRT for RTX."""
    if request.param == "fake":
        (tmp_path / "other").mkdir()
        return engine(tmp_path, MAGIC * 50), engine(tmp_path / "other", MAGIC * 40)
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    sources = [make_tiny.write(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1)]
    return tuple(build(Build(model=str(one), library="rtx", compute_capability="8.6")) for one in sources)


def test_two_hundred_mutations_of_an_engine_are_refused(two_engines, rng):
    """Truncated, flipped, swapped, turned and foreign engines and cards: each names file and remedy."""
    path, other = two_engines
    card = card_path(path)
    whole, whole_card = path.read_bytes(), card.read_bytes()
    foreign = [b"", b"\x7fELF", TINY.read_bytes(), whole_card, b"vtrt" + bytes(64), other.read_bytes()]
    foreign += [card_path(other).read_bytes(), card_path(TINY).read_bytes()]
    for k in range(200):
        path.write_bytes(whole)
        card.write_bytes(whole_card)
        file = (path, card)[k % 2]
        content = bytearray(file.read_bytes())
        place = int(rng.integers(len(content)))
        kind = k // 2 % 4
        if kind == 0:
            file.write_bytes(content[:place])
        elif kind == 1:
            content[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(content)
        elif kind == 2:
            file.write_bytes(next(one for one in foreign[k // 8 % 8 :] + foreign if one not in (whole, whole_card)))
        else:
            file.write_bytes(bytes(content[place:] + content[:place] if place else content[::-1]))
        with pytest.raises(IntegrityError) as refused:
            edgeemo.load(path)
        assert path.name in str(refused.value)
        assert "edgeemo build" in str(refused.value), (kind, file, str(refused.value))
