"""Damage image files of eight formats at random, and see that each is refused or read as the same pixels.

python benchmarks/fuzz_images.py [IMAGES] [SEED]   (default: 20000 0)

Anything else counts: a crash or a hang of the child process, an exception that is no DataError, other pixels. Other
pixels fail where edgeemo.image_files guarantees that they are found: in every PNG, and after every cut. Elsewhere the
formats have no checksum, and the share that is read as other pixels is reported. Exit 1 if anything failed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import resource
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from image_samples import SAMPLES, make_chunk

from edgeemo import images
from edgeemo.errors import DataError
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement

OUT = Path(__file__).parent / "results" / "fuzz" / "images.json"
KINDS = {
    "png": ("png", "png-palette", "png-16-bit"),
    "interlaced png": ("png-interlaced",),
    "baseline jpeg": ("jpeg", "jpeg-gray", "jpeg-444", "jpeg-cmyk", "jpeg-restarts"),
    "progressive jpeg": ("jpeg-progressive", "jpeg-progressive-restarts"),
    "lossy webp": ("webp", "webp-alpha"),
    "lossless webp": ("webp-lossless",),
    "bmp": ("bmp", "bmp-palette", "bmp-rle"),
    "animated": ("png-animated", "webp-animated"),
}
BATCH = 250  # images per task of a child process
TIMEOUT = 300.0  # seconds for a batch, which takes about one


def cut(data: bytes, rng: random.Random) -> bytes:
    """Keep the beginning."""
    return data[: rng.randrange(len(data))]


def close(data: bytes) -> bytes:
    """Return a cut file with the sizes, checksums and end marker of a whole one, as far as it has got."""
    if data.startswith(b"\xff\xd8"):
        return data + b"\xff\xd9"
    if data.startswith(b"\x89PNG") and (at := data.find(b"IDAT")) > 0:
        return data[: at - 4] + make_chunk(b"IDAT", data[at + 4 :]) + make_chunk(b"IEND", b"")
    if data.startswith(b"RIFF") and (at := max(data.rfind(name) for name in (b"VP8 ", b"VP8L", b"ANMF"))) > 0:
        data += bytes(len(data) % 2)
        size = struct.pack("<I", len(data) - at - 8) if len(data) >= at + 8 else b""
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8 : at + 4] + size + data[at + 8 :]
    return data[:2] + struct.pack("<I", len(data)) + data[6:] if len(data) > 6 else data


def cut_and_close(data: bytes, rng: random.Random) -> bytes:
    """Keep the beginning, as a file that looks whole."""
    return close(cut(data, rng))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change one to eight bytes."""
    return _change(data, rng, len(data))


def edit_header(data: bytes, rng: random.Random) -> bytes:
    """Change one to eight of the first 64 bytes."""
    return _change(data, rng, min(64, len(data)))


def _change(data: bytes, rng: random.Random, end: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        changed[rng.randrange(end)] = rng.randrange(256)
    return bytes(changed)


def zero(data: bytes, rng: random.Random) -> bytes:
    """Put 4 to 512 zeros in place of as many bytes, as a sector that was not written."""
    at, size = rng.randrange(len(data)), rng.randrange(4, 513)
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Continue with another file of any kind."""
    other = rng.choice(list(SAMPLES.values()))
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Repeat a piece: half of the time one between two places where chunks or markers begin."""
    starts = [at for at in range(len(data)) if data[at : at + 1] == b"\xff" or data[at : at + 4].isalpha()]
    pair = rng.choices(starts if rng.random() < 0.5 and starts else range(len(data)), k=2)
    start, end = sorted(pair)
    return data[:end] + data[start:end] + data[end:]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Put 1 to 64 random bytes between others."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 65)) + data[at:]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    mutation.__name__: mutation for mutation in (cut, cut_and_close, flip, edit_header, zero, splice, repeat, insert)
}
CUTS = ("cut", "cut_and_close")


