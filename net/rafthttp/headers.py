"""Who speaks to whom: the headers of every request between members, and what is wrong with a request's.

Members refuse those of other clusters and those whose version they cannot live with, before they look at a body.
Versions are compared by major and minor number alone; a request that names none comes from a release of before 2.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

INCOMPATIBLE_VERSION = "incompatible version"
CLUSTER_ID_MISMATCH = "cluster ID mismatch"
TO_FIELD_MISMATCH = "to field mismatch"
SENDER_NOT_FOUND = "error sender not found"

_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})\.", re.ASCII)
_OLDEST = "2.0.0"


@dataclass(frozen=True, slots=True)
class Identity:
    """This member, as it introduces itself to others."""

    cluster_id: int
    member_id: int
    peer_urls: tuple[str, ...]
    server_version: str
    min_cluster_version: str

    def request_headers(self) -> list[tuple[str, str]]:
        """Return what every request to another member bears."""
        return [
            ("X-Server-From", f"{self.member_id:x}"),
            ("X-Server-Version", self.server_version),
            ("X-Min-Cluster-Version", self.min_cluster_version),
            ("X-Etcd-Cluster-ID", f"{self.cluster_id:x}"),
            ("X-PeerURLs", ",".join(self.peer_urls)),
        ]

    def answer_headers(self) -> list[tuple[str, str]]:
        """Return what every answer to another member bears."""
        return [("X-Etcd-Cluster-ID", f"{self.cluster_id:x}"), ("X-Server-Version", self.server_version)]

    def fault_of(self, headers: Mapping[str, str]) -> str | None:
        """Return why a request with these *headers* (lower-case names) is not for this member; None if it is."""
        theirs = release_of(headers.get("x-server-version", _OLDEST))
        their_minimum = release_of(headers.get("x-min-cluster-version", _OLDEST))
        own, own_minimum = release_of(self.server_version), release_of(self.min_cluster_version)
        if theirs is None or their_minimum is None or own is None or own_minimum is None:
            return INCOMPATIBLE_VERSION
        if theirs < own_minimum or their_minimum > own:
            return INCOMPATIBLE_VERSION
        if headers.get("x-etcd-cluster-id") != f"{self.cluster_id:x}":
            return CLUSTER_ID_MISMATCH
        return None


def release_of(version: str) -> tuple[int, int] | None:
    """Return the major and minor number in *version*; None if it is no version."""
    match = _RELEASE.match(version)
    return None if match is None else (int(match[1]), int(match[2]))


def member_id_in(text: str) -> int | None:
    """Return the member id in hexadecimal *text*, 0 and signs excluded; None if it is none."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", text):
        return None
    return int(text, 16) or None
