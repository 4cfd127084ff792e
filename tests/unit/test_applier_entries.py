"""The applier, kind by kind: what an entry does to the state, what it answers, and when the process must stop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message import DecodeError

from core.apply.applier import Applier, Effects, UnknownEntry
from core.errors import EtcdError
from core.membership.change import adding, promoting, removing, updating
from core.membership.member import Member
from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import Bucket
from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
)
from core.types import MemberId, Term
from proto.membership_pb2 import Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import (
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseCheckpoint,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from proto.rpc_pb2 import Member as ClientMember
from tests.entries import CLUSTER, MEMBER, MINIMUM_TTL_S, Log, make_applier

if TYPE_CHECKING:
    from core.raft.messages import Entry

TERM = Term(3)
NOSPACE, CORRUPT, FUTURE_ALARM = 1, 2, 9


class Machine:
    """An applier and the log that feeds it."""

    def __init__(self, quota_bytes: int | None = None) -> None:
        self.backend = MemoryBackend()
        self.applier: Applier = make_applier(self.backend, quota_bytes)
        self.log = Log()

    def apply(self, *entries: Entry) -> Effects:
        """Apply *entries* as one batch."""
        self.applier.apply(entries, TERM)
        self.applier.store.flush()
        return self.applier.take_effects()

    def outcome(self, **fields: Any) -> bytes | EtcdError:
        """Apply one request and return its outcome."""
        entry, request_id = self.log.request(**fields)
        [(answered, outcome)] = self.apply(entry).outcomes
        assert answered == request_id
        return outcome

    def answer(self, **fields: Any) -> bytes:
        """Apply one request that works."""
        outcome = self.outcome(**fields)
        assert isinstance(outcome, bytes), outcome
        return outcome

    def refusal(self, **fields: Any) -> str:
        """Apply one request that is refused, and return why."""
        outcome = self.outcome(**fields)
        assert isinstance(outcome, EtcdError), outcome
        return str(outcome)

    def restarted(self) -> Applier:
        """Return another applier over the same store."""
        return make_applier(self.backend)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_put_makes_a_revision(machine: Machine) -> None:
    """Its answer bears the header that every answer bears."""
    header = PutResponse.FromString(machine.answer(put=PutRequest(key=b"a"))).header
    assert (header.cluster_id, header.member_id, header.revision, header.raft_term) == (CLUSTER, MEMBER, 2, TERM)


def test_a_delete_says_how_many(machine: Machine) -> None:
    """A client that deletes a range learns what it did."""
    machine.apply(machine.log.put(b"a"), machine.log.put(b"b"))
    answer = machine.answer(delete_range=DeleteRangeRequest(key=b"a", range_end=b"z"))
    assert DeleteRangeResponse.FromString(answer).deleted == 2


def test_a_transaction_is_one_revision(machine: Machine) -> None:
    """All or nothing, and all at once."""
    ops = [RequestOp(request_put=PutRequest(key=key)) for key in (b"a", b"b")]
    answer = TxnResponse.FromString(machine.answer(txn=TxnRequest(success=ops)))
    assert (answer.succeeded, answer.header.revision, len(answer.responses)) == (True, 2, 2)


def test_a_range_that_came_as_an_entry_is_answered(machine: Machine) -> None:
    """Etcd of some versions proposes them."""
    machine.apply(machine.log.put(b"a"))
    answer = RangeResponse.FromString(machine.answer(range=RangeRequest(key=b"a")))
    assert [kv.key for kv in answer.kvs] == [b"a"]


def test_a_compaction_is_answered_or_left_to_be(machine: Machine) -> None:
    """A physical one is answered by whoever finishes it."""
    machine.apply(machine.log.put(b"a"), machine.log.put(b"a"))
    assert CompactionResponse.FromString(machine.answer(compaction=CompactionRequest(revision=2))).header.revision == 3
    entry, request_id = machine.log.request(compaction=CompactionRequest(revision=3, physical=True))
    effects = machine.apply(entry)
    assert effects.outcomes == []
    assert effects.compactions == [(3, 2, request_id)]


def test_a_refused_compaction_is_answered_even_if_physical(machine: Machine) -> None:
    """There is nothing to wait for."""
    assert "future revision" in machine.refusal(compaction=CompactionRequest(revision=9, physical=True))


def test_a_refused_write_leaves_no_effect_but_the_index(machine: Machine) -> None:
    """The entry is applied all the same: it was its effect to be refused."""
    assert "lease not found" in machine.refusal(put=PutRequest(key=b"a", lease=5))
    assert (machine.applier.store.revision, machine.applier.store.applied_index) == (1, 1)
    assert machine.applier.take_changes() == []


def test_a_leaders_empty_entry_is_noticed(machine: Machine) -> None:
    """Leases run on the leader from its first entry on."""
    effects = machine.apply(machine.log.entry(b"", term=2), machine.log.entry(b"", term=3))
    assert effects.first_of_term == 3
    assert effects.outcomes == []


@pytest.mark.parametrize(
    "data",
    [
        InternalRaftRequest(header={"ID": 7}).SerializeToString(),
        InternalRaftRequest(header={"ID": 7}).SerializeToString() + b"\xca\xf8\x01\x00",  # field 3977
    ],
    ids=["nothing asked", "a field of the future"],
)
def test_an_entry_that_asks_for_the_unknown_stops_the_process(machine: Machine, data: bytes) -> None:
    """Passing over it would make this member differ from those that know what it means."""
    with pytest.raises(UnknownEntry):
        machine.apply(machine.log.put(b"a"), machine.log.entry(data))
    assert machine.applier.store.applied_index == 1


def test_an_entry_that_cannot_be_read_stops_the_process(machine: Machine) -> None:
    """It is committed, so it means something to somebody."""
    with pytest.raises(DecodeError):
        machine.apply(machine.log.entry(b"\x22\xff\xff\xff"))


def test_entries_applied_already_are_passed_over(machine: Machine) -> None:
    """The log begins before the store's index after every restart."""
    entries = [machine.log.put(b"a"), machine.log.put(b"b")]
    machine.apply(*entries)
    assert machine.apply(*entries).outcomes == []
    again = machine.restarted()
    again.apply([*entries, machine.log.put(b"c")], TERM)
    assert (again.store.revision, again.store.applied_index) == (4, 3)


