"""Run a model file as other processors would: older x86 kernels and ARM cores, masked or emulated on this machine.

x86 without VNNI, with AVX-512 or AVX2 alone: the instruction sets are hidden from ONNX Runtime (masking.py) on Linux
with a C compiler, which runs at full speed. Older x86, and AVX2 elsewhere: QEMU's user-mode emulation.
ARM: QEMU with a folder of Python and packages for ARM64 (benchmarks/arm64_root.sh).
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
from edgeemo.bench import masking
from edgeemo.errors import MachineError
from edgeemo.machine import this_machine
from edgeemo.runtime.advice import X86

MODULE = "edgeemo.bench.one_file"  # the child process
INSTALL = "apt-get install qemu-user"


class BrokenChild(MachineError):
    """A process that ran as another processor and failed: a finding, not a missing dependency."""


@dataclass(frozen=True)
class Processor:
    """A kind of processor, and how this machine can mask or emulate it."""

    name: str
    family: str  # x86 or arm: between x86 processors logits must be equal
    saturates: bool = False  # its fast kernels do; the child verifies it
    qemu_cpu: str = ""  # QEMU's name of the CPU; empty: QEMU 7.2 cannot emulate it
    mask: str = ""  # value of MASK_CPUID; empty: it cannot be masked
    needs: tuple[str, ...] = ()  # instruction sets that this machine must have for the mask


PROCESSORS = {
    one.name: one
    for one in (
        Processor("sse4.1", "x86", qemu_cpu="Nehalem"),
        Processor("avx2", "x86", saturates=True, qemu_cpu="max", mask="avx2", needs=("avx2",)),
        Processor("avx512", "x86", saturates=True, mask="avx512", needs=("avx512f",)),
        Processor("cortex-a53", "arm", qemu_cpu="cortex-a53"),
        Processor("cortex-a72", "arm", qemu_cpu="cortex-a72"),
        Processor("cortex-a76", "arm", qemu_cpu="cortex-a76"),
    )
}


@dataclass(frozen=True)
class Launcher:
    """How to run Python as another processor: the start of a command line, and its environment."""

    how: str  # for the table: masked, patched, qemu-x86_64 7.2.22
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)  # added to the environment
    packages: Path | None = None  # folder of packages to import before the installed ones

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process, without a library that is preloaded here: an emulator cannot load it."""
        mask = ("LD_PRELOAD", "MASK_CPUID")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(mask)}
        paths = [str(self.packages or ""), inherited.get("PYTHONPATH", "")]
        return {**inherited, **self.variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_on_processor(
    processor: Processor, model: Path, batch: np.ndarray, *, arm64_root: Path | None = None
) -> tuple[np.ndarray, str]:
    """Run `model` on a batch as this processor's fast kernels do; return (N, K) float32 logits and how it was run.

    Without the exact arithmetic that edgeemo uses for files that could saturate: other hosts open the file without it.
    Raises MachineError, with what to install, if this machine can neither mask nor emulate the processor; BrokenChild
    if it can, but the process fails or its kernels are not those of the processor.
    """
    with make_launcher(processor, arm64_root=arm64_root) as launcher, tempfile.TemporaryDirectory() as folder:
        inputs, logits = Path(folder) / "batch.npy", Path(folder) / "logits.npy"
        np.save(inputs, batch)
        run(launcher, str(model.resolve()), str(inputs), str(logits), str(processor.saturates))
        if not logits.is_file():
            raise BrokenChild(f"{launcher.how}: the process ended without logits")
        return np.load(logits, allow_pickle=False), launcher.how


def run(launcher: Launcher, *arguments: str) -> None:
    """Run MODULE with the launcher; raise BrokenChild if it fails, MachineError if it cannot be started."""
    with tempfile.TemporaryDirectory() as folder:
        # Only edgeemo: the rest of site-packages holds libraries for this processor, not for the emulated one.
        (Path(folder) / "edgeemo").symlink_to(Path(edgeemo.__file__).resolve().parent)
        paths = [folder, str(launcher.packages or "")]
        environment = {**launcher.environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment["PYTHONIOENCODING"] = "utf-8:backslashreplace"
        command = [*launcher.command, "-m", MODULE, *arguments]
        try:
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environment, cwd="/"
            )
        except OSError as error:
            raise MachineError(f"{launcher.command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BrokenChild(f"{launcher.how}: the process ended with {done.returncode}: {last}")


@contextmanager
def make_launcher(processor: Processor, *, arm64_root: Path | None = None) -> Iterator[Launcher]:
    """Yield the best launcher for a processor on this machine; raise MachineError with what is missing for one."""
    if processor.family == "arm":
        yield _emulate_arm(processor, arm64_root)
        return
    if platform.machine() not in X86:
        raise MachineError(f"{processor.name} needs an x86 machine; this is {platform.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        yield _mask_x86(processor, Path(folder)) or _emulate_x86(processor)


def _mask_x86(processor: Processor, folder: Path) -> Launcher | None:
    """Hide instruction sets of this processor from all libraries, or from ONNX Runtime alone; None if neither works."""
    features = this_machine().features or ()
    if not processor.mask or set(processor.needs) - set(features) or platform.system() != "Linux":
        return None
    masked = masking.mask(processor.mask, folder)
    return Launcher(masked.how, (sys.executable,), masked.variables, masked.packages) if masked else None


def _emulate_x86(processor: Processor) -> Launcher:
    if not processor.qemu_cpu:
        raise MachineError(
            f"{processor.name} cannot be emulated; to mask it, a processor with {' and '.join(processor.needs)}, Linux "
            "and a C compiler with objdump are needed"
        )
    emulator = _find_emulator("qemu-x86_64")
    return Launcher(_read_version(emulator), (emulator, "-cpu", processor.qemu_cpu, sys.executable))


def _emulate_arm(processor: Processor, root: Path | None) -> Launcher:
    if not root:
        raise MachineError(
            "ARM processors need --arm64-root, a folder with Python for ARM64.  "
            "Make one:  bash benchmarks/arm64_root.sh FOLDER"
        )
    python = root.resolve() / processor.qemu_cpu / "python"  # runs Python in QEMU as this core
    if not python.is_file():
        raise MachineError(f"{python} does not exist.  Make the folder:  bash benchmarks/arm64_root.sh FOLDER")
    return Launcher(_read_version(_find_emulator("qemu-aarch64")), (str(python),))


def _find_emulator(name: str) -> str:
    path = shutil.which(name) or shutil.which(f"{name}-static")
    if not path:
        raise MachineError(f"{name} is not installed:  {INSTALL}")
    return path


@cache
def _read_version(emulator: str) -> str:
    """Return name and version of an emulator, as in qemu-x86_64 7.2.22."""
    done = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    return f"{Path(emulator).name} {done.stdout.split()[2]}"
