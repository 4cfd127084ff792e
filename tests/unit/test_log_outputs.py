"""Where the log goes beyond plain streams: files that are rotated, and the systemd journal."""

from __future__ import annotations

import array
import gzip
import io
import json
import os
import socket
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from config.faults import BadValue
from config.rotation import Rotation, parse_rotation
from config.schema import Logging
from daemon.log_journal import JournalStream, entry
from daemon.log_rotation import RotatingFile, clean_up
from daemon.logs import LogStream, make_logger, open_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 3, 4, 13, 0, 0, 7000, tzinfo=timezone(timedelta(hours=1)))
MB = 1 << 20


@pytest.mark.parametrize(
    ("text", "rotation"),
    [
        ("{}", Rotation()),
        ('{"maxsize": 0}', Rotation(100)),
        (
            '{"maxsize": 5, "maxage": 7, "maxbackups": 3, "localtime": true, "compress": true}',
            Rotation(5, 7, 3, local_time=True, compress=True),
        ),
        ('{"MaxSize": 5, "else": "x", "maxage": null}', Rotation(5)),
    ],
)
def test_rotation_is_read_as_etcd_reads_it(text: str, rotation: Rotation) -> None:
    """Names in any case, unknown ones without effect, 0 for the default size: Go's JSON, and the library of etcd."""
    assert parse_rotation(text) == rotation


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("{", "improperly formatted log rotation config"),
        ("[]", "invalid log rotation config"),
        ('{"maxsize": "5"}', "invalid log rotation config"),
        ('{"maxsize": true}', "invalid log rotation config"),
        ('{"maxage": -1}', "maxage must not be negative"),
    ],
)
def test_rotation_that_makes_no_sense_is_refused(text: str, refusal: str) -> None:
    """In etcd's words, before the log is opened."""
    with pytest.raises(BadValue, match=refusal):
        parse_rotation(text)


