"""Answers without an end, such as a watch over HTTP: who gives them hears of a client that goes, and of one that reads
again; and what passes is counted by method."""  # noqa: D205, D209

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from net.http1 import Http1Connection
from net.http2 import frames
from net.rpc import Code, HttpRequest, HttpResponder, Limits, Routes, Status
from tests.unit.net_harness import Client, FakeTransport, World, data

if TYPE_CHECKING:
    from net.rpc import Call


class Endless:
    """Answers every request with a beginning, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.responder: HttpResponder

    def handle(self, _request: HttpRequest, responder: HttpResponder) -> None:
        """Begin an answer."""
        self.responder = responder
        responder.follow(lambda: self.heard.append("drained"), lambda: self.heard.append("closed"))
        responder.start(200, [])
        responder.write(b"first")


class Browser:
    """One connection of HTTP/1.1."""

    def __init__(self) -> None:
        self.service = Endless()
        self.world = World(Limits(), self.service.handle)
        self.transport = FakeTransport()
        self.connection = Http1Connection(self.world.commons, self.transport)
        self.connection.data_received(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.world.loop.turn()


@pytest.mark.parametrize("end", ["eof", "lost", "abort"])
def test_a_client_of_http1_that_goes_is_noticed(end: str) -> None:
    """Once, however it goes; one that only ends its half has gone too, as for Go's server."""
    browser = Browser()
    if end == "eof":
        assert not browser.connection.eof_received()
    browser.connection.connection_lost(None if end == "eof" else ConnectionResetError())
    assert browser.service.heard == ["closed"]
    assert browser.service.responder.done
    browser.service.responder.write(b"too late")
    browser.service.responder.end()
    assert browser.service.heard == ["closed"]


def test_the_end_of_an_answer_is_no_news_to_who_gave_it() -> None:
    """Only clients that go before it are."""
    browser = Browser()
    browser.service.responder.end()
    browser.world.loop.turn()
    browser.connection.connection_lost(None)
    assert browser.service.heard == []
    assert bytes(browser.transport.written).endswith(b"5\r\nfirst\r\n0\r\n\r\n")


def test_a_client_of_http1_that_reads_again_is_noticed() -> None:
    """Whoever stopped sending because much was unsent goes on."""
    browser = Browser()
    browser.connection.pause_writing()
    browser.connection.resume_writing()
    assert browser.service.heard == ["drained"]


def test_what_is_unsent_is_told_when_it_has_left() -> None:
    """Below the transport's bound nobody tells of its end: a service that waited for it would wait for ever."""
    browser = Browser()
    browser.service.responder.write(b"x" * 100)
    browser.world.loop.turn()
    browser.transport.buffered_bytes = 100
    assert browser.service.responder.unsent_bytes == 0
    browser.connection.pause_writing()
    assert browser.service.responder.unsent_bytes == 100
    browser.transport.buffered_bytes = 10
    browser.connection.resume_writing()
    assert (browser.service.responder.unsent_bytes, browser.service.heard) == (0, ["drained"])


class Http2Browser:
    """One connection of HTTP/2 whose client asks for a page."""

    def __init__(self) -> None:
        self.service = Endless()
        self.client = Client(World(Limits(), self.service.handle))
        headers = self.client.headers(
            1, ("content-type", "text/plain"), (":method", "GET"), flags=frames.END_HEADERS | frames.END_STREAM
        )
        self.client.feed(headers)


def test_a_client_of_http2_that_goes_is_noticed() -> None:
    """By a reset of its stream, or the end of the connection."""
    browser = Http2Browser()
    browser.client.feed(frames.reset_frame(1, frames.ErrorCode.CANCEL))
    assert browser.service.heard == ["closed"]
    other = Http2Browser()
    other.client.connection.connection_lost(None)
    assert other.service.heard == ["closed"]


def test_a_client_of_http2_that_reads_again_is_noticed() -> None:
    """When its window lets the rest out."""
    browser = Http2Browser()
    browser.service.responder.write(b"x" * 100_000)
    browser.client.world.loop.turn()
    assert browser.service.heard == []
    assert browser.service.responder.unsent_bytes
    browser.client.feed(frames.window_update_frame(1, 1 << 20), frames.window_update_frame(0, 1 << 20))
    assert browser.service.heard == ["drained"]
    browser.service.responder.end()
    assert browser.service.heard == ["drained"]


def test_calls_are_counted_once_each() -> None:
    """Good ends, failures, clients that cancel; by the version that the client gives."""
    held: list[Call] = []

    def hold(call: Call, _payload: bytes) -> None:
        held.append(call)

    world = World()
    world.commons.routes = routes = Routes({"/test.Echo/Hold": hold}, {})
    client = Client(world)
    for stream_id in (1, 3, 5):
        client.feed(client.headers(stream_id, ("client-api-version", "3.5"), path="Hold"), data(stream_id, b"12345"))
    held[0].reply(b"123")
    held[1].fail(Status(Code.NOT_FOUND, ""))
    held[1].fail(Status(Code.INTERNAL, ""))
    client.feed(frames.reset_frame(5, frames.ErrorCode.CANCEL))
    client.connection.connection_lost(None)
    tally = routes.tallies.find("/test.Echo/Hold", "3.5")
    assert (tally.started, tally.received_bytes, tally.replied, tally.sent_bytes) == (3, 15, 1, 3)
    assert tally.ended == {Code.NOT_FOUND: 1, Code.CANCELLED: 1}
