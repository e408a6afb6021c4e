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
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import edgeemo
from edgeemo import options
from edgeemo.artifact import check_writable, sha256_of_lines, write_json
from edgeemo.bench import measure
from edgeemo.card import Card, label_set_of, read_card, write_card
from edgeemo.compress import calibrate, job, pictures
from edgeemo.compress.run import COMPARISON
from edgeemo.compress.run import run as compress
from edgeemo.data import samples
from edgeemo.data.faces import label
from edgeemo.errors import GateError, UsageError
from edgeemo.history import versions
from edgeemo.machine import this_machine
from edgeemo.options import public_settings
from edgeemo.packages import require
from edgeemo.stages import Compress, Search
from edgeemo.train import teacher, weights

log = logging.getLogger(__name__)
RESULT, PICTURE, JOURNAL, BEST, ROW = "search.json", "search.png", "study.journal", "best", "row.json"
STEP = 0.1  # of the share to prune
TIMED_RUNS = 200
MOST_PROPOSALS = 20  # of Optuna's per trial; it may propose what was measured already

Row = dict[str, Any]


def run(config: Search) -> Path:
    """Search as configured; returns the path of the best model. search.json with all candidates lies above it.

    GateError if no candidate meets the gates.
    """
    _check(config)
    card = read_card(config.run / weights.MODEL)
    sizes = _sizes(config, card.input.size)
    folder: Path = config.out or config.run / "search"
    job.check_no_training(folder / BEST, config.teacher)
    check_writable(folder)
    space: dict[str, list[Any]] = {"prune": _shares(config), "size": sizes, "precision": list(config.precisions)}
    for size in sizes:  # a mistake of the user's is no finding about a candidate
        job.check(_candidate(config, {"prune": space["prune"][-1], "size": size, "precision": "int8"}, folder))
    identity = _identity(config, card)
    _same_search(folder, identity)
    rows = _explored(config, folder, space)
    result = {"format": 1, "search": identity, **chosen(rows, config)}
    write_json(folder / RESULT, result)
    pictures.pareto(result, folder / PICTURE)
    if not result["best"]:
        shutil.rmtree(folder / BEST, ignore_errors=True)
        raise GateError(f"{table(result)}\n  all candidates: {folder / RESULT}")
    return _keep_best(folder, result)


def show(path: Path) -> str:
    """The candidates of the search that ended with this path, for a terminal."""
    return table(json.loads((path.parent.parent / RESULT).read_text(encoding="utf-8")))


# What does not decide a candidate: the place of its files, and what is asked of it.
FREE_TO_CHANGE = ("run", "out", "budget_ms", "min_accuracy", "trials", "max_prune", "sizes", "precisions", "threads")


def _identity(config: Search, card: Card) -> dict[str, Any]:
    """What a candidate's row depends on beside its own place in the space."""
    settings = {key: value for key, value in public_settings(config).items() if key not in FREE_TO_CHANGE}
    labels = label_set_of(card)
    masters = teacher.check(config.teacher, labels) if config.teacher else []
    trained = weights.trained(config.run, card, data=config.data)
    valid = label(samples(trained.data, "valid", labels), labels, protocol=trained.protocol).samples
    facts = {
        "weights": card.sha256,
        "valid": sha256_of_lines([sample.id for sample in valid]),
        "calibration": calibrate.read(config.calibration).header() if config.calibration else "drawn",
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "machine": asdict(this_machine()),
        **teacher.told_by(masters),
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
    rows = {_key(row): row for row in _kept(folder) if all(row[name] in space[name] for name in space)}
    if not study.trials:  # an earlier search, through another space, made these
        for row in rows.values():
            study.add_trial(_told_again(row, choices))
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    wanted = min(config.trials, len(every))
    proposals = 0
    while len(rows) < wanted:
        proposals += 1
        if proposals > MOST_PROPOSALS * wanted:  # all that is left in a small space, it may never propose
            study.enqueue_trial(next(place for place in every if _key(place) not in rows))
        trial = study.ask(choices)
        row = rows.get(_key(trial.params)) or _measured(config, folder, trial.params, number=len(rows) + 1, of=wanted)
        rows[_key(row)] = row
        if row["refused"]:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [row["latency"]["ms_p95"], row["accuracy"]])
    return list(rows.values())


def _told_again(row: Row, choices: dict[str, Any]) -> Any:
    """The trial of a row that is kept, for a study that has not heard of it."""
    optuna = require("optuna", extra="train", purpose="the search")
    values = [row["latency"]["ms_p95"], row["accuracy"]]
    place = {name: row[name] for name in choices}
    return optuna.trial.create_trial(params=place, distributions=choices, values=values)


def _measured(config: Search, folder: Path, place: dict[str, Any], *, number: int, of: int) -> Row:
    """Make the candidate, judge it on valid and time it; its row is kept beside its files."""
    log.info("candidate %d of %d: %s", number, of, _told(place))
    out = folder / _name(place)
    try:
        path = compress(_candidate(config, place, out))
    except (UsageError, GateError) as error:  # it cannot be pruned so, or too little of it would be in integers
        row = {**place, "refused": str(error)}
    else:
        judged = json.loads((out / COMPARISON).read_text(encoding="utf-8"))["rows"][-1]
        timing = measure.latency([(path, "")], runs=TIMED_RUNS, settings=("one_core",))[0]["one_core"]
        facts = {name: judged[name] for name in ("accuracy", "n", "recall", "size_bytes", "macs", "parameters")}
        latency = {**timing["total"], "unstable": timing["unstable"]}
        row = {**place, "refused": "", "file": f"{out.name}/{path.name}", "latency": latency, **facts}
    write_json(out / ROW, row)
    return row


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


