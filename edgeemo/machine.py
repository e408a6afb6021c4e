"""Facts about this machine, recorded with every measurement. Standard library only."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

from edgeemo.control_groups import list_control_groups, read_text
from edgeemo.errors import UsageError

RELEVANT_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
CPUINFO = Path("/proc/cpuinfo")
MAX_THREADS = 1024  # of a stage or a model; more is a mistake
BOARD = Path("/proc/device-tree/model")  # ARM kernels give the board here, and no processor in CPUINFO


@dataclass(frozen=True)
class Machine:
    """Processor, its instruction sets relevant to INT8 and bf16, cores that it may run on, memory and system."""

    processor: str  # or the board
    features: tuple[str, ...] | None  # None: the system does not report them
    cores: int
    memory_gib: float | None  # None: the system does not report it
    system: str
    python: str
    cpu_quota: float | None = None  # CPUs that a container may use; None: no limit, or not recorded


@cache
def this_machine() -> Machine:
    """Return the facts of this machine."""
    info = _read_cpuinfo()
    flags = info.get("flags") or info.get("Features")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return Machine(
        processor=info.get("model name") or _read_board() or platform.processor() or platform.machine(),
        features=tuple(name for name in RELEVANT_FEATURES if name in flags.split()) if flags else None,
        cores=len(_list_affinity()),
        memory_gib=None if memory is None else round(memory / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        cpu_quota=read_cpu_quota(),
    )


def is_first_process() -> bool:
    """Return whether this is the process that writes files and logs: the only one, or the first of torchrun's."""
    return int(os.environ.get("RANK", "0")) == 0


def is_jetson() -> bool:
    """Return whether this is an NVIDIA Jetson, where TensorRT comes with JetPack."""
    return Path("/etc/nv_tegra_release").is_file()


def check_threads(threads: object) -> None:
    """Raise UsageError for what is no number of threads, 1 to MAX_THREADS."""
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads is {threads!r}; expected a whole number, 1 to {MAX_THREADS}")


def usable_cores() -> list[int]:
    """Return the cores that this process may keep busy: those of its affinity, as many as its CPU quota allows.

    A quota of 1.5 CPUs allows two cores: with one, a third of it could never be used. The last cores are returned.
    """
    cores = _list_affinity()
    quota = read_cpu_quota()
    return cores if quota is None else cores[-max(1, ceil(quota)) :]


def read_cpu_quota() -> float | None:
    """Return how many CPUs the control groups of this process allow it, as 1.5; None without a limit.

    The lowest limit of the process's group and those above it counts. Read from cpu.max (control groups of version 2)
    and from cpu.cfs_quota_us and cpu.cfs_period_us (version 1, Linux's Documentation/scheduler/sched-bwc.rst).
    """
    limits = [limit for folder in list_control_groups("cpu") if (limit := _read_limit(folder)) is not None]
    return min(limits, default=None)


def _list_affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _read_limit(group: Path) -> float | None:
    """Return the CPUs that a control group allows; None without a limit or a readable file."""
    quota, _, period = read_text(group / "cpu.max").partition(" ")
    quota = quota or read_text(group / "cpu.cfs_quota_us")
    try:
        limit = int(quota) / int(period or read_text(group / "cpu.cfs_period_us"))
    except (ValueError, ZeroDivisionError):  # "max", or neither file
        return None
    return limit if limit > 0 else None  # -1: no limit


def _read_board() -> str:
    return BOARD.read_text(encoding="utf-8").strip("\0\n") if BOARD.is_file() else ""


def _read_cpuinfo() -> dict[str, str]:
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0]
    lines = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
