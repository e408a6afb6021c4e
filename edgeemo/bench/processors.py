"""Run a model file as other processors would: older x86 kernels and ARM cores, masked or emulated on this machine.

x86 without VNNI, with AVX-512 or AVX2 alone: the instruction sets are hidden from ONNX Runtime (mask_cpuid.c) where
Linux and the processor allow it, which runs at full speed. Older x86, and AVX2 elsewhere: QEMU's user-mode emulation.
ARM: QEMU with a folder that holds Python and the packages for ARM64 (benchmarks/arm64_root.sh).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

import edgeemo
from edgeemo.errors import MachineError
from edgeemo.machine import this_machine
from edgeemo.runtime.advice import X86

MASK = Path(__file__).with_name("mask_cpuid.c")
UNSUPPORTED = 70  # exit code of mask_cpuid.c
MODULE = "edgeemo.bench.one_file"  # what runs in the child
INSTALL = "apt-get install qemu-user"


class BrokenChild(MachineError):
    """A process that ran as another processor and failed: a finding, not something that is missing."""


@dataclass(frozen=True)
class Processor:
    """A kind of processor, and how this machine can run code as if it were one."""

    name: str
    family: str  # x86 or arm: within x86 answers must be the same
    saturates: bool = False  # what its fast kernels do, which the child proves
    emulated: str = ""  # QEMU's name of the CPU; empty: QEMU 7.2 cannot emulate it
    masked: str = ""  # value of MASK_CPUID; empty: masking cannot make it
    needs: tuple[str, ...] = ()  # instruction sets that this machine must have for the mask


PROCESSORS = {
    one.name: one
    for one in (
        Processor("sse4.1", "x86", emulated="Nehalem"),
        Processor("avx2", "x86", saturates=True, emulated="max", masked="avx2", needs=("avx2",)),
        Processor("avx512", "x86", saturates=True, masked="avx512", needs=("avx512f",)),
        Processor("cortex-a53", "arm", emulated="cortex-a53"),
        Processor("cortex-a72", "arm", emulated="cortex-a72"),
        Processor("cortex-a76", "arm", emulated="cortex-a76"),
    )
}


@dataclass(frozen=True)
class Stand:
    """How to run a process as another processor: a command line, to be followed by arguments, and its environment."""

    how: str  # for the table: masked, qemu 7.2
    command: tuple[str, ...]
    added: dict[str, str] = field(default_factory=dict)  # to the environment

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process; a library that is preloaded here is of no use in an emulator."""
        own = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "MASK_CPUID")}
        return {**own, **self.added}


def logits_on(
    processor: Processor, model: Path, batch: np.ndarray, *, arm64_root: Path | None = None
) -> tuple[np.ndarray, str]:
    """(N, K) float32 logits of `model` for a batch as this processor's fast kernels give them, and how it was run.

    Without the exact arithmetic that edgeemo uses for files that could saturate: other hosts open the file without it.
    MachineError if this machine can neither mask nor emulate the processor; it says what to install. BrokenChild if it
    can, and the process fails or its kernels are not those of the processor.
    """
    with stand_in(processor, arm64_root=arm64_root) as stand, tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "batch.npy", Path(folder) / "logits.npy"
        np.save(given, batch)
        run(stand, str(model.resolve()), str(given), str(found), str(processor.saturates))
        if not found.is_file():
            raise BrokenChild(f"{stand.how}: the process ended without logits")
        return np.load(found, allow_pickle=False), stand.how


def run(stand: Stand, *arguments: str) -> None:
    """Run MODULE there; BrokenChild if it fails, MachineError if it cannot be started."""
    with tempfile.TemporaryDirectory() as folder:
        # This edgeemo and nothing beside it: site-packages hold libraries of this processor, not of the emulated one.
        (Path(folder) / "edgeemo").symlink_to(Path(edgeemo.__file__).resolve().parent)
        environment = {**stand.environment, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*stand.command, "-m", MODULE, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")  # noqa: S603
        except OSError as error:
            raise MachineError(f"{stand.command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BrokenChild(f"{stand.how}: the process ended with {done.returncode}: {last}")


@contextmanager
def stand_in(processor: Processor, *, arm64_root: Path | None = None) -> Iterator[Stand]:
    """The best way to stand in for a processor here; MachineError with what is missing if there is none."""
    if processor.family == "arm":
        yield _arm(processor, arm64_root)
        return
    if platform.machine() not in X86:
        raise MachineError(f"{processor.name} needs an x86 machine; this is {platform.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        yield _masked(processor, Path(folder)) or _emulated(processor)


def _masked(processor: Processor, folder: Path) -> Stand | None:
    """The processor with instruction sets hidden; None where that is not possible."""
    features = this_machine().features or ()
    if not processor.masked or set(processor.needs) - set(features) or platform.system() != "Linux":
        return None
    library = _compiled(folder)
    if not library:
        return None
    stand = Stand("masked", (sys.executable,), {"LD_PRELOAD": str(library), "MASK_CPUID": processor.masked})
    tried = subprocess.run([sys.executable, "-c", ""], check=False, env=stand.environment)
    return None if tried.returncode == UNSUPPORTED else stand


def _compiled(folder: Path) -> Path | None:
    """The mask as a shared library; None without a C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    library = folder / "mask_cpuid.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(MASK), "-ldl"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    return None if done.returncode else library


def _emulated(processor: Processor) -> Stand:
    if not processor.emulated:
        raise MachineError(
            f"{processor.name} cannot be emulated; to mask it, a processor with {' and '.join(processor.needs)}, Linux "
            "with CPUID faulting and a C compiler are needed"
        )
    emulator = _emulator("qemu-x86_64")
    return Stand(_version(emulator), (emulator, "-cpu", processor.emulated, sys.executable))


def _arm(processor: Processor, root: Path | None) -> Stand:
    if not root:
        raise MachineError(
            "ARM processors need --arm64-root, a folder with Python for ARM64.  "
            "Make one:  bash benchmarks/arm64_root.sh FOLDER"
        )
    python = root.resolve() / processor.emulated / "python"  # runs Python in QEMU as this core
    if not python.is_file():
        raise MachineError(f"{python} does not exist.  Make the folder:  bash benchmarks/arm64_root.sh FOLDER")
    return Stand(_version(_emulator("qemu-aarch64")), (str(python),))


def _emulator(name: str) -> str:
    found = shutil.which(name) or shutil.which(f"{name}-static")
    if not found:
        raise MachineError(f"{name} is not installed:  {INSTALL}")
    return found


@cache
def _version(emulator: str) -> str:
    """Its name and version, as qemu-x86_64 7.2.22."""
    done = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    return f"{Path(emulator).name} {done.stdout.split()[2]}"
