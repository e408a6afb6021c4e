"""What adaptation costs on one core, and whether every host gives the same adapted probabilities.

python benchmarks/adapt_hosts.py     (writes benchmarks/results/adapt/hosts.json; ends with 1 if a host is off by more)

cost      1,000 drawn faces of 48 px: processor time and peak of NumPy's memory of the fit alone, in a warm process;
          processor time and peak resident memory of `edgeemo adapt`, in a process of its own
formula   probabilities of an adapted file, read from the disk, against those of docs/card.md's formula in plain Python
          floats on the same logits
hosts     the same file in ONNX Runtime and in OpenVINO, whose kernels round differently, with and without the change

Start it with OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1; the command is started so.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from math import exp
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from adapt_shifts import SIX, draw_person
from PIL import Image

from edgeemo import images
from edgeemo.adaptation import adapt_logits, fit_adaptation
from edgeemo.adaptation.fit import PENALTIES, Candidate, Problem
from edgeemo.card import Card
from edgeemo.metrics import softmax
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import Model, open_model, shipped
from edgeemo.runtime.adapting import DECIMALS, LabelledFaces, adapt, compute_logits, save

OUT = Path(__file__).parent / "results" / "adapt" / "hosts.json"
FACES, SHOTS, SIDE = 1000, 2, 48
COMPARED, FITTED_ON = 64, 240  # faces
REPEATS = 5
BACKENDS = ("onnxruntime", "openvino")
MOST = 1e-6  # difference from the formula
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def draw_faces(count: int) -> tuple[np.ndarray, list[str], list[str]]:
    """(count, SIDE, SIDE) uint8 drawn faces, person by person, their labels, and who is on each."""
    people = -(-count // (len(SIX) * SHOTS))
    drawn = list(islice(product(range(people), SIX, range(SHOTS)), count))
    pixels = np.stack([draw_person(*one, size=SIDE) for one in drawn])
    return pixels, [label for _, label, _ in drawn], [f"person-{number}" for number, *_ in drawn]


def make_faces(model: Model, pixels: np.ndarray, labels: list[str], people: list[str]) -> LabelledFaces:
    """The faces as a model sees them."""
    resized = np.stack([images.to_pixels(face, model.card.input) for face in pixels])
    return LabelledFaces(resized, np.array([model.labels.index(label) for label in labels]), people, "python")


def write_faces(folder: Path, pixels: np.ndarray, labels: list[str], people: list[str]) -> None:
    """Write LABEL/PERSON/NUMBER.png."""
    for number, (face, label, person) in enumerate(zip(pixels, labels, people, strict=True)):
        path = folder / label / person / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(path)


def measure_cost(name: str, faces: tuple[np.ndarray, list[str], list[str]], folder: Path) -> dict[str, Any]:
    """Time and memory of the fit alone, and of the command."""
    with open_model(shipped.find(name)) as model:
        given = make_faces(model, *faces)
        logits = compute_logits(model, given.pixels).astype(np.float64) / model.card.temperature

        def fit() -> float:
            start = process_time()
            fit_adaptation(logits, given.truth, model.labels, people=given.people)
            return process_time() - start

        seconds = [fit() for _ in range(REPEATS + 1)][1:]
        tracemalloc.start()
        fit()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    about = {"what": "cost", "model": name, "faces": len(given.truth)}
    return {**about, "fit_s": round(statistics.median(seconds), 3), "fit_bytes": peak, **run_command(name, folder)}


def run_command(name: str, folder: Path) -> dict[str, Any]:
    """Run `edgeemo adapt` on a folder; return its exit code, seconds, and peak resident memory."""
    with tempfile.TemporaryDirectory() as temporary:
        words = ["adapt", name, "--data", f"folder:{folder}", "--people", "folder", "--out", f"{temporary}/a.onnx"]
        start = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeemo", *words], env=os.environ | ONE_CORE, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = perf_counter() - start
    return {
        "exit_code": process.returncode,
        "command_processor_s": round(used.ru_utime + used.ru_stime, 2),
        "command_wall_s": round(wall, 2),
        "command_peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def make_cards(name: str, faces: tuple[np.ndarray, list[str], list[str]]) -> dict[str, Card]:
    """The card of a model, adapted by each form."""
    with open_model(shipped.find(name)) as model:
        given = make_faces(model, *faces)
        _, card = adapt(model, given)
        if card is None or card.adaptation is None:
            sys.exit(f"{name} was not adapted to drawn people")
        logits = compute_logits(model, given.pixels).astype(np.float64) / card.temperature
    problem, cards = Problem(logits, np.arange(logits.shape[1])[None] == given.truth[:, None]), {}
    for form, penalties in PENALTIES.items():
        change, _ = problem.fit(Candidate(form, penalties[0]))
        matrix = tuple(map(tuple, change.matrix.round(DECIMALS).tolist()))
        bias = tuple((card.temperature * change.bias).round(DECIMALS).tolist())
        changed = replace(card.adaptation, form=form, penalty=penalties[0], matrix=matrix, bias=bias)
        cards[form] = replace(card, adaptation=changed)
    return cards


def compute_plain(logits: list[float], card: Card) -> list[float]:
    """K probabilities of one face, as docs/card.md says, in plain Python floats."""
    if card.adaptation:
        rows = zip(card.adaptation.matrix, card.adaptation.bias, strict=True)
        logits = [sum(a * b for a, b in zip(row, logits, strict=True)) + bias for row, bias in rows]
    top = max(logits)
    powers = [exp((one - top) / card.temperature) for one in logits]
    return [one / sum(powers) for one in powers]


def compare_hosts(name: str, faces: tuple[np.ndarray, list[str], list[str]], folder: Path) -> Iterator[dict[str, Any]]:
    """A row per form and host against the formula, and a row per form of the hosts against each other."""
    for form, card in make_cards(name, faces).items():
        path = save(shipped.find(name), card, folder / f"{name}-{form}.onnx")
        adapted, unadapted = [], []
        for backend in BACKENDS:
            with open_model(path, backend=backend) as model:
                pixels = make_faces(model, *faces).pixels[-COMPARED:]
                logits = compute_logits(model, pixels)
                plain = np.array([compute_plain(row, model.card) for row in logits.tolist()])
                given = model.probabilities(pixels)
            adapted.append(given)
            unadapted.append(softmax(logits, temperature=card.temperature))
            about = {"model": name, "form": form, "backend": backend, "faces": COMPARED}
            yield {"what": "formula", **about, "largest_difference": float(abs(given - plain).max())}
        yield {
            "what": "hosts",
            "model": name,
            "form": form,
            "faces": COMPARED,
            "adapted_largest_difference": float(abs(adapted[0] - adapted[1]).max()),
            "unadapted_largest_difference": float(abs(unadapted[0] - unadapted[1]).max()),
            "adapted_same_label": int((adapted[0].argmax(1) == adapted[1].argmax(1)).sum()),
            "unadapted_same_label": int((unadapted[0].argmax(1) == unadapted[1].argmax(1)).sum()),
            "change_largest": float(abs(adapt_logits(logits, card.adaptation) - logits).max()),
        }


def table(result: Measurement) -> Table:
    """A row per model: time and memory."""
    rows = [row for row in result.rows if row["what"] == "cost"]
    head = ("model", "fit alone", "memory of the fit", "whole command", "its peak memory")
    body = [
        (
            row["model"],
            f"{row['fit_s']:.2f} s",
            f"{row['fit_bytes'] / 2**20:.0f} MiB",
            f"{row['command_processor_s']:.1f} s",
            f"{row['command_peak_bytes'] / 2**20:.0f} MiB",
        )
        for row in rows
    ]
    note = (
        f"{rows[0]['faces']:,} faces of {SIDE} px on one core: processor time, and peak resident memory of the process."
    )
    return Table("cost", head, body, note)


def hosts_table(result: Measurement) -> Table:
    """A row per model: the largest differences of its forms."""
    body = []
    for name in shipped.NAMES:
        rows = [row for row in result.rows if row.get("model") == name]
        formula = max(row["largest_difference"] for row in rows if row["what"] == "formula")
        pairs = [row for row in rows if row["what"] == "hosts"]
        cells = [max(row[f"{kind}_largest_difference"] for row in pairs) for kind in ("adapted", "unadapted")]
        body.append((name, *(f"{one:.1e}" for one in (formula, *cells))))
    head = ("model", "from the formula", "adapted, ONNX Runtime and OpenVINO", "unadapted, the same two")
    note = f"Largest difference of a probability, {COMPARED} faces, adapted by bias, diagonal and matrix."
    return Table("hosts", head, body, note)


def main() -> None:
    """Measure, and write the result."""
    faces = draw_faces(FACES)
    some = faces[0][:FITTED_ON], faces[1][:FITTED_ON], faces[2][:FITTED_ON]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_faces(folder / "faces", *faces)
        for name in track(shipped.NAMES, "measuring", total=len(shipped.NAMES), unit="models"):
            rows += [measure_cost(name, faces, folder / "faces"), *compare_hosts(name, some, folder)]
    most = max(row["largest_difference"] for row in rows if row["what"] == "formula")
    facts = {"formula_largest_difference": most, "formula_most": MOST, "formula_kept": most <= MOST}
    settings = {"faces": FACES, "side": SIDE, "repeats": REPEATS, "compared": COMPARED, "fitted_on": FITTED_ON}
    header = make_header(timed=True)
    result = Measurement(header=header, script="adapt_hosts", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    print(table(result).to_markdown(), hosts_table(result).to_markdown(), facts, sep="\n\n")
    sys.exit(0 if facts["formula_kept"] else 1)


if __name__ == "__main__":
    main()
