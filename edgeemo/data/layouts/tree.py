"""The files of a data set, in a folder, a zip or a tar archive, with the same operations for all of them.

Hidden and system files and folders are passed over, counted, and named once in the log.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from edgeemo import images
from edgeemo.data.sample import log_once
from edgeemo.errors import DataError
from edgeemo.limits import check_shortage
from edgeemo.names import escape_name, is_system_name

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLE_ADVICE = "tables of faces are read with --data fer2013:FILE.csv or --data ferplus:FILE.csv"
ENCRYPTED, UTF8 = 1, 1 << 11  # bits of a zip entry's flags
MAX_DEPTH = 12  # folders inside folders
MAX_IMAGE_BYTES = 256 * 2**20  # of one image inside an archive
MAX_TAR_BYTES = 2 * 2**30  # of all files of a tar archive, which are held in memory

# Errors of a damaged archive, by the damaged field: checksum, stream, length, method, encryption flag, name.
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, OSError),
)


class Tree(Protocol):
    """The visible files and folders below a root; names are relative, with slashes, sorted part by part."""

    path: Path
    files: list[str]
    folders: list[str]
    passed_over: list[str]  # hidden files, system files and folders; names of folders end in a slash

    def get_source(self, name: str) -> str:
        """Return the path of the file on disk that holds a file of the tree: itself, or the archive."""

    def open(self, name: str) -> BinaryIO:
        """Open a file; raise DataError if it is missing or damaged."""

    def read_image(self, name: str, image: str = "") -> np.ndarray:
        """Decode an image file as images.read does; errors call it `image`, by default `name`."""


def open_tree(path: Path, *, expected: str) -> Tree:
    """List a folder or archive; raise DataError for anything else, with the files that are expected in it."""
    if path.is_dir():
        tree: Tree = FolderTree(path)
    elif not path.exists():
        raise DataError(f"{path} does not exist; expected {expected}, in a folder or archive ({', '.join(ARCHIVES)})")
    elif not path.is_file():
        raise DataError(f"{path} is a device or pipe; expected {expected}, in a folder or archive")
    elif zipfile.is_zipfile(path):
        tree = ZipTree(path)
    else:
        tree = TarTree(path)
    if tree.passed_over:
        count = len(tree.passed_over)
        what = "hidden or system file or folder" if count == 1 else "hidden or system files and folders"
        log_once(f"{path}: passed over {count} {what}, such as {tree.passed_over[0]}")
    return tree


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name."""
    return path.name.lower().endswith(ARCHIVES)


def sort_names(names: list[str]) -> list[str]:
    """Sort relative names folder by folder."""
    return sorted(names, key=lambda name: name.split("/"))


class FolderTree:
    """A folder on disk."""

    def __init__(self, path: Path, *, deep: bool = True) -> None:
        """List the folder; deep: with the folders inside it."""
        self.path = path
        self._deep = deep
        self.files: list[str] = []
        self.folders: list[str] = []
        self.passed_over: list[str] = []
        self._walk("", [])
        self.files, self.folders = sort_names(self.files), sort_names(self.folders)
        self.passed_over = sorted(map(escape_name, self.passed_over))

    def get_source(self, name: str) -> str:
        """Return the path of a file."""
        return f"{self.path}/{name}"

    def open(self, name: str) -> BinaryIO:
        """Open a file; raise DataError if it cannot be opened."""
        try:
            if not (self.path / name).is_file():
                raise DataError(f"{self.path / name} does not exist or is no regular file")
            return (self.path / name).open("rb")
        except OSError as error:
            check_shortage(error)
            raise DataError(f"{self.path / name} cannot be read: {error.strerror}") from error

    def read_image(self, name: str, image: str = "") -> np.ndarray:
        """Decode an image file as images.read does."""
        return images.read(self.path / name, name=image or escape_name(name))

    def _walk(self, folder: str, above: list[tuple[int, int]]) -> None:
        path = self.path / folder if folder else self.path
        try:
            status = path.stat()
            entries = list(os.scandir(path))
        except OSError as error:
            check_shortage(error)
            raise DataError(f"{path} cannot be listed: {error.strerror}; make it readable or remove it") from error
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link to a folder above it
            self.passed_over.append(f"{folder}/")
            self.folders.remove(folder)
            return
        if len(above) > MAX_DEPTH:
            raise DataError(f"{path} is more than {MAX_DEPTH} folders deep; name the folder of the faces itself")
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_folder = entry.is_dir()
            if is_system_name(entry.name):
                self.passed_over.append(f"{name}/" if is_folder else name)
            elif is_folder:
                self.folders.append(name)
                if self._deep:
                    self._walk(name, [*above, identity])
            else:
                self.files.append(name)


