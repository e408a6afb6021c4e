"""The doctor stage: which engines this machine can build and run, and what to install for the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

from edgeemo import check, options
from edgeemo.errors import MachineError
from edgeemo.machine import Machine, this_machine
from edgeemo.packages import require
from edgeemo.report.facts import make_header
from edgeemo.report.result import CheckResult, DoctorResult, GpuFacts, Part
from edgeemo.runtime.backends.cuda import Cuda
from edgeemo.runtime.backends.openvino import require_openvino
from edgeemo.runtime.backends.ort import PROVIDERS
from edgeemo.runtime.backends.tensorrt import LIBRARIES, import_library, supports
from edgeemo.runtime.probe import EXACT_COST, kernels_saturate
from edgeemo.sessions import require_onnxruntime
from edgeemo.stages import Doctor

# Instruction sets that accelerate INT8, fastest first, with their effect as measured by edgeemo or stated by the maker.
INT8 = {
    "amx_int8": "AMX: OpenVINO uses it, ONNX Runtime does not",
    "avx512_vnni": "VNNI: INT8 is two to three times as fast as float",
    "avx_vnni": "VNNI: INT8 is two to three times as fast as float",
    "i8mm": "i8mm: INT8 matrix products",
    "asimddp": "dot product: INT8 is faster than float",
}
NO_INT8 = "none of VNNI, AMX or dot product: INT8 is about one and a half times as fast as float"
SATURATES = (
    "its INT8 kernels saturate on weights above 64, so models without that limit (--no-reduce-range) run in exact "
    f"arithmetic, about {EXACT_COST} times the time"
)


def run(config: Doctor) -> DoctorResult | CheckResult:
    """Report this machine and its engines, or with config.check whether models still give their expected outputs."""
    options.check(config)
    return check.run(config) if config.check else survey()


def survey() -> DoctorResult:
    """Report this machine and its engines."""
    gpu, missing = _find_gpu()
    engines = [_check_engines(name, gpu, missing) for name in LIBRARIES]
    parts = [_check_onnxruntime(gpu), _check_openvino(), *engines, _check_torch()]
    int8 = "; ".join(filter(None, [describe_int8(this_machine()), describe_saturation()]))
    return DoctorResult(header=make_header(), int8=int8, gpu=gpu, parts=parts)


def describe_int8(machine: Machine) -> str:
    """Return what each instruction set of a CPU means for the speed of INT8."""
    if machine.features is None:
        return "this system does not report its instruction sets"
    effects = dict.fromkeys(text for feature, text in INT8.items() if feature in machine.features)
    return "; ".join(effects) or NO_INT8


def describe_saturation() -> str:
    """Return the effect of full-range weights on this processor; empty if none, or without ONNX Runtime."""
    try:
        return SATURATES if kernels_saturate() else ""
    except MachineError:
        return ""


def _find_gpu() -> tuple[GpuFacts | None, str]:
    """Return the GPU, or what is missing for one."""
    try:
        gpu = Cuda().gpu()
    except MachineError as error:
        return None, str(error)
    return GpuFacts(gpu.name, gpu.capability, gpu.driver), ""


def _check_onnxruntime(gpu: GpuFacts | None) -> Part:
    """Check ONNX Runtime; its version names the CPU, and the GPU providers if there is a GPU."""
    name, (version, advice) = "ONNX Runtime (.onnx)", _read_version(require_onnxruntime)
    if advice:
        return Part(name, runs=False, builds=False, version="", advice=advice)
    providers = require_onnxruntime().get_available_providers()
    usable = [kind for kind, provider in PROVIDERS.items() if provider in providers and (gpu or kind == "onnxruntime")]
    names = ", ".join("CPU" if kind == "onnxruntime" else kind.removeprefix("onnxruntime-") for kind in usable)
    return Part(name, runs=True, builds=False, version=f"{version} ({names})", advice="")


def _check_openvino() -> Part:
    version, advice = _read_version(require_openvino)
    return Part("OpenVINO (.onnx)", bool(version), False, version, advice)


def _check_engines(name: str, gpu: GpuFacts | None, missing: str) -> Part:
    """Check a library; engines of TensorRT for RTX are built without a GPU, those of TensorRT only where they run."""
    title = f"{LIBRARIES[name].name} (.trt)"
    try:
        version = str(import_library(name).__version__)
    except MachineError as error:
        return Part(title, False, False, "", _extract_advice(error))
    if gpu and not supports(name, import_library(name), gpu.capability):
        advice = f"to run: a GPU that it supports; only TensorRT supports {gpu.capability}"
        return Part(title, False, True, version, advice)
    builds = name == "rtx" or gpu is not None
    return Part(title, gpu is not None, builds, version, "" if gpu else f"to run: {missing}")


def _check_torch() -> Part:
    version, advice = _read_version(partial(require, "torch", purpose="training", extra="train"))
    return Part("PyTorch (training)", bool(version), bool(version), version, advice)


def _read_version(load: Callable[[], ModuleType]) -> tuple[str, str]:
    """Return the version and no advice, or no version and what to do."""
    try:
        return str(load().__version__).partition("-")[0], ""  # OpenVINO appends its build number
    except MachineError as error:
        return "", _extract_advice(error)


def _extract_advice(error: MachineError) -> str:
    """Return the part of a missing package's error after the package."""
    return str(error).partition(":")[2].strip()
