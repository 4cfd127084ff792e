"""The Watch service: one handler a stream, which checks who may watch and carries; WatchActor decides the rest."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from core.auth.permissions import READ
from core.auth.rules import NOBODY
from core.errors import EtcdError
from proto.rpc_pb2 import WatchRequest
from services.errors import go_text, status_of, undecodable_message

if TYPE_CHECKING:
    from core.auth.rules import Identity
    from net.rpc import Status, Stream
    from proto.rpc_pb2 import WatchCreateRequest
    from services.node import Node


class WatchStream:
    """One Watch call."""

    def __init__(self, node: Node, stream: Stream) -> None:
        self._node = node
        self._stream = stream
        self._number = node.open_watch(stream)
        self._closed = False
        self._judging = False
        self._later: deque[tuple[bytes, WatchRequest]] = deque()

    def on_message(self, message: bytes) -> None:
        """Pass on a create, cancel or progress request."""
        try:
            request = WatchRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable_message(error))
            return
        if self._node.auth.enabled or self._judging:
            self._later.append((message, request))
            self._go_on()
        else:
            self._node.watch(self._number, message)

    def on_half_close(self) -> None:
        """Go on: a client that has sent all its requests still wants its events."""

    def on_drained(self) -> None:
        """Let the stream's watchers go on."""
        self._node.watch_drained(self._number)

    def on_closed(self, status: Status) -> None:  # noqa: ARG002 - however it ended, the watchers end
        """Drop the stream's watchers."""
        self._closed = True
        self._later.clear()
        self._node.close_watch(self._number)

    def _go_on(self) -> None:
        """Pass requests on in their order; a create request waits until it is known who asks."""
        while self._later and not self._judging:
            message, request = self._later.popleft()
            if not request.HasField("create_request"):
                self._node.watch(self._number, message)
                continue
            self._judging = True
            self._node.identify(
                self._stream,
                partial(self._judge, message, request.create_request),
                partial(self._end_judging, message, NOBODY),
            )

    def _judge(self, message: bytes, create: WatchCreateRequest, identity: Identity) -> None:
        # On the range as it was sent: an open end is only allowed by a permission that has one.
        try:
            self._node.auth.check_key(identity, create.key or b"\x00", create.range_end, READ)
        except EtcdError as error:
            self._end_judging(message, identity, error)
        else:
            self._end_judging(message, identity, None)

    def _end_judging(self, message: bytes, identity: Identity, refusal: EtcdError | None) -> None:
        self._judging = False
        if not self._closed:
            reason = "" if refusal is None else go_text(status_of(refusal))
            self._node.watch(self._number, message, identity.user, reason)
            self._go_on()
