"""The TCP gateway on real sockets: what it passes on, and what it does when members do not answer."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from net.srv import Srv
from proxy.gateway import Gateway
from proxy.remotes import Remotes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WAIT_S = 10.0


class Log:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._waiting: dict[str, asyncio.Event] = {}

    def __getattr__(self, _level: str) -> Callable[..., None]:
        return self._tell

    async def told(self, event: str) -> None:
        """Wait until *event* has been told."""
        if event not in self.events:
            await self._waiting.setdefault(event, asyncio.Event()).wait()

    def _tell(self, event: str, **_: object) -> None:
        self.events.append(event)
        if event in self._waiting:
            self._waiting[event].set()


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def through(
    endpoints: list[Srv], client: Callable[[int, Log], Coroutine[Any, Any, None]], retry_s: float = 60.0
) -> Log:
    """Run a gateway, to itself if there are no *endpoints*, while *client* runs with its port and its log."""
    log = Log()

    async def both() -> None:
        with listening() as listener:
            port = listener.getsockname()[1]
            gateway = Gateway(Remotes(endpoints or [Srv("127.0.0.1", port)], Random(1)), retry_s, log)  # type: ignore[arg-type]
            serving = asyncio.create_task(gateway.run(listener))
            try:
                await asyncio.wait_for(client(port, log), WAIT_S)
            finally:
                serving.cancel()
                with suppress(asyncio.CancelledError):
                    await serving

    asyncio.run(both())
    return log


async def shouting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer, once all has been said, with all that was said."""
    said = await reader.read()
    writer.write(said.upper())
    writer.close()


def member(port_of: list[int]) -> Callable[[], Coroutine[Any, Any, asyncio.Server]]:
    async def start() -> asyncio.Server:
        server = await asyncio.start_server(shouting, "127.0.0.1", port_of[0] if port_of else 0)
        port_of[:] = [server.sockets[0].getsockname()[1]]
        return server

    return start


async def said_through(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        writer.write_eof()
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


def test_all_is_passed_on_and_each_direction_ends_by_itself() -> None:
    """A client that has said all still gets its answer, however long it is; etcd's gateway would cut it off."""
    long = b"x" * 5_000_000

    async def run() -> None:
        async with await member([])() as server:
            target = Srv("127.0.0.1", server.sockets[0].getsockname()[1])

            async def client(port: int, _log: Log) -> None:
                assert await said_through(port, long) == long.upper()

            await asyncio.to_thread(through, [target], client)

    asyncio.run(run())


def test_a_member_that_does_not_answer_is_left_alone_and_tried_again() -> None:
    """The client does not notice; once the member is back it gets connections again."""
    with listening() as gone:
        gone_port = gone.getsockname()[1]

    async def client(port: int, log: Log) -> None:
        async with await member(there)():
            for _ in range(4):
                assert await said_through(port, b"a") == b"A"
            async with await asyncio.start_server(shouting, "127.0.0.1", gone_port):
                await log.told("activated")

    with listening() as reserved:
        there = [reserved.getsockname()[1]]
    log = through([Srv("127.0.0.1", gone_port), Srv("127.0.0.1", there[0])], client, retry_s=0.05)
    assert log.events[:2] == ["ready to proxy client requests", "deactivated endpoint"]
    assert log.events.count("deactivated endpoint") == 1


def test_a_connection_that_leads_back_is_cut() -> None:
    """Endpoints are names that may come to mean this gateway: passed on, one connection would become endless many."""

    async def client(port: int, _log: Log) -> None:
        assert await said_through(port, b"a") == b""

    log = through([], client)
    assert log.events == ["ready to proxy client requests", "deactivated endpoint"]


def test_with_nobody_there_connections_are_closed() -> None:
    """At once, so that clients try elsewhere."""
    with listening() as gone:
        target = Srv("127.0.0.1", gone.getsockname()[1])

    async def client(port: int, _log: Log) -> None:
        assert await said_through(port, b"a") == b""
        assert await said_through(port, b"a") == b""

    assert through([target], client).events.count("deactivated endpoint") == 1
