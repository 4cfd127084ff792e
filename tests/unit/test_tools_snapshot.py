"""`actcd snapshot`: what its flags mean, what it prints, and that a failed restore leaves nothing behind."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import Bucket
from core.mvcc.store import Store
from daemon.command_line import RunTool, parse
from daemon.tools import programs
from daemon.tools.output import human_size
from daemon.tools.programs import EXIT_BAD_ARGUMENTS, EXIT_FAILED
from daemon.tools.snapshot import SNAPSHOT, shown
from storage.bbolt.export import export
from storage.bbolt.status import Status, read_status
from storage.leveldb import open_leveldb
from wal.filesystem import PosixFileSystem
from wal.log import valid_snapshots

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """\
+----------+----------+------------+------------+---------+
|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |
+----------+----------+------------+------------+---------+
| fe01cf57 |       10 |          7 |     2.1 MB |   3.6.0 |
+----------+----------+------------+------------+---------+"""

STATUS = Status(hash=0xFE01CF57, revision=10, key_count=7, size_bytes=2_125_824, version="3.6.0")


def run(arguments: list[str]) -> int:
    return programs.run(SNAPSHOT, arguments)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A small snapshot with its hash, at revision 3, of two keys."""
    return make_snapshot(tmp_path)


def make_snapshot(directory: Path, buckets: dict[Bucket, tuple[bytes, bytes]] | None = None) -> Path:
    """A snapshot of two keys and one more item in each of *buckets*."""
    store = Store.open(MemoryBackend())
    for index, key in enumerate((b"a", b"b"), 1):
        transaction = store.transaction()
        transaction.put(key, b"v")
        transaction.end()
        store.advance(index, 9)
    for bucket, (key, value) in (buckets or {}).items():
        store.bucket_put(bucket, key, value)
    store.flush()
    path = directory / "backup.db"
    export(store.view(), path)
    content = path.read_bytes()
    path.write_bytes(content + sha256(content).digest())
    return path


