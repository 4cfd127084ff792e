"""`actcd grpc-proxy start` in front of etcd and of actcd, beside etcd's own proxy."""

import http
import json
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from proto import lock_pb2, rpc_pb2
from tests.e2e.auth_client import CHEAP
from tests.e2e.client import CALL_TIMEOUT_S, Stubs, connect
from tests.e2e.cluster import cluster_of
from tests.e2e.conftest import MakeServer
from tests.e2e.grpc_proxies import GrpcProxy, actcd_proxy, etcd_proxy, proxying
from tests.e2e.harness import (
    ROOT,
    SHORT_TIMEOUTS,
    Server,
    actcd,
    real_etcd,
    run_etcdctl,
    running,
    running_together,
    wait_for,
)
from tests.e2e.test_etcdctl import SCRIPTS, Session, Step

pytestmark = pytest.mark.e2e

HAS_LEADER: Final = (("hasleader", "true"),)
RICHER: Final = ("member promote 1234",)
"""What etcd's proxy does not do."""

_HIDDEN: Final = (
    (re.compile(r"code = \w+ desc"), "code = CODE desc"),  # etcd's proxy makes Unknown of most
    (re.compile(r"http://127\.0\.0\.1:\d+"), "CLIENT-URL"),
)


def alike(outcome: tuple[int, str, str]) -> tuple[int, str, str]:
    """Return an outcome without what must differ between proxies."""
    code, out, err = outcome
    for pattern, name in _HIDDEN:
        out, err = pattern.sub(name, out), pattern.sub(name, err)
    return code, out, err


def outcome(step: Step, session: Session) -> tuple[int, str, str]:
    """Return what etcdctl did in one step."""
    return alike(session.run(step, 1))


@pytest.mark.parametrize("name", SCRIPTS)
def test_etcdctl_sees_no_difference(tmp_path: Path, name: str) -> None:
    """Every command group prints the same through this proxy, before etcd and before actcd, as through etcd's."""
    with ExitStack() as stack:
        sessions = []
        pairs = [(real_etcd(), etcd_proxy()), (real_etcd(), actcd_proxy())]
        if name != "auth":  # dozens of passwords to hash, and test_auth has the same
            pairs.append((actcd(), actcd_proxy()))
        servers = [Server(behind, tmp_path / f"server{number}", CHEAP) for number, (behind, _) in enumerate(pairs)]
        stack.enter_context(running_together(*servers))
        for number, (server, (_, program)) in enumerate(zip(servers, pairs, strict=True)):
            folder = tmp_path / f"proxy{number}"
            sessions.append(
                Session(stack.enter_context(proxying(program, folder, [server], "--advertise-client-url=")))
            )
        beside = stack.enter_context(ThreadPoolExecutor(len(sessions)))
        for step in SCRIPTS[name]:
            if step in RICHER:
                continue
            reference, *subjects = beside.map(partial(outcome, step), sessions)
            for subject in subjects:
                assert subject == reference, f"etcdctl {step}"


class Watching:
    """A watch call whose answers are read on a thread."""

    def __init__(self, stubs: Stubs, *requests: rpc_pb2.WatchRequest, metadata: Any = ()) -> None:
        self._requests: queue.Queue[rpc_pb2.WatchRequest | None] = queue.Queue()
        for request in requests:
            self._requests.put(request)
        self.call = stubs.watch.Watch(iter(self._requests.get, None), metadata=metadata)
        self.answers: list[rpc_pb2.WatchResponse] = []
        self.error: grpc.RpcError | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, request: rpc_pb2.WatchRequest) -> None:
        self._requests.put(request)

    def _read(self) -> None:
        try:
            for answer in self.call:
                self.answers.append(answer)
        except grpc.RpcError as error:
            self.error = error

    @property
    def values(self) -> list[bytes]:
        return [event.kv.value for answer in list(self.answers) for event in answer.events]

    def close(self) -> None:
        self._requests.put(None)
        self.call.cancel()
        self._thread.join(CALL_TIMEOUT_S)


def created(key: bytes, **fields: Any) -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key, **fields))


def put(stubs: Stubs, key: bytes, value: bytes, metadata: Any = ()) -> int:
    answer = stubs.kv.Put(rpc_pb2.PutRequest(key=key, value=value), timeout=CALL_TIMEOUT_S, metadata=metadata)
    return int(answer.header.revision)


