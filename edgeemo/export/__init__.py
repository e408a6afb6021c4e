"""Write the files with which another program serves a model: `edgeemo build MODEL --for HOST --out DIR`.

Nothing here needs more than the base install.

    triton      a model repository of the Triton Inference Server
    deepstream  a secondary classifier of DeepStream's nvinfer
    web         a static page: edgeemo/web
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

from edgeemo import options
from edgeemo.artifact import check_empty, new_folder
from edgeemo.card import Card, read_card
from edgeemo.errors import UsageError
from edgeemo.runtime import shipped
from edgeemo.runtime.onnx_check import check_file
from edgeemo.stages import EXPORTS, Build

log = logging.getLogger(__name__)


def write_export(config: Build) -> Path:
    """Write a new folder for the host `config.for_` and return its path; nothing is left if that fails.

    Raises UsageError if `out` is missing or not empty, or the model is of the wrong kind.
    """
    options.check(config)
    if config.for_ is None or config.out is None:
        raise UsageError(f"--for {config.for_} writes a new folder: name it with --out DIR")
    check_empty(config.out)
    module = import_module(EXPORTS[config.for_])
    with new_folder(config.out) as folder:
        module.write(config, folder)
    return config.out


def read_model(config: Build, *, target_format: str, suffixes: tuple[str, ...] = (".onnx",)) -> tuple[Path, Card]:
    """Return the file of `config.model`, checked, and its card.

    target_format: of a packaged model, cpu or tensorrt. Raises UsageError for a file with another suffix;
    IntegrityError for a damaged or refused file, or one that its card does not describe.
    """
    file = shipped.find(config.model, target_format=target_format)
    if file.suffix not in suffixes:
        raise UsageError(
            f"{config.model}: --for {config.for_} takes {', '.join(shipped.NAMES)}, or a file ({', '.join(suffixes)})"
        )
    card = read_card(file)
    if file.suffix == ".onnx":
        check_file(file)
    return file, card
