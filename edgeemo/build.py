"""The build stage: an ONNX file → an engine of TensorRT, or of TensorRT for RTX, with a card that has its target.

With --for, a folder for another host instead (edgeemo/export).

The precision is that of the file, in Q/DQ nodes and float16 or float32 tensors: the network is strongly typed, so there
is no option for it. TensorRT 10 needs a flag for this; in TensorRT 11 all networks are strongly typed.
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
from edgeemo.artifact import atomic_write, hash_file
from edgeemo.card import Card, Precision, Target, card_path, read_card
from edgeemo.card.files import write_sealed
from edgeemo.card.history import make_entry
from edgeemo.errors import EdgeemoError, IntegrityError, MachineError, UsageError
from edgeemo.export import write_export
from edgeemo.machine import is_jetson, this_machine
from edgeemo.runtime import shipped
from edgeemo.runtime.backends.cuda import Cuda, Gpu
from edgeemo.runtime.backends.tensorrt import (
    LIBRARIES,
    import_library,
    join_messages,
    make_logger,
    require_result,
    supports,
)
from edgeemo.runtime.onnx_check import check_file, has_uint8_activations, is_quantized
from edgeemo.stages import Build

if TYPE_CHECKING:
    import tensorrt_rtx_bindings.tensorrt_rtx as trt

log = logging.getLogger(__name__)
SUFFIX = ".trt"
MAKE_INT8 = "edgeemo compress RUN --int8 --target-format tensorrt"
# NVIDIA's support matrix of TensorRT for RTX lists FP32, FP16, BF16 and weight-only INT8 matrix products.
RTX_INT8 = (
    "TensorRT for RTX builds INT8 convolutions, but does not list them as supported: they may run in another precision "
    "on the GPU.  Compare with a float16 engine there:  edgeemo compress RUN --fp16"
)


def run(config: Build) -> Path:
    """Build as configured; return the path of the engine. An existing one of the same file and target is kept.

    With `for_`, write a new folder for that host and return its path.
    """
    if config.for_:
        return write_export(config)
    _check(config)
    source = _find_source(config)
    card = read_card(source)
    _check_target_format(source, card)
    name, reason = _choose_library(config.library)
    module = import_library(name)
    log.info("%s %s (%s)", LIBRARIES[name].name, module.__version__, reason)
    if name == "rtx":
        _check_rtx(config)
        if card.precision.is_int8:
            log.warning(RTX_INT8)
    target = _make_target(config, name, module.__version__, source, card)
    out = _choose_out(config, source)
    if not config.force and _is_up_to_date(out, target):
        log.info("%s is up to date; --force builds it again", out)
        return out
    start = perf_counter()
    engine, layers = _build_engine(module, source, card, config, target)
    seconds = perf_counter() - start
    with atomic_write(out) as partial:
        partial.write_bytes(engine)
        digest = hash_file(partial)  # not of `out` later, which another build may have replaced
    engine_card = card.with_entry(
        make_entry("build", config, seconds=seconds, parent=card.sha256, layers=layers, size_bytes=len(engine)),
        target=target,
        precision=_make_precision(card),
        metrics={split: replace(metrics, measured_on=source.name) for split, metrics in card.metrics.items()},
    )
    write_sealed(card_path(out), replace(engine_card, sha256=digest))
    log.info("%s: %d bytes from %d layers in %.1f s", out, len(engine), layers, seconds)
    return out


def _make_precision(card: Card) -> Precision:
    """Return the precision requested by the file; what was executed in ONNX Runtime does not apply to the engine."""
    section = card.precision
    return Precision(
        requested=section.requested,
        actual=section.actual,
        target_format=section.target_format,
        keep_float=section.keep_float,
        calibration=section.calibration,
        calibration_method=section.calibration_method,
        executed="not run on a GPU when it was built",
    )


def _choose_out(config: Build, source: Path) -> Path:
    """Return the path of the engine: next to the model, or in the current folder for a packaged model."""
    if config.out:
        return config.out
    return Path(config.model + SUFFIX) if shipped.is_name(config.model) else source.with_suffix(SUFFIX)


def _find_source(config: Build) -> Path:
    source = shipped.find(config.model, target_format="tensorrt")
    if source.suffix != ".onnx":
        raise UsageError(
            f"{config.model}: expected {', '.join(shipped.NAMES)}, or a .onnx file.  Make one:  {MAKE_INT8}"
        )
    return source


def _check(config: Build) -> None:
    options.check(config)
    if config.out and config.out.suffix != SUFFIX:
        raise UsageError(f"--out {config.out}: expected a {SUFFIX} file")
    if wrong := [name for name in config.compute_capability if not re.fullmatch(r"\d+\.\d", name)]:
        raise UsageError(f"--compute-capability {','.join(wrong)}: expected numbers as 8.6,12.0")


def _check_rtx(config: Build) -> None:
    """Raise UsageError for options that TensorRT for RTX does not have."""
    unsupported = {
        "--timing-cache": config.timing_cache,
        "--version-compatible": config.version_compatible,
        "--hardware-compatible": config.hardware_compatible,
        "--dla-core": config.dla_core is not None,
    }
    if wrong := [name for name, given in unsupported.items() if given]:
        raise UsageError(f"TensorRT for RTX has no {', '.join(wrong)}; leave it out, or use --library tensorrt")


def _check_target_format(source: Path, card: Card) -> None:
    if card.target:
        raise UsageError(f"{source} is an engine; build from the .onnx file that it was built from")
    graph, stated = check_file(source), card.precision.target_format
    if stated == "cpu" or has_uint8_activations(graph):
        raise UsageError(
            f"{source} has the target format cpu (uint8 activations), which TensorRT does not accept.  Make the "
            f"other one from the same run:  {MAKE_INT8}"
        )
    if not stated and (card.precision.is_int8 or is_quantized(graph)):
        raise UsageError(
            f"{source} is INT8, but its card states no target format; expected tensorrt.  Make both again:  {MAKE_INT8}"
        )


def _choose_library(requested: str) -> tuple[str, str]:
    """Return the library that builds, and the reason."""
    if requested != "auto":
        return requested, f"--library {requested}"
    for name in LIBRARIES:
        with suppress(MachineError):
            import_library(name)
            return name, "it is installed"
    raise MachineError(
        "no library that builds engines is installed:  pip install 'edgeemo[tensorrt]' on the device itself, or "
        "pip install 'edgeemo[rtx]', which also builds for RTX GPUs on machines without one"
    )


def _find_gpu() -> tuple[Gpu | None, str]:
    """Return the GPU of this machine, or None and what is missing."""
    try:
        return Cuda().gpu(), ""
    except MachineError as error:
        return None, str(error)


def _make_target(config: Build, name: str, version: str, source: Path, card: Card) -> Target:
    """Return everything that determines an engine and its card."""
    gpu, missing = _find_gpu()
    requested = config.compute_capability
    if requested and name == "tensorrt":
        raise UsageError("--compute-capability is for --library rtx; TensorRT builds for the GPU of this machine")
    if not requested and gpu is None:
        remedies = {"rtx": "name the targets, as --compute-capability 8.6,8.9", "tensorrt": "build on the device"}
        raise MachineError(f"without {missing}, {remedies[name]}")
    if not requested and gpu and not supports(name, import_library(name), gpu.capability):
        raise MachineError(
            f"{LIBRARIES[name].name} {version} does not support the {gpu.name} of this machine, compute capability "
            f"{gpu.capability}; use --library tensorrt, or name GPUs to build for with --compute-capability"
        )
    return Target(
        library=name,
        version=version,
        compute_capabilities=tuple(sorted(set(requested))) or (gpu.capability if gpu else "",),
        gpu="" if requested or gpu is None else gpu.name,
        driver="" if requested or gpu is None else gpu.driver,
        platform=this_machine().system,
        max_batch=config.max_batch,
        version_compatible=config.version_compatible,
        hardware_compatible=config.hardware_compatible,
        dla_core=-1 if config.dla_core is None else config.dla_core,
        workspace_mib=config.workspace_mib or 0,
        source=config.model if shipped.is_name(config.model) else source.name,  # as given to build it again
        source_sha256=card.sha256,
        source_seal=card.seal,  # the engine's card copies labels, temperature and more from the file's
    )


def _is_up_to_date(out: Path, target: Target) -> bool:
    """Return whether `out` is an intact engine for exactly this target."""
    if not out.is_file() or not card_path(out).is_file():
        return False
    try:
        return read_card(out).target == target
    except EdgeemoError:
        return False  # damaged or foreign: build it again


def _build_engine(module: Any, source: Path, card: Card, config: Build, target: Target) -> tuple[bytes, int]:
    """Return the serialised engine and the number of layers of its network."""
    trt_logger = make_logger(module)
    builder: trt.Builder = require_result(lambda: module.Builder(trt_logger), "builder", trt_logger)
    network = _parse(module, builder, trt_logger, source)
    settings = builder.create_builder_config()
    _configure(module, builder, settings, config, target)
    face = (card.input.channels, card.input.size, card.input.size)
    profile = builder.create_optimization_profile()
    shapes: list[Any] = [(1, *face), (1, *face), (config.max_batch, *face)]  # a tuple becomes a Dims
    profile.set_shape(network.get_input(0).name, *shapes)
    if settings.add_optimization_profile(profile) < 0:
        raise MachineError(f"TensorRT refused batches of 1 to {config.max_batch} faces: {join_messages(trt_logger)}")
    layers = int(network.num_layers)
    engine: trt.IHostMemory | None = builder.build_serialized_network(network, settings)
    if engine is None:
        raise MachineError(
            f"{LIBRARIES[target.library].name} {target.version} did not build {source} for compute capability "
            f"{', '.join(target.compute_capabilities)}: {join_messages(trt_logger)}"
        )
    if config.timing_cache:
        with atomic_write(config.timing_cache) as partial:
            partial.write_bytes(bytes(memoryview(settings.get_timing_cache().serialize())))  # type: ignore[arg-type]
    return bytes(memoryview(engine)), layers  # type: ignore[arg-type]  # it has the buffer protocol


def _parse(module: Any, builder: trt.Builder, trt_logger: Any, source: Path) -> trt.INetworkDefinition:
    strongly_typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser: trt.OnnxParser = module.OnnxParser(network, trt_logger)
    if not parser.parse(source.read_bytes()):
        errors = [parser.get_error(k).desc() for k in range(parser.num_errors)]
        raise IntegrityError(
            f"{source} is refused by the ONNX parser of {module.__name__} {module.__version__}: {'; '.join(errors)}\n"
            f"  make it again:  {MAKE_INT8}"
        )
    return network


def _configure(module: Any, builder: trt.Builder, settings: trt.IBuilderConfig, config: Build, target: Target) -> None:
    """Set the options of the builder for the target."""
    if config.workspace_mib:
        settings.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, config.workspace_mib << 20)
    if target.library == "rtx":
        _set_compute_capabilities(module, settings, target.compute_capabilities)
        return
    if config.version_compatible:
        settings.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if config.hardware_compatible and is_jetson():
        raise MachineError("--hardware-compatible: TensorRT does not support this on a Jetson; leave it out")
    if config.hardware_compatible:
        settings.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if config.dla_core is not None:
        _set_dla_core(module, builder, settings, config.dla_core)
    if config.timing_cache:
        file = config.timing_cache
        cache: Any = settings.create_timing_cache(file.read_bytes() if file.is_file() else b"")
        if cache is None or not settings.set_timing_cache(cache, False):
            raise IntegrityError(f"--timing-cache {file} is from another GPU or version; choose a new file")


def _set_compute_capabilities(module: Any, settings: trt.IBuilderConfig, capabilities: tuple[str, ...]) -> None:
    known = {name: "SM" + name.replace(".", "") for name in capabilities}
    if unknown := [name for name, member in known.items() if not hasattr(module.ComputeCapability, member)]:
        supported = sorted(
            (name for name in dir(module.ComputeCapability) if name.startswith("SM")), key=lambda n: int(n[2:])
        )
        raise UsageError(
            f"--compute-capability {', '.join(unknown)}: {module.__name__} {module.__version__} supports "
            f"{', '.join(f'{name[2:-1]}.{name[-1]}' for name in supported)} (a Jetson needs --library tensorrt)"
        )
    settings.num_compute_capabilities = len(known)
    for index, (name, member) in enumerate(known.items()):
        if not settings.set_compute_capability(getattr(module.ComputeCapability, member), index):
            raise MachineError(f"{module.__name__} {module.__version__} does not build for compute capability {name}")


def _set_dla_core(module: Any, builder: trt.Builder, settings: trt.IBuilderConfig, core: int) -> None:
    """Run what DLA supports on a core, the rest on the GPU. TensorRT up to 10.7, and 11.4.1 on AGX Orin, have DLA."""
    if core >= builder.num_DLA_cores:
        raise MachineError(
            f"--dla-core {core}: TensorRT {module.__version__} finds {builder.num_DLA_cores} DLA cores here; leave it "
            "out to build for the GPU"
        )
    settings.default_device_type, settings.DLA_core = module.DeviceType.DLA, core
    settings.set_flag(module.BuilderFlag.GPU_FALLBACK)
