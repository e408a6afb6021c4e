"""Tables of an audit: labels, faults inside the splits, copies across them."""

from __future__ import annotations

from edgeemo.report.result import AuditResult, CopiesAcross, SplitAudit
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

SHOWN = 10  # unreadable files named


def make_page(result: AuditResult) -> Page:
    """Make a page of label counts per split and protocol, faults, copies across splits, and unreadable files."""
    parts: list[Table | str] = [_make_labels_table(result), _make_faults_table(result)]
    if result.copies_across:
        parts.append(_make_copies_table(result))
    unreadable = [line for split in result.splits for line in split.unreadable.values()]
    parts += [f"unreadable: {line}" for line in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        parts.append(f"… and {len(unreadable) - SHOWN} more unreadable files (all are in the JSON, --out FILE)")
    return Page(title=f"Audit of {result.data}", parts=parts, facts=list_circumstances(result.header))


def _make_labels_table(result: AuditResult) -> Table:
    columns = [(f"{found.split}\n{counts.protocol}", counts) for found in result.splits for counts in found.labels]
    rows = [(name, *(str(counts.faces[name]) for _, counts in columns)) for name in result.labels]
    rows.append(("dropped", *(str(counts.dropped) for _, counts in columns)))
    rows.append(("n", *(str(sum(counts.faces.values())) for _, counts in columns)))
    title = f"faces per label ({result.data}, label set {result.label_set})"
    return Table(title, ("label", *(head for head, _ in columns)), rows, total=True)


def _make_faults_table(result: AuditResult) -> Table:
    head = ("split", "faces", "unreadable", "ties", "exact repeats", "near repeats")
    return Table("faults inside a split", head, [_make_faults_row(found) for found in result.splits])


def _make_faults_row(found: SplitAudit) -> tuple[str, ...]:
    faults = (found.unreadable, found.ties, found.exact_repeats, found.near_repeats)
    return (found.split, str(found.faces), *(str(len(fault)) for fault in faults))


def _make_copies_table(result: AuditResult) -> Table:
    title = f"copies across splits (near: within {result.near_bits} of 64 bits, mirrored too)"
    head = ("faces of … that are also in …", "n", "exact", "exact %", "near", "near %")
    return Table(title, head, [_make_copies_row(row) for row in result.copies_across])


def _make_copies_row(row: CopiesAcross) -> tuple[str, ...]:
    counts = (len(row.exact), len(row.near))
    cells = [cell for count in counts for cell in (str(count), f"{100 * count / max(1, row.n):.1f}")]
    return (f"{row.split} in {row.other}", str(row.n), *cells)
