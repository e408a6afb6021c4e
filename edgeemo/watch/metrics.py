"""The numbers of a status as Prometheus metrics. They are collected when Prometheus asks, at no cost for the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import edgeemo
from edgeemo.watch.status import BUCKETS, Numbers, Status


def make_registry(status: Status) -> CollectorRegistry:
    """Return a registry that has the metrics of this status alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return registry


def render(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Return the metrics in Prometheus' text format, and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


class StatusCollector(Collector):
    """Turns the numbers of a status into metrics."""

    def __init__(self, status: Status) -> None:
        """The start of the process is taken from the status' clock and the time of day."""
        self._status = status
        self._started = time.time() - (status.now() - status.read().started)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        numbers, healthy = self._status.read(), not self._status.find_faults()
        yield CounterMetricFamily("edgeemo_frames_answered", "Frames that were answered.", numbers.answered)
        yield CounterMetricFamily("edgeemo_frames_dropped", "Frames that were never answered.", numbers.dropped)
        if not self._status.aggregate:
            yield GaugeMetricFamily("edgeemo_faces", "Faces in the last frame.", numbers.faces)
            yield CounterMetricFamily("edgeemo_tracks", "Faces that were followed.", numbers.tracks)
        yield _make_histogram(numbers)
        yield CounterMetricFamily("edgeemo_source_reconnects", "Reconnections of the source.", numbers.reconnects)
        yield GaugeMetricFamily("edgeemo_source_connected", "1 if the source is connected.", numbers.connected)
        yield GaugeMetricFamily("edgeemo_source_frozen", "1 if the source repeats one image.", numbers.frozen)
        yield from _make_outputs(numbers)
        yield InfoMetricFamily("edgeemo_model", "The model.", {"name": numbers.model, "sha256": numbers.model_sha256})
        yield CounterMetricFamily("edgeemo_model_swaps", "Models that replaced the one before.", numbers.swaps)
        yield CounterMetricFamily("edgeemo_model_swap_failures", "Models that were refused.", numbers.swap_failures)
        yield InfoMetricFamily("edgeemo_build", "The version of edgeemo.", {"version": edgeemo.__version__})
        yield GaugeMetricFamily("edgeemo_healthy", "1 if /health answers 200.", healthy)
        started = "process_start_time_seconds"
        yield GaugeMetricFamily(started, "Start of the process, in seconds since 1970.", self._started)


def _make_histogram(numbers: Numbers) -> Metric:
    """Return the latencies in cumulative buckets, as Prometheus counts them."""
    limits = [*map(str, BUCKETS), "+Inf"]
    buckets = list(zip(limits, accumulate(numbers.latencies), strict=True))
    about = "Seconds from the capture of a frame to its answer."
    return HistogramMetricFamily("edgeemo_latency_seconds", about, buckets=buckets, sum_value=numbers.latency_sum)


def _make_outputs(numbers: Numbers) -> Iterator[Metric]:
    sent = CounterMetricFamily("edgeemo_records_sent", "Records that an output has sent.", labels=["output"])
    lost = CounterMetricFamily("edgeemo_records_lost", "Records that an output could not send.", labels=["output"])
    failed = GaugeMetricFamily("edgeemo_output_failed", "1 if an output cannot send at present.", labels=["output"])
    for name, output in numbers.outputs.items():
        sent.add_metric([name], output.sent)
        lost.add_metric([name], output.lost)
        failed.add_metric([name], output.failed)
    yield from (sent, lost, failed)
