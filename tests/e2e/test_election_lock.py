"""Election and Lock beside those of the real etcd 3.5.1: the same stories, the same answers; both engines, and JSON."""

import http.client
import json
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import grpc
import pytest
from google.protobuf.message import Message

from proto import election_pb2, lock_pb2, rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, CHANNEL_OPTIONS, Stubs, stubs
from tests.e2e.differential import Outcome, outcome, without_ids
from tests.e2e.harness import SHORT_TIMEOUTS, Server, actcd, real_etcd, wait_for

pytestmark = pytest.mark.e2e

CAMPAIGN, LEADER, LOCK = election_pb2.CampaignRequest, election_pb2.LeaderRequest, lock_pb2.LockRequest
ENGINES: Final = ("native", "grpcio")


class Side:
    """One server and clients of all its services."""

    def __init__(self, server: Server, channel: grpc.Channel) -> None:
        self.server = server
        self.etcd: Stubs = stubs(channel)
        self.election, self.lock = self.etcd.election, self.etcd.lock

    def count(self, name: bytes) -> int:
        """How many keys there are below *name*."""
        answer = self.etcd.kv.Range(rpc_pb2.RangeRequest(key=name + b"/", range_end=name + b"0", count_only=True))
        return int(answer.count)

    def revision(self) -> int:
        """The store's revision."""
        return int(self.etcd.kv.Range(rpc_pb2.RangeRequest(key=b"level")).header.revision)

    def grant(self, lease: int, ttl_s: int = 100) -> None:
        """Make a lease."""
        self.etcd.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Side]]:
    """The reference, and actcd with each engine."""
    with ExitStack() as stack:
        made: dict[str, Side] = {}
        for kind in ("etcd", *ENGINES):
            settings = {} if kind == "etcd" else {"engine": kind}
            program = real_etcd() if kind == "etcd" else actcd()
            server = Server(program, tmp_path_factory.mktemp(kind), {**SHORT_TIMEOUTS, **settings})
            stack.callback(server.close)
            server.launch()  # not start(), since grpcio serves no /health
            channel = stack.enter_context(grpc.insecure_channel(server.endpoint, options=CHANNEL_OPTIONS))
            made[kind] = Side(server, channel)
        for side in made.values():
            side.etcd.kv.Range(rpc_pb2.RangeRequest(key=b"up"), wait_for_ready=True, timeout=CALL_TIMEOUT_S)
        yield made


def level(sides: dict[str, Side]) -> None:
    """Bring all sides to one revision."""
    highest = max(side.revision() for side in sides.values())
    for side in sides.values():
        while side.revision() < highest:
            side.etcd.kv.Put(rpc_pb2.PutRequest(key=b"level"))


def compare(sides: dict[str, Side], story: Callable[[Side], list[object]]) -> None:
    """Let *story* happen on each side; it must be told alike everywhere."""
    level(sides)
    told = {kind: story(side) for kind, side in sides.items()}
    for kind in ENGINES:
        for number, (theirs, ours) in enumerate(zip(told["etcd"], told[kind], strict=True)):
            assert ours == theirs, (kind, number)


def normal(result: Outcome) -> object:
    """Return *result* without what differs between any two servers."""
    if isinstance(result, Message):
        without_ids(result)
        return str(result)
    return result


