"""The search stage: the most accurate pruning, input size and precision within a latency budget on this machine.

Every candidate is compressed, fine-tuned, evaluated on valid and timed on one core of this machine; nothing is
estimated. Optuna (Akiba et al. 2019) only proposes the next candidate. All trials are stored in the folder, so a search
can be resumed or extended.
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
from edgeemo.artifact import atomic_folder, check_writable, hash_lines, lock_folder, write_json
from edgeemo.card import Card, get_label_set, read_card, write_card
from edgeemo.card.history import list_versions
from edgeemo.compress import plan, plots
from edgeemo.compress.quantize import calibrate
from edgeemo.compress.run import COMPARISON
from edgeemo.compress.run import run as compress
from edgeemo.data.faces import list_labelled
from edgeemo.errors import DataError, GateError, UsageError
from edgeemo.machine import this_machine
from edgeemo.measure import latency
from edgeemo.options import public_settings
from edgeemo.packages import require
from edgeemo.reading import read_json
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
RESULT, PLOT, JOURNAL, BEST, ROW = "search.json", "search.png", "study.journal", "best", "row.json"
MAX_BYTES = 4 * 2**20  # of a file of an earlier search
STEP = 0.1  # of the share to prune
TIMED_RUNS = 200
MAX_PROPOSALS = 20  # of Optuna per trial; it may propose candidates that were measured before

Row = Candidate | RefusedCandidate


def run(config: Search) -> Path:
    """Search as configured; return the path of the best model, and write search.json with all candidates.

    Raises GateError if no candidate meets budget and minimum accuracy.
    """
    _check(config)
    card = read_card(config.run / run_folder.MODEL)
    sizes = _list_sizes(config, card.input.size)
    folder = config.out or config.run / "search"
    plan.check_no_training(folder / BEST, config.teacher)
    check_writable(folder)
    with lock_folder(folder):
        return _run(config, card, folder, sizes)


def _run(config: Search, card: Card, folder: Path, sizes: list[int]) -> Path:
    space: dict[str, list[Any]] = {"prune": _list_shares(config), "size": sizes, "precision": list(config.precisions)}
    for size in sizes:  # invalid settings are an error, not a property of a candidate
        plan.check(_make_config(config, {"prune": space["prune"][-1], "size": size, "precision": "int8"}, folder))
    identity = _make_identity(config, card)
    _check_same_search(folder, identity)
    rows = _explore(config, folder, space)
    result = choose(rows, config, {name: fact for name, fact in identity.items() if name not in IN_HEADER})
    files.write(result, folder / RESULT)
    plots.plot_pareto(result, folder / PLOT)
    if not result.best:
        shutil.rmtree(folder / BEST, ignore_errors=True)
        limits = f"p95 <= {config.budget_ms:g} ms and valid accuracy >= {config.min_accuracy:g} %"
        raise GateError(f"no candidate has {limits}", result=folder / RESULT)
    return _copy_best(folder, result)


IN_HEADER = ("edgeemo", "versions", "machine")  # of the result, so not in its `search` again
# Settings that do not affect a candidate: the limits, the extent of the search, and paths, for which there are hashes.
FREE_TO_CHANGE = (
    *("run", "out", "budget_ms", "min_accuracy", "trials", "max_prune", "sizes", "precisions", "threads"),
    *("data", "teacher", "skip_unreadable", "cache"),
)


def _make_identity(config: Search, card: Card) -> dict[str, Any]:
    """Return everything that a candidate's row depends on, apart from its own settings."""
    settings = {key: value for key, value in public_settings(config).items() if key not in FREE_TO_CHANGE}
    labels = get_label_set(card)
    teachers = teacher.load_teachers(config.teacher, labels) if config.teacher else []
    training = run_folder.load_config(config.run, card, data=config.data)
    selection: dict[str, Any] = {"protocol": training.protocol, "skip_unreadable": config.skip_unreadable}
    faces = {split: list_labelled(training.data, split, labels, **selection).samples for split in ("train", "valid")}
    facts = {
        "weights": card.sha256,
        **{split: hash_lines([sample.id for sample in samples]) for split, samples in faces.items()},
        "calibration": calibrate.read(config.calibration).header() if config.calibration else "drawn",
        "edgeemo": edgeemo.__version__,
        "versions": list_versions(),
        "machine": {name: fact for name, fact in asdict(this_machine()).items() if (name, fact) != ("cpu_quota", None)},
        "teacher": [member.card.sha256 for member in teachers],
    }
    identity: dict[str, Any] = json.loads(json.dumps({**settings, **facts}))  # with the types of JSON, to compare
    return identity


