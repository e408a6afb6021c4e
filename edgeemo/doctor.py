"""The doctor: which engines this machine can build and run, and what to install for the rest."""

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
from edgeemo.runtime.backends.ort import PROVIDERS, require_onnxruntime
from edgeemo.runtime.backends.tensorrt import LIBRARIES, knows, library
from edgeemo.runtime.probe import EXACT_COST, kernels_saturate
from edgeemo.stages import Doctor

# Which instructions make INT8 fast on a CPU, best first, and what edgeemo's measurements or their makers say of them.
INT8 = {
    "amx_int8": "AMX: OpenVINO uses it, ONNX Runtime does not",
    "avx512_vnni": "VNNI: INT8 is two to three times as fast as float",
    "avx_vnni": "VNNI: INT8 is two to three times as fast as float",
    "i8mm": "i8mm: INT8 matrix products",
    "asimddp": "dot product: INT8 is faster than float",
}
SLOW = "none of VNNI, AMX or dot product: INT8 is about one and a half times as fast as float"
SATURATES = (
    "its INT8 kernels saturate on weights over 64, so models without that limit (--no-reduce-range) run in exact "
    f"arithmetic, about {EXACT_COST} times the time"
)


def run(config: Doctor) -> DoctorResult | CheckResult:
    """What this machine is and has, or with config.check whether models still give their answers."""
    options.check(config)
    return check.run(config) if config.check else survey()


def survey() -> DoctorResult:
    """What this machine is and has."""
    gpu, lacking = _gpu()
    parts = [_onnxruntime(gpu), _openvino(), *(_engines(name, gpu, lacking) for name in LIBRARIES), _workshop()]
    int8 = "; ".join(filter(None, [int8_on(this_machine()), saturation()]))
    return DoctorResult(header=make_header(), int8=int8, gpu=gpu, parts=parts)


def int8_on(machine: Machine) -> str:
    """What INT8 can expect of a CPU, by every set of instructions that it has for it."""
    if machine.features is None:
        return "this system does not tell which instructions it has"
    found = dict.fromkeys(text for feature, text in INT8.items() if feature in machine.features)
    return "; ".join(found) or SLOW


def saturation() -> str:
    """What the kernels of this processor do to full-range weights; empty if nothing, or without ONNX Runtime."""
    try:
        return SATURATES if kernels_saturate() else ""
    except MachineError:
        return ""


def _gpu() -> tuple[GpuFacts | None, str]:
    """The GPU, or what is missing."""
    try:
        gpu = Cuda().gpu()
    except MachineError as error:
        return None, str(error)
    return GpuFacts(gpu.name, gpu.capability, gpu.driver), ""


def _onnxruntime(gpu: GpuFacts | None) -> Part:
    """With the CPU, and with what it was compiled for of a GPU that is there."""
    name, (version, advice) = "ONNX Runtime (.onnx)", _version(require_onnxruntime)
    if advice:
        return Part(name, runs=False, builds=False, version="", advice=advice)
    compiled = require_onnxruntime().get_available_providers()
    here = [kind for kind, provider in PROVIDERS.items() if provider in compiled and (gpu or kind == "onnxruntime")]
    places = ", ".join("CPU" if kind == "onnxruntime" else kind.removeprefix("onnxruntime-") for kind in here)
    return Part(name, runs=True, builds=False, version=f"{version} ({places})", advice="")


def _openvino() -> Part:
    version, advice = _version(require_openvino)
    return Part("OpenVINO (.onnx)", bool(version), False, version, advice)


def _engines(name: str, gpu: GpuFacts | None, lacking: str) -> Part:
    """RTX engines are built without a GPU; TensorRT's only where they run."""
    title = f"{LIBRARIES[name].name} (.trt)"
    try:
        version = str(library(name).__version__)
    except MachineError as error:
        return Part(title, False, False, "", _advice(error))
    if gpu and not knows(name, library(name), gpu.capability):
        return Part(title, False, True, version, f"to run: a GPU that it knows; {gpu.capability} is TensorRT's alone")
    builds = name == "rtx" or gpu is not None
    return Part(title, gpu is not None, builds, version, "" if gpu else f"to run: {lacking}")


def _workshop() -> Part:
    version, advice = _version(partial(require, "torch", purpose="training", extra="train"))
    return Part("PyTorch (training)", bool(version), bool(version), version, advice)


def _version(load: Callable[[], ModuleType]) -> tuple[str, str]:
    """The version and no advice, or no version and what to do."""
    try:
        return str(load().__version__).partition("-")[0], ""  # OpenVINO adds its build
    except MachineError as error:
        return "", _advice(error)


def _advice(error: MachineError) -> str:
    """What a missing package's error says after its name."""
    return str(error).partition(":")[2].strip()
