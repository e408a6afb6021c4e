"""The build stage: an ONNX file → an engine of TensorRT, or of TensorRT for RTX, with a card that says for what.

Precision lies in the file, as Q/DQ nodes and as float16 or float32 tensors; the network is strongly typed, so no flag
here asks for another. TensorRT 10 takes the flag that says so, TensorRT 11 knows nothing else.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgeemo import options
from edgeemo.artifact import atomic_write
from edgeemo.card import Card, Precision, Target, card_path, read_card, write_card
from edgeemo.card.history import entry
from edgeemo.errors import EdgeemoError, IntegrityError, MachineError, UsageError
from edgeemo.machine import is_jetson, this_machine
from edgeemo.runtime import shipped
from edgeemo.runtime.backends.cuda import Cuda, Gpu
from edgeemo.runtime.backends.tensorrt import LIBRARIES, given, knows, library, logger, reasons
from edgeemo.stages import Build

if TYPE_CHECKING:
    import tensorrt_rtx_bindings.tensorrt_rtx as trt

log = logging.getLogger(__name__)
SUFFIX = ".trt"
# NVIDIA's support matrix of TensorRT for RTX lists FP32, FP16, BF16 and weight-only INT8 matrix products.
RTX_INT8 = (
    "TensorRT for RTX builds INT8 convolutions, but does not list them as supported: they may run in another precision "
    "on the GPU.  Compare with a float16 engine there:  edgeemo compress RUN --fp16"
)


def run(config: Build) -> Path:
    """Build as configured; returns the path of the engine. One that was built of the same for the same is kept."""
    _check(config)
    source = _source(config)
    card = read_card(source)
    _check_target_format(source, card)
    name, reason = _library(config.library)
    found = library(name)
    log.info("%s %s (%s)", LIBRARIES[name].name, found.__version__, reason)
    if name == "rtx":
        _check_rtx(config)
        if card.precision.is_int8:
            log.warning(RTX_INT8)
    gpu = _gpu()
    target = _target(config, name, found.__version__, gpu, source, card)
    out = _out(config, source)
    if not config.force and _stands(out, target):
        log.info("%s was built of this file for this target already; --force builds it again", out)
        return out
    start = perf_counter()
    engine, layers = _built(found, source, card, config, target)
    seconds = perf_counter() - start
    with atomic_write(out) as partial:
        partial.write_bytes(engine)
    built = card.after(
        entry("build", config, seconds=seconds, parent=card.sha256, layers=layers, size_bytes=len(engine)),
        target=target,
        precision=_precision(card),
        metrics={split: replace(found, measured_on=source.name) for split, found in card.metrics.items()},
    )
    write_card(out, built)
    log.info("%s: %d bytes from %d layers in %.1f s", out, len(engine), layers, seconds)
    return out


def _precision(card: Card) -> Precision:
    """What the file asks of the engine; what runs in which precision was seen in ONNX Runtime, and not here."""
    stated = card.precision
    return Precision(
        requested=stated.requested,
        actual=stated.actual,
        target_format=stated.target_format,
        keep_float=stated.keep_float,
        calibration=stated.calibration,
        calibration_method=stated.calibration_method,
        executed="not run on a GPU when it was built",
    )


def _out(config: Build, source: Path) -> Path:
    """Beside the model, and of a model that edgeemo ships, here."""
    if config.out:
        return config.out
    return Path(config.model + SUFFIX) if shipped.is_name(config.model) else source.with_suffix(SUFFIX)


def _source(config: Build) -> Path:
    source = shipped.find(config.model, target_format="tensorrt")
    if source.suffix != ".onnx":
        raise UsageError(
            f"{config.model}: expected {', '.join(shipped.NAMES)}, or a .onnx file.  Make one:  "
            "edgeemo compress RUN --int8 --target-format tensorrt"
        )
    return source


def _check(config: Build) -> None:
    options.check(config)
    if config.out and config.out.suffix != SUFFIX:
        raise UsageError(f"--out {config.out}: expected a {SUFFIX} file")
    if wrong := [name for name in config.compute_capability if not re.fullmatch(r"\d+\.\d", name)]:
        raise UsageError(f"--compute-capability {','.join(wrong)}: expected numbers as 8.6,12.0")


def _check_rtx(config: Build) -> None:
    """What TensorRT for RTX does not have."""
    asked = {
        "--timing-cache": config.timing_cache,
        "--version-compatible": config.version_compatible,
        "--hardware-compatible": config.hardware_compatible,
        "--dla-core": config.dla_core is not None,
    }
    if wrong := [name for name, given in asked.items() if given]:
        raise UsageError(f"TensorRT for RTX has no {', '.join(wrong)}; leave it out, or use --library tensorrt")


def _check_target_format(source: Path, card: Card) -> None:
    if card.target:
        raise UsageError(f"{source} is an engine already; build from the .onnx file that it was made of")
    if card.precision.target_format == "cpu":
        raise UsageError(
            f"{source} has the target format cpu (uint8 activations), which TensorRT does not accept.  Make the "
            "other one from the same run:  edgeemo compress RUN --int8 --target-format tensorrt"
        )


def _library(asked: str) -> tuple[str, str]:
    """Which library builds, and why."""
    if asked != "auto":
        return asked, f"--library {asked}"
    for name in LIBRARIES:
        with suppress(MachineError):
            library(name)
            return name, "it is installed"
    raise MachineError(
        "no library that builds engines is installed:  pip install 'edgeemo[tensorrt]' on the device itself, or "
        "pip install 'edgeemo[rtx]', which also builds for RTX GPUs where there is none"
    )


def _gpu() -> Gpu | None:
    try:
        return Cuda().gpu()
    except MachineError:
        return None


def _target(config: Build, name: str, version: str, gpu: Gpu | None, source: Path, card: Card) -> Target:
    """All that decides an engine and its card."""
    asked = config.compute_capability
    if asked and name == "tensorrt":
        raise UsageError("--compute-capability is for --library rtx; TensorRT builds for the GPU that it runs on")
    if not asked and gpu is None:
        where = {"rtx": "name those to build for, as --compute-capability 8.6,8.9", "tensorrt": "build on the device"}
        raise MachineError(f"without {_lacking()}, {where[name]}")
    if not asked and gpu and not knows(name, library(name), gpu.capability):
        raise MachineError(
            f"{LIBRARIES[name].name} {version} does not know the {gpu.name} of this machine, compute capability "
            f"{gpu.capability}; use --library tensorrt, or name GPUs to build for with --compute-capability"
        )
    return Target(
        library=name,
        version=version,
        compute_capabilities=tuple(sorted(set(asked))) or (gpu.capability if gpu else "",),
        gpu="" if asked or gpu is None else gpu.name,
        driver="" if asked or gpu is None else gpu.driver,
        platform=this_machine().system,
        max_batch=config.max_batch,
        version_compatible=config.version_compatible,
        hardware_compatible=config.hardware_compatible,
        dla_core=-1 if config.dla_core is None else config.dla_core,
        workspace_mib=config.workspace_mib or 0,
        source=config.model if shipped.is_name(config.model) else source.name,  # as it is given to build it again
        source_sha256=card.sha256,
        source_seal=card.seal,  # the engine's card says what that of the file said: labels, temperature
    )


def _lacking() -> str:
    """What keeps this machine from having a GPU."""
    try:
        Cuda().gpu()
    except MachineError as error:
        return str(error)
    return "the GPU that has just appeared"


def _stands(out: Path, target: Target) -> bool:
    """Whether a whole engine of just this target lies there."""
    if not out.is_file() or not card_path(out).is_file():
        return False
    try:
        return read_card(out).target == target
    except EdgeemoError:
        return False  # damaged or foreign: it is built anew


def _built(found: Any, source: Path, card: Card, config: Build, target: Target) -> tuple[bytes, int]:
    """The serialised engine and the number of layers of its network."""
    said = logger(found)
    builder: trt.Builder = given(lambda: found.Builder(said), "builder", said)
    network = _parsed(found, builder, said, source)
    settings = builder.create_builder_config()
    _aim(found, builder, settings, config, target)
    face = (card.input.channels, card.input.size, card.input.size)
    profile = builder.create_optimization_profile()
    shapes: list[Any] = [(1, *face), (1, *face), (config.max_batch, *face)]  # a tuple becomes a Dims
    profile.set_shape(network.get_input(0).name, *shapes)
    if settings.add_optimization_profile(profile) < 0:
        raise MachineError(f"TensorRT did not take batches of 1 to {config.max_batch} faces: {reasons(said)}")
    layers = int(network.num_layers)
    engine: trt.IHostMemory | None = builder.build_serialized_network(network, settings)
    if engine is None:
        raise MachineError(
            f"{LIBRARIES[target.library].name} {target.version} did not build {source} for compute capability "
            f"{', '.join(target.compute_capabilities)}: {reasons(said)}"
        )
    if config.timing_cache:
        _keep_timings(settings, config.timing_cache)
    return bytes(memoryview(engine)), layers  # type: ignore[arg-type]  # it has the buffer protocol


def _parsed(found: Any, builder: trt.Builder, said: Any, source: Path) -> trt.INetworkDefinition:
    strongly_typed = 1 << int(found.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser: trt.OnnxParser = found.OnnxParser(network, said)
    if not parser.parse(source.read_bytes()):
        errors = [parser.get_error(k).desc() for k in range(parser.num_errors)]
        raise IntegrityError(
            f"{source} is refused by the ONNX parser of {found.__name__} {found.__version__}: {'; '.join(errors)}\n"
            "  make it anew:  edgeemo compress RUN --int8 --target-format tensorrt"
        )
    return network


def _aim(found: Any, builder: trt.Builder, settings: trt.IBuilderConfig, config: Build, target: Target) -> None:
    """The target's part of the builder's settings."""
    if config.workspace_mib:
        settings.set_memory_pool_limit(found.MemoryPoolType.WORKSPACE, config.workspace_mib << 20)
    if target.library == "rtx":
        _aim_rtx(found, settings, target.compute_capabilities)
        return
    if config.version_compatible:
        settings.set_flag(found.BuilderFlag.VERSION_COMPATIBLE)
    if config.hardware_compatible and is_jetson():
        raise MachineError("--hardware-compatible: TensorRT has no such engines on a Jetson; leave it out")
    if config.hardware_compatible:
        settings.hardware_compatibility_level = found.HardwareCompatibilityLevel.AMPERE_PLUS
    if config.dla_core is not None:
        _aim_dla(found, builder, settings, config.dla_core)
    if config.timing_cache:
        file = config.timing_cache
        cache: Any = settings.create_timing_cache(file.read_bytes() if file.is_file() else b"")
        if cache is None or not settings.set_timing_cache(cache, False):
            raise IntegrityError(f"--timing-cache {file} is of another GPU or version; name a new file")


def _aim_rtx(found: Any, settings: trt.IBuilderConfig, capabilities: tuple[str, ...]) -> None:
    known = {name: "SM" + name.replace(".", "") for name in capabilities}
    if unknown := [name for name, member in known.items() if not hasattr(found.ComputeCapability, member)]:
        takes = sorted(
            (name for name in dir(found.ComputeCapability) if name.startswith("SM")), key=lambda n: int(n[2:])
        )
        raise UsageError(
            f"--compute-capability {', '.join(unknown)}: {found.__name__} {found.__version__} knows "
            f"{', '.join(f'{name[2:-1]}.{name[-1]}' for name in takes)} (a Jetson needs --library tensorrt)"
        )
    settings.num_compute_capabilities = len(known)
    for place, (name, member) in enumerate(known.items()):
        if not settings.set_compute_capability(getattr(found.ComputeCapability, member), place):
            raise MachineError(f"{found.__name__} {found.__version__} does not build for compute capability {name}")


def _aim_dla(found: Any, builder: trt.Builder, settings: trt.IBuilderConfig, core: int) -> None:
    """What DLA cannot run stays on the GPU. TensorRT 10.7 and older, and 11.4.1 on an AGX Orin, have DLA."""
    if core >= builder.num_DLA_cores:
        raise MachineError(
            f"--dla-core {core}: TensorRT {found.__version__} finds {builder.num_DLA_cores} DLA cores here; leave it "
            "out to build for the GPU"
        )
    settings.default_device_type, settings.DLA_core = found.DeviceType.DLA, core
    settings.set_flag(found.BuilderFlag.GPU_FALLBACK)


def _keep_timings(settings: trt.IBuilderConfig, file: Path) -> None:
    with atomic_write(file) as partial:
        partial.write_bytes(bytes(memoryview(settings.get_timing_cache().serialize())))  # type: ignore[arg-type]
