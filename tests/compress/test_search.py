"""The search measures, chooses within the budget, says why not the others, and goes on where it stopped."""

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

from edgeemo.compress import plan, search
from edgeemo.errors import EdgeemoError, GateError, UsageError
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


def judged(**given: Any) -> SearchResult:
    return search.choose(ROWS, Search(**{"run": "runs/any", "budget_ms": 5.0, "min_accuracy": 80.0, **given}), {})


def made_in(result: SearchResult) -> list[Candidate]:
    return [found for found in result.candidates if isinstance(found, Candidate)]


def verdicts(result: SearchResult) -> dict[float, str]:
    return {found.prune: found.verdict for found in made_in(result)}


def shown(result: SearchResult) -> str:
    """What the terminal shows, in lines of any length."""
    console = Console(width=40, file=(screen := StringIO()))
    show(result, console)
    return screen.getvalue()


def test_the_most_accurate_within_the_budget_is_chosen_and_of_equals_the_faster() -> None:
    """Two have 86 %; the one of 3 ms is taken, and the other is told why not."""
    result = judged()
    assert result.best == "prune-20-int8"
    assert verdicts(result)[0.1] == "meets both, but prune-20-int8 is more accurate or as accurate and faster"


def test_every_other_candidate_is_told_why_it_failed() -> None:
    """By how many milliseconds, by how many points, or by what it was refused."""
    found = verdicts(judged())
    assert found[0.0] == "4.00 ms over the budget"
    assert found[0.4] == "10.00 points below the floor"
    assert "prune-50-int8" in shown(judged()).splitlines()[-2]
    assert "refused: only 40 % of the multiply-adds are in integers" in shown(judged()).splitlines()[-2]


def test_both_reasons_are_told() -> None:
    """Too slow and too wrong."""
    assert (
        verdicts(judged(budget_ms=1.0, min_accuracy=95.0))[0.3]
        == "1.00 ms over the budget, 13.00 points below the floor"
    )


def test_nothing_within_the_budget_is_said_to_be_nothing() -> None:
    """No best, and the table says so."""
    result = judged(budget_ms=0.5)
    assert result.best is None
    assert "no candidate has p95 <= 0.5 ms and valid accuracy >= 80 %" in shown(result)


def test_the_front_holds_what_no_other_beats() -> None:
    """9 ms with 90 %, 3 ms with 86 %, 2 ms with 82 %."""
    front = {found.prune for found in made_in(judged()) if found.on_front}
    assert front == {0.0, 0.2, 0.3}


def searched(config: Search) -> SearchResult:
    """What a search leaves in its folder, whether a candidate meets the gates or none does."""
    with suppress(GateError):
        search.run(config)
    return read_as(SearchResult, Path(str(config.out)) / search.RESULT)


