"""The search measures candidates, chooses within the budget, explains each rejection, and can be resumed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import results
from rich.console import Console

from edgeemo.artifact import lock_folder
from edgeemo.card import read_card
from edgeemo.compress import plan, search
from edgeemo.errors import DataError, EdgeemoError, GateError, UsageError
from edgeemo.report.files import read, read_as
from edgeemo.report.render import show
from edgeemo.report.result import Candidate, RefusedCandidate, SearchResult
from edgeemo.runtime import load
from edgeemo.stages import Search
from edgeemo.train import fit

ROWS = [
    results.candidate(0.0, 9.0, 0.90),
    results.candidate(0.1, 4.0, 0.86),
    results.candidate(0.2, 3.0, 0.86),
    results.candidate(0.3, 2.0, 0.82),
    results.candidate(0.4, 2.5, 0.70),
    RefusedCandidate(prune=0.5, size=0, precision="int8", refused="only 40 % of the multiply-adds are in integers"),
]


def choose(**settings: Any) -> SearchResult:
    return search.choose(ROWS, Search(**{"run": "runs/any", "budget_ms": 5.0, "min_accuracy": 80.0, **settings}), {})


def list_measured(result: SearchResult) -> list[Candidate]:
    return [candidate for candidate in result.candidates if isinstance(candidate, Candidate)]


def verdicts(result: SearchResult) -> dict[float, str]:
    return {candidate.prune: candidate.verdict for candidate in list_measured(result)}


def shown(result: SearchResult) -> str:
    """Return the result as printed, without line wrapping."""
    console = Console(width=40, file=(screen := StringIO()))
    show(result, console)
    return screen.getvalue()


def test_the_most_accurate_within_the_budget_is_chosen_and_the_faster_of_equals() -> None:
    """Two have 86 %; the one with 3 ms is chosen, and the other has the reason."""
    result = choose()
    assert result.best == "prune-20-int8"
    assert verdicts(result)[0.1] == "meets both, but prune-20-int8 is more accurate or as accurate and faster"


def test_every_other_candidate_has_a_reason() -> None:
    """Milliseconds over the budget, points below the minimum, or the error."""
    reasons = verdicts(choose())
    assert reasons[0.0] == "4.00 ms over the budget"
    assert reasons[0.4] == "10.00 points below the floor"
    assert "prune-50-int8" in shown(choose()).splitlines()[-2]
    assert "refused: only 40 % of the multiply-adds are in integers" in shown(choose()).splitlines()[-2]


def test_both_reasons_are_reported() -> None:
    """Too slow and not accurate enough."""
    assert (
        verdicts(choose(budget_ms=1.0, min_accuracy=95.0))[0.3]
        == "1.00 ms over the budget, 13.00 points below the floor"
    )


def test_an_empty_budget_is_reported() -> None:
    """There is no best candidate, and the table says so."""
    result = choose(budget_ms=0.5)
    assert result.best is None
    assert "no candidate has p95 <= 0.5 ms and valid accuracy >= 80 %" in shown(result)


def test_the_front_is_pareto_optimal() -> None:
    """9 ms with 90 %, 3 ms with 86 %, 2 ms with 82 %."""
    front = {candidate.prune for candidate in list_measured(choose()) if candidate.on_front}
    assert front == {0.0, 0.2, 0.3}


def run_search(config: Search) -> SearchResult:
    """Run a search and read its result, whether a candidate meets the gates or not."""
    with suppress(GateError):
        search.run(config)
    return read_as(SearchResult, Path(str(config.out)) / search.RESULT)


@pytest.fixture(scope="module")
def small(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    out = tmp_path_factory.mktemp("search")
    settings = {"budget_ms": 10_000.0, "max_prune": 0.1, "calibration_count": 64, "rounding": "nearest"}
    settings |= dict.fromkeys(("min_accuracy", "min_agreement", "min_int8_share"), 0.0)  # on any processor
    return Search(run=str(trained), out=str(out), trials=3, epochs=1, threads=1, **settings)


@pytest.fixture(scope="module")
def result(small: Search) -> SearchResult:
    return run_search(small)


def test_candidates_are_compressed_and_measured(result: SearchResult, small: Search) -> None:
    """Three of the four points of the space, each with latency samples, accuracy and file."""
    assert len(result.candidates) == 3
    for candidate in result.candidates:
        assert len(candidate.latency.samples_us.split()) == candidate.latency.n >= 200
        assert (Path(small.out) / candidate.file).is_file()
    assert read(Path(small.out) / "search.json") == result
    assert (Path(small.out) / "search.png").stat().st_size > 5000


def test_the_best_model_is_copied(result: SearchResult, small: Search) -> None:
    """The runtime opens it, and its card marks it as selected on its evaluation faces."""
    assert result.best
    (path,) = (Path(small.out) / "best").glob("*.onnx")
    with load(path) as model:
        assert model.card.labels[0] == "neutral"
        assert model.card.metrics["valid"].selected_on_valid is True


def test_two_searches_cannot_share_a_folder(small: Search, tmp_path: Path) -> None:
    """They would measure each other's load, and copy each other's best; nothing is written."""
    with lock_folder(tmp_path), pytest.raises(UsageError, match="another process is writing to"):
        search.run(replace(small, out=str(tmp_path)))
    assert not list(tmp_path.glob("[!.]*"))


@pytest.fixture
def stopped(result: SearchResult, small: Search, tmp_path: Path) -> Search:
    """A copy of the search after three of four points."""
    folder = tmp_path / "search"
    shutil.copytree(Path(small.out), folder)
    assert result.best
    return replace(small, out=str(folder))


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of the candidates that are compressed from now on."""
    folders: list[str] = []
    compress = search.compress
    monkeypatch.setattr(search, "compress", lambda config: folders.append(config.out) or compress(config))
    return folders


