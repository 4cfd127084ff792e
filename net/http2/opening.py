"""From the header block of a request to a stream: who serves it, or how it is refused.

Shared by every request off the hot path.  The refusals are grpc-go's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from net.http2 import frames
from net.http2.frames import ErrorCode, StreamFaultError
from net.http2.grpc import DEADLINE, UnaryCall
from net.http2.headers import encode_literal
from net.http2.messages import check_encoding, percent_encode, trailers_frame
from net.http2.plain import HttpExchange
from net.http2.streaming import StreamCall
from net.rpc import Code, RefusedCall, Status

if TYPE_CHECKING:
    from net.http2.dispatch import Dispatch
    from net.http2.request import Request
    from net.http2.stream import Http2Stream
    from net.rpc import HttpRequest, HttpResponder


def open_stream(
    connection: Dispatch, stream_id: int, request: Request, timeout_s: float | Status | None, ended: bool
) -> None:
    """Open the stream that *request* asks for, or answer why not.  *timeout_s* is a Status if it was malformed."""
    if request.content_length and ended:
        raise StreamFaultError(ErrorCode.PROTOCOL_ERROR, "content-length disagrees with the body")
    stream: Http2Stream
    if not request.grpc:
        # Refused only when the body has come: curl waits for ever, or fails, if it is answered while it sends.
        stream = HttpExchange(connection, stream_id, request, connection.commons.http or _refuse_content_type)
    else:
        refusal = _refusal(request, timeout_s)
        if refusal is not None:
            http_status, status = refusal
            on_refused = connection.commons.routes.on_refused
            if on_refused is not None:
                names = connection.peername, connection.common_name
                on_refused(RefusedCall(request.path, request.metadata(), *names), status)
            tail = trailers_frame(stream_id, status, alone=True, http_status=http_status)
            _answer_early(connection, stream_id, tail, ended)
            return
        assert not isinstance(timeout_s, Status), timeout_s
        deadline_s = None if timeout_s is None else connection.last_read_s + timeout_s
        call = UnaryCall if request.unary is not None else StreamCall
        stream = call(connection, stream_id, request, deadline_s)
        if deadline_s is not None:
            stream.bucket = connection.commons.deadlines.add(stream, deadline_s)
    connection.streams[stream_id] = stream
    stream.body_bytes_left = request.content_length
    stream.remote_open = not ended
    if isinstance(stream, StreamCall):
        stream.open()
    if ended:
        stream.receive(b"", ended=True)


def refuse_oversized(connection: Dispatch, stream_id: int, ended: bool) -> None:
    """Answer a request whose header list is above the limit (RFC 9113, section 10.5.1)."""
    block = encode_literal(b":status", b"431")
    tail = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, block)
    _answer_early(connection, stream_id, tail, ended)


def _refuse_content_type(request: HttpRequest, responder: HttpResponder) -> None:
    text = f'invalid gRPC request content-type "{request.headers.get("content-type", "")}"'
    status = (("grpc-status", str(int(Code.INVALID_ARGUMENT))), ("grpc-message", percent_encode(text).decode()))
    responder.reply(415, (("content-type", "application/grpc"), *status), b"")


def _refusal(request: Request, timeout_s: float | Status | None) -> tuple[int, Status] | None:
    if isinstance(timeout_s, Status):
        return 400, timeout_s
    if request.refusal is not None:
        return request.refusal
    if timeout_s is not None and timeout_s <= 0:
        return 200, DEADLINE
    encoding = check_encoding(request.encoding)
    return None if encoding is None else (200, encoding)


def _answer_early(connection: Dispatch, stream_id: int, tail: bytes, ended: bool) -> None:
    connection.out.append(tail)
    connection.strikes_pardoned = True
    if not ended:
        connection.out.append(frames.reset_frame(stream_id, ErrorCode.NO_ERROR))
        connection.remember_reset(stream_id)
    connection.hold()
