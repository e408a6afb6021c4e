"""Data sets larger than memory: their decoded faces are kept on disk and read from there batch by batch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache as remember
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import PIL

from edgeemo import __version__, image_files, images
from edgeemo.artifact import check_writable, hash_file
from edgeemo.card import InputContract
from edgeemo.data import faces
from edgeemo.data.faces import Faces, LabelledSamples, describe_faces
from edgeemo.data.stored import FORMAT, OWNER_ONLY, PIXELS, Writer, open_stored
from edgeemo.errors import MachineError
from edgeemo.labels import LabelSet
from edgeemo.memory import available_memory, format_bytes
from edgeemo.packages import require
from edgeemo.progress import track

log = logging.getLogger(__name__)
MEMORY_SHARE = 0.5  # of the available memory that faces may take; the rest is for the network and its training
FOLDER = "decoded-faces"  # in the output folder of a stage, without --cache
STATED_BYTES = 10**9  # faces that need less go into memory without a word
DISK_SHARE = 0.95  # of the free disk space that they may take
STATE = "state"  # file in the folder of unfinished faces
OURS = re.compile(r"\.?(train|valid|test)-\d+px-[a-z0-9]+-[0-9a-f]{10}(\.lock|\.partial)?")


@dataclass(frozen=True)
class Cache:
    """A folder for decoded faces."""

    folder: Path
    given: bool  # by --cache: it is used whatever the memory is, and kept

    @classmethod
    def choose(cls, given: Path | None, out: Path) -> Cache:
        """Return the folder given with --cache, or else one inside the output folder of the stage."""
        return cls(given or out / FOLDER, given is not None)

    def is_needed(self, size: int) -> bool:
        """Return whether faces that would take `size` bytes of memory are to be kept on disk."""
        available = available_memory()
        return self.given or (available is not None and size > MEMORY_SHARE * available)

    def remove(self) -> None:
        """Remove what was kept for a command that has finished, unless the folder was given with --cache."""
        if self.given or not self.folder.is_dir():
            return
        for entry in self.folder.iterdir():
            if OURS.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            self.folder.rmdir()


@dataclass(frozen=True)
class Listed:
    """The faces of some splits with their labels, before any of them is read."""

    data: str
    labels: LabelSet
    protocol: str
    splits: dict[str, LabelledSamples]

    def load(self, contract: InputContract, *, cache: Cache, threads: int) -> tuple[Faces, ...]:
        """Read the faces of every split into memory, or onto disk if they would take more than half of the memory.

        Raises MachineError before any face is read if neither has room, and DataError with the name of an unreadable
        face.
        """
        faces.warn_of_other_crop(self.data, contract)
        size = sum(len(split.samples) for split in self.splits.values()) * prod(contract.pixels)
        memory = available_memory()
        available = "" if memory is None else f"; {format_bytes(memory)} of memory are available"
        needed = f"{self._describe(contract)} need {format_bytes(size)}{available}"
        if not cache.is_needed(size * _count_processes()):
            if size >= STATED_BYTES:
                log.info("%s", needed)
            decode = partial(faces.decode, contract=contract, threads=threads)
            return tuple(decode(labelled, what=f"{split} faces") for split, labelled in self.splits.items())
        self._check_place(cache)
        stored = [
            StoredFaces(self._choose_folder(cache, split, contract), f"{split} faces", labelled, contract)
            for split, labelled in self.splits.items()
        ]
        _check_disk(cache, sum(one.missing_bytes for one in stored), needed)
        return tuple(one.load(threads) for one in stored)

    def _describe(self, contract: InputContract) -> str:
        counts = " and ".join(f"{len(labelled.samples):,} {split}" for split, labelled in self.splits.items())
        return describe_faces(f"{counts} faces", contract)

    def _check_place(self, cache: Cache) -> None:
        """Raise UsageError for a cache inside a data set."""
        faces.check_outside(cache.folder, self.data, option="--cache")

    def _choose_folder(self, cache: Cache, split: str, contract: InputContract) -> Path:
        """Return the same folder for the same data set, even if its files have changed: they replace each other."""
        kind, _, where = self.data.partition(":")
        path = str(Path(where).resolve()) if Path(where).exists() else where
        facts = [kind, path, self.labels.labels, self.protocol]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return cache.folder / f"{split}-{contract.size}px-{contract.colour}-{digest[:10]}"


def list_faces(
    data: str, splits: Sequence[str], labels: LabelSet, *, protocol: str, skip_unreadable: bool = False
) -> Listed:
    """List and label the faces of some splits; skip_unreadable: only those that can be read."""
    label = partial(faces.list_labelled, data, labels=labels, protocol=protocol, skip_unreadable=skip_unreadable)
    return Listed(data, labels, protocol, {split: label(split) for split in splits})


@dataclass(frozen=True)
class StoredFaces:
    """The faces of one split, in a folder of a cache."""

    folder: Path
    what: str
    labelled: LabelledSamples
    contract: InputContract

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, size, size[, 3])."""
        return (len(self.labelled.samples), *self.contract.pixels)

    @property
    def unfinished(self) -> Path:
        """The folder in which the faces are written."""
        return self.folder.with_name(f".{self.folder.name}.partial")

    @property
    def missing_bytes(self) -> int:
        """Bytes to write; those of an existing file count as there, because it is continued or replaced."""
        files = (self.folder / PIXELS, self.unfinished / PIXELS)
        return max(0, prod(self.shape) - sum(file.stat().st_size for file in files if file.is_file()))

    def load(self, threads: int) -> Faces:
        """Open the faces; write them first if they are missing, out of date or damaged."""
        state = _hash_state(self.labelled, self.contract)
        pixels = open_stored(self.folder, state)
        if isinstance(pixels, str):
            with _lock(self.folder):
                pixels = open_stored(self.folder, state)  # another process may have written them meanwhile
                if isinstance(pixels, str):
                    if pixels:
                        log.warning("%s is written again: %s", self.folder, pixels)
                    self._write(state, threads)
                    pixels = open_stored(self.folder, state)
        if isinstance(pixels, str):
            raise MachineError(f"{self.folder} cannot be read after it was written: {pixels or 'it is gone'}")
        ids = [sample.id for sample in self.labelled.samples]
        return Faces(pixels, self.labelled.votes, self.labelled.truth, ids)

    def _write(self, state: str, threads: int) -> None:
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._prepare(state)
            self._decode(state, threads)
            (self.unfinished / STATE).unlink()
            self.unfinished.rename(self.folder)
        except OSError as error:
            shutil.rmtree(self.unfinished, ignore_errors=True)  # else it keeps the disk full
            raise MachineError(
                f"cannot write {self.folder}: {error.strerror or error}; choose another folder with --cache FOLDER"
            ) from error

    def _prepare(self, state: str) -> None:
        """Make the folder of the unfinished faces, and empty it if they are of another state."""
        file = self.unfinished / STATE
        if not file.is_file() or file.read_text(encoding="utf-8") != state:
            shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(state, encoding="utf-8")

    def _decode(self, state: str, threads: int) -> None:
        writer = Writer(self.unfinished, self.shape)
        try:
            done = writer.resume()
            if done:
                log.info("%s: continuing after %d of %d", self.folder, done, self.shape[0])
            samples = self.labelled.samples[done:]
            decoded = faces.decode_each(samples, self.contract, threads=threads)
            for face in track(decoded, f"reading {self.what}", total=len(samples), unit="faces"):
                writer.write(face)
            writer.finish(state=state, votes=self.labelled.votes)
        finally:
            writer.close()


