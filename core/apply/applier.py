"""Applying committed entries: bytes in, effects out.

The applier is a pure function of its state and an entry, so every member comes to the same state: it asks no clock, no
configuration that may differ between members, and no other actor.  What must happen in the world because of an entry
(answers, events, leases to watch over) is collected in Effects for ApplyActor to carry out.

Order of the checks on a write: permissions, alarms, then the request itself.  Formats: InternalRaftRequest in
raft_internal.proto; buckets as etcd keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from core.alarms.book import Alarm, AlarmBook
from core.apply.auth import AuthApplier
from core.apply.conf_state import decode_conf_state, encode_conf_state
from core.apply.cost import put_cost, surely_fits_bytes, txn_cost
from core.apply.kv import KvExecutor
from core.apply.plain import PlainTxn, plain_entry
from core.apply.v2_request import Attributes, ClusterVersion, meaning, v2_request
from core.errors import EtcdError, LeaseExists, NoSpace
from core.lease.book import LeaseBook
from core.membership import v2store
from core.membership.cluster import DOWNGRADE_KEY, LEARNERS_MAX, Cluster
from core.membership.downgrade import Downgrade
from core.membership.member import MalformedMember
from core.mvcc.hashing import CompactionHashes
from core.mvcc.keyspace import Bucket
from core.mvcc.store import Store
from core.mvcc.varint import field as encode_field
from core.raft.confchange import InvalidConfChangeError, changed, members, simplified
from core.raft.messages import ConfChange, ConfChangeType, ConfChangeV2, EntryType, Snapshot, SnapshotMetadata
from core.types import Index, LeaseId, MemberId, RequestId, Revision, Term
from proto.lease_pb2 import Lease
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DowngradeResponse, LeaseGrantResponse
from proto.rpc_pb2 import Member as ClientMember

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.alarms.quota import Quota
    from core.apply.header import ResponseHeaders
    from core.apply.plain import PlainPut
    from core.apply.v2_request import V2Request
    from core.membership.member import Member
    from core.mvcc.event import Revised
    from core.mvcc.hashing import HashKv
    from core.mvcc.view import View
    from core.raft.messages import ConfState, Entry

    Handler = Callable[["InternalRaftRequest"], bytes]

_MEMBERS_TAG: Final = b"\x12"
"""Field 2 of MemberListResponse."""

_KIND_BY_FIRST_BYTE: Final = {
    0x1A: "range",
    0x22: "put",
    0x2A: "delete_range",
    0x32: "txn",
    0x3A: "compaction",
    0x42: "lease_grant",
    0x4A: "lease_revoke",
    0x52: "alarm",
}
"""What an entry holds, by the tag that it begins with as actcd and etcd write it; others are looked for."""


class UnknownEntry(Exception):  # noqa: N818 - named for what was met
    """A committed entry asks for something that this version cannot do.

    Passing over it would make this member differ from those that can, so the process must stop.
    """


class Begun(NamedTuple):
    """A compaction that was applied: what is left of it takes place in the background."""

    revision: Revision
    previous: int
    """The compact revision before it."""
    asked: RequestId | None
    """The request that wants to wait until the removal is done (``physical``)."""


class Effects:
    """What applying a batch asks of the world, each list in the order of the entries."""

    __slots__ = (
        "checkpointed",
        "cluster_changed",
        "compactions",
        "conf_changes",
        "first_of_term",
        "granted",
        "outcomes",
        "over_quota",
        "revoked",
    )

    def __init__(self) -> None:
        self.outcomes: list[tuple[RequestId, bytes | EtcdError]] = []
        self.granted: list[tuple[LeaseId, int]] = []
        self.revoked: list[LeaseId] = []
        self.checkpointed: list[tuple[LeaseId, int]] = []
        self.conf_changes: list[ConfChange | ConfChangeV2 | None] = []
        self.compactions: list[Begun] = []
        self.first_of_term: Term | None = None
        """The term whose leader's empty entry was applied: it may expire leases now."""
        self.cluster_changed = False
        """Members, their attributes or the cluster's version have changed."""
        self.over_quota = False
        """A write was applied that takes the store over its quota: the alarm must be raised."""


