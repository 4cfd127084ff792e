"""From a request's bytes to a checked request, or to the refusal of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from core.errors import EtcdError
from services.errors import status_of, undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Call

M = TypeVar("M", bound=Message)


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


def reply_with(call: Call, answer: Callable[[], bytes]) -> None:
    """Answer *call* with what *answer* returns, or the EtcdError that it raises."""
    try:
        call.reply(answer())
    except EtcdError as error:
        call.fail(status_of(error))
