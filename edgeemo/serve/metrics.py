"""What Prometheus gets of the server: numbers of requests and frames, never of what is on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import edgeemo
from edgeemo.serve.models import Models

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
CROPS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server; any thread may change them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "edgeemo_requests", "Requests that were answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "edgeemo_request_seconds",
            "From the header of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.faces = Counter("edgeemo_faces", "Faces that were classified.", registry=registry)
        self.batches = Histogram(
            "edgeemo_batch_crops", "Crops per call of the model.", buckets=CROPS, registry=registry
        )
        self.streams = Gauge("edgeemo_streams", "Open WebSockets.", registry=registry)
        self.frames = Counter("edgeemo_stream_frames", "Frames that were answered.", registry=registry)
        self.dropped = Counter("edgeemo_stream_frames_dropped", "Frames that a newer one replaced.", registry=registry)
        self._queue = Gauge("edgeemo_queue", "Images in work or waiting.", registry=registry)
        self._limit = Gauge("edgeemo_queue_limit", "Images that may be in work or wait.", registry=registry)
        self._ready = Gauge("edgeemo_ready", "1 if /ready answers 200.", registry=registry)

    def observe(self, models: Models, *, queue: Callable[[], int], limit: int, ready: Callable[[], bool]) -> None:
        """Report the model, and what these functions return, when Prometheus asks."""
        self._queue.set_function(queue)
        self._limit.set(limit)
        self._ready.set_function(ready)
        self.registry.register(_ModelCollector(models))

    def render(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _ModelCollector(Collector):
    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield which model serves."""
        models, model = self._models, self._models.current
        about = {"name": model.path.name, "sha256": model.card.sha256}
        yield InfoMetricFamily("edgeemo_model", "The model.", about)
        yield CounterMetricFamily("edgeemo_model_swaps", "Models that replaced the one before.", models.swaps)
        yield CounterMetricFamily("edgeemo_model_swap_failures", "Models that were refused.", models.failures)
        yield InfoMetricFamily("edgeemo_build", "The version of edgeemo.", {"version": edgeemo.__version__})