def _check_disk(cache: Cache, missing: int, needed: str) -> None:
    """Say where the faces are kept; raise MachineError if there is no room for them."""
    existing = next(folder for folder in (cache.folder, *cache.folder.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > DISK_SHARE * free:
        raise MachineError(
            f"{needed}, and {format_bytes(free)} of disk for {cache.folder}: choose a folder on a larger "
            "disk with --cache FOLDER, or a smaller --size"
        )
    kept = "kept until you delete it" if cache.given else "removed when this command has finished; keep it with --cache"
    log.info("%s: they are read from %s, %s", needed, cache.folder, kept)


def _count_processes() -> int:
    """Return the processes of torchrun on this machine, each of which loads all faces."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock a folder of faces; wait for a process that is writing it."""
    locks = require("filelock", extra="train", purpose="keeping faces on disk")
    check_writable(folder.parent)
    lock = locks.FileLock(folder.with_name(f"{folder.name}.lock"), mode=OWNER_ONLY)
    try:
        lock.acquire(blocking=False)
    except locks.Timeout:
        log.info("waiting for another process that writes %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _hash_state(labelled: LabelledSamples, contract: InputContract) -> str:
    """Return a hash of what determines the pixels: the files by size and times, the contract, and the decoder.

    The time of the last status change (ctime) also differs after a file was replaced with the times of the old one.
    """
    code = sorted(map(hash_file, _list_decoder_files()))
    facts = [FORMAT, __version__, PIL.__version__, np.__version__, contract.size, contract.colour, code]
    digest = hashlib.sha256(json.dumps(facts).encode())
    stamp = remember(_stamp)  # thousands of faces may be in one archive
    for sample in labelled.samples:
        stamps = " ".join(map(stamp, sample.sources))
        digest.update(f"{sample.id}\0{stamps}\n".encode())
    digest.update(labelled.votes.tobytes())
    return digest.hexdigest()


def _list_decoder_files() -> list[Path]:
    """Return the files of edgeemo's code that decodes, draws and resizes faces."""
    packages = (Path(image_files.__file__).parent, Path(__file__).parent)
    return [Path(images.__file__), *(file for package in packages for file in package.rglob("*.py"))]


def _stamp(source: str) -> str:
    """Return size and times of the file of a face; those of a missing one never stay, because reading it fails."""
    try:
        about = os.stat(source)  # noqa: PTH116  a Path takes longer than this
    except OSError:
        return "missing"
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
