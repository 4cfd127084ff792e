"""The gateway over WebSocket: messages in are JSON values, each line of the answer goes out as a message.

For browsers, which cannot send a body that has no end.  Each session is one call; when it is over the socket closes.
Behaviour: the WebSocket proxy in front of etcd's gateway; a token may come as the subprotocol ``Bearer, TOKEN``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from net.websocket import VERSION, accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.rpc import HttpRequest, HttpResponder
    from net.websocket import WebSocket

TEXTS_WAITING_MAX: Final = 100
"""Messages of a session that wait before no more are read."""

_BEARER: Final = "Bearer"


def token_in_protocols(request: HttpRequest) -> str | None:
    """Return what an Authorization header would say, if the subprotocols say it."""
    offered = request.headers.get("sec-websocket-protocol", "")
    scheme, comma, token = offered.partition(",")
    return f"{_BEARER} {token.strip()}" if comma and scheme.strip() == _BEARER else None


class GatewaySession:
    """One upgraded request: an HttpResponder for the gateway, whose answer goes out in messages."""

    def __init__(self, on_texts: Callable[[GatewaySession], None]) -> None:
        """*on_texts* is called when there is something to take."""
        self.done = False
        self.texts: deque[bytes] = deque()
        self._on_texts = on_texts
        self._socket: WebSocket | None = None
        self._drained: Callable[[], None] = _nothing
        self._closed: Callable[[], None] = _nothing

    def begin(self, request: HttpRequest, responder: HttpResponder) -> bool:
        """Answer the handshake; False if it was refused."""
        key = accepted(request.headers.get("sec-websocket-key", ""))
        if request.method != "GET" or key is None:
            responder.reply(400, _PLAIN, b"Bad Request\n")
            return False
        if request.headers.get("sec-websocket-version", "").strip() != VERSION:
            responder.reply(400, [*_PLAIN, ("sec-websocket-version", VERSION)], b"Bad Request\n")
            return False
        headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", key)]
        if request.headers.get("sec-websocket-protocol", "").startswith(_BEARER):
            headers.append(("sec-websocket-protocol", _BEARER))
        self._socket = responder.upgrade(headers, self._take, self._on_drained, self._lost)
        if self._socket is None:
            responder.reply(400, _PLAIN, b"Bad Request\n")
        return self._socket is not None

    def _on_drained(self) -> None:
        self._drained()

    def next_text(self) -> bytes | None:
        """Return the next message; None if none waits."""
        if not self.texts:
            return None
        text = self.texts.popleft()
        if self._socket is not None and len(self.texts) == TEXTS_WAITING_MAX - 1:
            self._socket.resume_reading()
        return text

    def _take(self, text: bytes) -> None:
        if self.done:
            return
        self.texts.append(text)
        if self._socket is not None and len(self.texts) == TEXTS_WAITING_MAX:
            self._socket.pause_reading()
        self._on_texts(self)

    def _lost(self) -> None:
        if not self.done:
            self.done = True
            self.texts.clear()
            self._closed()

    # -- the answer --------------------------------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """See HttpResponder."""
        return 0 if self._socket is None else self._socket.unsent_bytes

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """See HttpResponder."""
        self._drained, self._closed = on_drained, on_closed

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Send the lines of a whole answer, and close; status and headers have no place here."""
        del status, headers
        self.write(body)
        self.end()

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See HttpResponder; there is nothing to say yet."""

    def write(self, chunk: bytes) -> None:
        """Send each line of *chunk*."""
        if self._socket is not None and not self.done:
            for line in chunk.splitlines():
                self._socket.send(line)

    def end(self) -> None:
        """Close."""
        if self._socket is not None and not self.done:
            self.done = True
            self._socket.finish()

    def upgrade(
        self,
        headers: Sequence[tuple[str, str]],
        on_message: Callable[[bytes], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> WebSocket | None:
        """See HttpResponder; once is enough."""
        del headers, on_message, on_drained, on_closed
        return None


_PLAIN: Final = [("content-type", "text/plain; charset=utf-8")]


def _nothing() -> None:
    """Tell nobody."""
