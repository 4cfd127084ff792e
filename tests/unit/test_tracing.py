"""Spans begin and end with their calls, once, whatever becomes of them; nothing is traced that is not sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from config.schema import Tracing
from daemon.tracing import MISSING, NoTracing, start_tracing
from net.rpc import OK, Code, Routes, Status
from services.tracing import traced
from tests.fakes import FakeCall, FakeStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from net.rpc import Call


class Spans:
    """Keeps what was begun, and how each ended."""

    def __init__(self) -> None:
        self.sampled = True
        self.begun: list[str] = []
        self.ended: list[Code] = []

    def __call__(self, method: str, metadata: Mapping[str, Sequence[str]]) -> Spans | None:
        """See StartSpan."""
        assert metadata == {}
        self.begun.append(method)
        return self if self.sampled else None

    def end(self, code: Code) -> None:
        """See Span."""
        self.ended.append(code)


def calls_of(spans: Spans) -> tuple[list[Call], Routes]:
    """Return routes that are traced, and where their calls arrive."""
    arrived: list[Call] = []
    return arrived, traced(Routes({"/s/M": lambda call, _: arrived.append(call)}, {"/s/S": Handler}), spans)


class Handler:
    """A stream's handler of which only the end matters."""

    def __init__(self, _stream: object) -> None:
        self.on_message = self.on_half_close = self.on_drained = self.on_closed = self._nothing

    def _nothing(self, *_anything: object) -> None:
        """Do nothing."""


def test_a_call_is_one_span() -> None:
    """Answered, refused or abandoned: with its code, and the first end counts."""
    spans = Spans()
    arrived, routes = calls_of(spans)
    ends: list[tuple[Any, Code]] = [
        (lambda call, _: call.reply(b"m"), Code.OK),
        (lambda call, _: call.fail(Status(Code.NOT_FOUND)), Code.NOT_FOUND),
        (lambda _, client: client.leave(), Code.CANCELLED),
    ]
    for end, code in ends:
        client = FakeCall()
        told: list[bool] = []
        routes.unary["/s/M"](client, b"")
        call = arrived.pop()
        call.when_abandoned(lambda told=told: told.append(True))  # type: ignore[misc]  # bound now
        end(call, client)
        call.reply(b"late")
        assert spans.ended == [code]
        assert bool(told) is (code is Code.CANCELLED)
        spans.ended.clear()
    assert spans.begun == ["/s/M"] * 3


def test_a_stream_is_one_span() -> None:
    """From its opening to its end."""
    spans = Spans()
    _, routes = calls_of(spans)
    handler = routes.streams["/s/S"](FakeStream())
    handler.on_message(b"")
    assert (spans.begun, spans.ended) == (["/s/S"], [])
    handler.on_closed(OK)
    assert spans.ended == [Code.OK]


def test_what_is_not_sampled_goes_its_way_untouched() -> None:
    """The very call that came."""
    spans = Spans()
    spans.sampled = False
    arrived, routes = calls_of(spans)
    client = FakeCall()
    routes.unary["/s/M"](client, b"")
    assert arrived == [client]


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of starting without the traces that were asked for."""
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(NoTracing, match="pip install") as refused:
        start_tracing(Tracing())
    assert str(refused.value) == MISSING
