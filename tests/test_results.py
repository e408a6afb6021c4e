"""The committed results are results, their pages are what the code makes of them, and a changed number is found."""

from __future__ import annotations

import json
from pathlib import Path

import backbones
import compare_results
import grid
import pytest
import readme

from edgeemo.errors import DataError
from edgeemo.report.facts import make_header
from edgeemo.report.files import read
from edgeemo.report.render import make_page
from edgeemo.report.result import Measurement

CARDS = sorted((readme.RESULTS / "models" / "teachers").glob("*.json"))
RESULTS = sorted(set(readme.RESULTS.rglob("*.json")) - set(CARDS))
SCRIPTS = {path.stem for path in Path(readme.__file__).parent.glob("*.py")}


def name_of(path: Path) -> str:
    return str(path.relative_to(readme.RESULTS))


@pytest.mark.parametrize("path", RESULTS, ids=name_of)
def test_every_committed_result_is_read_as_its_kind(path: Path) -> None:
    """Written again, it is the same file; of a script's, the script is there; each can be shown."""
    result = read(path)
    text = json.dumps(result.to_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == text
    assert not isinstance(result, Measurement) or result.script in SCRIPTS
    assert len(make_page(result).to_markdown().splitlines()) > 5


def test_the_teachers_cards_are_no_results() -> None:
    """They are refused, not shown as something else."""
    assert CARDS
    for path in CARDS:
        with pytest.raises(DataError, match="expected a result of format 2, found other fields"):
            read(path)


def test_every_page_beside_a_result_is_what_the_code_renders() -> None:
    """`make readme` would change none."""
    pages = dict(readme.result_pages())
    assert len(pages) > 20
    assert [name_of(path) for path, text in pages.items() if path.read_text(encoding="utf-8") != text] == []


def test_a_script_goes_on_with_the_rows_of_the_same_settings(tmp_path: Path) -> None:
    """What it wrote down is read back, and left out where settings differ."""
    out = tmp_path / "backbones.json"
    assert backbones.read_rows(out, {}) == []
    made = Measurement(header=make_header(), script="backbones", settings={"size": 48}, rows=[{"backbone": "edge_vgg"}])
    backbones.write_result(out, made, "a page")
    assert backbones.read_rows(out, {"size": 48}) == made.rows
    assert backbones.read_rows(out, {"size": 64}) == []
    assert out.with_suffix(".md").read_text(encoding="utf-8") == "a page"
    exports = {"edge_vgg": {"gap": 1e-6, "spread": 1.0}}
    cells = [{"backbone": "edge_vgg", "mode": "features", "first_loss": 2.0, "last_loss": 1.0}]
    about = {"faces": 96, "batch": 16, "epochs": 5, "pixels": 64}
    assert grid.write_result(out, about, cells, exports).facts["all_fall"]
    assert grid.read_cells(out, about) == (cells, exports)


OLD = {"format": 1, "machine": {"load_1min": 0.5}, "accuracy": {"n": 3, "split": "valid", "accuracy": 0.5}}
NEW = {
    "kind": "bench",
    "format": 2,
    "header": {"load_1min": 0.5, "measured_utc": None},
    "accuracy": {"n": 3, "accuracy": 0.5, "faces": {"split": "valid", "n": 3}},
}


def test_a_file_of_the_new_format_with_the_same_values_is_the_same() -> None:
    """Whatever their new places are called; also beside itself."""
    assert compare_results.differences(OLD, NEW) == []
    assert compare_results.differences(NEW, NEW) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"accuracy": {**NEW["accuracy"], "accuracy": 0.5000001}}, "accuracy.accuracy: 0.5 became 0.5000001"),
        ({"header": {}}, "header.load_1min: 0.5 became nothing"),
        ({"accuracy": {**NEW["accuracy"], "faces": {"split": "valid", "n": 4}}}, "accuracy.faces.n: 4 is new"),
        ({"size": 1}, "size: 1 is new"),
    ],
)
def test_a_changed_lost_or_new_number_is_a_difference(change: dict, says: str) -> None:
    """To the last digit."""
    assert compare_results.differences(OLD, {**NEW, **change}) == [says]
