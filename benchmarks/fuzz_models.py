"""Open mutated models and cards: each must be refused with an error of edgeemo, or give exactly the golden answer.

python benchmarks/fuzz_models.py [COUNT] [SEED] [OUT.json]   (default: 2000 0 benchmarks/results/fuzz/models.json)

Four kinds of cases: the model's bytes are mutated, the card's, or either with a card that was sealed again on it, as by
an attacker. What was sealed again may give another answer, because it is another model; it may not crash, hang or
take memory without end. Cases run in child processes with limits. Case K of a seed is always the same: to repeat one,
call `try_case`. Exit 1 if one case fails.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import model_mutations
import numpy as np

from edgeemo.card import Card, card_path, read_card, write_card
from edgeemo.card.layout import compute_seal
from edgeemo.errors import EdgeemoError, MachineError
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.runtime import golden, open_model, shipped

OUT = Path(__file__).parent / "results" / "fuzz" / "models.json"
SOURCES = ("nano.onnx", "nano.tensorrt.onnx", "small.onnx")
KINDS = ("model", "model, card sealed again", "card", "card sealed again")
MAX_SECONDS = 20.0  # of a case, on a busy machine
MAX_GROWTH_MIB = 256.0  # of the memory of a case, beyond that of the process before
ADDRESS_SPACE = 8 * 2**30
RECYCLED_AFTER = 100  # cases of a child process
GOOD = ("refused", "same answer", "other answer")


@dataclass(frozen=True)
class Outcome:
    """What became of a case: one of GOOD, or the failure."""

    kind: str
    outcome: str
    seconds: float
    growth_mib: float


def main() -> None:
    """Run the cases, write the result and print it."""
    count, seed, out = (sys.argv[1:] + ["2000", "0", str(OUT)][len(sys.argv) - 1 :])[:3]
    result = run(int(count), seed=int(seed))
    files.write(result, Path(out))
    print(json.dumps({"rows": result.rows, "facts": result.facts}, indent=2))
    sys.exit(1 if result.facts["failures"] else 0)


def run(count: int, *, seed: int) -> Measurement:
    """Run `count` cases in child processes, one at a time."""
    outcomes: dict[int, Outcome] = {}
    growth = []
    while len(outcomes) < count:
        pending = range(len(outcomes), min(count, len(outcomes) + RECYCLED_AFTER))
        growth.append(run_child(seed, pending, outcomes))
    facts = {
        "failures": [f"case {k}: {one.kind}: {one.outcome}" for k, one in outcomes.items() if one.outcome not in GOOD],
        "children": len(growth),
        # From the tenth case of a child to its last; what stays is the allocator's.
        "largest_growth_of_a_child_mib": max(growth),
    }
    settings = {"cases": count, "seed": seed, "files": SOURCES, "max_seconds": MAX_SECONDS}
    settings |= {"max_growth_mib": MAX_GROWTH_MIB, "address_space_gib": ADDRESS_SPACE >> 30}
    rows = [summarise(kind, [one for one in outcomes.values() if one.kind == kind]) for kind in KINDS]
    return Measurement(header=make_header(), script="fuzz_models", settings=settings, rows=rows, facts=facts)


def summarise(kind: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the row of a kind."""
    counts = {name.replace(" ", "_"): sum(one.outcome == name for one in outcomes) for name in GOOD}
    return {
        "kind": kind,
        "cases": len(outcomes),
        **counts,
        "failed": len(outcomes) - sum(counts.values()),
        "slowest_s": round(max((one.seconds for one in outcomes), default=0.0), 3),
        "largest_growth_mib": round(max((one.growth_mib for one in outcomes), default=0.0), 1),
    }