def test_a_full_file_is_set_aside(tmp_path: Path) -> None:
    """No line is split or lost; the old file is named by the time in UTC, and its mode goes on."""
    path = tmp_path / "sub" / "etcd.log"
    file = RotatingFile(path, Rotation(1), lambda: NOON)
    path.chmod(0o640)
    line = b"x" * (MB // 2 - 1) + b"\n"
    for _ in range(3):
        file.write(line)
        file.flush()
    file.close()
    old = path.with_name("etcd-2026-03-04T12-00-00.007.log")
    assert sorted(path.parent.iterdir()) == [old, path]
    assert (old.read_bytes(), path.read_bytes()) == (line * 2, line)
    assert path.stat().st_mode & 0o777 == 0o640
    again = RotatingFile(path, Rotation(1), lambda: NOON + timedelta(seconds=1))
    again.write(line * 2)
    again.close()
    assert len(list(path.parent.iterdir())) == 3, "what is in the file already counts after a restart"


def test_local_time_and_compression(tmp_path: Path) -> None:
    """The name tells local time where asked, and the old file is gzip's."""
    path = tmp_path / "log"
    file = RotatingFile(path, Rotation(1, local_time=True, compress=True), lambda: NOON)
    file.write(b"first\n" * 180_000)
    file.write(b"second\n")
    file.close()
    (old,) = tmp_path.glob("log-*")
    assert old.name == "log-2026-03-04T13-00-00.007.gz"
    assert gzip.decompress(old.read_bytes()) == b"first\n" * 180_000
    assert path.read_bytes() == b"second\n"


@pytest.mark.parametrize(
    ("rotation", "kept"),
    [
        (Rotation(backups_max=2), {1, 2}),
        (Rotation(age_days_max=2), {1, 2}),
        (Rotation(age_days_max=3, backups_max=1), {1}),
        (Rotation(), {1, 2, 3, 4}),
    ],
)
def test_old_files_are_removed(tmp_path: Path, rotation: Rotation, kept: set[int]) -> None:
    """By number and by age; files of other names stay, whatever they are."""
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    stamps = ("09T12-00-00", "08T13-00-00", "08T11-00-00", "01T00-00-00")
    days = {number: f"2026-03-{stamp}.000" for number, stamp in enumerate(stamps, 1)}
    for number, stamp in days.items():
        (tmp_path / f"etcd-{stamp}.log{'.gz' if number % 2 else ''}").touch()
    others = {"etcd.log", "etcd-2020.log", "other-2020-01-01T00-00-00.000.log", "etcd-2020-01-01T00-00-00.000.txt"}
    for name in others:
        (tmp_path / name).touch()
    clean_up(tmp_path / "etcd.log", rotation, now)
    left = {path.name for path in tmp_path.iterdir()} - others
    assert left == {f"etcd-{days[number]}.log{'.gz' if number % 2 else ''}" for number in kept}
    assert others <= {path.name for path in tmp_path.iterdir()}


def test_the_logger_rotates_where_asked(tmp_path: Path) -> None:
    """From the configuration to the file, with standard output beside it as etcd allows."""
    path = tmp_path / "actcd.log"
    settings = Logging(
        log_outputs=(str(path),), enable_log_rotation=True, log_rotation_config_json='{"maxsize": 1, "maxbackups": 1}'
    )
    opened: list[LogStream] = []

    def factory(output: str, rotation: Rotation | None) -> LogStream:
        opened.append(open_stream(output, rotation))
        return opened[-1]

    log = make_logger(settings, factory)
    for number in range(6):
        log.info("x" * (MB // 2), number=number)
    (stream,) = opened
    assert isinstance(stream, RotatingFile)
    stream.close()
    assert len(list(tmp_path.iterdir())) <= 3
    assert json.loads(path.read_bytes().splitlines()[-1])["number"] == 5


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that takes what journald would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(10)
        yield listening


@pytest.mark.parametrize(
    ("line", "priority", "package"),
    [
        (b'{"level":"warn","ts":"t","caller":"actors/wal.py:7","msg":"x"}\n', 4, "actors"),
        (b"t\terror\tdaemon/host.py:1\tx\n", 3, "daemon"),
        (b'{"level":"fatal","ts":"t","caller":"a/b.py:7","msg":"x"}\n', 2, "a"),
        (b"no line of ours\n", 6, "."),
    ],
)
def test_a_line_is_a_journal_entry(line: bytes, priority: int, package: str) -> None:
    """`journalctl -p warning` finds warnings, whichever format the log has."""
    fields = dict(field.split(b"=", 1) for field in entry(line).splitlines())
    assert fields == {
        b"MESSAGE": line.rstrip(b"\n"),
        b"PRIORITY": b"%d" % priority,
        b"PACKAGE": package.encode(),
        b"SYSLOG_IDENTIFIER": b"actcd",
    }


def test_lines_with_breaks_keep_them() -> None:
    """A stack trace of the console format is one message."""
    message = b"t\tfatal\ta.py:1\tx\nTraceback\n  line"
    assert entry(message + b"\n").startswith(b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n")


def test_lines_go_to_the_journal(journal: socket.socket) -> None:
    """One datagram a line; one that is too long for that goes as a sealed file, whole."""
    stream = JournalStream(journal.getsockname(), io.BytesIO())
    stream.write(b'{"level":"info","caller":"a/b.py:1"}\n')
    assert b"PRIORITY=6\n" in journal.recv(4096)
    long = b'{"level":"error","caller":"a/b.py:1","msg":"' + b"x" * 600_000 + b'"}'
    stream.write(long + b"\n")
    _, control, _, _ = journal.recvmsg(4096, socket.CMSG_SPACE(4))
    (descriptor,) = array.array("i", control[0][2])
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        assert file.read() == entry(long)
    stream.close()


def test_without_a_journal(journal: socket.socket, tmp_path: Path) -> None:
    """As in etcd: none at the start is a refusal, one that goes away later is made up for by standard error."""
    with pytest.raises(OSError, match="cannot connect to the systemd journal"):
        JournalStream(str(tmp_path / "none"))
    instead = io.BytesIO()
    stream = JournalStream(journal.getsockname(), instead)
    journal.close()
    stream.write(b"line\n")
    stream.flush()
    stream.close()
    assert instead.getvalue() == b"line\n"
