"""A file gives the same logits on every x86 processor; one that does not is detected on this machine, by emulation."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from full_range import full_range

from edgeemo.bench import masking, parity, processors
from edgeemo.bench.processors import PROCESSORS, BrokenChild, make_launcher, run_on_processor
from edgeemo.card import read_card
from edgeemo.errors import MachineError, UsageError
from edgeemo.machine import this_machine
from edgeemo.runtime import shipped
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.golden import golden_batch
from edgeemo.runtime.probe import kernels_saturate
from edgeemo.stages import Parity

ROOT = Path(__file__).parents[2]
X86 = [name for name, one in PROCESSORS.items() if one.family == "x86"]


def logits_as(name: str, path: Path) -> np.ndarray:
    """(8, K) golden logits on that processor, or a skip with the reason."""
    try:
        return run_on_processor(PROCESSORS[name], path, golden_batch(read_card(path).input))[0]
    except BrokenChild:
        raise  # the processor can be had here, and running as it failed
    except MachineError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("processor", X86)
@pytest.mark.parametrize("model", shipped.NAMES)
def test_a_shipped_model_gives_the_same_logits_on_every_x86_processor(model: str, processor: str) -> None:
    """Those in its card, for the faces that come with edgeemo, but for the last float rounding."""
    path = shipped.find(model)
    expected = np.array(read_card(path).golden.logits)
    assert logits_as(processor, path) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("processor", ["avx2", "avx512"])
def test_full_range_weights_saturate_without_vnni(processor: str, tmp_path: Path) -> None:
    """The emulation shows the fault: logits are off by more than a tenth, and exact arithmetic is not."""
    path = full_range(tmp_path / "full.onnx")
    batch = golden_batch(read_card(path).input)
    exact = OnnxBackend(path, threads=1, exact=True).logits(batch)
    assert np.abs(logits_as(processor, path) - exact).max() > 0.1


def test_the_gate_passes_a_limited_model_and_fails_a_full_range_one(tmp_path: Path) -> None:
    """The same network twice, as AVX2 runs it; the verdict names the file and the processor."""
    try:
        with make_launcher(PROCESSORS["avx2"]):
            pass
    except MachineError as error:
        pytest.skip(str(error))
    files = [shipped.find("nano"), full_range(tmp_path / "full.onnx")]
    result = parity.run(Parity(models=files, data="synthetic:300", count=40, processors="avx2", min_agreement=0))
    ours, other = (row for row in result.rows if row.processor == "avx2")
    assert ours.passed
    assert ours.same_file.largest_logit_difference <= parity.SAME_LOGIT
    assert not other.passed
    assert result.verdict == "FAIL (full.onnx as avx2)"


def test_the_probe_measures_what_the_kernels_do() -> None:
    """Under QEMU /proc/cpuinfo still lists the host's VNNI; the probe sees the emulated processor."""
    if not shutil.which("qemu-x86_64"):
        pytest.skip(f"qemu-x86_64 is not installed:  {processors.INSTALL}")
    script = "from edgeemo.runtime.probe import kernels_saturate; print(kernels_saturate())"
    for name, expected in (("sse4.1", "False"), ("avx2", "True")):
        launcher = processors._emulate_x86(PROCESSORS[name])
        command = [*launcher.command, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=launcher.environment)
        assert done.stdout.strip() == expected


def test_a_patched_onnx_runtime_has_the_kernels_of_older_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where CPUID cannot be made to fault, as on most AMD processors and in many virtual machines."""
    if not this_machine().features or "avx2" not in this_machine().features or not shutil.which("objdump"):
        pytest.skip("an x86 processor with AVX2, Linux and objdump are needed")
    monkeypatch.setattr(masking, "_works", lambda _: False)
    masked = masking.mask("avx2", tmp_path)
    assert masked
    assert masked.how == "patched"
    script = (
        "import onnxruntime; from edgeemo.runtime.probe import kernels_saturate as probe;"
        "print(onnxruntime.__file__, probe())"
    )
    environment = {**os.environ, **masked.variables, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [str(tmp_path / "onnxruntime" / "__init__.py"), "True"]


def test_a_patch_at_a_wrong_address_is_an_error() -> None:
    """It would change another instruction."""
    header = struct.pack("<32xQ14xHH", 64, 56, 1).ljust(64, b"\0")
    library = header + struct.pack("<IIQQQQ", 1, 1, 120, 0x1000, 0, 8).ljust(56, b"\0") + b"\x90\x0f\xa2\x90"
    assert masking._patch(library, [0x1001]).endswith(b"\x90\x0f\x0a\x90")
    with pytest.raises(ValueError, match="no CPUID at 0x78, the offset of address 0x1000"):
        masking._patch(library, [0x1000])
    with pytest.raises(ValueError, match="no segment has address 0x2000"):
        masking._patch(library, [0x2000])


def test_a_processor_that_cannot_be_had_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a compiler nor QEMU, and no folder for ARM64."""
    monkeypatch.setattr(processors.shutil, "which", lambda _: None)
    batch = np.zeros((1, 1, 48, 48), np.float32)
    for name, words in {
        "avx2": "apt-get install qemu-user",
        "avx512": "C compiler",
        "cortex-a76": "--arm64-root",
    }.items():
        with pytest.raises(MachineError, match=words):
            run_on_processor(PROCESSORS[name], shipped.find("nano"), batch)


