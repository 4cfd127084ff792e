"""Which version a cluster agrees on, from what its members say they run.  Behaviour: etcd's version monitor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from core.membership.version import MalformedVersion, Version, agreed_version

if TYPE_CHECKING:
    from collections.abc import Collection


def told_version(page: bytes) -> Version | None:
    """Return the server's version on a /version page; None if it does not tell one."""
    try:
        return Version.parse(json.loads(page)["etcdserver"])
    except (ValueError, KeyError, TypeError, RecursionError, MalformedVersion):
        return None


def version_to_settle(current: str, told: Collection[Version | None], minimum: str) -> str | None:
    """Return the version to agree on now, given what each member told (None: nothing); None to leave it as it is.

    A cluster starts from *minimum* as long as somebody is silent, and rises when all have spoken; it never falls here.
    """
    agreed = None if not told or None in told else agreed_version([each for each in told if each is not None])
    if not current:
        return minimum if agreed is None else str(agreed)
    if agreed is not None and Version.parse(current) < agreed:
        return str(agreed)
    return None
