"""Which images the arguments of predict name: files, folders, and patterns that no shell has expanded."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePath

import numpy as np

from edgeemo import images
from edgeemo.errors import DataError
from edgeemo.image_files import NAMES
from edgeemo.names import IMAGE_SUFFIXES, count, escape_name, is_image_name, list_images
from edgeemo.runtime.golden import sample_face

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """An image to predict.

    path: None for the packaged sample. inside: its path below the folder, or the fixed part of the pattern, that was
    named; of a file that was named, its name.
    """

    path: Path | None
    inside: PurePath

    @property
    def name(self) -> str:
        """The path as it was named, or that it is the sample."""
        return str(self.path or self.inside)

    def read(self) -> np.ndarray:
        """Return the upright image, (H, W) or (H, W, 3) uint8; raise DataError as `images.read` does."""
        if self.path is None:
            return sample_face()
        if _is_missing(self.path):
            raise _make_missing_error(self.path)
        return images.read(self.path)


SAMPLE = Source(None, PurePath("sample"))


def list_sources(paths: Sequence[Path], failed: list[DataError]) -> list[Source]:
    """Return all images, in order; errors of folders and patterns are added to `failed`.

    A path that does not exist may be a pattern for files: *, ?, [...], and ** for folders of any depth.
    """
    return [source for path in paths for source in _list_sources(path, failed)]


def _list_sources(path: Path, failed: list[DataError]) -> list[Source]:
    if os.path.isdir(path):  # noqa: PTH112  Path's raises an error where a folder above is locked
        return _list_folder(path, failed)
    if has_magic(str(path)) and not os.path.lexists(path) and not URL.match(path.as_posix()):
        return _match(path, failed)
    return [Source(path, PurePath(path.name))]


def _is_missing(path: Path) -> bool:
    """Return whether there is no such file; False where the system refuses to tell, which reading it explains."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _make_missing_error(path: Path) -> DataError:
    if found := URL.match(path.as_posix()):  # a path has no two slashes in a row
        url = f"{found[1]}://{path.as_posix()[found.end() :]}"
        return DataError(f"{url} is a URL, which is not read; download the image and name its file")
    return DataError(
        f"{path} does not exist; expected a {NAMES} image, a folder of images, or a pattern such as 'photos/*.jpg'"
    )


def _match(pattern: Path, failed: list[DataError]) -> list[Source]:
    """Return the images that a pattern matches, sorted."""
    base = next(folder for folder in pattern.parents if not has_magic(str(folder)))
    matches = map(Path, sorted(glob(str(pattern), recursive=True)))  # noqa: PTH207  Path's also matches hidden files
    found = [file for file in matches if is_image_name(file.name) and not os.path.isdir(file)]  # noqa: PTH112
    if not found:
        failed.append(DataError(f"{pattern} matches no image; expected files that end in {', '.join(IMAGE_SUFFIXES)}"))
    return [Source(file, file.relative_to(base)) for file in found]


def _list_folder(path: Path, failed: list[DataError]) -> list[Source]:
    """Return the images in a folder and below it."""
    found, others, locked = list_images(path)
    failed += [DataError(f"{folder} cannot be listed; make it readable or leave it out") for folder in locked]
    if not found and not locked:
        failed.append(DataError(f"{path} holds no images; expected files that end in {', '.join(IMAGE_SUFFIXES)}"))
    log.info("%s: %s", path, count(len(found), "image"))
    if others:
        log.warning(
            "%s: %s of another type not read, such as %s", path, count(len(others), "file"), escape_name(others[0].name)
        )
    return [Source(file, file.relative_to(path)) for file in found]
