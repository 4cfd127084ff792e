"""Clusters as processes: several servers that know each other, and proxies between them that can be cut.

Each member's peer URL leads through a proxy of its own.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.harness import Program, Server, actcd, wait_for
from tests.e2e.proxy import Proxy

HEARTBEAT_MS: Final = 50
ELECTION_MS: Final = 500
FOUND_TIMEOUT_S: Final = 90.0
"""For several processes to start at once, on a machine that has other things to do."""

TIMING: Final[Mapping[str, object]] = {"heartbeat-interval": HEARTBEAT_MS, "election-timeout": ELECTION_MS}
"""Half of the default: elections are quick, and a busy machine does not cause any."""


@dataclass
class Member(Server):
    """One member: a server whose peer URL others reach through a proxy."""

    proxy: Proxy | None = None
    id: int = 0
    """Known once it has answered."""

    @property
    def peer_port(self) -> int:
        """Where it listens for the others, behind its proxy."""
        return int(self.peer_reservation.getsockname()[1])

    @property
    def peer_url(self) -> str:
        """Where the other members reach it."""
        port = self.proxy.port if self.proxy is not None else self.peer_port
        return f"http://127.0.0.1:{port}"


@dataclass
class Cluster:
    """Members with one configuration; those added later join by etcdctl's rules."""

    directory: Path
    programs: Sequence[Program] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    proxied: bool = True
    """Whether there are proxies between the members; without them they cannot be cut off."""

    def __post_init__(self) -> None:
        self._made = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def found(self, count: int) -> None:
        """Start a new cluster of *count* members, all at once, and wait until each serves."""
        for number in range(count):
            self._make(self.programs[number] if self.programs else actcd())
        self._configure("new", self.members)
        for member in self.members:
            member.launch()
        for member in self.members:
            self.wait_until_serving(member, FOUND_TIMEOUT_S)

    def join(self, *, learner: bool = False, program: Program | None = None) -> Member:
        """Add a member through the first one, and launch it."""
        member = self.add(learner=learner, program=program)
        member.launch()
        return member

    def add(self, *, learner: bool = False, program: Program | None = None) -> Member:
        """Add a member through the first one, for the caller to launch."""
        member = self._make(program or actcd())
        request = rpc_pb2.MemberAddRequest(peerURLs=[member.peer_url], isLearner=learner)

        def added() -> bool:
            # A change is refused until every connection has lasted five seconds.
            try:
                with connect(self.members[0].endpoint) as client:
                    client.cluster.MemberAdd(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError:
                return False
            return True

        wait_for(added, 30.0, "the member is added")
        self._configure("existing", [member])
        return member

    def _make(self, program: Program) -> Member:
        number = self._made
        self._made += 1
        member = Member(program, self.directory / f"member{number}", name=f"member{number}")
        if self.proxied:
            member.proxy = Proxy(self._loop, member.peer_port)
        self.members.append(member)
        return member

    def _configure(self, state: str, members: Sequence[Member]) -> None:
        initial = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in members:
            member.settings = {
                **TIMING,
                **self.settings,
                "initial-cluster": initial,
                "initial-cluster-state": state,
                "initial-advertise-peer-urls": member.peer_url,
                "log-level": "info",
            }

    def wait_until_serving(self, member: Member, timeout_s: float = 30.0) -> None:
        """Wait until *member* answers a linearizable read."""

        def serves() -> bool:
            assert member.process is not None, "not started"
            assert member.process.poll() is None, f"{member.name} has left:\n{member.log_tail()}"
            return member._healthy()

        wait_for(serves, timeout_s, f"{member.name} serves")

    def restart(self, member: Member) -> None:
        """Start *member* again, and wait until it serves."""
        member.launch()
        self.wait_until_serving(member)

    def leader(self) -> Member:
        """Return the member that leads, as soon as there is one that the running members agree on."""
        found: list[Member] = []

        def agreed() -> bool:
            leaders = {self._leader_id(member) for member in self.running}
            ids = {self.member_id(member): member for member in self.running}
            found[:] = [ids[leader] for leader in leaders if leader in ids]
            return len(leaders) == 1 and len(found) == 1

        wait_for(agreed, 20.0, "one leader")
        return found[0]

    def leaders(self) -> list[Member]:
        """Return the running members that say that they lead, as things are now: none, one, or some more."""
        return [member for member in self.running if self.member_id(member) == self._leader_id(member) != 0]

    def followers(self) -> list[Member]:
        """Return the running members that do not lead."""
        leader = self.leader()
        return [member for member in self.running if member is not leader]

    @property
    def running(self) -> list[Member]:
        """The members whose processes run."""
        return [member for member in self.members if member.process is not None and member.process.poll() is None]

    def member_id(self, member: Member) -> int:
        """Return the id of *member*; 0 while it has never answered."""
        member.id = member.id or self._status(member).header.member_id
        return member.id

    def isolate(self, member: Member) -> None:
        """Cut *member* off from the others, in both directions."""
        own = f"{self.member_id(member):x}"
        for other in self.members:
            assert other.proxy is not None
            other.proxy.block([own], everybody=other is member)

    def cut(self, one: Sequence[Member], other: Sequence[Member]) -> None:
        """Cut two parts of the cluster off from each other; connections end."""
        for part, rest in ((one, other), (other, one)):
            for member in part:
                assert member.proxy is not None
                member.proxy.block([f"{self.member_id(each):x}" for each in rest])

    def silence(self, sender: Member, receivers: Sequence[Member]) -> None:
        """Let nothing of what *sender* says reach *receivers*, who are heard by it; no connection ends."""
        assert sender.proxy is not None
        sender.proxy.hold(to_members=[f"{self.member_id(each):x}" for each in receivers])
        for receiver in receivers:
            assert receiver.proxy is not None
            receiver.proxy.hold(from_members=[f"{self.member_id(sender):x}"])

    def delay(self, delay_s: float) -> None:
        """Let everything that members say to each other take so much longer."""
        for member in self.members:
            assert member.proxy is not None
            member.proxy.delay(delay_s)

    def heal(self) -> None:
        """Connect everybody with everybody, at full speed."""
        for member in self.members:
            assert member.proxy is not None
            member.proxy.block([])
            member.proxy.hold()
            member.proxy.delay(0.0)

    def wait_until_equal(self, timeout_s: float = 20.0) -> None:
        """Wait until all running members hold the same keys at the same revision."""
        wait_for(lambda: len({self._hash(member) for member in self.running}) == 1, timeout_s, "all hashes are equal")

    def mend(self) -> None:
        """Connect everybody, start who does not run, and wait until all serve and hold the same."""
        if self.proxied:
            self.heal()
        stopped = [member for member in self.members if member not in self.running]
        for member in stopped:
            member.launch()
        for member in stopped:
            self.wait_until_serving(member)
        self.leader()
        self.wait_until_equal()

    def forget(self, members: Sequence[Member]) -> None:
        """Kill *members* for ever, and configure others without them."""
        for member in members:
            member.close()
        for member in members:
            if member.proxy is not None:
                member.proxy.close()
        self.members = [member for member in self.members if member not in members]

    def revision(self) -> int:
        """Return the store's revision at the first member."""
        return self._hash(self.members[0])[2]

    def close(self) -> None:
        """Kill all members."""
        self.forget(self.members)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _leader_id(self, member: Member) -> int:
        return int(self._status(member).leader)

    def _status(self, member: Member) -> rpc_pb2.StatusResponse:
        with suppress(grpc.RpcError), connect(member.endpoint) as client:
            answer: rpc_pb2.StatusResponse = client.maintenance.Status(rpc_pb2.StatusRequest(), timeout=2.0)
            return answer
        return rpc_pb2.StatusResponse()

    def _hash(self, member: Member) -> tuple[int, int, int]:
        with suppress(grpc.RpcError), connect(member.endpoint) as client:
            answer = client.maintenance.HashKV(rpc_pb2.HashKVRequest(), timeout=5.0)
            return answer.hash, answer.compact_revision, answer.header.revision
        return (0, 0, id(member))


@contextmanager
def cluster_of(count: int, directory: Path, settings: Mapping[str, object] | None = None) -> Iterator[Cluster]:
    """A new cluster that serves, killed at the end."""
    cluster = Cluster(directory, settings=settings or {})
    try:
        cluster.found(count)
        yield cluster
    finally:
        cluster.close()


class SharedCluster:
    """A cluster for test after test, whole before each; a new one where the last test has left something else."""

    def __init__(
        self, directory: Path, programs: Sequence[Program], settings: Mapping[str, object] | None = None
    ) -> None:
        """One member for each of *programs*."""
        self._directory = directory
        self._programs = programs
        self._settings = settings or {}
        self._made: list[Cluster] = []

    def whole(self) -> Cluster:
        """Return it."""
        if self._made:
            try:
                self._made[-1].mend()
            except AssertionError:
                self.close()
            else:
                return self._made[-1]
        folder = self._directory / f"cluster{len(list(self._directory.iterdir()))}"
        self._made.append(Cluster(folder, self._programs, self._settings))
        self._made[-1].found(len(self._programs))
        return self._made[-1]

    def close(self) -> None:
        """Kill all members."""
        while self._made:
            self._made.pop().close()


class Writer:
    """Puts numbered keys one after the other, at whichever member answers, until it is stopped."""

    def __init__(self, endpoints: Sequence[str], prefix: bytes = b"w", timeout_s: float = 1.0) -> None:
        """An attempt without an answer for *timeout_s* is given up, and made at the next member."""
        self.acknowledged: dict[bytes, int] = {}
        """Revision by key."""
        self.gap_s = 0.0
        """The longest time between two acknowledgements."""
        self.failures: list[str] = []
        self._endpoints = endpoints
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._stop = threading.Event()
        # A test that fails before it stops its writer must still come to its end.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the last answer."""
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until *count* more keys are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, timeout_s, f"{count} more writes")

    def _run(self) -> None:
        last_s, number, at = time.monotonic(), 0, 0
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(endpoint)) for endpoint in self._endpoints]
            while not self._stop.is_set():
                key = self._prefix + b"%08d" % number
                try:
                    # A key of its own: put twice it is the same, so it may be tried again.
                    answer = clients[at].kv.Put(rpc_pb2.PutRequest(key=key, value=key), timeout=self._timeout_s)
                except grpc.RpcError as error:
                    self.failures.append(str(error.code()))
                    at = (at + 1) % len(clients)
                    self._stop.wait(0.01)
                    continue
                self.acknowledged[key] = answer.header.revision
                self.gap_s, last_s = max(self.gap_s, time.monotonic() - last_s), time.monotonic()
                number += 1


