"""The run folder: model.safetensors with its card, never a pickled module, and the log with the settings."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgeemo import resume
from edgeemo.artifact import atomic_write, hash_lines
from edgeemo.card import Card, read_card, write_card
from edgeemo.data.faces import list_labelled
from edgeemo.errors import DataError, IntegrityError, UsageError
from edgeemo.labels import label_set
from edgeemo.options import check, read_settings
from edgeemo.resume import LOG
from edgeemo.stages import Train
from edgeemo.train import checkpoint
from edgeemo.train.network import EmotionNet, build

log = logging.getLogger(__name__)
MODEL = "model.safetensors"


def save(network: EmotionNet, card: Card, folder: Path) -> Path:
    """Write model.safetensors and its card; return the path of the model."""
    path = folder / MODEL
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as partial:
        save_file(state, partial)
    write_card(path, card)
    return path


def holds_training(folder: Path) -> bool:
    """Return whether a training run, finished or not, has written to the folder."""
    return (folder / LOG).is_file() or bool(checkpoint.list_checkpoints(folder))


def load(folder: Path) -> tuple[EmotionNet, Card]:
    """Load the network of a run folder, in evaluation mode, and its card."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file; expected the run folder of  edgeemo train, which holds {MODEL}")
    path = folder / MODEL
    card = read_card(path)
    network = build(card.architecture)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise IntegrityError(f"{path} does not fit the architecture in its card: {error}") from error
    return network.eval(), card


def load_config(folder: Path, card: Card, *, data: str | None = None) -> Train:
    """Return the settings of the run, from its log or else its card, which has no folders; `data` overrides theirs.

    Without `data`, the faces are those of the log; see `locate_faces`.
    """
    file = folder / LOG
    if file.is_file():
        config: Train = resume.read_config(file, Train)
        return replace(config, data=data or locate_faces(folder, config))
    try:
        config = read_settings(Train, {"data": card.history[0].config["data"], **card.history[0].config})
        check(config)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, UsageError) as error:
        source = folder / MODEL
        raise IntegrityError(f"{source} does not record how the run was trained ({error}); train it again") from error
    if not data and config.data.partition(":")[0] != "synthetic":
        raise UsageError(f"{file} is missing, so the path of the faces is unknown; give it with --data")
    return replace(config, data=data or config.data)


def locate_faces(folder: Path, config: Train) -> str:
    """Return the data set of a run; `config` is that of its log.

    If its path is gone, the faces are looked for where they were relative to the run folder, and accepted if
    their ids are those of the log. Raises UsageError with what to type if they are not there.
    """
    path = resume.get_path(config.data)
    if path is None or path.exists():
        return config.data
    log_content = resume.read(folder / LOG)
    if beside := log_content.get("beside", {}).get("data"):
        moved = resume.join_data(config.data, (folder / beside).resolve())
        if _has_faces(replace(config, data=moved), log_content):
            log.warning("%s is gone; using %s, which has the faces of the run", path, moved.partition(":")[2])
            return moved
    typed = log_content.get("typed", {}).get("data")
    original = f" (typed as {typed})" if typed else ""
    raise UsageError(
        f"{folder} was trained on {config.data}{original}, which does not exist; give its present path:  --data "
        f"{config.data.partition(':')[0]}:PATH"
    )


def _has_faces(config: Train, log_content: dict[str, Any]) -> bool:
    stored = log_content.get("faces", {})
    return bool(stored) and all(_hash_ids(config, split) == about["ids_sha256"] for split, about in stored.items())


def _hash_ids(config: Train, split: str) -> str:
    """Return the fingerprint of the ids of a split; empty if there is no such data set."""
    labels, skip = label_set(config.label_set), config.skip_unreadable
    try:
        found = list_labelled(config.data, split, labels, protocol=config.protocol, skip_unreadable=skip)
    except (DataError, UsageError):
        return ""
    return hash_lines([sample.id for sample in found.samples])


def locate_inputs(config: Train) -> Train:
    """Return the config of a resumed run with the present paths of its faces and teachers, if it has those of the log.

    A teacher that is gone is looked for where it was relative to the run folder; what it predicts is compared later.
    """
    file = config.out / LOG
    if not file.is_file():
        return config
    stored, requested = resume.read_config(file, Train), resume.make_absolute(config)
    beside = resume.read(file).get("beside", {}).get("teacher", [])
    if requested.data == stored.data:
        config = replace(config, data=locate_faces(config.out, requested))
    if requested.teacher == stored.teacher and len(beside) == len(stored.teacher):
        moved = [(config.out / path).resolve() for path in beside]
        present = [old if old.is_dir() else new for old, new in zip(stored.teacher, moved, strict=True)]
        config = replace(config, teacher=tuple(present))
    return config


def is_finished(config: Train) -> bool:
    """Return whether the run folder has the finished and intact model of these settings."""
    file = config.out / LOG
    if not resume.read(file).get("epochs"):
        return False
    try:
        read_card(config.out / MODEL)
    except IntegrityError:
        return False
    both = (resume.read_config(file, Train), config)
    free = dict.fromkeys(set(resume.MAY_DIFFER).difference(["teacher"]))
    stored, requested = (vars(resume.make_absolute(one)) | free for one in both)
    return bool(stored == requested)