def election_story(side: Side) -> list[object]:
    """Two candidates, their observer, values, refusals, resignations."""
    election = side.election
    told: list[object] = []

    def note(call: Callable[[], Message]) -> None:
        told.append(normal(outcome(call)))

    side.grant(7)
    side.grant(8)
    note(lambda: election.Leader(LEADER(name=b"e")))
    observed = election.Observe(LEADER(name=b"e"))
    first = election.Campaign(CAMPAIGN(name=b"e", lease=7, value=b"one"))
    told += [normal(first), normal(next(observed))]
    note(lambda: election.Leader(LEADER(name=b"e")))
    note(lambda: election.Campaign(CAMPAIGN(name=b"e", lease=7, value=b"one")))
    waiting = election.Campaign.future(CAMPAIGN(name=b"e", lease=8, value=b"other"))
    wait_for(lambda: side.count(b"e") == 2, 10, "the second candidate's key")
    note(lambda: election.Proclaim(election_pb2.ProclaimRequest(leader=first.leader, value=b"two")))
    told.append(normal(next(observed)))
    note(lambda: election.Campaign(CAMPAIGN(name=b"e", lease=7, value=b"three")))
    told.append(normal(next(observed)))
    note(lambda: election.Proclaim(election_pb2.ProclaimRequest(value=b"x")))
    note(lambda: election.Resign(election_pb2.ResignRequest()))
    note(lambda: election.Campaign(CAMPAIGN(name=b"e", lease=999)))
    assert not waiting.done()
    note(lambda: election.Resign(election_pb2.ResignRequest(leader=first.leader)))
    told += [normal(waiting.result(CALL_TIMEOUT_S)), normal(next(observed))]
    note(lambda: election.Resign(election_pb2.ResignRequest(leader=first.leader)))
    note(lambda: election.Proclaim(election_pb2.ProclaimRequest(leader=first.leader, value=b"late")))
    note(lambda: election.Leader(LEADER(name=b"e")))
    observed.cancel()
    for lease in (7, 8):
        side.etcd.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease))
    note(lambda: election.Leader(LEADER(name=b"e")))
    return told


def lock_story(side: Side) -> list[object]:
    """A lock that is taken, taken again, waited for, let go."""
    told: list[object] = []

    def note(call: Callable[[], Message]) -> None:
        told.append(normal(outcome(call)))

    side.grant(17)
    side.grant(18)
    held = side.lock.Lock(LOCK(name=b"l", lease=17))
    told.append(normal(held))
    note(lambda: side.lock.Lock(LOCK(name=b"l", lease=17)))
    waiting = side.lock.Lock.future(LOCK(name=b"l", lease=18))
    wait_for(lambda: side.count(b"l") == 2, 10, "the second key")
    assert not waiting.done()
    note(lambda: side.lock.Unlock(lock_pb2.UnlockRequest(key=held.key)))
    told.append(normal(waiting.result(CALL_TIMEOUT_S)))
    note(lambda: side.lock.Unlock(lock_pb2.UnlockRequest()))
    note(lambda: side.lock.Unlock(lock_pb2.UnlockRequest(key=b"l/none")))
    note(lambda: side.lock.Lock(LOCK(name=b"l", lease=999)))
    for lease in (17, 18):
        side.etcd.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease))
    assert side.count(b"l") == 0
    return told


def test_elections_go_as_in_etcd(sides: dict[str, Side]) -> None:
    """Every answer and refusal, field by field."""
    compare(sides, election_story)


def test_locks_go_as_in_etcd(sides: dict[str, Side]) -> None:
    """Every answer and refusal, field by field."""
    compare(sides, lock_story)


@pytest.mark.parametrize("kind", ENGINES)
def test_who_goes_away_while_waiting_leaves_no_key(sides: dict[str, Side], kind: str) -> None:
    """Cancelled, out of time, or its connection cut: the next in line need not wait for a lease to end."""
    side = sides[kind]
    side.grant(27)
    held = side.lock.Lock(LOCK(name=b"c", lease=27))
    lead = side.election.Campaign(CAMPAIGN(name=b"d", lease=27))
    with pytest.raises(grpc.RpcError) as late:
        side.lock.Lock(LOCK(name=b"c"), timeout=0.3)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with grpc.insecure_channel(side.server.endpoint, options=CHANNEL_OPTIONS) as other:
        gone = Side(side.server, other)
        waiting = [gone.lock.Lock.future(LOCK(name=b"c")), gone.election.Campaign.future(CAMPAIGN(name=b"d"))]
        wait_for(lambda: side.count(b"c") == side.count(b"d") == 2, 10, "those who wait")
        waiting[0].cancel()
        wait_for(lambda: side.count(b"c") == 1, 10, "the cancelled one's key is gone")
    wait_for(lambda: side.count(b"d") == 1, 10, "the lost one's key is gone")
    side.lock.Unlock(lock_pb2.UnlockRequest(key=held.key))
    side.election.Resign(election_pb2.ResignRequest(leader=lead.leader))
    assert side.count(b"c") == side.count(b"d") == 0


