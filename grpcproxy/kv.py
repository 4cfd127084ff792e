"""What the proxy does to calls of KV beside passing them on: the cache of ranges, and the order of what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from google.protobuf.message import DecodeError

from core.errors import EtcdError
from grpcproxy.methods import COMPACT, DELETE_RANGE, PUT, RANGE, TXN
from grpcproxy.statuses import NO_GREATER_REVISION, READ_ONLY
from net.rpc import Status
from proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from services.decode import decode
from services.errors import status_of
from services.identity import token_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grpcproxy.cache import RangeCache
    from net.rpc import Call

TRIES_PER_ENDPOINT: Final = 5
"""How often a read that went back in time is tried again (etcd's bound)."""

Written = list[tuple[bytes, bytes]]
Answer = RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse


class Passing(Protocol):
    """Passes calls on."""

    @property
    def endpoint_count(self) -> int:
        """How many members there are."""

    def pass_on(self, call: Call, body: bytes, then: Callable[[bytes | Status], None]) -> None:
        """Have a member answer *call*; *then* gets the answer, as it is for the client."""


class KvProxy:
    """Handles the unary calls of etcdserverpb.KV."""

    def __init__(self, passing: Passing, cache: RangeCache, *, ordered: bool, read_only: bool) -> None:
        self._passing = passing
        self._cache = cache
        self._ordered = ordered
        self._read_only = read_only
        self._revision = 0
        """The highest that any read has told, where order is kept."""
        self.hits = 0
        self.misses = 0

    def methods(self) -> dict[str, Callable[[Call, bytes], None]]:
        """Return the handlers by path."""
        return {
            RANGE: self.range,
            PUT: self.put,
            DELETE_RANGE: self.delete_range,
            TXN: self.txn,
            COMPACT: self.compact,
        }

    def learn(self, answer: bytes) -> None:
        """Take note how far the cluster is, by a linearizable range's *answer*."""
        self._revision = max(self._revision, revision_of(RangeResponse, answer))

    def range(self, call: Call, body: bytes) -> None:
        """Answer from the cache if that will do."""
        request = decode(call, RangeRequest, body)
        if request is None:
            return
        cached = token_in(call.metadata) is None
        if cached and request.serializable and self._find(call, request):
            return
        began = self._cache.now

        def take(answer: bytes) -> None:
            if cached:
                self._cache.add(request, answer, began)

        self._read(call, body, take, serializable=request.serializable)

    def _find(self, call: Call, request: RangeRequest) -> bool:
        """Answer *call* from the cache, if it can be."""
        try:
            answer = self._cache.find(request)
        except EtcdError as error:
            self.hits += 1
            call.fail(status_of(error))
            return True
        if answer is None or (self._ordered and revision_of(RangeResponse, answer) < self._revision):
            self.misses += 1
            return False
        self.hits += 1
        call.reply(answer)
        return True

    def _read(self, call: Call, body: bytes, take: Callable[[bytes], None], *, serializable: bool) -> None:
        """Pass a read on; where order is kept, until it is no older than what was read before it began."""
        before = self._revision
        tries_left = TRIES_PER_ENDPOINT * self._passing.endpoint_count

        def end(outcome: bytes | Status) -> None:
            nonlocal tries_left
            if isinstance(outcome, Status):
                call.fail(outcome)
                return
            if self._ordered:
                revision = revision_of(RangeResponse, outcome)
                if serializable and revision < before:
                    tries_left -= 1
                    if tries_left < 0:
                        call.fail(NO_GREATER_REVISION)
                    else:
                        self._passing.pass_on(call, body, end)
                    return
                self._revision = max(self._revision, revision)
            take(outcome)
            call.reply(outcome)

        self._passing.pass_on(call, body, end)

    def put(self, call: Call, body: bytes) -> None:
        """Write one key."""
        request = decode(call, PutRequest, body)
        if request is not None:
            self._write(call, body, [(request.key, b"")], PutResponse)

    def delete_range(self, call: Call, body: bytes) -> None:
        """Delete a range."""
        request = decode(call, DeleteRangeRequest, body)
        if request is not None:
            self._write(call, body, [(request.key, request.range_end)], DeleteRangeResponse)

    def txn(self, call: Call, body: bytes) -> None:
        """Pass a transaction on; what it may write, and what it compares, is not cached any more."""
        request = decode(call, TxnRequest, body)
        if request is None:
            return
        written = list(writes(request))
        if written and self._read_only:
            call.fail(READ_ONLY)
            return
        # One that compares may know of a write that went past this proxy (etcd's rule).
        for compare in request.compare:
            self._cache.invalidate(compare.key, compare.range_end)
        self._change(call, body, written, TxnResponse)

    def compact(self, call: Call, body: bytes) -> None:
        """Compact; what is older cannot be read from the cache either."""
        request = decode(call, CompactionRequest, body)
        if request is None:
            return
        if self._read_only:
            call.fail(READ_ONLY)
            return

        def end(outcome: bytes | Status) -> None:
            if isinstance(outcome, bytes):
                self._cache.compact(request.revision)
            finish(call, outcome)

        self._passing.pass_on(call, body, end)

    def _write(self, call: Call, body: bytes, written: Written, kind: type[Answer]) -> None:
        if self._read_only:
            call.fail(READ_ONLY)
        else:
            self._change(call, body, written, kind)

    def _change(self, call: Call, body: bytes, written: Written, kind: type[Answer]) -> None:
        def end(outcome: bytes | Status) -> None:
            self._invalidate(written)  # whatever was read meanwhile may be older
            if self._ordered and isinstance(outcome, bytes):
                self._revision = max(self._revision, revision_of(kind, outcome))
            finish(call, outcome)

        self._invalidate(written)
        self._passing.pass_on(call, body, end)

    def _invalidate(self, written: Written) -> None:
        for key, end in written:
            self._cache.invalidate(key, end)


def writes(request: TxnRequest) -> Iterator[tuple[bytes, bytes]]:
    """Yield every range that any branch of a transaction may write."""
    for operation in (*request.success, *request.failure):
        match operation.WhichOneof("request"):
            case "request_put":
                yield operation.request_put.key, b""
            case "request_delete_range":
                yield operation.request_delete_range.key, operation.request_delete_range.range_end
            case "request_txn":
                yield from writes(operation.request_txn)


def finish(call: Call, outcome: bytes | Status) -> None:
    """End *call*."""
    if isinstance(outcome, Status):
        call.fail(outcome)
    else:
        call.reply(outcome)


def revision_of(kind: type[Answer], answer: bytes) -> int:
    """Return the revision in a header; 0 where a member's *answer* cannot be read."""
    try:
        return int(kind.FromString(answer).header.revision)
    except DecodeError:
        return 0
