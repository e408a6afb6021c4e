"""Memory that is available, as the kernel's files tell it, simulated."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from edgeemo import control_groups, memory

GB = 10**9


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The root of a simulated /sys/fs/cgroup, on a machine with 64 GB available and no limits."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_SIZE", tmp_path / "statm")
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path / "groups")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemFree:  1 kB\nMemAvailable:  62500000 kB\n", encoding="utf-8")
    (tmp_path / "groups").mkdir()
    return tmp_path / "groups"


def write_group(root: Path, own: str, line: str, **files: object) -> None:
    """Write the files of a control group; of their names, _ stands for a dot."""
    (root.parent / "cgroup").write_text(line, encoding="utf-8")
    (root / own).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / own / name.replace("memory_", "memory.", 1)).write_text(f"{content}\n", encoding="utf-8")


@pytest.mark.usefixtures("machine")
def test_without_limits_it_is_what_the_kernel_reports() -> None:
    """MemAvailable, in kB of 1024 bytes."""
    assert memory.available_memory() == 64 * GB


def test_a_container_has_what_its_limit_leaves(machine: Path) -> None:
    """Control groups of version 2; cached files do not count as used, because the kernel drops them."""
    stat = f"anon {5 * GB}\ninactive_file {2 * GB}\nactive_file {1 * GB}"
    write_group(machine, "a/b", "0::/a/b\n", memory_max=12 * GB, memory_current=8 * GB, memory_stat=stat)
    assert memory.available_memory() == 7 * GB


def test_a_limit_of_the_parent_applies(machine: Path) -> None:
    """Those of a systemd slice, or of a pod, stand above a group without one."""
    write_group(machine, "a", "", memory_max=6 * GB, memory_current=1 * GB, memory_stat="active_file 0")
    write_group(machine, "a/b", "0::/a/b\n", memory_max="max", memory_current=1 * GB, memory_stat="active_file 0")
    assert memory.available_memory() == 5 * GB


def test_the_root_counts_where_the_path_is_that_of_the_host(machine: Path) -> None:
    """Docker with control groups of version 1 mounts the container's own group as the root."""
    v1 = {"memory_limit_in_bytes": 3 * GB, "memory_usage_in_bytes": 2 * GB, "memory_stat": f"total_inactive_file {GB}"}
    write_group(machine, "memory", "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n", **v1)
    assert memory.available_memory() == 2 * GB


def test_more_used_than_allowed_leaves_nothing(machine: Path) -> None:
    """A limit that was lowered later."""
    write_group(machine, "a", "0::/a\n", memory_max=GB, memory_current=2 * GB, memory_stat="active_file 0")
    assert memory.available_memory() == 0


@pytest.mark.usefixtures("machine")
def test_the_limit_of_the_address_space_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit -v`, minus the pages that the process has."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * GB, resource.RLIM_INFINITY))
    monkeypatch.setattr(memory.os, "sysconf", lambda _: 4096)
    memory.OWN_SIZE.write_text(f"{GB // 4096} 7 7\n", encoding="utf-8")
    assert memory.available_memory() == pytest.approx(3 * GB, abs=4096)


def test_a_system_that_reports_nothing_is_unknown(machine: Path) -> None:
    """As macOS, which has none of these files."""
    (machine.parent / "meminfo").unlink()
    assert memory.available_memory() is None


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_960, "10 kB"),
        (6_900_000, "6.9 MB"),
        (999_600_000, "1.0 GB"),
        (60_211_200_000, "60 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_bytes_are_written_with_two_or_three_digits(count: int, text: str) -> None:
    """In decimal units, as disks are sold."""
    assert memory.format_bytes(count) == text
