"""The fakes are compared with NVIDIA's own modules, so that calls which pass here are valid on a GPU."""

from __future__ import annotations

import enum
import inspect
import json
import re
from pathlib import Path
from typing import Any

import fake_cudart
import fake_tensorrt
import pytest
from signatures import classes_of

CLASSES = classes_of(fake_tensorrt)
TENSORRT = json.loads((Path(__file__).parents[1] / "fixtures" / "tensorrt_signatures.json").read_text(encoding="utf-8"))


def public(kind: type) -> dict[str, Any]:
    """What the fake class itself defines: methods and values, and its making."""
    return {name: value for name, value in vars(kind).items() if not name.startswith("_") or name == "__init__"}


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_fake_has_tensorrts_own_parameters(kind):
    """TensorRT 10.13, read off its type stubs: every method takes the same names in the same order."""
    real = TENSORRT["classes"][kind.__name__]
    for name, value in public(kind).items():
        if name == "__init__" and kind.__name__ not in ("Builder", "OnnxParser", "Runtime"):
            continue  # made by other objects
        assert name in real, f"TensorRT has no {kind.__name__}.{name}"
        if inspect.isfunction(value):
            assert parameters(value) in real[name], f"{kind.__name__}.{name} takes {real[name]}"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_fake_has_tensorrt_rtxs_parameters(kind):
    """Of the module that is installed: the same, read off the real thing."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    real = getattr(rtx, kind.__name__)
    for name, value in public(kind).items():
        if name == "__init__":
            continue
        assert hasattr(real, name), f"TensorRT for RTX has no {kind.__name__}.{name}"
        if inspect.isfunction(value):
            overloads = re.findall(rf"\b{name}\(self: [^,)]+(.*?)\) ->", getattr(real, name).__doc__)
            names = [re.findall(r", (\w+):", overload) for overload in overloads]
            assert parameters(value) in names, f"{kind.__name__}.{name} takes {names}"


@pytest.mark.parametrize("kind", [k for k in CLASSES if issubclass(k, enum.Enum)], ids=lambda kind: kind.__name__)
def test_the_fake_has_no_name_of_its_own_in_an_enum(kind):
    """Every member exists in TensorRT for RTX too."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    assert set(kind.__members__) <= set(getattr(rtx, kind.__name__).__members__)


def test_the_fake_cuda_takes_what_cuda_takes():
    """The parameters of the calls of cuda-bindings, by name."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-bindings")
    calls = {name: value for name, value in vars(fake_cudart).items() if inspect.isfunction(value)}
    assert len(calls) == 19
    for name, value in calls.items():
        assert parameters(value) == parameters(getattr(real, name)), name
    for kind in (fake_cudart.cudaMemcpyKind, fake_cudart.cudaStreamCaptureMode):
        assert set(kind.__members__) <= set(getattr(real, kind.__name__).__members__)