def serializable(stubs: Stubs, key: bytes, metadata: Any = ()) -> list[bytes]:
    request = rpc_pb2.RangeRequest(key=key, serializable=True)
    return [pair.value for pair in stubs.kv.Range(request, timeout=CALL_TIMEOUT_S, metadata=metadata).kvs]


@contextmanager
def watching(stubs: Stubs, *requests: rpc_pb2.WatchRequest, metadata: Any = ()) -> Iterator[Watching]:
    watch = Watching(stubs, *requests, metadata=metadata)
    try:
        yield watch
    finally:
        watch.close()


def test_many_watchers_cost_the_member_one(tmp_path: Path, etcd: Server) -> None:
    """The member's own count shows it; each client still gets exactly what it asked for."""
    with ExitStack() as stack:
        proxy = stack.enter_context(proxying(actcd_proxy(), tmp_path / "proxy", [etcd]))
        before = etcd.metric("etcd_debugging_mvcc_watcher_total")
        stubs = stack.enter_context(connect(proxy.endpoint))
        first = put(stubs, b"w", b"1")
        watches = [stack.enter_context(watching(stubs, created(b"w"))) for _ in range(20)]
        past = stack.enter_context(watching(stubs, created(b"w", start_revision=first, prev_kv=True)))
        wait_for(lambda: all(each.answers for each in [*watches, past]), 10.0, "all are created")
        put(stubs, b"w", b"2")
        wait_for(lambda: all(each.values == [b"2"] for each in watches), 10.0, "all got the event")
        wait_for(lambda: past.values == [b"1", b"2"], 10.0, "history, then the present")
        assert past.answers[-1].events[-1].prev_kv.value == b"1"
        wait_for(lambda: etcd.metric("etcd_debugging_mvcc_watcher_total") - before <= 2, 5.0, "they are shared")
        put(stubs, b"w", b"3")
        wait_for(lambda: past.values == [b"1", b"2", b"3"], 10.0, "the one of the past goes on among the others")
        wait_for(lambda: etcd.metric("etcd_debugging_mvcc_watcher_total") - before == 1, 5.0, "it has joined them")
        assert proxy.metric("etcd_grpc_proxy_watchers_coalescing_total") == 20
        assert proxy.metric("etcd_grpc_proxy_events_coalescing_total") >= 19
        past.send(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
        wait_for(lambda: past.answers[-1].watch_id == -1, 10.0, "its progress is told")
        past.send(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=0)))
        wait_for(lambda: past.answers[-1].canceled, 10.0, "it is canceled")
        for watch in watches:
            watch.close()
        wait_for(lambda: etcd.metric("etcd_debugging_mvcc_watcher_total") == before, 10.0, "nothing is left behind")


def test_bad_watch_requests_get_a_members_answers(tmp_path: Path, etcd: Server) -> None:
    """The same id, flags and reasons as from the member itself; the stream goes on."""
    bad = (
        created(b"b", range_end=b"a"),
        created(b"k", watch_id=7),
        created(b"k", watch_id=7),
        rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=99)),
        created(b""),
    )

    def answers(endpoint: str) -> list[tuple[int, bool, bool, str]]:
        with connect(endpoint) as stubs, watching(stubs, *bad) as watch:
            wait_for(lambda: len(watch.answers) == 4, 10.0, "all are answered")
            return [(each.watch_id, each.created, each.canceled, each.cancel_reason) for each in watch.answers]

    with proxying(actcd_proxy(), tmp_path / "proxy", [etcd]) as proxy:
        assert answers(proxy.endpoint) == answers(etcd.endpoint)


