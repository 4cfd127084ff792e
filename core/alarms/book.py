"""The alarms that are on, and what each forbids: replicated state, equal on every member.

Held by ApplyActor and changed by applied entries only.  An alarm is raised for one member and binds all of them, since
all must answer an entry alike.  Behaviour: Alarm in the Maintenance section of the etcd v3 API.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from core.errors import CorruptCluster, NoSpace

if TYPE_CHECKING:
    from core.types import MemberId


class Alarm(IntEnum):
    """What is wrong (on the wire and on disk: never renumber)."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2

    @classmethod
    def _missing_(cls, value: object) -> Alarm | None:
        """Take a number that only a newer version knows: it is kept and listed, and forbids nothing here."""
        if not isinstance(value, int):
            return None
        alarm = int.__new__(cls, value)
        alarm._name_ = f"ALARM_{value}"
        alarm._value_ = value
        return alarm


class AlarmBook:
    """The active alarms.  Belongs to ApplyActor.

    NOSPACE stops what makes the store grow, CORRUPT stops every write.  Reads go on under both.
    """

    def __init__(self) -> None:
        self._members: dict[Alarm, set[MemberId]] = {}

    @property
    def any(self) -> bool:
        """Whether any alarm is on."""
        return bool(self._members)

    def activate(self, member: MemberId, alarm: Alarm) -> bool:
        """Raise *alarm* for *member*; return whether that changed anything.  NONE is no alarm."""
        members = self._members.get(alarm, set())
        if alarm is Alarm.NONE or member in members:
            return False
        self._members[alarm] = members | {member}
        return True

    def deactivate(self, member: MemberId, alarm: Alarm) -> bool:
        """Clear *alarm* for *member*; return whether it was on."""
        members = self._members.get(alarm, set())
        if member not in members:
            return False
        self._members[alarm] = members - {member}
        if not self._members[alarm]:
            del self._members[alarm]
        return True

    def active(self, alarm: Alarm = Alarm.NONE) -> list[tuple[MemberId, Alarm]]:
        """Return who has *alarm*, or for NONE every alarm there is; by alarm, then by member."""
        return [
            (member, held)
            for held in sorted(self._members)
            if alarm in {Alarm.NONE, held}
            for member in sorted(self._members[held])
        ]

    def check_growth(self) -> None:
        """Refuse a put, a lease grant or a transaction of some cost: CorruptCluster first, then NoSpace."""
        if self._members:
            self.check_write()
            if Alarm.NOSPACE in self._members:
                raise NoSpace

    def check_write(self) -> None:
        """Refuse a delete, a compaction, a revoke or a transaction without cost: CorruptCluster."""
        if Alarm.CORRUPT in self._members:
            raise CorruptCluster
