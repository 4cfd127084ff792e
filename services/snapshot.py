"""Maintenance.Snapshot: the store as one file, streamed at the client's pace.

Owns the order of steps of one call: build, then chunks, then the SHA-256 of them all.  Each step is a job on another
thread, asked for when the one before is done and sent, so that a slow client holds up nobody and little is in memory.
What the file is made of is the export's business.  Spec: Snapshot in the Maintenance section of the etcd v3 API.
"""

from __future__ import annotations

from errno import EIO
from hashlib import sha256
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from core.errors import EtcdError
from net.rpc import Code, Status
from proto.rpc_pb2 import SnapshotRequest, SnapshotResponse
from services.errors import status_of, undecodable_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Stream
    from services.node import Export, Node

CHUNK_SIZE_BYTES = 32 << 10
"""What one message carries at most (etcd's size)."""
CHUNKS_PER_READ = 16
"""Sent before the next are read: what a client that does not read costs us."""


class SnapshotStream:
    """One Snapshot call."""

    def __init__(self, node: Node, stream: Stream) -> None:
        self._node = node
        self._stream = stream
        self._export: Export | None = None
        self._digest = sha256()
        self._left_bytes = 0
        self._working = False
        """A step is under way, which asks for the next one itself."""
        self._error = "the client has left"
        """How it ended, for the log; empty once all was handed to the connection."""

    def on_message(self, message: bytes) -> None:
        """Take the request; more than one is not expected and changes nothing."""
        if self._export is not None:
            return
        try:
            SnapshotRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable_message(error))
            return
        opened = self._node.open_export()
        if isinstance(opened, EtcdError):
            self._stream.finish(status_of(opened))
            return
        self._export = opened
        self._do(opened.build, self._built)

    def on_half_close(self) -> None:
        """Go on: the client has asked, and now listens."""

    def on_drained(self) -> None:
        """Read on, now that all that was read has left."""
        if self._export is not None and self._left_bytes and not self._working:
            self._do(self._read, self._send)

    def on_closed(self, status: Status) -> None:
        """Give up what is left to do."""
        if self._export is not None:
            self._node.close_export(self._export, self._error or ("" if status.code is Code.OK else status.message))
            self._export = None

    def _do(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        self._working = True

        def outcome() -> object:
            try:
                return job()
            except OSError as error:
                return error

        def go_on(result: object) -> None:
            self._working = False
            if self._export is None:
                return  # the client left meanwhile
            if isinstance(result, OSError):
                self._error = f"the snapshot cannot be made: {result.strerror}"
                self._stream.finish(Status(Code.UNKNOWN, self._error))
            else:
                then(result)

        self._node.work_on_export(outcome, go_on)

    def _built(self, whole: object) -> None:
        export = self._export
        assert export is not None
        if whole:
            self._left_bytes = export.size_bytes
            self._do(self._read, self._send)
        else:
            self._do(export.build, self._built)

    def _read(self) -> list[bytes]:
        """Return the next messages; runs on the other thread, as the only one to touch digest and file meanwhile."""
        export = self._export
        if export is None:
            return []  # the client left before this job had its turn
        left_bytes = self._left_bytes
        messages: list[bytes] = []
        for _ in range(CHUNKS_PER_READ):
            if not left_bytes:
                break
            chunk = export.read(CHUNK_SIZE_BYTES)
            if not chunk:
                raise OSError(EIO, "the file is shorter than it was made")
            self._digest.update(chunk)
            left_bytes -= len(chunk)
            message = SnapshotResponse(remaining_bytes=left_bytes, blob=chunk, version=export.storage_version)
            messages.append(message.SerializeToString())
        return messages

    def _send(self, messages: object) -> None:
        assert isinstance(messages, list), type(messages)
        stream = self._stream
        for message in messages:
            stream.send(message)
        self._left_bytes = max(0, self._left_bytes - len(messages) * CHUNK_SIZE_BYTES)
        if not self._left_bytes:
            trailer = SnapshotResponse(remaining_bytes=0, blob=self._digest.digest())
            self._error = ""
            stream.send(trailer.SerializeToString())
            stream.finish()
        elif not stream.unsent_bytes:
            self._do(self._read, self._send)
