"""Write committed cards again in the newest format and layout; model files are not touched.

python benchmarks/rewrite_cards.py [CARD.json...]      (without names: the shipped models' and their teachers')

A card of an older format is converted as reading converts it, and sealed again. Nothing is evaluated: every number
stays as it was measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgeemo.card.files import parse_card, write_sealed
from edgeemo.runtime import shipped

TEACHERS = Path(__file__).parent / "results" / "models" / "teachers"


def main() -> None:
    """Rewrite each card in place."""
    named = [Path(name) for name in sys.argv[1:]]
    for path in named or [*sorted(shipped.FOLDER.glob("*.json")), *sorted(TEACHERS.glob("*.json"))]:
        write_sealed(path, parse_card(path))
        print(f"{path}: {len(path.read_text(encoding='utf-8').splitlines())} lines")


if __name__ == "__main__":
    main()
