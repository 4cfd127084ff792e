"""The Snapshot call: what is sent, in what order, and that nothing is sent which the client does not take."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, cast

import pytest

from core.errors import EtcdError, TooManyRequests
from net.rpc import OK, Code, Status
from proto.rpc_pb2 import SnapshotResponse
from services.snapshot import CHUNK_SIZE_BYTES, CHUNKS_PER_READ, SnapshotStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Stream
    from services.node import Node

BATCH_SIZE_BYTES = CHUNK_SIZE_BYTES * CHUNKS_PER_READ


class FakeExport:
    """A file that is whole after three steps."""

    def __init__(self, content: bytes, fault: OSError | None = None) -> None:
        self.size_bytes = 0
        self.storage_version = "3.6.0"
        self.read_bytes = 0
        self._content = content
        self._steps_left = 3
        self._fault = fault

    def build(self) -> bool:
        self._steps_left -= 1
        if self._steps_left:
            return False
        if self._fault is not None:
            raise self._fault
        self.size_bytes = len(self._content)
        return True

    def read(self, size_bytes: int) -> bytes:
        data = self._content[self.read_bytes : self.read_bytes + size_bytes]
        self.read_bytes += len(data)
        return data

    def close(self) -> None:
        """Nothing is held."""


class FakeNode:
    """Runs a job when the test says so."""

    def __init__(self, export: FakeExport | EtcdError) -> None:
        self.export = export
        self.jobs: list[tuple[Callable[[], object], Callable[[object], None]]] = []
        self.closed: list[str] = []

    def open_export(self) -> FakeExport | EtcdError:
        return self.export

    def work_on_export(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        self.jobs.append((job, then))

    def close_export(self, export: FakeExport, error: str) -> None:
        assert export is self.export
        self.closed.append(error)

    def run(self) -> None:
        """Run jobs until there are none."""
        while self.jobs:
            job, then = self.jobs.pop(0)
            then(job())


class FakeStream:
    """A connection that takes all, or nothing until it is drained."""

    def __init__(self, *, blocked: bool) -> None:
        self.unsent_bytes = 0
        self.sent: list[SnapshotResponse] = []
        self.status: Status | None = None
        self._blocked = blocked

    def send(self, message: bytes) -> None:
        self.sent.append(SnapshotResponse.FromString(message))
        if self._blocked:
            self.unsent_bytes += len(message)

    def finish(self, status: Status = OK) -> None:
        self.status = status


def opened(
    export: FakeExport | EtcdError, *, blocked: bool = False, request: bytes = b""
) -> tuple[FakeNode, FakeStream, SnapshotStream]:
    """A call that was made."""
    node, stream = FakeNode(export), FakeStream(blocked=blocked)
    handler = SnapshotStream(cast("Node", node), cast("Stream", stream))
    handler.on_message(request)
    handler.on_half_close()
    return node, stream, handler


@pytest.mark.parametrize("size_bytes", [512, CHUNK_SIZE_BYTES, BATCH_SIZE_BYTES, BATCH_SIZE_BYTES * 2 + 512])
def test_chunks_then_the_hash(size_bytes: int) -> None:
    """Tools take all messages but the last for the file, and the last for its SHA-256."""
    content = bytes(at % 251 for at in range(size_bytes))
    node, stream, handler = opened(FakeExport(content))
    node.run()
    *chunks, trailer = stream.sent
    assert b"".join(chunk.blob for chunk in chunks) == content
    assert max(len(chunk.blob) for chunk in chunks) <= CHUNK_SIZE_BYTES
    left_bytes = size_bytes
    for chunk in chunks:
        left_bytes -= len(chunk.blob)
        assert chunk.remaining_bytes == left_bytes
        assert chunk.version == "3.6.0"
        assert not chunk.HasField("header")
    assert (trailer.blob, trailer.remaining_bytes) == (sha256(content).digest(), 0)
    assert stream.status == OK
    handler.on_closed(OK)
    assert node.closed == [""]


def test_a_slow_client_is_waited_for() -> None:
    """What a client does not take stays in the file, so a thousand slow ones cannot fill the memory."""
    export = FakeExport(bytes(BATCH_SIZE_BYTES * 3))
    node, stream, handler = opened(export, blocked=True)
    for batches in range(1, 4):
        node.run()
        assert export.read_bytes == batches * BATCH_SIZE_BYTES
        stream.unsent_bytes = 0
        handler.on_drained()
    assert stream.status == OK
    assert not node.jobs


def test_drained_in_the_middle_of_a_step_asks_for_nothing_twice() -> None:
    """Two reads at once would send chunks in the wrong order."""
    node, _, handler = opened(FakeExport(bytes(BATCH_SIZE_BYTES * 2)), blocked=True)
    node.run()
    handler.on_drained()
    handler.on_drained()
    assert len(node.jobs) == 1


def test_a_client_that_leaves_ends_the_work() -> None:
    """A snapshot takes long; nobody must go on with one for a client that has gone."""
    node, stream, handler = opened(FakeExport(bytes(512)))
    handler.on_closed(Status(Code.CANCELLED, "context canceled"))
    node.run()
    assert node.closed == ["the client has left"]
    assert not stream.sent


def test_a_full_disk_fails_the_call_only() -> None:
    """The file is made on disk; where that fails, the client is told and the member lives on."""
    node, stream, handler = opened(FakeExport(b"", OSError(28, "No space left on device")))
    node.run()
    assert stream.status == Status(Code.UNKNOWN, "the snapshot cannot be made: No space left on device")
    handler.on_closed(stream.status)
    assert node.closed == ["the snapshot cannot be made: No space left on device"]


def test_too_many_are_refused() -> None:
    """Each snapshot takes the store's size on the disk, so there is a limit, and no export is opened beyond it."""
    node, stream, handler = opened(TooManyRequests())
    assert stream.status == Status(Code.UNKNOWN, TooManyRequests.text)
    handler.on_closed(stream.status)
    assert not node.closed


def test_rubbish_is_refused() -> None:
    """A request that is no message gets grpc-go's words."""
    _, stream, _ = opened(FakeExport(b""), request=b"\xff")
    assert stream.status is not None
    assert stream.status.code is Code.INTERNAL


def test_a_second_request_changes_nothing() -> None:
    """The method takes one request; another one must not begin a second snapshot on the same stream."""
    node, _, handler = opened(FakeExport(bytes(512)))
    handler.on_message(b"")
    assert len(node.jobs) == 1
