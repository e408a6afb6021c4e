"""A face detector on images with labelled boxes: what it finds, what it misses, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import cast

from edgeemo import images
from edgeemo.artifact import hash_file
from edgeemo.bench.gates import make_row, make_verdict
from edgeemo.bench.matching import MIN_IOU, Matches, join, match, score, score_sizes
from edgeemo.data.boxes import FORMATS, LabelledImage, read_boxes
from edgeemo.data.boxes.labelled import check_inside, show
from edgeemo.errors import DataError
from edgeemo.faces import Detector, load_detector
from edgeemo.faces.passes import Faces
from edgeemo.faces.search import SearchDetector
from edgeemo.measure.latency import summarise
from edgeemo.progress import track
from edgeemo.report.facts import DetectorFacts, make_header
from edgeemo.report.result import BoxesFacts, BoxScores, DetectionResult, GateRow, Target, WrongImage
from edgeemo.stages import Bench


def measure(config: Bench, boxes: Path) -> DetectionResult:
    """Measure the detector of a config on a file of labelled boxes; the result has its gates checked."""
    header = make_header(timed=True)
    detector = load(config)
    labelled = read_boxes(boxes)
    paths = find_images(labelled, config.images or boxes.parent)
    matches, spent = detect_all(detector, labelled, paths)
    total = score(join(matches))
    target = Target("options", _list_limits(config))
    rows = [_check(name, limit, total) for name, limit in target.limits.items()]
    passed, verdict = make_verdict(target, rows) if rows else (True, "")
    return DetectionResult(
        header=header,
        detector=describe_detector(detector),
        boxes=_describe_boxes(boxes, labelled),
        min_iou=MIN_IOU,
        total=total,
        sizes=score_sizes(join(matches)),
        right_counts=sum(one.labelled == one.detected for one in matches),
        faceless_false=sum(len(one.false) for one, image in zip(matches, labelled, strict=True) if not image.boxes),
        latency=summarise(spent),
        wrong=[
            WrongImage(image.name, one.labelled, len(one.found), len(one.false))
            for one, image in zip(matches, labelled, strict=True)
            if one.missed or one.false
        ],
        gates=rows,
        passed=passed,
        verdict=verdict,
    )


def load(config: Bench) -> SearchDetector:
    """Load the detector of a config."""
    return load_detector(config.detector, faces=cast("Faces | None", config.faces), threshold=config.threshold)


def describe_detector(detector: SearchDetector) -> DetectorFacts:
    """Return the facts that identify a detector and how it searches."""
    card = detector.card
    return DetectorFacts(card.name, card.sha256, card.size_bytes, detector.threshold, detector.faces)


def find_images(labelled: Sequence[LabelledImage], folder: Path) -> list[Path]:
    """Return the paths of the images; raise DataError if one is not in the folder."""
    paths = [folder / image.name for image in labelled]
    missing = [image for image, path in zip(labelled, paths, strict=True) if not _is_there(path)]
    if missing:
        raise DataError(
            f"{missing[0].where}: {folder} has no image {show(missing[0].name)} ({len(missing)} of {len(paths)} are "
            "missing); name the folder that the paths start from with --images"
        )
    return paths


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:  # reading it fails, and says why
        return True
    except OSError:  # such as a name that is too long
        return False


def detect_all(
    detector: Detector, labelled: Sequence[LabelledImage], paths: Sequence[Path]
) -> tuple[list[Matches], list[int]]:
    """Return what the detections of every image are, and the nanoseconds of each detection.

    Reading an image is not part of the time; the first one is searched twice, of which the first time is a warm-up.
    Raises DataError for an image that cannot be read, or that does not fit its boxes.
    """
    matches: list[Matches] = []
    spent: list[int] = []
    for image, path in track(zip(labelled, paths, strict=True), "finding faces", total=len(paths), unit="images"):
        pixels = images.read(path)
        check_inside(image, pixels.shape[1], pixels.shape[0])
        if not spent:
            detector.detect(pixels)
        start = perf_counter_ns()
        detections = detector.detect(pixels)
        spent.append(perf_counter_ns() - start)
        matches.append(match(detections, image.boxes))
    return matches, spent


def _list_limits(config: Bench) -> dict[str, float]:
    given = {"recall": config.min_recall, "precision": config.min_precision}
    return {name: percent / 100 for name, percent in given.items() if percent is not None}


def _check(name: str, limit: float, total: BoxScores) -> GateRow:
    measured = {"recall": total.recall, "precision": total.precision}[name]
    none = {"recall": "no labelled faces", "precision": "no detections"}[name]
    what = {"recall": "recall of labelled faces", "precision": "precision of found boxes"}[name]
    return make_row(name, what, "share", ">=", limit=limit, measured=none if measured is None else measured)


def _describe_boxes(file: Path, labelled: Sequence[LabelledImage]) -> BoxesFacts:
    return BoxesFacts(
        file=file.name,
        format=FORMATS[file.suffix.lower()],
        sha256=hash_file(file),
        images=len(labelled),
        without_faces=sum(not image.boxes for image in labelled),
        ignored=sum(one.ignored for image in labelled for one in image.boxes),
    )
