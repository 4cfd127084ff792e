"""A key-value history that keeps everything and computes every answer the long way: what the store is held against."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

from core.errors import Compacted, FutureRevision
from core.mvcc.event import EventType
from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import Compare, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse


class Change(NamedTuple):
    """One change; *kv* is None for a delete."""

    main: int
    sub: int
    key: bytes
    kv: KeyValue | None


def within(key: bytes, range_end: bytes, tested: bytes) -> bool:
    if not range_end:
        return tested == key
    return key <= tested and (range_end == b"\x00" or tested < range_end)


class NaiveHistory:
    """All changes ever made, in order."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.revision = 1
        self.compact_revision = -1
        self._sub = 0

    def copy(self) -> NaiveHistory:
        return deepcopy(self)

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int = 0) -> KeyValue | None:
        before = self.live().get(key)
        kv = KeyValue(
            key=key,
            value=value,
            lease=lease,
            mod_revision=self.revision + 1,
            create_revision=before.create_revision if before else self.revision + 1,
            version=before.version + 1 if before else 1,
        )
        self._change(key, kv)
        return before

    def delete(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        doomed = [kv for name, kv in sorted(self.live().items()) if within(key, range_end, name)]
        for kv in doomed:
            self._change(kv.key, None)
        return doomed

    def end(self) -> None:
        """Finish a transaction."""
        if self._sub:
            self.revision += 1
        self._sub = 0

    def _change(self, key: bytes, kv: KeyValue | None) -> None:
        self.changes.append(Change(self.revision + 1, self._sub, key, kv))
        self._sub += 1

    # -- reading ---------------------------------------------------------------------------------------------------

    def live(self, revision: int | None = None) -> dict[bytes, KeyValue]:
        state: dict[bytes, KeyValue] = {}
        for change in self.changes:
            if revision is not None and change.main > revision:
                break
            state.pop(change.key, None)
            if change.kv is not None:
                state[change.key] = change.kv
        return state

    @property
    def seen_revision(self) -> int:
        return self.revision + (1 if self._sub else 0)

    def range(self, request: RangeRequest) -> RangeResponse:
        if request.revision > self.seen_revision:
            raise FutureRevision
        if 0 < request.revision < self.compact_revision:
            raise Compacted
        state = self.live(request.revision if request.revision > 0 else None)
        kvs = [kv for name, kv in sorted(state.items()) if within(request.key, request.range_end, name)]
        response = RangeResponse(count=len(kvs))
        response.header.revision = self.seen_revision
        if request.count_only:
            return response
        bounds = (
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
        if request.sort_order == RangeRequest.NONE and not any(bounds) and request.limit > 0:
            kvs = kvs[: request.limit + 1]  # one more, to see that there is more; sorting may put it first
        kvs = [kv for kv in kvs if bounds[0] <= kv.mod_revision <= (bounds[1] or kv.mod_revision)]
        kvs = [kv for kv in kvs if bounds[2] <= kv.create_revision <= (bounds[3] or kv.create_revision)]
        field = ("key", "version", "create_revision", "mod_revision", "value")[request.sort_target]
        # The store sorts stably, which is more than it promises.
        kvs.sort(key=lambda kv: getattr(kv, field), reverse=request.sort_order == RangeRequest.DESCEND)
        if 0 < request.limit < len(kvs):
            kvs = kvs[: request.limit]
            response.more = True
        for kv in kvs:
            response.kvs.add().CopyFrom(kv)
            if request.keys_only:
                response.kvs[-1].value = b""
        return response

    def events(self, start_revision: int) -> list[tuple[int, list[tuple[EventType, bytes, KeyValue, KeyValue | None]]]]:
        """Return (revision, [(type, key, kv, prev_kv)]) from *start_revision* on."""
        found: dict[int, list[tuple[EventType, bytes, KeyValue, KeyValue | None]]] = {}
        for change in self.changes:
            if change.main < start_revision:
                continue
            before = self.live(change.main - 1).get(change.key)
            if change.kv is None:
                deleted = KeyValue(key=change.key, mod_revision=change.main)
                event = (EventType.DELETE, change.key, deleted, before)
            else:
                created = change.kv.create_revision == change.main
                event = (EventType.PUT, change.key, change.kv, None if created else before)
            found.setdefault(change.main, []).append(event)
        return sorted(found.items())

    # -- transactions ------------------------------------------------------------------------------------------------

    def txn(self, request: TxnRequest) -> TxnResponse:
        before = self.live()
        response = self._branch(request, before)
        self.end()
        response.header.revision = self.revision
        return response

    def _branch(self, request: TxnRequest, before: dict[bytes, KeyValue]) -> TxnResponse:
        response = TxnResponse(succeeded=all(self._holds(compare, before) for compare in request.compare))
        response.header.SetInParent()
        for op in request.success if response.succeeded else request.failure:
            response.responses.append(self._operation(op, before))
        return response

    def _operation(self, op: RequestOp, before: dict[bytes, KeyValue]) -> ResponseOp:
        answer = ResponseOp()
        match op.WhichOneof("request"):
            case "request_range":
                answer.response_range.CopyFrom(self.range(op.request_range))
            case "request_put":
                put = op.request_put
                old = self.put(put.key, put.value, put.lease)
                answer.response_put.header.revision = self.seen_revision
                if old is not None and put.prev_kv:
                    answer.response_put.prev_kv.CopyFrom(old)
            case "request_delete_range":
                delete = op.request_delete_range
                doomed = self.delete(delete.key, delete.range_end)
                answer.response_delete_range.header.revision = self.seen_revision
                answer.response_delete_range.deleted = len(doomed)
                if delete.prev_kv:
                    answer.response_delete_range.prev_kvs.extend(doomed)
            case _:
                answer.response_txn.CopyFrom(self._branch(op.request_txn, before))
        return answer

    @staticmethod
    def _holds(compare: Compare, before: dict[bytes, KeyValue]) -> bool:
        kvs = [kv for key, kv in before.items() if within(compare.key, compare.range_end, key)]
        if not kvs and compare.target == Compare.VALUE:
            return False
        field = ("version", "create_revision", "mod_revision", "value", "lease")[compare.target]
        given = getattr(compare, field)
        for kv in kvs or [KeyValue()]:
            stored = getattr(kv, field)
            if not (stored == given, stored > given, stored < given, stored != given)[compare.result]:
                return False
        return True

    # -- HashKV ------------------------------------------------------------------------------------------------------

    def hashed_bytes(
        self,
        revision: int,
        *,
        stored: list[Change],
        kept_too: frozenset[tuple[int, int]] | set[tuple[int, int]] = frozenset(),
    ) -> bytes:
        """Return what HashKV at *revision* runs over, where *stored* is what a compaction has left so far.

        By etcd's five steps, from generations of each key.
        """
        kept = {place for key in {change.key for change in stored} for place in self._kept(key, revision, stored)}
        kept |= kept_too
        hashed = b"key"
        for change in stored:
            place = (change.main, change.sub)
            if change.main > revision:
                continue
            if change.main <= self.compact_revision and kept and place not in kept:
                continue
            if change.main == self.compact_revision and change.kv is None:
                continue
            hashed += change.main.to_bytes(8, "big") + b"_" + change.sub.to_bytes(8, "big")
            hashed += b"t" if change.kv is None else b""
            hashed += (change.kv or KeyValue(key=change.key)).SerializeToString()
        return hashed

    @staticmethod
    def _kept(key: bytes, revision: int, stored: list[Change]) -> set[tuple[int, int]]:
        """Return the place of the change of *key* that a compaction at *revision* would keep, if any."""
        generations: list[list[Change]] = [[]]
        for change in stored:
            if change.key == key:
                generations[-1].append(change)
                if change.kv is None:
                    generations.append([])
        for generation in generations:
            finished = bool(generation) and generation[-1].kv is None
            if finished and generation[-1].main < revision:
                continue
            older = [change for change in generation if change.main <= revision]
            if not older or (finished and older[-1] is generation[-1]):
                return set()
            return {(older[-1].main, older[-1].sub)}
        return set()

    def compacted(self) -> list[Change]:
        """Return the changes that the compaction at compact_revision leaves when its removal has finished."""
        newest = {change.key: change for change in self.changes if change.main <= self.compact_revision}
        return [
            change
            for change in self.changes
            if change.main > self.compact_revision
            or (newest[change.key] is change and change.kv is not None)
            or (change.main == self.compact_revision and change.kv is None)
        ]
