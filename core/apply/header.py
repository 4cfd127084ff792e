"""The header of every answer, encoded once for each revision and term."""

from __future__ import annotations

from typing import Final

from core.mvcc.varint import varint
from core.types import MemberId

HEADER_TAG: Final = b"\x0a"


class ResponseHeaders:
    """Makes ResponseHeader fields of one member.  Belongs to one thread (it remembers the last one made)."""

    __slots__ = ("_last", "_last_revision", "_last_term", "_prefix", "_suffix", "_suffix_term", "member_id")

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self.member_id = MemberId(member_id)
        prefix = b""
        if cluster_id:
            prefix += b"\x08" + varint(cluster_id)
        if member_id:
            prefix += b"\x10" + varint(member_id)
        self._prefix = prefix
        self._suffix = b""
        self._suffix_term = 0
        self._last = b""
        self._last_revision = -1
        self._last_term = -1

    def encode(self, revision: int, term: int) -> bytes:
        """Return the whole field 1 of an answer, tag included."""
        if revision == self._last_revision and term == self._last_term:
            return self._last
        if term != self._suffix_term:
            self._suffix = b"\x20" + varint(term) if term else b""
            self._suffix_term = term
        prefix = self._prefix
        suffix = self._suffix
        number = varint(revision) if revision else b""
        length = len(prefix) + len(suffix) + len(number) + (1 if number else 0)
        # 11 + 11 + 11 + 11 bytes at most: the length is always a single byte.
        self._last = b"%b%c%b%b%b%b" % (HEADER_TAG, length, prefix, b"\x18" if number else b"", number, suffix)
        self._last_revision = revision
        self._last_term = term
        return self._last


def operation_header(revision: int) -> bytes:
    """Return the header field of one operation's answer inside a transaction: it has only a revision."""
    number = varint(revision)
    return b"%b%c\x18%b" % (HEADER_TAG, len(number) + 1, number)
