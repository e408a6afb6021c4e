"""Result files: written whole, read back as what they are, and nothing else written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from edgeemo.artifact import check_writable, write_json
from edgeemo.errors import DataError, UsageError
from edgeemo.report.decode import decode
from edgeemo.report.result import FORMAT, KINDS, BenchResult, Result

R = TypeVar("R", bound=Result)


def write(result: Result, path: Path) -> None:
    """Write the JSON of a result, whole or not at all."""
    write_json(path, result.to_json())


def read(path: Path) -> Result:
    """The result in a file, of whatever kind.

    Raises:
        DataError: the file cannot be read, is no result, has another format, or lacks something.
    """
    return _read(path, "a result", BenchResult.made_by)


def read_as(kind: type[R], path: Path) -> R:
    """The result in a file, which must be of this kind; DataError otherwise."""
    found = _read(path, f"a {kind.kind} result", kind.made_by)
    if not isinstance(found, kind):
        raise DataError(
            f"{path}: expected a {kind.kind} result, found a {found.kind} result; make one:  {kind.made_by}"
        )
    return found


def _read(path: Path, expected: str, made_by: str) -> Result:
    """The result in a file; expected and made_by are for the error where there is no result at all."""
    found = _object_in(path, f"expected {expected}; make one:  {made_by}")
    kind = KINDS.get(str(found.get("kind")))
    if kind is None:
        raise DataError(f"{path}: expected {expected} of format {FORMAT}, found {_looks_like(found, made_by)}")
    if found.get("format") != FORMAT:
        raise DataError(
            f"{path}: expected format {FORMAT}, found a {kind.kind} result of format {found.get('format')}; make it "
            f"again:  {kind.made_by}"
        )
    content = {name: part for name, part in found.items() if name not in ("kind", "format")}
    return decode(kind, content, source=str(path), remedy=f"; make it again:  {kind.made_by}")


def page_path(result: Path) -> Path:
    """Where the Markdown page of a result file lies: model.int8.json has model.int8.md."""
    return result.with_name(f"{result.stem}.md")


def check_replaceable(path: Path, kind: type[Result], *, page: Path | None = None) -> None:
    """Make sure that a result of this kind may be written to `path`.  Call it before anything is measured.

    Args:
        path: where the result goes; an earlier result of the same kind there may be replaced.
        kind: of the result.
        page: what is written beside it; where there is no result yet, nothing may stand there either.

    Raises:
        UsageError: another file exists there.
        MachineError: nothing can be written there.
    """
    if path.exists():
        foreign = path if _kind_in(path) != kind.kind else None
    else:
        foreign = page if page and page.exists() else None
    if foreign:
        raise UsageError(f"--out: {foreign} exists and is not a result of this command; choose another name")
    check_writable(path.parent)


def _kind_in(path: Path) -> object:
    try:
        return _object_in(path, "").get("kind")
    except DataError:
        return None


def _object_in(path: Path, expected: str) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {expected}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); {expected}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object; {expected}")
    return found


# What a file of format 1, which did not say its kind, is recognised by.
FORMAT_1 = {"gates": "bench", "min_agreement": "parity", "candidates": "search", "copies_across": "audit"}


def _looks_like(found: dict[str, Any], made_by: str) -> str:
    """What was found instead of a result of this format, and the command that makes one."""
    kind = next((kind for key, kind in FORMAT_1.items() if key in found), "")
    if not kind and {"rows", "labels"} <= set(found):
        kind = "evaluation" if "machine" in found else "comparison"
    if kind:
        return f"a {kind} result of format {found.get('format')}; make it again:  {KINDS[kind].made_by}"
    what = f"the kind {found['kind']!r}" if "kind" in found else f"other fields ({', '.join(sorted(found)[:4])})"
    return f"{what}; make one:  {made_by}"
