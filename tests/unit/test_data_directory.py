"""What a data directory may be, how it is made, and that only one process has it."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.data_directory import Content, DataDirectory, DataDirectoryRefused, identify, take

ROOT = Path(__file__).resolve().parents[2]


class Warnings:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))


def taken(root: Path, log: Warnings | None = None) -> DataDirectory:
    return take(root, root / "member" / "wal", log or Warnings())


@pytest.mark.parametrize(
    ("names", "content", "unknown"),
    [
        ([], Content.EMPTY, ()),
        (["member"], Content.MEMBER, ()),
        (["fixtures", "member"], Content.MEMBER, ()),
        (["proxy"], Content.PROXY, ()),
        (["lost+found", "x"], Content.OTHER, ("lost+found", "x")),
        (["member", "x"], Content.MEMBER, ("x",)),
    ],
)
def test_identify(tmp_path: Path, names: list[str], content: Content, unknown: tuple[str, ...]) -> None:
    """The names at the top decide, as in etcd."""
    for name in names:
        (tmp_path / name).mkdir()
    found = identify(tmp_path)
    assert (found.content, found.unknown) == (content, unknown)


def test_a_missing_directory_is_an_empty_one(tmp_path: Path) -> None:
    """Looking creates nothing."""
    assert identify(tmp_path / "none").content is Content.EMPTY
    assert not (tmp_path / "none").exists()


def test_member_and_proxy_together_are_refused(tmp_path: Path) -> None:
    """Nobody can say which of the two it is."""
    (tmp_path / "member").mkdir()
    (tmp_path / "proxy").mkdir()
    with pytest.raises(DataDirectoryRefused, match="invalid datadir; both member and proxy directories exist"):
        identify(tmp_path)


def test_a_proxys_directory_is_refused(tmp_path: Path) -> None:
    """A member must not move in beside a v2 proxy's cache."""
    (tmp_path / "proxy").mkdir()
    with pytest.raises(DataDirectoryRefused, match="v2 http proxy has already been deprecated"):
        taken(tmp_path)
    assert not (tmp_path / "member").exists()


@pytest.mark.parametrize(
    ("noted", "endpoints"),
    [
        (
            b'{"PeerURLs":["http://10.0.0.1:2380","http://10.0.0.1:7001","http://[::1]:2380"]}',
            "10.0.0.1:2379,[::1]:2379",
        ),
        (b'{"PeerURLs":["http://[::1"]}', "HOST:2379"),
        (b'{"PeerURLs":[4]}', "HOST:2379"),
        (b"[", "HOST:2379"),
    ],
)
def test_an_old_proxy_is_told_what_to_start_instead(tmp_path: Path, noted: bytes, endpoints: str) -> None:
    """It has noted where the members are."""
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "cluster").write_bytes(noted)
    with pytest.raises(DataDirectoryRefused, match=rf"grpc-proxy start --endpoints={re.escape(endpoints)}`"):
        taken(tmp_path)


def test_etcds_own_directory_is_refused_untouched(tmp_path: Path) -> None:
    """Its data is in bbolt; starting empty beside it would look like losing everything."""
    (tmp_path / "member" / "snap").mkdir(parents=True)
    (tmp_path / "member" / "snap" / "db").write_bytes(b"bbolt")
    with pytest.raises(DataDirectoryRefused, match=r"written by etcd .* migration is not supported yet"):
        taken(tmp_path)
    assert sorted(path.name for path in (tmp_path / "member").iterdir()) == ["snap"]


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    """The sentence names the path and the reason."""
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(DataDirectoryRefused, match=r"cannot read the data directory .*file: Not a directory"):
        taken(path)


def test_a_file_where_a_directory_belongs_is_refused(tmp_path: Path) -> None:
    """Also below the data directory."""
    (tmp_path / "member").touch()
    with pytest.raises(DataDirectoryRefused, match="member"):
        taken(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """The system's reason is passed on."""
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryRefused, match="cannot create the directory"):
        take(tmp_path / "data", tmp_path / "file" / "wal", Warnings())


def test_directories_are_private(tmp_path: Path) -> None:
    """The store holds passwords' hashes and users' secrets: nobody else may read it."""
    log = Warnings()
    directory = taken(tmp_path / "a" / "data", log)
    for path in (directory.path, directory.member, directory.snap, directory.wal):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory.member / "lock").stat().st_mode) == 0o600
    assert not directory.db.exists()
    assert (directory.content, log.lines) == (Content.EMPTY, [])
    directory.close()


def test_other_modes_only_warn(tmp_path: Path) -> None:
    """An operator may have reasons; etcd warns and goes on."""
    tmp_path.chmod(0o755)
    log = Warnings()
    taken(tmp_path, log).close()
    assert log.lines == [("directory has another mode than recommended", {"path": str(tmp_path), "mode": "755"})]


def test_unknown_content_only_warns(tmp_path: Path) -> None:
    """A mounted disk has a lost+found."""
    tmp_path.chmod(0o700)
    (tmp_path / "lost+found").mkdir()
    log = Warnings()
    directory = taken(tmp_path, log)
    assert directory.content is Content.OTHER
    assert [fields["filename"] for _, fields in log.lines] == ["lost+found"]
    directory.close()


def test_a_second_taker_is_refused(tmp_path: Path) -> None:
    """Two servers on one WAL would destroy it; the lock ends with its holder."""
    first = taken(tmp_path)
    with pytest.raises(DataDirectoryRefused, match=f"the data directory {tmp_path} is in use by another process"):
        taken(tmp_path)
    first.close()
    first.close()
    second = taken(tmp_path)
    assert second.content is Content.MEMBER
    second.close()


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    """After kill -9 the next start must not find a stale lock."""
    code = "import os, sys, structlog; from daemon.data_directory import take; "
    code += "take(sys.argv[1], sys.argv[1] + '/member/wal', structlog.get_logger()); os.kill(os.getpid(), 9)"
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert child.returncode == -9
    directory = taken(tmp_path)
    assert directory.content is Content.MEMBER
    directory.close()


def test_the_wal_may_lie_elsewhere(tmp_path: Path) -> None:
    """--wal-dir puts it on a disk of its own."""
    directory = take(tmp_path / "data", tmp_path / "fast" / "wal", Warnings())
    assert directory.wal == tmp_path / "fast" / "wal"
    assert directory.wal.is_dir()
    assert not (directory.member / "wal").exists()
    directory.close()