def test_cached_reads_and_who_may_have_them(tmp_path: Path, make_server: MakeServer) -> None:
    """Serializable reads come from the cache until a write through the proxy; nobody gets what another may read."""
    server = make_server(real_etcd(), SHORT_TIMEOUTS)
    with proxying(actcd_proxy(), tmp_path / "proxy", [server]) as proxy, connect(proxy.endpoint) as stubs:
        put(stubs, b"k", b"1")
        assert [serializable(stubs, b"k") for _ in range(3)] == [[b"1"]] * 3
        assert proxy.metric("etcd_grpc_proxy_cache_hits_total") == 2
        assert proxy.metric("etcd_grpc_proxy_cache_keys_total") == 1
        put(stubs, b"k", b"2")
        assert serializable(stubs, b"k") == [b"2"]
        for words in (
            "user add root:p",
            "user add reader:p",
            "role add root",
            "role add all",
            "role grant-permission all read k",
            "user grant-role root root",
            "user grant-role reader all",
            "auth enable",
        ):
            assert run_etcdctl(proxy, *words.split()).returncode == 0, words
        with pytest.raises(grpc.RpcError, match="user name is empty"):
            serializable(stubs, b"k")
        login = rpc_pb2.AuthenticateRequest(name="reader", password="p")
        reader = (("token", stubs.auth.Authenticate(login, timeout=CALL_TIMEOUT_S).token),)
        assert serializable(stubs, b"k", reader) == [b"2"]
        with pytest.raises(grpc.RpcError, match="user name is empty"):
            serializable(stubs, b"k")
        with (
            watching(stubs, created(b"k"), metadata=reader) as allowed,
            watching(stubs, created(b"other"), metadata=reader) as beyond,
            watching(stubs, created(b"k")) as nobody,
        ):
            wait_for(lambda: bool(allowed.answers and beyond.answers and nobody.answers), 10.0, "all are answered")
            assert (allowed.answers[0].created, allowed.answers[0].canceled) == (True, False)
            assert [(each.watch_id, each.created, each.canceled) for each in nobody.answers] == [(-1, True, True)]
            assert "user name is empty" in nobody.answers[0].cancel_reason
            assert "permission denied" in beyond.answers[0].cancel_reason


def test_a_namespace_is_a_keyspace_of_its_own(tmp_path: Path, server: Server) -> None:
    """Keys, watches, transactions, leases and locks live below the prefix, and nothing else is seen."""
    with (
        proxying(actcd_proxy(), tmp_path / "proxy", [server], "--namespace=ns/") as proxy,
        connect(proxy.endpoint) as inside,
        connect(server.endpoint) as outside,
    ):
        put(outside, b"nt", b"others'")
        lease = inside.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60), timeout=CALL_TIMEOUT_S).ID
        outside.kv.Put(rpc_pb2.PutRequest(key=b"mine", lease=lease), timeout=CALL_TIMEOUT_S)
        with watching(inside, created(b"\0", range_end=b"\0")) as watch:
            wait_for(lambda: bool(watch.answers), 10.0, "it is created")
            txn = "\nput a one --lease=%x\nput b two\n\n\n"
            assert run_etcdctl(proxy, "txn", stdin=txn % lease).returncode == 0
            wait_for(lambda: watch.values == [b"one", b"two"], 10.0, "both puts are told")
            assert [event.kv.key for event in watch.answers[-1].events] == [b"a", b"b"]
        keys = inside.kv.Range(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), timeout=CALL_TIMEOUT_S).kvs
        assert [pair.key for pair in keys] == [b"a", b"b"]
        held = inside.lease.LeaseTimeToLive(rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True), timeout=CALL_TIMEOUT_S)
        assert list(held.keys) == [b"a"]
        assert [pair.value for pair in outside.kv.Range(rpc_pb2.RangeRequest(key=b"ns/a"), timeout=10.0).kvs] == [
            b"one"
        ]
        locked = inside.lock.Lock(lock_pb2.LockRequest(name=b"l", lease=lease), timeout=CALL_TIMEOUT_S)
        assert locked.key == b"l/%x" % lease
        with pytest.raises(grpc.RpcError) as waited:  # and a client that gives up is taken out of the queue
            inside.lock.Lock(lock_pb2.LockRequest(name=b"l"), timeout=0.5)
        assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        queue_of = rpc_pb2.RangeRequest(key=b"ns/l/", range_end=b"ns/l0", count_only=True)
        wait_for(lambda: outside.kv.Range(queue_of, timeout=10.0).count == 1, 10.0, "only the holder is left")
        inside.lock.Unlock(lock_pb2.UnlockRequest(key=locked.key), timeout=CALL_TIMEOUT_S)
        assert outside.kv.Range(queue_of, timeout=CALL_TIMEOUT_S).count == 0


