"""Versions of servers and clusters, as far as members must agree on them.

Members tell each other the version they run; the cluster's version is the lowest release among them, so that nothing is
used which one of them does not know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORM = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


class MalformedVersion(Exception):  # noqa: N818 - named for what is wrong
    """A text is not a version."""


class Version(NamedTuple):
    """A version; versions compare by their numbers.  What follows the patch number (-alpha.1, +build) is left out."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read X.Y or X.Y.Z; MalformedVersion for anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise MalformedVersion(text)
        major, minor, patch = match.groups(default="0")
        return cls(int(major), int(minor), int(patch))

    @property
    def release(self) -> Version:
        """The version without its patch level, which members may differ in."""
        return Version(self.major, self.minor)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def agreed_version(members: Iterable[Version]) -> Version:
    """Return the cluster version that suits servers of these versions; there is at least one."""
    return min(members).release
