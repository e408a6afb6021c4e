"""The build stage: all that decides an engine, around a fake of TensorRT, and real engines of TensorRT for RTX."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import make_tiny
import numpy as np
import pytest
import sections
import torch
from click.testing import CliRunner
from fake_cudart import Machine
from fake_tensorrt import BuilderFlag, DeviceType, HardwareCompatibilityLevel, MemoryPoolType, Scene

import edgeemo
from edgeemo.build import run
from edgeemo.card import Precision, card_path, read_card, write_card
from edgeemo.cli import main
from edgeemo.compress.quantize import fp16
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import observe
from edgeemo.data import Faces
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.machine import this_machine
from edgeemo.stages import Build
from edgeemo.train.network import BACKBONES


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny.write(tmp_path / "model.onnx")


def asked(source: Path, **options: Any) -> Build:
    return Build(model=str(source), library="tensorrt", **options)


@pytest.mark.usefixtures("orin")
def test_the_card_says_what_the_engine_was_made_of_and_for(source: Path) -> None:
    """Library, version, GPU, driver and the hash of the file; and the engine runs where it was built."""
    path = run(asked(source))
    card = read_card(path)
    assert path == source.with_suffix(".trt")
    expected = {"library": "tensorrt", "version": "10.3.0", "compute_capabilities": ("8.7",), "gpu": "Orin"}
    expected |= {
        "driver": "12.6",
        "platform": this_machine().system,
        "max_batch": 8,
        "source": "model.onnx",
        "source_sha256": read_card(source).sha256,
    }
    assert {name: getattr(card.target, name) for name in expected} == expected
    assert card.history[-1].stage == "build"
    assert card.history[-1].parent_sha256 == read_card(source).sha256
    with edgeemo.load(path) as model:
        assert model.predict(np.zeros((48, 48), np.uint8)).label in card.labels


@pytest.mark.usefixtures("orin")
def test_the_command_names_the_engine_and_what_comes_next(source: Path) -> None:
    """As README calls it."""
    done = CliRunner().invoke(main, ["build", str(source), "--library", "tensorrt"])
    assert done.exit_code == 0, done.output
    assert f"next:  edgeemo bench --engine {source.with_suffix('.trt')}" in done.output


@pytest.mark.usefixtures("orin")
def test_the_engine_of_a_shipped_model_knows_its_name(tmp_path: Path) -> None:
    """By which it is built again on another machine, where its file lies elsewhere."""
    path = run(Build(model="nano", library="tensorrt", out=str(tmp_path / "nano.trt")))
    assert read_card(path).target.source == "nano"


@pytest.mark.usefixtures("orin")
def test_the_same_is_not_built_twice(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is forced, or anything that decides an engine has changed, or the engine there is damaged."""
    path = run(asked(source))

    def builds(config: Build) -> bool:
        Scene.settings = None
        run(config)
        return Scene.settings is not None

    assert not builds(asked(source))
    assert builds(asked(source, force=True))
    assert builds(asked(source, max_batch=4))
    assert not builds(asked(source, max_batch=4))
    for thing, name, value in [
        (fake_tensorrt, "__version__", "10.7.0"),
        (Machine, "driver", 13000),
        (Machine, "minor", 6),
        (Machine, "name", b"Thor"),
    ]:
        monkeypatch.setattr(thing, name, value)
        assert builds(asked(source, max_batch=4)), name
    path.write_bytes(path.read_bytes() + b"!")
    assert builds(asked(source, max_batch=4))
    write_card(source, replace(read_card(source), temperature=2.0))
    assert builds(asked(source, max_batch=4))  # else the engine's card would go on telling the old one
    assert read_card(path).temperature == 2.0
    make_tiny.write(source, seed=1)
    assert builds(asked(source, max_batch=4))


@pytest.mark.usefixtures("orin")
def test_batches_up_to_the_largest_fit_one_profile(source: Path) -> None:
    """Tuned for one face."""
    run(asked(source, max_batch=5))
    face = (1, make_tiny.SIZE, make_tiny.SIZE)
    assert Scene.settings.profiles[0].shapes == {"image": ((1, *face), (1, *face), (5, *face))}


