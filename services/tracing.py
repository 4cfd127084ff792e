"""Spans of calls: one for each call that is traced, from its request to its end.

What a span tells: service, method, kind of client and how it ended.  No key, value, password or token ever: traces
leave this machine (CVE-2021-28235 was of that kind).  Which library sends them is the business of daemon/tracing.py;
where nothing is traced no call goes through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from net.rpc import Code, Routes, Status
from services.identity import NotedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.rpc import Call, Context, Stream, StreamHandler, StreamMethod, UnaryMethod


class Span(Protocol):
    """One call, as it is traced."""

    def end(self, code: Code) -> None:
        """Note how it ended."""


class StartSpan(Protocol):
    """Begins spans."""

    def __call__(self, method: str, metadata: Mapping[str, Sequence[str]]) -> Span | None:
        """Begin the span of a call of *method*, below the one that *metadata* names; None if it is not sampled."""


def traced(routes: Routes, start: StartSpan) -> Routes:
    """Return *routes*, each call of which *start* hears of."""
    return Routes(
        {path: _unary(path, method, start) for path, method in routes.unary.items()},
        {path: _stream(path, method, start) for path, method in routes.streams.items()},
        routes.tallies,
    )


def _unary(path: str, method: UnaryMethod, start: StartSpan) -> UnaryMethod:
    def tracing(call: Call, payload: bytes) -> None:
        span = start(path, call.metadata)
        method(call if span is None else _TracedCall(call, span), payload)

    return tracing


def _stream(path: str, method: StreamMethod, start: StartSpan) -> StreamMethod:
    def tracing(stream: Stream) -> StreamHandler:
        span = start(path, _metadata(stream))
        handler = method(stream)
        return handler if span is None else _TracedHandler(handler, span)

    return tracing


def _metadata(context: Context) -> Mapping[str, Sequence[str]]:
    return context.metadata


class _TracedCall(NotedCall):
    """A call that ends its span."""

    def __init__(self, call: Call, span: Span) -> None:
        super().__init__(call)
        self._span: Span | None = span
        self._abandoned: Callable[[], None] | None = None
        call.when_abandoned(self._leave)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See Call."""
        self._abandoned = then

    def _leave(self) -> None:
        self.note(Code.CANCELLED)
        if self._abandoned is not None:
            self._abandoned()

    def note(self, code: Code) -> None:
        """See NotedCall."""
        span, self._span = self._span, None
        if span is not None:
            span.end(code)


class _TracedHandler:
    """A stream's handler that ends its span."""

    def __init__(self, handler: StreamHandler, span: Span) -> None:
        self._on_closed = handler.on_closed
        self._span = span
        self.on_message = handler.on_message
        self.on_half_close = handler.on_half_close
        self.on_drained = handler.on_drained

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self._span.end(status.code)
        self._on_closed(status)
