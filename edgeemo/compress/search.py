"""The search stage: which pruning, input size and precision is the most accurate within a latency budget, here.

Nothing is predicted. Each candidate is made, recovered, judged on valid and timed on one core of this machine; Optuna
(Akiba et al. 2019) only proposes which to make next. Every trial is kept in the folder, so a search that was stopped,
or that should look further, goes on from what it knows.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import edgeemo
from edgeemo import options
from edgeemo.artifact import check_writable, sha256_of_lines, write_json
from edgeemo.card import Card, label_set_of, read_card, write_card
from edgeemo.card.history import versions
from edgeemo.compress import plan, plots
from edgeemo.compress.quantize import calibrate
from edgeemo.compress.run import COMPARISON
from edgeemo.compress.run import run as compress
from edgeemo.data import samples
from edgeemo.data.faces import label
from edgeemo.errors import GateError, UsageError
from edgeemo.machine import this_machine
from edgeemo.measure import latency
from edgeemo.options import public_settings
from edgeemo.packages import require
from edgeemo.report import files
from edgeemo.report.decode import decode
from edgeemo.report.facts import make_header
from edgeemo.report.result import (
    Candidate,
    CandidateSettings,
    CandidateTiming,
    ComparisonResult,
    RefusedCandidate,
    SearchResult,
)
from edgeemo.stages import Compress, Search
from edgeemo.train import run_folder, teacher

log = logging.getLogger(__name__)
RESULT, PICTURE, JOURNAL, BEST, ROW = "search.json", "search.png", "study.journal", "best", "row.json"
STEP = 0.1  # of the share to prune
TIMED_RUNS = 200
MOST_PROPOSALS = 20  # of Optuna's per trial; it may propose what was measured already

Row = Candidate | RefusedCandidate


def run(config: Search) -> Path:
    """Search as configured; returns the path of the best model. search.json with all candidates lies above it.

    GateError if no candidate meets the gates.
    """
    _check(config)
    card = read_card(config.run / run_folder.MODEL)
    sizes = _sizes(config, card.input.size)
    folder = config.out or config.run / "search"
    plan.check_no_training(folder / BEST, config.teacher)
    check_writable(folder)
    space: dict[str, list[Any]] = {"prune": _shares(config), "size": sizes, "precision": list(config.precisions)}
    for size in sizes:  # a mistake of the user's is no finding about a candidate
        plan.check(_candidate(config, {"prune": space["prune"][-1], "size": size, "precision": "int8"}, folder))
    identity = _identity(config, card)
    _same_search(folder, identity)
    rows = _explored(config, folder, space)
    result = choose(rows, config, {name: fact for name, fact in identity.items() if name not in IN_HEADER})
    files.write(result, folder / RESULT)
    plots.pareto(result, folder / PICTURE)
    shutil.rmtree(folder / BEST, ignore_errors=True)
    if not result.best:
        wanted = f"p95 <= {config.budget_ms:g} ms and valid accuracy >= {config.min_accuracy:g} %"
        raise GateError(f"no candidate has {wanted}", result=folder / RESULT)
    return _keep_best(folder, result)


IN_HEADER = ("edgeemo", "versions", "machine")  # of the result, so not in its `search` again
# What does not decide a candidate: the place of its files, and what is asked of it.
FREE_TO_CHANGE = ("run", "out", "budget_ms", "min_accuracy", "trials", "max_prune", "sizes", "precisions", "threads")


def _identity(config: Search, card: Card) -> dict[str, Any]:
    """What a candidate's row depends on beside its own place in the space."""
    settings = {key: value for key, value in public_settings(config).items() if key not in FREE_TO_CHANGE}
    labels = label_set_of(card)
    teachers = teacher.load_teachers(config.teacher, labels) if config.teacher else []
    trained = run_folder.load_config(config.run, card, data=config.data)
    valid = label(samples(trained.data, "valid", labels), labels, protocol=trained.protocol).samples
    facts = {
        "weights": card.sha256,
        "valid": sha256_of_lines([sample.id for sample in valid]),
        "calibration": calibrate.read(config.calibration).header() if config.calibration else "drawn",
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "machine": asdict(this_machine()),
        **teacher.describe_teachers(teachers),
    }
    found: dict[str, Any] = json.loads(json.dumps({**settings, **facts}))  # as it will be read again
    return found


