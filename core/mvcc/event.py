"""A change of one key, as the store reports it and watchers receive it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class EventType(IntEnum):
    """What happened to the key (on the wire: never renumber)."""

    PUT = 0
    DELETE = 1


class Event(NamedTuple):
    """One change.  Events of one main revision are kept together and in the order of their sub revisions.

    *kv* is the wire form of mvccpb.KeyValue: whole for a put; key and mod_revision only for a delete.
    *prev_kv* is the wire form of the key's value before the revision, None where it had none.
    """

    type: EventType
    key: bytes
    kv: bytes
    prev_kv: bytes | None


class Revised(NamedTuple):
    """All events of one main revision."""

    revision: int
    events: list[Event]
