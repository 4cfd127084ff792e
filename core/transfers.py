"""What is counted of snapshots that go to another member or come from one.  Pure: whoever tells brings the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from core.metrics import TRANSFER_BOUNDS_S, Histogram, Sample

if TYPE_CHECKING:
    from core.types import MemberId

FAMILIES: Final = {
    "send": (
        "etcd_network_snapshot_send_success",
        "etcd_network_snapshot_send_failures",
        "etcd_network_snapshot_send_inflights_total",
        "etcd_network_snapshot_send_total_duration_seconds",
    ),
    "receive": (
        "etcd_network_snapshot_receive_success",
        "etcd_network_snapshot_receive_failures",
        "etcd_network_snapshot_receive_inflights_total",
        "etcd_network_snapshot_receive_total_duration_seconds",
    ),
}


class Transfers:
    """The snapshots of one direction, by the other member.  Belongs to one thread."""

    def __init__(self, direction: Literal["send", "receive"]) -> None:
        self._families = FAMILIES[direction]
        self._under_way: dict[MemberId, int] = {}
        self._done: dict[MemberId, int] = {}
        self._failed: dict[MemberId, int] = {}
        self._times: dict[MemberId, Histogram] = {}

    def began(self, member: MemberId) -> None:
        """Note that one has begun."""
        self._under_way[member] = self._under_way.get(member, 0) + 1

    def ended(self, member: MemberId, took_s: float, *, well: bool) -> None:
        """Note that one that had begun has ended."""
        self._under_way[member] -= 1
        counts = self._done if well else self._failed
        counts[member] = counts.get(member, 0) + 1
        if well:
            self._times.setdefault(member, Histogram(TRANSFER_BOUNDS_S)).observe(took_s)

    def samples(self) -> list[Sample]:
        """Return the counts so far; none of members with which there was no transfer."""
        success, failures, under_way, times = self._families
        return [
            *(
                Sample(family, counts.get(member, 0), (f"{member:x}",))
                for family, counts in ((success, self._done), (failures, self._failed), (under_way, self._under_way))
                for member in self._under_way
            ),
            *(Sample(times, taken.distribution(), (f"{member:x}",)) for member, taken in self._times.items()),
        ]