def test_a_python_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder for ARM64 from another machine."""
    (tmp_path / "cortex-a53").mkdir()
    (tmp_path / "cortex-a53" / "python").write_text("no program")
    monkeypatch.setattr(processors, "_find_emulator", lambda name: name)
    monkeypatch.setattr(processors, "_read_version", lambda name: name)
    with pytest.raises(MachineError, match="python cannot be started: Permission denied"):
        run_on_processor(PROCESSORS["cortex-a53"], shipped.find("nano"), np.zeros(1), arm64_root=tmp_path)


def test_a_process_without_logits_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it ends with 0."""
    monkeypatch.setattr(processors, "_mask_x86", lambda *_: processors.Launcher("true", ("true",)))
    with pytest.raises(BrokenChild, match="ended without logits"):
        run_on_processor(PROCESSORS["avx2"], shipped.find("nano"), np.zeros(1))


def test_a_process_sees_this_edgeemo_and_no_library_beside_it(tmp_path: Path) -> None:
    """A folder of packages for this processor, put first, would hide those of the emulated one."""
    seen = tmp_path / "seen"
    listing = f'ls "$PYTHONPATH" > {seen}; ls -L "$PYTHONPATH/edgeemo" >> {seen}'
    processors.run(processors.Launcher("a shell", ("sh", "-c", listing)))
    found = seen.read_text().split()
    assert found[0] == "edgeemo"
    assert "images.py" in found
    assert "numpy" not in found


def test_a_mask_of_another_name_is_refused(tmp_path: Path) -> None:
    """Not taken for the mildest."""
    library = masking._compile(tmp_path)
    if not library:
        pytest.skip("no C compiler is installed")
    done = subprocess.run(["true"], check=False, env={"LD_PRELOAD": str(library), "MASK_CPUID": "avx3"})
    assert done.returncode == masking.UNSUPPORTED


@pytest.mark.parametrize(("changed", "passed"), [(0, True), (1, False)])
def test_an_int8_file_must_name_the_same_labels_on_every_arm_core(
    changed: int, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One face of 40 is too much, though --min-agreement would allow it."""
    path = shipped.find("nano")

    def emulated(_: object, model: Path, batch: np.ndarray, **__: object) -> tuple[np.ndarray, str]:
        logits = OnnxBackend(model, threads=1).logits(batch)
        logits[:changed] *= -1
        return logits, "emulated"

    monkeypatch.setattr(parity, "run_on_processor", emulated)
    config = Parity(models=["nano"], data="synthetic:300", count=40, processors="cortex-a76", min_agreement=90)
    assert parity.run(replace(config, models=[path])).passed == passed


def test_an_unknown_processor_lists_the_known_ones() -> None:
    """And `all`."""
    with pytest.raises(UsageError, match=r"unknown processor 'z80'; known: sse4.1, avx2, .*, all"):
        parity.run(Parity(models=["nano"], data="synthetic:300", processors="z80"))


def test_a_mask_that_does_not_take_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the dynamic loader ignores the library: the child measures that its kernels are still this machine's."""
    if kernels_saturate():
        pytest.skip("this processor saturates by itself")
    monkeypatch.setattr(processors, "_mask_x86", lambda *_: processors.Launcher("unmasked", (sys.executable,)))
    result = parity.run(Parity(models=["nano"], data="synthetic:300", count=8, processors="avx2"))
    assert not result.passed
    assert result.verdict == "FAIL (nano.onnx as avx2)"
    with pytest.raises(BrokenChild, match="not hidden"):
        logits_as("avx2", shipped.find("nano"))


def test_a_named_processor_that_cannot_be_had_fails_and_all_may_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that was requested by name must run for the check to pass."""
    monkeypatch.setattr(processors.shutil, "which", lambda _: None)
    for names, passed in (("avx2,sse4.1", False), ("all", True)):
        result = parity.run(Parity(models=["nano"], data="synthetic:300", count=8, processors=names))
        assert result.passed == passed, names
    assert sum(row.processor is not None for row in result.rows) == len(PROCESSORS)