def _explored(config: Search, folder: Path, space: dict[str, list[Any]]) -> list[Row]:
    optuna = require("optuna", extra="train", purpose="the search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        study_name=json.dumps(space),  # Optuna knows a parameter by one list of values for the whole of a study
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=config.seed),
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )
    choices = {name: optuna.distributions.CategoricalDistribution(values) for name, values in space.items()}
    kept = {_key(vars(row)): row for row in _kept(folder) if all(getattr(row, name) in space[name] for name in space)}
    if not study.trials:  # an earlier search, through another space, made these
        for earlier in kept.values():
            study.add_trial(_told_again(earlier, choices))
    rows: dict[tuple[Any, ...], Row] = {**kept}
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    wanted = min(config.trials, len(every))
    proposals = 0
    while len(rows) < wanted:
        proposals += 1
        if proposals > MOST_PROPOSALS * wanted:  # all that is left in a small space, it may never propose
            study.enqueue_trial(next(place for place in every if _key(place) not in rows))
        trial = study.ask(choices)
        row = rows.get(_key(trial.params)) or _measured(config, folder, trial.params, number=len(rows) + 1, of=wanted)
        rows[_key(trial.params)] = row
        if isinstance(row, RefusedCandidate):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [row.latency.ms_p95, row.accuracy])
    return list(rows.values())


def _told_again(row: Candidate, choices: dict[str, Any]) -> Any:
    """The trial of a row that is kept, for a study that has not heard of it."""
    optuna = require("optuna", extra="train", purpose="the search")
    values = [row.latency.ms_p95, row.accuracy]
    place = {name: getattr(row, name) for name in choices}
    return optuna.trial.create_trial(params=place, distributions=choices, values=values)


def _measured(config: Search, folder: Path, place: dict[str, Any], *, number: int, of: int) -> Row:
    """Make the candidate, judge it on valid and time it; its row is kept beside its files."""
    log.info("candidate %d of %d: %s", number, of, _told(place))
    out = folder / CandidateSettings(**place).name
    try:
        path = compress(_candidate(config, place, out))
    except (UsageError, GateError) as error:  # it cannot be pruned so, or too little of it would be in integers
        row: Row = RefusedCandidate(**place, refused=str(error))
    else:
        row = _timed(place, path)
    write_json(out / ROW, asdict(row))
    return row


def _timed(place: dict[str, Any], path: Path) -> Candidate:
    """The row of a candidate that was made: its scores on valid, and its latency here."""
    judged = files.read_as(ComparisonResult, path.parent / COMPARISON).rows[-1]
    timing = latency.measure_latency([(path, "")], runs=TIMED_RUNS, settings=("one_core",))[0].one_core
    return Candidate(
        **place,
        file=f"{path.parent.name}/{path.name}",
        latency=CandidateTiming(**vars(timing.total), unstable=timing.unstable),
        accuracy=judged.accuracy,
        n=judged.n,
        recall=judged.recall,
        size_bytes=judged.size_bytes,
        macs=judged.macs,
        parameters=judged.parameters,
    )


def _candidate(config: Search, place: dict[str, Any], out: Path) -> Compress:
    """The compression of a place; what has no effect there is left at its default."""
    shared = {f.name for f in fields(Compress)} & {f.name for f in fields(Search)} - {"out", "run"}
    own = {"prune": place["prune"], "size": place["size"] or None, "int8": place["precision"] == "int8", "time": False}
    every = Compress(**{name: getattr(config, name) for name in shared}, **own, run=config.run, out=out, resume=True)
    trains = every.epochs and (every.prune or every.size or (every.int8 and every.qat))
    idle = set() if trains else {"teacher"}
    while more := {name for name in shared - idle if not options.has_effect(_without(every, idle), name)}:
        idle |= more
    return _without(every, idle)


def _without(config: Compress, names: set[str]) -> Compress:
    """The config with these options at their defaults."""
    return replace(config, **{name: getattr(Compress, name) for name in names})


def choose(rows: Sequence[Row], config: Search, identity: dict[str, Any]) -> SearchResult:
    """The rows with a verdict each, the front of those that none beats in both, and the place of the best, if any.

    The best is the most accurate of those that meet the budget and the floor; of equals the faster.
    """
    refused = [row for row in rows if isinstance(row, RefusedCandidate)]
    made = [row for row in rows if isinstance(row, Candidate)]
    judged = [replace(row, verdict=_verdict(row, config), on_front=_on_front(row, made)) for row in made]
    judged.sort(key=lambda row: -row.accuracy)
    meets = [row for row in judged if not row.verdict]
    best = max(meets, key=lambda row: (row.accuracy, -row.latency.ms_p95), default=None)
    told = [
        replace(row, verdict=_surpassed(best)) if best and row in meets and row is not best else row for row in judged
    ]
    return SearchResult(
        header=make_header(),
        search=identity,
        budget_ms=config.budget_ms,
        min_accuracy=config.min_accuracy,
        best=best.name if best else None,
        candidates=[*told, *refused],
        advice=_advice(judged),
    )


