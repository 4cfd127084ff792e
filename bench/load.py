"""Fill a store with keys: transactions of 128 puts through grpcio, a few at a time."""

import asyncio
from collections.abc import Iterator
from typing import Final

from proto import rpc_pb2
from tests.e2e.client import aio_channel, connect, stubs

VALUE: Final = b"v" * 256
PUTS_PER_TXN: Final = 128
TXNS_IN_FLIGHT: Final = 8
CALL_TIMEOUT_S: Final = 60.0


def key(prefix: bytes, number: int) -> bytes:
    """The key of that number; keys of one prefix sort by number."""
    return prefix + b"%08d" % number


def _txns(prefix: bytes, count: int) -> Iterator[rpc_pb2.TxnRequest]:
    for first in range(0, count, PUTS_PER_TXN):
        numbers = range(first, min(first + PUTS_PER_TXN, count))
        puts = [rpc_pb2.PutRequest(key=key(prefix, number), value=VALUE) for number in numbers]
        yield rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=put) for put in puts])


async def _send(endpoint: str, txns: Iterator[rpc_pb2.TxnRequest]) -> None:
    async with aio_channel(endpoint) as channel:
        client = stubs(channel)

        async def send_in_turn() -> None:
            for txn in txns:
                await client.kv.Txn(txn, timeout=CALL_TIMEOUT_S)

        await asyncio.gather(*(send_in_turn() for _ in range(TXNS_IN_FLIGHT)))


def fill(endpoint: str, prefix: bytes, count: int) -> None:
    """Put *count* keys and check that they are there."""
    asyncio.run(_send(endpoint, _txns(prefix, count)))
    with connect(endpoint) as checking:
        end = prefix[:-1] + bytes((prefix[-1] + 1,))
        request = rpc_pb2.RangeRequest(key=prefix, range_end=end, count_only=True)
        found_count = checking.kv.Range(request, timeout=CALL_TIMEOUT_S).count
    if found_count != count:
        raise SystemExit(f"{found_count} of {count} keys are there after loading")


def revision(endpoint: str) -> int:
    """The store's revision now, by a linearizable read."""
    with connect(endpoint) as client:
        request = rpc_pb2.RangeRequest(key=b"\x00", count_only=True)
        return int(client.kv.Range(request, timeout=CALL_TIMEOUT_S).header.revision)
