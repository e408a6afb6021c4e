"""The settings of a run, stored in its folder when it starts: `--resume` alone continues with them.

Paths are stored absolute, so that a command run in another folder finds them; `typed` keeps their text, and `beside`
the path of the faces and teachers relative to the run folder, for folders that are moved together.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeemo import options
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.options import read_settings, settings
from edgeemo.reading import read_json
from edgeemo.stages import RECIPES, Compress, Train

LOG = "log.json"  # of a training
MAX_BYTES = 64 * 2**20
CHECKPOINTS = "checkpoints"
FINE_TUNING = "learning"  # folder in that of a compression, until its last file is written
COMPRESSION = f"{FINE_TUNING}/settings.json"
PUBLISHED = ("imagenet", "none")  # --weights that are no file
ALWAYS_TYPED = ("run", "out", "resume")
# Settings of a training that do not change its result.
MAY_DIFFER = (
    *("resume", "out", "threads", "workers", "target_accuracy", "checkpoint_steps", "tensorboard", "teacher"),
    *("cache", "skip_unreadable"),
)
# Settings of a training of which the checkpoint compares what they stand for: hashes, labels, the chosen size.
RESOLVED = ("data", "weights", "size", "label_set", "precision")
NOT_ALWAYS_USED = ("backbone_lr",)  # compared by the checkpoint where it has an effect
# Settings of a compression that decide its fine-tuning.
FINE_TUNING_SETTINGS = (
    *("size", "prune", "prune_steps", "importance", "ranking", "round_to", "epochs", "seed", "lr", "qat_lr"),
    *("corrupt_share", "teacher_share", "teacher_temperature", "views"),
)


def make_train_config(typed: dict[str, Any], recipe: str | None) -> Train:
    """Return the config of `edgeemo train`; typed: the options on the command line, recipe: None without --recipe.

    With --resume, settings that are not typed are those of the run in the folder. Raises UsageError if typed ones
    contradict these, or if nothing but --resume is typed and there is no run.
    """
    requested: Train = replace(RECIPES[recipe or "enhanced"], **typed)
    if not requested.resume:
        return requested
    folder, alone = requested.out, recipe is None and not set(typed).difference(MAY_DIFFER)
    stored: Train | None = read_config(folder / LOG, Train) if (folder / LOG).is_file() else None
    started = any((folder / CHECKPOINTS).glob("[0-9]*"))
    if stored is None and alone:
        raise UsageError(_explain_missing_settings(folder, started=started))
    if stored is None or not (started or alone):
        return requested
    chosen = {**_list_recipe_settings(recipe), **typed}
    fixed = set(vars(stored)).difference(MAY_DIFFER, RESOLVED, NOT_ALWAYS_USED)
    _check_contradictions(folder, stored, chosen, fixed=fixed)
    return replace(stored, **{**typed, "out": folder})


def make_compress_config(typed: dict[str, Any]) -> Compress:
    """Return the config of `edgeemo compress`; with --resume, as `make_train_config` does."""
    requested = Compress(**typed)
    if not requested.resume:
        return requested
    folder = requested.out or requested.run / "compressed"
    alone = not set(typed).difference(ALWAYS_TYPED, ["threads", "cache"])
    file = folder / COMPRESSION
    if file.is_file():
        stored: Compress = read_config(file, Compress)
        _check_contradictions(folder, stored, typed, fixed=FINE_TUNING_SETTINGS)
        return replace(stored, **{**typed, "out": requested.out})
    if alone:
        raise UsageError(
            f"{folder} has no interrupted compression to continue: expected {file}.  Start one without --resume, or "
            "repeat the original command with --resume"
        )
    return requested


def read_config(file: Path, config: type) -> Any:
    """Return the config stored in a file; raise IntegrityError if it does not have usable settings."""
    try:
        values = read(file)["config"]
        stored = read_settings(config, {"data": values["data"], **values})
        options.check(stored)
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise _make_unusable_error(file, str(error)) from error
    return stored


def read(file: Path) -> dict[str, Any]:
    """Return the content of a file with stored settings, {} if there is none; raise IntegrityError for another one."""
    try:
        content = read_json(file, max_bytes=MAX_BYTES) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise _make_unusable_error(file, str(error)) from error
    if not isinstance(content, dict):
        raise _make_unusable_error(file, f"expected an object, found a {type(content).__name__}")
    return content


def _make_unusable_error(file: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{file} does not record how the run was started ({why}); delete it, and give all options again"
    )


def describe(config: Any, folder: Path, *, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what is stored of a config: its settings with absolute paths, and their text as typed.

    folder: of the run. earlier: the content of the file that is replaced, whose `typed` holds for unchanged paths.
    """
    stored, typed = settings(make_absolute(config)), {}
    before = earlier or {}
    for name, text in settings(config).items():
        unchanged = before.get("config", {}).get(name) == stored[name]
        original = before.get("typed", {}).get(name, text) if unchanged else text
        if original != stored[name]:
            typed[name] = original
    return {"config": stored, "typed": typed, "beside": _list_relative_paths(config, folder)}


