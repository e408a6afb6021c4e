"""The label stage: find the faces, sort them, and show them in a page or the terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from edgeemo import __version__, options
from edgeemo.card import InputContract
from edgeemo.data.crop_record import FORMAT, CropRecord
from edgeemo.errors import DataError, UsageError, known
from edgeemo.faces import load_detector
from edgeemo.faces.passes import Faces
from edgeemo.faces.search import SearchDetector
from edgeemo.label.find import Candidate, cut, find_candidates
from edgeemo.label.photos import name_photos
from edgeemo.label.queue import sort_candidates
from edgeemo.label.server import label_in_page
from edgeemo.label.session import Session
from edgeemo.label.store import Store
from edgeemo.label.terminal import label_in_terminal
from edgeemo.labels import LABEL_SETS, OWN, LabelSet
from edgeemo.names import count, is_portable_name
from edgeemo.predict.sources import Source, list_sources
from edgeemo.runtime import load
from edgeemo.stages import Label, after_label

log = logging.getLogger(__name__)


def run(config: Label) -> Path:
    """Label as configured; return the folder.

    Raises DataError if there is no photo or no face, or nothing was labelled; UsageError for a folder that would be
    read as photos, or was not written by this stage, for unknown labels, and for a port in use.
    """
    options.check(config)
    sources = _list_sources(config)
    _check_outside(config, sources)
    photos = name_photos(sources)
    with load(config.model) as model:
        labels = choose_labels(config.labels, model.labels)
        detector = None if config.crop else _open_detector(config)
        contract = model.card.input
        store = Store(config.out, model.labels, _make_record(config, contract, detector))
        faces = find_candidates(photos, model, detector)
    if not faces:
        raise DataError(
            f"no face found in {count(len(photos), 'photo')}; use --crop if they are ready crops of faces, or --faces "
            "many for small faces"
        )
    store.prepare()
    _label(config, Session(_sort(config, faces, store), faces, store, labels, partial(cut, contract=contract)))
    done = store.count_labels().total()
    if not done:
        raise DataError(f"{config.out} holds no labelled face; label some with the same command")
    log.info("%s: %s labelled", config.out, count(done, "face"))
    return config.out


def choose_labels(chosen: Sequence[str], predicted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels to offer, as the model names them; without a choice all that it predicts.

    chosen: labels or synonyms, or one name of a label set; none is merged into another. Raises UsageError for one that
    the model does not predict.
    """
    names = LABEL_SETS[chosen[0]].labels if len(chosen) == 1 and chosen[0] in LABEL_SETS else tuple(chosen)
    find = LabelSet(OWN, predicted).find
    if unknown := [name for name in names if find(name) is None]:
        raise known("label", unknown[0], (*predicted, f"or one of the label sets {', '.join(LABEL_SETS)}"))
    offered = tuple(dict.fromkeys(predicted[k] for name in names if (k := find(name)) is not None)) or predicted
    if bad := [label for label in offered if not is_portable_name(label)]:
        raise UsageError(f"the label {bad[0]!r} cannot be the name of a folder on every system; expected another model")
    return offered


def _list_sources(config: Label) -> list[Source]:
    failed: list[DataError] = []
    sources = list_sources(config.photos, failed)
    if not sources:
        raise failed[0] if failed else UsageError("no photo; name photos or folders of them")
    for error in failed:
        log.warning("left out: %s", error)
    return sources


def _check_outside(config: Label, sources: Sequence[Source]) -> None:
    """Raise UsageError if the crops would lie among the photos, where the next call would take them for photos."""
    out = config.out.resolve()
    folders = [path.resolve() for path in config.photos if os.path.isdir(path)]  # noqa: PTH112  never raises
    if any(out.is_relative_to(folder) for folder in folders):
        raise UsageError(f"--out {config.out} lies inside the folder of photos; choose one outside it")
    if inside := next((one for one in sources if one.path and one.path.resolve().is_relative_to(out)), None):
        raise UsageError(f"{inside.name} lies inside --out {config.out}; choose another --out, or other photos")


def _open_detector(config: Label) -> SearchDetector:
    return load_detector(config.detector, faces=cast("Faces | None", config.faces), threshold=config.threshold)


def _make_record(config: Label, contract: InputContract, detector: SearchDetector | None) -> CropRecord | None:
    """Return how faces are cropped; None for ready crops, of which that is not known."""
    if detector is None:
        return None
    return CropRecord(
        FORMAT,
        contract.face_crop,
        size=contract.size,
        resized=False,
        detector=detector.card.name,
        detector_sha256=detector.card.sha256,
        faces=config.faces,
        threshold=detector.threshold,
        edgeemo=__version__,
    )


def _sort(config: Label, faces: Sequence[Candidate], store: Store) -> list[Candidate]:
    new = store.leave_out_known(faces)
    people = len({one.person for one in faces})
    who = "one person" if people == 1 else f"{people} people"
    log.info("%s of %s; %d to label", count(len(faces), "face"), who, len(new))
    return sort_candidates(new, order=config.order, labelled=store.count_people())


def _label(config: Label, session: Session) -> None:
    if session.shown is None:
        log.info("every face is labelled or skipped already")
    elif config.terminal:
        label_in_terminal(session)
    else:
        label_in_page(
            session, port=config.port, browser=config.browser, following=f"edgeemo {after_label(config, config.out)}"
        )
