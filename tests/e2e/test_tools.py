"""Tools on the data of real servers, actcd and etcd 3.5.1.

What they tell is what the server told, and they change nothing that they were not asked to change.
"""

import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.tools import programs
from proto.rpc_pb2 import CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest
from tests.e2e.client import connect
from tests.e2e.harness import Server, actcd, real_etcd, run_etcdctl, running

pytestmark = pytest.mark.e2e

READERS = (
    ("hashkv", "{}"),
    ("dump-log", "{}"),
    ("dump-log", "{}", "--raw"),
    ("dump-db", "list-bucket", "{}"),
    ("dump-db", "hash", "{}"),
)


def run_tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a tool as `actcd` would, but in this process: starting Python takes longer than most tools do."""
    words = [str(argument) for argument in arguments]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = programs.run(programs.TOOLS[words[0]], words[1:])
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def told(*arguments: object) -> str:
    """What a tool that must succeed prints."""
    done = run_tool(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), (arguments, done.stderr)
    return done.stdout


def ctl(server: Server, *arguments: str, stdin: str = "") -> str:
    """What an etcdctl that must succeed prints."""
    done = run_etcdctl(server, *arguments, stdin=stdin)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def fill(server: Server) -> None:
    """Write some of everything: keys with history, a lease, a user, a role; compact at revision 20."""
    with connect(server.endpoint) as client:
        for number in range(25):
            client.kv.Put(PutRequest(key=b"key%d" % (number % 10), value=b"secret-value-%d" % number))
        lease = client.lease.LeaseGrant(LeaseGrantRequest(TTL=600)).ID
        client.kv.Put(PutRequest(key=b"leased", value=b"secret-value", lease=lease))
        client.kv.DeleteRange(DeleteRangeRequest(key=b"key3"))
        client.kv.Compact(CompactionRequest(revision=20))
    ctl(server, "txn", stdin='mod("key1") > "0"\n\nput key1 secret-value\ndel key2\n\nget key1\n\n')
    ctl(server, "user", "add", "alice:secret-value")
    ctl(server, "role", "add", "reader")
    ctl(server, "role", "grant-permission", "reader", "read", "key", "kez")
    ctl(server, "user", "grant-role", "alice", "reader")


def hash_of(server: Server, revision: int = 0) -> dict[str, int]:
    """The live HashKV, in the names that the tool prints."""
    answer: dict[str, Any] = json.loads(ctl(server, "endpoint", "hashkv", f"--rev={revision}", "-w", "json"))[0]
    hashed = answer["HashKV"]
    revision = revision or hashed["header"]["revision"]
    return {"hash": hashed["hash"], "hashRevision": revision, "compactRevision": hashed["compact_revision"]}


def fingerprint(folder: Path) -> dict[str, str]:
    """Names, sizes, times and content of everything below *folder*."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module", params=["actcd", "etcd"])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was filled and has stopped; `hashes` in its directory has what it told about itself."""
    program = actcd() if request.param == "actcd" else real_etcd()
    server = Server(program, tmp_path_factory.mktemp("tools"))
    with running(server):
        fill(server)
        for words in READERS[3:]:
            done = run_tool(*(word.format(server.data_dir) for word in words), "--timeout=10ms")
            assert done.returncode == 1, words
            assert "in use by another process" in done.stderr
        assert "entries shown" in told("dump-log", server.data_dir), "a log can be read while its member runs"
        hashes = [hash_of(server), hash_of(server, 25)]
        (server.directory / "hashes").write_text(json.dumps(hashes))
        server.stop()
        yield server


def test_hashkv_is_what_the_member_told(stopped: Server) -> None:
    """A member at rest is compared with running ones by this; etcd's data and ours alike, at any revision."""
    newest, older = json.loads((stopped.directory / "hashes").read_text())
    assert json.loads(told("hashkv", stopped.data_dir, "-w", "json")) == newest
    assert json.loads(told("hashkv", stopped.data_dir, "--rev=25", "-w", "json")) == older
    compacted = run_tool("hashkv", stopped.data_dir, "--rev=5")
    assert compacted.returncode == 1
    assert "required revision has been compacted" in compacted.stderr


def test_the_log_is_readable(stopped: Server) -> None:
    """Terms, indexes, conf changes and requests with their keys; of values only their sizes, of passwords nothing."""
    text = told("dump-log", stopped.data_dir)
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 4][1:]
    assert [int(index) for _, index, *_ in rows] == list(range(1, len(rows) + 1))
    assert rows[0][2:4] == ["conf", "conf_change"]
    assert "method=ConfChangeAddNode" in rows[0][4]
    requests = [row[3] for row in rows]
    assert requests.count("put") == 26
    assert requests[-6:] == [
        "compaction",
        "txn",
        "auth_user_add",
        "auth_role_add",
        "auth_role_grant_permission",
        "auth_user_grant_role",
    ]
    assert 'put:<key:"key4" value:<15 bytes>>' in text
    assert 'success:<request_put:<key:"key1" value:<12 bytes>>>' in text
    assert "secret-value" not in text
    assert 'value:"secret-value-24"' in told("dump-log", stopped.data_dir, "--values")
    lines = [json.loads(line) for line in told("dump-log", stopped.data_dir, "-w", "json").splitlines()]
    assert lines[0]["term"] == int(rows[-1][0])
    assert len(lines) == len(rows) + 1