def _explore(config: Search, folder: Path, space: dict[str, list[Any]]) -> list[Row]:
    optuna = require("optuna", extra="train", purpose="the search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        study_name=json.dumps(space),  # in one study, a parameter has only one list of values
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=config.seed),
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )
    distributions = {name: optuna.distributions.CategoricalDistribution(values) for name, values in space.items()}
    earlier = [row for row in _read_rows(folder) if all(getattr(row, name) in space[name] for name in space)]
    if not study.trials:  # a new study, because an earlier search had another space
        for row in earlier:
            study.add_trial(_make_trial(row, distributions))
    rows: dict[tuple[Any, ...], Row] = {_make_key(vars(row)): row for row in earlier}
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    trials = min(config.trials, len(points))
    proposals = 0
    while len(rows) < trials:
        proposals += 1
        if proposals > MAX_PROPOSALS * trials:  # Optuna may never propose the last points of a small space
            study.enqueue_trial(next(point for point in points if _make_key(point) not in rows))
        trial = study.ask(distributions)
        key, number = _make_key(trial.params), len(rows) + 1
        candidate = rows.get(key) or _make_and_measure(config, folder, trial.params, number=number, of=trials)
        rows[key] = candidate
        if isinstance(candidate, RefusedCandidate):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [candidate.latency.ms_p95, candidate.accuracy])
    return list(rows.values())


def _make_trial(row: Candidate, distributions: dict[str, Any]) -> Any:
    """Return the trial of an existing row, to add it to a new study."""
    optuna = require("optuna", extra="train", purpose="the search")
    values = [row.latency.ms_p95, row.accuracy]
    point = {name: getattr(row, name) for name in distributions}
    return optuna.trial.create_trial(params=point, distributions=distributions, values=values)


def _make_and_measure(config: Search, folder: Path, point: dict[str, Any], *, number: int, of: int) -> Row:
    """Compress a candidate, evaluate and time it; write its row to its folder."""
    log.info("candidate %d of %d: %s", number, of, _describe(point))
    out = folder / CandidateSettings(**point).name
    try:
        path = compress(_make_config(config, point, out))
    except (UsageError, GateError) as error:  # it cannot be pruned like this, or misses a gate
        row: Row = RefusedCandidate(**point, refused=str(error))
    else:
        row = _measure(point, path)
    write_json(out / ROW, asdict(row))
    return row


def _measure(point: dict[str, Any], path: Path) -> Candidate:
    """Time a compressed candidate; return its row."""
    evaluated = files.read_as(ComparisonResult, path.parent / COMPARISON).rows[-1]
    timing = latency.measure_latency([(path, "")], runs=TIMED_RUNS, settings=("one_core",))[0].one_core
    return Candidate(
        **point,
        file=f"{path.parent.name}/{path.name}",
        latency=CandidateTiming(**vars(timing.total), unstable=timing.unstable),
        accuracy=evaluated.accuracy,
        n=evaluated.n,
        recall=evaluated.recall,
        size_bytes=evaluated.size_bytes,
        macs=evaluated.macs,
        parameters=evaluated.parameters,
    )


def _make_config(config: Search, point: dict[str, Any], out: Path) -> Compress:
    """Return the config of a candidate, with options that have no effect on it at their defaults."""
    shared = {f.name for f in fields(Compress)} & {f.name for f in fields(Search)} - {"out", "run"}
    own = {"prune": point["prune"], "size": point["size"] or None, "int8": point["precision"] == "int8", "time": False}
    full = Compress(**{name: getattr(config, name) for name in shared}, **own, run=config.run, out=out, resume=True)
    trains = full.epochs and (full.prune or full.size or (full.int8 and full.qat))
    idle = set() if trains else {"teacher"}
    while more := {name for name in shared - idle if not options.has_effect(_reset_options(full, idle), name)}:
        idle |= more
    return _reset_options(full, idle)


def _reset_options(config: Compress, names: set[str]) -> Compress:
    """Return the config with these options at their defaults."""
    return replace(config, **{name: getattr(Compress, name) for name in names})


def choose(rows: Sequence[Row], config: Search, identity: dict[str, Any]) -> SearchResult:
    """Return the rows with their verdicts and Pareto front, and the best one, if any.

    The best is the most accurate within the budget and above the minimum accuracy; the faster one of equals.
    """
    refused = [row for row in rows if isinstance(row, RefusedCandidate)]
    measured = [row for row in rows if isinstance(row, Candidate)]
    candidates = [
        replace(row, verdict=_explain_rejection(row, config), on_front=_is_on_front(row, measured)) for row in measured
    ]
    candidates.sort(key=lambda row: -row.accuracy)
    accepted = [row for row in candidates if not row.verdict]
    best = max(accepted, key=lambda row: (row.accuracy, -row.latency.ms_p95), default=None)
    if best:
        surpassed = f"meets both, but {best.name} is more accurate or as accurate and faster"
        candidates = [row if row.verdict or row is best else replace(row, verdict=surpassed) for row in candidates]
    return SearchResult(
        header=make_header(),
        search=identity,
        budget_ms=config.budget_ms,
        min_accuracy=config.min_accuracy,
        best=best.name if best else None,
        candidates=[*candidates, *refused],
        advice=_advise_on_int8(candidates),
    )