def try_one(number: int, seed: int) -> tuple[str, str, str]:
    """Return kind, mutation and outcome of image `number`: refused, same, other, wrong or the name of an exception."""
    rng = random.Random(f"{seed}/{number}")
    kind = list(KINDS)[number % len(KINDS)]
    mutation = list(MUTATIONS)[number // len(KINDS) % len(MUTATIONS)]
    sample = rng.choice(KINDS[kind])
    whole = SAMPLES[sample]
    try:
        pixels = images.read(MUTATIONS[mutation](whole, rng))
    except DataError as error:
        return kind, mutation, "refused" if "\n" not in str(error) else "refused in several lines"
    except Exception as error:  # noqa: BLE001  what is looked for
        return kind, mutation, type(error).__name__
    if np.array_equal(pixels, images.read(whole)):
        return kind, mutation, "same"
    return kind, mutation, "wrong" if mutation in CUTS or sample.startswith("png") else "other"


@dataclass(frozen=True)
class Batch:
    """What came of some images in a child process."""

    outcomes: Counter[tuple[str, str, str]]
    process: int
    resident: int  # KiB after the batch
    highest: int  # KiB, so far; a header that was edited may claim a large picture


def try_batch(first: int, last: int, seed: int) -> Batch:
    """Try images `first` to `last` in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about damaged EXIF
        outcomes = Counter(try_one(number, seed) for number in range(first, last))
    gc.collect()  # an exception holds its frames until then
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    resident = pages * resource.getpagesize() // 1024
    return Batch(outcomes, os.getpid(), resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def fuzz(count: int, seed: int, *, workers: int = 2) -> Measurement:
    """Try `count` images in child processes; a crash or hang of one is an error."""
    # Without it, glibc keeps the memory of a large picture for later, which looks like a leak.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "131072"
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        starts = range(0, count, BATCH)
        tasks = [pool.submit(try_batch, start, min(start + BATCH, count), seed) for start in starts]
        batches = [task.result(timeout=TIMEOUT) for task in tasks]
    outcomes = sum((batch.outcomes for batch in batches), Counter())
    rows = [
        {"kind": kind, "mutation": mutation}
        | {outcome: n for (*key, outcome), n in sorted(outcomes.items()) if key == [kind, mutation]}
        for kind in KINDS
        for mutation in MUTATIONS
    ]
    totals = Counter(dict.fromkeys(("refused", "same", "other", "wrong"), 0))
    for (_, _, outcome), n in outcomes.items():
        totals[outcome] += n
    facts = {
        "outcomes": dict(totals),
        "resident_growth_kib": compute_growth(batches),
        "resident_highest_kib": max(batch.highest for batch in batches),
    }
    settings = {"images": count, "seed": seed, "workers": workers}
    return Measurement(header=make_header(), script="fuzz_images", settings=settings, rows=rows, facts=facts)


def compute_growth(batches: list[Batch]) -> int:
    """Return by how many KiB the memory of a process rose at most, once a tenth of its batches have warmed it up."""
    grown = [0]
    for process in {batch.process for batch in batches}:
        resident = [batch.resident for batch in batches if batch.process == process]
        grown.append(resident[-1] - resident[len(resident) // 10])
    return max(grown)


def list_failures(result: Measurement) -> list[str]:
    """Return what is neither refused, the same pixels, nor other pixels where nobody can tell."""
    good = {"kind", "mutation", "refused", "same", "other"}
    return [
        f"{row['kind']}, {row['mutation']}: {key} {row[key]}" for row in result.rows for key in row if key not in good
    ]


def main() -> None:
    """Fuzz, write the result and print its totals."""
    count, seed = (int(value) for value in (sys.argv[1:] + ["20000", "0"][len(sys.argv) - 1 :])[:2])
    result = fuzz(count, seed)
    files.write(result, OUT)
    print(result.facts)
    failures = list_failures(result)
    print("\n".join(failures) or f"{count} images: each refused or read as documented")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
