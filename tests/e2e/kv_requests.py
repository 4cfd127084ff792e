"""Random KV and lease requests, good and bad, over a small key space; the same seed gives the same requests.

Knows the shape of the messages and the revisions that exist, told by `saw`; knows no server.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from proto import rpc_pb2
from tests.e2e.differential import operations

MAX_REQUEST_BYTES: Final = 1_572_864
RECEIVE_BYTES_MAX: Final = MAX_REQUEST_BYTES + 512 * 1024
TXN_OPS_MAX: Final = 128
LONG_TTLS: Final = (600, 3600, 100_000, 9_000_000_000)
"""No lease of a sequence may expire while it runs."""
LEASE_IDS: Final = (1, 2, 3, 4, 5, 2**62)
ODD_LEASE_IDS: Final = (-7, 2**63 - 1, -(2**63))
"""Valid, but etcd 3.5.1 forgets them when it restarts."""

_KEYS: Final = (
    *(f"k/{number}".encode() for number in range(8)),
    *(b"a", b"b", b"c", b"k", b"k0", b"m", b"\x00", b"\x00\x00", b"\xff", b"\xff\xff", "å/ß".encode()),
)

_SORT_ORDERS: Final = (rpc_pb2.RangeRequest.NONE, rpc_pb2.RangeRequest.ASCEND, rpc_pb2.RangeRequest.DESCEND)
_SORT_TARGETS: Final = (
    rpc_pb2.RangeRequest.KEY,
    rpc_pb2.RangeRequest.VERSION,
    rpc_pb2.RangeRequest.CREATE,
    rpc_pb2.RangeRequest.MOD,
    rpc_pb2.RangeRequest.VALUE,
)
_COMPARE_TARGETS: Final = (
    rpc_pb2.Compare.VERSION,
    rpc_pb2.Compare.CREATE,
    rpc_pb2.Compare.MOD,
    rpc_pb2.Compare.VALUE,
    rpc_pb2.Compare.LEASE,
)


class RequestMaker:
    """Draws requests from a seeded source; the answers seen so far steer which revisions are asked for."""

    def __init__(self, source: Random, lease_ids: Sequence[int]) -> None:
        self._source = source
        self._lease_ids = lease_ids
        self.revision = 1
        self.compact_revision = 0
        self.compacted: set[int] = set()

    def saw(self, revision: int) -> None:
        """Note the newest revision that an answer named."""
        self.revision = max(self.revision, revision)

    def saw_compaction(self, revision: int) -> None:
        """Note that the store was compacted at *revision*."""
        self.compact_revision = revision
        self.compacted.add(revision)

    def chance(self, share: float) -> bool:
        """True once in 1/*share* draws."""
        return self._source.random() < share

    def key(self) -> bytes:
        """A key; empty once in a while."""
        return b"" if self.chance(0.02) else self._source.choice(_KEYS)

    def interval(self) -> tuple[bytes, bytes]:
        """A key and a range_end: single, prefix, interval (also reversed or empty), from-key, everything."""
        key = self.key()
        match self._source.randrange(8):
            case 0 | 1 | 2:
                return key, b""
            case 3:
                return b"k/", b"k0"
            case 4:
                return key, self._source.choice(_KEYS)
            case 5:
                return key, b"\x00"
            case 6:
                return b"\x00", b"\x00"
            case _:
                return key, key

    def some_revision(self) -> int:
        """A revision to ask for: current, old, compacted, in the future or negative."""
        match self._source.randrange(10):
            case 0:
                return self.revision + self._source.randint(1, 3)
            case 1:
                return self._source.randint(-2, 1)
            case 2:
                return max(1, self.compact_revision + self._source.randint(-2, 1))
            case 3 | 4 | 5:
                return self._source.randint(max(1, self.compact_revision), self.revision)
            case _:
                return 0

    def lease_id(self) -> int:
        """A lease id that may or may not be granted."""
        return self._source.choice(self._lease_ids)

    def value(self) -> bytes:
        """Mostly short, sometimes empty, sometimes binary, seldom some kilobytes."""
        match self._source.randrange(12):
            case 0:
                return b""
            case 1:
                return self._source.randbytes(self._source.randint(1, 40))
            case 2 if self.chance(0.2):
                return b"v" * self._source.randint(1000, 20_000)
            case _:
                return f"v{self._source.randrange(6)}".encode()

    def range(self) -> rpc_pb2.RangeRequest:
        """A Range with any mix of options, valid enums only."""
        key, range_end = self.interval()
        request = rpc_pb2.RangeRequest(key=key, range_end=range_end, revision=self.some_revision())
        if self.chance(0.4):
            request.limit = self._source.choice((1, 2, 3, 5, 100, -1, 2**62))
        if self.chance(0.3):
            request.sort_order = self._source.choice(_SORT_ORDERS)
            request.sort_target = self._source.choice(_SORT_TARGETS)
        for field in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.chance(0.08):
                setattr(request, field, self._source.randint(-1, self.revision + 2))
        request.serializable = self.chance(0.3)
        request.keys_only = self.chance(0.15)
        request.count_only = self.chance(0.15)
        return request

    def put(self) -> rpc_pb2.PutRequest:
        """A Put; contradictory options included."""
        request = rpc_pb2.PutRequest(key=self.key(), value=self.value(), prev_kv=self.chance(0.3))
        if self.chance(0.25):
            request.lease = self.lease_id()
        if self.chance(0.1):
            request.ignore_value = True
            if self.chance(0.8):
                request.value = b""
        if self.chance(0.1):
            request.ignore_lease = True
            if self.chance(0.8):
                request.lease = 0
        return request

    def delete_range(self) -> rpc_pb2.DeleteRangeRequest:
        """A DeleteRange, mostly of little so that the store does not stay empty."""
        key, range_end = self.interval() if self.chance(0.3) else (self.key(), b"")
        return rpc_pb2.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self.chance(0.5))

    def compare(self) -> rpc_pb2.Compare:
        """A Compare of any target and result, unknown numbers and missing or foreign operands included."""
        key, range_end = self.interval() if self.chance(0.2) else (self.key() if self.chance(0.3) else b"k/1", b"")
        request = rpc_pb2.Compare(key=key, range_end=range_end)
        request.result = self._source.choice((*rpc_pb2.Compare.CompareResult.values(), 0, 0, 0, 9))  # type: ignore[assignment]  # an unknown number on purpose
        request.target = self._source.choice(_COMPARE_TARGETS)
        operand = request.target if self.chance(0.9) else self._source.choice(_COMPARE_TARGETS)
        if self.chance(0.05):
            return request
        match operand:
            case rpc_pb2.Compare.VERSION:
                request.version = self._source.randrange(4)
            case rpc_pb2.Compare.CREATE:
                request.create_revision = self._source.choice((0, self.revision, self.revision // 2))
            case rpc_pb2.Compare.MOD:
                request.mod_revision = self._source.choice((0, self.revision, self.revision - 1))
            case rpc_pb2.Compare.VALUE:
                request.value = self.value()
            case _:
                request.lease = self._source.choice((0, *self._lease_ids))
        return request

    def _operation(self, depth: int) -> rpc_pb2.RequestOp:
        """One operation of a Txn, seldom unset, nested down to *depth*."""
        match self._source.randrange(20):
            case 0 if self.chance(0.2):
                return rpc_pb2.RequestOp()
            case 1 | 2 | 3 | 4 | 5 | 6:
                return rpc_pb2.RequestOp(request_range=self.range())
            case 7 | 8 | 9:
                return rpc_pb2.RequestOp(request_delete_range=self.delete_range())
            case 10 | 11 if depth > 0:
                return rpc_pb2.RequestOp(request_txn=self._txn(depth - 1))
            case _:
                return rpc_pb2.RequestOp(request_put=self.put())

    def txn(self) -> rpc_pb2.TxnRequest:
        """A Txn of a few operations, some of them nested; read-only ones and empty ones are among them."""
        request = self._txn(depth=2)
        if any(delete.range_end == b"\x00" for delete in _deletes(request)):
            for put in _puts(request):
                put.ignore_value = put.ignore_lease = False
        return request

    def _txn(self, depth: int) -> rpc_pb2.TxnRequest:
        request = rpc_pb2.TxnRequest(compare=[self.compare() for _ in range(self._source.choice((0, 0, 1, 1, 2)))])
        read_only = self.chance(0.15)
        for branch in (request.success, request.failure):
            for _ in range(self._source.choice((0, 1, 1, 2, 3))):
                branch.append(rpc_pb2.RequestOp(request_range=self.range()) if read_only else self._operation(depth))
        return request

    def crowded_txn(self) -> rpc_pb2.TxnRequest:
        """A Txn at or just above the number of operations allowed, at the top or one level down."""
        count = TXN_OPS_MAX + self._source.choice((-1, 0, 1))
        puts = [
            rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"crowd/%d" % number, value=b"c"))
            for number in range(count)
        ]
        match self._source.randrange(3):
            case 0:
                return rpc_pb2.TxnRequest(success=puts)
            case 1:
                return rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"a") for _ in range(count)])
            case _:
                inner = rpc_pb2.TxnRequest(failure=puts[1:])
                return rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_txn=inner)])

    def oversized_put(self) -> rpc_pb2.PutRequest:
        """A Put near a size limit, but not within the few bytes that the request's header may vary by."""
        size = self._source.choice((MAX_REQUEST_BYTES - 200, MAX_REQUEST_BYTES + 10, RECEIVE_BYTES_MAX + 10))
        return rpc_pb2.PutRequest(key=b"big", value=b"x" * size)

    def compaction(self) -> rpc_pb2.CompactionRequest:
        """A compaction that leaves most of the history, seldom all of it; refused ones included."""
        match self._source.randrange(6):
            case 0:
                revision = self.revision + self._source.randint(0, 2)
            case 1:
                revision = self.compact_revision - self._source.randrange(3)
            case _:
                revision = self._source.randint(self.compact_revision, (self.compact_revision + self.revision) // 2 + 1)
        return rpc_pb2.CompactionRequest(revision=revision, physical=self.chance(0.8))

    def hash_kv(self) -> rpc_pb2.HashKVRequest:
        """HashKV now or at a revision that both releases treat alike (see differential.EXCEPTIONS)."""
        revision = self._source.choice((0, self._source.randint(1, self.revision + 1)))
        if 0 < revision <= self.compact_revision and (revision in self.compacted or revision == self.compact_revision):
            revision = 0
        return rpc_pb2.HashKVRequest(revision=revision)

    def lease_grant(self) -> rpc_pb2.LeaseGrantRequest:
        """A lease that outlives the test, or one with a time to live above the limit."""
        time_to_live_s = 9_000_000_001 if self.chance(0.1) else self._source.choice(LONG_TTLS)
        return rpc_pb2.LeaseGrantRequest(ID=self.lease_id(), TTL=time_to_live_s)

    def short_time_to_live_s(self) -> int:
        """A time to live below the minimum: such a lease must be revoked at once."""
        return self._source.choice((-5, 0, 1))


def _deletes(request: rpc_pb2.TxnRequest) -> Iterator[rpc_pb2.DeleteRangeRequest]:
    return (each.request_delete_range for each in operations(request) if each.HasField("request_delete_range"))


def _puts(request: rpc_pb2.TxnRequest) -> Iterator[rpc_pb2.PutRequest]:
    return (each.request_put for each in operations(request) if each.HasField("request_put"))