def chosen(rows: list[Row], config: Search) -> dict[str, Any]:
    """The rows with a verdict each, the front of those that none beats in both, and the place of the best, if any.

    The best is the most accurate of those that meet the budget and the floor; of equals the faster.
    """
    judged = [{**row, "verdict": _verdict(row, config), "on_front": _on_front(row, rows)} for row in rows]
    judged.sort(key=lambda row: (bool(row["refused"]), -row.get("accuracy", 0)))
    meets = [row for row in judged if not row["verdict"]]
    best = max(meets, key=lambda row: (row["accuracy"], -row["latency"]["ms_p95"]), default=None)
    for row in meets:
        if row is not best and best is not None:
            row["verdict"] = f"meets both, but {_name(best)} is more accurate or as accurate and faster"
    return {
        "advice": _advice(judged),
        "budget_ms": config.budget_ms,
        "min_accuracy": config.min_accuracy,
        "best": _name(best) if best else None,
        "candidates": judged,
    }


def table(result: dict[str, Any]) -> str:
    """A line per candidate, the most accurate first, with the reason why it was not taken; then the choice."""
    lines = [f"{'candidate':24} {'ms p50':>7} {'ms p95':>7} {'accuracy %':>10} {'KB':>7}  front"]
    for row in result["candidates"]:
        name = f"{_name(row):24}"
        if row["refused"]:
            lines.append(f"{name} refused: {row['refused']}")
            continue
        latency, size = row["latency"], row["size_bytes"] / 1000
        numbers = f"{latency['ms_p50']:7.2f} {latency['ms_p95']:7.2f} {100 * row['accuracy']:10.2f} {size:7,.0f}"
        lines.append(f"{name} {numbers}  {'*' if row['on_front'] else ' ':5}  {row['verdict'] or 'BEST'}")
    if any(not row["refused"] and row["latency"].get("unstable") for row in result["candidates"]):
        lines.append("some p95 are more than twice their p50: something else held the core; search on a quiet machine")
    asked = f"p95 <= {result['budget_ms']:g} ms and valid accuracy >= {result['min_accuracy']:g} %"
    said = f"best for {asked}: {result['best']}" if result["best"] else f"no candidate has {asked}"
    lines.append(said + "; chosen on valid, so its accuracy there flatters a little")
    return "\n".join([*lines, *result["advice"]])


def _advice(rows: list[Row]) -> list[str]:
    """Whether INT8 pays on this processor, by the most accurate candidate that was measured in both precisions."""
    timed = {_key(row): row["latency"]["ms_p50"] for row in rows if not row["refused"]}
    for (prune, size, precision), ms in timed.items():
        if precision == "int8" and (float_ms := timed.get((prune, size, "float32"))):
            return measure.advise_on_int8(ms, float_ms)
    return []


def _verdict(row: Row, config: Search) -> str:
    """Why the row cannot be taken, or nothing."""
    if row["refused"]:
        return "refused"
    reasons = []
    if row["latency"]["ms_p95"] > config.budget_ms:
        reasons.append(f"{row['latency']['ms_p95'] - config.budget_ms:.2f} ms over the budget")
    if 100 * row["accuracy"] < config.min_accuracy:
        reasons.append(f"{config.min_accuracy - 100 * row['accuracy']:.2f} points below the floor")
    return ", ".join(reasons)


def _on_front(row: Row, rows: list[Row]) -> bool:
    """Whether no other row is at least as fast and as accurate, and better in one."""
    if row["refused"]:
        return False
    mine = (row["latency"]["ms_p95"], -row["accuracy"])
    others = [(other["latency"]["ms_p95"], -other["accuracy"]) for other in rows if not other["refused"]]
    return not any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in others)


def _keep_best(folder: Path, result: dict[str, Any]) -> Path:
    """Copy the best model to best/, with a card that says it was chosen on valid; an older one there goes."""
    shutil.rmtree(folder / BEST, ignore_errors=True)
    row = next(row for row in result["candidates"] if _name(row) == result["best"])
    source = folder / row["file"]
    (folder / BEST).mkdir()
    kept: Path = folder / BEST / source.name
    shutil.copy2(source, kept)
    card = read_card(source)
    write_card(kept, replace(card, metrics={"valid": replace(card.metrics["valid"], selected_on_valid=True)}))
    return kept


def _kept(folder: Path) -> list[Row]:
    """The rows of an earlier search in this folder; what was refused, or lost its file, is tried again."""
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(f"*/{ROW}"))]
    return [row for row in rows if not row["refused"] and (folder / row["file"]).is_file()]


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


def _name(place: dict[str, Any]) -> str:
    """The folder of a candidate: prune-30-int8, prune-0-float32-64px."""
    size = f"-{place['size']}px" if place["size"] else ""
    return f"prune-{100 * place['prune']:.0f}-{place['precision']}{size}"


def _told(place: dict[str, Any]) -> str:
    size = f", {place['size']} px" if place["size"] else ""
    return f"{100 * place['prune']:.0f} % of the channels pruned, {place['precision']}{size}"
