"""One suite for both engines: whatever carries a call, its service and its client see the same.

The client is grpcio's, the service a small echo.  The engine runs on an event loop in a thread of this process.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import pytest
import structlog

from net.grpcio_engine import GrpcioListener
from net.listener import NativeListener
from net.rpc import OK, Call, Code, HttpRequest, HttpResponder, Limits, Routes, Status, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

pytestmark = pytest.mark.e2e

T = TypeVar("T")
WAIT_S = 20.0
MEBIBYTE = 1024 * 1024


class EchoService:
    """Every way of answering a call; what it is told of ends is kept in *ends*."""

    def __init__(self) -> None:
        self.ends: SimpleQueue[Status] = SimpleQueue()
        self.held: list[Call] = []
        self.unsent_bytes_seen = 0
        self._later: list[tuple[Call, bytes]] = []

    def routes(self) -> Routes:
        return Routes(
            unary={
                "/test.Echo/Echo": lambda call, message: call.reply(message),
                "/test.Echo/Later": lambda call, message: self._later.append((call, message)),
                "/test.Echo/Never": lambda call, message: self.held.append(call),
                "/test.Echo/Fail": _fail,
                "/test.Echo/Describe": _describe,
                "/test.Echo/Twice": _twice,
                "/test.Echo/Raise": _raise,
            },
            streams={
                "/test.Echo/Bidi": lambda stream: Bidi(self, stream),
                "/test.Echo/Open": lambda stream: Open(self, stream),
                "/test.Echo/Count": lambda stream: Count(self, stream),
                "/test.Echo/Sum": lambda stream: Sum(self, stream),
                "/test.Echo/Paused": lambda stream: Paused(self, stream),
            },
        )

    def on_batch_end(self) -> None:
        later, self._later = self._later, []
        for call, message in later:
            call.reply(message)


def _fail(call: Call, message: bytes) -> None:
    code, text = json.loads(message)
    call.fail(Status(Code(code), text))


def _describe(call: Call, _message: bytes) -> None:
    metadata = {name: list(values) for name, values in call.metadata.items()}
    has_deadline = call.deadline_s is not None
    described = {"method": call.method, "metadata": metadata, "peer": call.peer, "deadline": has_deadline}
    call.reply(json.dumps(described).encode())


def _twice(call: Call, message: bytes) -> None:
    call.reply(message)
    call.reply(b"again")
    call.fail(Status(Code.INTERNAL, "too late"))


def _raise(call: Call, message: bytes) -> None:
    raise ZeroDivisionError(message.decode())


class Bidi:
    """Echoes each message, and the half close."""

    def __init__(self, service: EchoService, stream: Stream) -> None:
        self.service = service
        self.stream = stream

    def on_message(self, message: bytes) -> None:
        self.stream.send(message)

    def on_half_close(self) -> None:
        self.stream.finish()

    def on_drained(self) -> None:
        pass

    def on_closed(self, status: Status) -> None:
        self.service.ends.put(status)


class Open(Bidi):
    """Echoes each message, and does not end by itself: in grpcio a cancelled stream may look half closed at first."""

    def on_half_close(self) -> None:
        pass


class Count(Bidi):
    """Sends as many messages of as many bytes as the request says, no more at a time than the client takes."""

    def on_message(self, message: bytes) -> None:
        self.left, self.size = json.loads(message)
        self.on_drained()

    def on_half_close(self) -> None:
        pass

    def on_drained(self) -> None:
        while self.left and self.stream.unsent_bytes < MEBIBYTE:
            self.left -= 1
            self.stream.send(bytes(self.size))
            self.service.unsent_bytes_seen = max(self.service.unsent_bytes_seen, self.stream.unsent_bytes)
        if not self.left:
            self.stream.finish()


class Sum(Bidi):
    """Adds up the client's messages; answers at its half close."""

    total = 0

    def on_message(self, message: bytes) -> None:
        self.total += len(message)

    def on_half_close(self) -> None:
        self.stream.send(str(self.total).encode())
        self.stream.finish()