def test_keep_alives_of_many_clients_reach_the_member_once(tmp_path: Path, server: Server) -> None:
    """Each client gets an answer to each of its requests, of a lease that lives and of one that is none."""
    with proxying(actcd_proxy(), tmp_path / "proxy", [server]) as proxy, connect(proxy.endpoint) as stubs:
        lease = stubs.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60), timeout=CALL_TIMEOUT_S).ID
        requests = [rpc_pb2.LeaseKeepAliveRequest(ID=each) for each in (lease, 4711, lease)]
        calls = [stubs.lease.LeaseKeepAlive(iter(requests), timeout=CALL_TIMEOUT_S) for _ in range(10)]
        for call in calls:
            assert sorted((answer.ID, answer.TTL) for answer in call) == sorted([(lease, 60), (4711, 0), (lease, 60)])
        renewed = server.metric("etcd_debugging_lease_renewed_total")
        assert 1 <= renewed <= 20, "twenty were asked for"


def test_a_lost_member_is_replaced(tmp_path: Path) -> None:
    """Calls, watchers and keep-alives go on at another member; what is acknowledged is told once, in order."""
    with (
        cluster_of(3, tmp_path / "cluster") as cluster,
        proxying(actcd_proxy(), tmp_path / "proxy", cluster.members, "--experimental-serializable-ordering") as proxy,
        connect(proxy.endpoint) as stubs,
    ):
        lease = stubs.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60), timeout=CALL_TIMEOUT_S).ID
        with watching(stubs, created(b"w")) as watch, watching(stubs, created(b"w"), metadata=HAS_LEADER) as led:
            wait_for(lambda: bool(watch.answers and led.answers), 10.0, "they are created")
            acknowledged = 0
            for killed in (None, *cluster.followers()[:1]):
                if killed is not None:
                    killed.kill()
                for _ in range(20):
                    put(stubs, b"w", b"%d" % acknowledged)
                    acknowledged += 1
                    assert serializable(stubs, b"w") == [b"%d" % (acknowledged - 1)], "older than what was read"
                renewal = stubs.lease.LeaseKeepAlive(iter([rpc_pb2.LeaseKeepAliveRequest(ID=lease)]), timeout=10.0)
                assert [answer.TTL for answer in renewal] == [60]
            expected = [b"%d" % number for number in range(acknowledged)]
            wait_for(lambda: watch.values == expected and led.values == expected, 15.0, "every put is told once")
            cluster.running[0].kill()
            wait_for(lambda: led.error is not None, 30.0, "whoever wants a leader hears that there is none")
            assert led.error is not None
            assert led.error.code() is grpc.StatusCode.UNAVAILABLE
            assert watch.error is None


def test_proxies_find_each_other(tmp_path: Path, etcd: Server) -> None:
    """Clients are sent to the proxies in place of the members; etcd's and actcd's know each other, and who has gone."""
    flags = ("--resolver-prefix=proxies", "--resolver-ttl=2")
    with ExitStack() as stack:
        proxies: list[GrpcProxy] = []
        for number, program in enumerate((actcd_proxy(), etcd_proxy())):
            proxy = GrpcProxy(program, tmp_path / f"proxy{number}", behind=[etcd.endpoint])
            proxy.flags = (*flags, f"--advertise-client-url={proxy.endpoint}")
            stack.callback(proxy.close)
            proxy.start()
            proxies.append(proxy)

        def listed(proxy: GrpcProxy) -> list[str]:
            members = json.loads(run_etcdctl(proxy, "member", "list", "-w", "json").stdout)["members"]
            return sorted(url for member in members for url in member["clientURLs"])

        both = sorted(proxy.endpoint for proxy in proxies)
        for proxy in proxies:
            wait_for(lambda proxy=proxy: listed(proxy) == both, 15.0, "both are listed")  # type: ignore[misc]
        proxies[1].kill()
        wait_for(lambda: listed(proxies[0]) == [proxies[0].endpoint], 15.0, "the one that is gone is forgotten")
        assert proxies[0].end() == -signal.SIGTERM
        left = run_etcdctl(etcd, "get", "proxies", "--prefix", "--keys-only")
        assert left.stdout == "", "one that leaves in order gives its lease back"


