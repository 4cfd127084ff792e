"""From a request's bytes to a checked request, or to the refusal of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from core.errors import EtcdError
from core.mvcc.varint import field, varint
from proto.raft_internal_pb2 import InternalRaftRequest
from services.errors import status_of, undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Call, Status

M = TypeVar("M", bound=Message)

_ENTRY: Final = InternalRaftRequest.DESCRIPTOR
ENTRY_FIELDS: Final = {varint(each.number << 3 | 2): each.name for each in _ENTRY.fields}
"""Names of InternalRaftRequest's fields by the tag of one that is a message."""


def decode(call: Call, kind: type[M], payload: bytes, check: Callable[[M], None] | None = None) -> M | None:
    """Return *payload* as a message of *kind* that passes *check*; None if *call* was refused instead."""
    try:
        request = kind.FromString(payload)
        if check is not None:
            check(request)
    except DecodeError as error:
        call.fail(undecodable(error))
        return None
    except EtcdError as error:
        call.fail(status_of(error))
        return None
    return request


def decode_entry(
    call: Call, kind: type[M], tag: bytes, payload: bytes, check: Callable[[M], None] | None = None
) -> M | None:
    """Do as decode, for a request that is to be proposed as the field *tag* of InternalRaftRequest.

    It is read as it will stand in the log.  Protobuf bounds how deep messages lie in each other, and an entry whose
    request lies one too deep could be committed, and then be read by nobody.
    """
    try:
        entry = InternalRaftRequest.FromString(field(tag, payload))
        request: M = getattr(entry, ENTRY_FIELDS[tag])
        if check is not None:
            check(request)
    except DecodeError as error:
        call.fail(undecodable(DecodeError(str(error).replace(_ENTRY.full_name, kind.DESCRIPTOR.full_name))))
        return None
    except EtcdError as error:
        call.fail(status_of(error))
        return None
    return request


def unreadable(method: str, payload: bytes, words: Callable[[DecodeError], Status] = undecodable) -> Status | None:
    """Return how a call of *method* is refused, in which *words*, whose *payload* is no message of its; else None."""
    try:
        kind = GetMessageClass(descriptor_pool.Default().FindMethodByName(method[1:].replace("/", ".")).input_type)
        kind.FromString(payload)
    except DecodeError as error:
        return words(error)
    return None


def reply_with(call: Call, answer: Callable[[], bytes]) -> bool:
    """Answer *call* with what *answer* returns, or the EtcdError that it raises; return whether it was the former."""
    try:
        call.reply(answer())
    except EtcdError as error:
        call.fail(status_of(error))
        return False
    return True
