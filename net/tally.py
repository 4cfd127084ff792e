"""What has come and gone of each method, counted where it happens: by the engines, on their loop's thread.

Plain integers, because a call may cost a few dozen microseconds in all.  Whoever publishes them reads them between two
turns of the loop.
"""

from __future__ import annotations

from typing import Final

VERSIONS_MAX: Final = 64
"""How many versions of clients are told apart: the text is theirs to choose."""

UNKNOWN: Final = "unknown"


class Tally:
    """Counts of one method, for clients of one version."""

    __slots__ = ("ended", "received", "received_bytes", "replied", "sent", "sent_bytes", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0
        """Messages of streams; a unary call receives one."""
        self.received_bytes = 0
        self.sent = 0
        """Messages of streams; a unary call that ends well has sent one."""
        self.sent_bytes = 0
        self.replied = 0
        """Unary calls that ended well."""
        self.ended: dict[int, int] = {}
        """All other ends by their code."""

    def end(self, code: int) -> None:
        """Count an end."""
        self.ended[code] = self.ended.get(code, 0) + 1


class Tallies:
    """The counts of one listener."""

    def __init__(
        self,
        version_field: bytes = b"client-api-version",
        no_version: str = "etcdserver: invalid client api version",
    ) -> None:
        """Look for a client's version in the metadata *version_field*; *no_version* refuses one that is no text."""
        self.version_field: Final = version_field
        self.no_version: Final = no_version
        self.counts: Final[dict[tuple[str, str], Tally]] = {}
        """By path and version."""
        self._versions = {UNKNOWN}

    def find(self, path: str, version: str = UNKNOWN) -> Tally:
        """Return what counts calls of *path*, which must be served here."""
        if version not in self._versions:
            if len(self._versions) >= VERSIONS_MAX or not version.isprintable() or len(version) > VERSIONS_MAX:
                version = UNKNOWN
            self._versions.add(version)
        return self.counts.setdefault((path, version), Tally())
