"""The adapt stage: fit a model to labelled faces from where it runs, show what that gains, and write it if it does."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from edgeemo import options
from edgeemo.adapt import plots
from edgeemo.adapt.people import find_people
from edgeemo.adapt.result import Adapted, Check, Undone
from edgeemo.adaptation import adapt_logits
from edgeemo.artifact import check_file
from edgeemo.card import Card, write_card
from edgeemo.card.history import make_entry
from edgeemo.data import faces
from edgeemo.data.sample import NoSuchSplit, Sample
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet
from edgeemo.metrics import compare_paired, scores, softmax
from edgeemo.runtime import Model, open_model
from edgeemo.runtime.adapting import LabelledFaces, adapt, check_new, compute_logits, remove, save
from edgeemo.stages import Adapt


def run(config: Adapt) -> Adapted | Undone:
    """Adapt as configured, or undo an adaptation; no file is written if no gain is shown."""
    options.check(config)
    if not (config.undo or config.data):
        raise UsageError("no faces: name them with --data, such as folder:PATH with a folder per label")
    with open_model(config.model, labels=config.label_set) as model:
        if config.undo:
            return _undo(model, config)
        out = _choose_path(config, model)
        start = perf_counter()
        labelled = _load(config, config.data or "", model, people=config.people)
        fitted, card = adapt(model, labelled, closed=config.closed)
        check = _check(config, model, card or model.card)
        if config.plot:
            plots.draw_curve(fitted.evidence, config.plot)
        path = None
        if card and (fitted.shown or config.unproven):
            entry = make_entry("adapt", config, seconds=perf_counter() - start, parent=model.card.sha256)
            path = save(model.path, card.with_entry(entry), out)
    return Adapted(model.path.name, fitted, path, config.closed, check)


def _undo(model: Model, config: Adapt) -> Undone:
    start, card = perf_counter(), remove(model.card)
    entry = make_entry("undo adaptation", config, seconds=perf_counter() - start, parent=card.sha256)
    write_card(model.path, card.with_entry(entry))
    return Undone(model.path)


def _choose_path(config: Adapt, model: Model) -> Path:
    """Return the path of the adapted model; raise an error before anything is measured if it cannot be written."""
    out = config.out or Path(f"{model.path.stem}-adapted{model.path.suffix}")
    check_new(out, model.path.suffix)
    if config.plot and config.plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {config.plot}: expected a name that ends with .png")
    for path in filter(None, (out, config.plot)):
        check_file(path)
    return out


def _load(config: Adapt, data: str, model: Model, *, people: str | None) -> LabelledFaces:
    labelled = faces.label(_list_samples(config, data, model.label_set), model.label_set, protocol=config.protocol)
    faces.warn_of_other_crop(data, model.card.input)
    found = faces.decode(labelled, model.card.input, what="labelled faces")
    who = find_people(people, found.ids, (*model.card.labels, *model.labels)) if people else None
    return LabelledFaces(found.pixels[:], found.truth, who, faces.kind_of(data))


def _list_samples(config: Adapt, data: str, labels: LabelSet) -> list[Sample]:
    """Return the faces of --split, or of all splits that the data have, in the order of their names."""
    opened = None if config.split else faces.open_data(data)
    samples: list[Sample] = []
    for split in [config.split or "train"] if opened is None else opened.sources:
        with nullcontext() if config.split else suppress(NoSuchSplit):  # few faces leave none for a valid split
            samples += faces.list_split(data, split, labels, skip_unreadable=config.skip_unreadable)
    return sorted(samples, key=lambda one: one.id)


def _check(config: Adapt, model: Model, card: Card) -> Check | None:
    """Measure the model before and after on faces of another place."""
    if not config.check:
        return None
    other = _load(replace(config, split=None), config.check, model, people=None)
    logits = compute_logits(model, other.pixels)
    before = model.merge_probabilities(logits)
    merge = np.eye(len(model.labels))[list(model.label_set.map_labels(card.labels))]
    after = softmax(adapt_logits(logits, card.adaptation), temperature=card.temperature) @ merge
    first, second = (scores(one, other.truth, model.labels) for one in (before, after))
    paired = compare_paired(before.argmax(1), after.argmax(1), other.truth, model.labels)
    return Check(config.check, first, second, paired)