@pytest.mark.usefixtures("orin")
def test_options_reach_the_builder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compatible modes, a limit of memory, and DLA with the GPU for what it cannot run."""
    monkeypatch.setattr(Scene, "dla_cores", 2)
    run(asked(source, version_compatible=True, hardware_compatible=True, workspace_mib=64, dla_core=1))
    settings = Scene.settings
    assert settings.flags_set == [BuilderFlag.VERSION_COMPATIBLE, BuilderFlag.GPU_FALLBACK]
    assert settings.hardware_compatibility_level == HardwareCompatibilityLevel.AMPERE_PLUS
    assert settings.pools == {MemoryPoolType.WORKSPACE: 64 << 20}
    assert (settings.default_device_type, settings.DLA_core) == (DeviceType.DLA, 1)


@pytest.mark.usefixtures("orin")
def test_dla_is_refused_where_there_is_none(source: Path) -> None:
    """With the number of cores that TensorRT counts."""
    with pytest.raises(MachineError, match="finds 0 DLA cores"):
        run(asked(source, dla_core=0))
    assert not source.with_suffix(".trt").exists()


@pytest.mark.usefixtures("orin")
def test_no_hardware_compatible_engine_is_built_on_a_jetson(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT has none for it."""
    monkeypatch.setattr("edgeemo.build.is_jetson", lambda: True)
    with pytest.raises(MachineError, match="on a Jetson"):
        run(asked(source, hardware_compatible=True))


@pytest.mark.usefixtures("orin")
def test_a_gpu_that_the_library_does_not_know_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Orin's capability is not TensorRT for RTX's, and nobody typed it."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    with pytest.raises(MachineError, match=r"does not know the Orin of this machine, compute capability 8\.7"):
        run(Build(model=str(source), library="rtx"))


@pytest.mark.usefixtures("orin")
def test_a_builder_that_does_not_start_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA that does not start, as TensorRT's bindings tell it."""
    monkeypatch.setattr(Scene, "starts", False)
    with pytest.raises(MachineError, match="gave no builder"):
        run(asked(source))


@pytest.mark.usefixtures("orin")
def test_the_engines_card_claims_nothing_that_was_seen_elsewhere(source: Path) -> None:
    """What ran in integers in ONNX Runtime says nothing of TensorRT; the accuracy was the file's."""
    precision = Precision("int8", actual="int8 in the file", target_format="tensorrt", int8_share_of_macs=1.0)
    write_card(source, replace(make_tiny.card(), precision=precision, metrics={"valid": sections.metrics()}))
    card = read_card(run(asked(source)))
    assert card.precision.int8_share_of_macs is None
    assert card.precision.executed.startswith("not run")
    assert card.metrics["valid"] == sections.metrics(measured_on="model.onnx")


@pytest.mark.usefixtures("orin")
def test_timings_are_kept_for_the_next_build(source: Path, tmp_path: Path) -> None:
    """What an earlier build left is given to the next one; of another GPU it is refused."""
    cache = tmp_path / "timings.cache"
    run(asked(source, timing_cache=str(cache)))
    assert cache.read_bytes() == b"timed"
    run(asked(source, timing_cache=str(cache), force=True))
    assert cache.read_bytes() == b"timedtimed"
    for content in (b"foreign", b"garbage"):
        cache.write_bytes(content)
        with pytest.raises(IntegrityError, match="another GPU or version"):
            run(asked(source, timing_cache=str(cache), force=True))