def run_child(seed: int, cases: range, outcomes: dict[int, Outcome]) -> float:
    """Run cases in one child until it ends, or until one crashes or hangs; return how much memory it gained, in MiB."""
    context = multiprocessing.get_context("spawn")  # no threads and no engine of this process
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(sender, seed, cases), daemon=True)
    child.start()
    sender.close()
    sizes: list[float] = []
    for case in cases:
        limit = MAX_SECONDS if sizes else 10 * MAX_SECONDS  # the first case waits for the imports
        try:
            if not receiver.poll(limit):
                outcomes[case] = Outcome(KINDS[case % len(KINDS)], "hangs", limit, 0.0)
                break
            outcome, size = receiver.recv()
        except EOFError:
            child.join()
            outcomes[case] = Outcome(KINDS[case % len(KINDS)], f"crashes with exit code {child.exitcode}", 0.0, 0.0)
            break
        outcomes[case] = outcome
        sizes.append(size)
    child.kill()
    child.join()
    return round(sizes[-1] - sizes[min(9, len(sizes) - 1)], 1) if sizes else 0.0


def work(sender: Connection, seed: int, cases: range) -> None:
    """In the child: run the cases and send each outcome, with the memory of the process in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            answer(shipped.FOLDER / source)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        for case in cases:
            sender.send((try_case(seed, case, Path(folder)), read_memory("VmRSS")))


def try_case(seed: int, case: int, folder: Path) -> Outcome:
    """Write the files of a case to a folder, and open them."""
    rng, kind = random.Random(f"{seed}/{case}"), KINDS[case % len(KINDS)]
    source = shipped.FOLDER / rng.choice(SOURCES)
    path = folder / source.name
    write_case(rng, kind, source, path)
    before, started = reset_peak(), time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            same = answer_of(path) == answer(source)
        outcome = "same answer" if same else "other answer" if "sealed" in kind else "another answer in silence"
    except MachineError as error:
        outcome = f"blames the machine: {error}"
    except EdgeemoError as error:
        outcome = "refused" if path.name in str(error) else f"refuses without its name: {error}"
    except Exception as error:  # noqa: BLE001  any other is a failure, which is reported
        outcome = f"{type(error).__name__}: {error}"
    seconds, growth = time.perf_counter() - started, read_memory("VmHWM") - before
    if growth > MAX_GROWTH_MIB and outcome in GOOD:
        outcome = f"takes {growth:.0f} MiB"
    return Outcome(kind, outcome, seconds, growth)


def write_case(rng: random.Random, kind: str, source: Path, path: Path) -> None:
    """Write a model and its card, one of them mutated."""
    model, card = source.read_bytes(), card_path(source).read_bytes()
    if kind.startswith("model"):
        path.write_bytes(model_mutations.mutate_model(rng, model, (shipped.FOLDER / rng.choice(SOURCES)).read_bytes()))
        card_path(path).write_bytes(card)
        if "sealed" in kind:
            write_card(path, read_source(source))
        return
    path.write_bytes(model)
    card_path(path).write_bytes(
        seal(model_mutations.mutate_json(rng, card)) if "sealed" in kind else any_card(rng, card)
    )


def any_card(rng: random.Random, card: bytes) -> bytes:
    """Mutate a card as JSON, or its bytes."""
    return rng.choice((model_mutations.mutate_text, model_mutations.mutate_json, model_mutations.mutate_bytes))(
        rng, card
    )


def seal(card: bytes) -> bytes:
    """Seal a card again, where it still can be."""
    raw = json.loads(card)
    with suppress(ValueError, TypeError, AttributeError):
        raw["seal"] = compute_seal(raw)
    return json.dumps(raw).encode()


@cache
def read_source(source: Path) -> Card:
    """Return the card of a packaged model."""
    return read_card(source)


@cache
def answer(source: Path) -> tuple[bytes, str]:
    """Return what a packaged model answers."""
    return answer_of(source)


def answer_of(path: Path) -> tuple[bytes, str]:
    """Return the logits of the golden faces, and the prediction for one of them."""
    with open_model(path) as model:
        logits = model.logits(golden.golden_batch(model.card.input))
        return logits.tobytes(), str(model.predict(golden.sample_face()))


def reset_peak() -> float:
    """Forget the peak of this process's memory, where the system can; return its memory now, in MiB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return read_memory("VmHWM")


def read_memory(name: str) -> float:
    """Return an amount of memory of this process, in MiB."""
    return next(int(words[1]) / 1024 for words in read_status() if words[0] == f"{name}:")


def read_status() -> Iterator[list[str]]:
    """Yield the lines of this process's status, in words; Linux."""
    return (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main()
