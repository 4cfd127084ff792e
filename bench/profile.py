"""Where the time goes: a flame graph of a server under load, with py-spy.

    python -m bench.profile put          100 clients that put; see --help for the other loads

Writes an SVG to bench-results/ that any browser shows: width is time, the stack grows downwards.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import h2load, load, report
from bench.rows import PUT, READ_KEY, Bench, txn_requests
from proto import rpc_pb2
from tests.e2e.client import connect
from tests.e2e.harness import Server, actcd, running

SAMPLES_PER_S: Final = 200
STARTING_S: Final = 1.0
"""What py-spy needs to find its way about; the load goes on for so much longer on either side."""

_SHORT, _LONG = txn_requests().values()
LOADS: Final = {
    "put": ("KV/Put", PUT),
    "txn": ("KV/Txn", _SHORT),
    "txn-get": ("KV/Txn", _LONG),
    "range": ("KV/Range", rpc_pb2.RangeRequest(key=READ_KEY)),
    "range-serializable": ("KV/Range", rpc_pb2.RangeRequest(key=READ_KEY, serializable=True)),
    "lease": ("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=3600)),
}


def main() -> None:
    """Parse the command line, drive the load, tell where the graph is."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("load", nargs="?", choices=LOADS, default="put")
    parser.add_argument("--clients", type=int, choices=h2load.CLIENTS, default=100, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look (default 10)")
    options = parser.parse_args()
    h2load.require()
    report.RESULTS_DIRECTORY.mkdir(exist_ok=True)
    graph = report.RESULTS_DIRECTORY / f"{options.load}-{options.clients}-clients.svg"
    method, request = LOADS[options.load]
    with (
        tempfile.TemporaryDirectory(dir=report.RESULTS_DIRECTORY) as place,
        running(Server(actcd(), Path(place).resolve() / "server")) as server,
    ):
        bench = Bench(server, options.seconds + 2 * STARTING_S, Path(place).resolve())
        with connect(server.endpoint) as client:
            client.kv.Put(rpc_pb2.PutRequest(key=READ_KEY, value=load.VALUE), timeout=load.CALL_TIMEOUT_S)
        spy = subprocess.Popen(spy_command(server.pid, options.seconds, graph))
        run = bench.drive(method, request, options.clients)
        if spy.wait(timeout=options.seconds + 60.0):
            raise SystemExit("py-spy could not look into the server; it may need to be run as root")
    print(f"{options.load}, {options.clients} clients: {run.requests_per_s:,.0f}/s while it was looked at")
    print(graph)


def spy_command(pid: int, seconds: float, graph: Path) -> list[str]:
    """The command line of py-spy."""
    py_spy = str(Path(sys.executable).parent / "py-spy")
    # Stopping the server for each sample would slow it to a tenth; a torn sample now and then does no harm.
    looking = ["--nonblocking", "--duration", f"{seconds:.0f}", "--rate", str(SAMPLES_PER_S), "--threads"]
    return [py_spy, "record", "--pid", str(pid), "--output", str(graph), *looking]


if __name__ == "__main__":
    main()
