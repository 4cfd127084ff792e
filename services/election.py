"""The Election service: what each call does, step by step.

Whoever campaigns puts a key below the election's name and waits until it is the oldest; the key goes with its lease.
Behaviour and texts: etcd's v3election service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.election_pb2 import (
    CampaignResponse,
    LeaderKey,
    LeaderResponse,
    ProclaimResponse,
    ResignResponse,
)
from proto.kv_pb2 import Event
from proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
)
from services.steps import (
    Abandoned,
    Present,
    Send,
    StepFailed,
    Unwatch,
    Watch,
    all_below,
    fail,
    next_response,
    oldest,
    own_key,
    prefix_of,
    read,
    session,
    transact,
    wait_until_oldest,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from google.protobuf.message import Message

    from proto.election_pb2 import CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest
    from proto.rpc_pb2 import TxnResponse
    from services.steps import Step

NO_LEADER = "election: no leader"
NOT_LEADER = "election: not leader"
MISSING_LEADER = '"leader" field must be provided'


def campaign(request: CampaignRequest) -> Generator[Step, Message | None, CampaignResponse]:
    """Wait to lead.  Who gives up while waiting leaves no key behind."""
    lease = yield from session(request.lease)
    key = own_key(request.name, lease)
    answer = yield from transact(
        TxnRequest(
            compare=[created_at(key, 0)],
            success=[RequestOp(request_put=PutRequest(key=key, value=request.value, lease=lease))],
            failure=[RequestOp(request_range=RangeRequest(key=key))],
        )
    )
    leader = LeaderKey(name=request.name, key=key, rev=answer.header.revision, lease=lease)
    if not answer.succeeded:
        present = answer.responses[0].response_range.kvs[0]
        leader.rev = present.create_revision
        if present.value != request.value:
            try:
                yield from put_value(leader, request.value)
            except StepFailed:
                yield from give_up(leader)
                raise
    try:
        yield from wait_until_oldest(prefix_of(request.name), leader.rev)
        yield Present()
    except Abandoned:
        yield from give_up(leader)
        raise
    return CampaignResponse(header=answer.header, leader=leader)


def proclaim(request: ProclaimRequest) -> Generator[Step, Message | None, ProclaimResponse]:
    """Set the leader's value, if it still leads."""
    if not request.HasField("leader"):
        raise fail(MISSING_LEADER)
    leader = LeaderKey()
    leader.CopyFrom(request.leader)
    leader.lease = yield from session(leader.lease)
    answer = yield from put_value(leader, request.value)
    return ProclaimResponse(header=answer.header)


def leader(request: LeaderRequest) -> Generator[Step, Message | None, LeaderResponse]:
    """Return who leads."""
    found = yield from read(oldest(prefix_of(request.name)))
    if not found.kvs:
        raise fail(NO_LEADER)
    return LeaderResponse(header=found.header, kv=found.kvs[0])


def resign(request: ResignRequest) -> Generator[Step, Message | None, ResignResponse]:
    """Give leadership up; nothing happens where it was lost before."""
    if not request.HasField("leader"):
        raise fail(MISSING_LEADER)
    yield from session(request.leader.lease)
    answer = yield from transact(resignation(request.leader))
    return ResignResponse(header=answer.header)


def observe(request: LeaderRequest) -> Generator[Step, Message | None, None]:
    """Send the leader there is, or the first that comes, and then each further leader and value, without an end."""
    prefix = prefix_of(request.name)
    try:
        while True:
            found = yield from read(oldest(prefix))
            if found.kvs:
                present = LeaderResponse(header=found.header, kv=found.kvs[0])
            else:
                present = yield from first_put(prefix, found.header.revision)
            yield Send(present)
            yield Watch(WatchCreateRequest(key=present.kv.key, start_revision=present.header.revision + 1))
            leads = True
            while leads:
                response = yield from next_response()
                for event in response.events:
                    if event.type == Event.DELETE:
                        leads = False
                        break
                    yield Send(LeaderResponse(header=response.header, kv=event.kv))
            yield Unwatch()
    except StepFailed:
        return  # a client that still wants to know asks again, as etcd has it


def first_put(prefix: bytes, revision: int) -> Generator[Step, Message | None, LeaderResponse]:
    """Wait for a key below *prefix*, where there was none at *revision*."""
    yield Watch(WatchCreateRequest(key=prefix, range_end=all_below(prefix), start_revision=revision))
    while True:
        response = yield from next_response()
        for event in response.events:
            if event.type == Event.PUT:
                yield Unwatch()
                header = response.header
                # One response may hold several revisions: what comes after this one is still to be seen.
                header.revision = event.kv.mod_revision
                return LeaderResponse(header=header, kv=event.kv)


def put_value(of: LeaderKey, value: bytes) -> Generator[Step, Message | None, TxnResponse]:
    """Set the value of the key *of*; fails if it is no longer the one that was made then."""
    put = PutRequest(key=of.key, value=value, lease=of.lease)
    answer = yield from transact(TxnRequest(compare=[created_at(of.key, of.rev)], success=[RequestOp(request_put=put)]))
    if not answer.succeeded:
        raise fail(NOT_LEADER)
    return answer


def give_up(of: LeaderKey) -> Generator[Step, Message | None, None]:
    """Delete the key *of*.  Where that fails its lease will end it."""
    try:
        yield from transact(resignation(of))
    except StepFailed:
        return


def resignation(of: LeaderKey) -> TxnRequest:
    """Return the transaction that deletes the key *of*, and not another's that has its name since."""
    removal = RequestOp(request_delete_range=DeleteRangeRequest(key=of.key))
    return TxnRequest(compare=[created_at(of.key, of.rev)], success=[removal])


def created_at(key: bytes, revision: int) -> Compare:
    """Return the condition that *key* was created at *revision*; 0: that it is not there."""
    return Compare(result=Compare.EQUAL, target=Compare.CREATE, key=key, create_revision=revision)
