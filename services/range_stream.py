"""KV.RangeStream: a range in parts, at one revision, at the client's pace.

Put together, the parts are the answer that Range gives.  What is kept for a client that reads slowly is one part, and
for HOLD_S the view that the range was asked of; after that it is read from the newest view at the same revision, which
a compaction may end, as in etcd.  Large ranges are read by a worker.  Spec: RangeStream in etcd 3.7's API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from core.apply.range import Chunk, range_chunk, range_response
from core.apply.txn import check_range
from core.auth.permissions import READ
from core.auth.rules import NOBODY
from core.errors import AuthOldRevision, EtcdError
from core.mvcc.varint import field, varint
from net.rpc import Code, Status
from proto.rpc_pb2 import RangeRequest
from services.errors import status_of, undecodable_message
from services.kv import is_large

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.auth.rules import Identity
    from core.mvcc.view import View
    from net.rpc import Stream
    from services.node import Node

HOLD_S: Final = 10.0
"""How long the view of the first part is held: a store cannot give space back while somebody looks at its past."""

NO_ORDER: Final = Status(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
NO_FILTERS: Final = Status(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")

_RANGE_RESPONSE: Final = b"\x0a"
_MORE: Final = b"\x18\x01"
_COUNT: Final = b"\x20"


class RangeStream:
    """One RangeStream call."""

    def __init__(self, node: Node, stream: Stream) -> None:
        self._node = node
        self._stream = stream
        self._request: RangeRequest | None = None
        self._identity = NOBODY
        self._judged = False
        self._view: View | None = None
        self._call_off: Callable[[], None] = _nothing
        self._header = b""
        self._revision = 0
        self._key = b""
        self._sent_count = 0
        self._reading = False
        self._ended = False

    # -- the stream --------------------------------------------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """Take the request; more than one is not expected and changes nothing."""
        if self._request is not None:
            return
        try:
            request = RangeRequest.FromString(message)
            check_range(request)
        except DecodeError as error:
            self._finish(undecodable_message(error))
            return
        except EtcdError as error:
            self._finish(status_of(error))
            return
        refusal = unsupported(request)
        if refusal is not None:
            self._finish(refusal)
            return
        self._request = request
        if request.serializable:
            self._judge(self._node.view)
        else:
            self._node.read(self, self._judge)

    def on_half_close(self) -> None:
        """Go on: the client has asked, and now listens."""

    def on_drained(self) -> None:
        """Read on."""
        if self._key and not self._reading and not self._ended:
            self._read()

    def on_closed(self, status: Status) -> None:  # noqa: ARG002 - however it ended
        """Let go of what is held."""
        self._ended = True
        self._call_off()
        self._view = None

    @property
    def done(self) -> bool:
        """See Asker."""
        return self._ended

    def fail(self, status: Status) -> None:
        """See Asker, and Answerable."""
        self._finish(status)

    # -- who asks ----------------------------------------------------------------------------------------------------

    def _judge(self, view: View) -> None:
        if self._node.auth.enabled:
            self._node.identify(
                self._stream, lambda identity: self._admit(identity, view), lambda error: self._finish(status_of(error))
            )
        else:
            self._begin(view)

    def _admit(self, identity: Identity, view: View) -> None:
        request = self._request
        assert request is not None, "judged before it was asked"
        try:
            self._node.auth.check_key(identity, request.key, request.range_end, READ)
        except EtcdError as error:
            self._finish(status_of(error))
        else:
            self._identity, self._judged = identity, True
            self._begin(view)

    def _still_admitted(self) -> bool:
        """Whether the rules are those by which the client was admitted; if not, the stream has ended."""
        if self._judged and self._node.auth.revision != self._identity.revision:
            self._finish(status_of(AuthOldRevision()))
            return False
        return True

    # -- the parts ---------------------------------------------------------------------------------------------------

    def _begin(self, view: View) -> None:
        request = self._request
        assert request is not None, "begun before it was asked"
        if self._ended:
            return
        self._header = self._node.headers.encode(view.revision, self._node.term)
        if request.count_only:
            self._count_only(view, request)
            return
        self._view = view
        self._revision = request.revision if request.revision > 0 else view.revision
        self._key = request.key
        self._read()

    def _count_only(self, view: View, request: RangeRequest) -> None:
        count = self._node.counter(view)

        def job() -> bytes:
            return field(_RANGE_RESPONSE, range_response(view, request, self._header))

        if is_large(request, count):
            self._node.work(_Part(self, self._send_last), job)
            return
        try:
            message = field(_RANGE_RESPONSE, range_response(view, request, self._header, count))
        except EtcdError as error:
            self._finish(status_of(error))
        else:
            self._send_last(message)

    def _let_go(self) -> None:
        self._view = None

    def _read(self) -> None:
        """Read the next part: here if all that is left is little, else on a worker."""
        request = self._request
        assert request is not None, "read before it was asked"
        view = self._view or self._node.view
        left = RangeRequest()
        left.CopyFrom(request)
        left.key = self._key
        if view.revision == self._revision:
            left.revision = 0
        found: list[Chunk] = []

        def job() -> bytes:
            chunk, message = self._part(view, request)
            found.append(chunk)
            return message

        try:
            # From the second part on on a worker: a reader that is fast enough would keep the loop to itself.
            large = self._sent_count > 0 or is_large(left, self._node.counter(view))
            if not large:
                message = job()
        except EtcdError as error:
            self._finish(status_of(error))
            return
        if large:
            self._reading = True
            self._node.work(_Part(self, lambda message: self._send(found[0], message)), job)
        else:
            self._send(found[0], message)

    def _part(self, view: View, request: RangeRequest) -> tuple[Chunk, bytes]:
        """Return the next part, and its message; on any thread."""
        limit = max(request.limit, 0)
        room = limit - self._sent_count if limit else 0
        chunk = range_chunk(view, request, self._key, self._revision, room, self._node.limits.request_bytes_max)
        pieces = chunk.records
        count = self._sent_count + len(pieces)
        full = bool(limit) and count == limit
        if full or not chunk.next_key:
            pieces = [self._header, *pieces]
            if chunk.next_key:
                pieces.append(_MORE)
                count += view.count(chunk.next_key, request.range_end, self._revision)
            if count:
                pieces.append(_COUNT + varint(count))
        return (chunk._replace(next_key=b"") if full else chunk), field(_RANGE_RESPONSE, b"".join(pieces))

    def _send(self, chunk: Chunk, message: bytes) -> None:
        self._reading = False
        if not self._still_admitted():
            return
        if chunk.next_key and not self._sent_count:
            _, self._call_off = self._node.at_deadline(HOLD_S, self._let_go)
        self._key = chunk.next_key
        self._sent_count += len(chunk.records)
        if not self._key:
            self._send_last(message)
            return
        self._stream.send(message)
        if not self._stream.unsent_bytes:
            self._read()

    def _send_last(self, message: bytes) -> None:
        if self._still_admitted() and not self._ended:
            self._stream.send(message)
            self._ended = True
            self._stream.finish()

    def _finish(self, status: Status) -> None:
        if not self._ended:
            self._ended = True
            self._stream.finish(status)


class _Part:
    """Takes a part from the worker."""

    def __init__(self, stream: RangeStream, then: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._then = then

    @property
    def done(self) -> bool:
        """See Answerable."""
        return self._stream.done

    def reply(self, message: bytes) -> None:
        """See Answerable."""
        if not self._stream.done:
            self._then(message)

    def fail(self, status: Status) -> None:
        """See Answerable."""
        self._stream.fail(status)


def unsupported(request: RangeRequest) -> Status | None:
    """Return why *request* cannot be answered in parts, if it cannot."""
    if request.sort_order != RangeRequest.NONE and (
        request.sort_order != RangeRequest.ASCEND or request.sort_target != RangeRequest.KEY
    ):
        return NO_ORDER
    filters = (
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
    return NO_FILTERS if any(filters) else None


def _nothing() -> None:
    """Call nothing off."""