def test_proxies_that_own_keys_stay_linearizable(tmp_path: Path, server: Server) -> None:
    """A write through any proxy is seen by the next read through any other; actcd's and etcd's own may be mixed.

    Reads of a key that is owned do not reach the member.
    """
    flag = "--experimental-leasing-prefix=leases/"
    with ExitStack() as stack:
        programs = (actcd_proxy(), actcd_proxy(), etcd_proxy())
        proxies = [
            stack.enter_context(proxying(program, tmp_path / f"proxy{number}", [server], flag))
            for number, program in enumerate(programs)
        ]
        stubs = [stack.enter_context(connect(proxy.endpoint)) for proxy in proxies]
        member = stack.enter_context(connect(server.endpoint))

        def read(each: Stubs, key: bytes = b"own/k") -> bytes:
            answer = each.kv.Range(rpc_pb2.RangeRequest(key=key), timeout=CALL_TIMEOUT_S)
            return answer.kvs[0].value if answer.kvs else b""

        def owners() -> set[bytes]:
            answer = member.kv.Range(rpc_pb2.RangeRequest(key=b"leases/", range_end=b"leases0"), timeout=CALL_TIMEOUT_S)
            return {kv.key for kv in answer.kvs}

        def owned() -> bool:
            return read(stubs[0]) == b"" and b"leases/own/k" in owners()

        wait_for(owned, CALL_TIMEOUT_S, "the key is owned")
        for number in range(12):
            value = b"%d" % number
            put(stubs[number % 3], b"own/k", value)
            assert [read(each) for each in (*stubs, member)] == [value] * 4
        removed = stubs[1].kv.DeleteRange(
            rpc_pb2.DeleteRangeRequest(key=b"own/", range_end=b"own0"), timeout=CALL_TIMEOUT_S
        )
        assert (removed.deleted, [read(each) for each in stubs]) == (1, [b""] * 3)
        swap = rpc_pb2.TxnRequest(
            compare=[rpc_pb2.Compare(target=rpc_pb2.Compare.CREATE, key=b"own/k", create_revision=0)],
            success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"own/k", value=b"swapped"))],
        )
        assert stubs[0].kv.Txn(swap, timeout=CALL_TIMEOUT_S).succeeded
        assert not stubs[2].kv.Txn(swap, timeout=CALL_TIMEOUT_S).succeeded
        assert [read(each) for each in stubs] == [b"swapped"] * 3

        wait_for(
            lambda: read(stubs[0], b"own/mine") == b"" and b"leases/own/mine" in owners(),
            CALL_TIMEOUT_S,
            "it is owned, too",
        )
        read(stubs[0], b"own/mine")

        before, answered = (server.metric("etcd_mvcc_range_total"), proxies[0].metric("actcd_proxy_leased_reads_total"))
        for _ in range(50):
            read(stubs[0], b"own/mine")
        assert server.metric("etcd_mvcc_range_total") - before < 10  # pages of health and the like
        assert proxies[0].metric("actcd_proxy_leased_reads_total") - answered >= 50
        assert proxies[0].metric("actcd_proxy_leased_keys") >= 1

        done = threading.Event()
        finished: list[int] = [0]
        faults: list[str] = []

        def follow(each: Stubs) -> None:
            while not done.is_set():
                least = finished[0]
                found = int(read(each, b"own/counter") or b"0")
                if found < least:
                    faults.append(f"read {found} after {least} was written")

        readers = [threading.Thread(target=follow, args=(each,)) for each in stubs]
        for reader in readers:
            reader.start()
        for number in range(1, 60):
            put(stubs[number % 2], b"own/counter", b"%d" % number)
            finished[0] = number
        done.set()
        for reader in readers:
            reader.join(CALL_TIMEOUT_S)
        assert faults == []
        assert proxies[0].end() == -signal.SIGTERM
        put(stubs[1], b"own/mine", b"at once")  # whoever stops gives back what it owned
        assert read(stubs[2], b"own/mine") == b"at once"


