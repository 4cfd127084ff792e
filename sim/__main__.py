"""The command: run seeds until one fails.

    python -m sim                      a hundred seeds
    python -m sim --seed 7             one seed
    python -m sim --seed 7 --trace     and everything that happened
    python -m sim --seeds 1000 --from 5000

The exit code is 1 if a seed failed; its last lines are shown, and the command that replays it.
"""

from __future__ import annotations

import argparse
import sys
import time

from sim.cluster import run
from sim.plants import PLANTS


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="Simulate clusters, each from a seed.")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first of them")
    parser.add_argument("--trace", action="store_true", help="show everything that happened")
    parser.add_argument("--plant", choices=sorted(PLANTS), default="", help="plant this bug")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    failed = 0
    for seed in seeds:
        started_s = time.process_time()
        result = run(seed, lines_max=None if arguments.trace else 60, plant=arguments.plant)
        took_s = time.process_time() - started_s
        if result.failure or arguments.trace:
            print("\n".join(result.trace.lines))
        print(
            f"seed {seed}: {result.failure or 'ok'} ({result.settings.members} members, {result.virtual_s:.1f} virtual "
            f"seconds in {took_s:.1f}, {result.deliveries} messages, {result.answers} answers, {result.events} events, "
            f"revision {result.revision}, {result.terms} leaders, trace {result.trace.hexdigest()})",
            flush=True,
        )
        if result.failure:
            failed += 1
            print(result.settings)
            print(
                f"replay: python -m sim --seed {seed} --trace" + (f" --plant {arguments.plant}" * bool(arguments.plant))
            )
            if not arguments.keep_going:
                break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