def expect_all(member: Member, acknowledged: Mapping[bytes, int]) -> None:
    """Assert that *member* holds every acknowledged key, not older than acknowledged."""
    with connect(member.endpoint) as client:
        answer = client.kv.Range(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), timeout=CALL_TIMEOUT_S)
    held = {kv.key: kv.mod_revision for kv in answer.kvs}
    lost = [key for key, revision in acknowledged.items() if held.get(key, 0) < revision]
    assert not lost, (member.name, len(lost), lost[:3])


def members_of(member: Member) -> list[Any]:
    """Return the members of the cluster, as one of them says."""
    with connect(member.endpoint) as client:
        return list(client.cluster.MemberList(rpc_pb2.MemberListRequest(), timeout=CALL_TIMEOUT_S).members)


def put_many(member: Member, count: int, in_flight: int = 100) -> None:
    """Put *count* keys, many at a time."""
    puts: deque[Any] = deque()  # of futures
    with connect(member.endpoint) as client:
        for number in range(count):
            if len(puts) == in_flight:
                puts.popleft().result()
            request = rpc_pb2.PutRequest(key=b"many%08d" % number, value=b"v")
            puts.append(client.kv.Put.future(request, timeout=CALL_TIMEOUT_S))
        for put in puts:
            put.result()
