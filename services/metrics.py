"""The page /metrics: samples of the actors, and of the process, in Prometheus' formats.

The samples are gathered first; the text is made of them on a worker's thread (services/exposition.py).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.metrics import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.rpc import HttpRequest, HttpResponder, Status
    from services.node import Node


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
        answer = _PageAnswer(responder, self._count, zipped=zipped)
        self._node.work(answer, partial(answer.write, samples, accept))


class _PageAnswer:
    """What the worker's result is given to."""

    def __init__(self, responder: HttpResponder, count: Callable[[int], None], *, zipped: bool) -> None:
        self._responder = responder
        self._count = count
        self._zipped = zipped
        self._headers = [("content-encoding", "gzip")] if zipped else []

    def write(self, samples: Sequence[Sample], accept: str) -> bytes:
        """Return the page; on a worker's thread, before anything else here is asked for."""
        from services.exposition import content_type, exposition  # noqa: PLC0415 - see there

        self._headers.append(("content-type", content_type(accept)))
        return exposition(samples, accept, zipped=self._zipped)

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
