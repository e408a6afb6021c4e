"""The build stage: with a fake of TensorRT, and with real engines of TensorRT for RTX."""

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
import onnx
import pytest
import sections
import torch
from click.testing import CliRunner
from fake_cudart import Machine
from fake_tensorrt import BuilderFlag, DeviceType, HardwareCompatibilityLevel, MemoryPoolType, Scene

import edgeemo
from edgeemo import build
from edgeemo.build import run
from edgeemo.card import Data, FaceList, Precision, card_path, read_card, write_card
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


def make_config(source: Path, **options: Any) -> Build:
    return Build(model=str(source), library="tensorrt", **options)


@pytest.mark.usefixtures("orin")
def test_the_card_of_an_engine_keeps_the_shares_of_training(source: Path) -> None:
    """So that an engine corrects for a prior as its file does."""
    about, shares = FaceList(10, sections.HASH), dict.fromkeys(make_tiny.LABELS, 1 / 6)
    data = Data("synthetic", "plurality", train=about, valid=about, prior=shares)
    write_card(source, replace(make_tiny.card(), data=data))
    assert read_card(run(make_config(source))).data == data


@pytest.mark.usefixtures("orin")
def test_an_engine_keeps_the_adaptation_of_its_file(source: Path) -> None:
    """It was fitted on that file, which the engine's card names."""
    adaptation = make_tiny.make_adaptation(read_card(source).sha256)
    write_card(source, replace(make_tiny.card(), adaptation=adaptation))
    assert read_card(run(make_config(source))).adaptation == adaptation


@pytest.mark.usefixtures("orin")
def test_the_card_has_source_and_target_of_the_engine(source: Path) -> None:
    """Library, version, GPU, driver and the hash of the file; the engine runs where it was built."""
    path = run(make_config(source))
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
def test_the_command_prints_the_engine_and_the_next_command(source: Path) -> None:
    """As in the README."""
    result = CliRunner().invoke(main, ["build", str(source), "--library", "tensorrt"])
    assert result.exit_code == 0, result.output
    assert f"next:  edgeemo bench --engine {source.with_suffix('.trt')}" in result.output


@pytest.mark.usefixtures("orin")
def test_the_card_of_a_packaged_model_has_its_name(tmp_path: Path) -> None:
    """It can be built again by name on another machine, where the path of the file differs."""
    path = run(Build(model="nano", library="tensorrt", out=str(tmp_path / "nano.trt")))
    assert read_card(path).target.source == "nano"


