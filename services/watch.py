"""The Watch service: one handler a stream, which only carries; WatchActor decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from proto.rpc_pb2 import WatchRequest
from services.errors import undecodable

if TYPE_CHECKING:
    from net.rpc import Status, Stream
    from services.node import Node


class WatchStream:
    """One Watch call."""

    def __init__(self, node: Node, stream: Stream) -> None:
        self._node = node
        self._stream = stream
        self._number = node.open_watch(stream)

    def on_message(self, message: bytes) -> None:
        """Pass on a create, cancel or progress request."""
        try:
            WatchRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable(error))
        else:
            self._node.watch(self._number, message)

    def on_half_close(self) -> None:
        """Go on: a client that has sent all its requests still wants its events."""

    def on_drained(self) -> None:
        """Let the stream's watchers go on."""
        self._node.watch_drained(self._number)

    def on_closed(self, status: Status) -> None:  # noqa: ARG002 - however it ended, the watchers end
        """Drop the stream's watchers."""
        self._node.close_watch(self._number)
