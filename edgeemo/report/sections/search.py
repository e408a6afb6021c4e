"""The table of a search: a row per candidate, and the choice."""

from __future__ import annotations

from edgeemo.report.result import Candidate, RefusedCandidate, SearchResult
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

HEAD = ("candidate", "ms p50", "ms p95", "accuracy %", "KB", "front", "verdict")
UNSTABLE = "some p95 are more than twice their p50: another process used the core; search on an idle machine"


def make_page(result: SearchResult) -> Page:
    """Make a page of all candidates, the most accurate first, each with its verdict; then the best."""
    table = Table("", HEAD, [_make_cells(row) for row in result.candidates], align="lrrrrll", style="wide")
    unstable = any(isinstance(row, Candidate) and row.latency.unstable for row in result.candidates)
    sentences = [*([UNSTABLE] if unstable else []), _describe_choice(result), *result.advice]
    return Page(title="Search", parts=[table, *sentences], facts=list_circumstances(result.header))


def _make_cells(row: Candidate | RefusedCandidate) -> tuple[str, ...]:
    if isinstance(row, RefusedCandidate):
        return (row.name, "", "", "", "", "", f"refused: {row.refused}")
    times = (f"{row.latency.ms_p50:.2f}", f"{row.latency.ms_p95:.2f}")
    cells = (f"{100 * row.accuracy:.2f}", f"{row.size_bytes / 1000:,.0f}", "*" if row.on_front else "")
    return (row.name, *times, *cells, row.verdict or "BEST")


def _describe_choice(result: SearchResult) -> str:
    limits = f"p95 <= {result.budget_ms:g} ms and valid accuracy >= {result.min_accuracy:g} %"
    choice = f"best for {limits}: {result.best}" if result.best else f"no candidate has {limits}"
    return choice + "; chosen on valid, so its accuracy there flatters a little"
