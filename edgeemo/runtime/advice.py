"""Advice on a model on this machine: kernels that would saturate, a file of the wrong target format."""

from __future__ import annotations

import platform

from edgeemo.card import Card
from edgeemo.errors import MachineError
from edgeemo.runtime.probe import EXACT_COST, kernels_saturate

X86 = ("x86_64", "AMD64", "i386", "i686", "x86")
LIMIT = "edgeemo compress RUN --int8 limits its weights"


def advise(card: Card, backend: str, name: str) -> list[str]:
    """Return sentences on the model `name` in `backend` on this processor, each with a remedy; none if all is well."""
    advice = []
    if backend == "onnxruntime" and saturates_here(card):
        advice.append(
            f"{name} is not proven free of saturation, and this processor's INT8 kernels saturate: ONNX Runtime uses "
            f"exact arithmetic, about {EXACT_COST} times the time.  {LIMIT}"
        )
    if backend == "openvino" and saturates_here(card):
        advice.append(
            f"{name} is not proven free of saturation, this processor has no VNNI, and OpenVINO has no exact "
            f"arithmetic: run it in ONNX Runtime.  {LIMIT}"
        )
    if backend == "onnxruntime" and is_slow_format(card):
        advice.append(
            f"{name} has int8 activations, made for TensorRT, which ONNX Runtime runs more slowly than float on x86.  "
            "Open the form with uint8 activations (--target-format cpu), model.int8.onnx, instead"
        )
    return advice


def saturates_here(card: Card) -> bool:
    """Return whether the fast kernels of this processor could saturate on the file, which its card does not exclude."""
    try:
        return not card.overflow_safe and kernels_saturate()
    except MachineError:  # ONNX Runtime is not installed, so none of its kernels run
        return False


def is_slow_format(card: Card) -> bool:
    """Return whether ONNX Runtime has no fast kernels for the file on this processor: int8 activations on x86."""
    return card.precision.target_format == "tensorrt" and platform.machine() in X86
