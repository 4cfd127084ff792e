"""Snapshots between actcd and the real etcd, both ways: what is restored answers every request as its origin did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from proto.auth_pb2 import Permission
from proto.rpc_pb2 import (
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest,
    AuthStatusRequest,
    AuthUserAddRequest,
    AuthUserGetRequest,
    AuthUserGrantRoleRequest,
    CompactionRequest,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    SnapshotRequest,
    StatusRequest,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)
from storage.bbolt.pages import TRAILER_SIZE_BYTES
from storage.bbolt.reader import BoltFile
from tests.e2e.client import CALL_TIMEOUT_S, CHANNEL_OPTIONS, Stubs, connect, stubs
from tests.e2e.harness import ROOT, SHORT_TIMEOUTS, Program, Server, actcd, etcd_tool, real_etcd, run_etcdctl, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

EVERY_KEY: Final = b"\x00"
COMPACTED: Final = 40
LONG_TTL_S: Final = 5000
SLOW_CLIENT_MEMORY_BYTES_MAX: Final = 24 << 20

PROGRAMS: Final = {"actcd": actcd, "etcd": real_etcd}
MAKERS: Final = ("actcd", "etcd")


def run_actcd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of actcd; the caller looks at the return code."""
    return _run([sys.executable, "-m", "daemon", *arguments])


def run_etcdutl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run etcdutl 3.5.1; the caller looks at the return code."""
    return _run([etcd_tool("etcdutl"), *arguments])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60.0, check=False)


def fill(client: Stubs) -> None:
    """Write all that a snapshot has to carry: versions, deletes, leases, large and odd keys, a compaction, a user."""
    for lease in (7, 1 << 62):
        client.lease.LeaseGrant(LeaseGrantRequest(ID=lease, TTL=LONG_TTL_S))
    put = client.kv.Put
    for number in range(60):
        put(PutRequest(key=b"k/%d" % (number % 20), value=b"v%d" % number, lease=7 if number % 20 == 3 else 0))
    client.kv.DeleteRange(DeleteRangeRequest(key=b"k/1", range_end=b"k/13"))
    put(PutRequest(key=b"k/10", value=b"again", lease=1 << 62))
    for size_bytes in (4070, 9000, 1_000_000):
        put(PutRequest(key=b"large/%d" % size_bytes, value=bytes([size_bytes % 251]) * size_bytes))
    put(PutRequest(key=b"\x00\xff", value=b""))
    put(PutRequest(key=b"\xff" * 300, value=b"odd"))
    operations = [RequestOp(request_put=PutRequest(key=b"t/%d" % number, value=b"one")) for number in range(100)]
    client.kv.Txn(TxnRequest(success=operations))
    client.kv.Compact(CompactionRequest(revision=COMPACTED, physical=True))
    client.auth.RoleAdd(AuthRoleAddRequest(name="reader"))
    permission = Permission(permType=Permission.READ, key=b"k/", range_end=b"k0")
    client.auth.RoleGrantPermission(AuthRoleGrantPermissionRequest(name="reader", perm=permission))
    client.auth.UserAdd(AuthUserAddRequest(name="rita", password="secret of rita"))
    client.auth.UserGrantRole(AuthUserGrantRoleRequest(user="rita", role="reader"))


def keys_state(client: Stubs) -> dict[str, Any]:
    """All that a client can ask about the keys, at all revisions."""
    now = client.kv.Range(RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY))
    revision = now.header.revision
    requests = {
        at: RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY, revision=at) for at in range(COMPACTED, revision + 1)
    }
    hashes = [client.maintenance.HashKV(HashKVRequest(revision=at)) for at in (0, COMPACTED + 1, revision - 1)]
    return {
        "revision": revision,
        "ranges": {at: list(client.kv.Range(request).kvs) for at, request in requests.items()},
        "hashes": [(found.hash, found.compact_revision) for found in hashes],
    }


def state(client: Stubs) -> dict[str, Any]:
    """All that a client can ask about keys, leases, users and roles."""
    lease_ids = sorted(lease.ID for lease in client.lease.LeaseLeases(LeaseLeasesRequest()).leases)
    leases = [client.lease.LeaseTimeToLive(LeaseTimeToLiveRequest(ID=lease, keys=True)) for lease in lease_ids]
    return {
        **keys_state(client),
        "leases": [(lease.ID, lease.grantedTTL, sorted(lease.keys)) for lease in leases],
        "auth revision": client.auth.AuthStatus(AuthStatusRequest()).authRevision,
        "roles of rita": list(client.auth.UserGet(AuthUserGetRequest(name="rita")).roles),
        "permissions of reader": list(client.auth.RoleGet(AuthRoleGetRequest(role="reader")).perm),
    }


def own_memory_bytes(server: Server) -> int:
    """Memory of the process itself, without the files that it has mapped, which the kernel may drop."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {server.pid} has no RssAnon line")