def test_a_search_is_resumed(result: SearchResult, stopped: Search, compressed: list[str]) -> None:
    """With one more trial, one more candidate is compressed; the rows of the others do not change."""
    again = run_search(replace(stopped, trials=99))
    assert len(compressed) == 1
    assert len(again.candidates) == 4
    before, after = ({row.latency.samples_us for row in rows.candidates} for rows in (result, again))
    assert before < after


def test_a_search_of_a_moved_run_on_moved_faces_is_resumed(tmp_path: Path, trained: Path) -> None:
    """Faces are known by their ids, run and teacher by the hashes of their weights; other faces are refused."""
    for name in ("here", "there"):
        shutil.copytree(trained, tmp_path / name)
    card = read_card(trained / "model.safetensors")
    first, moved = (Search(run=tmp_path / name, teacher=(tmp_path / name,)) for name in ("here", "there"))
    search._check_same_search(tmp_path, search._make_identity(first, card))
    search._check_same_search(tmp_path, search._make_identity(moved, card))
    with pytest.raises(UsageError, match="other settings of train, valid;"):
        search._check_same_search(tmp_path, search._make_identity(replace(moved, data="synthetic:60"), card))


def test_an_interrupted_fine_tuning_is_resumed(small: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the first of a candidate's two epochs, the search trains the second only."""
    config = replace(small, out=str(tmp_path), epochs=2, trials=99, precisions="float32")
    train, epochs = fit.train_epoch, []

    def train_epoch(context: Any, state: Any) -> dict[str, Any]:
        if epochs == [0]:
            epochs.append(-1)
            raise KeyboardInterrupt
        epochs.append(state.epoch)
        return train(context, state)

    monkeypatch.setattr(fit, "train_epoch", train_epoch)
    with pytest.raises(KeyboardInterrupt):
        search.run(config)
    assert len(run_search(config).candidates) == 2
    assert epochs == [0, -1, 1]


@pytest.mark.parametrize(
    ("change", "rows"), [({"max_prune": 0.2}, 4), ({"max_prune": 0.0}, 2), ({"precisions": "int8"}, 2)]
)
def test_a_search_is_resumed_in_a_wider_or_narrower_space(
    change: dict[str, Any], rows: int, result: SearchResult, stopped: Search, compressed: list[str]
) -> None:
    """Rows in the new space are kept, although an Optuna study has one list of values per parameter."""
    for row in result.candidates:
        if (row.prune, row.precision) == (0.0, "int8"):  # in every space
            (Path(stopped.out) / row.file).unlink()
    again = run_search(replace(stopped, trials=rows, **change))
    assert len(again.candidates) == rows
    assert compressed
    earlier = {row.latency.samples_us for row in result.candidates}
    assert earlier & {row.latency.samples_us for row in again.candidates}


def test_a_training_called_best_is_not_removed(small: Search, trained: Path, tmp_path: Path) -> None:
    """The search writes its best model there."""
    shutil.copytree(trained, tmp_path / "best")
    with pytest.raises(UsageError, match="best is the folder of a training"):
        search.run(replace(small, out=str(tmp_path)))
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_int8_options_are_set_for_int8_candidates_only(small: Search, tmp_path: Path) -> None:
    """Method, QAT and gates; with a float candidate they would be refused."""
    config = replace(small, method="auto", qat=True, qat_lr=1e-3, keep_float="auto", min_agreement=50)
    point = {"prune": 0.0, "size": 0}
    int8, exact = (search._make_config(config, {**point, "precision": p}, tmp_path) for p in ("int8", "float32"))
    assert (int8.method, int8.qat, int8.qat_lr, int8.keep_float, int8.min_agreement) == (
        "auto",
        True,
        1e-3,
        ("auto",),
        50,
    )
    for candidate in (int8, exact):
        plan.check(candidate)


def test_a_small_space_is_searched_completely(
    stopped: Search, compressed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although Optuna may never propose the last points."""
    monkeypatch.setattr(search, "MAX_PROPOSALS", 0)
    again = run_search(replace(stopped, trials=99))
    assert len(again.candidates) == 4
    assert len(compressed) == 1


def test_a_candidate_with_a_missing_file_is_compressed_again(result: SearchResult, stopped: Search) -> None:
    """Its row alone is of no use."""
    lost = Path(stopped.out) / result.candidates[0].file
    lost.unlink()
    search.run(replace(stopped, trials=99))  # all four points
    assert lost.is_file()


def test_other_settings_are_refused_in_the_folder_of_a_search(result: SearchResult, small: Search) -> None:
    """Candidates with more epochs are not comparable with those in the folder."""
    assert result
    with pytest.raises(UsageError, match="other settings of epochs"):
        search.run(replace(small, epochs=2))


def test_a_refused_candidate_is_a_row_with_the_reason(
    small: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search continues."""

    def refuse(_: object) -> Path:
        raise GateError("too little in integers")

    monkeypatch.setattr(search, "compress", refuse)
    result = run_search(replace(small, out=str(tmp_path), trials=2))
    refused = [row for row in result.candidates if isinstance(row, RefusedCandidate)]
    assert [row.refused for row in refused] == ["too little in integers"] * 2
    assert result.best is None


def test_another_teacher_or_other_faces_are_refused_in_the_folder_of_a_search(
    result: SearchResult, small: Search, trained: Path
) -> None:
    """These candidates would be trained differently, although all numeric settings are the same."""
    assert result
    for change, what in (({"teacher": str(trained)}, "teacher"), ({"data": "synthetic:90"}, "train, valid")):
        with pytest.raises(UsageError, match=f"other settings of {what};"):
            search.run(replace(small, **change))


def test_a_missing_calibration_list_is_an_error(small: Search, tmp_path: Path) -> None:
    """Not a refused candidate, and nothing is compressed."""
    with pytest.raises(EdgeemoError, match=r"list\.json"):
        search.run(replace(small, out=str(tmp_path), calibration_count=512, calibration=str(tmp_path / "list.json")))
    assert not list(tmp_path.glob("*/row.json"))


def test_another_machine_is_refused_in_the_folder_of_a_search(
    result: SearchResult, small: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latencies are not comparable."""
    assert result
    other = replace(search.this_machine(), processor="another")
    monkeypatch.setattr(search, "this_machine", lambda: other)
    with pytest.raises(UsageError, match="other settings of machine"):
        search.run(small)


def test_refused_candidates_are_tried_again(small: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason may not apply any more."""
    config, compress = replace(small, out=str(tmp_path), trials=1), search.compress

    def refuse(_: object) -> Path:
        raise GateError("too little in integers")

    monkeypatch.setattr(search, "compress", refuse)
    assert isinstance(run_search(config).candidates[0], RefusedCandidate)
    monkeypatch.setattr(search, "compress", compress)
    assert isinstance(run_search(config).candidates[0], Candidate)


@pytest.mark.parametrize(("most", "shares"), [(0.38, 4), (0.3, 4), (0.75, 8), (0.0, 1)])
def test_no_share_is_above_the_maximum(most: float, shares: int) -> None:
    """Shares are multiples of 0.1 from 0."""
    assert len(search._list_shares(Search(run="runs/any", max_prune=most))) == shares


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget_ms": 0.0}, "--budget-ms 0: expected above 0"),
        ({"sizes": "48,big"}, "separated by commas"),
        ({"precisions": "int4"}, "unknown precisions 'int4'; known: float32, int8"),
        ({"trials": 0}, "--trials 0"),
        ({"lr": 0.0}, "--lr 0: expected"),
        ({"sizes": "48,9000"}, "--sizes 9000: expected"),
        ({"epochs": 0, "teacher": "runs/other"}, "--teacher without any fine-tuning"),
        ({"qat": True, "epochs": 0}, "trains nothing"),
    ],
)
def test_invalid_settings_of_a_search_are_refused(small: Search, change: dict[str, Any], message: str) -> None:
    """Before anything is compressed."""
    with pytest.raises(UsageError, match=message):
        search.run(replace(small, **change))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1, "a": 2}'])
def test_a_damaged_file_of_an_earlier_search_is_refused_by_name(content: str, tmp_path: Path) -> None:
    """Its settings, or the row of a candidate."""
    for name in ("identity.json", "row.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"identity\.json .*choose another --out"):
        search._check_same_search(tmp_path, {"a": 1})
    with pytest.raises(DataError, match=r"row\.json .*choose another --out"):
        search._read_row(tmp_path / "row.json")
