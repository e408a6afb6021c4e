"""The cores of docs/scale.md: decoding of every frame, and watching of some."""

from __future__ import annotations

from typing import Any

import scale

from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.runtime import shipped


def make_result(script: str, rows: list[dict[str, Any]]) -> Measurement:
    return Measurement(header=make_header(timed=False), script=script, settings={}, rows=rows)


def test_the_cores_are_those_of_decoding_and_watching() -> None:
    """For 1,000 cameras: 25 frames of 2 ms, and 5 or 25 of 10 ms, a second."""
    speed = make_result(
        "watch_speed",
        [
            {"faces": 1, "detect_every": interval, "model": name, "fps": 100.0}
            for interval in (1, 5, 10)
            for name in shipped.NAMES
        ],
    )
    decode = make_result("scale", [{"kind": "H.264", "width": 640, "height": 480, "ms": 2.0, "kilobytes": 4.0}])
    table = scale.cores_table(speed, decode)
    assert [row[:4] for row in table.rows] == [
        ("5", "1", "1", "100"),
        ("25", "5", "1", "300"),
        ("25", "10", "1", "300"),
        ("0 (decoding alone)", "", "", "50"),
    ]
    assert scale.count_cores(0.0001) == 1


def test_the_cores_of_posted_images_are_those_of_requests() -> None:
    """Of edgeemo's own server alone, while it took turns with the other."""
    rows = [
        {"load": load, "server": server, "images": "photo", "cpu_ms": ms}
        for load, server, ms in (
            ("beside", "edgeemo serve", 12.0),
            ("beside", "plain", 20.0),
            ("steady", "edgeemo serve", 9.0),
        )
    ]
    table = scale.posts_table(make_result("serve_load", rows))
    assert [tuple(row) for row in table.rows] == [("photo", "12.0", "12", "60")]
