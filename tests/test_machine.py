"""What a machine is, as its kernel tells: boards of several kinds, played by the files that they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeemo import doctor, machine

PI_4 = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd crc32 cpuid\nCPU part\t: 0xd08\n\nprocessor\t: 1\n"
KIOSK = "processor\t: 0\nmodel name\t: A Xeon\nflags\t\t: sse2 avx2 avx512_vnni\n\n"


def on(monkeypatch: pytest.MonkeyPatch, folder: Path, *, cpuinfo: str = "", board: str = "") -> machine.Machine:
    """The facts of a machine whose kernel shows these files; one that is empty is not there."""
    for name, text in (("CPUINFO", cpuinfo), ("BOARD", board)):
        file = folder / name
        if text:
            file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(machine, name, file)
    return machine.this_machine.__wrapped__()


def test_an_arm_board_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Raspberry Pi 4 names no processor, and has no instructions that make INT8 fast."""
    pi = on(monkeypatch, tmp_path, cpuinfo=PI_4, board="Raspberry Pi 4 Model B Rev 1.4\0")
    assert pi.processor == "Raspberry Pi 4 Model B Rev 1.4"
    assert pi.features == ()
    assert doctor.int8_on(pi) == doctor.SLOW


def test_a_processor_is_told_by_its_own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With those of its instructions that matter."""
    kiosk = on(monkeypatch, tmp_path, cpuinfo=KIOSK, board="some board")
    assert (kiosk.processor, kiosk.features) == ("A Xeon", ("avx2", "avx512_vnni"))


def test_a_system_that_tells_nothing_is_not_said_to_lack_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Mac has none of these files."""
    mac = on(monkeypatch, tmp_path)
    assert mac.processor
    assert mac.features is None
    assert "does not tell" in doctor.int8_on(mac)