def test_the_buckets_are_shown(stopped: Server) -> None:
    """Both kinds of store are shown as etcd's buckets, in words."""
    shown = json.loads(told("dump-db", "list-bucket", stopped.data_dir, "-w", "json"))
    counts = {each["bucket"]: each["items"] for each in shown}
    assert list(counts) == [
        "alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta",
    ]  # fmt: skip
    assert [counts[name] for name in ("authRoles", "authUsers", "lease", "members")] == [1, 1, 1, 1]

    def items(bucket: str, *more: str) -> str:
        return told("dump-db", "iterate-bucket", stopped.data_dir, bucket, *more)

    newest = items("key", "--reverse", "--limit=2").splitlines()
    assert newest[0] == 'rev=29/1 key="key2" deleted'
    assert newest[1].startswith('rev=29/0 key="key1" value=<12 bytes> created=3 version=')
    assert "consistent_index=" in items("meta")
    assert "finishedCompactRev=20" in items("meta")
    assert items("authRoles") == 'role="reader" permissions=[READ "key".."kez"]\n'
    assert items("authUsers") == 'user="alice" roles=reader password=<hidden>\n'
    assert "ttl=600" in items("lease")


def test_readers_change_nothing(stopped: Server) -> None:
    """Evidence must stay as it was found: not a byte, a time or a file name differs afterwards."""
    before = fingerprint(stopped.data_dir)
    for words in READERS:
        told(*(word.format(stopped.data_dir) for word in words))
    assert fingerprint(stopped.data_dir) == before


def test_damage_is_told_and_nothing_is_written(stopped: Server, tmp_path: Path) -> None:
    """A damaged log is shown up to the damage and ends with 1; so does a damaged store, and neither is 'repaired'."""
    data_dir = tmp_path / "damaged"
    shutil.copytree(stopped.data_dir, data_dir)
    (log,) = (data_dir / "member" / "wal").glob("*.wal")
    content = bytearray(log.read_bytes())
    at = content.index(b"secret-value-9")
    content[at : at + 1] = b"S"
    log.write_bytes(content)
    if stopped.program.name == "actcd":
        # What is in LevelDB's own log may be torn, so the damage has to be in a table, which never is.
        assert run_tool("defrag", f"--data-dir={data_dir}").returncode == 0
        (damaged,) = (data_dir / "member" / "db").glob("*.ldb")
    else:
        damaged = data_dir / "member" / "snap" / "db"
    store = bytearray(damaged.read_bytes())
    store[:4096] = bytes(4096)
    store[4096:8192] = bytes(len(store[4096:8192]))
    damaged.write_bytes(store)
    before = fingerprint(data_dir)
    done = run_tool("dump-log", data_dir)
    assert done.returncode == 1
    assert "is corrupt at offset" in done.stderr
    assert 'put:<key:"key8"' in done.stdout
    assert 'put:<key:"leased"' not in done.stdout
    for words in (("hashkv", data_dir), ("dump-db", "hash", data_dir)):
        done = run_tool(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert done.stderr.startswith("Error: "), done.stderr
        assert str(data_dir) in done.stderr
        assert "Traceback" not in done.stderr
    assert fingerprint(data_dir) == before


def test_from_etcd_to_actcd_and_back(tmp_path: Path) -> None:
    """The way in and the way out: the same member, revisions, leases and users, and writes go on, on either side."""
    etcd = Server(real_etcd(), tmp_path / "etcd")
    with running(etcd):
        fill(etcd)
        expected = hash_of(etcd)
        etcd.stop()
        there = tmp_path / "actcd" / "data"
        there.parent.mkdir()
        done = run_tool("migrate", f"--data-dir={etcd.data_dir}", "--to=actcd", f"--output-dir={there}")
        assert done.returncode == 0, done.stderr
        again = run_tool("migrate", f"--data-dir={etcd.data_dir}", "--to=actcd", f"--output-dir={there}")
        assert again.returncode == 1
        assert "exists" in again.stderr
        ours = replace(etcd, program=actcd(), directory=tmp_path / "actcd", process=None)
        ours.start()
        try:
            assert hash_of(ours) == expected
            assert ctl(ours, "user", "get", "alice") == "User: alice\nRoles: reader\n"
            assert len(json.loads(ctl(ours, "lease", "list", "-w", "json"))["leases"]) == 1
            ctl(ours, "put", "from-actcd", "x")
            expected = hash_of(ours)
        finally:
            ours.kill()  # what only the log holds must come along
        back = tmp_path / "back" / "data"
        back.parent.mkdir()
        done = run_tool("migrate", f"--data-dir={there}", "--to=etcd", f"--output-dir={back}")
        assert done.returncode == 0, done.stderr
        home = replace(etcd, directory=tmp_path / "back", process=None)
        home.start()
        try:
            assert hash_of(home) == expected
            assert ctl(home, "get", "from-actcd", "--print-value-only") == "x\n"
            assert len(json.loads(ctl(home, "lease", "list", "-w", "json"))["leases"]) == 1
            ctl(home, "put", "from-etcd", "x")
        finally:
            home.kill()


def test_defrag_gives_space_back(tmp_path: Path) -> None:
    """Deleted and compacted values are gone from the disk afterwards, and the member starts as it was."""
    server = Server(actcd(), tmp_path)
    with running(server):
        with connect(server.endpoint) as client:
            for number in range(40):
                client.kv.Put(PutRequest(key=b"key%d" % (number % 4), value=b"%03d" % number * 20_000))
        ctl(server, "compaction", "41")
        expected = hash_of(server)
        server.stop()
        other = run_tool("defrag", "--data-dir", tmp_path / "nothing")
        assert other.returncode == 1
        sizes = json.loads(told("defrag", "--data-dir", server.data_dir, "-w", "json"))
        assert sizes["sizeAfter"] < sizes["sizeBefore"] / 2
        server.start()
        assert hash_of(server) == expected
        locked = run_tool("defrag", "--data-dir", server.data_dir, "--timeout=10ms")
        assert locked.returncode == 1
        assert "in use by another process" in locked.stderr
