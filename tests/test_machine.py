"""Machine facts as reported by the kernel, for several boards, simulated by their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeemo import doctor, machine
from edgeemo.report.amounts import format_memory

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
