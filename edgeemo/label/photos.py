"""Which photos are labelled: a name for each that does not depend on the working folder, and its person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from edgeemo.errors import UsageError
from edgeemo.names import clean_name, escape_name, mark_name
from edgeemo.predict.sources import Source

NOBODY = "person"  # of photos that are in no folder below the one that was named


@dataclass(frozen=True)
class Photo:
    """A photo to label. name: its path, with slashes, below the folder that was named. person: name of a folder."""

    source: Source
    name: str
    person: str


def name_photos(sources: Sequence[Source]) -> list[Photo]:
    """Return the photos with their names and persons.

    The person is the first folder below the one that was named. If several were named, or files in several, names start
    with it, and it is the person of the photos directly in it: `photos/anna photos/ben` are the same photos and persons
    as `photos`. Raises UsageError if two photos have the same name.
    """
    different = list(dict.fromkeys(sources))
    bases = {source: _get_base(source) for source in different}
    several = len(set(bases.values())) > 1
    photos: dict[str, Photo] = {}
    for source in different:
        path = PurePath(bases[source].name) / source.inside if several else source.inside
        folder = (path if len(source.inside.parts) < 2 else source.inside).parts[0] if len(path.parts) > 1 else ""
        photo = Photo(source, escape_name(path.as_posix()), _name_person(folder))
        if (other := photos.setdefault(photo.name, photo)) is not photo:
            raise UsageError(
                f"{other.source.name} and {source.name} would have the same name in labels.csv; give the folder that "
                "contains both"
            )
    return list(photos.values())


def _get_base(source: Source) -> Path:
    """Return the folder below which the path `inside` lies."""
    path = Path(source.name).absolute()
    return path.parents[len(source.inside.parts) - 1].resolve()


def _name_person(folder: str) -> str:
    """Return a folder's name as every system allows it; a changed one is marked, so that two of them stay apart."""
    name = clean_name(folder)
    if not folder:
        return NOBODY
    return name if name == folder else mark_name(name, folder)