def make_absolute(config: Any) -> Any:
    """Return the config with absolute paths, so that it means the same in every working directory."""
    changes: dict[str, Any] = {}
    for one in options.options(type(config)):
        value = getattr(config, one.name)
        if one.name == "data" and value:
            changes["data"] = join_data(value, _absolute(where)) if (where := get_path(value)) else value
        elif one.name == "weights" and value not in PUBLISHED:
            changes["weights"] = str(_absolute(Path(value)))
        elif one.type is Path and value:
            changes[one.name] = tuple(map(_absolute, value)) if one.many else _absolute(value)
    return replace(config, **changes)


def get_path(data: str) -> Path | None:
    """Return the path of a data set; None for synthetic faces."""
    kind, _, where = data.partition(":")
    return Path(where) if where and kind != "synthetic" else None


def join_data(data: str, path: Path) -> str:
    """Return the data set at another path."""
    return f"{data.partition(':')[0]}:{path}"


def _absolute(path: Path) -> Path:
    """Return an absolute path; .. is resolved, because after a symbolic link it does not cancel the part before it."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _list_relative_paths(config: Any, folder: Path) -> dict[str, Any]:
    """Return the paths of faces and teachers relative to the run folder; none on another drive."""
    faces = get_path(config.data or "")
    try:
        beside = {
            "data": _make_relative(faces, folder) if faces else "",
            "teacher": [_make_relative(path, folder) for path in config.teacher],
        }
    except ValueError:  # on Windows
        return {}
    return {name: paths for name, paths in beside.items() if paths}


def _make_relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())


def _list_recipe_settings(recipe: str | None) -> dict[str, Any]:
    """Return the settings that a recipe changes."""
    default = vars(Train())
    return {name: value for name, value in vars(RECIPES[recipe]).items() if value != default[name]} if recipe else {}


def _check_contradictions(folder: Path, stored: Any, chosen: dict[str, Any], *, fixed: Collection[str]) -> None:
    requested = replace(stored, **chosen)  # with values of the same types
    pairs = {name: (getattr(stored, name), getattr(requested, name)) for name in chosen if name in fixed}
    if different := [(name, *values) for name, values in pairs.items() if values[0] != values[1]]:
        raise UsageError(
            f"{folder} holds a run with other settings: {', '.join(_spell(different))}; leave these options out to "
            "continue it, or choose another --out"
        )


def _spell(different: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [f"--{name.replace('_', '-')} (stored {old}, requested {new})" for name, old, new in different]


def _explain_missing_settings(folder: Path, *, started: bool) -> str:
    if started:
        return (
            f"{folder} has {CHECKPOINTS} but no {LOG} with the settings of the run, as an earlier edgeemo left it; "
            "repeat the original command with --resume"
        )
    return f"{folder} has no run to continue: neither {CHECKPOINTS} nor {LOG}.  Start one without --resume"
