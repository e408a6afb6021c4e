"""File names: as text, whatever bytes they are, and which of them are images that a person put there."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp")

# Names by which operating systems, file servers and tools store data of their own, in lower case; all else that starts
# with a dot, such as macOS's ._NAME.png, is hidden as well.
SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
}


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is UTF-8, as libraries that do not take bytes expect."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def escape_name(name: str) -> str:
    r"""Return a file name as text that can be stored anywhere and fits into a line.

    Bytes that are not UTF-8, which Python keeps as surrogates (PEP 383), and control characters become \xNN.
    """
    text = os.fsencode(name).decode("utf-8", errors="backslashreplace")
    return "".join(f"\\x{ord(letter):02x}" if unicodedata.category(letter) == "Cc" else letter for letter in text)


def is_image_name(name: str) -> bool:
    """Return whether a file is an image that edgeemo can decode, by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_system_name(name: str) -> bool:
    """Return whether a file or folder is hidden or belongs to an operating system or tool."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images in a folder and below it, and the files of other types there, both sorted.

    Hidden and system files and folders are left out; links to folders are followed, but not in circles.
    """
    images: list[Path] = []
    others: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_system_name(name)]
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in files:
            if not is_system_name(name):
                (images if is_image_name(name) else others).append(Path(parent, name))
    return sorted(images), sorted(others)