class _Archive:
    """What zip and tar archives share: names without folders of their own, and images that are read from bytes."""

    def __init__(self, path: Path, members: dict[str, int], folders: list[str]) -> None:
        """`members`: size in bytes of every file, by name; `folders`: names of empty folders, at least."""
        self.path = path
        self.passed_over: list[str] = []
        files: list[str] = []
        found: set[str] = set()
        hidden: set[str] = set()
        for name in [*members, *(f"{folder}/" for folder in folders)]:
            parts = name.split("/")
            system = next((k for k, part in enumerate(parts) if part and is_system_name(part)), None)
            if system is not None:
                hidden.add("/".join(parts[: system + 1]) + ("/" if system < len(parts) - 1 else ""))
                continue
            found.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
            if parts[-1]:
                files.append(name)
        self.files, self.folders = sort_names(files), sort_names(list(found))
        self.passed_over = sorted(map(escape_name, hidden))
        self._sizes = members

    def get_source(self, _: str) -> str:
        """Return the path of the archive."""
        return str(self.path)

    def open(self, name: str) -> BinaryIO:
        """Open a file of the archive; raise DataError if it is missing or damaged."""
        raise NotImplementedError

    def read_image(self, name: str, image: str = "") -> np.ndarray:
        """Decode an image of the archive as images.read does."""
        shown = image or escape_name(name)
        if self._sizes[name] > MAX_IMAGE_BYTES:
            raise DataError(
                f"{shown} has {self._sizes[name]:,} bytes; expected an image of at most {MAX_IMAGE_BYTES:,}"
            )
        try:
            with self.open(name) as file:
                content = file.read(MAX_IMAGE_BYTES)
        except DAMAGE as error:
            raise _make_damage_error(shown, self.path, error) from error
        return images.read(content, name=shown)


class ZipTree(_Archive):
    """A zip archive, read in place."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise DataError(f"{path} is not an intact zip archive ({error}); download it again") from error
        self._names: dict[str, zipfile.ZipInfo] = {}
        folders = []
        for info in self._zip.infolist():
            if info.flag_bits & ENCRYPTED:
                raise DataError(
                    f"{escape_name(info.filename)} in {path.name} is encrypted; unpack {path.name} with its "
                    "password, and name the folder"
                )
            name = _clean_name(_decode_name(info))
            if info.is_dir():
                folders.append(name.rstrip("/"))
            else:
                self._names[name] = info
        super().__init__(path, {name: info.file_size for name, info in self._names.items()}, folders)

    def open(self, name: str) -> BinaryIO:
        """Open a file of the archive; raise DataError if it is missing or damaged."""
        try:
            return self._zip.open(self._names[name])  # type: ignore[return-value]
        except DAMAGE as error:
            raise _make_damage_error(escape_name(name), self.path, error) from error


class TarTree(_Archive):
    """A tar archive, compressed or not, held in memory: a compressed one cannot be read out of order."""

    def __init__(self, path: Path) -> None:
        self._contents: dict[str, bytes] = {}
        folders: list[str] = []
        links: dict[str, str] = {}
        try:
            with tarfile.open(path) as archive:
                total = 0
                for member in archive:
                    name = _clean_name(member.name)
                    if member.isdir():
                        folders.append(name)
                    if member.islnk():  # a second name of an earlier file
                        links[name] = _clean_name(member.linkname)
                    elif member.issym():
                        links[name] = _clean_name(posixpath.normpath(f"{posixpath.dirname(name)}/{member.linkname}"))
                    if not member.isfile():
                        continue
                    total += member.size
                    if total > MAX_TAR_BYTES:
                        raise DataError(
                            f"{path} holds more than {MAX_TAR_BYTES >> 30} GiB, the limit for reading a tar archive; "
                            f"unpack it and name the folder"
                        )
                    stream = archive.extractfile(member)
                    self._contents[name] = stream.read() if stream else b""
                _check_end(archive)
        except DAMAGE as error:
            if not is_archive(path):
                advice = TABLE_ADVICE if path.suffix.lower() == ".csv" else "unpack it, or pack it as one of these"
                raise DataError(
                    f"{path} is neither a folder nor an archive of a known type ({', '.join(ARCHIVES)}); {advice}"
                ) from error
            reason = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
            raise DataError(
                f"{path} is neither a folder nor an intact archive ({reason}); "
                f"expected {', '.join(ARCHIVES)}: download it again"
            ) from error
        broken = self._resolve(links)
        super().__init__(path, {name: len(content) for name, content in self._contents.items()}, folders)
        self.passed_over = sorted([*self.passed_over, *map(escape_name, broken)])

    def open(self, name: str) -> BinaryIO:
        """Open a file of the archive."""
        return BytesIO(self._contents[name])

    def _resolve(self, links: dict[str, str]) -> list[str]:
        """Give links to files and folders of the archive their contents; return those that lead elsewhere."""
        broken = []
        for name, target in links.items():
            inside = [other for other in self._contents if other.startswith(f"{target}/")]
            if target in self._contents:
                self._contents[name] = self._contents[target]
            elif inside and not name.startswith(f"{target}/"):
                self._contents |= {f"{name}{other[len(target) :]}": self._contents[other] for other in inside}
            else:
                broken.append(name)
        return broken


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise EOFError if an archive does not end in zeros; tarfile takes one that was cut between files as complete."""
    stream = archive.fileobj
    if stream is None:
        return
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("its end is missing")


def _decode_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a zip entry; some programs write UTF-8 without saying so, which zipfile reads as cp437."""
    if info.flag_bits & UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _clean_name(name: str) -> str:
    """Return a member's name with forward slashes only, without a leading ./ or /."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")) + (
        "/" if name.endswith("/") else ""
    )


def _make_damage_error(name: str, archive: Path, error: Exception) -> DataError:
    why = getattr(error, "strerror", None) or error
    return DataError(f"{name} in {archive.name} cannot be read ({why}); download {archive.name} again")


@contextmanager
def reading_table(tree: Tree, name: str) -> Iterator[BinaryIO]:
    """Open a table; errors of a damaged archive or disk become DataError with its name."""
    try:
        with tree.open(name) as stream:
            yield stream
    except DataError:
        raise
    except DAMAGE as error:
        raise _make_damage_error(escape_name(name), tree.path, error) from error