def test_a_gap_in_the_log_is_never_applied(machine: Machine) -> None:
    """An entry that is missing is a write that is lost."""
    machine.log.put(b"lost")
    with pytest.raises(AssertionError):
        machine.apply(machine.log.put(b"a"))


# Leases.


def grant(machine: Machine, lease: int = 5, ttl_s: int = 100) -> bytes:
    return machine.answer(lease_grant=LeaseGrantRequest(ID=lease, TTL=ttl_s))


def test_a_lease_lasts_at_least_an_election(machine: Machine) -> None:
    """A shorter one would end before a new leader could renew it."""
    answer = LeaseGrantResponse.FromString(grant(machine, ttl_s=1))
    assert (answer.ID, answer.TTL, answer.header.revision) == (5, MINIMUM_TTL_S, 1)


@pytest.mark.parametrize(
    ("lease", "ttl_s", "why"),
    [(5, 100, "already exists"), (0, 100, "not found"), (6, 9_000_000_001, "too large lease TTL")],
)
def test_a_grant_that_cannot_be_is_refused(machine: Machine, lease: int, ttl_s: int, why: str) -> None:
    """Alike on every member, whatever proposed it."""
    grant(machine)
    assert why in machine.refusal(lease_grant=LeaseGrantRequest(ID=lease, TTL=ttl_s))


def test_the_end_of_a_lease_is_the_end_of_its_keys(machine: Machine) -> None:
    """All at one revision, which watchers see as one."""
    grant(machine)
    machine.apply(machine.log.put(b"a", lease=5), machine.log.put(b"b", lease=5), machine.log.put(b"c"))
    machine.applier.take_changes()
    answer = machine.answer(lease_revoke=LeaseRevokeRequest(ID=5))
    [revised] = machine.applier.take_changes()
    assert [event.key for event in revised.events] == [b"a", b"b"]
    assert LeaseRevokeResponse.FromString(answer).header.revision == revised.revision == 5
    assert machine.restarted().stored_leases() == []


def test_a_negative_lease_id_is_an_id(machine: Machine) -> None:
    """Clients may choose any 64 bits but none at all."""
    grant(machine, lease=-5)
    machine.apply(machine.log.put(b"a", lease=-5))
    again = machine.restarted()
    assert again.lease_keys(next(iter(again.leases.ids))) == [b"a"]


