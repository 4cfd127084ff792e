"""What grows: many keys in one range, many watchers, leases and idle clients, and much history to drop."""

import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench import h2load, load
from bench.fanout import Connection
from bench.rows import PUT, Bench, Row, events_per_s
from proto import rpc_pb2
from tests.e2e.client import Stubs, connect
from tests.e2e.harness import Server

KEYS_COUNT: Final = 100_000
PREFIX: Final = b"scale/"
PREFIX_END: Final = b"scale0"

WATCHERS_COUNT: Final = 10_000
WATCHERS_PER_CONNECTION: Final = 1_000
WRITES_AHEAD_MAX: Final = 1_000

LEASES_COUNT: Final = 100_000
LEASE_TTL_S: Final = 3600

REVISIONS_COUNT: Final = 200_000
STALL_AFTER_S: Final = 0.5
MEASURED_AFTER_S: Final = 1.0
"""How long writes are measured before the work that may hold them up, and after its answer."""

IDLE_COUNT: Final = 1_000


def rows() -> Iterator[Row]:
    """All rows of this kind, in the order in which they run."""
    yield _range_of_all()
    yield _many_watchers()
    yield _many_leases()
    yield _idle_clients()
    yield _stalls()


def _range_of_all() -> Row:
    name = f"range of {KEYS_COUNT:,} keys, 1 client"

    def measure(bench: Bench) -> Mapping[str, float]:
        load.fill(bench.server.endpoint, PREFIX, KEYS_COUNT)
        request = rpc_pb2.RangeRequest(key=PREFIX, range_end=PREFIX_END)
        return {name: bench.drive("KV/Range", request, 1).requests_per_s}

    return Row("range of very many keys", {name: "/s"}, measure)


def _many_watchers() -> Row:
    """Each watches a key of its own, and a write is one event: finding the watchers is what is measured."""
    name = f"watch, {WATCHERS_COUNT:,} watchers of as many keys, events delivered"
    keys = [load.key(b"watched/", number) for number in range(WATCHERS_COUNT)]
    connections = [
        keys[first : first + WATCHERS_PER_CONNECTION] for first in range(0, WATCHERS_COUNT, WATCHERS_PER_CONNECTION)
    ]

    def measure(bench: Bench) -> Mapping[str, float]:
        return {name: events_per_s(bench, connections, WRITES_AHEAD_MAX)}

    return Row("watch of many keys", {name: "/s"}, measure)


def _many_leases() -> Row:
    rate = "lease grant, 100 clients"
    latency = f"put latency with {LEASES_COUNT:,} leases, 1 client, median"

    def measure(bench: Bench) -> Mapping[str, float]:
        request = rpc_pb2.LeaseGrantRequest(TTL=LEASE_TTL_S)
        rates = []
        with connect(bench.server.endpoint) as client:
            while len(client.lease.LeaseLeases(rpc_pb2.LeaseLeasesRequest()).leases) < LEASES_COUNT:
                rates.append(bench.drive("Lease/LeaseGrant", request, 100).requests_per_s)
        return {rate: max(rates), latency: bench.drive_writes("KV/Put", PUT, 1).latency_ms_median}

    return Row("leases", {rate: "/s", latency: "ms"}, measure)


def _idle_clients() -> Row:
    """Each has a connection of its own, and on it a watch of a key that nobody writes."""
    memory, latency = (
        f"memory for {IDLE_COUNT:,} idle connections with a watch each",
        f"put latency beside {IDLE_COUNT:,} idle connections, 1 client, median",
    )

    def measure(bench: Bench) -> Mapping[str, float]:
        _allow_files(2 * IDLE_COUNT)
        server = Server(bench.server.program, bench.directory / "idle")
        try:
            server.start()
            own = Bench(server, bench.seconds, bench.directory)
            own.drive("KV/Put", PUT, 100)
            before_bytes = server.memory_bytes()
            connections = [Connection("127.0.0.1", server.client_port, [b"idle/%d" % n]) for n in range(IDLE_COUNT)]
            for connection in connections:
                while not connection.receive():
                    pass
            idle_bytes = server.memory_bytes() - before_bytes
            run = own.drive_writes("KV/Put", PUT, 1)
            for connection in connections:
                connection.socket.close()
        finally:
            server.close()
        return {memory: idle_bytes / 2**20, latency: run.latency_ms_median}

    return Row("idle clients", {memory: "MiB", latency: "ms"}, measure)


def _stalls() -> Row:
    """One client writes all the time; what counts is the longest that any of its writes took.

    Disks stand still by themselves too: what that makes of it is measured for as long as the compaction took.
    """
    nothing = "longest put for as long with nothing beside, 1 client"
    compaction = f"longest put while {REVISIONS_COUNT:,} revisions are compacted, 1 client"
    defragmentation = "longest put while the store is defragmented, 1 client"

    def measure(bench: Bench) -> Mapping[str, float]:
        server = Server(bench.server.program, bench.directory / "stalls")
        try:
            server.start()
            own = Bench(server, bench.seconds, bench.directory)
            for _ in range(REVISIONS_COUNT // KEYS_COUNT):
                load.fill(server.endpoint, PREFIX, KEYS_COUNT)
            revision = load.revision(server.endpoint)
            # Transactions of many puts make few revisions, so most of them are made one by one.
            while load.revision(server.endpoint) - revision < REVISIONS_COUNT:
                own.drive_writes("KV/Put", PUT, 1000)
            revision = load.revision(server.endpoint)
            request = rpc_pb2.CompactionRequest(revision=revision, physical=True)
            began_s = time.monotonic()
            compaction_ms = _longest_put_ms(own, lambda client: client.kv.Compact(request))
            took_s = time.monotonic() - began_s
            return {
                compaction: compaction_ms,
                nothing: _longest_put_ms(own, lambda _client: time.sleep(took_s)),
                defragmentation: _longest_put_ms(
                    own, lambda client: client.maintenance.Defragment(rpc_pb2.DefragmentRequest())
                ),
            }
        finally:
            server.close()

    return Row("stalls", {compaction: "ms", nothing: "ms", defragmentation: "ms"}, measure)


def _longest_put_ms(bench: Bench, work: Callable[[Stubs], object]) -> float:
    """Write while *work* goes on, and a little before and after; return how long the slowest write took."""
    done = threading.Event()

    def longest_ms() -> float:
        slowest_ms = 0.0
        while not done.is_set():
            run = h2load.run(bench.server.endpoint, "KV/Put", PUT, h2load.CLIENTS[1], MEASURED_AFTER_S, bench.directory)
            slowest_ms = max(slowest_ms, run.latency_ms_max)
        return slowest_ms

    with ThreadPoolExecutor(1) as pool, connect(bench.server.endpoint) as client:
        slowest_ms = pool.submit(longest_ms)
        time.sleep(h2load.WARM_UP_MS / 1000 + STALL_AFTER_S)
        work(client)
        done.set()
        return slowest_ms.result()


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
