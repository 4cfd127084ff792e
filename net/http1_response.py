"""The answer to one HTTP/1.1 request: whole, or in chunks, or as long as the connection for a client of HTTP/1.0.

Encodes, and hands the bytes to its connection.  Spec: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.http1 import Http1Connection
    from net.http1_parser import Head
    from net.websocket import WebSocket


class Http1Response:
    """The answer to one request; see HttpResponder."""

    def __init__(self, connection: Http1Connection, head: Head) -> None:
        self.done = False
        self._connection = connection
        self._head = head
        self._started = False
        self._chunked = head.version != "1.0"
        self._on_drained: Callable[[], None] | None = None
        self._on_closed: Callable[[], None] | None = None

    @property
    def followed(self) -> bool:
        """Whether somebody wants to know when the client goes."""
        return self._on_closed is not None

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """Hear of the client of an answer that has no end by itself."""
        self._on_drained = on_drained
        self._on_closed = on_closed

    def drained(self) -> None:
        """Take note that the socket takes bytes again."""
        if not self.done and self._on_drained is not None:
            self._on_drained()

    def lost(self) -> None:
        """Take note that the connection is gone, or closing."""
        self.done = True
        on_closed, self._on_drained, self._on_closed = self._on_closed, None, None
        if on_closed is not None:
            on_closed()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait because the client does not read."""
        return 0 if self.done else self._connection.unsent_bytes

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer at once; content-length is added."""
        if self.done or self._started:
            return
        bare = status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        length = () if bare else (("content-length", str(len(body))),)
        self._connection.send(encode_head(status, [*headers, *length, *self._connection_header()], self._head.version))
        if not bare and self._head.method != "HEAD":
            self._connection.send(body)
        self._finish()

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begin a chunked answer; a client of HTTP/1.0 gets one that ends with the connection."""
        if self.done or self._started:
            return
        self._started = True
        if self._chunked:
            framing: tuple[tuple[str, str], ...] = (("transfer-encoding", "chunked"), *self._connection_header())
        else:
            self._head.keep_alive = False
            framing = self._connection_header()
        self._connection.send(encode_head(status, [*headers, *framing], self._head.version))

    def write(self, chunk: bytes) -> None:
        """Send one chunk.  An empty one would end the answer, so it is left out."""
        if self.done or not self._started or not chunk or self._head.method == "HEAD":
            return
        self._connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    def end(self) -> None:
        """Finish a chunked answer."""
        if self.done or not self._started:
            return
        if self._chunked and self._head.method != "HEAD":
            self._connection.send(b"0\r\n\r\n")
        self._finish()

    def upgrade(
        self,
        headers: Sequence[tuple[str, str]],
        on_message: Callable[[bytes], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> WebSocket | None:
        """Answer with 101 and speak WebSocket from here on; None if it was answered before."""
        if self.done or self._started:
            return None
        self.done = True
        self._connection.send(encode_head(HTTPStatus.SWITCHING_PROTOCOLS, headers))
        return self._connection.become_websocket(on_message, on_drained, on_closed)

    def _connection_header(self) -> tuple[tuple[str, str], ...]:
        """Say what differs from what the version of HTTP has as its rule."""
        old = self._head.version == "1.0"
        if self._head.keep_alive is not old:
            return ()
        return (("connection", "keep-alive" if old else "close"),)

    def _finish(self) -> None:
        self.done = True
        self._connection.answered(keep_alive=self._head.keep_alive)


def encode_head(status: int, headers: Sequence[tuple[str, str]], version: str = "1.1") -> bytes:
    """Encode a status line and headers; any status is allowed."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    lines = [f"HTTP/{version} {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")