def test_the_word_is_left_to_the_tool() -> None:
    """Flags behind the word `snapshot` are the tool's own, and none of the server's."""
    assert parse(["snapshot", "status", "x", "-w", "json"], {}) == RunTool("snapshot", ("status", "x", "-w", "json"))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("simple", "fe01cf57, 10, 7, 2.1 MB, 3.6.0"),
        ("json", '{"hash":4261531479,"revision":10,"totalKey":7,"totalSize":2125824,"version":"3.6.0"}'),
        ("fields", '"Hash" : 4261531479\n"Revision" : 10\n"Keys" : 7\n"Size" : 2125824\n"Version" : "3.6.0"'),
        (
            "table",
            TABLE,
        ),
    ],
)
def test_status_formats(how: str, text: str) -> None:
    """Scripts read etcdutl's formats."""
    assert shown(STATUS, how) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (20480, "20 kB"), (9_960_000, "10 MB"), (1_500_000_000, "1.5 GB")],
)
def test_sizes_are_those_of_etcdutl(size_bytes: int, text: str) -> None:
    """Steps of a thousand; one digit behind the point only below ten."""
    assert human_size(size_bytes) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "one of save, status and restore is needed"),
        (["frobnicate"], "expected one of save, status, restore"),
        (["status"], "'actcd snapshot status' needs FILE, 0 given"),
        (["status", "x", "-w", "xml"], "expected one of simple, json, fields, table"),
        (["restore", "x", "--bump-revision=5"], "--mark-compacted required if --bump-revision > 0"),
        (["restore", "x", "--mark-compacted"], "--mark-compacted required if --bump-revision > 0"),
        (["restore", "x", "--mark-compacted=maybe", "--bump-revision=5"], 'invalid argument "maybe"'),
        (["restore", "x", "--initial-cluster=default=ftp://h:1"], "URL scheme must be http"),
        (["save", "x", "--endpoints=a:1,b:2"], "one selected node, not multiple"),
        (["save", "x", "--dial-timeout=soon"], "--dial-timeout"),
    ],
)
def test_bad_arguments(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that make no sense end with etcd's exit code for them, before any file is looked at."""
    assert run(arguments) == EXIT_BAD_ARGUMENTS
    assert text in capsys.readouterr().err


def test_a_restored_directory_is_complete(snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Store, raft snapshot and log agree on where the new cluster begins: one entry for each member."""
    data_dir, wal_dir = tmp_path / "data", tmp_path / "elsewhere" / "wal"
    cluster = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3"
    arguments = ["restore", str(snapshot), f"--data-dir={data_dir}", f"--wal-dir={wal_dir}", "--name=b"]
    urls = "--initial-advertise-peer-urls=http://127.0.0.1:2"
    assert run([*arguments, f"--initial-cluster={cluster}", urls]) == 0
    printed = capsys.readouterr()
    assert "2 keys, 0 leases, revision 3" in printed.out
    assert "--bump-revision N --mark-compacted" in printed.err
    assert valid_snapshots(wal_dir, PosixFileSystem()) == {(0, 0), (3, 1)}
    assert [path.name for path in (data_dir / "member" / "snap").iterdir()] == [
        "0000000000000001-0000000000000003.snap"
    ]
    backend = open_leveldb(data_dir / "member" / "db")
    store = Store.open(backend)
    assert (store.revision, store.applied_index, store.applied_term) == (3, 3, 1)
    names = [json.loads(value)["name"] for _, value in store.bucket_items(Bucket.MEMBERS)]
    backend.close()
    assert sorted(names) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--name=x"], 'couldn\'t find local name "x"'),
        (["--initial-advertise-peer-urls=http://127.0.0.1:7"], "missing from"),
        (["--bump-revision=9223372036854775807", "--mark-compacted"], "the highest is 9223372036854775807"),
    ],
)
def test_what_cannot_be_restored_leaves_nothing(
    snapshot: Path, tmp_path: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second try must not meet what the first one left."""
    assert run(["restore", str(snapshot), f"--data-dir={tmp_path / 'data'}", *arguments]) == EXIT_FAILED
    assert text in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["backup.db"]


@pytest.mark.parametrize("bucket", [Bucket.LEASE, Bucket.MEMBERS, Bucket.ALARM])
def test_content_that_a_member_could_not_start_with_is_refused(
    tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result is opened as a member opens it, so a bad item is found now and not at the start."""
    path = make_snapshot(tmp_path, {bucket: (b"\xff", b"\xff")})
    code = run(["restore", str(path), f"--data-dir={tmp_path / 'data'}"])
    if bucket is Bucket.MEMBERS:  # replaced by those of the new cluster
        assert code == 0
    else:
        assert code == EXIT_FAILED
        assert "cannot be read" in capsys.readouterr().err
        assert not (tmp_path / "data").exists()


def test_a_directory_in_use_is_left_alone(snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that exists is overwritten or removed."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "precious").touch()
    assert run(["restore", str(snapshot), f"--data-dir={data_dir}"]) == EXIT_FAILED
    assert "is not empty" in capsys.readouterr().err
    wal_dir = tmp_path / "wal"
    wal_dir.mkdir()
    assert run(["restore", str(snapshot), f"--data-dir={tmp_path / 'other'}", f"--wal-dir={wal_dir}"]) == EXIT_FAILED
    assert "exists: choose another one" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "data", "wal"]
    assert [path.name for path in data_dir.iterdir()] == ["precious"]


def test_a_newer_cluster_version_is_not_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Members agree on a version that all of them know; a snapshot of a newer etcd would name one that none does."""
    path = make_snapshot(
        tmp_path, {Bucket.CLUSTER: (b"clusterVersion", b"3.7.0"), Bucket.META: (b"storageVersion", b"3.7.0")}
    )
    assert read_status(path).version == "3.7.0"
    assert run(["restore", str(path), f"--data-dir={tmp_path / 'data'}"]) == 0
    assert "from a cluster of version 3.7.0" in capsys.readouterr().err
    backend = open_leveldb(tmp_path / "data" / "member" / "db")
    store = Store.open(backend)
    left = (store.bucket_get(Bucket.CLUSTER, b"clusterVersion"), store.bucket_get(Bucket.META, b"storageVersion"))
    backend.close()
    assert left == (None, None)


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name is the most common mistake."""
    assert run(["status", str(tmp_path / "none")]) == EXIT_FAILED
    assert capsys.readouterr().err == f"Error: {tmp_path / 'none'}: No such file or directory\n"
