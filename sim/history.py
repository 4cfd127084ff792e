"""A history of what clients asked and were answered, judged as a whole when the truth is known.

Every answer tells its revision, so nothing has to be searched for to order the writes: they stand at their revision,
and reads between two.  What is left to check is that this order is that of real time, and that what has no answer, and
so may or may not have happened, accounts for all that nobody was told of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import DeleteRangeRequest
from sim.schedule import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.operations import Operation
    from sim.truth import Truth

DELETE = "/etcdserverpb.KV/DeleteRange"


class Asked(NamedTuple):
    """One question and what became of it.  Times are of one monotonic clock, in seconds."""

    client: str
    at: str
    """Which life of which member was asked."""
    operation: Operation
    began_s: float
    ended_s: float
    """When the answer came, or when the client gave up."""
    answer: bytes | None = None
    refused: bool = False
    """Whether the answer was that nothing has happened.  Without either, nobody knows."""

    def __str__(self) -> str:
        return f"{self.client} ({self.operation.text} at {self.at}, {self.began_s:.3f} to {self.ended_s:.3f})"


def check_history(truth: Truth, history: Sequence[Asked]) -> None:
    """Check everything; Failure."""
    revisions = {
        number: asked.operation.judge(asked.answer) for number, asked in enumerate(history) if asked.answer is not None
    }
    floors = _check_real_time(history, revisions)
    _check_values(truth, history, floors)
    _check_sessions(history, revisions)
    _check_deletes(truth, history, revisions, floors)


def _check_real_time(history: Sequence[Asked], revisions: dict[int, int]) -> list[int]:
    """Check that nobody was answered from before what others had been told already.

    Return for each question the highest revision that anybody had been told when it was asked.
    """
    floors = [0] * len(history)
    floor = 0
    # Where a question begins in the moment in which an answer came, nobody can say which was first.
    moments = [(asked.began_s, 0, number) for number, asked in enumerate(history)]
    moments += [(history[number].ended_s, 1, number) for number in revisions]
    for _, ends, number in sorted(moments):
        operation = history[number].operation
        if not ends:
            floors[number] = floor
            continue
        revision = revisions[number]
        if not operation.linearizable:
            continue
        if revision < floors[number]:
            raise Failure(
                f"{history[number]} was answered as of revision {revision}, although revision {floors[number]} had "
                "been answered before it asked"
            )
        floor = max(floor, revision)
    return floors


def _check_values(truth: Truth, history: Sequence[Asked], floors: list[int]) -> None:
    """Check that each value was written by who wrote it: after it was asked for, and not if that was refused."""
    known = set()
    for number, asked in enumerate(history):
        value = asked.operation.value
        if not value:
            continue
        known.add(value)
        revision = truth.revision_of(value)
        if revision is None:
            continue
        if asked.refused:
            raise Failure(f"{asked} was refused, but took effect at revision {revision}")
        if revision <= floors[number]:
            raise Failure(f"{asked} took effect at revision {revision}, which was there before it was asked for")
    for value in truth.values:
        # The further values of a transaction stand at the revision of the first.
        if value not in known and value.rpartition(b"/")[0] + b"/0" not in known:
            raise Failure(f"nobody wrote {value!r}, which is there since revision {truth.revision_of(value)}")


def _check_sessions(history: Sequence[Asked], revisions: dict[int, int]) -> None:
    """Check that no client saw one life of one member go back, be it by serializable reads."""
    seen: dict[tuple[str, str], int] = {}
    for number in sorted(revisions, key=lambda each: history[each].ended_s):
        asked, revision = history[number], revisions[number]
        session = (asked.client, asked.at)
        if revision < seen.get(session, 0):
            raise Failure(f"{asked} was answered as of revision {revision}, after {seen[session]}")
        seen[session] = revision


def _check_deletes(truth: Truth, history: Sequence[Asked], revisions: dict[int, int], floors: list[int]) -> None:
    """Check that each deletion was asked for: by one who was told so, or else by one of those without an answer.

    Those that are left are matched like jobs and people: each revision to another question that covers its keys.
    """
    told = {revision for number, revision in revisions.items() if history[number].operation.method == DELETE}
    unclear = [
        (number, DeleteRangeRequest.FromString(asked.operation.payload))
        for number, asked in enumerate(history)
        if asked.operation.method == DELETE and asked.answer is None and not asked.refused
    ]
    candidates: dict[int, list[int]] = {}
    for revision in range(2, truth.revision + 1):
        keys = [change.key for change in truth.changes(revision) if change.tombstone]
        if keys and revision not in told:
            candidates[revision] = [
                number
                for number, request in unclear
                if floors[number] < revision and deleted_keys(truth, request, revision) == keys
            ]
    taken: dict[int, int] = {}

    def assign(revision: int, tried: set[int]) -> bool:
        for number in candidates[revision]:
            if number not in tried:
                tried.add(number)
                if number not in taken or assign(taken[number], tried):
                    taken[number] = revision
                    return True
        return False

    for revision in candidates:
        if not assign(revision, set()):
            raise Failure(f"nobody asked for what revision {revision} deleted")


def deleted_keys(truth: Truth, request: DeleteRangeRequest, revision: int) -> list[bytes]:
    """Return what the request deletes if it takes effect at *revision*."""
    return [KeyValue.FromString(kv).key for kv in truth.range(request.key, request.range_end, revision - 1)]