def test_an_unknown_lease_cannot_be_revoked_and_has_no_keys(machine: Machine) -> None:
    """A revoke proposed twice is refused once."""
    grant(machine)
    machine.answer(lease_revoke=LeaseRevokeRequest(ID=5))
    assert "lease not found" in machine.refusal(lease_revoke=LeaseRevokeRequest(ID=5))


def test_a_checkpoint_is_kept_and_unknown_leases_in_it_are_passed_over(machine: Machine) -> None:
    """The lease may have gone while the checkpoint was on its way."""
    grant(machine)
    checkpoints = [LeaseCheckpoint(ID=5, remaining_TTL=7), LeaseCheckpoint(ID=6, remaining_TTL=8)]
    entry, _ = machine.log.request(lease_checkpoint=LeaseCheckpointRequest(checkpoints=checkpoints))
    assert machine.apply(entry).checkpointed == [(5, 7)]
    assert machine.restarted().stored_leases() == [(5, 100, 7)]


def test_leases_and_their_keys_survive_a_restart(machine: Machine) -> None:
    """Which key hangs on which lease is found again from the keys."""
    grant(machine)
    machine.apply(machine.log.put(b"a", lease=5), machine.log.put(b"b", lease=5), machine.log.put(b"b"))
    again = machine.restarted()
    assert [again.lease_keys(lease) for lease in again.leases.ids] == [[b"a"]]


# Alarms and the quota.


def alarm(machine: Machine, action: int, kind: int, member: int = MEMBER) -> list[tuple[int, int]]:
    asked = AlarmRequest(memberID=member)
    asked.MergeFromString(b"\x08%c\x18%c" % (action, kind))  # any number, known or not
    answer = AlarmResponse.FromString(machine.answer(alarm=asked))
    return [(each.memberID, each.alarm) for each in answer.alarms]


GET, ACTIVATE, DEACTIVATE = 0, 1, 2


@pytest.mark.parametrize("kind", [NOSPACE, CORRUPT, FUTURE_ALARM])
def test_alarms_are_raised_listed_and_cleared(machine: Machine, kind: int) -> None:
    """Each change is answered by what changed; a number of the future is kept like any other."""
    assert alarm(machine, ACTIVATE, kind) == [(MEMBER, kind)]
    assert alarm(machine, ACTIVATE, kind) == []
    assert alarm(machine, GET, 0) == [(MEMBER, kind)]
    assert machine.restarted().active_alarms() == [(MEMBER, kind)]
    assert alarm(machine, DEACTIVATE, kind) == [(MEMBER, kind)]
    assert alarm(machine, DEACTIVATE, kind) == []
    assert machine.restarted().active_alarms() == []


def test_an_action_of_the_future_does_nothing(machine: Machine) -> None:
    """There is no member here that would do more."""
    assert alarm(machine, 7, NOSPACE) == []
    assert machine.applier.active_alarms() == []


def test_under_nospace_only_what_grows_is_refused(machine: Machine) -> None:
    """Deleting, compacting and revoking are the way out."""
    grant(machine)
    machine.apply(machine.log.put(b"a"))
    alarm(machine, ACTIVATE, NOSPACE)
    growing = [RequestOp(request_put=PutRequest(key=b"b"))]
    assert "space exceeded" in machine.refusal(put=PutRequest(key=b"b"))
    assert "space exceeded" in machine.refusal(txn=TxnRequest(success=growing))
    assert "space exceeded" in machine.refusal(lease_grant=LeaseGrantRequest(ID=6, TTL=9))
    machine.answer(txn=TxnRequest(success=[RequestOp(request_delete_range=DeleteRangeRequest(key=b"a"))]))
    machine.answer(delete_range=DeleteRangeRequest(key=b"a"))
    machine.answer(compaction=CompactionRequest(revision=3))
    machine.answer(lease_revoke=LeaseRevokeRequest(ID=5))


def test_under_corrupt_every_write_is_refused(machine: Machine) -> None:
    """What differs between members must not be built upon."""
    grant(machine)
    alarm(machine, ACTIVATE, CORRUPT)
    asked: list[dict[str, object]] = [
        {"put": PutRequest(key=b"b")},
        {"delete_range": DeleteRangeRequest(key=b"b")},
        {"txn": TxnRequest(success=[RequestOp(request_delete_range=DeleteRangeRequest(key=b"a"))])},
        {"compaction": CompactionRequest(revision=1)},
        {"lease_grant": LeaseGrantRequest(ID=6, TTL=9)},
        {"lease_revoke": LeaseRevokeRequest(ID=5)},
    ]
    assert {machine.refusal(**fields) for fields in asked} == {"etcdserver: corrupt cluster"}


