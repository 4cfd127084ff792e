"""One member of a cluster: its id, its addresses, and the JSON that it is stored and proposed as.

An id is a hash, so that members of a new cluster find each other's ids without talking: SHA-1 over the sorted peer URLs
and the cluster's token, or the time for one that is added later.  The JSON has the field names and the omissions of
Go's encoder, byte for byte, since etcd reads it from the log and the bucket.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING

from core.errors import MemberBadUrls
from core.types import MemberId

if TYPE_CHECKING:
    from collections.abc import Iterable

_TCP_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.%]+\]|[^\s/?#@:\[\]]*):\d*", re.ASCII)
_SOCKET_URL = re.compile(r"unixs?:\S+", re.ASCII)
_HTML_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
"""Go's encoder escapes these so that its output may stand in a web page."""

_ID_MAX = (1 << 64) - 1


class MalformedMember(Exception):  # noqa: N818 - named for what is wrong
    """Bytes that should be a member's JSON are not."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member.  Its name is empty until it has started once and published it; a learner has no vote."""

    id: MemberId
    peer_urls: tuple[str, ...]
    is_learner: bool = False
    name: str = ""
    client_urls: tuple[str, ...] = ()

    @classmethod
    def new(cls, name: str, peer_urls: Iterable[str], token: str) -> Member:
        """Return a first member of the cluster named by *token*."""
        urls = tuple(sorted(peer_urls))
        return cls(member_id_of(urls, token=token), urls, name=name)

    @classmethod
    def added(cls, peer_urls: Iterable[str], *, is_learner: bool, now_s: int) -> Member:
        """Return a member to add at *now_s*, seconds since 1970; MemberBadUrls."""
        urls = checked_peer_urls(peer_urls)
        return cls(member_id_of(urls, now_s=now_s), urls, is_learner=is_learner)

    @property
    def hex_id(self) -> str:
        """The id as people and bucket keys have it: hexadecimal, without leading zeros."""
        return f"{self.id:x}"

    @property
    def started(self) -> bool:
        """Whether the member has ever told its name."""
        return self.name != ""

    def to_json(self) -> bytes:
        """Return the stored form."""
        return go_json(self.fields())

    def fields(self) -> dict[str, object]:
        """Return what the JSON holds, in Go's order."""
        fields: dict[str, object] = {"id": self.id, "peerURLs": list(self.peer_urls) or None}
        if self.is_learner:
            fields["isLearner"] = True
        if self.name:
            fields["name"] = self.name
        if self.client_urls:
            fields["clientURLs"] = list(self.client_urls)
        return fields


def member_id_of(peer_urls: Iterable[str], *, token: str = "", now_s: int | None = None) -> MemberId:
    """Return the id of a member with these peer URLs: of the cluster *token*, or added at *now_s*."""
    hashed = "".join(sorted(peer_urls)) + token + ("" if now_s is None else str(now_s))
    return MemberId(first_64_bits(hashed.encode()))


def first_64_bits(hashed: bytes) -> int:
    """Return the start of the SHA-1 of *hashed* as a number; it names things and protects nothing."""
    return int.from_bytes(sha1(hashed, usedforsecurity=False).digest()[:8], "big")


def checked_peer_urls(urls: Iterable[str]) -> tuple[str, ...]:
    """Return URLs that a member may be added with, sorted; MemberBadUrls.

    There is at least one, each with host and port but no path, or a unix socket.
    """
    checked = sorted(url.strip() for url in urls)
    if not checked or not all(_TCP_URL.fullmatch(url) or _SOCKET_URL.fullmatch(url) for url in checked):
        raise MemberBadUrls
    return tuple(checked)


def member_from_json(stored: bytes) -> Member:
    """Read a member's JSON; MalformedMember.  Fields that are unknown here are passed over."""
    return member_from_fields(json_object(stored))


def member_from_fields(fields: dict[str, object]) -> Member:
    """Read a member from decoded JSON; MalformedMember."""
    member_id = fields.get("id")
    if not isinstance(member_id, int) or isinstance(member_id, bool) or not 0 <= member_id <= _ID_MAX:
        raise MalformedMember(f"id is {member_id!r}")
    name, is_learner = fields.get("name", ""), fields.get("isLearner", False)
    if not isinstance(name, str) or not isinstance(is_learner, bool):
        raise MalformedMember(f"name is {name!r}, isLearner is {is_learner!r}")
    urls = _texts(fields, "peerURLs"), _texts(fields, "clientURLs")
    return Member(MemberId(member_id), urls[0], is_learner, name, urls[1])


def json_object(stored: bytes) -> dict[str, object]:
    """Decode a JSON object; MalformedMember."""
    try:
        decoded = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise MalformedMember(str(error)) from error
    if not isinstance(decoded, dict):
        raise MalformedMember(f"not an object but {type(decoded).__name__}")
    return decoded


def go_json(value: object) -> bytes:
    """Encode as Go does: no spaces, UTF-8 as it is, some characters escaped, half of a surrogate pair replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_HTML_ESCAPES).encode(errors="replace")


def _texts(fields: dict[str, object], name: str) -> tuple[str, ...]:
    texts = fields.get(name)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise MalformedMember(f"{name} is {texts!r}")
    return tuple(texts)