def test_leases_that_end_let_the_next_in(sides: dict[str, Side]) -> None:
    """A holder that is gone is not waited for longer than its lease; a waiter whose lease has ended gets no lock."""
    side = sides["native"]
    side.grant(37, ttl_s=2)
    side.grant(38)
    side.grant(39)
    side.lock.Lock(LOCK(name=b"x", lease=37))
    expired = side.lock.Lock.future(LOCK(name=b"x", lease=38))
    wait_for(lambda: side.count(b"x") == 2, 10, "the second key")
    last = side.lock.Lock.future(LOCK(name=b"x", lease=39))
    wait_for(lambda: side.count(b"x") == 3, 10, "the third key")
    side.etcd.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=38))
    with pytest.raises(grpc.RpcError) as refused:
        expired.result(CALL_TIMEOUT_S)
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.UNKNOWN,
        "mutex: session is expired",
    )
    assert last.result(CALL_TIMEOUT_S).key == b"x/27"
    made = side.lock.Lock(LOCK(name=b"y"))
    lease = int(made.key.partition(b"/")[2], 16)
    times = side.etcd.lease.LeaseTimeToLive(rpc_pb2.LeaseTimeToLiveRequest(ID=lease))
    assert times.grantedTTL == 60


def post(port: int, path: str, body: object, timeout_s: float = 20.0) -> tuple[int, object]:
    """Call the gateway; return status and body, without ids."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        if isinstance(answer, dict) and "header" in answer:
            answer["header"] = answer["header"].get("revision")
        return response.status, answer
    finally:
        connection.close()


def text(value: bytes) -> str:
    """Bytes as JSON has them."""
    return b64encode(value).decode()


def gateway_story(side: Side) -> list[object]:
    """The same over HTTP, and a waiter that hangs up."""
    port = side.server.client_port
    side.grant(47)
    told: list[object] = [post(port, "/v3/election/campaign", {"name": text(b"g"), "lease": "47", "value": text(b"v")})]
    told.append(post(port, "/v3/election/leader", {"name": text(b"g")}))
    leader = {"name": text(b"g"), "key": text(b"g/2f"), "rev": told[0][1]["leader"]["rev"], "lease": "47"}  # type: ignore[index]  # JSON
    told.append(post(port, "/v3/election/proclaim", {"leader": leader, "value": text(b"w")}))
    told.append(post(port, "/v3/election/proclaim", {}))
    with socket.create_connection(("127.0.0.1", port), 10) as observer:
        observer.settimeout(10)
        body = json.dumps({"name": text(b"g")}).encode()
        observer.sendall(
            b"POST /v3/election/observe HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        seen = b""
        while b'"value"' not in seen:
            seen += observer.recv(65536)
        told.append(b64decode(json.loads(seen.partition(b"\r\n\r\n")[2].splitlines()[1])["result"]["kv"]["value"]))
    told.append(post(port, "/v3/lock/lock", {"name": text(b"h"), "lease": 47}))
    with socket.create_connection(("127.0.0.1", port), 10) as waiter:
        body = json.dumps({"name": text(b"h")}).encode()
        waiter.sendall(b"POST /v3/lock/lock HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        wait_for(lambda: side.count(b"h") == 2, 10, "the waiter's key")
    wait_for(lambda: side.count(b"h") == 1, 10, "the waiter's key is gone")
    told.append(post(port, "/v3/lock/unlock", {"key": text(b"h/2f")}))
    told.append(post(port, "/v3/election/resign", {"leader": leader}))
    told.append(post(port, "/v3/election/leader", {"name": text(b"g")}))
    return told


def test_both_are_there_as_json(sides: dict[str, Side]) -> None:
    """With the numbers, names and errors of the real gateway."""
    level(sides)
    theirs, ours = gateway_story(sides["etcd"]), gateway_story(sides["native"])
    for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
        assert other == one, number
