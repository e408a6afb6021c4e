"""Machine facts as reported by the kernel, for several boards, simulated by their files."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import results

from edgeemo import cli, control_groups, doctor, machine, stages
from edgeemo.report.amounts import format_memory
from edgeemo.report.decode import decode
from edgeemo.report.files import read, write
from edgeemo.report.sections.circumstances import describe_cores

PI_4 = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd crc32 cpuid\nCPU part\t: 0xd08\n\nprocessor\t: 1\n"
KIOSK = "processor\t: 0\nmodel name\t: A Xeon\nflags\t\t: sse2 avx2 avx512_vnni\n\n"


def simulate(monkeypatch: pytest.MonkeyPatch, folder: Path, *, cpuinfo: str = "", board: str = "") -> machine.Machine:
    """Return the facts of a machine whose kernel has these files; an empty one does not exist."""
    for name, text in (("CPUINFO", cpuinfo), ("BOARD", board)):
        file = folder / name
        if text:
            file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(machine, name, file)
    return machine.this_machine.__wrapped__()


def test_an_arm_board_is_identified_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Raspberry Pi 4 reports no processor, and has no instructions for fast INT8."""
    pi = simulate(monkeypatch, tmp_path, cpuinfo=PI_4, board="Raspberry Pi 4 Model B Rev 1.4\0")
    assert pi.processor == "Raspberry Pi 4 Model B Rev 1.4"
    assert pi.features == ()
    assert doctor.describe_int8(pi) == doctor.NO_INT8


def test_a_processor_is_identified_by_its_own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its instruction sets that are relevant."""
    kiosk = simulate(monkeypatch, tmp_path, cpuinfo=KIOSK, board="some board")
    assert (kiosk.processor, kiosk.features) == ("A Xeon", ("avx2", "avx512_vnni"))


def test_unreported_features_are_unknown_rather_than_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a Mac, which has none of these files."""
    mac = simulate(monkeypatch, tmp_path)
    assert mac.processor
    assert mac.features is None
    assert "does not report" in doctor.describe_int8(mac)


def test_memory_that_the_system_does_not_report_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not zero."""
    monkeypatch.delattr(machine.os, "sysconf")
    machine.this_machine.cache_clear()
    try:
        assert machine.this_machine().memory_gib is None
    finally:
        machine.this_machine.cache_clear()
    assert format_memory(None) == "unknown memory"


def simulate_groups(monkeypatch: pytest.MonkeyPatch, folder: Path, groups: str, **files: str) -> None:
    """Simulate the control groups of this process, eight cores, and files by name, with / as __ and . as _."""
    (folder / "cgroup").write_text(groups, encoding="utf-8")
    for name, text in files.items():
        file = folder / "mount" / name.replace("__", "/").replace("cpu_", "cpu.").replace("cpu.cpuacct", "cpu,cpuacct")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8")
    monkeypatch.setattr(control_groups, "OWN", folder / "cgroup")
    monkeypatch.setattr(control_groups, "MOUNT", folder / "mount")
    monkeypatch.setattr(machine, "_list_affinity", lambda: list(range(8)))


V1 = "4:cpu,cpuacct:/docker/1f2e\n3:cpuset:/\n0::/docker/1f2e\n"
QUOTAS: dict[str, tuple[str, dict[str, str], float | None, int]] = {
    "version 2": ("0::/\n", {"cpu_max": "200000 100000"}, 2.0, 2),
    "version 2, a part of a CPU": ("0::/\n", {"cpu_max": "150000 100000"}, 1.5, 2),
    "less than a CPU": ("0::/\n", {"cpu_max": "25000 100000"}, 0.25, 1),
    "no limit": ("0::/\n", {"cpu_max": "max 100000"}, None, 8),
    "more than there are": ("0::/\n", {"cpu_max": "1600000 100000"}, 16.0, 8),
    "nested, the lower one counts": (
        "0::/pod/c\n",
        {"pod__cpu_max": "300000 100000", "pod__c__cpu_max": "max 1"},
        3.0,
        3,
    ),
    "nested, the inner one is lower": ("0::/p/c\n", {"p__cpu_max": "300000 100000", "p__c__cpu_max": "1 1"}, 1.0, 1),
    "version 1": (
        V1,
        {
            "cpu_cpuacct__docker__1f2e__cpu_cfs_quota_us": "50000",
            "cpu_cpuacct__docker__1f2e__cpu_cfs_period_us": "10000",
        },
        5.0,
        5,
    ),
    "version 1 in a container": (V1, {"cpu__cpu_cfs_quota_us": "250000", "cpu__cpu_cfs_period_us": "100000"}, 2.5, 3),
    "version 1, no limit": (V1, {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, None, 8),
    "version 2 beside version 1": ("1:cpu:/\n0::/a\n", {"unified__a__cpu_max": "400000 100000"}, 4.0, 4),
    "damaged": ("0::/\n", {"cpu_max": "plenty"}, None, 8),
    "no control groups": ("", {}, None, 8),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_a_cpu_quota_limits_the_default_of_threads(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rounded up, at least one; the affinity still counts, and the facts of the machine have both."""
    groups, files, quota, threads = QUOTAS[case]
    simulate_groups(monkeypatch, tmp_path, groups, **files)
    assert machine.read_cpu_quota() == quota
    assert machine.usable_cores() == list(range(8))[-threads:]
    facts = machine.this_machine.__wrapped__()
    assert (facts.cores, facts.cpu_quota) == (8, quota)


def test_a_quota_is_in_the_file_of_a_result(tmp_path: Path) -> None:
    """And survives it; without one, the file is as before."""
    for quota in (1.5, None):
        header = replace(results.HEADER, machine=replace(results.HEADER.machine, cpu_quota=quota))
        write(results.bench(header=header), tmp_path / "bench.json")
        assert read(tmp_path / "bench.json").header == header
        assert ('"cpu_quota": 1.5' in (tmp_path / "bench.json").read_text()) == (quota is not None)


def test_a_quota_is_shown_with_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a result with one; an earlier result, which has not recorded it, is read as before."""
    simulate_groups(monkeypatch, tmp_path, "0::/\n", cpu_max="150000 100000")
    facts = machine.this_machine.__wrapped__()
    assert describe_cores(facts) == "8 cores, of which a quota allows 1.5"
    earlier = {name: fact for name, fact in asdict(facts).items() if name != "cpu_quota"}
    earlier["features"] = []
    assert describe_cores(decode(machine.Machine, earlier, source="a result")) == "8 cores"


@pytest.mark.parametrize(("given", "own", "expected"), [(None, None, "2"), (None, "5", "5"), (3, "5", "3")])
def test_openmp_is_told_the_quota_unless_the_user_has(
    given: int | None, own: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before torch is imported; --threads still decides."""
    simulate_groups(monkeypatch, tmp_path, "0::/\n", cpu_max="150000 100000")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    config = stages.Train(threads=given)
    cli._limit_threads(stages.stage_of(config), config)
    assert os.environ["OMP_NUM_THREADS"] == expected
    monkeypatch.delenv("OMP_NUM_THREADS")


def test_every_default_of_threads_counts_the_usable_cores() -> None:
    """No stage, and no timing, asks the system itself."""
    package = Path(machine.__file__).parent
    asking = [file for file in package.rglob("*.py") if re.search(r"cpu_count|getaffinity", file.read_text("utf-8"))]
    assert asking == [Path(machine.__file__)]
    using = {file.stem for file in package.rglob("*.py") if "len(usable_cores())" in file.read_text("utf-8")}
    assert using >= {"device", "evaluate", "explain", "plan"}
