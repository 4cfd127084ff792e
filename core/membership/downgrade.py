"""Going back to the release before: what a cluster has agreed on about it, and which target is allowed.

While a downgrade is on, the leader lowers the cluster's version to the target, so that members of that release may take
over one after the other; it ends when all run the target.  Behaviour: Downgrade in the Maintenance section of the etcd
v3 API; format: key ``downgrade`` in bucket cluster.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from core.errors import (
    ClusterVersionUnavailable,
    DowngradeInProcess,
    InvalidDowngradeTargetVersion,
    WrongDowngradeVersionFormat,
)
from core.membership.version import MalformedVersion, Version

if TYPE_CHECKING:
    from collections.abc import Collection


class Downgrade(NamedTuple):
    """What was agreed on; *target* is empty while none is on."""

    target: str = ""

    @property
    def enabled(self) -> bool:
        """Whether one is on."""
        return bool(self.target)

    def to_json(self) -> bytes:
        """Return it as etcd stores it."""
        fields = {"target-version": self.target, "enabled": self.enabled}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Downgrade:
        """Read what to_json wrote; anything else is no downgrade."""
        try:
            fields = json.loads(text)
            target = fields["target-version"] if fields["enabled"] is True else ""
            return cls(str(Version.parse(target))) if target else cls()
        except (ValueError, KeyError, TypeError, RecursionError, MalformedVersion):
            return cls()


def checked_target(text: str, cluster_version: str, current: Downgrade) -> Version:
    """Return the release to go back to, as a client names it; or raise why that cannot be."""
    try:
        target = Version.parse(text).release
    except MalformedVersion as error:
        raise WrongDowngradeVersionFormat from error
    if not cluster_version:
        raise ClusterVersionUnavailable
    if target != before(Version.parse(cluster_version)):
        raise InvalidDowngradeTargetVersion
    if current.enabled:
        raise DowngradeInProcess
    return target


def before(version: Version) -> Version | None:
    """Return the release before *version*'s; None where there is none within the major version."""
    return Version(version.major, version.minor - 1) if version.minor else None


def version_to_lower_to(cluster_version: str, told: Collection[Version | None], downgrade: Downgrade) -> str | None:
    """Return the cluster version that a downgrade wants now, given what each member told (None: nothing)."""
    known = [version for version in told if version is not None]
    if not cluster_version or not known or len(known) < len(told):
        return None
    target = Version.parse(downgrade.target)
    fits = before(Version.parse(cluster_version)) == target and before(min(known)) == target
    return str(target) if fits else None


def is_complete(told: Collection[Version | None], downgrade: Downgrade) -> bool:
    """Whether all members run the target."""
    target = Version.parse(downgrade.target).release
    return bool(told) and all(version is not None and version.release == target for version in told)
