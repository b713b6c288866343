"""Samples in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from common.core.metrics import Family, Row

KINDS = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Snapshot(Collector):
    """``rows`` of ``families``; rows of others are passed over."""

    def __init__(self, families: Iterable[Family], rows: Iterable[Row]) -> None:
        self._families = {family.name: family for family in families}
        self._rows: dict[str, list[Row]] = {name: [] for name in self._families}
        for row in rows:
            if row[0] in self._rows:
                self._rows[row[0]].append(row)

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            metric = KINDS[family.kind](name, family.help, labels=family.labels)
            for _, labels, value in self._rows[name]:
                if isinstance(metric, HistogramMetricFamily):
                    counts, total = value
                    metric.add_metric(labels, _buckets(family.bounds, counts), total)
                else:
                    metric.add_metric(labels, value)
            yield metric


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Each bound with the count of all values up to it."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))


def expose(collectors: Iterable[Collector], accept: str) -> tuple[bytes, str]:
    """All samples as text, and its content type: of those in an Accept header, the best."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
