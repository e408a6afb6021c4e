"""Decoded faces in a file: written once, read a few at a time, and checked face by face.

A folder holds pixels.npy (N, size, size[, 3]) uint8, checksums.npy (N,) uint32 with the CRC-32 of each face, and
manifest.json. Faces are read with `preadv`, not mapped: mapped pages count as memory of the process, and a mapped file
that is cut short kills it.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgeemo.artifact import hash_file, write_json
from edgeemo.errors import IntegrityError

PIXELS, CHECKSUMS, MANIFEST = "pixels.npy", "checksums.npy", "manifest.json"
FORMAT = 1
CHECKED_BYTES = 512 * 10**6  # read when a file is opened, evenly spread; every other face is checked when it is read
OWNER_ONLY = 0o600  # the pixels show people


@dataclass(frozen=True)
class Manifest:
    """What a file of faces was made from, and the hashes of what it holds."""

    state: str  # SHA-256 of everything that determines the pixels
    shape: tuple[int, ...]  # of all faces
    content_sha256: str  # of the pixels followed by the votes, as of Faces
    votes_sha256: str  # of these votes
    checksums_sha256: str  # of checksums.npy
    format: int = FORMAT


class StoredPixels:
    """(N, size, size[, 3]) uint8 faces in a file; an index reads its faces into an array.

    Several threads, forked processes and pickled copies may read at once. Raises IntegrityError for a face that is not
    the one that was written.
    """

    def __init__(self, folder: Path, manifest: Manifest, checksums: np.ndarray) -> None:
        self.folder, self.manifest, self.checksums = folder, manifest, checksums
        self.rows = np.arange(manifest.shape[0])
        self.start = len(_make_header(manifest.shape, "|u1"))
        self.file = (folder / PIXELS).open("rb", buffering=0)
        weakref.finalize(self, self.file.close)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read one face by its number, or several by a slice, an array of numbers or a mask."""
        rows = self.rows[index]
        faces = np.empty((rows.size, *self.manifest.shape[1:]), np.uint8)
        for face, row in zip(faces, rows.flat, strict=True):
            self._read(int(row), face)
        found: np.ndarray = faces.reshape(*rows.shape, *self.manifest.shape[1:])
        return found

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        """Refuse to become an array, which numpy would make of all faces."""
        raise TypeError("these faces are on disk; index those that are needed")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.manifest, self.checksums)

    def find_damage(self) -> str:
        """Check CHECKED_BYTES of faces, all if they are fewer; return what is wrong, empty if nothing is."""
        count = min(len(self), max(1, CHECKED_BYTES // prod(self.manifest.shape[1:])))
        try:
            for row in np.linspace(0, len(self) - 1, count).round().astype(np.int64):
                self[row]
        except IntegrityError:
            return f"face {row} is damaged"
        return ""

    def _read(self, row: int, face: np.ndarray) -> None:
        offset, rest = self.start + row * face.nbytes, face.data.cast("B")
        with suppress(OSError):  # a disk that fails
            while rest and (count := os.preadv(self.file.fileno(), [rest], offset)):
                rest, offset = rest[count:], offset + count
        if rest or zlib.crc32(face.data) != self.checksums[row]:
            with suppress(OSError):
                (self.folder / MANIFEST).unlink()  # so that no later start uses it
            raise IntegrityError(
                f"{self.folder / PIXELS}: face {row} is not as it was written, so the disk or another program changed "
                "it; start again with --resume, which makes the file again from the data set"
            )


def open_stored(folder: Path, state: str) -> StoredPixels | str:
    """Open faces that were made from `state`, or return why they must be made; empty text if there are none."""
    if not folder.exists():
        return ""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**{**values, "shape": tuple(values["shape"])})
        if (manifest.state, manifest.format) != (state, FORMAT):
            return "the faces or how they are read have changed"
        header = _make_header(manifest.shape, "|u1")
        with (folder / PIXELS).open("rb") as file:
            intact = file.read(len(header)) == header and file.seek(0, os.SEEK_END) == len(header) + prod(
                manifest.shape
            )
        if not intact or hash_file(folder / CHECKSUMS) != manifest.checksums_sha256:
            return "it is damaged"
        pixels = StoredPixels(folder, manifest, np.load(folder / CHECKSUMS, allow_pickle=False))
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"it is incomplete ({error})"
    return pixels.find_damage() or pixels


class Writer:
    """Writes faces one after the other; continues a file that was interrupted."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape
        self.pixels = _open_for_update(folder / PIXELS)
        self.checksums = _open_for_update(folder / CHECKSUMS)
        self.digest = hashlib.sha256()

    def resume(self) -> int:
        """Keep the intact faces that an interrupted writer left; return their number."""
        header, table = _make_header(self.shape, "|u1"), _make_header(self.shape[:1], "<u4")
        kept, size = 0, prod(self.shape[1:])
        intact = self.pixels.read(len(header)) == header and self.checksums.read(len(table)) == table
        while intact and kept < self.shape[0]:
            face, checksum = self.pixels.read(size), self.checksums.read(4)
            intact = len(face) == size and zlib.crc32(face).to_bytes(4, "little") == checksum
            if intact:
                self.digest.update(face)
                kept += 1
        _cut(self.pixels, header, kept * size)
        _cut(self.checksums, table, kept * 4)
        return kept

    def write(self, face: np.ndarray) -> None:
        """Append a face: (size, size[, 3]) uint8."""
        content = face.tobytes()
        self.pixels.write(content)
        self.checksums.write(zlib.crc32(content).to_bytes(4, "little"))
        self.digest.update(content)

    def finish(self, *, state: str, votes: np.ndarray) -> None:
        """Complete the files, and write the manifest last."""
        for file in (self.pixels, self.checksums):
            file.flush()
            os.fsync(file.fileno())
        self.close()
        self.digest.update(votes.tobytes())
        checksums = hash_file(self.folder / CHECKSUMS)
        manifest = Manifest(state, self.shape, self.digest.hexdigest(), hash_votes(votes), checksums)
        write_json(self.folder / MANIFEST, asdict(manifest))

    def close(self) -> None:
        """Close the files."""
        self.pixels.close()
        self.checksums.close()


def hash_votes(votes: np.ndarray) -> str:
    """Return the hex SHA-256 of (N, K) votes."""
    return hashlib.sha256(votes.tobytes()).hexdigest()


def _make_header(shape: tuple[int, ...], kind: str) -> bytes:
    """Return the header of a .npy file with an array of this shape and type."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open_for_update(path: Path) -> BinaryIO:
    """Open a file for reading and writing that only its owner may open; it is created, but not emptied."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT, OWNER_ONLY), "r+b")  # noqa: PTH123  by its descriptor


def _cut(file: BinaryIO, header: bytes, length: int) -> None:
    """Write the header, keep `length` bytes after it, and place the file's position at the end."""
    file.seek(0)
    file.write(header)
    file.truncate(len(header) + length)
    file.seek(0, os.SEEK_END)
