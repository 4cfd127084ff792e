"""Do the members hold the same?  Verdicts on their hashes, for the three checks that etcd makes.

Hashes say something only where they were made at one revision and above one compact revision.  Where they were not, or
a member did not answer, it was not compared, which is never taken for a pass: the verdict names who is left.
Behaviour: "Corruption checks" in the Maintenance section of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.types import MemberId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.mvcc.hashing import HashKv

WHOLE_CLUSTER = MemberId(0)
"""Whom an alarm names when nobody can say which member is wrong."""


class ToldHash(NamedTuple):
    """What a member answered when it was asked for its hash at a revision."""

    made: HashKv
    current: int
    """The revision that its store stands at."""


class NotTold(NamedTuple):
    """Why a member has no hash for us."""

    reason: str
    for_good: bool
    """Whether asking again for the same revision is in vain: it is compacted there."""


Answer = ToldHash | NotTold


class Verdict(NamedTuple):
    """What a check has found."""

    alarms: Sequence[tuple[MemberId, str]] = ()
    """Who is corrupt, and by what one knows."""
    left: Mapping[MemberId, NotTold] = {}
    """Who could not be compared, and why."""

    @property
    def passed(self) -> bool:
        """Whether all were compared and are equal."""
        return not self.alarms and not self.left


def compare(own: HashKv, answers: Mapping[MemberId, Answer]) -> Verdict:
    """Return who differs from *own*, and who could not be compared with it."""
    alarms: list[tuple[MemberId, str]] = []
    left: dict[MemberId, NotTold] = {}
    for member, answer in sorted(answers.items()):
        if isinstance(answer, NotTold):
            left[member] = answer
        elif answer.made.compact_revision != own.compact_revision:
            left[member] = NotTold(_other_compaction(own, answer.made), for_good=True)
        elif answer.made.hash != own.hash:
            alarms.append((member, _unlike(own, answer.made)))
    return Verdict(alarms, left)


def periodic_verdict(
    local: MemberId, before: HashKv, answers: Mapping[MemberId, Answer], after: HashKv, current: int
) -> Verdict:
    """Judge a check by the leader, *local*: its hash *before* the others were asked, and *after* a linearizable read.

    *current* is the revision of its store after the read.  At most one alarm comes of it.
    """
    alarms: list[tuple[MemberId, str]] = []
    if after.hash != before.hash and after[1:] == before[1:]:
        alarms.append((local, f"its own hash at revision {before.revision} was {before.hash}, then {after.hash}"))
    # What the leader had not compacted when it hashed may be compared all the same with who had it neither.
    found = compare(before, answers)
    for member, answer in sorted(answers.items()):
        if isinstance(answer, NotTold):
            continue
        if answer.current > current:
            alarms.append((member, f"it is at revision {answer.current}, ahead of the leader's {current}"))
        if answer.made.compact_revision > after.compact_revision:
            reason = (
                f"it is compacted at {answer.made.compact_revision}, ahead of the leader's {after.compact_revision}"
            )
            alarms.append((member, reason))
        alarms += [alarm for alarm in found.alarms if alarm[0] == member]
    return Verdict(alarms[:1], found.left)


def compaction_verdict(local: MemberId, own: HashKv, answers: Mapping[MemberId, Answer]) -> Verdict:
    """Judge the hashes of one compaction: those are wrong that most members do not share.

    Where no hash is shared by a quorum, the alarm is about the whole cluster.
    """
    found = compare(own, answers)
    if not found.alarms:
        return found
    by_hash: dict[int, list[MemberId]] = {own.hash: [local]}
    for member, answer in sorted(answers.items()):
        if isinstance(answer, ToldHash) and member not in found.left:
            by_hash.setdefault(answer.made.hash, []).append(member)
    quorum = (len(answers) + 1) // 2 + 1
    shared = next((made for made, members in by_hash.items() if len(members) >= quorum), None)
    if shared is None:
        groups = ", ".join(f"{made} by {_hex(members)}" for made, members in by_hash.items())
        return Verdict(
            [(WHOLE_CLUSTER, f"after the compaction at {own.revision} no quorum agrees: {groups}")], found.left
        )
    return Verdict(
        [
            (member, f"after the compaction at {own.revision} its hash is {made}, a quorum's {shared}")
            for made, members in by_hash.items()
            for member in members
            if made != shared
        ],
        found.left,
    )


def _unlike(own: HashKv, other: HashKv) -> str:
    return (
        f"its hash at revision {own.revision}, compacted at {own.compact_revision}, is {other.hash} and not {own.hash}"
    )


def _other_compaction(own: HashKv, other: HashKv) -> str:
    return f"it is compacted at {other.compact_revision}, this member at {own.compact_revision}"


def _hex(members: Sequence[MemberId]) -> str:
    return " and ".join(f"{member:x}" for member in members)
