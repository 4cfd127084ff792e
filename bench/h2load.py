"""Load from h2load, which is not Python and can drive either server to its limit.

Owns the request file (five bytes of gRPC prefix, then the message), the command line and the reading of h2load's
report.  h2load takes any HTTP 200 for a success, gRPC errors too: so each run checks that every answer had a body,
and the rows check with a read of their own what the run has left behind.
"""

import re
import shutil
import statistics
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

WARM_UP_MS: Final = 500
RUN_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Clients:
    """How many requests are in flight: *streams* on each of *connections*."""

    connections: int
    streams: int

    @property
    def count(self) -> int:
        """Requests in flight in all."""
        return self.connections * self.streams


CLIENTS: Final = {1: Clients(1, 1), 10: Clients(1, 10), 100: Clients(10, 10), 1000: Clients(100, 10)}


@dataclass(frozen=True)
class Run:
    """What one run of h2load measured."""

    requests_per_s: float
    done_count: int
    latency_ms_median: float
    latency_ms_p99: float
    latency_ms_max: float


def require() -> str:
    """The path of h2load; SystemExit with what to install when it is missing."""
    path = shutil.which("h2load")
    if path is None:
        raise SystemExit("h2load is missing: install Debian's nghttp2-client (or nghttp2 elsewhere)")
    return path


def run(endpoint: str, method: str, request: Message, clients: Clients, seconds: float, directory: Path) -> Run:
    """Send *request* to *method* over and over for *seconds*; SystemExit when any call failed."""
    message = request.SerializeToString()
    body_path, log_path = directory / "request.bin", directory / "h2load.log"
    body_path.write_bytes(b"\x00" + struct.pack(">I", len(message)) + message)
    log_path.unlink(missing_ok=True)
    done = subprocess.run(
        [
            require(),
            f"--duration={seconds * 1000:.0f}ms",
            f"--warm-up-time={WARM_UP_MS}ms",
            f"--clients={clients.connections}",
            f"--max-concurrent-streams={clients.streams}",
            f"--data={body_path}",
            f"--log-file={log_path}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            f"http://{endpoint}/etcdserverpb.{method}",
        ],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S + seconds,
        check=False,
    )
    report = done.stdout
    counts = re.search(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", report)
    data_bytes = re.search(r"\((\d+)\) data", report)
    if done.returncode != 0 or counts is None or data_bytes is None:
        raise SystemExit(f"h2load failed on {method}:\n{report}\n{done.stderr}")
    done_count, succeeded_count, *bad_counts = (int(count) for count in counts.groups())
    if done_count == 0 or any(bad_counts) or succeeded_count != done_count:
        raise SystemExit(f"{method}: {done_count} done, {succeeded_count} succeeded:\n{report}")
    # A gRPC error is an answer without data; an OK one carries at least the prefix and a header.
    if int(data_bytes[1]) < done_count * 6:
        raise SystemExit(f"{method}: {done_count} answers had only {data_bytes[1]} bytes of data:\n{report}")
    latencies_ms = sorted(int(line.split()[2]) / 1000 for line in log_path.read_text().splitlines())
    return Run(
        requests_per_s=done_count / seconds,
        done_count=done_count,
        latency_ms_median=statistics.median(latencies_ms),
        latency_ms_p99=latencies_ms[int(len(latencies_ms) * 0.99)],
        latency_ms_max=latencies_ms[-1],
    )
