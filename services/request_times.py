"""How long requests take: etcd's request_duration_seconds by kind, and range_duration_seconds, on one listener.

Costs next to nothing for each request.  Writes are counted as the batch in which they were answered.  Of the reads of
single keys in one turn of the loop, which are all alike, the first is measured and the others are counted with it;
whatever may take long is measured by itself.  What came in during one turn came at the same time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from core.metrics import APPLY_BOUNDS_S, SYNC_BOUNDS_S, Histogram, Sample
from net.rpc import Code
from services.decode import ENTRY_FIELDS, reply_with
from services.identity import NotedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.rpc import Call

    Waited = tuple[Call, float, bytes]
    """A call, when its request came, and the tag of its field in InternalRaftRequest."""

RANGE: Final = "Range"
READ_ONLY_TXN: Final = "ReadonlyTxn"
WELL: Final = ("false", "true")


class RequestTimes:
    """Belongs to the listener's loop thread.  *now_s* gives monotonic seconds."""

    def __init__(self, now_s: Callable[[], float], long_ended: Callable[[Call, float, float], None]) -> None:
        """*long_ended* is told of each read that a worker has answered: how long it took, and the time."""
        self._now_s = now_s
        self._long_ended = long_ended
        self._requests: dict[tuple[str, str], Histogram] = {}
        self._ranges = tuple(Histogram(APPLY_BOUNDS_S) for _ in WELL)
        self._names: dict[bytes, str] = {}
        self.since_s: float | None = None
        """When the reads that are being answered came, where that was before."""
        self.alike_s = 0.0
        """How long the first read of one key took; 0 if there was none since the last call of answering."""
        self._alike_count = 0
        """Those answered well after the first, and not counted yet."""
        self._txn_count = 0

    def written(self, calls: Sequence[Waited], ended_s: float) -> None:
        """Count writes that were answered well at *ended_s*."""
        if len(calls) == 1:
            [(_, since_s, tag)] = calls
            self._of(self._name(tag), well=True).observe(ended_s - since_s)
            return
        for tag in {tag for _, _, tag in calls}:
            durations_s = [ended_s - since_s for _, since_s, each in calls if each == tag]
            self._of(self._name(tag), well=True).observe_all(durations_s)

    def failed(self, call: Waited, ended_s: float) -> None:
        """Count a write that was refused, or not answered in time."""
        self._of(self._name(call[2]), well=False).observe(ended_s - call[1])

    def answer_range(self, call: Call, make: Callable[[], bytes], *, alike: bool) -> None:
        """Answer *call* with the range that *make* returns, or the EtcdError that it raises.

        *alike* are reads of one key.
        """
        if alike and self.alike_s:
            if reply_with(call, make):
                self._alike_count += 1
            else:
                self._ranged(0.0, well=False)
            return
        began_s = self._now_s()
        well = reply_with(call, make)
        took_s = self._now_s() - began_s
        self._ranged(took_s, well=well)
        if alike:
            self.alike_s = took_s

    def answer_txn(self, call: Call, make: Callable[[], bytes]) -> None:
        """Do the same for a transaction that only reads."""
        began_s = self._now_s() if self.since_s is None else self.since_s
        well = reply_with(call, make)
        if well and self.since_s is not None:
            self._txn_count += 1
        else:
            self._of(READ_ONLY_TXN, well=well).observe(self._now_s() - began_s)

    def long_range(self, call: Call) -> Call:
        """Return *call*, which is counted as a range when it is answered."""
        return _LongRead(call, self._now_s, partial(self._end_range, call), self.since_s)

    def long_txn(self, call: Call) -> Call:
        """Return *call*, which is counted as a transaction that only reads when it is answered."""
        return _LongRead(call, self._now_s, partial(self._end_txn, call), self.since_s)

    def answering(self, since_s: float | None) -> None:
        """Note that the reads answered from now on came at *since_s*; None where they are answered as they come.

        Counts what was answered before.
        """
        if self._alike_count:
            self._ranges[True].observe(self.alike_s, self._alike_count)
            self._of(RANGE, well=True).observe(self._waited(self.alike_s), self._alike_count)
            self._alike_count = 0
        if self._txn_count:
            self._of(READ_ONLY_TXN, well=True).observe(self._waited(0.0), self._txn_count)
            self._txn_count = 0
        self.alike_s = 0.0
        self.since_s = since_s

    def samples(self) -> list[Sample]:
        """Return what was measured so far."""
        return [
            *(
                Sample("etcd_server_request_duration_seconds", times.distribution(), labels)
                for labels, times in self._requests.items()
            ),
            *(
                Sample("etcd_server_range_duration_seconds", times.distribution(), (well,))
                for well, times in zip(WELL, self._ranges, strict=True)
            ),
        ]

    def _ranged(self, took_s: float, *, well: bool) -> None:
        self._ranges[well].observe(took_s)
        self._of(RANGE, well=well).observe(self._waited(took_s))

    def _waited(self, took_s: float) -> float:
        return took_s if self.since_s is None else self._now_s() - self.since_s

    def _end_range(self, call: Call, since_s: float, began_s: float, *, well: bool) -> None:
        ended_s = self._now_s()
        self._ranges[well].observe(ended_s - began_s)
        self._end_long(RANGE, call, ended_s - since_s, ended_s, well=well)

    def _end_txn(self, call: Call, since_s: float, _began_s: float, *, well: bool) -> None:
        ended_s = self._now_s()
        self._end_long(READ_ONLY_TXN, call, ended_s - since_s, ended_s, well=well)

    def _end_long(self, kind: str, call: Call, waited_s: float, ended_s: float, *, well: bool) -> None:
        self._of(kind, well=well).observe(waited_s)
        self._long_ended(call, waited_s, ended_s)

    def _name(self, tag: bytes) -> str:
        name = self._names.get(tag)
        if name is None:
            name = self._names[tag] = name_of(tag)
        return name

    def _of(self, kind: str, *, well: bool) -> Histogram:
        labels = (kind, WELL[well])
        found = self._requests.get(labels)
        if found is None:
            found = self._requests[labels] = Histogram(SYNC_BOUNDS_S)
        return found


class _LongRead(NotedCall):
    """A read that a worker answers; one whose client gives up is not answered, and not counted."""

    def __init__(self, call: Call, now_s: Callable[[], float], end: Callable[..., None], since_s: float | None) -> None:
        super().__init__(call)
        self._end = end
        self._began_s = now_s()
        self._since_s = self._began_s if since_s is None else since_s

    def note(self, code: Code) -> None:
        """See NotedCall."""
        if not self._call.done:
            self._end(self._since_s, self._began_s, well=code is Code.OK)


def name_of(tag: bytes) -> str:
    """Return what etcd calls the kind of request whose field in InternalRaftRequest has this *tag*."""
    return "".join(word.capitalize() for word in ENTRY_FIELDS[tag].split("_"))
