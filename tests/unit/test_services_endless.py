"""Streams without an end of their own: known while they are open, and ended all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.extension_calls import InsideStream
from net.http2 import frames
from net.rpc import OK, Code, HttpRequest, Limits, Routes, Status
from proto.rpc_pb2 import WatchResponse
from services.endless import ENDLESS, EndlessStreams
from services.gateway_calls import GatewayStream
from services.routes import client_routes
from tests.fake_node import FakeNode
from tests.unit.net_harness import Client, Recorder, World, data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.rpc import Stream

WATCH = "/etcdserverpb.Watch/Watch"
STOPPED = Status(Code.UNAVAILABLE, "stopped")


class FakeStream:
    """A stream that remembers how it was ended."""

    method = WATCH
    peer = "somebody"

    def __init__(self) -> None:
        self.ended: list[Status] = []

    def finish(self, status: Status) -> None:
        self.ended.append(status)


class Refusing(Recorder):
    """A handler of which every message is a bug."""

    def on_message(self, message: bytes) -> None:
        raise ValueError(message)


def finishing(stream: Stream) -> Recorder:
    """Open a stream that ends with its opening."""
    stream.finish(STOPPED)
    return Recorder(stream)


def raising(_stream: Stream) -> Recorder:
    """Do not even open it."""
    raise ValueError(WATCH)


class Watched:
    """An HTTP/2 connection with one watch on it."""

    def __init__(self, method: Callable[[Stream], Recorder] = Recorder, timeout: str | None = None) -> None:
        self.endless = EndlessStreams()
        self.opened: list[Recorder] = []

        def opened(stream: Stream) -> Recorder:
            self.opened.append(method(stream))
            return self.opened[-1]

        world = World(Limits(receive_message_bytes_max=1000))
        world.commons.routes = self.endless.followed(Routes({}, {WATCH: opened}))
        self.client = Client(world)
        deadline = () if timeout is None else (("grpc-timeout", timeout),)
        self.client.feed(self.client.headers(1, (":path", WATCH), *deadline))


def _reset(watched: Watched) -> None:
    watched.client.feed(frames.reset_frame(1, frames.ErrorCode.CANCEL))


def _lose(watched: Watched) -> None:
    watched.client.connection.connection_lost(None)
    watched.client.world.loop.turn()


def _close(watched: Watched) -> None:
    watched.client.connection.close()
    watched.client.world.loop.turn()


def _half_close(watched: Watched) -> None:
    watched.client.feed(data(1, b"message"))
    watched.opened[0].stream.finish(OK)
    watched.client.world.loop.turn()


def _too_large(watched: Watched) -> None:
    watched.client.feed(data(1, bytes(2000), end=False))


def _torn(watched: Watched) -> None:
    watched.client.feed(frames.frame(frames.DATA, frames.END_STREAM, 1, b"\0\0"))


def _after_the_end(watched: Watched) -> None:
    watched.client.feed(data(1, b""), data(1, b""))


def _broken_connection(watched: Watched) -> None:
    watched.client.feed(frames.frame(frames.PING, 0, 1, bytes(8)))


def _unread(watched: Watched) -> None:
    """End a stream whose client opens no window; the end waits for it, and then the connection is lost."""
    watched.opened[0].stream.send(bytes(200_000))
    watched.opened[0].stream.finish(OK)
    watched.client.world.loop.turn()
    assert len(watched.endless.open_streams()) == 1
    _lose(watched)


@pytest.mark.parametrize(
    "end",
    [_reset, _lose, _close, _half_close, _too_large, _torn, _after_the_end, _broken_connection, _unread],
)
def test_a_stream_of_http2_is_forgotten_however_it_ends(end: Callable[[Watched], None]) -> None:
    """A watch that is kept after its end would stay in memory for good, and its connection: clients say how much."""
    watched = Watched()
    assert watched.endless.open_streams() == [(WATCH, "192.0.2.1:4321")]
    end(watched)
    assert watched.endless.open_streams() == []
    assert isinstance(watched.opened[0].told[-1], Status)


@pytest.mark.parametrize("method", [finishing, raising])
def test_a_stream_that_does_not_begin_is_not_kept(method: Callable[[Stream], Recorder]) -> None:
    """A method may refuse at once; one that fails is never told of an end."""
    watched = Watched(method)
    watched.client.world.loop.turn()
    assert watched.endless.open_streams() == []


def test_a_stream_is_forgotten_at_its_deadline_and_after_a_bug() -> None:
    """Both ends are the engine's doing: neither client nor service asks for them."""
    timed = Watched(timeout="1S")
    timed.client.world.loop.advance(2.0)
    assert timed.endless.open_streams() == []
    faulty = Watched(Refusing)
    faulty.client.feed(data(1, b"message", end=False))
    assert faulty.endless.open_streams() == []