def test_over_the_quota_the_write_is_applied_and_the_answer_says_no() -> None:
    """Members differ in the sizes of their files, so the state must not depend on them."""
    machine = Machine(quota_bytes=1000)
    machine.applier.allocated_bytes = 990
    entry, _ = machine.log.request(put=PutRequest(key=b"a"))
    effects = machine.apply(entry)
    assert effects.over_quota
    assert str(effects.outcomes[0][1]) == "etcdserver: mvcc: database space exceeded"
    assert machine.applier.store.revision == 2
    assert not machine.apply(machine.log.request(delete_range=DeleteRangeRequest(key=b"a"))[0]).over_quota


# Members and versions.

LEARNER = Member.added(["http://127.0.0.1:2"], is_learner=True, now_s=1)
VOTER = Member.new("m", ["http://127.0.0.1:1"], "t")


def client_members(applier: Applier) -> list[tuple[int, str, bool]]:
    """Return the members as the client API has them: id, first peer URL, whether a learner."""
    # Each is a field 2 of a MemberListResponse with a length below 128.
    members = [ClientMember.FromString(encoded[2:]) for encoded in applier.encoded_members()]
    return [(member.ID, member.peerURLs[0], member.isLearner) for member in members]


def test_members_come_change_and_go(machine: Machine) -> None:
    """What raft counts on, what clients see and what is stored move together."""
    changes = [adding(VOTER), adding(LEARNER), promoting(LEARNER.id), updating(VOTER.id, ("http://127.0.0.1:9",))]
    effects = machine.apply(*[machine.log.conf_change(change) for change in changes])
    assert effects.conf_changes == changes
    expected = sorted([(VOTER.id, "http://127.0.0.1:9", False), (LEARNER.id, "http://127.0.0.1:2", False)])
    assert client_members(machine.applier) == client_members(machine.restarted()) == expected
    assert set(machine.restarted().conf_state.voters) == {VOTER.id, LEARNER.id}
    machine.apply(machine.log.conf_change(removing(LEARNER.id)))
    again = machine.restarted()
    assert [member for member, _, _ in client_members(again)] == [VOTER.id]
    assert again.cluster.is_removed(LEARNER.id)
    assert again.conf_state.voters == (VOTER.id,)


def at_once(text: str, transition: ConfChangeTransition = ConfChangeTransition.AUTO) -> ConfChangeV2:
    """Return several changes as one, for example ``+1 -2 ~3``: a vote, the end of a member, a learner."""
    kinds = {"+": ConfChangeType.ADD_NODE, "-": ConfChangeType.REMOVE_NODE, "~": ConfChangeType.ADD_LEARNER_NODE}
    singles = tuple(ConfChangeSingle(kinds[each[0]], MemberId(int(each[1:]))) for each in text.split())
    return ConfChangeV2(transition, singles)


def founded(machine: Machine) -> None:
    """Make members 1, 2 and 3 vote, and 4 learn."""
    for number in (1, 2, 3, 4):
        member = Member(MemberId(number), (f"http://127.0.0.1:{number}",), is_learner=number == 4)
        machine.apply(machine.log.conf_change(adding(member)))


def standing(applier: Applier) -> dict[int, bool]:
    """Return whether each member learns."""
    return {member.id: member.is_learner for member in applier.cluster.members}


def test_several_members_change_at_once(machine: Machine) -> None:
    """Through a joint configuration: whoever votes in its old half must stay reachable until it is left."""
    founded(machine)
    change = at_once("-1 +4 ~3", ConfChangeTransition.JOINT_EXPLICIT)
    effects = machine.apply(machine.log.conf_change(change))
    assert (effects.conf_changes, effects.outcomes, effects.cluster_changed) == ([change], [], True)
    two, three, four = MemberId(2), MemberId(3), MemberId(4)
    for applier in (machine.applier, machine.restarted()):
        assert applier.conf_state == ConfState((two, four), (), (MemberId(1), two, three), (three,))
        assert standing(applier) == {1: False, 2: False, 3: False, 4: False}
        assert applier.cluster.removed == []
    assert machine.apply(machine.log.conf_change(adding(VOTER))).conf_changes == [None]
    effects = machine.apply(machine.log.conf_change(ConfChangeV2()))
    assert (effects.conf_changes, effects.cluster_changed) == ([ConfChangeV2()], True)
    for applier in (machine.applier, machine.restarted()):
        assert applier.conf_state == ConfState((two, four), (three,))
        assert standing(applier) == {2: False, 3: True, 4: False}
        assert applier.cluster.removed == [1]


