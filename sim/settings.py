"""What a seed decides before anything runs: the size of the cluster, and which faults it meets how often.

Each seed switches some faults off altogether: many bugs need one fault often rather than all faults seldom.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

SAFETY_S = 30.0
"""How long faults happen, in virtual seconds."""

FAULTS_PER_S = (0.2, 0.4, 0.8)
"""How often anything goes wrong.  A cluster that never gets to work shows nothing."""

LIVENESS_S = 60.0
"""How long the cluster may take to be whole again once faults have ended: elections, retries and leases take their
time, and nothing needs longer."""


STALLS_SHARE = 0.3
"""Of the seeds, how many meet disks that hang."""

BACKGROUND_SHARE = 0.6
"""Of the seeds, in how many the kernel makes the log durable, as on most machines."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between seeds.  Rates are per virtual second for the whole cluster."""

    members: int
    clients: int
    watchers: int
    think_s: float
    """How long a client pauses between two operations, on average."""
    hop_s: float
    """How late one actor's message may reach another of the same member."""
    sync_s: float
    """How long a sync takes, on average."""
    background_sync: bool
    """Whether the kernel makes syncs beside the actors, where they let it."""
    latency_s: float
    drop_rate: float
    duplicate_rate: float
    in_order: bool
    """Whether messages between two members keep their order, as on a stream."""
    clock_rates: tuple[float, ...]
    """How fast each member's clock goes."""
    snapshot_count: int
    segment_size_bytes: int
    faults: tuple[tuple[str, float], ...]
    """Kind of fault, and how often it happens."""


def from_seed(seed: int) -> Settings:
    """Return the settings of *seed*."""
    random = Random(f"settings {seed}")
    members = random.choice((1, 3, 3, 3, 5))
    kinds = [
        "kill",
        "power",
        "torn",
        "pause",
        "slow_disk",
        "full_disk",
        "sync_error",
        "all_down",
        "clock_jump",
    ]
    if members > 1:
        kinds += ["partition", "isolate_leader", "isolate_leader", "one_way", "kill_leader", "transfer"]
    chosen = random.sample(kinds, random.randint(1, 5))
    rate = random.choice(FAULTS_PER_S) / len(chosen)
    # Drawn apart from the rest, so that seeds from before there was such a fault still do what they did.
    if Random(f"stalls {seed}").random() < STALLS_SHARE:
        chosen.append("stall_disk")
    skewed = random.random() < 0.5
    return Settings(
        members=members,
        clients=random.randint(2, 8),
        watchers=random.randint(1, 3),
        think_s=random.choice((0.01, 0.05, 0.2)),
        hop_s=random.choice((0.0, 0.0005, 0.003)),
        sync_s=random.choice((0.0001, 0.003, 0.02)),
        background_sync=Random(f"background sync {seed}").random() < BACKGROUND_SHARE,
        latency_s=random.choice((0.0005, 0.003, 0.02)),
        drop_rate=random.choice((0.0, 0.01, 0.1)),
        duplicate_rate=random.choice((0.0, 0.02)),
        in_order=random.random() < 0.5,
        clock_rates=tuple(random.uniform(0.8, 1.2) if skewed else 1.0 for _ in range(members)),
        snapshot_count=random.choice((50, 10_000)) if members == 1 else 10_000,
        segment_size_bytes=random.choice((4096, 65536)),
        faults=tuple((kind, rate) for kind in chosen),
    )