@pytest.fixture(scope="module")
def small(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    out = tmp_path_factory.mktemp("search")
    about = {"budget_ms": 10_000.0, "max_prune": 0.1, "calibration_count": 64, "rounding": "nearest"}
    about |= dict.fromkeys(("min_accuracy", "min_agreement", "min_int8_share"), 0.0)  # whatever a processor makes of it
    return Search(run=str(trained), out=str(out), trials=3, epochs=1, threads=1, **about)


@pytest.fixture(scope="module")
def found(small: Search) -> SearchResult:
    return searched(small)


def test_candidates_are_made_and_measured(found: SearchResult, small: Search) -> None:
    """Three of the four places, each with its samples, its accuracy and its file."""
    assert len(found.candidates) == 3
    for candidate in found.candidates:
        assert len(candidate.latency.samples_us.split()) == candidate.latency.n >= 200
        assert (Path(small.out) / candidate.file).is_file()
    assert read(Path(small.out) / "search.json") == found
    assert (Path(small.out) / "search.png").stat().st_size > 5000


def test_the_best_model_lies_ready(found: SearchResult, small: Search) -> None:
    """The runtime opens it, and its card says that it was chosen on the faces that judged it."""
    assert found.best
    (path,) = (Path(small.out) / "best").glob("*.onnx")
    with load(path) as model:
        assert model.card.labels[0] == "neutral"
        assert model.card.metrics["valid"].selected_on_valid is True


@pytest.fixture
def begun(found: SearchResult, small: Search, tmp_path: Path) -> Search:
    """The search of three of four places, as its own copy."""
    folder = tmp_path / "search"
    shutil.copytree(Path(small.out), folder)
    assert found.best
    return replace(small, out=str(folder))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of the candidates that are made from now on."""
    folders: list[str] = []
    make = search.compress
    monkeypatch.setattr(search, "compress", lambda config: folders.append(config.out) or make(config))
    return folders


def test_a_search_goes_on_where_it_stopped(found: SearchResult, begun: Search, made: list[str]) -> None:
    """With one more trial one more candidate is made; the rows of the others are those of before."""
    again = searched(replace(begun, trials=99))
    assert len(made) == 1
    assert len(again.candidates) == 4
    before, after = ({one.latency.samples_us for one in rows.candidates} for rows in (found, again))
    assert before < after


def test_a_recovery_that_was_stopped_goes_on(small: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the first of a candidate's two epochs, the search takes the steps of the second alone."""
    config = replace(small, out=str(tmp_path), epochs=2, trials=99, precisions="float32")
    train, trained = fit.train_epoch, []

    def train_epoch(task: Any, state: Any) -> dict[str, Any]:
        if trained == [0]:
            trained.append(-1)
            raise KeyboardInterrupt
        trained.append(state.epoch)
        return train(task, state)

    monkeypatch.setattr(fit, "train_epoch", train_epoch)
    with pytest.raises(KeyboardInterrupt):
        search.run(config)
    assert len(searched(config).candidates) == 2
    assert trained == [0, -1, 1]


@pytest.mark.parametrize(
    ("change", "rows"), [({"max_prune": 0.2}, 4), ({"max_prune": 0.0}, 2), ({"precisions": "int8"}, 2)]
)
def test_a_search_goes_on_in_a_wider_or_narrower_space(
    change: dict[str, Any], rows: int, found: SearchResult, begun: Search, made: list[str]
) -> None:
    """What lies in the new space is kept, the rest is made; Optuna by itself knows one list of values for good."""
    for one in found.candidates:
        if (one.prune, one.precision) == (0.0, "int8"):  # of every space
            (Path(begun.out) / one.file).unlink()
    again = searched(replace(begun, trials=rows, **change))
    assert len(again.candidates) == rows
    assert made
    kept = {one.latency.samples_us for one in found.candidates}
    assert kept & {one.latency.samples_us for one in again.candidates}


def test_a_training_called_best_is_not_removed(small: Search, trained: Path, tmp_path: Path) -> None:
    """The search puts its choice there."""
    shutil.copytree(trained, tmp_path / "best")
    with pytest.raises(UsageError, match="best is the folder of a training"):
        search.run(replace(small, out=str(tmp_path)))
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_int8_options_reach_the_int8_candidates_alone(small: Search, tmp_path: Path) -> None:
    """Method, tuning and gates; a float candidate would refuse them."""
    config = replace(small, method="auto", qat=True, qat_lr=1e-3, keep_float="auto", min_agreement=50)
    place = {"prune": 0.0, "size": 0}
    int8, exact = (search._candidate(config, {**place, "precision": p}, tmp_path) for p in ("int8", "float32"))
    assert (int8.method, int8.qat, int8.qat_lr, int8.keep_float, int8.min_agreement) == (
        "auto",
        True,
        1e-3,
        ("auto",),
        50,
    )
    for candidate in (int8, exact):
        plan.check(candidate)


def test_a_small_space_is_searched_to_its_end(begun: Search, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Though Optuna may never propose what is left."""
    monkeypatch.setattr(search, "MOST_PROPOSALS", 0)
    again = searched(replace(begun, trials=99))
    assert len(again.candidates) == 4
    assert len(made) == 1


def test_a_candidate_whose_file_is_gone_is_made_again(found: SearchResult, begun: Search) -> None:
    """Its row alone cannot be given to anyone."""
    lost = Path(begun.out) / found.candidates[0].file
    lost.unlink()
    search.run(replace(begun, trials=99))  # all four places
    assert lost.is_file()


def test_other_settings_do_not_mix_with_an_earlier_search(found: SearchResult, small: Search) -> None:
    """Candidates that recovered for longer cannot be compared with those in the folder."""
    assert found
    with pytest.raises(UsageError, match="other settings of epochs"):
        search.run(replace(small, epochs=2))


def test_a_candidate_that_cannot_be_made_is_a_row_with_the_reason(
    small: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search goes on; the reason is kept."""

    def refuse(_: object) -> Path:
        raise GateError("too little in integers")

    monkeypatch.setattr(search, "compress", refuse)
    result = searched(replace(small, out=str(tmp_path), trials=2))
    refused = [one for one in result.candidates if isinstance(one, RefusedCandidate)]
    assert [one.refused for one in refused] == ["too little in integers"] * 2
    assert result.best is None


def test_candidates_of_another_teacher_or_other_faces_do_not_mix(
    found: SearchResult, small: Search, trained: Path
) -> None:
    """They learned something else, though every number of the settings is the same."""
    assert found
    for change in ({"teacher": str(trained)}, {"data": "synthetic:90"}):
        with pytest.raises(UsageError, match=f"other settings of {next(iter(change))}"):
            search.run(replace(small, **change))


def test_a_list_that_is_not_there_is_the_users_mistake(small: Search, tmp_path: Path) -> None:
    """No finding about a candidate, and nothing is made."""
    with pytest.raises(EdgeemoError, match=r"list\.json"):
        search.run(replace(small, out=str(tmp_path), calibration_count=512, calibration=str(tmp_path / "list.json")))
    assert not list(tmp_path.glob("*/row.json"))


def test_candidates_of_another_machine_do_not_mix(
    found: SearchResult, small: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their latencies cannot be compared."""
    assert found
    other = replace(search.this_machine(), processor="another")
    monkeypatch.setattr(search, "this_machine", lambda: other)
    with pytest.raises(UsageError, match="other settings of machine"):
        search.run(small)


def test_what_was_refused_is_tried_again(small: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason may be gone."""
    config, make = replace(small, out=str(tmp_path), trials=1), search.compress

    def refuse(_: object) -> Path:
        raise GateError("too little in integers")

    monkeypatch.setattr(search, "compress", refuse)
    assert isinstance(searched(config).candidates[0], RefusedCandidate)
    monkeypatch.setattr(search, "compress", make)
    assert isinstance(searched(config).candidates[0], Candidate)


@pytest.mark.parametrize(("most", "shares"), [(0.38, 4), (0.3, 4), (0.75, 8), (0.0, 1)])
def test_no_share_lies_above_the_largest(most: float, shares: int) -> None:
    """In steps of a tenth from zero."""
    assert len(search._shares(Search(run="runs/any", max_prune=most))) == shares


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget_ms": 0.0}, "--budget-ms 0: expected above 0"),
        ({"sizes": "48,big"}, "separated by commas"),
        ({"precisions": "int4"}, "unknown precisions 'int4'; known: float32, int8"),
        ({"trials": 0}, "--trials 0"),
        ({"lr": 0.0}, "--lr 0: expected"),
        ({"sizes": "48,9000"}, "--sizes 9000: expected"),
        ({"epochs": 0, "teacher": "runs/other"}, "--teacher without anything to teach"),
        ({"qat": True, "epochs": 0}, "tunes nothing"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused(small: Search, change: dict[str, Any], message: str) -> None:
    """Before anything is made."""
    with pytest.raises(UsageError, match=message):
        search.run(replace(small, **change))
