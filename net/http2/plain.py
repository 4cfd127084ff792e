"""HTTP requests without gRPC's content type over HTTP/2: one request with its body, one answer, whole or in chunks.

The same HttpHandler serves these and HTTP/1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from net.http2 import frames
from net.http2.headers import encode_literal
from net.http2.stream import Http2Stream
from net.rpc import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.http2.dispatch import Dispatch
    from net.http2.request import Request
    from net.rpc import HttpHandler, Status
    from net.websocket import WebSocket


class HttpExchange(Http2Stream):
    """One HTTP request and its responder."""

    def __init__(self, connection: Dispatch, stream_id: int, request: Request, handler: HttpHandler) -> None:
        super().__init__(connection, stream_id)
        self._request = request
        self._handler = handler
        self._body = bytearray()
        self._started = False
        self._on_drained: Callable[[], None] | None = None
        self._on_closed: Callable[[], None] | None = None

    def receive(self, payload: bytes, ended: bool) -> None:
        """Collect the body; hand the request over when it is complete."""
        if self.done:
            return
        self._body += payload
        self.connection.buffered_bytes += len(payload)
        if len(self._body) > self.connection.commons.limits.http_body_bytes_max:
            self.reply(413, (), b"")
        elif ended:
            self._deliver()
        else:
            self.grant()

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """Hear of the client of an answer that has no end by itself."""
        self._on_drained = on_drained
        self._on_closed = on_closed

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer at once; content-length is added."""
        if self.done or self._started:
            return
        self._send_headers(status, [*headers, ("content-length", str(len(body)))])
        if self._request.method != "HEAD":
            self.send_data(body)
        self.end()

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begin an answer of unknown length."""
        if not self.done and not self._started:
            self._send_headers(status, headers)

    def write(self, chunk: bytes) -> None:
        """Send a part of the answer."""
        if not self.done and self._request.method != "HEAD":
            self.send_data(chunk)

    def end(self) -> None:
        """Finish the answer."""
        if not self.done:
            self.done = True
            self._release()
            self.finish_with(frames.frame(frames.DATA, frames.END_STREAM, self.stream_id, b""))

    def upgrade(
        self,
        headers: Sequence[tuple[str, str]],
        on_message: Callable[[bytes], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> WebSocket | None:
        """Refuse: WebSocket over HTTP/2 has its own handshake (RFC 8441), which clients may do without."""
        del headers, on_message, on_drained, on_closed
        return None

    def lost(self, status: Status) -> None:
        """Take note that the client has gone."""
        del status
        answering = not self.done
        self.done = True
        self._release()
        if answering and self._on_closed is not None:
            self._on_closed()

    def drained(self) -> None:
        """Take note that the queue is empty."""
        super().drained()
        if not self.done and self._on_drained is not None:
            self._on_drained()

    def _deliver(self) -> None:
        path, _, query = self._request.path.partition("?")
        request = HttpRequest(
            method=self._request.method,
            path=unquote(path),
            query=query,
            headers=self._request.headers(),
            body=bytes(self._body),
            peer=self.connection.peername,
            secure=self.connection.transport.get_extra_info("ssl_object") is not None,
            common_name=self.connection.common_name,
        )
        self._release()
        try:
            self._handler(request, self)
        except Exception as error:  # noqa: BLE001  # a bug of the service: the hook ends the process
            self.reply(500, (), b"")
            self.connection.commons.fatal(error)

    def _release(self) -> None:
        self.connection.buffered_bytes -= len(self._body)
        self._body.clear()

    def _send_headers(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._started = True
        block = encode_literal(b":status", b"%d" % status) + b"".join(
            encode_literal(name.lower().encode("ascii"), value.encode()) for name, value in headers
        )
        self.connection.out.append(frames.header_frames(0, self.stream_id, block))
        self.connection.hold()
