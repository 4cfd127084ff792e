"""The store and the KV requests executed on it, in this process, against etcd 3.5.1: answers must be equal.

No server of ours runs here, so a difference is one of core/mvcc or core/apply.  Forgiven is what
differential.EXCEPTIONS lists.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import google_crc32c
import pytest

from core.apply.evaluate import read_only_txn_response
from core.apply.header import ResponseHeaders
from core.apply.kv import KvExecutor
from core.apply.range import range_response
from core.apply.txn import check_delete, check_put, check_range, check_txn, is_read_only
from core.errors import EtcdError
from core.mvcc.hashing import hash_kv
from core.mvcc.store import Store
from proto import rpc_pb2
from services.errors import status_of
from storage.leveldb import LevelDbBackend, open_leveldb
from tests.e2e.client import CALL_TIMEOUT_S, Stubs, connect
from tests.e2e.differential import Failure, Outcome, equal, normalised, outcome, seeds, shown
from tests.e2e.harness import SHORT_TIMEOUTS, real_etcd
from tests.e2e.kv_requests import LEASE_IDS, LONG_TTLS, TXN_OPS_MAX, RequestMaker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.protobuf.message import Message

    from tests.e2e.conftest import MakeServer

pytestmark = pytest.mark.e2e

STEP_COUNT: Final = 1500
EVERY_KEY: Final = b"\x00"


class GrantedLeases:
    """A lease book that only knows which leases there are."""

    def __init__(self) -> None:
        self.granted: set[int] = set()

    def exists(self, lease_id: int, /) -> bool:
        return lease_id in self.granted

    def attach(self, lease_id: int, key: bytes, /) -> None:
        assert lease_id in self.granted

    def detach(self, lease_id: int, key: bytes, /) -> None:
        assert lease_id in self.granted


class InProcess:
    """A store that answers requests as a server would, one entry a flush; reopened now and then."""

    def __init__(self, directory: Path, source: Random) -> None:
        self._directory = directory
        self._source = source
        self._headers = ResponseHeaders(1, 2)
        self.leases = GrantedLeases()
        self._backend: LevelDbBackend
        self._open()

    def close(self) -> None:
        self._backend.close()

    def answer(self, request: Message) -> Outcome:
        try:
            answer = self._answer(request)
        except EtcdError as error:
            status = status_of(error)
            answer = Failure(status.code.name, status.message)
        self._settle()
        return answer

    def _open(self) -> None:
        self._backend = open_leveldb(self._directory)
        self.store = Store.open(self._backend)
        self._kv = KvExecutor(self.store, self.leases, self._headers)

    def _settle(self) -> None:
        """Flush most of the time, so that some requests read staged changes; do the rest a little at a time."""
        if self._source.random() < 0.3:
            return
        self.store.advance(self.store.applied_index + 1, 2)
        self.store.flush()
        self.store.compaction_step(2)
        self.store.build_ranks_step(3)
        if self._source.random() < 0.02:
            self.close()
            self._open()

    def _answer(self, request: Message) -> Outcome:
        kv = self._kv
        match request:
            case rpc_pb2.PutRequest():
                check_put(request)
                return rpc_pb2.PutResponse.FromString(
                    kv.put(
                        request.key,
                        request.value,
                        request.lease,
                        request.prev_kv,
                        request.ignore_value,
                        request.ignore_lease,
                    )
                )
            case rpc_pb2.RangeRequest():
                check_range(request)
                return rpc_pb2.RangeResponse.FromString(self._range(request))
            case rpc_pb2.DeleteRangeRequest():
                check_delete(request)
                return rpc_pb2.DeleteRangeResponse.FromString(
                    kv.delete_range(request.key, request.range_end, request.prev_kv)
                )
            case rpc_pb2.TxnRequest():
                check_txn(request, TXN_OPS_MAX)
                return rpc_pb2.TxnResponse.FromString(self._txn(request))
            case rpc_pb2.CompactionRequest():
                return rpc_pb2.CompactionResponse.FromString(kv.compact(request.revision))
            case rpc_pb2.HashKVRequest():
                self.store.flush()
                made = hash_kv(self.store.view(), request.revision, google_crc32c.extend)
                return rpc_pb2.HashKVResponse(
                    header=rpc_pb2.ResponseHeader(revision=self.store.revision),
                    hash=made.hash,
                    compact_revision=made.compact_revision,
                )
            case _:
                raise AssertionError(request)

    def _range(self, request: rpc_pb2.RangeRequest) -> bytes:
        if self.store.staged_count:
            return self._kv.range(request)
        view = self.store.view()
        return range_response(view, request, self._headers.encode(view.revision, 0), self.store.counter_for(view))

    def _txn(self, request: rpc_pb2.TxnRequest) -> bytes:
        if self.store.staged_count or not is_read_only(request):
            return self._kv.txn(request)
        view = self.store.view()
        header = self._headers.encode(view.revision, 0)
        return read_only_txn_response(view, request, header, self.store.counter_for(view))


class Comparison:
    """Sends the same requests to both."""

    def __init__(self, subject: InProcess, reference: Stubs, seed: int) -> None:
        self._subject = subject
        self._reference = reference
        self._seed = seed
        self._source = Random(seed + 1)
        self.make = RequestMaker(Random(seed), LEASE_IDS)

    def grant_leases(self) -> None:
        for lease in LEASE_IDS[::2]:
            self._reference.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(ID=lease, TTL=LONG_TTLS[0]))
            self._subject.leases.granted.add(lease)

    def call(self, method: Callable[..., Message], request: Message) -> Outcome:
        expected = outcome(lambda: method(request, timeout=CALL_TIMEOUT_S))
        got = self._subject.answer(request)
        assert equal(request, got, expected), (
            f"seed {self._seed}: answers differ\n--- request {shown(request)}\n"
            f"--- subject {shown(normalised(request, got))}\n--- etcd 3.5.1 {shown(normalised(request, expected))}"
        )
        return expected

    def step(self) -> None:
        kv, make = self._reference.kv, self.make
        draw = self._source.randrange(100)
        if draw < 35:
            answer = self.call(kv.Put, make.put())
        elif draw < 65:
            answer = self.call(kv.Range, make.range())
        elif draw < 85:
            answer = self.call(kv.Txn, make.txn())
        elif draw < 91:
            answer = self.call(kv.DeleteRange, make.delete_range())
        elif draw < 93:
            answer = self.call(kv.Txn, make.crowded_txn())
        elif draw < 97:
            answer = self.call(self._reference.maintenance.HashKV, make.hash_kv())
        else:
            request = make.compaction()
            request.physical = True
            answer = self.call(kv.Compact, request)
            if isinstance(answer, rpc_pb2.CompactionResponse):
                make.saw_compaction(request.revision)
        if isinstance(answer, rpc_pb2.PutResponse | rpc_pb2.DeleteRangeResponse | rpc_pb2.TxnResponse):
            make.saw(answer.header.revision)

    def compare_history(self) -> None:
        for revision in range(max(self.make.compact_revision, 1), self.make.revision + 1):
            request = rpc_pb2.RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY, revision=revision)
            self.call(self._reference.kv.Range, request)


@pytest.mark.parametrize("seed", seeds((21, 22)))
def test_store_answers_as_etcd_does(make_server: MakeServer, tmp_path: Path, seed: int) -> None:
    """Any mix of requests, staged or flushed, with compaction and counting half done, is answered as etcd answers."""
    reference = make_server(real_etcd(), settings=SHORT_TIMEOUTS)
    subject = InProcess(tmp_path / "store", Random(seed + 2))
    with connect(reference.endpoint) as stubs:
        comparison = Comparison(subject, stubs, seed)
        comparison.grant_leases()
        for _ in range(STEP_COUNT):
            comparison.step()
        comparison.compare_history()
    subject.close()