class Web:
    """The answer to a request of the gateway."""

    leave: Callable[[], None]
    unsent_bytes = 0
    done = False

    def follow(self, _on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """See HttpResponder."""
        self.leave = on_closed

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See HttpResponder."""

    def write(self, chunk: bytes) -> None:
        """See HttpResponder."""

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """See HttpResponder."""

    def end(self) -> None:
        """See HttpResponder."""

    def upgrade(self, *_anything: object) -> None:
        """See HttpResponder: it cannot."""


@pytest.mark.parametrize("way", ["finish", "leave", "expire", "too large"])
def test_a_stream_of_the_gateway_is_forgotten_however_it_ends(way: str) -> None:
    """JSON clients watch, too: through the same methods, with another idea of a stream."""
    endless = EndlessStreams()
    method = endless.followed(Routes({}, {WATCH: Recorder})).streams[WATCH]
    web, routes = Web(), Routes({}, {})
    request = HttpRequest("POST", "/v3/watch", "", {}, b"", "192.0.2.1:1", False, None)
    tally = routes.tallies.find(WATCH)
    stream = GatewayStream(
        FakeNode(),
        WATCH,
        {},
        request,
        0.0,
        tally,
        web,
        WatchResponse,
        message_bytes_max=100,
    )
    stream.open(method(stream), [b"message"], live=True)
    assert len(endless.open_streams()) == 1
    ways: dict[str, Callable[[], None]] = {
        "finish": lambda: stream.finish(OK),
        "leave": web.leave,
        "expire": stream.expired,
        "too large": lambda: stream.more(bytes(200)),
    }
    ways[way]()
    assert endless.open_streams() == []


@pytest.mark.parametrize("way", ["finish", "cancel", "before it begins"])
def test_a_stream_of_an_extension_is_forgotten_however_it_ends(way: str) -> None:
    """Extensions come and go while a member runs."""
    endless = EndlessStreams()
    method = endless.followed(Routes({}, {WATCH: Recorder})).streams[WATCH]
    stream = InsideStream(WATCH, lambda _said: None)
    if way == "before it begins":
        stream.cancel()
    stream.open(method(stream))
    if way == "finish":
        stream.finish(OK)
    elif way == "cancel":
        stream.cancel()
    assert endless.open_streams() == []


def test_only_endless_streams_are_ended() -> None:
    """A snapshot is given the time to end; a watch would never."""
    endless = EndlessStreams()
    methods = dict.fromkeys([*ENDLESS, "/etcdserverpb.Maintenance/Snapshot"], Recorder)
    routes = endless.followed(Routes({}, methods))
    streams: dict[str, Any] = {path: FakeStream() for path in methods}
    for path, stream in streams.items():
        routes.streams[path](stream)
    gone: Any = FakeStream()
    routes.streams[WATCH](gone).on_closed(OK)
    endless.finish(STOPPED)
    assert {path for path, stream in streams.items() if stream.ended == [STOPPED]} == ENDLESS
    assert gone.ended == []


def test_they_are_methods_that_there_are() -> None:
    """A method that is renamed must not fall out of the list."""
    assert set(client_routes(FakeNode()).streams) >= ENDLESS
