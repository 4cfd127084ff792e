"""What is measured: each row is a name, a unit and a function from a running server to a figure.

All rows of one round run on one fresh server, in this order, so both programs have the same history behind them.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message

from bench import fanout, h2load, load
from proto import rpc_pb2
from tests.e2e.client import connect
from tests.e2e.harness import Server, wait_for

RANGE_KEYS_COUNT: Final = 10_000
WATCH_CONNECTIONS_COUNT: Final = 10
WATCHERS_PER_CONNECTION: Final = 100
UNDELIVERED_REVISIONS_MAX: Final = 20
"""The writer stays at most this far ahead of the watchers, so that no server falls back to reading history."""
DELIVERY_TIMEOUT_S: Final = 30.0

PUT: Final = rpc_pb2.PutRequest(key=b"bench/put", value=load.VALUE)
READ_KEY: Final = b"bench/read"
RANGE_PREFIX: Final = b"range/"
RANGE_END: Final = b"range0"


@dataclass(frozen=True)
class Bench:
    """One fresh server and how long each load runs."""

    server: Server
    seconds: float
    directory: Path

    def drive(self, method: str, request: Message, clients_count: int) -> h2load.Run:
        """Run h2load against the server."""
        clients = h2load.CLIENTS[clients_count]
        return h2load.run(self.server.endpoint, method, request, clients, self.seconds, self.directory)

    def drive_writes(self, method: str, request: Message, clients_count: int) -> h2load.Run:
        """The same with a request that writes: SystemExit unless each answer counted is a revision."""
        before = load.revision(self.server.endpoint)
        run = self.drive(method, request, clients_count)
        written_count = load.revision(self.server.endpoint) - before
        if written_count < run.done_count:
            raise SystemExit(f"{method}: {run.done_count} answers, but {written_count} new revisions")
        return run


Measure = Callable[[Bench], Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """One or more figures measured together; *units* names each with its unit, ``/s`` meaning more is better."""

    name: str
    units: Mapping[str, str]
    measure: Measure


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _puts(clients_count: int) -> Row:
    name = f"put, {_clients(clients_count)}"

    def measure(bench: Bench) -> Mapping[str, float]:
        return {name: bench.drive_writes("KV/Put", PUT, clients_count).requests_per_s}

    return Row(name, {name: "/s"}, measure)


def _put_latency() -> Row:
    """One client sends the next put when it has the answer to the last."""
    rate, median, tail = "put, 1 client", "put latency, 1 client, median", "put latency, 1 client, 99 %"

    def measure(bench: Bench) -> Mapping[str, float]:
        run = bench.drive_writes("KV/Put", PUT, 1)
        return {rate: run.requests_per_s, median: run.latency_ms_median, tail: run.latency_ms_p99}

    return Row(rate, {rate: "/s", median: "ms", tail: "ms"}, measure)


def _reads(clients_count: int, *, serializable: bool) -> Row:
    kind = "serializable" if serializable else "linearizable"
    name = f"{kind} range of one key, {_clients(clients_count)}"
    request = rpc_pb2.RangeRequest(key=READ_KEY, serializable=serializable)

    def measure(bench: Bench) -> Mapping[str, float]:
        with connect(bench.server.endpoint) as client:
            client.kv.Put(rpc_pb2.PutRequest(key=READ_KEY, value=load.VALUE), timeout=load.CALL_TIMEOUT_S)
        return {name: bench.drive("KV/Range", request, clients_count).requests_per_s}

    return Row(name, {name: "/s"}, measure)


def txn_requests() -> Mapping[str, rpc_pb2.TxnRequest]:
    """What is measured of transactions, by the name of the figure; READ_KEY must exist."""
    compare = rpc_pb2.Compare(
        key=READ_KEY, target=rpc_pb2.Compare.VERSION, result=rpc_pb2.Compare.NOT_EQUAL, version=2**40
    )
    put = rpc_pb2.RequestOp(request_put=PUT)
    get = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=PUT.key))
    return {
        "txn (compare, put), 100 clients": rpc_pb2.TxnRequest(compare=[compare], success=[put]),
        "txn (compare, put, get), 100 clients": rpc_pb2.TxnRequest(compare=[compare], success=[put, get]),
    }


def _txns() -> Row:
    requests = txn_requests()

    def measure(bench: Bench) -> Mapping[str, float]:
        with connect(bench.server.endpoint) as client:
            client.kv.Put(rpc_pb2.PutRequest(key=READ_KEY, value=load.VALUE), timeout=load.CALL_TIMEOUT_S)
        return {name: bench.drive_writes("KV/Txn", request, 100).requests_per_s for name, request in requests.items()}

    return Row("txn, 100 clients", dict.fromkeys(requests, "/s"), measure)


def _big_ranges() -> Row:
    whole = f"range of {RANGE_KEYS_COUNT} keys, 1 client"
    limited = f"range of {RANGE_KEYS_COUNT} keys, limit 100, 100 clients"
    counted = f"range of {RANGE_KEYS_COUNT} keys, count only, 100 clients"
    request = rpc_pb2.RangeRequest(key=RANGE_PREFIX, range_end=RANGE_END)

    def measure(bench: Bench) -> Mapping[str, float]:
        load.fill(bench.server.endpoint, RANGE_PREFIX, RANGE_KEYS_COUNT)
        limit_request = rpc_pb2.RangeRequest(key=RANGE_PREFIX, range_end=RANGE_END, limit=100)
        count_request = rpc_pb2.RangeRequest(key=RANGE_PREFIX, range_end=RANGE_END, count_only=True)
        return {
            whole: bench.drive("KV/Range", request, 1).requests_per_s,
            limited: bench.drive("KV/Range", limit_request, 100).requests_per_s,
            counted: bench.drive("KV/Range", count_request, 100).requests_per_s,
        }

    return Row("range of many keys", {whole: "/s", limited: "/s", counted: "/s"}, measure)


def _watch() -> Row:
    """All watch one key, which is written as fast as the events of each write arrive."""
    keys = [[b"bench/watch"] * WATCHERS_PER_CONNECTION] * WATCH_CONNECTIONS_COUNT
    name = f"watch, {WATCH_CONNECTIONS_COUNT * WATCHERS_PER_CONNECTION:,} watchers, events delivered"

    def measure(bench: Bench) -> Mapping[str, float]:
        return {name: events_per_s(bench, keys, UNDELIVERED_REVISIONS_MAX)}

    return Row("watch", {name: "/s"}, measure)


def events_per_s(bench: Bench, keys: Sequence[Sequence[bytes]], undelivered_max: int) -> float:
    """Watch each of *keys*, a list for each connection, write them in turn, and return the rate of the events.

    At most *undelivered_max* writes are ahead of the watchers.
    """
    watchers_count = sum(map(len, keys))
    written = sorted({key for watched in keys for key in watched})
    events_per_put = watchers_count // len(written)
    context = multiprocessing.get_context("spawn")
    created, delivered, stop = (context.Value("q", 0) for _ in range(3))
    reader = context.Process(
        target=fanout.read_watches, args=(bench.server.client_port, keys, created, delivered, stop)
    )
    reader.start()
    try:
        wait_for(lambda: created.value >= watchers_count, DELIVERY_TIMEOUT_S, "all watchers are created")
        with connect(bench.server.endpoint) as client:
            puts: list[Any] = []
            started_s = time.monotonic()
            while time.monotonic() - started_s < bench.seconds:
                put = rpc_pb2.PutRequest(key=written[len(puts) % len(written)], value=load.VALUE)
                puts.append(client.kv.Put.future(put, timeout=load.CALL_TIMEOUT_S))
                oldest = (len(puts) - undelivered_max) * events_per_put
                wait_for(lambda oldest=oldest: delivered.value >= oldest, DELIVERY_TIMEOUT_S, "events arrive")  # type: ignore[misc]  # bound now
            for each in puts:
                each.result()
            expected_count = len(puts) * events_per_put
            wait_for(lambda: delivered.value >= expected_count, DELIVERY_TIMEOUT_S, "the last events arrive")
            elapsed_s = time.monotonic() - started_s
        if delivered.value != expected_count:
            raise SystemExit(f"watch: {delivered.value} events delivered, {expected_count} expected")
        return expected_count / elapsed_s
    finally:
        stop.value = 1
        reader.join(DELIVERY_TIMEOUT_S)
        if reader.is_alive():
            reader.kill()


def _restart(keys_count: int) -> Row:
    """On a store of its own, not the one that the other rows have written to."""
    label = f"{keys_count:,} keys"
    units = {
        f"load of {label}": "/s",
        "memory, empty": "MiB",
        f"memory, {label}": "MiB",
        f"memory, {label}, after restart": "MiB",
        f"start with {label}": "s",
        f"start with {label} after kill -9": "s",
    }

    def measure(bench: Bench) -> Mapping[str, float]:
        server = Server(bench.server.program, bench.directory / f"restart-{keys_count}")
        try:
            server.start()
            empty_bytes = server.memory_bytes()
            started_s = time.monotonic()
            load.fill(server.endpoint, b"load/", keys_count)
            loaded_per_s = keys_count / (time.monotonic() - started_s)
            loaded_bytes = server.memory_bytes()
            server.stop()
            start_s = _timed_start(server)
            _check_count(server, keys_count)
            restarted_bytes = server.memory_bytes()
            server.kill()
            start_after_kill_s = _timed_start(server)
            _check_count(server, keys_count)
        finally:
            server.close()
        figures = (
            loaded_per_s,
            empty_bytes / 2**20,
            loaded_bytes / 2**20,
            restarted_bytes / 2**20,
            start_s,
            start_after_kill_s,
        )
        return dict(zip(units, figures, strict=True))

    return Row(f"restart with {label}", units, measure)


def _timed_start(server: Server) -> float:
    started_s = time.monotonic()
    server.start(timeout_s=300.0)
    return time.monotonic() - started_s


def _check_count(server: Server, keys_count: int) -> None:
    with connect(server.endpoint) as client:
        request = rpc_pb2.RangeRequest(key=b"load/", range_end=b"load0", count_only=True)
        found_count = client.kv.Range(request, timeout=load.CALL_TIMEOUT_S).count
    if found_count != keys_count:
        raise SystemExit(f"{found_count} of {keys_count} keys are there after the restart")


def rows(*, large: bool) -> Iterator[Row]:
    """All rows in the order in which they run; *large* adds the one with a million keys."""
    yield _put_latency()
    for clients_count in (10, 100, 1000):
        yield _puts(clients_count)
    for serializable in (False, True):
        for clients_count in (1, 10, 100, 1000):
            yield _reads(clients_count, serializable=serializable)
    yield _txns()
    yield _big_ranges()
    yield _watch()
    yield _restart(100_000)
    if large:
        yield _restart(1_000_000)
