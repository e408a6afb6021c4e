"""crop.json: how the faces of a data set were cropped, for the card of a model that is trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgeemo.card import Crop, from_json
from edgeemo.card.keys import SHA256, Key
from edgeemo.data.layouts.tree import Tree, reading_table
from edgeemo.errors import DataError
from edgeemo.names import escape_name
from edgeemo.reading import parse_json

RECORD = "crop.json"
TABLE = "crops.csv"  # what became of each image, for people
FORMAT = 1
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class CropRecord:
    """The file. For crops of another program, `format` and `crop` suffice."""

    format: Annotated[int, Key("format of the file", choices=(FORMAT,))]
    crop: Annotated[Crop, Key("the square around each face")]
    size: Annotated[int | None, Key("input size that turned faces were sampled for", unit="pixels", least=1)] = None
    resized: Annotated[bool | None, Key("whether the crops were resized to it")] = None
    detector: Annotated[str | None, Key("name of the detector")] = None
    detector_sha256: Annotated[str | None, Key("SHA-256 of its file", pattern=SHA256)] = None
    faces: Annotated[str | None, Key("how images were searched; absent: by their size", choices=("few", "many"))] = None
    threshold: Annotated[float | None, Key("lowest score of a face", above=0, most=1)] = None
    several: Annotated[str | None, Key("what was done with several faces", choices=("skip", "largest"))] = None
    edgeemo: Annotated[str | None, Key("version of edgeemo")] = None
    outcomes: Annotated[dict[str, int] | None, Key("number of images by what became of them", least=0)] = None
    crops: Annotated[dict[str, dict[str, int]] | None, Key("number of crops by split and label", least=0)] = None


def read_crop(tree: Tree) -> Crop | None:
    """Return the crop of the faces in a folder or archive; None where no crop.json states it.

    There may be several files, as where folders of crops were put together: DataError if they differ, or for one that
    cannot be read.
    """
    found: dict[str, Crop] = {}
    for name in tree.files:
        if name.rpartition("/")[2] == RECORD:
            found[escape_name(name)] = _read(tree, name).crop
    names = list(found)
    for name in names[1:]:
        if found[name] != found[names[0]]:
            raise DataError(
                f"{tree.path}: {names[0]} states crops with {describe(found[names[0]])}, {name} with "
                f"{describe(found[name])}; faces of one data set are cropped alike: crop the photos again with "
                "edgeemo data crop, or train on one of them"
            )
    return found[names[0]] if names else None


def describe(crop: Crop) -> str:
    """Return the numbers of a crop in words."""
    return (
        f"side_eye_distances {crop.side_eye_distances:g}, below_eyes {crop.below_eyes:g}, turn_from_degrees "
        f"{crop.turn_from_degrees:g}"
    )


def _read(tree: Tree, name: str) -> CropRecord:
    with reading_table(tree, name) as stream:
        content = stream.read(MAX_BYTES + 1)
    where = f"{tree.path}: {escape_name(name)}"
    try:
        return _parse(content)
    except ValueError as error:
        raise DataError(
            f"{where} does not state how faces were cropped ({error}); expected the file that edgeemo data crop writes"
        ) from error


def _parse(content: bytes) -> CropRecord:
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return from_json(CropRecord, parse_json(content))
