"""The page /metrics: samples of the actors, and of the process, in Prometheus' formats.

The text is made by prometheus-client from samples that were gathered before, on a worker's thread: it has thousands
of lines.  Spec: Prometheus exposition formats; the families are in services/metric_families.py.
"""

from __future__ import annotations

import gzip
import re
from functools import partial
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from net.rpc import HttpRequest, HttpResponder, Status
    from services.metric_families import Family
    from services.node import Node

BARE_COUNTERS = tuple(
    name for name, family in FAMILIES.items() if family.kind == "counter" and not name.endswith("_total")
)
"""Counters that etcd named without the suffix that prometheus-client gives to all."""

VERDICTS = frozenset(("etcd_server_healthcheck",))
"""Families of which several listeners give the same, which must not be added up."""

_SUFFIXED = re.compile(rf"\b({'|'.join(BARE_COUNTERS)})_total\b".encode()) if BARE_COUNTERS else None


class MetricsPage:
    """Answers /metrics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._answered = dict.fromkeys((200, 500, 503), 0)
        self._under_way = 0

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Gather, write, answer."""
        self._under_way += 1
        self._node.gather(partial(self._write, request, responder))

    def samples(self) -> list[Sample]:
        """Return how often this page was asked for."""
        return [
            Sample("promhttp_metric_handler_requests_in_flight", self._under_way),
            *(
                Sample("promhttp_metric_handler_requests_total", count, (str(status),))
                for status, count in self._answered.items()
            ),
        ]

    def _count(self, status: int) -> None:
        self._under_way -= 1
        self._answered[status] += 1

    def _write(self, request: HttpRequest, responder: HttpResponder, samples: Sequence[Sample]) -> None:
        if responder.done:
            self._under_way -= 1
            return
        accept = request.headers.get("accept", "")
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        _, content_type = choose_encoder(accept)
        answer = _PageAnswer(responder, content_type, self._count, zipped=zipped)
        self._node.work(answer, partial(exposition, samples, accept, zipped=zipped))


class _PageAnswer:
    """What the worker's result is given to."""

    def __init__(
        self, responder: HttpResponder, content_type: str, count: Callable[[int], None], *, zipped: bool
    ) -> None:
        self._responder = responder
        self._count = count
        self._headers = [("content-type", content_type)]
        if zipped:
            self._headers.append(("content-encoding", "gzip"))

    @property
    def done(self) -> bool:
        """See Answerable."""
        return self._responder.done

    def reply(self, body: bytes) -> None:
        """See Answerable."""
        self._count(200)
        self._responder.reply(200, self._headers, body)

    def fail(self, status: Status) -> None:
        """See Answerable."""
        self._count(500)
        self._responder.reply(500, [("content-type", "text/plain; charset=utf-8")], status.message.encode())


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


def exposition(samples: Sequence[Sample], accept: str, *, zipped: bool) -> bytes:
    """Return the whole page in the format that *accept* asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gathered(samples))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    page = encode(registry)
    if _SUFFIXED is not None and content_type.startswith("text/plain"):
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