def _surpassed(best: Candidate) -> str:
    return f"meets both, but {best.name} is more accurate or as accurate and faster"


def _advice(rows: list[Candidate]) -> list[str]:
    """Whether INT8 pays on this processor, by the most accurate candidate that was measured in both precisions."""
    timed = {_key(vars(row)): row.latency.ms_p50 for row in rows}
    for (prune, size, precision), ms in timed.items():
        if precision == "int8" and (float_ms := timed.get((prune, size, "float32"))):
            return latency.advise_on_int8(ms, float_ms)
    return []


def _verdict(row: Candidate, config: Search) -> str:
    """Why the row cannot be taken, or nothing."""
    reasons = []
    if row.latency.ms_p95 > config.budget_ms:
        reasons.append(f"{row.latency.ms_p95 - config.budget_ms:.2f} ms over the budget")
    if 100 * row.accuracy < config.min_accuracy:
        reasons.append(f"{config.min_accuracy - 100 * row.accuracy:.2f} points below the floor")
    return ", ".join(reasons)


def _on_front(row: Candidate, rows: list[Candidate]) -> bool:
    """Whether no other row is at least as fast and as accurate, and better in one."""
    mine = (row.latency.ms_p95, -row.accuracy)
    others = [(other.latency.ms_p95, -other.accuracy) for other in rows]
    return not any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in others)


def _keep_best(folder: Path, result: SearchResult) -> Path:
    """Copy the best model to best/, with a card that says it was chosen on valid; returns the path of the copy."""
    made = (row for row in result.candidates if isinstance(row, Candidate))
    source = folder / next(row for row in made if row.name == result.best).file
    (folder / BEST).mkdir()
    kept: Path = folder / BEST / source.name
    shutil.copy2(source, kept)
    card = read_card(source)
    write_card(kept, replace(card, metrics={"valid": replace(card.metrics["valid"], selected_on_valid=True)}))
    return kept


def _kept(folder: Path) -> list[Candidate]:
    """The rows of an earlier search in this folder; what was refused, or lost its file, is tried again."""
    rows = [_row_in(file) for file in sorted(folder.glob(f"*/{ROW}"))]
    return [row for row in rows if isinstance(row, Candidate) and (folder / row.file).is_file()]


def _row_in(file: Path) -> Row:
    found = json.loads(file.read_text(encoding="utf-8"))
    remedy = "; choose another --out"
    if "refused" in found:
        return decode(RefusedCandidate, found, source=str(file), remedy=remedy)
    return decode(Candidate, found, source=str(file), remedy=remedy)


def _same_search(folder: Path, identity: dict[str, Any]) -> None:
    """UsageError if the folder holds candidates of another network or other settings."""
    file = folder / "identity.json"
    if file.is_file() and (before := json.loads(file.read_text(encoding="utf-8"))) != identity:
        changed = [key for key in identity if before.get(key) != identity[key]]
        raise UsageError(f"{folder} holds a search with other settings of {', '.join(changed)}; choose another --out")
    write_json(file, identity)


def _check(config: Search) -> None:
    options.check(config)
    if config.teacher and not config.epochs:
        raise UsageError("--teacher without anything to teach: give --epochs, or leave it out")
    if not config.precisions:
        raise UsageError("--precisions is empty; expected float32, int8, or both")


def _sizes(config: Search, trained: int) -> list[int]:
    """Sides to try; 0 stands for the trained one, which needs no recovery."""
    return list(dict.fromkeys(0 if size == trained else size for size in config.sizes)) or [0]


def _shares(config: Search) -> list[float]:
    return [round(k * STEP, 2) for k in range(int(config.max_prune / STEP + 1e-9) + 1)]


def _key(place: dict[str, Any]) -> tuple[Any, ...]:
    return place["prune"], place["size"], place["precision"]


def _told(place: dict[str, Any]) -> str:
    size = f", {place['size']} px" if place["size"] else ""
    return f"{100 * place['prune']:.0f} % of the channels pruned, {place['precision']}{size}"