def _advise_on_int8(rows: list[Candidate]) -> list[str]:
    """Advise on INT8 on this processor by the first, most accurate candidate measured in both precisions."""
    times = {_make_key(vars(row)): row.latency.ms_p50 for row in rows}
    for (prune, size, precision), ms in times.items():
        if precision == "int8" and (float_ms := times.get((prune, size, "float32"))):
            return latency.advise_on_int8(ms, float_ms)
    return []


def _explain_rejection(row: Candidate, config: Search) -> str:
    """Return the limits that a row misses, and by how much; empty if none."""
    reasons = []
    if row.latency.ms_p95 > config.budget_ms:
        reasons.append(f"{row.latency.ms_p95 - config.budget_ms:.2f} ms over the budget")
    if 100 * row.accuracy < config.min_accuracy:
        reasons.append(f"{config.min_accuracy - 100 * row.accuracy:.2f} points below the floor")
    return ", ".join(reasons)


def _is_on_front(row: Candidate, rows: list[Candidate]) -> bool:
    """Return whether a row is Pareto-optimal: no other is at least as fast and as accurate, and better in one."""
    own = (row.latency.ms_p95, -row.accuracy)
    others = [(other.latency.ms_p95, -other.accuracy) for other in rows]
    return not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in others)


def _copy_best(folder: Path, result: SearchResult) -> Path:
    """Copy the best model to best/, with a card that marks it as selected on valid; return the path of the copy."""
    candidates = (row for row in result.candidates if isinstance(row, Candidate))
    source = folder / next(row for row in candidates if row.name == result.best).file
    card = read_card(source)
    with atomic_folder(folder / BEST) as partial:
        copy = partial / source.name
        shutil.copyfile(source, copy)
        write_card(copy, replace(card, metrics={"valid": replace(card.metrics["valid"], selected_on_valid=True)}))
    return folder / BEST / source.name


def _read_rows(folder: Path) -> list[Candidate]:
    """Read the rows of an earlier search, except those of refused candidates and of missing files, to try again."""
    rows = [_read_row(file) for file in sorted(folder.glob(f"*/{ROW}"))]
    return [row for row in rows if isinstance(row, Candidate) and (folder / row.file).is_file()]


def _read_row(file: Path) -> Row:
    content, remedy = _read_object(file), "; choose another --out"
    if "refused" in content:
        return decode(RefusedCandidate, content, source=str(file), remedy=remedy)
    return decode(Candidate, content, source=str(file), remedy=remedy)


def _read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object of an earlier search."""
    try:
        content = read_json(file, max_bytes=MAX_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); choose another --out") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is not a JSON object; choose another --out")
    return content


def _check_same_search(folder: Path, identity: dict[str, Any]) -> None:
    """Raise UsageError if the folder has candidates of another network or other settings."""
    file = folder / "identity.json"
    stored = _read_object(file) if file.is_file() else identity
    if changed := [key for key in identity if stored.get(key, identity[key]) != identity[key]]:
        raise UsageError(
            f"{folder} contains a search with other settings of {', '.join(changed)}; choose another --out"
        )
    write_json(file, identity)


def _check(config: Search) -> None:
    options.check(config)
    if config.teacher and not config.epochs:
        raise UsageError("--teacher without any fine-tuning: give --epochs, or leave it out")
    if not config.precisions:
        raise UsageError("--precisions is empty; expected float32, int8, or both")


def _list_sizes(config: Search, trained: int) -> list[int]:
    """Return the input sizes to try; 0 stands for the trained one, which needs no fine-tuning."""
    return list(dict.fromkeys(0 if size == trained else size for size in config.sizes)) or [0]


def _list_shares(config: Search) -> list[float]:
    return [round(k * STEP, 2) for k in range(int(config.max_prune / STEP + 1e-9) + 1)]


def _make_key(point: dict[str, Any]) -> tuple[Any, ...]:
    return point["prune"], point["size"], point["precision"]


def _describe(point: dict[str, Any]) -> str:
    size = f", {point['size']} px" if point["size"] else ""
    return f"{100 * point['prune']:.0f} % of the channels pruned, {point['precision']}{size}"
