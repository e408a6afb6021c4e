"""Pages of a doctor result and of a check of models."""

from __future__ import annotations

from edgeemo.report.amounts import format_memory
from edgeemo.report.result import CheckedModel, CheckResult, DoctorResult, GpuFacts, Part
from edgeemo.report.sections.circumstances import describe_cores, list_circumstances
from edgeemo.report.table import Page, Table


def make_page(result: DoctorResult) -> Page:
    """Make a page of the machine, a row per engine, and what to install."""
    advice = (f"{part.name}: {part.advice}" for part in result.parts if part.advice)
    engines = Table(
        "", ("engine", "runs", "builds", "version"), list(map(_make_cells, result.parts)), "", "llll", "compact"
    )
    lines = [_describe_machine(result), f"CPU: {result.int8}", f"GPU: {_describe_gpu(result.gpu)}"]
    return Page(
        title="Engines of this machine", parts=[*lines, engines, *advice], facts=list_circumstances(result.header)
    )


def make_check_page(result: CheckResult) -> Page:
    """Make a page with a row per model, its failures, and the verdict."""
    head = ("model", "same labels", "largest difference", "p50 / p95 ms", "result")
    table = Table("", head, [_check_cells(row) for row in result.models], style="compact")
    failures = [f"{row.file}: {sentence}" for row in result.models for sentence in row.failures]
    return Page(
        title="Check of models",
        parts=[table, *failures],
        verdict="PASS" if result.passed else "FAIL",
        passed=result.passed,
        facts=list_circumstances(result.header),
    )


def _describe_machine(result: DoctorResult) -> str:
    machine = result.header.machine
    if not machine:
        return "machine not recorded"
    facts = f"{describe_cores(machine)}, {format_memory(machine.memory_gib)}, {machine.system}, Python {machine.python}"
    return f"{machine.processor}, {facts}"


def _describe_gpu(gpu: GpuFacts | None) -> str:
    return f"{gpu.name}, compute capability {gpu.capability}, CUDA {gpu.driver}" if gpu else "none"


def _make_cells(part: Part) -> tuple[str, ...]:
    return (part.name, "yes" if part.runs else "no", "yes" if part.builds else "no", part.version or "-")


def _check_cells(row: CheckedModel) -> tuple[str, ...]:
    golden = row.golden
    same = f"{golden.faces - golden.changed} of {golden.faces}" if golden else "-"
    largest = f"{golden.largest:.5f}" if golden else "-"
    return (row.file, same, largest, f"{row.ms_p50:.3f} / {row.ms_p95:.3f}", "FAIL" if row.failures else "pass")
