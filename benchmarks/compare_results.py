"""Compare every value of every committed result with the same file in a git revision; exit 1 on any difference.

python benchmarks/compare_results.py REVISION

Results of format 1 are compared by the paths that their values have in format 2, which RENAMED lists. Numbers must be
the same to the last digit, and there may be no number that the revision does not have, except those in COPIED.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeemo.card import format1

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
CARDS = f"{RESULTS}/models/teachers/"  # cards, no results; compared as the card of format 2 that reading makes of them
MADE_BY_SCRIPT = {"cells": "rows", "kills": "rows", "models.base": "rows[0]", "models.nano": "rows[1]"}
MADE_BY_SCRIPT |= {"models.small": "rows[2]", "network": "settings.network", "as": "settings.as"}
MADE_BY_SCRIPT |= {name: f"settings.{name}" for name in ("command", "seed")}
KEPT_BY_SCRIPT = ("rows", "settings", "faces", "header")
# Paths of format 1 and of format 2, tried in this order; the first that fits is taken.
RENAMED = [
    (r"(edgeemo|measured_utc)", r"header.\1"),
    (r"versions\.(.+)", r"header.versions.\1"),
    (r"machine\.load_1min", "header.load_1min"),
    (r"machine\.(.+)", r"header.machine.\1"),
    (r"accuracy\.(data|split|protocol|ids_sha256)", r"accuracy.faces.\1"),
    (r"accuracy\.other_protocol\.(protocol|ids_sha256)", r"accuracy.other_protocol.faces.\1"),
    (r"(rows\[\d+\]\.against\[\d+\])\.stage", r"\1.name"),
]
LEFT_OUT = re.compile(r"format|kind|candidates\[\d+\]\.refused")
COPIED = {  # numbers that format 2 has twice
    "accuracy.faces.n": "accuracy.n",
    "accuracy.other_protocol.faces.n": "accuracy.other_protocol.n",
}


def main() -> None:
    """Compare all and report."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    (revision,) = sys.argv[1:]
    listed = _git("ls-tree", "-r", "--name-only", revision, RESULTS).splitlines()
    names = [name for name in listed if name.endswith(".json")]
    failed = values = 0
    for name in names:
        old = json.loads(_git("show", f"{revision}:{name}"))
        if not (ROOT / name).is_file():
            found = ["the file is gone"]
        else:
            new = json.loads((ROOT / name).read_text(encoding="utf-8"))
            found = differences(old, new, card=name.startswith(CARDS))
        values += len(dict(_leaves(old)))
        failed += bool(found)
        for line in found:
            print(f"{name}: {line}")
    print(
        f"{len(names)} files, {values:,} values of {revision}: {f'{failed} files differ' if failed else 'all the same'}"
    )
    sys.exit(1 if failed else 0)


def differences(old: dict[str, Any], new: dict[str, Any], *, card: bool = False) -> list[str]:
    """Return a line for each value of the old file that the new one lacks or changes, and for each new number."""
    if card and old.get("format") != new.get("format"):
        old, new = ({**content, "seal": None, "format": None} for content in (format1.upgrade(old), new))
    before, after = dict(_leaves(old)), dict(_leaves(new))
    if not card and old.get("format") != new.get("format"):
        script = new.get("kind") == "measurement"
        before = {_renamed(at, script=script): value for at, value in before.items()}
    lines = [
        f"{at}: {value} became {after.get(at, 'nothing')}"
        for at, value in before.items()
        if value != after.get(at) and not (LEFT_OUT.fullmatch(at) and at not in after) and at not in ("format", "kind")
    ]
    for at, value in after.items():
        if at not in before and _is_number(value) and at != "format" and after.get(COPIED.get(at, "")) != value:
            lines.append(f"{at}: {value} is new")
    return lines


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value as JSON with its path, as rows[2].recall.fear; null is not a value."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{at}[{number}]")
    elif value is not None:
        yield at, json.dumps(value, ensure_ascii=False)


def _renamed(at: str, *, script: bool) -> str:
    for pattern, now in RENAMED:
        if re.fullmatch(pattern, at):
            return re.sub(pattern, now, at)
    if not script:
        return at
    for before, now in MADE_BY_SCRIPT.items():
        if re.match(rf"{re.escape(before)}(\.|\[|$)", at):
            return now + at.removeprefix(before)
    return at if re.match(rf"({'|'.join(KEPT_BY_SCRIPT)})\b", at) or LEFT_OUT.fullmatch(at) else f"facts.{at}"


def _is_number(text: str) -> bool:
    return text not in ("true", "false") and not text.startswith('"')


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S607


if __name__ == "__main__":
    main()
