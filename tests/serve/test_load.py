"""Short runs of the scripts that load and fuzz a server; benchmarks/results/serve has the long ones."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
import serve_fuzz
import serve_load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_malformed_requests_are_refused_and_the_server_lives() -> None:
    """No 5xx but 503, no traceback in the log, and good requests are answered meanwhile."""
    rows, facts = serve_fuzz.fuzz(1000, seed=7)
    assert facts == {"failures": [], "alive": True, "exit_code": 0, "tracebacks": 0}
    assert sum(row["requests"] for row in rows) == 1000
    assert all(row["requests"] for row in rows)


def test_memory_does_not_grow_under_load_and_no_request_fails() -> None:
    with serve_load.start_edgeemo() as server:
        (row,), facts = serve_load.measure_steady(server, 6.0)
    assert row["errors"] == 0, row
    assert row["requests"] > 10
    assert facts["memory_mb_after"] - facts["memory_mb_before"] < 20


def test_slow_clients_do_not_keep_good_ones_from_their_answers() -> None:
    with serve_load.start_edgeemo("--timeout", "1") as server:
        alone, beside = serve_load.measure_slow(server, 1.0)
    assert (alone["errors"], beside["errors"]) == (0, 0)
    assert beside["requests"] > alone["requests"] / 10
    assert beside["slow"] >= serve_load.SLOW
