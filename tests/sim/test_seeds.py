"""Seeds: a few that run on every change, those that once failed, and the proof that the checks would notice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.cluster import run
from sim.plants import PLANTS

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (1, 4, 5, 10, 14, 19, 24, 27)
"""Single members, three and five; chosen for their faults to differ and for their speed."""
PLANTED_SEEDS_MAX = 25
"""Within so many seeds a planted bug must be caught.  Even a rare one, such as a stale read, which needs a leader that
does not know yet that another was elected."""
CAUGHT_BY = {"acknowledge-before-sync": 1, "read-without-quorum": 6}
"""The seed that is tried first, because it did catch the bug.  What a seed does changes with the code."""
REPLAYED_SEED = 10
REGRESSIONS = [
    int(line.split()[0])
    for line in (ROOT / "sim" / "regressions.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_keeps_its_promises(seed: int) -> None:
    """Whatever happens to a cluster, what raft, the store and the API promise holds, and it recovers."""
    result = run(seed)
    assert not result.failure, "\n".join([*result.trace.lines, result.failure])
    assert result.answers > 100, "a run without traffic shows nothing"
    assert result.revision > 10, "a run without writes shows nothing"


@pytest.mark.long
@pytest.mark.parametrize("seed", REGRESSIONS)
def test_stays_fixed(seed: int) -> None:
    """A seed that once found a bug finds it no more; the cause of each is beside it in sim/regressions.txt."""
    result = run(seed)
    assert not result.failure, "\n".join([*result.trace.lines, result.failure])


@pytest.mark.long
@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_catches_a_planted_bug(plant: str) -> None:
    """A simulation that finds nothing wrong is worth something only if it finds what is known to be wrong."""
    for seed in (CAUGHT_BY[plant], *range(1, PLANTED_SEEDS_MAX + 1)):
        if run(seed, plant=plant).failure:
            return
    raise AssertionError(f"{plant} was not caught within {PLANTED_SEEDS_MAX} seeds")


@pytest.mark.long
def test_replays_a_seed_exactly() -> None:
    """The same seed gives the same trace, also where Python's hashes differ: a failure can be looked at again."""
    traces = set()
    for hash_seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-m", "sim", "--seed", str(REPLAYED_SEED)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.add(ended.stdout.rsplit("trace ", 1)[1])
    assert len(traces) == 1, traces


def test_prints_what_is_needed_to_replay_a_failure() -> None:
    """Whoever meets a failing seed gets the last events, the promise that was broken, and the command to see it all."""
    ended = subprocess.run(
        [sys.executable, "-m", "sim", "--seed", "1", "--plant", "acknowledge-before-sync"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "was committed" in ended.stdout
    assert "replay: python -m sim --seed 1 --trace --plant acknowledge-before-sync" in ended.stdout
