"""The circumstances of a measurement, as the last part of its page."""

from __future__ import annotations

from edgeemo.machine import Machine
from edgeemo.report.amounts import format_memory
from edgeemo.report.facts import Header


def list_circumstances(header: Header) -> dict[str, str]:
    """Return processor, system, time and versions, as far as the header records them."""
    machine = header.machine
    versions = [f"{name} {text}" for name, text in sorted(header.versions.items())]
    facts = {
        "processor": _describe_processor(machine) if machine else "",
        "system": _describe_system(machine, header.load_1min) if machine else "",
        "measured": header.measured_utc or "",
        "versions": ", ".join([f"edgeemo {header.edgeemo}", *versions] if header.edgeemo else versions),
    }
    return {name: text for name, text in facts.items() if text}


def _describe_processor(machine: Machine) -> str:
    known = machine.features is not None
    features = (
        (", ".join(machine.features or ()) or "no instructions for INT8") if known else "instruction sets unknown"
    )
    return f"{machine.processor}, {describe_cores(machine)}, {features}"


def describe_cores(machine: Machine) -> str:
    """Return the number of cores and, if there is one, the CPU quota."""
    quota = "" if machine.cpu_quota is None else f", of which a quota allows {machine.cpu_quota:g}"
    return f"{machine.cores} cores{quota}"


def _describe_system(machine: Machine, load_1min: float | None) -> str:
    load = "" if load_1min is None else f", load {load_1min} before the run"
    return f"{machine.system}, {format_memory(machine.memory_gib)}{load}"