class Paused(Bidi):
    """Stops reading after each message until the loop's next turn; messages have to come one by one all the same."""

    def on_message(self, message: bytes) -> None:
        self.stream.send(message)
        self.stream.pause_reading()
        asyncio.get_running_loop().call_soon(self.stream.resume_reading)


def answer_http(request: HttpRequest, responder: HttpResponder) -> None:
    """Describe the request."""
    described = {"method": request.method, "path": request.path, "query": request.query, "size": len(request.body)}
    responder.reply(200, [("content-type", "application/json")], json.dumps(described).encode())


class Engine:
    """A running listener, and the loop that it runs on."""

    def __init__(self, kind: str, limits: Limits | None = None) -> None:
        self.kind = kind
        self.service = EchoService()
        self.faults: SimpleQueue[BaseException] = SimpleQueue()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        routes, limits, on_batch_end = self.service.routes(), limits or Limits(), self.service.on_batch_end
        self.listener: NativeListener | GrpcioListener
        if kind == "grpcio":
            grpcio = GrpcioListener(routes, limits, fatal=self.faults.put, on_batch_end=on_batch_end)
            self.listener = grpcio
            self.port = self.run(grpcio.start("127.0.0.1:0"))
        else:
            log = structlog.get_logger()
            native = NativeListener(routes, answer_http, limits, log, fatal=self.faults.put, on_batch_end=on_batch_end)
            self.listener = native
            bound = socket.create_server(("127.0.0.1", 0))
            self.port = bound.getsockname()[1]
            self.run(native.start([bound]))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    def stop(self) -> None:
        self.run(self.listener.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()

    def channel(self, **options: int) -> grpc.Channel:
        arguments = [(f"grpc.{name}", value) for name, value in options.items()]
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=[*unlimited, *arguments])


