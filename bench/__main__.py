"""Measure actcd and etcd 3.5.1 in turn on this machine and print what each can do.

Every round gives each program a fresh server; which comes first alternates.  Loopback only, and every load ends after
a set time.
"""

import argparse
import re
import tempfile
from collections import defaultdict
from pathlib import Path

from bench import h2load, report, scale
from bench.members import three_members
from bench.rows import Bench, Row, rows
from tests.e2e.harness import Program, Server, actcd, real_etcd, running
from tools.compiled import built

PROGRAMS = {"actcd": actcd, "etcd": real_etcd}


def measure_round(
    program: Program, chosen: list[Row], seconds: float, figures: dict[str, list[float]], directory: Path
) -> None:
    """Run the *chosen* rows on one fresh server and add what they found to *figures*."""
    with running(Server(program, directory / "server")) as server:
        bench = Bench(server, seconds, directory)
        for row in chosen:
            for name, value in row.measure(bench).items():
                figures[name].append(value)
                print(f"  {program.name}: {name}: {value:,.2f} {row.units[name]}", flush=True)


def main() -> None:
    """Parse the command line, measure, print the table, write the file."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds per program (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each load (default 2)")
    parser.add_argument("--rows", default="", help="only rows whose name matches this regular expression")
    parser.add_argument("--programs", default="actcd,etcd", help="which programs, comma separated")
    parser.add_argument("--large", action="store_true", help="also restart with a million keys (minutes)")
    options = parser.parse_args()
    h2load.require()
    unknown = set(options.programs.split(",")) - PROGRAMS.keys()
    if unknown:
        parser.error(f"unknown program: {', '.join(sorted(unknown))}")
    programs = [PROGRAMS[name]() for name in options.programs.split(",")]
    known = [*rows(large=options.large), *scale.rows(), three_members()]
    chosen = [row for row in known if re.search(options.rows, row.name)]
    if not chosen:
        parser.error("no row matches; there are: " + "; ".join(row.name for row in known))
    report.RESULTS_DIRECTORY.mkdir(exist_ok=True)
    figures: dict[str, dict[str, list[float]]] = {program.name: defaultdict(list) for program in programs}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        for program in programs if number % 2 == 0 else reversed(programs):
            with tempfile.TemporaryDirectory(dir=report.RESULTS_DIRECTORY) as directory:
                measure_round(program, chosen, options.seconds, figures[program.name], Path(directory).resolve())
    units = {name: unit for row in chosen for name, unit in row.units.items()}
    print(report.table(units, figures))
    if list(built()):
        print("actcd's hot path is compiled (make compile)")
    print("median (smallest-largest); better by: of the medians, above 1 actcd is better")
    print(report.write(units, figures, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
