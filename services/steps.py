"""The steps of a call that is made of other calls: what they ask, as values, in a generator.

A generator yields one step at a time and is sent its outcome.  It knows no node, thread or socket, so it can be read
and tested from top to bottom; services/composed.py carries the steps out.  While one waits, nothing runs.

Two exceptions come in at a yield.  StepFailed: what was asked has failed.  Abandoned, once: the client has given up;
what is yielded from then on is carried out all the same, to clean up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from google.protobuf.message import Message

from core.errors import Compacted, FutureRevision
from net.rpc import Code, Status
from proto.kv_pb2 import Event
from proto.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)
from services.errors import status_of

if TYPE_CHECKING:
    from collections.abc import Generator

M = TypeVar("M", bound=Message)


class Ask(NamedTuple):
    """Make a unary call; its answer is the outcome."""

    method: str
    request: Message
    answer: type[Message]


class Start(NamedTuple):
    """Open a stream with one message and let it end by itself; there is no outcome."""

    method: str
    request: Message


class Watch(NamedTuple):
    """Open the one watch of these steps; there is no outcome."""

    create: WatchCreateRequest


class Next(NamedTuple):
    """Wait for the next response of the watch."""


class Unwatch(NamedTuple):
    """Close the watch."""


class Send(NamedTuple):
    """Send a message of a streaming call; the outcome comes when the client takes more."""

    message: Message


class Present(NamedTuple):
    """Ask nothing: only raises Abandoned if the client has given up."""


Step = Ask | Start | Watch | Next | Unwatch | Send | Present

SESSION_TTL_S = 60
"""How long a lease lasts that is made for a client which brings none (etcd's)."""


class StepFailed(Exception):  # noqa: N818 - what happened, like the errors of core/errors.py
    """A step has failed; *status* is what its own call ended with."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class Abandoned(Exception):  # noqa: N818 - as above
    """The client has given up."""


def fail(text: str) -> StepFailed:
    """Return the failure that says *text*, with the code of errors that have none."""
    return StepFailed(Status(Code.UNKNOWN, text))


def ask(method: str, request: Message, kind: type[M]) -> Generator[Step, Message | None, M]:
    """Make a unary call."""
    answer = yield Ask(method, request, kind)
    assert isinstance(answer, kind), answer
    return answer


def read(request: RangeRequest) -> Generator[Step, Message | None, RangeResponse]:
    """Read a range."""
    return ask("/etcdserverpb.KV/Range", request, RangeResponse)


def transact(request: TxnRequest) -> Generator[Step, Message | None, TxnResponse]:
    """Run a transaction."""
    return ask("/etcdserverpb.KV/Txn", request, TxnResponse)


def delete(key: bytes) -> Generator[Step, Message | None, DeleteRangeResponse]:
    """Delete one key."""
    return ask("/etcdserverpb.KV/DeleteRange", DeleteRangeRequest(key=key), DeleteRangeResponse)


def session(lease: int) -> Generator[Step, Message | None, int]:
    """Return the lease to act with: *lease*, renewed once, or where that is 0 one of SESSION_TTL_S."""
    if not lease:
        request = LeaseGrantRequest(TTL=SESSION_TTL_S)
        granted = yield from ask("/etcdserverpb.Lease/LeaseGrant", request, LeaseGrantResponse)
        return granted.ID
    yield Start("/etcdserverpb.Lease/LeaseKeepAlive", LeaseKeepAliveRequest(ID=lease))
    return lease


def prefix_of(name: bytes) -> bytes:
    """Return what the keys of all who want *name* begin with."""
    return name + b"/"


def own_key(name: bytes, lease: int) -> bytes:
    """Return the key that stands for who holds *lease*."""
    return prefix_of(name) + b"%x" % lease


def all_below(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with *prefix*, which ends in a slash."""
    return prefix[:-1] + b"0"


def oldest(prefix: bytes) -> RangeRequest:
    """Return the question for the key that was created first."""
    return RangeRequest(
        key=prefix,
        range_end=all_below(prefix),
        sort_target=RangeRequest.CREATE,
        sort_order=RangeRequest.ASCEND,
        limit=1,
    )


def wait_until_oldest(prefix: bytes, revision: int) -> Generator[Step, Message | None, None]:
    """Wait until no key below *prefix* is left that was created before *revision*.

    Each time it is the newest of them that is waited for, so that when one goes only the one behind it wakes.
    """
    while True:
        others = yield from read(
            RangeRequest(
                key=prefix,
                range_end=all_below(prefix),
                sort_target=RangeRequest.CREATE,
                sort_order=RangeRequest.DESCEND,
                limit=1,
                max_create_revision=revision - 1,
            )
        )
        if not others.kvs:
            return
        yield Watch(WatchCreateRequest(key=others.kvs[0].key, start_revision=others.header.revision))
        gone = False
        while not gone:
            response = yield from next_response()
            gone = any(event.type == Event.DELETE for event in response.events)
        yield Unwatch()


def next_response() -> Generator[Step, Message | None, WatchResponse]:
    """Wait for the next response of the watch; fails if it was cancelled."""
    response = yield Next()
    assert isinstance(response, WatchResponse), response
    error = watch_error(response)
    if error is not None:
        raise StepFailed(error)
    return response


def watch_error(response: WatchResponse) -> Status | None:
    """Return why *response* has ended its watch; None if it has not."""
    if response.compact_revision:
        return unmapped(status_of(Compacted()))
    if not response.canceled:
        return None
    if response.cancel_reason:
        return Status(Code.FAILED_PRECONDITION, response.cancel_reason)
    return unmapped(status_of(FutureRevision()))


def unmapped(status: Status) -> Status:
    """Return *status* as it comes out of a server that has called itself: known errors have lost their code."""
    known = status.message.startswith(("etcdserver: ", "auth: "))
    return Status(Code.UNKNOWN, status.message) if known else status
