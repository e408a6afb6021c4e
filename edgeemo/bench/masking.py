"""Hide instruction sets from ONNX Runtime in a child process, so that it chooses the kernels of an older processor.

masked: CPUID faults for every library in the process (mask_cpuid.c); few processors but Intel's can do that.
patched: everywhere else, a copy of ONNX Runtime in which each CPUID is an undefined instruction that mask_cpuid.c
answers; NumPy has a variable for the same. Other libraries, such as torch, see the processor as it is.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("mask_cpuid.c")
UNSUPPORTED = 70  # exit code of mask_cpuid.c
CPUID, UNDEFINED = b"\x0f\xa2", b"\x0f\x0a"
PACKAGE = "onnxruntime"
NUMPY_HIDES = {  # NPY_DISABLE_CPU_FEATURES; names that this build of NumPy does not dispatch are ignored
    "avx2": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
    "avx512": "AVX512_CLX AVX512_ICL AVX512_SPR",
}
LOADED, EXECUTABLE = 1, 1  # type and flag of a segment
HEADER, SEGMENT = "<32xQ14xHH", "<IIQQQQ"  # of ELF64: what _to_offset reads, the rest skipped


@dataclass(frozen=True)
class Masked:
    """How to start Python with instruction sets hidden: variables for its environment, and packages to import first."""

    how: str  # masked or patched
    variables: dict[str, str]
    packages: Path | None = None


def mask(value: str, folder: Path) -> Masked | None:
    """Prepare a mask in `folder`, to hide what `value` of MASK_CPUID says; None if this machine can do neither."""
    library = _compile(folder)
    if not library:
        return None
    variables = {"LD_PRELOAD": str(library), "MASK_CPUID": value}
    if _works(variables):
        return Masked("masked", variables)
    if not _patch_package(folder):
        return None
    variables.update(MASK_CPUID_PATCHED="1", NPY_DISABLE_CPU_FEATURES=NUMPY_HIDES[value])
    return Masked("patched", variables, folder)


def _works(variables: dict[str, str]) -> bool:
    """Return whether CPUID can be made to fault here."""
    trial = subprocess.run([sys.executable, "-c", ""], check=False, env={**os.environ, **variables})
    return trial.returncode != UNSUPPORTED


def _compile(folder: Path) -> Path | None:
    """Compile the mask as a shared library; None without a C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    library = folder / "mask_cpuid.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    return None if done.returncode else library


def _patch_package(folder: Path) -> bool:
    """Copy ONNX Runtime to `folder` with every CPUID in its libraries replaced; False without objdump."""
    disassembler, found = shutil.which("objdump"), importlib.util.find_spec(PACKAGE)
    if not disassembler or not found or not found.submodule_search_locations:
        return False
    copy = folder / PACKAGE
    shutil.copytree(found.submodule_search_locations[0], copy, ignore=shutil.ignore_patterns("tools", "transformers"))
    for library in copy.rglob("*.so*"):
        installed = Path(found.submodule_search_locations[0]) / library.relative_to(copy)
        library.write_bytes(_patch(library.read_bytes(), _find_cpuid(disassembler, installed)))
    return True


@cache
def _find_cpuid(disassembler: str, library: Path) -> list[int]:
    """Return the virtual addresses of all CPUID instructions: the same two bytes occur inside other instructions."""
    command = [disassembler, "--disassemble", "--no-show-raw-insn", str(library)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return [int(address, 16) for address in re.findall(r"^ *([0-9a-f]+):\s+cpuid\b", listing, re.MULTILINE)]


def _patch(content: bytes, addresses: list[int]) -> bytes:
    """Return an ELF64 file with CPUID at these virtual addresses replaced by UNDEFINED."""
    patched = bytearray(content)
    for address in addresses:
        at = _to_offset(content, address)
        if patched[at : at + 2] != CPUID:
            raise ValueError(f"no CPUID at {at:#x}, the offset of address {address:#x}")
        patched[at : at + 2] = UNDEFINED
    return bytes(patched)


def _to_offset(content: bytes, address: int) -> int:
    """Return where in an ELF64 file the byte of a virtual address is."""
    table, size, count = struct.unpack_from(HEADER, content)
    for entry in range(table, table + size * count, size):
        kind, flags, offset, virtual, _, length = struct.unpack_from(SEGMENT, content, entry)
        if kind == LOADED and flags & EXECUTABLE and virtual <= address < virtual + length:
            return int(address - virtual + offset)
    raise ValueError(f"no segment has address {address:#x}")