def saved(server: Server, path: Path) -> Path:
    """A snapshot of *server*, made by etcdctl."""
    done = run_etcdctl(server, "snapshot", "save", str(path))
    assert done.returncode == 0, done.stderr
    return path


def restored(
    program: Program, snapshot: Path, directory: Path, *flags: str, expect_code: int = 0
) -> tuple[Server, subprocess.CompletedProcess[str]]:
    """A server whose data directory the program's own tool made from *snapshot*; not started."""
    server = Server(program, directory, {**SHORT_TIMEOUTS, "data-dir": str(directory / "restored")})
    directory.mkdir()
    config = server.config()
    tool: Callable[..., subprocess.CompletedProcess[str]] = run_actcd if program.name == "actcd" else run_etcdutl
    done = tool(
        *("snapshot", "restore", str(snapshot), f"--data-dir={server.data_dir}"),
        f"--initial-cluster={config['initial-cluster']}",
        f"--initial-advertise-peer-urls={config['initial-advertise-peer-urls']}",
        *flags,
    )
    assert done.returncode == expect_code, done.stderr
    return server, done


@pytest.fixture(scope="module", params=MAKERS)
def origin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A filled server of each kind, with a snapshot that etcdctl made of it."""
    directory = tmp_path_factory.mktemp(f"origin-{request.param}")
    with running(Server(PROGRAMS[request.param](), directory, SHORT_TIMEOUTS)) as server:
        with connect(server.endpoint) as client:
            fill(client)
        saved(server, directory / "backup.db")
        yield server


@pytest.mark.parametrize("taker", MAKERS)
def test_a_restored_server_answers_as_its_origin(origin: Server, tmp_path: Path, taker: str) -> None:
    """Keys at every revision, leases with their keys, and hashes are equal, whoever made and whoever restored it."""
    server, _ = restored(PROGRAMS[taker](), origin.directory / "backup.db", tmp_path / "taker")
    with running(server), connect(server.endpoint) as client, connect(origin.endpoint) as before:
        assert state(client) == state(before)
        written = client.kv.Put(PutRequest(key=b"k/3", value=b"after")).header.revision
        assert written == state(before)["revision"] + 1


def test_status_agrees_with_etcdutl(origin: Server) -> None:
    """Both tools find the same hash, revision and size, so that operators may use either."""
    path = str(origin.directory / "backup.db")
    ours, theirs = (
        run_actcd("snapshot", "status", path, "-w", "json"),
        run_etcdutl("snapshot", "status", path, "-w", "json"),
    )
    assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
    found, expected = json.loads(ours.stdout), json.loads(theirs.stdout)
    assert {name: found[name] for name in ("hash", "revision", "totalSize")} == {
        name: expected[name] for name in ("hash", "revision", "totalSize")
    }
    with connect(origin.endpoint) as client:
        assert (
            found["totalKey"]
            == client.kv.Range(RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY, count_only=True)).count
        )


def test_both_tools_restore_the_same_member(origin: Server, tmp_path: Path) -> None:
    """Ids come from names, addresses and token alone, so that members restored by different tools find each other."""
    listed = []
    path = origin.directory / "backup.db"
    for name in MAKERS:
        server, _ = restored(PROGRAMS[name](), path, tmp_path / name, "--initial-cluster-token=moved")
        with running(server), connect(server.endpoint) as client:
            answer = client.cluster.MemberList(MemberListRequest())
            listed.append((server.config()["initial-cluster"], answer))
            assert [member.name for member in answer.members] == ["default"]
            assert client.maintenance.Status(StatusRequest()).leader == answer.members[0].ID
    # The peer ports differ, so the ids are held against what each tool must derive from them.
    for initial_cluster, answer in listed:
        done = run_actcd(
            *("snapshot", "restore", str(path), f"--data-dir={tmp_path / f'{answer.header.member_id}'}"),
            *(f"--initial-cluster={initial_cluster}", "--initial-cluster-token=moved"),
            f"--initial-advertise-peer-urls={str(initial_cluster).partition('=')[2]}",
        )
        assert f"member {answer.members[0].ID:x} of cluster {answer.header.cluster_id:x}" in done.stdout


def test_a_raised_revision_is_seen_by_watchers(origin: Server, tmp_path: Path) -> None:
    """Clients that saw revisions later than the snapshot must not wait in vain: they are told of a compaction."""
    bump = 1_000_000
    with connect(origin.endpoint) as client:
        before = state(client)
    flags = (f"--bump-revision={bump}", "--mark-compacted")
    server, _ = restored(actcd(), origin.directory / "backup.db", tmp_path / "bumped", *flags)
    with running(server), connect(server.endpoint) as client:
        now = client.kv.Range(RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY))
        assert now.header.revision == before["revision"] + bump
        assert list(now.kvs) == before["ranges"][before["revision"]]
        request = WatchRequest(
            create_request=WatchCreateRequest(key=EVERY_KEY, range_end=EVERY_KEY, start_revision=before["revision"] + 5)
        )
        answers = client.watch.Watch(iter([request]), timeout=CALL_TIMEOUT_S)
        assert next(answers).created
        assert next(answers).compact_revision == before["revision"] + bump
        answers.cancel()
        client.kv.Put(PutRequest(key=b"after", value=b"v"))
        bumped = [
            client.maintenance.HashKV(HashKVRequest()).hash,
            list(client.kv.Range(RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY)).kvs),
        ]
        path = saved(server, tmp_path / "bumped.db")
    taker, _ = restored(real_etcd(), path, tmp_path / "etcd")
    with running(taker), connect(taker.endpoint) as client:
        assert [
            client.maintenance.HashKV(HashKVRequest()).hash,
            list(client.kv.Range(RangeRequest(key=EVERY_KEY, range_end=EVERY_KEY)).kvs),
        ] == bumped


@pytest.mark.parametrize("programs", [("actcd", "actcd", "actcd"), ("etcd", "etcd", "actcd")])
def test_a_whole_cluster_is_restored(origin: Server, tmp_path: Path, programs: tuple[str, ...]) -> None:
    """After the loss of a cluster each member is restored by itself from one file, and they come to be one cluster."""
    servers = [
        Server(PROGRAMS[program](), tmp_path / name, SHORT_TIMEOUTS, name=name)
        for program, name in zip(programs, ("one", "two", "three"), strict=True)
    ]
    urls = {server.name: server.config()["listen-peer-urls"] for server in servers}
    cluster = ",".join(f"{name}={url}" for name, url in urls.items())
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
            server.settings = {**SHORT_TIMEOUTS, "initial-cluster": cluster, "initial-cluster-token": "again"}
            tool = run_actcd if server.program.name == "actcd" else run_etcdutl
            done = tool(
                *("snapshot", "restore", str(origin.directory / "backup.db"), f"--data-dir={server.data_dir}"),
                *(f"--name={server.name}", f"--initial-advertise-peer-urls={urls[server.name]}"),
                *(f"--initial-cluster={cluster}", "--initial-cluster-token=again"),
            )
            assert done.returncode == 0, done.stderr
            server.launch()
        clients = [stack.enter_context(connect(server.endpoint)) for server in servers]
        with connect(origin.endpoint) as before:
            expected = keys_state(before)
        for client in clients:
            request = RangeRequest(key=b"k/3")
            assert client.kv.Range(request, timeout=CALL_TIMEOUT_S, wait_for_ready=True).header.revision
            assert keys_state(client) == expected
        clients[0].kv.Put(PutRequest(key=b"k/3", value=b"again one cluster"))
        for client in clients:
            assert client.kv.Range(RangeRequest(key=b"k/3")).kvs[0].value == b"again one cluster"
        assert len({client.maintenance.HashKV(HashKVRequest()).hash for client in clients}) == 1


@pytest.mark.parametrize("engine", ["native", "grpcio"])
def test_writes_go_on_and_do_not_show(tmp_path: Path, engine: str) -> None:
    """A client that reads its snapshot slowly gets one moment of the store, and costs the server little memory."""
    value = os.urandom(1 << 16)
    engine_setting = {"engine": engine} if actcd().name == "actcd" else {}
    server = Server(actcd(), tmp_path / "actcd", {**SHORT_TIMEOUTS, **engine_setting})
    with closing(server), connect(server.endpoint) as client:
        server.launch()  # not start(), since grpcio serves no /health
        client.kv.Range(RangeRequest(key=b"k"), timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        for hundred in range(0, 1000, 100):
            requests = [PutRequest(key=b"k%d" % number, value=value) for number in range(hundred, hundred + 100)]
            for put in [client.kv.Put.future(request) for request in requests]:
                put.result()
        revision = client.kv.Range(RangeRequest(key=b"k1")).header.revision
        memory_bytes = own_memory_bytes(server)
        options = (*CHANNEL_OPTIONS, ("grpc.http2.lookahead_bytes", 1 << 16))
        with grpc.insecure_channel(server.endpoint, options=options) as channel:
            chunks = stubs(channel).maintenance.Snapshot(SnapshotRequest(), timeout=60.0)
            first = next(chunks)
            assert first.remaining_bytes > 60 << 20
            for number in range(200):
                client.kv.Put(PutRequest(key=b"k%d" % number, value=b"later"))
            assert own_memory_bytes(server) - memory_bytes < SLOW_CLIENT_MEMORY_BYTES_MAX
            content = first.blob + b"".join(chunk.blob for chunk in chunks)
    path = tmp_path / "backup.db"
    path.write_bytes(content)
    done = run_etcdutl("snapshot", "status", str(path), "-w", "json")
    assert json.loads(done.stdout)["revision"] == revision
    with BoltFile(path) as file:
        values = [kv for _, kv in file.items(b"key")]
    assert len(values) == 1000
    assert not any(b"later" in kv for kv in values)


def test_many_snapshots_under_writes_are_each_one_moment(tmp_path: Path) -> None:
    """Transactions write two keys alike, and no snapshot may hold them apart, however often it is taken."""
    with running(Server(actcd(), tmp_path / "actcd", SHORT_TIMEOUTS)) as server, connect(server.endpoint) as client:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                both = [RequestOp(request_put=PutRequest(key=key, value=b"%d" % number)) for key in (b"a", b"b")]
                client.kv.Txn(TxnRequest(success=both))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for round_number in range(8):
                path = tmp_path / f"{round_number}.db"
                path.write_bytes(b"".join(chunk.blob for chunk in client.maintenance.Snapshot(SnapshotRequest())))
                with BoltFile(path) as file:
                    records = [kv for _, kv in file.items(b"key")]
                assert len(records) % 2 == 0
                assert [kv[-5:] for kv in records[::2]] == [kv[-5:] for kv in records[1::2]]
        finally:
            stop.set()
            writer.join()


def test_save_fetches_from_both(origin: Server, tmp_path: Path) -> None:
    """`actcd snapshot save` stands in for etcdctl, and leaves a file only when it is whole."""
    path = tmp_path / "saved.db"
    done = run_actcd("snapshot", "save", str(path), f"--endpoints={origin.endpoint}")
    assert done.returncode == 0, done.stderr
    assert run_etcdutl("snapshot", "status", str(path)).returncode == 0
    with connect(origin.endpoint) as client:
        revision = client.kv.Range(RangeRequest(key=b"k")).header.revision
    assert f" {revision}, " in run_actcd("snapshot", "status", str(path)).stdout
    failed = run_actcd(
        "snapshot", "save", str(tmp_path / "other.db"), "--endpoints=127.0.0.1:1", "--dial-timeout=100ms"
    )
    assert (failed.returncode, failed.stderr) == (1, "Error: no server answers at 127.0.0.1:1\n")
    assert [found.name for found in tmp_path.iterdir()] == ["saved.db"]


def test_save_logs_in(tmp_path: Path) -> None:
    """With auth on, only root may take the whole store away, and saving takes a name and a password for it."""
    path = tmp_path / "saved.db"
    with running(Server(actcd(), tmp_path / "actcd", SHORT_TIMEOUTS)) as server:
        with connect(server.endpoint) as client:
            client.auth.UserAdd(AuthUserAddRequest(name="root", password="of all evil"))
            client.auth.RoleAdd(AuthRoleAddRequest(name="root"))
            client.auth.UserGrantRole(AuthUserGrantRoleRequest(user="root", role="root"))
            client.auth.AuthEnable(AuthEnableRequest())
        save = ("snapshot", "save", str(path), f"--endpoints={server.endpoint}")
        refused = run_actcd(*save)
        assert (refused.returncode, path.exists()) == (1, False)
        assert "etcdserver: user name is empty" in refused.stderr
        assert run_actcd(*save, "--user=root:of all evil").returncode == 0
    assert run_etcdutl("snapshot", "status", str(path)).returncode == 0


def test_a_damaged_snapshot_leaves_nothing(origin: Server, tmp_path: Path) -> None:
    """A flipped bit is found before anything is made, and of a file cut short nothing stays behind."""
    damaged = bytearray((origin.directory / "backup.db").read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path = tmp_path / "damaged.db"
    path.write_bytes(damaged)
    server, done = restored(actcd(), path, tmp_path / "taker", expect_code=1)
    server.close()
    assert "damaged.db is damaged: expected sha256 " in done.stderr
    path.write_bytes(damaged[: len(damaged) // 2])
    server, done = restored(actcd(), path, tmp_path / "other", "--skip-hash-check", expect_code=1)
    server.close()
    assert "damaged.db is damaged at offset " in done.stderr
    assert not list((tmp_path / "taker").iterdir()) + list((tmp_path / "other").iterdir())


def test_a_copied_database_needs_a_word(origin: Server, tmp_path: Path) -> None:
    """A file without a hash may be anything, so it is taken only when asked to, as etcdutl does."""
    path = tmp_path / "copied.db"
    path.write_bytes((origin.directory / "backup.db").read_bytes()[:-TRAILER_SIZE_BYTES])
    refused, done = restored(actcd(), path, tmp_path / "refused", expect_code=1)
    refused.close()
    assert "use --skip-hash-check" in done.stderr
    server, _ = restored(actcd(), path, tmp_path / "taker", "--skip-hash-check")
    with running(server), connect(server.endpoint) as client, connect(origin.endpoint) as before:
        assert state(client) == state(before)
