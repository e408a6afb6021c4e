"""Tables of an audit: labels, faults inside the splits, copies across them."""

from __future__ import annotations

from edgeemo.report.result import AuditResult, CopiesAcross, Interpretation, LabelError, SplitAudit
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

SHOWN = 10  # unreadable files, and label errors of a split, named
SHOWN_NAMES = 3  # files that are not used


def make_page(result: AuditResult) -> Page:
    """Make a page of label counts per split and protocol, faults, copies across splits, and unreadable files."""
    parts: list[Table | str] = [_make_interpretation_table(result.interpretation)] if result.interpretation else []
    parts += [_make_labels_table(result), _make_faults_table(result)]
    if result.copies_across:
        parts.append(_make_copies_table(result))
    if result.model:
        parts += _list_label_errors(result)
    unreadable = [line for split in result.splits for line in split.unreadable.values()]
    parts += [f"unreadable: {line}" for line in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        parts.append(f"… and {len(unreadable) - SHOWN} more unreadable files (all are in the JSON, --out FILE)")
    return Page(title=f"Audit of {result.data}", parts=parts, facts=list_circumstances(result.header))


def _make_interpretation_table(found: Interpretation) -> Table:
    rows = [("layout", found.layout), *((split, source) for split, source in found.splits.items())]
    rows += [(f"label {name}", label) for name, label in found.labels.items()]
    rows += [
        (what, f"{count}, such as {', '.join(examples[:SHOWN_NAMES])}" if count else "none")
        for what, count, examples in (
            ("files not used", found.unused, found.unused_examples),
            ("hidden and system files", found.passed_over, found.passed_over_examples),
        )
    ]
    return Table("how the files were read", ("part", "read as"), rows)


def _list_label_errors(result: AuditResult) -> list[Table | str]:
    """Return a table of the most certain label errors, and sentences on the others and on the model."""
    parts: list[Table | str] = []
    for split in result.splits:
        errors = split.label_errors or []
        rows = [
            (one.id, f"{one.label} {100 * one.label_probability:.1f} %", _format_suggestion(one))
            for one in errors[:SHOWN]
        ]
        title = f"probable label errors of {split.split} by {result.model}: {len(errors)} of {split.faces} faces"
        parts.append(Table(title, ("face", "label", "more probable"), rows) if rows else title)
    if any(len(split.label_errors or []) > SHOWN for split in result.splits):
        parts.append(f"At most {SHOWN} are shown; all are in the JSON (--out FILE).")
    return [*parts, result.caveat] if result.caveat else parts


def _format_suggestion(one: LabelError) -> str:
    return f"{one.suggested} {100 * one.suggested_probability:.1f} %"


def _make_labels_table(result: AuditResult) -> Table:
    columns = [(f"{found.split}\n{counts.protocol}", counts) for found in result.splits for counts in found.labels]
    rows = [(name, *(str(counts.faces[name]) for _, counts in columns)) for name in result.labels]
    rows.append(("dropped", *(str(counts.dropped) for _, counts in columns)))
    rows.append(("n", *(str(sum(counts.faces.values())) for _, counts in columns)))
    title = f"faces per label ({result.data}, label set {result.label_set})"
    return Table(title, ("label", *(head for head, _ in columns)), rows, total=True)


def _make_faults_table(result: AuditResult) -> Table:
    head = ("split", "faces", "unreadable", "ties", "exact repeats", "with another label", "near repeats")
    return Table("faults inside a split", head, [_make_faults_row(found) for found in result.splits])


def _make_faults_row(found: SplitAudit) -> tuple[str, ...]:
    faults = (found.unreadable, found.ties, found.exact_repeats, found.conflicts, found.near_repeats)
    return (found.split, str(found.faces), *(str(len(fault)) for fault in faults))


def _make_copies_table(result: AuditResult) -> Table:
    title = f"copies across splits (near: within {result.near_bits} of 64 bits, mirrored too)"
    head = ("faces of … that are also in …", "n", "exact", "exact %", "near", "near %", "other label")
    return Table(title, head, [_make_copies_row(row) for row in result.copies_across])


def _make_copies_row(row: CopiesAcross) -> tuple[str, ...]:
    counts = (len(row.exact), len(row.near))
    cells = [cell for count in counts for cell in (str(count), f"{100 * count / max(1, row.n):.1f}")]
    return (f"{row.split} in {row.other}", str(row.n), *cells, str(len(row.conflicts)))
