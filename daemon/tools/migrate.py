"""The command `actcd migrate`: another storage version, or another server.

With --target-version it is `etcdutl migrate`, for our store.  With --to it makes a data directory of etcd into one of
actcd, or back; see daemon/conversion.py.
"""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from core.apply.v2_request import v2_request
from core.membership.version import MalformedVersion, Version
from core.mvcc.keyspace import Bucket
from core.mvcc.store import Store
from core.raft.messages import EntryType
from daemon.conversion import to_actcd, to_etcd
from daemon.tools.commands import BadArguments, Command, Option, choice_option, switch, text_option
from daemon.tools.offline import LOCK_TIMEOUT, Kind, NotUsable, find_member, kept, opened
from daemon.tools.output import Progress, put_line
from proto.raft_internal_pb2 import InternalRaftRequest
from storage.bbolt.export import STORAGE_VERSION
from storage.leveldb import open_leveldb
from wal.codec import decode_entry
from wal.filesystem import PosixFileSystem
from wal.record import ENTRY, peek_records
from wal.segment import segment_names

if TYPE_CHECKING:
    from core.raft.messages import Entry
    from daemon.tools.commands import Given

OLDEST = Version(3, 5)
NEWEST = Version(3, 7)
_NOTES_VERSION_SINCE = Version(3, 6)
_FORM = re.compile(r"[0-9]+\.[0-9]+", re.ASCII)
_DATA_DIR = text_option("data-dir", "The data directory", placeholder="DIR", is_needed=True)
_WAL_DIR = text_option("wal-dir", "Directory of its log; DATA-DIR/member/wal if not given", "", "DIR")
_TARGET: Option[str] = text_option("target-version", "The storage version to go to, such as 3.6", "", "X.Y")
_FORCE = switch("force", "Go on where a check says no. Not recommended")
_TO = choice_option("to", "Make a data directory of this server from it", ("etcd", "actcd"), "")
_OUTPUT = text_option("output-dir", "The data directory that --to makes", "", "DIR")


def _migrate(given: Given) -> None:
    if bool(given[_TO]) == bool(given[_TARGET]):
        raise BadArguments("one of --target-version and --to is needed; see 'actcd migrate --help'")
    if bool(given[_TO]) != bool(given[_OUTPUT]):
        raise BadArguments("--to and --output-dir go together")
    if given[_TO]:
        _convert(given)
    else:
        _change_version(given, target_version(given[_TARGET]))


def target_version(text: str) -> Version:
    """Return the version in *text*; raises BadArguments in etcdutl's words."""
    if not _FORM.fullmatch(text):
        raise BadArguments(f'wrong target version format, expected "X.Y", got "{text}"')
    version = Version.parse(text)
    if version < OLDEST:
        raise BadArguments(f'target version "{text}" not supported. Minimal "{OLDEST.major}.{OLDEST.minor}"')
    return version


def _convert(given: Given) -> None:
    data_dir = Path(given[_DATA_DIR])
    wal_dir = Path(given[_WAL_DIR]) if given[_WAL_DIR] else data_dir / "member" / "wal"
    output = Path(given[_OUTPUT])
    place = find_member(given[_DATA_DIR], Kind.BBOLT if given[_TO] == "actcd" else Kind.LEVELDB)
    with kept(place, given[LOCK_TIMEOUT]), Progress() as progress:
        if place.kind is Kind.BBOLT:
            made = to_actcd(data_dir, wal_dir, output, progress, force=given[_FORCE])
        else:
            with opened(place, progress) as store:
                made = to_etcd(store, data_dir, wal_dir, output)
    put_line(
        f"made {output} for {given[_TO]} from {data_dir}: member {made.metadata.node_id:x} of cluster "
        f"{made.metadata.cluster_id:x}, revision {made.revision}, log up to {made.last_index}"
    )
    sys.stderr.write(f"note: never start both: keep {data_dir} only as a backup\n")


def _change_version(given: Given, target: Version) -> None:
    place = find_member(given[_DATA_DIR], Kind.LEVELDB)
    wal_dir = Path(given[_WAL_DIR]) if given[_WAL_DIR] else Path(given[_DATA_DIR]) / "member" / "wal"
    with kept(place, given[LOCK_TIMEOUT], change=True), closing(open_leveldb(place.store)) as backend:
        store = Store.open(backend)
        current = _current(store)
        if current == target:
            put_line(f"storage version up-to-date: {_short(current)}")
            return
        refusal = _refusal(current, target, wal_dir)
        if refusal and not given[_FORCE]:
            raise NotUsable(refusal)
        if target < _NOTES_VERSION_SINCE:
            store.bucket_delete(Bucket.META, STORAGE_VERSION)
        else:
            store.bucket_put(Bucket.META, STORAGE_VERSION, str(target).encode())
        store.flush(sync=True)
    put_line(f"updated storage version: {_short(current)} to {_short(target)}{' by force' if refusal else ''}")


def _current(store: Store) -> Version:
    noted = store.bucket_get(Bucket.META, STORAGE_VERSION)
    if noted is None:
        if not store.applied_term:
            raise NotUsable("cannot detect storage schema version: missing term information")
        return OLDEST
    try:
        return Version.parse(noted.decode(errors="replace")).release
    except MalformedVersion as error:
        raise NotUsable(f"cannot detect storage schema version: it reads {noted!r}") from error


def _refusal(current: Version, target: Version, wal_dir: Path) -> str:
    """Return why the version cannot be changed, in etcdutl's words, or nothing."""
    if target.major != current.major:
        return "cannot create migration plan: changing major storage version is not supported"
    if max(target, current) > NEWEST:
        return f'cannot create migration plan: version "{max(target, current)}" is not supported'
    if target < current and _holds_unknown(wal_dir):
        return (
            "cannot downgrade storage, WAL contains newer entries: let a member of the present version run until it "
            "has made a snapshot behind them"
        )
    return ""


def _holds_unknown(wal_dir: Path) -> bool:
    """Tell whether the log holds requests with fields that no release up to OLDEST has."""
    fs = PosixFileSystem()
    try:
        for name in segment_names(wal_dir, fs):
            content = (wal_dir / str(name)).read_bytes()
            if any(_is_unknown(decode_entry(data)) for _, data in peek_records(content, frozenset({ENTRY}))):
                return True
    except (DecodeError, ValueError):
        return True
    return False


def _is_unknown(entry: Entry) -> bool:
    if entry.type is not EntryType.NORMAL or not entry.data or v2_request(entry.data) is not None:
        return False
    return len(UnknownFieldSet(InternalRaftRequest.FromString(entry.data))) > 0


def _short(version: Version) -> str:
    return f"{version.major}.{version.minor}"


MIGRATE = Command(
    "migrate",
    "Change the storage version of a data directory, or make one of etcd into one of actcd and back.\n\nThe member "
    "must not run. With --to the given directory stays as it is, and the new one is the same member of the same "
    "cluster, with the same log: stop the one server, convert, start the other on the new directory.",
    _migrate,
    (),
    (_DATA_DIR, _WAL_DIR, _TO, _OUTPUT, _TARGET, _FORCE, LOCK_TIMEOUT),
    examples=(
        "actcd migrate --data-dir infra1.etcd --to actcd --output-dir infra1.actcd",
        "actcd migrate --data-dir infra1.actcd --to etcd --output-dir back.etcd",
        "actcd migrate --data-dir default.etcd --target-version 3.6",
    ),
)
