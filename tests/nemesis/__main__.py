"""The command: clusters of processes under faults, one after the other, until the time is over or one fails.

    python -m tests.nemesis --minutes 30
    python -m tests.nemesis --seed 7 --seconds 60 --programs actcd,actcd,etcd

The exit code is 1 if a promise was broken; data and logs of that cluster stay where it says.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from sim.schedule import Failure
from tests.e2e.harness import actcd, real_etcd
from tests.nemesis.run import run

PROGRAMS = {"actcd": actcd, "etcd": real_etcd}
SIZES = (3, 3, 5)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long in all (default 10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults happen in one cluster")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--programs", default="", help="one for each member, comma separated; default all actcd")
    options = parser.parse_args()
    end_s = time.monotonic() + options.minutes * 60
    seed = int(time.time()) if options.seed is None else options.seed
    while True:
        named = options.programs.split(",") if options.programs else ["actcd"] * SIZES[seed % len(SIZES)]
        directory = Path(tempfile.mkdtemp(prefix=f"nemesis-{seed}-"))
        began_s = time.monotonic()

        def say(text: str, began_s: float = began_s) -> None:
            print(f"  {time.monotonic() - began_s:7.2f} {text}", flush=True)

        print(f"seed {seed}: {', '.join(named)} in {directory}", flush=True)
        programs = [PROGRAMS[name]() for name in named]
        try:
            print(run(directory, programs=programs, seed=seed, seconds=options.seconds, say=say), flush=True)
        except (Failure, BaseExceptionGroup) as failure:
            print(f"seed {seed} failed: {failure!r}", flush=True)
            return 1
        shutil.rmtree(directory)
        if options.seed is not None or time.monotonic() > end_s:
            return 0
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
