"""File names and other foreign text: safe in a terminal, a log and a page; and which files are images."""

from __future__ import annotations

import os
import re
import unicodedata
from hashlib import sha256
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
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "#snapshot",
    "@recycle",
    "@tmp",
    "network trash folder",
    "temporary items",
    "recycler",
    "__pycache__",
}
SYSTEM_PREFIXES = (".", "~$")  # hidden files; locks of office programs

# Names of devices on Windows, which no file may have, whatever its suffix (Microsoft, "Naming Files, Paths, and
# Namespaces"); nor may a name end with a dot or space there.
RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?|.*[. ]", re.IGNORECASE | re.DOTALL
)

# Format characters that words and emoji need: zero-width non-joiner and joiner. The others, such as U+202E, reverse or
# hide text.
JOINERS = "\u200c\u200d"
MAX_STEM = 150  # bytes of a name in that of a file made from it; most file systems allow 255 in all
CONTINUATION = re.compile(r"\s*\n\s+")  # of a message on several lines, whose next line is indented
# What Markdown takes for more than text: code, cells, emphasis, tags, links, entities, and escapes of these.
MARKUP = re.compile(r"[`|*]|~(?=~)|(?<!\w)_(?=\S.*_(?!\w))|<(?=[A-Za-z/!?])|(?<=\])\(|&(?=#|\w+;)|\\(?=[^\w\s]|$)")


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is UTF-8, as libraries that do not take bytes expect."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def escape_name(name: str) -> str:
    r"""Return a file name as text that can be stored anywhere and fits into a line.

    Bytes that are not UTF-8, which Python keeps as surrogates (PEP 383), and control characters become \xNN; format
    characters, which reverse or hide text, and line separators become \uNNNN.
    """
    try:
        text = os.fsencode(name).decode("utf-8", errors="backslashreplace")
    except UnicodeEncodeError:  # other surrogates, from JSON
        text = name.encode("utf-8", errors="backslashreplace").decode()
    return "".join(_escape_character(letter) if _is_unsafe(letter) else letter for letter in text)


def escape_message(text: str) -> str:
    r"""Return a message, whatever names and foreign text it contains, as one line without control characters.

    A line break before an indented line becomes two spaces, any other one \x0a.
    """
    return escape_name(CONTINUATION.sub("  ", text.strip()))


def escape_markdown(text: str) -> str:
    """Return text as one line that Markdown shows as it is, also in the cell of a table."""
    return MARKUP.sub(r"\\\g<0>", escape_message(text))


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1: 1 face, 2 faces."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def is_image_name(name: str) -> bool:
    """Return whether a file is an image that edgeemo can decode, by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_system_name(name: str) -> bool:
    """Return whether a file or folder is hidden or belongs to an operating system or tool."""
    return name.startswith(SYSTEM_PREFIXES) or name.lower() in SYSTEM_NAMES


def is_reserved_name(name: str) -> bool:
    """Return whether Windows refuses or changes the name of a file or folder, of characters that it allows."""
    return RESERVED.fullmatch(name) is not None


def is_portable_name(name: str) -> bool:
    """Return whether a file or folder can have this name on every system."""
    return not (re.search(r'[\\/:*?"<>|]', name) or is_reserved_name(name))


def clean_stem(name: str) -> str:
    """Return the last part of a path with slashes as a file name on every system, without its suffix.

    Names that need a change are marked, so that two of them stay apart.
    """
    stem = name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2]
    clean = clean_name(stem)
    return clean if clean == stem else mark_name(clean, name)


def clean_name(name: str) -> str:
    """Return a name of at most MAX_STEM bytes that every system allows; two names may become the same."""
    clean = re.sub(r"[^\w .()+=@-]", "_", name).encode()[:MAX_STEM].decode(errors="ignore").strip(". ")
    return f"_{clean}" if is_reserved_name(clean) else clean


def mark_name(name: str, key: str) -> str:
    """Return a name with 12 hex digits of the SHA-256 of its key, which keep it apart from others."""
    return f"{name}-{sha256(key.encode(errors='backslashreplace')).hexdigest()[:12]}"


def fold_name(name: str) -> str:
    """Return a name as file systems compare them that ignore case and the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def list_images(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the images in a folder and below it, the files of other types there, and folders that cannot be listed.

    Hidden and system files and folders are left out; links to folders are followed, but not in circles.
    """
    images: list[Path] = []
    others: list[Path] = []
    failed: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(
        folder, followlinks=True, onerror=lambda error: failed.append(Path(error.filename))
    ):
        folders[:] = [name for name in folders if not is_system_name(name)]
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in files:
            if not is_system_name(name):
                (images if is_image_name(name) else others).append(Path(parent, name))
    return sorted(images), sorted(others), sorted(failed)


def _is_unsafe(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") and letter not in JOINERS


def _escape_character(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
