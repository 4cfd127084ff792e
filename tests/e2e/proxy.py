"""A proxy in front of one member's peer port: it can cut members off, hold back what they say, delay it, or break it.

The first header of a connection says who has dialled it.  What goes wrong is decided for each direction between two
members, whoever of them has dialled: streams carry messages from the member that was dialled to the one that dialled.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tests.e2e.harness import reserve_port

READ_BYTES_MAX: Final = 1 << 16
_SENDER: Final = re.compile(rb"x-server-from: ([0-9a-f]+)\r\n", re.IGNORECASE)


class Proxy:
    """Forwards connections to one member's peer port.  Its methods may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target_port: int) -> None:
        self.reservation = reserve_port()
        self.port = int(self.reservation.getsockname()[1])
        self.broken_count = 0
        """Requests that were broken off, see *break_off*."""
        self._loop = loop
        self._target_port = target_port
        self._blocked: frozenset[str] = frozenset()
        self._all_blocked = False
        self._held_from: frozenset[str] = frozenset()
        self._held_to: frozenset[str] = frozenset()
        self._delay_s = 0.0
        self._break: tuple[bytes, int, int] = (b"", 0, 0)
        self._changed = asyncio.Event()
        self._open: dict[asyncio.StreamWriter, str] = {}
        asyncio.run_coroutine_threadsafe(self._start(), loop).result(10.0)

    def block(self, senders: Sequence[str], *, everybody: bool = False) -> None:
        """Cut and keep out the connections of these members (hexadecimal ids), or everybody's; none heals all."""
        asyncio.run_coroutine_threadsafe(self._block(frozenset(senders), everybody=everybody), self._loop).result(10.0)

    def hold(self, *, from_members: Sequence[str] = (), to_members: Sequence[str] = ()) -> None:
        """Hold back, from now on, what the member behind gets from some members, and what it says to some.

        Nobody's connection ends by it; what was held back arrives late, when nobody is named any more.
        """
        self._loop.call_soon_threadsafe(self._hold, frozenset(from_members), frozenset(to_members))

    def delay(self, delay_s: float) -> None:
        """Let everything take *delay_s* longer in each direction."""
        self._delay_s = delay_s

    def break_off(self, start: bytes, after_bytes: int, times: int) -> None:
        """Cut the next *times* connections whose request begins with *start*, *after_bytes* into it."""
        self._break = (start, after_bytes, times)

    def close(self) -> None:
        """Cut all connections and accept no more."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10.0)

    async def _start(self) -> None:
        self.reservation.listen()
        self.reservation.setblocking(False)
        self._server = await asyncio.start_server(self._serve, sock=self.reservation)

    async def _close(self) -> None:
        self._server.close()
        self._hold(frozenset(), frozenset())
        await self._block(frozenset(), everybody=True)
        while self._open:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0.01)  # until their pumps have noticed

    async def _block(self, senders: frozenset[str], *, everybody: bool) -> None:
        self._blocked, self._all_blocked = senders, everybody
        for writer, sender in list(self._open.items()):
            if everybody or sender in senders:
                writer.transport.abort()

    def _hold(self, from_members: frozenset[str], to_members: frozenset[str]) -> None:
        self._held_from, self._held_to = from_members, to_members
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            found = _SENDER.search(head)
            sender = found[1].decode() if found else ""
            if self._all_blocked or sender in self._blocked:
                return writer.transport.abort()
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._open[writer] = self._open[there_writer] = sender
            there_writer.write(head)
            await asyncio.gather(
                self._pump(reader, there_writer, sender, bytes_max=self._take_break(head)),
                self._pump(there_reader, writer, sender, answers=True),
            )
        return writer.transport.abort()

    def _take_break(self, head: bytes) -> int | None:
        start, after_bytes, times = self._break
        if not times or not head.startswith(start):
            return None
        self._break = (start, after_bytes, times - 1)
        self.broken_count += 1
        return after_bytes

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sender: str,
        *,
        answers: bool = False,
        bytes_max: int | None = None,
    ) -> None:
        passed_bytes = 0
        try:
            with suppress(OSError):
                while data := await reader.read(READ_BYTES_MAX):
                    if self._delay_s:
                        await asyncio.sleep(self._delay_s)
                    while sender in (self._held_to if answers else self._held_from):
                        await self._changed.wait()
                    passed_bytes += len(data)
                    if bytes_max is not None and passed_bytes > bytes_max:
                        break
                    writer.write(data)
                    await writer.drain()
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()
