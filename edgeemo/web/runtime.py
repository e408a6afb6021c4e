"""onnxruntime-web, which runs the models in a browser: one release, checked by its hashes.

It is not packaged with edgeemo, because the npm package has 33 MB. It is fetched once, and what the page needs is kept
in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import tarfile
from base64 import b64encode
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from edgeemo.artifact import hash_file, new_folder
from edgeemo.errors import IntegrityError, MachineError, UsageError

log = logging.getLogger(__name__)
VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # SHA-512
MAX_BYTES = 1 << 26
TIMEOUT = 60  # seconds without a byte
FILES = {  # of the folder dist/ of the package, by SHA-256
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
OFFLINE = (
    f"Where there is a network, run  npm pack onnxruntime-web@{VERSION}  and give the file that it writes here, as "
    f"--onnxruntime-web onnxruntime-web-{VERSION}.tgz"
)


def find_runtime() -> Path:
    """Return the folder of the cached files; raise MachineError, with the command that fetches them, without them."""
    folder = _cache_folder()
    if not all((folder / name).is_file() for name in FILES):
        raise MachineError(
            f"onnxruntime-web {VERSION}, which runs the model in a browser, was not fetched; fetch it, once, with:  "
            "edgeemo build small --for web --out DIR"
        )
    _check_files(folder)
    return folder


def get_runtime(source: Path | None = None) -> Path:
    """Return the folder of the files, in the cache; fetch or copy them if they are not there.

    source: a tarball of the npm package, or a folder that has its files; None: fetch it from the npm registry.

    Raises UsageError for a source that is missing, IntegrityError for another release or a damaged file, MachineError
    if it cannot be fetched.
    """
    folder = _cache_folder()
    if source is None and all((folder / name).is_file() for name in FILES):
        _check_files(folder)
        return folder
    contents = _read_folder(source) if source and source.is_dir() else _unpack(_read_tarball(source))
    for name, content in contents.items():
        _check(name, hashlib.sha256(content).hexdigest(), source or URL)
    if not folder.is_dir():
        with new_folder(folder) as partial:
            for name, content in contents.items():
                (partial / name).write_bytes(content)
    return folder


def _cache_folder() -> Path:
    """Return the folder of this release in the user's cache, by the conventions of the system."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "edgeemo" / f"onnxruntime-web-{VERSION}"


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files in a folder, or in its folder dist/."""
    place = folder / "dist" if (folder / "dist").is_dir() else folder
    try:
        return {name: (place / name).read_bytes() for name in FILES}
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be read ({error.strerror}); expected the folder of the npm package "
            f"onnxruntime-web {VERSION}, or its dist/"
        ) from error


def _read_tarball(file: Path | None) -> bytes:
    """Return the content of the package, from a file or the registry, checked against the hash that npm publishes."""
    content = _fetch() if file is None else _read(file)
    found = b64encode(hashlib.sha512(content).digest()).decode()
    if found != INTEGRITY:
        raise IntegrityError(
            f"{file or URL} is not onnxruntime-web {VERSION}: expected the SHA-512 {INTEGRITY[:16]}…, got "
            f"{found[:16]}….  {OFFLINE}"
        )
    return content


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read ({error.strerror}); expected the npm package onnxruntime-web {VERSION}, as a "
            "tarball or a folder"
        ) from error


def _fetch() -> bytes:
    log.info("fetching onnxruntime-web %s, 33 MB, once: %s", VERSION, URL)
    try:
        with urlopen(URL, timeout=TIMEOUT) as response:
            content: bytes = response.read(MAX_BYTES)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise MachineError(f"{URL} cannot be fetched: {reason}.  {OFFLINE}") from error
    return content


def _unpack(content: bytes) -> dict[str, bytes]:
    """Return the contents of the needed files of a package whose hash was checked."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        files = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: file.read() for name, file in files.items() if file}


def _check_files(folder: Path) -> None:
    for name in FILES:
        _check(name, hash_file(folder / name), folder)


def _check(name: str, found: str, source: Path | str) -> None:
    if found != FILES[name]:
        raise IntegrityError(
            f"{name} of {source} is not that of onnxruntime-web {VERSION}: expected the SHA-256 {FILES[name][:12]}…, "
            f"got {found[:12]}….  Remove it, or give another --onnxruntime-web"
        )