@pytest.mark.usefixtures("orin")
def test_an_engine_that_is_not_built_is_told_with_tensorrts_reason(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None becomes an error, and an engine that stood there stays."""
    path = run(asked(source))
    before = path.read_bytes()
    monkeypatch.setattr(Scene, "refuses", True)
    with pytest.raises(MachineError, match=r"TensorRT 10\.3\.0 did not build .*8\.7: out of tactics"):
        run(asked(source, force=True))
    assert path.read_bytes() == before


@pytest.mark.usefixtures("orin")
def test_a_file_that_the_parser_refuses_is_told_with_its_reason(source: Path) -> None:
    """And with the command that makes another."""
    source.write_bytes(source.read_bytes() + b"unknown")
    write_card(source, make_tiny.card())
    with pytest.raises(IntegrityError, match=r"a node it does not know\n.*edgeemo compress"):
        run(asked(source))


@pytest.mark.usefixtures("orin")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_batch": 0}, "1 to 1024"),
        ({"library": "rtx", "compute_capability": "86"}, r"numbers as 8\.6"),
        ({"out": "engine.plan"}, r"expected a \.trt file"),
        ({"compute_capability": "8.6"}, "for the GPU that it runs on"),
        ({"library": "rtx", "dla_core": 0, "timing_cache": "x"}, "has no --timing-cache, --dla-core"),
    ],
)
def test_what_cannot_be_meant_is_refused(source: Path, options: dict[str, Any], said: str) -> None:
    """Before anything is built."""
    with pytest.raises(UsageError, match=said):
        run(replace(asked(source), **options))


@pytest.mark.usefixtures("orin")
def test_the_wrong_kind_of_file_is_refused(source: Path) -> None:
    """An engine, and the target format that TensorRT does not take."""
    with pytest.raises(UsageError, match=r"expected nano, small, base, or a \.onnx file"):
        run(asked(run(asked(source))))
    write_card(source, replace(read_card(source), precision=Precision("int8", target_format="cpu")))
    with pytest.raises(UsageError, match="--target-format tensorrt"):
        run(asked(source))


@pytest.mark.usefixtures("orin")
def test_tensorrt_builds_on_the_device_itself(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU there is nothing to build for."""
    monkeypatch.setattr(Machine, "gpus", 0)
    with pytest.raises(MachineError, match=r"cudaErrorNoDevice.*build on the device"):
        run(asked(source))


def rtx_engine(source: Path, **options: Any) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    return run(Build(model=str(source), library="rtx", compute_capability="8.6", **options))


def test_what_rtx_does_not_have_is_refused_where_it_is_chosen_by_itself(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the engine's card would promise what the engine is not."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    monkeypatch.setattr("edgeemo.build._library", lambda _: ("rtx", "it is installed"))
    with pytest.raises(UsageError, match="has no --version-compatible, --dla-core"):
        run(Build(model=str(source), compute_capability="8.6", version_compatible=True, dla_core=0))


def test_an_unknown_gpu_is_refused_with_the_known_ones(source: Path) -> None:
    """A Jetson's is not TensorRT for RTX's."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    with pytest.raises(UsageError, match=r"8\.7: .*knows 7\.5, 8\.0, 8\.6.*--library tensorrt"):
        run(Build(model=str(source), library="rtx", compute_capability="8.7"))


def test_bench_names_what_an_engine_lacks_and_exits_with_5(source: Path) -> None:
    """A real engine of TensorRT for RTX on a machine without a GPU: no traceback, and everything that is missing."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which runs the engine")
    path = rtx_engine(source)
    for command in (["bench", "--engine", str(path)], ["predict", "--model", str(path), "face.png"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 5, done.output
        assert "TensorRT for RTX" in done.output
        assert "an NVIDIA GPU" in done.output or "cuda-bindings" in done.output
        assert "Traceback" not in done.output


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "resnet101"])
def test_every_backbone_becomes_an_engine_in_every_form(
    name: str, backbone_as_onnx: Callable[[str], Any], tmp_path: Path
) -> None:
    """Enhanced head and attention included: NVIDIA's parser and compiler take float, FP16 and INT8.

    All but ResNet-101, which has more of ResNet-50's blocks and nothing else.
    """
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    forms = in_every_form(backbone_as_onnx(name), tmp_path)
    cards = [read_card(rtx_engine(form)) for form in forms]
    assert [card.target.source for card in cards] == [form.name for form in forms]
    for form, card in zip(forms, cards, strict=True):
        layers = card.history[-1].measured["layers"]
        assert layers > 10, form.name
        assert card.history[-1].measured["size_bytes"] > 100_000, form.name


def in_every_form(made: Any, folder: Path) -> list[Path]:
    """Float, FP16 and INT8 ONNX of an exported backbone."""
    form, contract = folder / "float.onnx", read_card(made.path).input
    for source in (made.path, card_path(made.path)):
        shutil.copy(source, folder / source.name)
    noise = Faces(made.pixels[:4], np.eye(6, dtype=np.float32)[[0] * 4], np.zeros(4, np.int64), list("abcd"))
    fp16.halve(form, folder / "fp16.onnx")
    quantize(observe(form, noise, contract, method="minmax"), folder / "int8.onnx", target_format="tensorrt")
    for made_of_it in ("fp16.onnx", "int8.onnx"):
        write_card(folder / made_of_it, read_card(form))
    return [form, folder / "fp16.onnx", folder / "int8.onnx"]
