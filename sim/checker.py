"""What raft and the store promise, checked after every step.

One leader a term (raft paper 5.2).  Logs that agree on an entry agree on all before it (5.3).  What is committed stays,
and every later leader has it (5.4).  Stores that have applied as much hold the same.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from core.mvcc.keyspace import RECORDS, Bucket, record_revision
from core.raft.role import Role
from core.types import Index
from sim.disk import APPLIED_INDEX
from sim.schedule import Failure

if TYPE_CHECKING:
    from core.raft.messages import Entry
    from core.raft.node import RaftNode
    from core.types import Term
    from sim.disk import Changes
    from sim.leases import Leases
    from sim.member import Member
    from sim.truth import Truth


class Place(NamedTuple):
    """What is known of one entry: what it holds, and the term of the one before it."""

    digest: bytes
    previous_term: int


class Committed(NamedTuple):
    """What is known of one committed entry."""

    term: Term
    digest: bytes
    during: Term
    """The term in which it was first known to be committed."""


class Seen:
    """What was seen of one life of one member."""

    def __init__(self, node: RaftNode) -> None:
        self.commit = 0
        self.term = node.term
        self.last = 0
        self.terms: dict[int, Term] = {}


class RaftChecks:
    """The cluster's logs, as far as anybody ever held them."""

    def __init__(self) -> None:
        self.committed: dict[int, Committed] = {}
        self.leaders: dict[Term, str] = {}
        self._entries: dict[tuple[int, int], Place] = {}
        self._seen: dict[str, Seen] = {}

    def restarted(self, member: Member) -> None:
        """Begin anew with *member*, which has lost what it had in memory."""
        self._seen[member.name] = Seen(member.raft)
        self.look(member)

    def look(self, member: Member) -> None:
        """Check one member, which has just taken a message."""
        node, seen = member.raft, self._seen[member.name]
        if node.term < seen.term:
            raise Failure(f"{member.name} went back from term {seen.term} to {node.term}")
        seen.term = node.term
        if node.role is Role.LEADER:
            self._check_leader(member, node)
        self._check_log(member, node, seen)
        self._check_commit(member, node, seen)

    def _check_leader(self, member: Member, node: RaftNode) -> None:
        known = self.leaders.get(node.term)
        if known is None:
            self.leaders[node.term] = member.name
            for index, (term, _, during) in self.committed.items():
                # Votes may wait in a mailbox while others go on: who wins an old term lacks what later ones committed.
                if during < node.term and index >= node.log.first and node.log.term(Index(index)) != term:
                    raise Failure(f"{member.name} leads term {node.term} without entry {index}, which was committed")
        elif known != member.name:
            raise Failure(f"both {known} and {member.name} lead term {node.term}")

    def _check_log(self, member: Member, node: RaftNode, seen: Seen) -> None:
        log = node.log
        index: int = log.last
        # Where an earlier look has seen this entry here, all before it is the same too.
        while index >= log.first and seen.terms.get(index) != log.term(Index(index)):
            index -= 1
        for entry in log.entries(index + 1, log.last + 1):
            previous = log.term(Index(entry.index - 1)) or 0
            place = Place(_digest(entry), previous)
            known = self._entries.setdefault((entry.index, entry.term), place)
            if known != place:
                raise Failure(f"{member.name} holds another entry at index {entry.index}, term {entry.term}")
            seen.terms[entry.index] = entry.term
        for gone in range(log.last + 1, seen.last + 1):
            seen.terms.pop(gone, None)
        seen.last = log.last

    def _check_commit(self, member: Member, node: RaftNode, seen: Seen) -> None:
        if node.commit < seen.commit:
            raise Failure(f"{member.name} took its commit index back from {seen.commit} to {node.commit}")
        first = max(seen.commit + 1, node.log.first)
        for entry in node.log.entries(first, node.commit + 1) if first <= node.commit else ():
            committed = Committed(entry.term, _digest(entry), node.term)
            known = self.committed.setdefault(entry.index, committed)
            if known[:2] != committed[:2]:
                raise Failure(
                    f"{member.name} committed another entry at index {entry.index}: term {entry.term}, "
                    f"where term {known.term} was committed"
                )
        seen.commit = node.commit


class StoreChecks:
    """One member's store against all others."""

    def __init__(self, name: str, digests: dict[int, int], truth: Truth, leases: Leases) -> None:
        self._name = name
        self._digests = digests
        self._truth = truth
        self._leases = leases

    def wrote(self, changes: Changes, digest: int) -> None:
        """See StoreWatcher."""
        for key, value in changes:
            prefix = key[:1]
            if prefix == RECORDS and value is not None:
                main, sub, tombstone = record_revision(key)
                self._truth.learn(self._name, main, sub, value, tombstone=tombstone)
            elif prefix == Bucket.LEASE.prefix and value is None:
                self._leases.ended(int.from_bytes(key[1:], signed=True))
            elif key == APPLIED_INDEX and value is not None:
                index = int.from_bytes(value)
                known = self._digests.setdefault(index, digest)
                if known != digest:
                    raise Failure(f"{self._name} holds another state at index {index} than others did")


class Checks:
    """All that is checked while the cluster runs."""

    def __init__(self, truth: Truth, leases: Leases) -> None:
        self.raft = RaftChecks()
        self._digests: dict[int, int] = {}
        self._truth = truth
        self._leases = leases

    def store_of(self, name: str) -> StoreChecks:
        """Return who watches the store of one member."""
        return StoreChecks(name, self._digests, self._truth, self._leases)

    def restarted(self, member: Member) -> None:
        """Begin anew with *member*."""
        self.raft.restarted(member)

    def look(self, member: Member) -> None:
        """Check *member*, whose raft has just taken a message."""
        self.raft.look(member)


def _digest(entry: Entry) -> bytes:
    return blake2b(entry.data, digest_size=8, salt=int(entry.type).to_bytes(8, "big")).digest()