class Applier:
    """Everything that entries change: store, leases, members, alarms.  Belongs to ApplyActor's thread."""

    def __init__(
        self,
        store: Store,
        headers: ResponseHeaders,
        minimum_lease_ttl_s: int,
        decode_change: Callable[[Entry], ConfChange | ConfChangeV2],
        quota: Quota,
        *,
        persist_checkpoints: bool = True,
        learners_max: int = LEARNERS_MAX,
    ) -> None:
        """Read the state that *store* holds.  *quota* is this member's.

        Without *persist_checkpoints* a restart forgets what is left of leases, and gives them their whole time.
        *learners_max* decides whether an entry that adds a learner has an effect: it must be the same on all members.
        """
        self.headers = headers
        self._minimum_ttl_s = minimum_lease_ttl_s
        self._decode_change = decode_change
        self._quota = quota
        self.allocated_bytes = 0
        self._size_bytes = 0
        """Of the request that is being applied, in wire form."""
        self._persist_checkpoints = persist_checkpoints
        self._learners_max = learners_max
        self._load(store)

    def restart(self) -> None:
        """Read the state anew: what the store held has been replaced."""
        self._load(Store.open(self.store.backend))

    def _load(self, store: Store) -> None:
        self.store = store
        self.leases = LeaseBook(
            (LeaseId(int.from_bytes(key, signed=True)), Lease.FromString(value).TTL)
            for key, value in store.bucket_items(Bucket.LEASE)
        )
        self.leases.rebuild(store.attached_keys())
        self.leases.rebuilt()
        self.cluster = Cluster.load(store.bucket_items, learners_max=self._learners_max)
        self.alarms = AlarmBook()
        for key, _ in store.bucket_items(Bucket.ALARM):
            stored = AlarmMember.FromString(key)
            self.alarms.activate(MemberId(stored.memberID), Alarm(stored.alarm))
        self.conf_state = decode_conf_state(store.bucket_get(Bucket.META, b"confState"))
        self._kv = KvExecutor(store, self.leases, self.headers)
        self.auth = AuthApplier(store, self._header, self.lease_keys)
        self._auth_book = self.auth.book
        self.compaction_hashes = CompactionHashes()
        self._effects = Effects()
        self._handlers: dict[str, Handler] = {
            "put": self._put,
            "delete_range": self._delete_range,
            "txn": self._txn,
            "range": lambda request: self._kv.range(request.range),
            "compaction": self._compact,
            "lease_grant": self._grant,
            "lease_revoke": self._revoke,
            "lease_checkpoint": self._checkpoint,
            "alarm": self._alarm,
            "cluster_version_set": self._set_cluster_version,
            "cluster_member_attr_set": self._set_attributes,
            "downgrade_info_set": self._set_downgrade,
            **self.auth.handlers,
        }

    def apply(self, entries: Sequence[Entry], term: Term) -> None:
        """Apply committed *entries* in order; those applied already are passed over.

        *term* is what answers show.  Effects pile up until taken; nothing reaches the disk before store.flush.
        """
        store = self.store
        self._kv.term = term
        for entry in entries:
            if entry.index <= store.applied_index:
                continue
            assert entry.index == store.applied_index + 1, (entry.index, store.applied_index)
            if entry.type != EntryType.NORMAL:
                self._apply_conf_change(entry)
            elif entry.data:
                self._apply_request(entry.data)
            else:
                self._effects.first_of_term = entry.term
            store.advance(entry.index, entry.term)

    @property
    def allocated_bytes(self) -> int:
        """Size of the store's files, as told last: what the quota is held against."""
        return self._allocated_bytes

    @allocated_bytes.setter
    def allocated_bytes(self, size_bytes: int) -> None:
        self._allocated_bytes = size_bytes
        self._fits_bytes = surely_fits_bytes(self._quota.room_bytes(size_bytes))

    def take_effects(self) -> Effects:
        """Return what has piled up since the last call."""
        effects, self._effects = self._effects, Effects()
        return effects

    def take_changes(self) -> list[Revised]:
        """Return the events since the last call, by revision."""
        return self._kv.take_changes()

    # -- questions ---------------------------------------------------------------------------------------------------

    def lease_keys(self, lease: LeaseId) -> list[bytes]:
        """Return the keys attached to *lease*; none if it is unknown."""
        return self.leases.keys(lease) if self.leases.exists(lease) else []

    def leased_keys(self) -> list[bytes]:
        """Return every key that is attached to any lease."""
        return [key for lease in self.leases.ids for key in self.leases.keys(lease)]

    def stored_leases(self) -> list[tuple[LeaseId, int, int]]:
        """Return each lease with its time to live and, if a checkpoint told it, its remaining time, in seconds."""
        stored = (Lease.FromString(value) for _, value in self.store.bucket_items(Bucket.LEASE))
        return [(LeaseId(lease.ID), lease.TTL, lease.RemainingTTL) for lease in stored]

    def encoded_members(self) -> list[bytes]:
        """Return each member as a field of MemberListResponse, ascending by id."""
        return [encode_field(_MEMBERS_TAG, encode_member(member)) for member in self.cluster.members]

    def counter_for(self, view: View) -> Callable[[bytes, bytes], int] | None:
        """Return what counts the live keys of *view* without a scan, if anything does now."""
        return self.store.counter_for(view)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes that the store's files take, and those in use."""
        backend = self.store.backend
        return backend.size_bytes(), backend.size_in_use_bytes()

    def raft_snapshot(self) -> Snapshot:
        """Return the snapshot that stands for the applied state."""
        store = self.store
        metadata = SnapshotMetadata(self.conf_state, Index(store.applied_index), Term(store.applied_term))
        cluster = self.cluster
        data = v2store.dump(cluster.members, cluster.removed, cluster.version, store.applied_index)
        return Snapshot(metadata, data)

    def nospace_alarm(self) -> bytes:
        """Return the entry that raises this member's NOSPACE alarm."""
        alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=self.headers.member_id, alarm=AlarmType.NOSPACE)
        return InternalRaftRequest(alarm=alarm).SerializeToString()

    def hash_question(self, revision: int) -> tuple[View, HashKv | None]:
        """Return what the hash of the keys at *revision* is made from, and the hash if a compaction there left one."""
        # 0 asks for the newest, though it may also be where a compaction was.
        return self.store.view(), self.compaction_hashes.find(revision) if revision else None

    def active_alarms(self) -> list[tuple[MemberId, int]]:
        """Return the active alarms, by member and kind."""
        return [(member, int(alarm)) for member, alarm in self.alarms.active()]

    # -- requests ----------------------------------------------------------------------------------------------------

    def _apply_request(self, data: bytes) -> None:
        if len(data) <= self._fits_bytes and not self.alarms.any and not self._auth_book.enabled:
            plain = plain_entry(data)
            if plain is not None:
                self._apply_plain(*plain)
                return
        kind = _KIND_BY_FIRST_BYTE.get(data[0], "")
        if not kind and (old := v2_request(data)) is not None:
            self._apply_v2(old)
            return
        request = InternalRaftRequest.FromString(data)
        self._size_bytes = len(data)
        outcome: bytes | EtcdError
        try:
            kind = kind or self._kind(request)
            if self._auth_book.enabled:
                self.auth.check(kind, request)
            outcome = self._handlers[kind](request)
        except EtcdError as error:
            outcome = error
        request_id = RequestId(request.header.ID or request.ID)
        if outcome:
            self._effects.outcomes.append((request_id, outcome))

    def _apply_plain(self, request: PlainPut | PlainTxn, request_id: RequestId) -> None:
        outcome: bytes | EtcdError
        try:
            if isinstance(request, PlainTxn):
                outcome = self._kv.txn_plain(request)
            else:
                key, value, lease = request
                outcome = self._kv.put(key, value, lease)
        except EtcdError as error:
            outcome = error
        self._effects.outcomes.append((request_id, outcome))

    def _kind(self, request: InternalRaftRequest) -> str:
        for descriptor, _ in request.ListFields():
            if descriptor.name in self._handlers:
                return descriptor.name
        raise UnknownEntry([descriptor.name for descriptor, _ in request.ListFields()])

    def _put(self, request: InternalRaftRequest) -> bytes:
        put = request.put
        if self._size_bytes <= self._fits_bytes and not self.alarms.any:
            return self._kv.put(put.key, put.value, put.lease, put.prev_kv, put.ignore_value, put.ignore_lease)
        self.alarms.check_growth()
        answer = self._kv.put(put.key, put.value, put.lease, put.prev_kv, put.ignore_value, put.ignore_lease)
        return self._within_quota(answer, put_cost(put))

    def _delete_range(self, request: InternalRaftRequest) -> bytes:
        self.alarms.check_write()
        delete = request.delete_range
        return self._kv.delete_range(delete.key, delete.range_end, delete.prev_kv)

    def _txn(self, request: InternalRaftRequest) -> bytes:
        if self._size_bytes <= self._fits_bytes and not self.alarms.any:
            return self._kv.txn(request.txn)
        cost = txn_cost(request.txn)
        if cost:
            self.alarms.check_growth()
        else:
            self.alarms.check_write()
        answer = self._kv.txn(request.txn)
        return self._within_quota(answer, cost) if cost else answer

    def _has_room(self, cost: int) -> bool:
        return self._quota.has_room(store_size_bytes=self._allocated_bytes, cost_bytes=cost)

    def _within_quota(self, answer: bytes, cost: int) -> bytes:
        # Too late to refuse: the entry is applied on every member, and only the answer can tell (etcd's second check).
        if not self._has_room(cost):
            self._effects.over_quota = True
            raise NoSpace
        return answer

    def _compact(self, request: InternalRaftRequest) -> bytes:
        self.alarms.check_write()
        revision = Revision(request.compaction.revision)
        previous = self.store.compact_revision
        answer = self._kv.compact(revision)
        physical = request.compaction.physical
        asked = RequestId(request.header.ID) if physical else None
        self._effects.compactions.append(Begun(revision, previous, asked))
        return b"" if physical else answer

    # -- leases ------------------------------------------------------------------------------------------------------

    def _grant(self, request: InternalRaftRequest) -> bytes:
        self.alarms.check_growth()
        lease = LeaseId(request.lease_grant.ID)
        if self.leases.exists(lease):
            raise LeaseExists
        ttl_s = max(request.lease_grant.TTL, self._minimum_ttl_s)
        self.leases.grant(lease, ttl_s)
        self._store_lease(lease, ttl_s)
        self._effects.granted.append((lease, ttl_s))
        return self._header() + LeaseGrantResponse(ID=lease, TTL=ttl_s).SerializeToString()

    def _revoke(self, request: InternalRaftRequest) -> bytes:
        self.alarms.check_write()
        lease = LeaseId(request.lease_revoke.ID)
        self._kv.delete_keys(self.leases.revoke(lease))
        self.store.bucket_delete(Bucket.LEASE, lease.to_bytes(8, signed=True))
        self._effects.revoked.append(lease)
        return self._header()

    def _checkpoint(self, request: InternalRaftRequest) -> bytes:
        for checkpoint in request.lease_checkpoint.checkpoints:
            lease = LeaseId(checkpoint.ID)
            if self.leases.exists(lease):
                if self._persist_checkpoints:
                    self._store_lease(lease, self.leases.ttl_s(lease), checkpoint.remaining_TTL)
                self._effects.checkpointed.append((lease, checkpoint.remaining_TTL))
        return self._header()

    def _store_lease(self, lease: LeaseId, ttl_s: int, remaining_s: int = 0) -> None:
        stored = Lease(ID=lease, TTL=ttl_s, RemainingTTL=remaining_s)
        self.store.bucket_put(Bucket.LEASE, lease.to_bytes(8, signed=True), stored.SerializeToString())

    # -- alarms and members ------------------------------------------------------------------------------------------

    def _alarm(self, request: InternalRaftRequest) -> bytes:
        asked = request.alarm
        member, alarm = MemberId(asked.memberID), Alarm(asked.alarm)
        answer = AlarmResponse()
        match asked.action:
            case AlarmRequest.GET:
                for holder, held in self.alarms.active(alarm):
                    answer.alarms.add(memberID=holder, alarm=held.value)
            case AlarmRequest.ACTIVATE:
                if self.alarms.activate(member, alarm):
                    self.store.bucket_put(Bucket.ALARM, stored_alarm(asked), b"")
                    answer.alarms.add(memberID=member, alarm=asked.alarm)
            case AlarmRequest.DEACTIVATE:
                if self.alarms.deactivate(member, alarm):
                    self.store.bucket_delete(Bucket.ALARM, stored_alarm(asked))
                    answer.alarms.add(memberID=member, alarm=asked.alarm)
        return self._header() + answer.SerializeToString()

    def _set_attributes(self, request: InternalRaftRequest) -> bytes:
        asked = request.cluster_member_attr_set
        attributes = asked.member_attributes
        return self._note_attributes(MemberId(asked.member_ID), attributes.name, tuple(attributes.client_urls))

    def _note_attributes(self, member_id: MemberId, name: str, client_urls: tuple[str, ...]) -> bytes:
        member = self.cluster.set_attributes(member_id, name, client_urls)
        if member is not None:
            self._store_member(member)
            self._effects.cluster_changed = True
        return self._header()

    def _set_cluster_version(self, request: InternalRaftRequest) -> bytes:
        return self._note_version(request.cluster_version_set.ver)

    def _note_version(self, version: str) -> bytes:
        self.cluster.version = version
        self._effects.cluster_changed = True
        self.store.bucket_put(Bucket.CLUSTER, b"clusterVersion", version.encode())
        return self._header()

    def _set_downgrade(self, request: InternalRaftRequest) -> bytes:
        asked, cluster = request.downgrade_info_set, self.cluster
        cluster.downgrade = Downgrade(asked.ver if asked.enabled else "")
        self.store.bucket_put(Bucket.CLUSTER, DOWNGRADE_KEY, cluster.downgrade.to_json())
        self._effects.cluster_changed = True
        return self._header() + DowngradeResponse(version=cluster.version.rpartition(".")[0]).SerializeToString()

    def _apply_v2(self, request: V2Request) -> None:
        told = meaning(request)
        if isinstance(told, Attributes):
            self._note_attributes(told.member, told.name, told.client_urls)
        elif isinstance(told, ClusterVersion):
            self._note_version(told.version)

    def _apply_conf_change(self, entry: Entry) -> None:
        change = simplified(self._decode_change(entry))
        if isinstance(change, ConfChangeV2):
            self._apply_joint_change(change)
            return
        effects = self._effects
        try:
            conf_state = changed(self.conf_state, change)
            member = self.cluster.apply(change)
        except (EtcdError, MalformedMember, InvalidConfChangeError) as error:
            # It was checked before it was proposed; what does not fit any more has no effect, on any member.
            effects.conf_changes.append(None)
            if isinstance(error, EtcdError):
                effects.outcomes.append((RequestId(change.id), error))
            return
        if member is not None:
            self._store_member(member)
        elif change.type is ConfChangeType.REMOVE_NODE:
            self._store_removed(change.node_id)
        self._switch(conf_state, change)
        effects.outcomes.append((RequestId(change.id), self._header()))

    def _apply_joint_change(self, change: ConfChangeV2) -> None:
        try:
            conf_state = changed(self.conf_state, change)
            settled, gone = self.cluster.settle(members(self.conf_state), members(conf_state), conf_state.learners)
        except (EtcdError, InvalidConfChangeError):
            self._effects.conf_changes.append(None)
            return
        for member in settled:
            self._store_member(member)
        for member_id in gone:
            self._store_removed(member_id)
        self._switch(conf_state, change)

    def _switch(self, conf_state: ConfState, change: ConfChange | ConfChangeV2) -> None:
        self.conf_state = conf_state
        self.store.bucket_put(Bucket.META, b"confState", encode_conf_state(conf_state))
        self._effects.conf_changes.append(change)
        self._effects.cluster_changed = True

    def _store_removed(self, member_id: MemberId) -> None:
        key = f"{member_id:x}".encode()
        self.store.bucket_delete(Bucket.MEMBERS, key)
        self.store.bucket_put(Bucket.MEMBERS_REMOVED, key, b"removed")

    def _store_member(self, member: Member) -> None:
        self.store.bucket_put(Bucket.MEMBERS, member.hex_id.encode(), member.to_json())

    def _header(self) -> bytes:
        return self.headers.encode(self.store.revision, self._kv.term)


def stored_alarm(asked: AlarmRequest) -> bytes:
    """Return the key of an alarm in its bucket."""
    return AlarmMember(memberID=asked.memberID, alarm=asked.alarm).SerializeToString()


def encode_member(member: Member) -> bytes:
    """Return *member* in the form of the client API."""
    return ClientMember(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    ).SerializeToString()
