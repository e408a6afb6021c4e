"""Image files damaged at random: the script finds what it looks for, and nothing is there."""

from __future__ import annotations

from collections import Counter

import fuzz_images
import numpy as np
import pytest
from image_samples import SAMPLES

from edgeemo import images
from edgeemo.report.files import read


def test_two_thousand_damaged_images_are_refused_or_read_as_documented():
    """A tenth of the committed run, with another seed, in child processes whose memory stays flat."""
    result = fuzz_images.fuzz(2000, seed=21)
    assert fuzz_images.list_failures(result) == []
    assert sum(result.facts["outcomes"].values()) == 2000
    assert result.facts["resident_growth_kib"] < 8 * 1024  # the committed run of 20,000 has far less


def test_the_committed_run_found_nothing():
    """20,000 images: of every PNG and after every cut, the same pixels or a DataError in one line."""
    result = read(fuzz_images.OUT)
    assert result.settings == {"images": 20_000, "seed": 0, "workers": 2}
    assert fuzz_images.list_failures(result) == []
    assert sum(result.facts["outcomes"].values()) == 20_000
    assert {(row["kind"], row["mutation"]) for row in result.rows} == {
        (kind, mutation) for kind in fuzz_images.KINDS for mutation in fuzz_images.MUTATIONS
    }
    assert sorted(name for names in fuzz_images.KINDS.values() for name in names) == sorted(set(SAMPLES) - {"jpeg-422"})
    assert result.facts["resident_growth_kib"] < 8 * 1024


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (lambda _: np.zeros((48, 48, 3), np.uint8), "wrong"),
        (lambda _: (_ for _ in ()).throw(ZeroDivisionError), "ZeroDivisionError"),
        (lambda _: (_ for _ in ()).throw(images.DataError("two\nlines")), "refused in several lines"),
    ],
    ids=["pixels", "exception", "lines"],
)
def test_a_fault_of_the_reader_is_found(monkeypatch, behaviour, outcome):
    """A cut PNG that is read, and whatever is no DataError of one line, are failures."""
    whole = {data: images.read(data) for data in SAMPLES.values()}
    monkeypatch.setattr(images, "read", lambda data: whole[data] if data in whole else behaviour(data))
    outcomes = Counter(fuzz_images.try_one(number, 0) for number in (0, 64))
    assert outcomes == {("png", "cut", outcome): 2}
    row = {"kind": "png", "mutation": "cut", outcome: 2}
    assert fuzz_images.list_failures(type("Run", (), {"rows": [row]})) == [f"png, cut: {outcome} 2"]