@pytest.mark.usefixtures("orin")
def test_a_card_does_not_vouch_for_the_engine_of_another_build(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two builds of the same path at once, the second engine gets the first one's card: refused, and built again."""
    make_entry = build.make_entry

    def build_meanwhile(*args: Any, **settings: Any) -> Any:
        source.with_suffix(".trt").write_bytes(b"of the other build")
        return make_entry(*args, **settings)

    monkeypatch.setattr(build, "make_entry", build_meanwhile)
    path = run(make_config(source))
    with pytest.raises(IntegrityError, match="not the file that its card describes"):
        read_card(path)


@pytest.mark.usefixtures("orin")
def test_an_engine_that_is_up_to_date_is_not_built_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless forced, or anything that determines an engine has changed, or the existing engine is damaged."""
    path = run(make_config(source))

    def builds(config: Build) -> bool:
        Scene.settings = None
        run(config)
        return Scene.settings is not None

    assert not builds(make_config(source))
    assert builds(make_config(source, force=True))
    assert builds(make_config(source, max_batch=4))
    assert not builds(make_config(source, max_batch=4))
    for thing, name, value in [
        (fake_tensorrt, "__version__", "10.7.0"),
        (Machine, "driver", 13000),
        (Machine, "minor", 6),
        (Machine, "name", b"Thor"),
    ]:
        monkeypatch.setattr(thing, name, value)
        assert builds(make_config(source, max_batch=4)), name
    path.write_bytes(path.read_bytes() + b"!")
    assert builds(make_config(source, max_batch=4))
    write_card(source, replace(read_card(source), temperature=2.0))
    assert builds(make_config(source, max_batch=4))  # otherwise the engine's card would keep the old one
    assert read_card(path).temperature == 2.0
    make_tiny.write(source, seed=1)
    assert builds(make_config(source, max_batch=4))


@pytest.mark.usefixtures("orin")
def test_one_profile_covers_batches_up_to_the_largest(source: Path) -> None:
    """It is optimised for one face."""
    run(make_config(source, max_batch=5))
    face = (1, make_tiny.SIZE, make_tiny.SIZE)
    assert Scene.settings.profiles[0].shapes == {"image": ((1, *face), (1, *face), (5, *face))}


@pytest.mark.usefixtures("orin")
def test_options_are_passed_to_the_builder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compatibility modes, a memory limit, and DLA with GPU fallback."""
    monkeypatch.setattr(Scene, "dla_cores", 2)
    run(make_config(source, version_compatible=True, hardware_compatible=True, workspace_mib=64, dla_core=1))
    settings = Scene.settings
    assert settings.flags_set == [BuilderFlag.VERSION_COMPATIBLE, BuilderFlag.GPU_FALLBACK]
    assert settings.hardware_compatibility_level == HardwareCompatibilityLevel.AMPERE_PLUS
    assert settings.pools == {MemoryPoolType.WORKSPACE: 64 << 20}
    assert (settings.default_device_type, settings.DLA_core) == (DeviceType.DLA, 1)


@pytest.mark.usefixtures("orin")
def test_dla_is_refused_on_machines_without_it(source: Path) -> None:
    """The error has the number of cores that TensorRT finds."""
    with pytest.raises(MachineError, match="finds 0 DLA cores"):
        run(make_config(source, dla_core=0))
    assert not source.with_suffix(".trt").exists()


@pytest.mark.usefixtures("orin")
def test_hardware_compatibility_is_refused_on_a_jetson(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT does not support it there."""
    monkeypatch.setattr("edgeemo.build.is_jetson", lambda: True)
    with pytest.raises(MachineError, match="on a Jetson"):
        run(make_config(source, hardware_compatible=True))


@pytest.mark.usefixtures("orin")
def test_a_gpu_that_the_library_does_not_support_is_reported(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX does not support the Orin of this machine; no capability was requested."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    with pytest.raises(MachineError, match=r"does not support the Orin of this machine, compute capability 8\.7"):
        run(Build(model=str(source), library="rtx"))


@pytest.mark.usefixtures("orin")
def test_a_builder_that_does_not_start_is_reported(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when CUDA cannot be initialised."""
    monkeypatch.setattr(Scene, "starts", False)
    with pytest.raises(MachineError, match="returned no builder"):
        run(make_config(source))


@pytest.mark.usefixtures("orin")
def test_the_card_of_an_engine_has_no_executed_precision(source: Path) -> None:
    """The integer share in ONNX Runtime does not apply to TensorRT; the accuracy is that of the file."""
    precision = Precision("int8", actual="int8 in the file", target_format="tensorrt", int8_share_of_macs=1.0)
    write_card(source, replace(make_tiny.card(), precision=precision, metrics={"valid": sections.metrics()}))
    card = read_card(run(make_config(source)))
    assert card.precision.int8_share_of_macs is None
    assert card.precision.executed.startswith("not run")
    assert card.metrics["valid"] == sections.metrics(measured_on="model.onnx")


@pytest.mark.usefixtures("orin")
def test_the_timing_cache_is_reused(source: Path, tmp_path: Path) -> None:
    """The next build gets the cache of the previous one; that of another GPU is refused."""
    cache = tmp_path / "timings.cache"
    run(make_config(source, timing_cache=str(cache)))
    assert cache.read_bytes() == b"timed"
    run(make_config(source, timing_cache=str(cache), force=True))
    assert cache.read_bytes() == b"timedtimed"
    for content in (b"foreign", b"garbage"):
        cache.write_bytes(content)
        with pytest.raises(IntegrityError, match="another GPU or version"):
            run(make_config(source, timing_cache=str(cache), force=True))


@pytest.mark.usefixtures("orin")
def test_a_failed_build_is_reported_with_tensorrts_reason(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None becomes an error, and an existing engine is kept."""
    path = run(make_config(source))
    before = path.read_bytes()
    monkeypatch.setattr(Scene, "refuses", True)
    with pytest.raises(MachineError, match=r"TensorRT 10\.3\.0 did not build .*8\.7: out of tactics"):
        run(make_config(source, force=True))
    assert path.read_bytes() == before


@pytest.mark.usefixtures("orin")
def test_a_file_that_the_parser_refuses_is_reported_with_its_reason(source: Path) -> None:
    """And with the command that makes another file."""
    network = make_tiny.network()
    network.producer_name = "unknown"
    onnx.save(network, source)
    write_card(source, make_tiny.card())
    with pytest.raises(IntegrityError, match=r"a node it does not know\n.*edgeemo compress"):
        run(make_config(source))


@pytest.mark.usefixtures("orin")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "1 to 1024"),
        ({"library": "rtx", "compute_capability": "86"}, r"numbers as 8\.6"),
        ({"out": "engine.plan"}, r"expected a \.trt file"),
        ({"compute_capability": "8.6"}, "for the GPU of this machine"),
        ({"library": "rtx", "dla_core": 0, "timing_cache": "x"}, "has no --timing-cache, --dla-core"),
    ],
)
def test_invalid_options_are_refused(source: Path, options: dict[str, Any], message: str) -> None:
    """Before anything is built."""
    with pytest.raises(UsageError, match=message):
        run(replace(make_config(source), **options))


@pytest.mark.usefixtures("orin")
def test_the_wrong_kind_of_file_is_refused(source: Path) -> None:
    """An engine, and the target format that TensorRT does not accept."""
    with pytest.raises(UsageError, match=r"expected nano, small, base, or a \.onnx file"):
        run(make_config(run(make_config(source))))
    write_card(source, replace(read_card(source), precision=Precision("int8", target_format="cpu")))
    with pytest.raises(UsageError, match="--target-format tensorrt"):
        run(make_config(source))


@pytest.mark.usefixtures("orin")
def test_tensorrt_needs_a_gpu(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It builds for the GPU of the machine."""
    monkeypatch.setattr(Machine, "gpus", 0)
    with pytest.raises(MachineError, match=r"cudaErrorNoDevice.*build on the device"):
        run(make_config(source))


def rtx_engine(source: Path, **options: Any) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")
    return run(Build(model=str(source), library="rtx", compute_capability="8.6", **options))


def test_unsupported_options_are_refused_if_rtx_is_chosen_automatically(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the card would be wrong."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")
    monkeypatch.setattr("edgeemo.build._choose_library", lambda _: ("rtx", "it is installed"))
    with pytest.raises(UsageError, match="has no --version-compatible, --dla-core"):
        run(Build(model=str(source), compute_capability="8.6", version_compatible=True, dla_core=0))


def test_an_unsupported_gpu_is_refused_with_the_supported_ones(source: Path) -> None:
    """TensorRT for RTX does not support Jetsons."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")
    with pytest.raises(UsageError, match=r"8\.7: .*supports 7\.5, 8\.0, 8\.6.*--library tensorrt"):
        run(Build(model=str(source), library="rtx", compute_capability="8.7"))


def test_bench_reports_what_an_engine_needs_and_exits_with_5(source: Path) -> None:
    """A real engine of TensorRT for RTX on a machine without a GPU: everything that is missing, and no traceback."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which runs the engine")
    path = rtx_engine(source)
    for command in (["bench", "--engine", str(path)], ["predict", "--model", str(path), "face.png"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 5, result.output
        assert "TensorRT for RTX" in result.output
        assert "an NVIDIA GPU" in result.output or "cuda-bindings" in result.output
        assert "Traceback" not in result.output


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "resnet101"])
def test_every_backbone_becomes_an_engine_in_every_precision(
    name: str, backbone_as_onnx: Callable[[str], Any], tmp_path: Path
) -> None:
    """With enhanced head and attention: NVIDIA's parser and compiler accept float, FP16 and INT8.

    All except ResNet-101, which only has more of the blocks of ResNet-50.
    """
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")
    files = export_every_precision(backbone_as_onnx(name), tmp_path)
    cards = [read_card(rtx_engine(file)) for file in files]
    assert [card.target.source for card in cards] == [file.name for file in files]
    for file, card in zip(files, cards, strict=True):
        layers = card.history[-1].measured["layers"]
        assert layers > 10, file.name
        assert card.history[-1].measured["size_bytes"] > 100_000, file.name


def export_every_precision(exported: Any, folder: Path) -> list[Path]:
    """Float, FP16 and INT8 ONNX of an exported backbone."""
    float_model, contract = folder / "float.onnx", read_card(exported.path).input
    for source in (exported.path, card_path(exported.path)):
        shutil.copy(source, folder / source.name)
    noise = Faces(exported.pixels[:4], np.eye(6, dtype=np.float32)[[0] * 4], np.zeros(4, np.int64), list("abcd"))
    fp16.convert(float_model, folder / "fp16.onnx")
    quantize(observe(float_model, noise, contract, method="minmax"), folder / "int8.onnx", target_format="tensorrt")
    int8 = Precision("int8", target_format="tensorrt")
    write_card(folder / "fp16.onnx", read_card(float_model))
    write_card(folder / "int8.onnx", replace(read_card(float_model), precision=int8))
    return [float_model, folder / "fp16.onnx", folder / "int8.onnx"]
