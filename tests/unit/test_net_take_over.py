"""Connections that leave a listener at the head of a request: streams between members, and their snapshots."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import structlog

from net.listener import NativeListener
from net.rpc import Limits, Routes

if TYPE_CHECKING:
    from net.http1_parser import Head
    from net.rpc import HttpRequest, HttpResponder


class Echo(asyncio.Protocol):
    """Says the path that it was made for, then what it hears."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._path.encode() + b"|")

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        assert self._transport is not None
        self._transport.write(data.upper())
        if data.endswith(b"."):
            self._transport.close()


def take_over(head: Head) -> asyncio.Protocol | None:
    """Take what is posted below /taken."""
    return Echo(head.path) if head.path.startswith("/taken") else None


def answer(request: HttpRequest, responder: HttpResponder) -> None:
    """Answer everything else."""
    responder.reply(200, (), request.path.encode())


async def conversation(*pieces: bytes) -> bytes:
    """Send *pieces* one read after the other, and return all that comes back until the end."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    failures: list[BaseException] = []
    listener = NativeListener(
        Routes({}, {}), answer, Limits(), structlog.get_logger(), fatal=failures.append, take_over=take_over
    )
    await listener.start([listening])
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    heard = await asyncio.wait_for(reader.read(), 5.0)
    writer.close()
    await listener.close()
    assert failures == []
    return heard


def test_head_and_start_of_the_body_in_one_read() -> None:
    """What came behind the head belongs to who takes over: a snapshot's first bytes must not be lost."""
    heard = asyncio.run(
        conversation(b"POST /taken/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nabc", b"d.")
    )
    assert heard == b"/taken/a|ABCD."


def test_head_in_pieces() -> None:
    """A head is offered when it is complete, not before."""
    heard = asyncio.run(conversation(b"POST /taken HTTP/1.1\r\nHo", b"st: x\r\nContent-Length: 9", b"\r\n\r\n", b"a."))
    assert heard == b"/taken|A."


def test_after_an_ordinary_request() -> None:
    """A connection that has served requests may be taken over at a later one."""
    heard = asyncio.run(
        conversation(
            b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\nPOST /taken HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na."
        )
    )
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert heard.endswith(b"/plain/taken|A.")
