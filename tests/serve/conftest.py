"""Shared by the tests of serving."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of a server in this process, with default options."""
    served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
    with served.serving() as (made, _):
        yield made


@pytest.fixture(scope="module")
def process() -> Iterator[Any]:
    """A server of its own whose time-outs are short, for clients that are slow."""
    served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
    with served.Process("--timeout", "1", "--max-bytes", "100000") as made:
        yield made
