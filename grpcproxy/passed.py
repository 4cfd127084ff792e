"""What of a client's call goes on to a member: metadata and the time that is left."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from grpcproxy.messages import Group, Metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from net.rpc import Context

OWN_HOP: Final = (":", "grpc-")
"""Beginnings of names that hold for this connection only."""

LEGAL_NAME: Final = re.compile(r"[a-z0-9._-]+")
NAMES: Final = frozenset({"user-agent", "te", "content-type", "host", "connection"})
IDENTITY: Final = ("token", "authorization", "hasleader")
"""What streams share that are coalesced: who asks, and what of the leader."""


class NotPassedOn(Exception):  # noqa: N818 - named for what is the matter
    """Metadata that cannot be sent on; the text says which."""


def metadata_of(context: Context) -> Metadata:
    """Return the metadata for a member.  Raises NotPassedOn."""
    found: list[tuple[str, str | bytes]] = []
    for name, values in context.metadata.items():
        if name in NAMES or name.startswith(OWN_HOP):
            continue
        if not LEGAL_NAME.fullmatch(name):
            raise NotPassedOn(f'metadata "{name}" has an illegal name')
        found.extend((name, checked(name, value)) for value in values)
    return tuple(found)


def checked(name: str, value: str) -> str | bytes:
    """Return *value* in the form in which grpcio takes it, which raises on others.  Raises NotPassedOn."""
    if name.endswith("-bin"):
        try:
            return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise NotPassedOn(f'metadata "{name}" is no base64') from error
    if not value.isascii() or (value and not value.isprintable()):
        raise NotPassedOn(f'metadata "{name}" is not printable ASCII')
    return value


def group_of(context: Context) -> Group:
    """Return with whom a stream may share one.  Raises NotPassedOn."""
    metadata = context.metadata
    kept = tuple((name, checked(name, value)) for name in IDENTITY for value in metadata.get(name, ()))
    return Group(_first(metadata, "token") or _first(metadata, "authorization"), wants_leader(metadata), kept)


def wants_leader(metadata: Mapping[str, Sequence[str]]) -> bool:
    """Whether the client wants to hear when there is no leader."""
    return _first(metadata, "hasleader") == "true"


def _first(metadata: Mapping[str, Sequence[str]], name: str) -> str:
    values = metadata.get(name)
    return values[0] if values else ""
