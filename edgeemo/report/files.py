"""Result files: written atomically, read back as their kind; no other file is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from edgeemo.artifact import check_writable, write_json
from edgeemo.errors import DataError, UsageError
from edgeemo.limits import check_shortage
from edgeemo.reading import read_json
from edgeemo.report.decode import decode
from edgeemo.report.result import FORMAT, KINDS, BenchResult, Result

R = TypeVar("R", bound=Result)
MAX_BYTES = 64 * 2**20  # the largest result in benchmarks/results has 0.6 MB


def write(result: Result, path: Path) -> None:
    """Write the JSON of a result, atomically."""
    write_json(path, result.to_json())


def read(path: Path) -> Result:
    """Read a result of any kind from a file.

    Raises:
        DataError: the file cannot be read, is not a result, has another format, or lacks a field.
    """
    return _read(path, "a result", BenchResult.made_by)


def read_as(kind: type[R], path: Path) -> R:
    """Read a result of this kind from a file; raise DataError for any other."""
    result = _read(path, _name_kind(kind.kind), kind.made_by)
    if not isinstance(result, kind):
        raise DataError(
            f"{path}: expected {_name_kind(kind.kind)}, found {_name_kind(result.kind)}; make one:  {kind.made_by}"
        )
    return result


def _read(path: Path, expected: str, made_by: str) -> Result:
    """Read a result; expected and made_by are for the error if the file has none."""
    content = _read_object(path, f"expected {expected}; make one:  {made_by}")
    kind = KINDS.get(str(content.get("kind")))
    if kind is None:
        raise DataError(f"{path}: expected {expected} of format {FORMAT}, found {_describe_other(content, made_by)}")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{path}: expected format {FORMAT}, found {_name_kind(kind.kind)} of format {content.get('format')}; "
            f"make it again:  {kind.made_by}"
        )
    values = {name: part for name, part in content.items() if name not in ("kind", "format")}
    return decode(kind, values, source=str(path), remedy=f"; make it again:  {kind.made_by}")


def page_path(result: Path) -> Path:
    """Return the path of a result file's Markdown page: model.int8.md for model.int8.json."""
    return result.with_name(f"{result.stem}.md")


def check_replaceable(path: Path, kind: type[Result], *, page: Path | None = None) -> None:
    """Check that a result of this kind may be written to `path`; call this before measuring.

    Args:
        path: of the result; an earlier result of the same kind may be replaced.
        kind: of the result.
        page: written next to it; if there is no result yet, the page must not exist either.

    Raises:
        UsageError: `path` or `page` is another file.
        MachineError: the folder is not writable.
    """
    if path.exists():
        foreign = path if _read_kind(path) != kind.kind else None
    else:
        foreign = page if page and page.exists() else None
    if foreign:
        raise UsageError(f"--out: {foreign} exists and is not a result of this command; choose another name")
    check_writable(path.parent)


def _read_kind(path: Path) -> object:
    try:
        return _read_object(path, "").get("kind")
    except DataError:
        return None


def _read_object(path: Path, expected: str) -> dict[str, Any]:
    """Read the JSON object in a file."""
    try:
        content = read_json(path, max_bytes=MAX_BYTES)
    except OSError as error:
        check_shortage(error)
        raise DataError(f"{path} cannot be read ({error.strerror}); {expected}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); {expected}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object; {expected}")
    return content


def _name_kind(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} result"


# Keys by which files of format 1, which did not record their kind, are recognised.
FORMAT_1 = {"gates": "bench", "min_agreement": "parity", "candidates": "search", "copies_across": "audit"}


def _describe_other(found: dict[str, Any], made_by: str) -> str:
    """Describe content that is not a result of this format, and the command that makes one."""
    kind = next((kind for key, kind in FORMAT_1.items() if key in found), "")
    if not kind and {"rows", "labels"} <= set(found):
        kind = "evaluation" if "machine" in found else "comparison"
    if kind:
        return f"{_name_kind(kind)} of format {found.get('format')}; make it again:  {KINDS[kind].made_by}"
    what = f"the kind {found['kind']!r}" if "kind" in found else f"other fields ({', '.join(sorted(found)[:4])})"
    return f"{what}; make one:  {made_by}"
