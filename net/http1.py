"""One HTTP/1.1 connection of the native engine: requests in, in order; answers out, in order.

Owns keep-alive, pipelining (one request is handled at a time, the next waits in the buffer), the limits and
timeouts.  What the bytes of a request mean is net/http1_parser.  Spec: RFC 9112.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from net.http1_parser import Head, HttpFaultError, RequestParser
from net.http1_response import Http1Response, encode_head
from net.reading import ReadingProtocol
from net.rpc import HttpRequest
from net.transports import common_name, leave, peer_name
from net.websocket import WebSocket

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from net.commons import Commons, TakeOver
    from net.deadlines import Bucket

IDLE_TIMEOUT_S: Final = 120.0
"""How long a connection is kept between two requests, and how long the body of one may take."""

READ_AHEAD_BYTES_MAX: Final = 64 * 1024
"""How much is read of further requests while one is being answered."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Http1Connection(ReadingProtocol):
    """Speaks HTTP/1.1 on *transport*, from the first request on."""

    def __init__(self, commons: Commons, transport: asyncio.Transport) -> None:
        super().__init__(commons.read_buffer)
        limits = commons.limits
        self._commons = commons
        self._transport = transport
        self._parser = RequestParser(limits.http_head_bytes_max, limits.http_body_bytes_max)
        self._response: Http1Response | None = None
        self._out: list[bytes] = []
        self._holding = False
        self._closing = False
        self._paused = False
        self._reading = True
        self._draining = False
        self._awaiting = "head"
        """What the running timeout is for: the "next" request, its "head", its "body", or nothing."""
        self._bucket: Bucket | None = None
        commons.joined(self)
        self._check_in(limits.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Take what was read; asyncio's call."""
        if self._closing:
            return
        read_s = self._commons.now()
        self._parser.feed(data)
        self._advance()
        self._update_reading()
        self.flush()
        self._commons.delivered(read_s)

    def eof_received(self) -> bool:
        """Answer what was asked completely, then close; asyncio's call."""
        if self._closing or self._response is None or self._response.followed:
            return False
        self._draining = True
        return True

    def pause_writing(self) -> None:
        """Start no further request: the client does not read its answers; asyncio's call."""
        self._paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        """Go on; asyncio's call."""
        self._paused = False
        if self._response is not None:
            self._response.drained()
        self._advance()
        self._update_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the request in flight; asyncio's call."""
        del exc
        self._end()
        self._commons.left(self)

    def expired(self, now_s: float) -> None:
        """Close: the next request did not come, or did not come to its end, in time."""
        del now_s
        self._bucket = None
        if self._parser.begun:
            self._refuse(HttpFaultError(HTTPStatus.REQUEST_TIMEOUT))
            self.flush()
        else:
            self.close()

    def drain(self) -> None:
        """Close after the request in flight, or at once if there is none."""
        self._draining = True
        if self._response is None and not self._parser.begun:
            self.close()

    def close(self) -> None:
        """Close when what was answered so far is sent."""
        if self._closing:
            return
        self.flush()
        self._end()
        self._update_reading()
        leave(self._transport, self._commons.deadlines, self._commons.now)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def flush(self) -> None:
        """Write the answers that have collected."""
        self._holding = False
        if self._out:
            chunk = b"".join(self._out)
            self._out.clear()
            if not self._transport.is_closing():
                self._transport.write(chunk)

    @property
    def unsent_bytes(self) -> int:
        """Bytes of answers that the socket has not taken: none until there are so many that their end will be told.

        What waits below the transport's bound leaves by itself without a word, and would be waited for in vain.
        """
        return self._transport.get_write_buffer_size() + sum(map(len, self._out)) if self._paused else 0

    def send(self, piece: bytes) -> None:
        """Put a part of the answer out; it leaves at the end of this turn."""
        self._out.append(piece)
        if not self._holding:
            self._holding = True
            self._commons.flush_later(self)

    def answered(self, *, keep_alive: bool) -> None:
        """Note that the request in flight is done, and take the next one at the end of this turn."""
        self._response = None
        if keep_alive and not self._draining:
            self._await("next", IDLE_TIMEOUT_S)
            self._commons.soon(self._go_on)
        else:
            self.close()

    def become_websocket(
        self, on_message: Callable[[bytes], None], on_drained: Callable[[], None], on_closed: Callable[[], None]
    ) -> WebSocket:
        """Hand the connection over after the answer that says so."""
        self._response = None
        self.flush()
        self._end()
        self._commons.left(self)
        websocket = WebSocket(self._commons, on_message, on_drained, on_closed)
        self._transport.set_protocol(websocket)
        websocket.connection_made(self._transport)
        rest = self._parser.take_rest()
        if rest:
            # Not from in here: whoever asked for the upgrade does not have it yet.
            self._commons.soon(lambda: websocket.data_received(rest))
        return websocket

    def _go_on(self) -> None:
        self._advance()
        self._update_reading()

    def _advance(self) -> None:
        """Take the next request as far as it is there."""
        if self._closing or self._response is not None or self._paused:
            return
        try:
            if self._commons.take_over is not None and self._hand_over(self._commons.take_over):
                return
            head = self._parser.next_request()
        except HttpFaultError as fault:
            self._refuse(fault)
            return
        if head is not None:
            self._deliver(head)
            return
        if self._parser.expects_continue:
            self._parser.expects_continue = False
            self.send(_CONTINUE)
        if self._parser.in_body:
            self._await("body", IDLE_TIMEOUT_S)
        elif self._parser.begun:
            self._await("head", self._commons.limits.header_timeout_s)

    def _hand_over(self, take_over: TakeOver) -> bool:
        """Give the connection away if *take_over* wants it for the request that has begun."""
        head = self._parser.next_head()
        protocol = None if head is None else take_over(head)
        if protocol is None:
            return False
        if self._parser.expects_continue:
            self._out.append(_CONTINUE)
        self.flush()
        self._end()
        self._commons.left(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        rest = self._parser.take_rest()
        if rest:
            protocol.data_received(rest)
        return True

    def _deliver(self, head: Head) -> None:
        self._awaiting = ""
        if self._bucket is not None:
            self._bucket.pop(self, None)
            self._bucket = None
        response = self._response = Http1Response(self, head)
        request = HttpRequest(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=head.body,
            peer=peer_name(self._transport),
            secure=self._transport.get_extra_info("ssl_object") is not None,
            common_name=common_name(self._transport),
        )
        if self._commons.http is None:
            response.reply(HTTPStatus.NOT_FOUND, (), b"")
            return
        try:
            self._commons.http(request, response)
        except Exception as error:  # noqa: BLE001  # a bug of the service: the hook ends the process
            response.reply(HTTPStatus.INTERNAL_SERVER_ERROR, (), b"")
            self._commons.fatal(error)

    def _refuse(self, fault: HttpFaultError) -> None:
        """Answer what is no request, or not one that is taken here; nothing after it can be trusted."""
        body = fault.text.encode()
        kind = [("content-type", "text/plain; charset=utf-8")] if body else []
        headers = [*kind, ("connection", "close"), ("content-length", str(len(body)))]
        self.send(encode_head(fault.status, headers) + body)
        self.close()

    def _update_reading(self) -> None:
        """Read, unless answers pile up or enough of the next requests is here."""
        ahead = self._response is not None and self._parser.buffered_bytes > READ_AHEAD_BYTES_MAX
        reading = self._closing or not (self._paused or ahead)
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _await(self, what: str, timeout_s: float) -> None:
        """Start the timeout for *what*, unless it runs already: bytes that trickle in do not prolong it."""
        if self._awaiting != what:
            self._awaiting = what
            self._check_in(timeout_s)

    def _check_in(self, seconds: float) -> None:
        if self._bucket is not None:
            self._bucket.pop(self, None)
        self._bucket = self._commons.deadlines.add(self, self._commons.now() + seconds)

    def _end(self) -> None:
        self._closing = True
        if self._bucket is not None:
            self._bucket.pop(self, None)
            self._bucket = None
        if self._response is not None:
            response, self._response = self._response, None
            response.lost()