def test_pages(tmp_path: Path, make_server: MakeServer) -> None:
    """As at etcd's proxy, on the own listener and on a further one; and the cluster's health is what it is."""
    server = make_server(real_etcd(), SHORT_TIMEOUTS)
    pages = ("/health", "/proxy/health", "/version", "/nothing")
    with ExitStack() as stack:
        subject, reference = (
            stack.enter_context(proxying(program, tmp_path / f"proxy{number}", [server]))
            for number, program in enumerate((actcd_proxy(), etcd_proxy()))
        )
        for path in pages:
            if path != "/proxy/health":  # etcd's dials where it is advertised, which here is somewhere else
                assert subject.page(path) == reference.page(path), path
            else:
                assert subject.page(path) == (http.HTTPStatus.OK, b'{"health":"true","reason":""}')
        assert subject.page("/health", "POST")[0] == reference.page("/health", "POST")[0]
        assert b"etcd_server_has_leader 1" in subject.page("/metrics")[1]
        names = re.compile(rb"^# TYPE (etcd_grpc_proxy\w+ \w+)", re.MULTILINE)
        assert names.findall(subject.page("/proxy/metrics")[1]) == names.findall(reference.page("/proxy/metrics")[1])
        server.kill()
        status, body = subject.page("/health")
        assert (status, json.loads(body)["health"]) == (http.HTTPStatus.SERVICE_UNAVAILABLE, "false")
        assert subject.page("/metrics")[0] == http.HTTPStatus.INTERNAL_SERVER_ERROR
        with connect(subject.endpoint) as stubs, pytest.raises(grpc.RpcError) as refused:
            stubs.kv.Put(rpc_pb2.PutRequest(key=b"k"), timeout=2.0)
        assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert subject.end() == -signal.SIGTERM


def test_bad_input_is_refused(tmp_path: Path, server: Server) -> None:
    """Junk in messages and metadata, and messages that are too large, get an error each, and nobody else notices."""
    with (
        proxying(actcd_proxy(), tmp_path / "proxy", [server], "--namespace=n", "--max-send-bytes=1000") as proxy,
        grpc.insecure_channel(proxy.endpoint) as channel,
        connect(proxy.endpoint) as stubs,
    ):
        for path in ("KV/Range", "KV/Txn", "Lease/LeaseTimeToLive", "Cluster/MemberList"):
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/etcdserverpb.{path}")
            with pytest.raises(grpc.RpcError) as refused:
                unary(b"\xff\xff\xff", timeout=CALL_TIMEOUT_S)
            assert refused.value.code() is grpc.StatusCode.INTERNAL, path
        for path in ("Watch/Watch", "Lease/LeaseKeepAlive", "KV/RangeStream"):
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/etcdserverpb.{path}")
            with pytest.raises(grpc.RpcError) as refused:
                list(stream(iter([b"\xff\xff\xff"]), timeout=CALL_TIMEOUT_S))
            assert refused.value.code() is grpc.StatusCode.INTERNAL, path
        with pytest.raises(grpc.RpcError, match="trying to send message larger than max"):
            put(stubs, b"k", bytes(2000))
        nothing: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/etcdserverpb.KV/Nothing")
        with pytest.raises(grpc.RpcError, match="unknown method"):
            nothing(b"", timeout=CALL_TIMEOUT_S)
        assert put(stubs, b"k", b"v") > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["start", "--nope"], "unknown flag: --nope"),
        (["start", "--resolver-ttl=5"], 'invalid resolver-prefix ""'),
        (["start", "--listen-addr=127.0.0.1:99999"], "invalid port"),
        (["start", "--cacert=/nowhere"], "open /nowhere: no such file or directory"),
    ],
)
def test_bad_flags_end_the_start(arguments: list[str], text: str) -> None:
    """With exit code 1 and a sentence, as etcd's proxy."""
    command = [*actcd_proxy().command[:-1], *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60.0, check=False)
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr


def test_an_old_proxys_configuration_still_serves(tmp_path: Path, server: Server) -> None:
    """It asks the peers where clients are served; a readonly one refuses to write, in words, and reads on."""
    proxy = Server(
        actcd(),
        tmp_path / "proxy",
        {
            "proxy": "readonly",
            "initial-cluster": str(server.config()["initial-cluster"]),
            "log-level": "info",
        },
        name="old",
    )
    with running(proxy), connect(proxy.endpoint) as stubs, connect(server.endpoint) as member:
        put(member, b"old", b"1")
        assert serializable(stubs, b"old") == [b"1"]
        with pytest.raises(grpc.RpcError, match="this proxy only reads") as refused:
            put(stubs, b"old", b"2")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError, match="this proxy only reads"):
            stubs.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60), timeout=CALL_TIMEOUT_S)
        assert "the gRPC proxy runs in its place" in proxy.log_tail()