def test_the_newer_form_of_one_change_is_as_the_older(machine: Machine) -> None:
    """It is no joint one, and its context tells of the member."""
    old = adding(VOTER)
    change = ConfChangeV2(changes=(ConfChangeSingle(old.type, old.node_id),), context=old.context)
    assert machine.apply(machine.log.conf_change(change)).conf_changes == [replace(old, id=0)]
    assert client_members(machine.restarted()) == [(VOTER.id, "http://127.0.0.1:1", False)]


@pytest.mark.parametrize(
    "change",
    [at_once("+9 -2"), at_once("-1 -2 -3"), at_once(""), at_once("-9"), at_once("+9"), at_once("~9 ~8")],
    ids=["one unknown", "no voter left", "nothing to leave", "none such", "without its context", "unknown learners"],
)
def test_several_changes_that_do_not_fit_change_nothing(machine: Machine, change: ConfChangeV2) -> None:
    """Nobody knows where a new member listens if nothing tells it; every member passes over it alike."""
    founded(machine)
    before = (machine.applier.cluster.members, machine.applier.conf_state)
    effects = machine.apply(machine.log.conf_change(change))
    assert (effects.conf_changes, effects.cluster_changed) == ([None], False)
    for applier in (machine.applier, machine.restarted()):
        assert (applier.cluster.members, applier.conf_state, applier.cluster.removed) == (*before, [])


@pytest.mark.parametrize(
    "change",
    [
        adding(VOTER),
        removing(MemberId(99)),
        updating(MemberId(99), ("http://127.0.0.1:9",)),
        promoting(VOTER.id),
        removing(VOTER.id),
        ConfChange(ConfChangeType.ADD_NODE, MemberId(98), context=b"no JSON"),
    ],
    ids=["there already", "unknown", "update of an unknown", "no learner", "the last voter", "unreadable"],
)
def test_a_change_that_no_longer_fits_changes_nothing(machine: Machine, change: ConfChange) -> None:
    """It fitted when it was proposed; every member passes over it alike."""
    machine.apply(machine.log.conf_change(adding(VOTER)))
    before = (client_members(machine.applier), machine.applier.conf_state, machine.applier.cluster.removed)
    assert machine.apply(machine.log.conf_change(change)).conf_changes == [None]
    for applier in (machine.applier, machine.restarted()):
        assert (client_members(applier), applier.conf_state, applier.cluster.removed) == before


def test_a_member_publishes_its_name_and_addresses(machine: Machine) -> None:
    """Clients find their way by them; a member that is gone by then is passed over."""
    machine.apply(machine.log.conf_change(adding(VOTER)))
    for member_id in (VOTER.id, 99):
        attributes = Attributes(name="new name", client_urls=["http://127.0.0.1:3"])
        machine.answer(
            cluster_member_attr_set=ClusterMemberAttrSetRequest(member_ID=member_id, member_attributes=attributes)
        )
    [member] = machine.restarted().cluster.members
    assert (member.name, member.client_urls) == ("new name", ("http://127.0.0.1:3",))


def test_the_clusters_version_is_kept(machine: Machine) -> None:
    """A member that restarts must not propose another."""
    machine.answer(cluster_version_set=ClusterVersionSetRequest(ver="3.6.0"))
    assert machine.restarted().cluster.version == "3.6.0"
    assert dict(machine.applier.store.bucket_items(Bucket.CLUSTER)) == {b"clusterVersion": b"3.6.0"}


def test_a_snapshot_stands_for_the_applied_state(machine: Machine) -> None:
    """A start from it goes on with the entry after it, in its configuration."""
    machine.apply(machine.log.conf_change(adding(VOTER)), machine.log.put(b"a"))
    snapshot = machine.applier.raft_snapshot()
    assert (snapshot.metadata.index, snapshot.metadata.term) == (2, 1)
    assert snapshot.metadata.conf_state.voters == (VOTER.id,)
    assert VOTER.hex_id.encode() in snapshot.data
