"""The Lock service: what each call does, step by step.

Who wants a lock puts a key below its name; the oldest key holds it, and goes with its lease.  Behaviour and texts:
etcd's v3lock service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.lock_pb2 import LockResponse, UnlockResponse
from proto.rpc_pb2 import PutRequest, RangeRequest, RequestOp, TxnRequest
from services.election import created_at
from services.steps import (
    Abandoned,
    Present,
    StepFailed,
    delete,
    fail,
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

    from proto.lock_pb2 import LockRequest, UnlockRequest
    from services.steps import Step

SESSION_EXPIRED = "mutex: session is expired"


def lock(request: LockRequest) -> Generator[Step, Message | None, LockResponse]:
    """Wait for the lock.  The key is the holder's proof, and what unlocks it; who gives up leaves none behind."""
    lease = yield from session(request.lease)
    prefix, key = prefix_of(request.name), own_key(request.name, lease)
    owner = RequestOp(request_range=oldest(prefix))
    answer = yield from transact(
        TxnRequest(
            compare=[created_at(key, 0)],
            success=[RequestOp(request_put=PutRequest(key=key, lease=lease)), owner],
            failure=[RequestOp(request_range=RangeRequest(key=key)), owner],
        )
    )
    revision = answer.header.revision
    if not answer.succeeded:
        revision = answer.responses[0].response_range.kvs[0].create_revision
    owners = answer.responses[1].response_range.kvs
    if not owners or owners[0].create_revision == revision:
        if answer.succeeded:
            yield from still_wanted(key)
        return LockResponse(header=answer.header, key=key)
    try:
        yield from wait_until_oldest(prefix, revision)
        held = yield from read(RangeRequest(key=key))
    except (Abandoned, StepFailed):
        yield from let_go(key)
        raise
    if not held.kvs:
        raise fail(SESSION_EXPIRED)  # and the lock is nobody's, or the next one's
    yield from still_wanted(key)
    return LockResponse(header=held.header, key=key)


def still_wanted(key: bytes) -> Generator[Step, Message | None, None]:
    """Let go of *key* again if the client has given up."""
    try:
        yield Present()
    except Abandoned:
        yield from let_go(key)
        raise


def unlock(request: UnlockRequest) -> Generator[Step, Message | None, UnlockResponse]:
    """Delete the holder's key."""
    answer = yield from delete(request.key)
    return UnlockResponse(header=answer.header)


def let_go(key: bytes) -> Generator[Step, Message | None, None]:
    """Delete *key*.  Where that fails its lease will end it."""
    try:
        yield from delete(key)
    except StepFailed:
        return
