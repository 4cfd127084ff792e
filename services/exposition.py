"""Samples as a page in Prometheus' formats, made by prometheus-client.

Thousands of lines: for a worker's thread, which is also where this module is first imported, since the library brings
Python's HTTP server and client along.  Spec: Prometheus exposition formats; the families are in
services/metric_families.py.
"""

from __future__ import annotations

import gzip
import re
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from core.metrics import Distribution, Sample
from services.metric_families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from services.metric_families import Family

BARE_COUNTERS = tuple(
    name for name, family in FAMILIES.items() if family.kind == "counter" and not name.endswith("_total")
)
"""Counters that etcd named without the suffix that prometheus-client gives to all."""

VERDICTS = frozenset(("etcd_server_healthcheck",))
"""Families of which several listeners give the same, which must not be added up."""

_SUFFIXED = re.compile(rf"\b({'|'.join(BARE_COUNTERS)})_total\b".encode()) if BARE_COUNTERS else None


class _Gathered(Collector):
    """The samples of one round, as prometheus-client wants them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_family: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_family.setdefault(sample.family, []).append(sample)

    def collect(self) -> Iterator[Metric]:
        """Return the families that have samples, in the order of their names."""
        for name in sorted(self._by_family):
            yield metric(name, FAMILIES[name], self._by_family[name])


def content_type(accept: str) -> str:
    """Return the type of the page in the format that *accept* asks for."""
    return str(choose_encoder(accept)[1])


def exposition(samples: Sequence[Sample], accept: str, *, zipped: bool) -> bytes:
    """Return the whole page in the format that *accept* asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gathered(samples))
    ProcessCollector(registry=registry)
    encode, made_type = choose_encoder(accept)
    page = encode(registry)
    if _SUFFIXED is not None and made_type.startswith("text/plain"):
        page = _SUFFIXED.sub(rb"\1", page)
    return gzip.compress(page, 1) if zipped else page


def metric(name: str, family: Family, samples: Iterable[Sample]) -> Metric:
    """Return one family as prometheus-client knows it; samples with the same labels are added up."""
    values: dict[tuple[str, ...], float | Distribution] = {}
    merge = worse if name in VERDICTS else added
    for sample in samples:
        before = values.get(sample.labels)
        if before is None:
            values[sample.labels] = sample.value
        else:
            values[sample.labels] = merge(before, sample.value)
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.text, labels=family.labels)
        for labels, value in values.items():
            assert isinstance(value, Distribution), name
            bounds = [*(go_float(bound) for bound in value.bounds), "+Inf"]
            histogram.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = kind(name, family.text, labels=family.labels)
    for labels, value in values.items():
        assert not isinstance(value, Distribution), name
        made.add_metric(labels, value)
    return made


def worse(one: float | Distribution, other: float | Distribution) -> float | Distribution:
    """Return the lower of two verdicts of one family."""
    return min(one, other)


def added(one: float | Distribution, other: float | Distribution) -> float | Distribution:
    """Return the sum of two values of one family: several listeners count apart."""
    if isinstance(one, Distribution):
        assert isinstance(other, Distribution), other
        counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
        return Distribution(one.bounds, counts, one.total + other.total)
    assert not isinstance(other, Distribution), other
    return one + other


def go_float(bound: float) -> str:
    """Return *bound* as Go prints it, so that the labels of buckets are etcd's."""
    text = str(floatToGoString(bound))  # type: ignore[no-untyped-call]  # of prometheus-client, which is not typed here
    return text.removesuffix(".0")
