"""What this machine is: the facts that a measurement is worth nothing without. Standard library only."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SPEEDS_UP = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
CPUINFO = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")  # ARM kernels name the board there, and no processor in CPUINFO


@dataclass(frozen=True)
class Machine:
    """Processor, its instruction sets that matter to INT8 and bf16, cores we may use, memory and system."""

    processor: str  # or the board
    features: tuple[str, ...] | None  # None: the system does not tell them
    cores: int
    memory_gib: float
    system: str
    python: str


@cache
def this_machine() -> Machine:
    """The facts of the machine that runs this."""
    info = _cpuinfo()
    flags = info.get("flags") or info.get("Features")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return Machine(
        processor=info.get("model name") or _board() or platform.processor() or platform.machine(),
        features=tuple(name for name in SPEEDS_UP if name in flags.split()) if flags else None,
        cores=len(usable_cores()),
        memory_gib=round(memory / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )


def is_first_process() -> bool:
    """Whether this process writes and tells: the only one, or the first of those that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def is_jetson() -> bool:
    """Whether this is one of NVIDIA's boards, which bring their own TensorRT with JetPack."""
    return Path("/etc/nv_tegra_release").is_file()


def usable_cores() -> list[int]:
    """Numbers of the cores this process may run on; a container's quota of their time is not seen."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _board() -> str:
    return BOARD.read_text(encoding="utf-8").strip("\0\n") if BOARD.is_file() else ""


def _cpuinfo() -> dict[str, str]:
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0]
    lines = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
