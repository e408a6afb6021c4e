"""The table of hosts: the worst of a host's models and kinds of pictures."""

from __future__ import annotations

from typing import Any

import agreement

from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement


def make_result(script: str, rows: list[dict[str, Any]], **facts: Any) -> Measurement:
    return Measurement(header=make_header(timed=False), script=script, settings={}, rows=rows, facts=facts)


def differ(box: float, probability: float, *, same: bool = True) -> dict[str, Any]:
    return {"same": same, "box_px": box, "score": 0.0, "probability": probability}


def test_a_row_has_the_largest_differences_of_a_host() -> None:
    """Of all models, pictures and ready crops; a single other label counts."""
    web = [
        {
            "model": name,
            "labels_changed": 0,
            "flags_changed": changed,
            "largest_box_difference_px": 0.01,
            "largest_probability_difference": 2e-7,
        }
        for name, changed in (("nano", 0), ("small", 1))
    ]
    cpp = [
        {
            "model": "nano",
            "pictures": {"difference_from_python": differ(0.0, 3e-6)},
            "ready": {"difference_from_python": differ(0.02, 0.0)},
        }
    ]
    arm64 = [
        {"core": "cortex-a53", "host": "python", "model": "base", "pictures": differ(0, 0), "ready": differ(0, 1e-6)},
        {"core": "cortex-a53", "host": "cpp", "crop_vectors": 4, "crop_levels": 0},
    ]
    results = [
        make_result("web_speed", web, browser="Chrome/1"),
        make_result("cpp_host", cpp),
        make_result("arm64_host", arm64),
    ]
    assert [tuple(row) for row in agreement.table(results).rows] == [
        ("JavaScript in Chrome/1", "nano, small", "others", "0.010", "2.0e-07"),
        ("C++", "nano", "the same", "0.020", "3.0e-06"),
        ("Python on ARM64, cortex-a53 in qemu", "base", "the same", "0.000", "1.0e-06"),
    ]
