"""The doctor reports what is installed, what is missing, and how to install it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import fake_cudart
import fake_tensorrt
import pytest
from click.testing import CliRunner

from edgeemo import doctor
from edgeemo.cli import main
from edgeemo.errors import MachineError
from edgeemo.machine import this_machine
from edgeemo.packages import require


def parts(monkeypatch, **modules):
    """The findings by name, with these modules in place of what is installed; None is not installed."""
    for name in ("tensorrt", "tensorrt_rtx", "openvino", "torch", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, modules.get(name.replace(".", "_")))
    return {part.name: part for part in doctor.survey().parts}


def test_a_bare_device_is_told_what_to_install(monkeypatch):
    """ONNX Runtime runs; each other engine has its line to type."""
    found = parts(monkeypatch)
    assert found["ONNX Runtime (.onnx)"].runs
    assert found["OpenVINO (.onnx)"].advice == "pip install 'edgeemo[openvino]'"
    assert found["TensorRT (.trt)"].advice == "pip install 'edgeemo[tensorrt]'"
    assert found["TensorRT for RTX (.trt)"].advice == "pip install 'edgeemo[rtx]'"
    assert "edgeemo[train]" in found["PyTorch (training)"].advice


def test_a_package_that_does_not_load_is_told_with_its_reason(monkeypatch, tmp_path):
    """As a torch for CUDA on a machine without CUDA's libraries; no traceback, and not reported as missing."""
    for name in ("torch", "openvino"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {part.name: part for part in doctor.survey().parts}
    assert "does not load (libcudart" in found["PyTorch (training)"].advice
    assert "does not load (libtbb" in found["OpenVINO (.onnx)"].advice
    with pytest.raises(MachineError, match=r"training: .*does not load \(libcudart"):
        require("torch", extra="train", purpose="training")


def test_a_jetson_builds_and_runs(monkeypatch):
    """With TensorRT, CUDA and a GPU nothing is left to do for TensorRT."""
    found = parts(monkeypatch, tensorrt=fake_tensorrt, cuda_bindings_runtime=fake_cudart)["TensorRT (.trt)"]
    assert (found.runs, found.builds, found.version, found.advice) == (True, True, "10.3.0", "")


@pytest.mark.parametrize(("gpus", "places"), [(1, "(CPU, cuda)"), (0, "(CPU)")])
def test_a_provider_for_a_gpu_needs_one(monkeypatch, gpus, places):
    """ONNX Runtime lists what it was compiled for, GPU or not."""
    monkeypatch.setattr(fake_cudart.Machine, "gpus", gpus)
    compiled = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: compiled)
    assert parts(monkeypatch, cuda_bindings_runtime=fake_cudart)["ONNX Runtime (.onnx)"].version.endswith(places)


def test_without_a_gpu_tensorrt_does_neither_and_rtx_still_builds(monkeypatch):
    """And both say why they do not run."""
    monkeypatch.setattr(fake_cudart.Machine, "gpus", 0)
    here = {"tensorrt": fake_tensorrt, "tensorrt_rtx": fake_tensorrt, "cuda_bindings_runtime": fake_cudart}
    found = parts(monkeypatch, **here)
    tensorrt, rtx = found["TensorRT (.trt)"], found["TensorRT for RTX (.trt)"]
    assert (tensorrt.runs, tensorrt.builds) == (False, False)
    assert (rtx.runs, rtx.builds) == (False, True)
    assert all("cudaErrorNoDevice" in one.advice for one in (tensorrt, rtx))


def test_a_gpu_that_rtx_does_not_know_is_told(monkeypatch):
    """An Orin under TensorRT for RTX: engines for others are built, none runs."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    found = parts(monkeypatch, tensorrt_rtx=rtx, cuda_bindings_runtime=fake_cudart)["TensorRT for RTX (.trt)"]
    assert (found.runs, found.builds) == (False, True)
    assert "8.7" in found.advice


def test_what_int8_can_expect_is_read_off_the_cpu():
    """A CPU without the instructions is reported as slow, but not one whose instructions are unknown."""
    assert "does not report" in doctor.describe_int8(replace(this_machine(), features=None))
    for none_for_it in ((), ("avx2",)):
        assert doctor.describe_int8(replace(this_machine(), features=none_for_it)) == doctor.NO_INT8
    both = doctor.describe_int8(replace(this_machine(), features=("avx512_vnni", "avx_vnni", "amx_int8")))
    assert both.count("VNNI") == 1
    assert "AMX" in both
    assert "VNNI" in both


def test_it_prints_for_people_and_for_programs():
    """Square brackets of an extra are no markup."""
    text, machine_readable = (CliRunner().invoke(main, ["doctor", *how]) for how in ([], ["--json"]))
    assert (text.exit_code, machine_readable.exit_code) == (0, 0)
    assert "ONNX Runtime" in text.output
    found = json.loads(machine_readable.output)
    for part in found["parts"]:
        assert part["advice"].replace(" ", "") in text.output.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("saturates", [False, True])
def test_the_cpu_line_says_what_full_range_weights_cost(saturates, monkeypatch):
    """Only where the kernels saturate, whatever /proc/cpuinfo lists; with the option that makes such weights."""
    monkeypatch.setattr(doctor, "kernels_saturate", lambda: saturates)
    text = " ".join(CliRunner().invoke(main, ["doctor"]).output.split())
    assert ("its INT8 kernels saturate on weights above 64" in text) == saturates
    assert ("(--no-reduce-range) run in exact arithmetic, about 1.5 times the time" in text) == saturates


def test_without_onnx_runtime_nothing_is_said_of_its_kernels(monkeypatch):
    """And the doctor goes on."""

    def missing():
        raise MachineError("pip install onnxruntime")

    monkeypatch.setattr(doctor, "kernels_saturate", missing)
    assert "saturate" not in doctor.survey().int8
