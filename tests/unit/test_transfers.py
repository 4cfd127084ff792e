"""What is counted of snapshots between members."""

from __future__ import annotations

from core.metrics import Distribution
from core.transfers import Transfers
from core.types import MemberId


def test_each_end_is_counted_once_and_for_its_member() -> None:
    """An operator sees who fails, how long it takes, and what is under way."""
    transfers = Transfers("receive")
    assert transfers.samples() == []
    for member in (1, 1, 0xAB):
        transfers.began(MemberId(member))
    transfers.ended(MemberId(1), 0.3, well=True)
    transfers.ended(MemberId(1), 9.0, well=False)
    found = {(sample.family, sample.labels): sample.value for sample in transfers.samples()}
    prefix = "etcd_network_snapshot_receive"
    assert (found[f"{prefix}_success", ("1",)], found[f"{prefix}_failures", ("1",)]) == (1, 1)
    assert (found[f"{prefix}_inflights_total", ("1",)], found[f"{prefix}_inflights_total", ("ab",)]) == (0, 1)
    times = found[f"{prefix}_total_duration_seconds", ("1",)]
    assert isinstance(times, Distribution)
    assert (sum(times.counts), times.total) == (1, 0.3)
