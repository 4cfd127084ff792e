"""Pages by which one member asks another for what only a leader can do, as both sides see them.

Owns the paths, the bodies and the statuses of /members/promote/<id>, /members/hashkv, /leases and /leases/internal;
knows nothing of who carries them.  Forms are etcd's, including the texts by which it tells refusals apart.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from core.alarms.corruption import NotTold, ToldHash
from core.apply.applier import encode_member
from core.errors import (
    Compacted,
    EtcdError,
    FutureRevision,
    LearnerNotReady,
    MemberNotFound,
    MemberNotLearner,
    RequestTimeout,
)
from core.membership.member import MalformedMember, member_from_fields
from core.mvcc.hashing import HashKv
from core.mvcc.varint import field
from proto.lease_pb2 import LeaseInternalRequest, LeaseInternalResponse
from proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest
from services.node import LeaseTimes

if TYPE_CHECKING:
    from core.alarms.corruption import Answer
    from core.types import LeaseId

PROMOTE_PATH = "/members/promote/"
RENEW_PATH = "/leases"
TIMES_PATH = "/leases/internal"
HASH_PATH = "/members/hashkv"

_MEMBERS_TAG = b"\x12"
_NOT_FOUND = "membership: ID not found"
_NOT_LEARNER = "membership: can only promote a learner member"
"""What etcd says between members; to clients it says something else."""


def promote_refusal(error: EtcdError) -> tuple[HTTPStatus, str]:
    """Return the answer to a promotion that was refused."""
    match error:
        case MemberNotFound():
            return HTTPStatus.NOT_FOUND, _NOT_FOUND
        case MemberNotLearner():
            return HTTPStatus.PRECONDITION_FAILED, _NOT_LEARNER
        case LearnerNotReady():
            return HTTPStatus.PRECONDITION_FAILED, error.text
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR, error.text


def promote_outcome(status: int, body: bytes) -> list[bytes] | EtcdError | None:
    """Return what the leader made of a promotion: the members, as MemberListResponse has them, or a refusal.

    None where another try may go better.
    """
    text = body.decode(errors="replace")
    if status == HTTPStatus.OK:
        try:
            members = [member_from_fields(fields) for fields in json.loads(body)]
        except (ValueError, TypeError, AttributeError, MalformedMember, RecursionError):
            return None
        return [field(_MEMBERS_TAG, encode_member(member)) for member in sorted(members, key=lambda each: each.id)]
    if status == HTTPStatus.NOT_FOUND and _NOT_FOUND in text:
        return MemberNotFound()
    if status == HTTPStatus.PRECONDITION_FAILED and _NOT_LEARNER in text:
        return MemberNotLearner()
    if status == HTTPStatus.PRECONDITION_FAILED and LearnerNotReady.text in text:
        return LearnerNotReady()
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return RequestTimeout()
    return None


def renew_question(lease: LeaseId) -> bytes:
    """Return the body that asks to renew *lease*."""
    return LeaseKeepAliveRequest(ID=lease).SerializeToString()


def renew_outcome(status: int, body: bytes) -> int | None:
    """Return the time to live that the leader has granted anew, 0 if there is no such lease; None: try again."""
    if status == HTTPStatus.NOT_FOUND:
        return 0
    if status != HTTPStatus.OK:
        return None
    try:
        return LeaseKeepAliveResponse.FromString(body).TTL
    except DecodeError:
        return None


def times_question(lease: LeaseId) -> bytes:
    """Return the body that asks how long *lease* has."""
    asked = LeaseTimeToLiveRequest(ID=lease)
    return LeaseInternalRequest(LeaseTimeToLiveRequest=asked).SerializeToString()


def times_outcome(status: int, body: bytes) -> LeaseTimes | None:
    """Return how long the leader says a lease has; None: try again."""
    if status == HTTPStatus.NOT_FOUND:
        return LeaseTimes(None, 0)
    if status != HTTPStatus.OK:
        return None
    try:
        times = LeaseInternalResponse.FromString(body).LeaseTimeToLiveResponse
    except DecodeError:
        return None
    return LeaseTimes(times.TTL, times.grantedTTL) if times.TTL >= 0 else LeaseTimes(None, 0)


def hash_question(revision: int) -> bytes:
    """Return the body that asks for the hash of the keys at *revision*."""
    return json.dumps({"revision": revision}).encode()


def hash_outcome(status: int, body: bytes, revision: int) -> Answer:
    """Return what a member told of its hash at *revision*.  etcd 3.5 does not say of which revision it is."""
    text = body[:200].decode(errors="replace").strip()
    if status == HTTPStatus.BAD_REQUEST and Compacted.text.removeprefix("etcdserver: ") in text:
        return NotTold("it is compacted beyond the revision", for_good=True)
    if status == HTTPStatus.BAD_REQUEST and FutureRevision.text.removeprefix("etcdserver: ") in text:
        return NotTold("it has not come to the revision yet", for_good=False)
    if status != HTTPStatus.OK:
        return NotTold(f"it answers {status} {text}", for_good=False)
    try:
        told = json.loads(body)
        made, at = told.get("hash", 0), told.get("hash_revision", revision)
        compact_revision, current = told.get("compact_revision", 0), told.get("header", {}).get("revision", 0)
    except (ValueError, AttributeError, RecursionError):
        made = at = compact_revision = current = None
    if not all(type(number) is int for number in (made, at, compact_revision, current)):
        return NotTold(f"it answers what is no hash: {text}", for_good=False)
    if at != revision:
        return NotTold(f"its hash is of revision {at}", for_good=True)
    return ToldHash(HashKv(made, at, compact_revision), current)