@pytest.fixture(params=["native", "grpcio"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    running = Engine(request.param)
    yield running
    running.stop()


@pytest.fixture
def native() -> Iterator[Engine]:
    running = Engine("native")
    yield running
    running.stop()


@pytest.fixture
def channel(engine: Engine) -> Iterator[grpc.Channel]:
    with engine.channel() as opened:
        yield opened


def unary_unary(channel: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(f"/test.Echo/{method}", None, None)


def unary_stream(channel: grpc.Channel, method: str) -> grpc.UnaryStreamMultiCallable[bytes, bytes]:
    return channel.unary_stream(f"/test.Echo/{method}", None, None)


def stream_unary(channel: grpc.Channel, method: str) -> grpc.StreamUnaryMultiCallable[bytes, bytes]:
    return channel.stream_unary(f"/test.Echo/{method}", None, None)


def stream_stream(channel: grpc.Channel, method: str) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
    return channel.stream_stream(f"/test.Echo/{method}", None, None)


def error_of(action: Callable[[], object]) -> tuple[Code, str]:
    """Return the status that *action* fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        action()
    error: Any = caught.value
    return Code(error.code().value[0]), error.details() or ""


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 16_378, 16_379, 70_000, 2_000_000])
def test_unary_echo(channel: grpc.Channel, size: int) -> None:
    """A unary call returns the bytes it was given, below, at and above every frame and window size."""
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert unary_unary(channel, "Echo")(message, timeout=WAIT_S) == message


def test_unary_answers_at_the_end_of_the_batch(channel: grpc.Channel) -> None:
    """Services answer in on_batch_end, which must come after the messages and before the answers leave."""
    call = unary_unary(channel, "Later")
    futures = [call.future(b"%d" % number, timeout=WAIT_S) for number in range(200)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (Code.NOT_FOUND, "etcdserver: requested lease not found"),
        (Code.OUT_OF_RANGE, "Ünicode 100 % 中文 🙂 %41"),
        (Code.UNKNOWN, "two\nlines\tand \x7f control"),
        (Code.ABORTED, ""),
    ],
)
def test_failures_carry_code_and_text(channel: grpc.Channel, code: Code, text: str) -> None:
    """Clients tell errors apart by text, so any Unicode must survive the wire."""
    request = json.dumps([code, text]).encode()
    failing = unary_unary(channel, "Fail")
    assert error_of(lambda: failing(request, timeout=WAIT_S)) == (code, text)


def test_only_the_first_answer_counts(channel: grpc.Channel) -> None:
    """A reply that comes after the end is ignored rather than corrupting the connection."""
    call = unary_unary(channel, "Twice")
    assert [call(b"one", timeout=WAIT_S), call(b"two", timeout=WAIT_S)] == [b"one", b"two"]


def test_unknown_service_and_method(channel: grpc.Channel) -> None:
    """The answers to unknown paths are grpc-go's words."""
    assert error_of(lambda: unary_unary(channel, "Nope")(b"", timeout=WAIT_S)) == (
        Code.UNIMPLEMENTED,
        "unknown method Nope for service test.Echo",
    )
    assert error_of(lambda: channel.unary_unary("/no.Such/Nope", bytes, bytes)(b"", timeout=WAIT_S)) == (
        Code.UNIMPLEMENTED,
        "unknown service no.Such",
    )


def test_context(channel: grpc.Channel) -> None:
    """A service sees path, metadata (binary in base64, repeated in order), peer, and whether there is a deadline."""
    metadata = (("token", "a.1"), ("token", "b.2"), ("raw-bin", b"\x00\xff"), ("hasleader", "true"))
    described = json.loads(unary_unary(channel, "Describe")(b"", metadata=metadata, timeout=WAIT_S))
    assert described["method"] == "/test.Echo/Describe"
    assert described["metadata"]["token"] == ["a.1", "b.2"]
    assert described["metadata"]["raw-bin"] == ["AP8"]
    assert described["metadata"]["hasleader"] == ["true"]
    assert described["peer"].startswith("127.0.0.1:")
    assert described["deadline"]
    assert not json.loads(unary_unary(channel, "Describe")(b""))["deadline"]


def test_deadline(engine: Engine, channel: grpc.Channel) -> None:
    """A call past its deadline fails at the client and is done for the service, without being answered."""
    code, _ = error_of(lambda: unary_unary(channel, "Never")(b"", timeout=0.3))
    assert code == Code.DEADLINE_EXCEEDED
    eventually(lambda: engine.service.held[0].done)


def test_many_calls_with_changing_deadlines(channel: grpc.Channel) -> None:
    """Header blocks that differ in the timeout alone must not be mistaken for each other."""
    call = unary_unary(channel, "Echo")
    for number in range(300):
        assert call(b"%d" % number, timeout=5 + number / 7) == b"%d" % number


def test_cancel_unary(engine: Engine, channel: grpc.Channel) -> None:
    """A service can see that nobody waits any more."""
    future: Any = unary_unary(channel, "Never").future(b"")
    eventually(lambda: bool(engine.service.held))
    future.cancel()
    eventually(lambda: engine.service.held[0].done)


def test_cancel_stream(engine: Engine, channel: grpc.Channel) -> None:
    """A cancelled stream is told to its handler, once."""
    requests: SimpleQueue[bytes | None] = SimpleQueue()
    call: Any = stream_stream(channel, "Bidi")(iter(requests.get, None))
    requests.put(b"one")
    assert next(call) == b"one"
    call.cancel()
    requests.put(None)
    status = engine.service.ends.get(timeout=WAIT_S)
    # grpcio may report the client's end of input before its cancellation; Bidi has finished with OK by then.
    assert status.code == Code.CANCELLED or (engine.kind, status) == ("grpcio", OK)
    assert engine.service.ends.empty()


def test_message_above_the_limit(engine: Engine, channel: grpc.Channel) -> None:
    """A message above the limit is refused with the text that etcd's clients know; the connection lives on."""
    limit = Limits().receive_message_bytes_max
    call = unary_unary(channel, "Echo")
    code, text = error_of(lambda: call(bytes(limit + 1), timeout=WAIT_S))
    assert code == Code.RESOURCE_EXHAUSTED
    if engine.kind == "native":
        assert text == f"grpc: received message larger than max ({limit + 1} vs. {limit})"
    assert call(b"small", timeout=WAIT_S) == b"small"


def test_gzip_requests(engine: Engine) -> None:
    """A compressed request is decompressed before the service sees it, and the limit holds for what comes out."""
    with engine.channel(default_compression_algorithm=grpc.Compression.Gzip.value) as channel:
        call = unary_unary(channel, "Echo")
        assert call(b"x" * 100_000, timeout=WAIT_S) == b"x" * 100_000
        bomb = bytes(Limits().receive_message_bytes_max + 1)
        assert error_of(lambda: call(bomb, timeout=WAIT_S))[0] == Code.RESOURCE_EXHAUSTED


def test_bidi_interleaves(engine: Engine, channel: grpc.Channel) -> None:
    """Each message is answered before the next is sent: nothing waits for a half close."""
    requests: SimpleQueue[bytes | None] = SimpleQueue()
    call = stream_stream(channel, "Bidi")(iter(requests.get, None), timeout=WAIT_S)
    for size in (0, 5, 100_000, 1):
        requests.put(bytes(size))
        assert next(iter(call)) == bytes(size)
    requests.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK
    assert engine.service.ends.get(timeout=WAIT_S) == OK


def test_client_stream(channel: grpc.Channel) -> None:
    """A client stream of several megabytes is answered at its half close."""
    pieces = [bytes(300_000)] * 20
    assert stream_unary(channel, "Sum")(iter(pieces), timeout=WAIT_S) == b"6000000"
    assert stream_unary(channel, "Sum")(iter(()), timeout=WAIT_S) == b"0"


def test_pausing_keeps_order(channel: grpc.Channel) -> None:
    """A handler that pauses after each message gets them all, in order."""
    messages = [b"%d" % number * 1000 for number in range(200)]
    assert list(stream_stream(channel, "Paused")(iter(messages), timeout=WAIT_S)) == messages


def test_server_stream_with_a_slow_reader(engine: Engine, channel: grpc.Channel) -> None:
    """A service that watches unsent_bytes is held back by a client that does not read, and goes on when it does."""
    count, size = 300, 100_000
    call = unary_stream(channel, "Count")(json.dumps([count, size]).encode(), timeout=WAIT_S)
    assert next(iter(call)) == bytes(size)
    eventually(lambda: engine.service.unsent_bytes_seen >= MEBIBYTE)
    assert sum(1 for _ in call) == count - 1
    assert engine.service.unsent_bytes_seen < 2 * MEBIBYTE


def test_many_concurrent_streams(channel: grpc.Channel) -> None:
    """Streams of one connection do not hold each other up or mix."""
    call = stream_stream(channel, "Bidi")

    def echo(number: int) -> bool:
        messages = [b"%d:%d" % (number, index) * (1 + number * 20) for index in range(10)]
        return list(call(iter(messages), timeout=WAIT_S)) == messages

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(echo, range(100)))


def test_large_answers_on_many_streams(channel: grpc.Channel) -> None:
    """Several large server streams share the connection's window."""
    calls = [unary_stream(channel, "Count")(b"[20, 200000]", timeout=WAIT_S) for _ in range(8)]
    assert [sum(len(message) for message in call) for call in calls] == [4_000_000] * 8


def test_handler_that_raises(engine: Engine, channel: grpc.Channel) -> None:
    """A bug in a service is answered INTERNAL and reported: the node stops rather than guess."""
    code, _ = error_of(lambda: unary_unary(channel, "Raise")(b"oops", timeout=WAIT_S))
    assert code == Code.INTERNAL
    assert isinstance(engine.faults.get(timeout=WAIT_S), ZeroDivisionError)


def test_drain_finishes_what_is_in_flight(engine: Engine) -> None:
    """A drain answers open calls, sends clients away with GOAWAY, and refuses new connections."""
    with engine.channel(enable_retries=0) as channel:
        requests: SimpleQueue[bytes | None] = SimpleQueue()
        call = stream_stream(channel, "Bidi")(iter(requests.get, None), timeout=WAIT_S)
        requests.put(b"one")
        assert next(iter(call)) == b"one"
        draining = asyncio.run_coroutine_threadsafe(engine.listener.drain(WAIT_S), engine.loop)
        engine.run(asyncio.sleep(0))  # comes after the drain's beginning
        requests.put(b"two")
        assert next(iter(call)) == b"two"
        requests.put(None)
        assert list(call) == []
        assert draining.result(WAIT_S)
    with engine.channel() as late:
        code, _ = error_of(lambda: unary_unary(late, "Echo")(b"", timeout=1))
        assert code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


def test_drain_gives_up_after_its_timeout(engine: Engine, channel: grpc.Channel) -> None:
    """A stream that never ends does not hold up a stop for ever."""
    call: Any = stream_stream(channel, "Bidi")(iter(SimpleQueue[bytes]().get, None))
    eventually(call.is_active)
    unary_unary(channel, "Echo")(b"", timeout=WAIT_S)
    assert not engine.run(engine.listener.drain(0.3))
    call.cancel()


def test_close_ends_open_streams(engine: Engine, channel: grpc.Channel) -> None:
    """Handlers learn of a close as of any other end."""
    requests: SimpleQueue[bytes | None] = SimpleQueue()
    call = stream_stream(channel, "Open")(iter(requests.get, None))
    requests.put(b"one")
    assert next(iter(call)) == b"one"
    engine.run(engine.listener.close())
    assert engine.service.ends.get(timeout=WAIT_S).code == Code.CANCELLED
    requests.put(None)


def test_keepalive_pings_of_a_client(engine: Engine) -> None:
    """A client that pings at the pace that etcdctl does, with a stream open, is not sent away."""
    with engine.channel(keepalive_time_ms=1000, keepalive_timeout_ms=2000, http2_max_pings_without_data=0) as channel:
        requests: SimpleQueue[bytes | None] = SimpleQueue()
        call = stream_stream(channel, "Bidi")(iter(requests.get, None))
        for _ in range(3):
            requests.put(b"x")
            assert next(iter(call)) == b"x"
            time.sleep(1.1)
        requests.put(None)
        assert list(call) == []


def test_http_on_the_same_port(native: Engine) -> None:
    """One port serves HTTP/1.1 and plain HTTP/2 beside gRPC; curl is the client that people have."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl")
    url = f"http://127.0.0.1:{native.port}/a%20b?q=1"
    for protocol in ("--http1.1", "--http2-prior-knowledge"):
        for body in ((), ("--data-binary", "x" * 70_000), ("-H", "Transfer-Encoding: chunked", "-d", "abc")):
            if protocol != "--http1.1" and "-H" in body:
                continue
            command = [curl, "--silent", "--show-error", "--max-time", "10", protocol, *body, url]
            out = subprocess.run(command, check=True, capture_output=True).stdout
            described = json.loads(out)
            assert (described["path"], described["query"]) == ("/a b", "q=1"), command
            assert described["size"] == {0: 0, 2: 70_000, 4: 3}[len(body)]


def test_unsupported_content_type_without_http() -> None:
    """A listener for gRPC alone answers other content types as grpc-go does."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl")
    loop = asyncio.new_event_loop()
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]

    async def ask() -> bytes:
        listener = NativeListener(
            EchoService().routes(), None, Limits(), structlog.get_logger(), fatal=lambda error: None
        )
        await listener.start([bound])
        command = f"{curl} -s -o /dev/null -w %{{http_code}} --http2-prior-knowledge -d x http://127.0.0.1:{port}/x"
        process = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        await listener.close()
        return out

    try:
        assert loop.run_until_complete(ask()) == b"415"
    finally:
        loop.close()
