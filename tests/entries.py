"""Committed entries and appliers for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.alarms.quota import NO_QUOTA, Quota
from core.apply.applier import Applier
from core.apply.header import ResponseHeaders
from core.mvcc.backend import MemoryBackend
from core.mvcc.store import Store
from core.raft.messages import ConfChange, ConfChangeV2, Entry, EntryType
from core.request_id import RequestIds
from core.types import Index, MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from proto.rpc_pb2 import PutRequest
from wal.codec import decode_change, encode_conf_change, encode_conf_change_v2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.mvcc.backend import Backend
    from core.types import RequestId

MEMBER = MemberId(0xA1)
CLUSTER = 0xC1
MINIMUM_TTL_S = 2


def make_applier(backend: Backend | None = None, quota_bytes: int | None = None) -> Applier:
    """Return an applier over *backend*, or over a new store."""
    quota = NO_QUOTA if quota_bytes is None else Quota(quota_bytes)
    store = Store.open(MemoryBackend() if backend is None else backend)
    return Applier(store, ResponseHeaders(CLUSTER, MEMBER), MINIMUM_TTL_S, decode_change, quota)


class Log:
    """Makes entries one after the other, with request ids of one owner."""

    def __init__(self, owner: int = 2, first: int = 1) -> None:
        self.ids = RequestIds(MEMBER, owner, 1)
        self._next = first

    def entry(self, data: bytes, term: int = 1, kind: EntryType = EntryType.NORMAL) -> Entry:
        """Return the next entry."""
        index, self._next = Index(self._next), self._next + 1
        return Entry(Term(term), index, kind, data)

    def request(self, term: int = 1, **fields: Any) -> tuple[Entry, RequestId]:
        """Return the next entry, with an InternalRaftRequest of these fields, and its id."""
        request_id = self.ids.make()
        request = InternalRaftRequest(header=RequestHeader(ID=request_id), **fields)
        return self.entry(request.SerializeToString(), term), request_id

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> Entry:
        """Return the next entry, which puts *key*."""
        return self.request(put=PutRequest(key=key, value=value, lease=lease))[0]

    def conf_change(self, change: ConfChange | ConfChangeV2) -> Entry:
        """Return the next entry, which changes the configuration."""
        if isinstance(change, ConfChangeV2):
            return self.entry(encode_conf_change_v2(change), kind=EntryType.CONF_CHANGE_V2)
        return self.entry(encode_conf_change(change), kind=EntryType.CONF_CHANGE)


def contents(backend: Backend) -> Sequence[tuple[bytes, bytes]]:
    """Return all that *backend* holds."""
    return list(backend.scan(b"", b"\xff" * 16))
