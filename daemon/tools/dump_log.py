"""The command `actcd dump-log`: the raft log in words, ours or that of an etcd.

Only reads, and takes no lock: a running member's log can be looked at, up to what it has written by then.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.raft.messages import NOBODY
from daemon.tools.commands import BadArguments, Command, Word, number_option, switch, text_option, write_out
from daemon.tools.offline import NotUsable
from daemon.tools.output import Progress, put_line, table
from daemon.tools.requests import as_json, kind_of, request_name, told
from wal.codec import Metadata, decode_entry, decode_hard_state, decode_metadata, decode_snapshot_record
from wal.errors import WalCorrupt
from wal.filesystem import PosixFileSystem
from wal.record import CRC, ENTRY, METADATA, SNAPSHOT, STATE, RecordReader, TornRecord
from wal.replay import NO_HARD_STATE
from wal.segment import expect_consecutive, segment_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from core.raft.messages import Entry, HardState
    from daemon.tools.commands import Given
    from wal.codec import SnapshotRecord
    from wal.record import Record
    from wal.segment import SegmentName

_WAL_DIR = text_option("wal-dir", "Directory of the log; PATH/member/wal if not given", "", "DIR")
_START = number_option("start-index", "The first entry to show; the oldest that is there if not given")
_END = number_option("end-index", "Where to stop: this entry is not shown")
_TYPES = text_option(
    "entry-type", "Show only these, such as put,txn,conf_change,noop (the names in the column REQUEST)", "", "NAME,..."
)
_VALUES = switch("values", "Show values too; passwords and tokens are never shown")
_RAW = switch("raw", "Show every record as it lies in the files, overwritten entries and states included")
_WRITE_OUT = write_out("simple", "json", "table")
_COLUMNS = ("term", "index", "type", "request", "data")
_KIND_NAMES = {METADATA: "metadata", ENTRY: "entry", STATE: "state", CRC: "crc", SNAPSHOT: "snapshot"}


@dataclass(slots=True)
class Log:
    """What the segments say, added up as a start adds it up."""

    metadata: Metadata | None = None
    hard_state: HardState = NO_HARD_STATE
    entries: list[Entry] = field(default_factory=list)
    snapshots: list[SnapshotRecord] = field(default_factory=list)
    torn: str = ""
    """Where a crash, or a member that is just writing, left the last record unfinished."""


def records(
    folder: Path, names: list[SegmentName], torn: Callable[[TornRecord], None], progress: Progress
) -> Iterator[tuple[SegmentName, Record]]:
    """Go through all records; *torn* is told of an unfinished last one.  Raises WalCorrupt, OSError."""
    crc = None
    done_bytes = 0
    for name in names:
        data = (folder / str(name)).read_bytes()
        reader = RecordReader(str(name), data, crc)
        try:
            while (record := reader.next()) is not None:
                yield name, record
                progress("bytes", done_bytes + record.offset)
        except TornRecord as error:
            if name is not names[-1]:
                raise
            torn(error)
        crc = reader.crc
        done_bytes += len(data)


def add(log: Log, name: SegmentName, record: Record) -> None:
    """Add one record to *log*; raises WalCorrupt."""
    try:
        match record.kind:
            case 1:
                log.metadata = decode_metadata(record.data)
            case 2:
                entry = decode_entry(record.data)
                if log.entries and entry.index <= log.entries[-1].index:
                    # A later leader has overwritten what was never committed.
                    del log.entries[bisect_left(log.entries, entry.index, key=lambda each: each.index) :]
                log.entries.append(entry)
            case 3:
                log.hard_state = decode_hard_state(record.data)
            case 5:
                log.snapshots.append(decode_snapshot_record(record.data))
    except ValueError as error:
        raise WalCorrupt(str(name), record.offset, expected="data of its type", found=str(error)) from error


def _dump(given: Given) -> None:
    if given[_RAW] and given[_WRITE_OUT] != "simple":
        raise BadArguments("--raw is shown in the simple form only")
    folder = _folder(given)
    names = segment_names(folder, PosixFileSystem())
    if not names:
        raise NotUsable(f"{folder} holds no log: a log's files end in .wal")
    expect_consecutive(names)
    log = Log()
    failure: WalCorrupt | None = None

    def torn(error: TornRecord) -> None:
        log.torn = f"the log ends in an unfinished record: {error}"

    with Progress() as progress:
        try:
            for name, record in records(folder, names, torn, progress):
                if given[_RAW]:
                    put_line(_raw_line(name, record, values=given[_VALUES]))
                else:
                    add(log, name, record)
        except WalCorrupt as error:
            failure = error  # what lies before it is worth seeing
    if not given[_RAW]:
        _show(given, log)
    if log.torn:
        sys.stderr.write(f"note: {log.torn}\n")
    if failure is not None:
        raise failure


def _folder(given: Given) -> Path:
    path = Path(given.word(0) or ".")
    if given[_WAL_DIR]:
        folder = Path(given[_WAL_DIR])
    elif not given.words:
        raise BadArguments("a data directory or --wal-dir is needed; see 'actcd dump-log --help'")
    else:
        folder = path / "member" / "wal" if (path / "member").is_dir() else path
    if not folder.is_dir():
        raise NotUsable(f"{folder} is no directory")
    return folder


def _show(given: Given, log: Log) -> None:
    values = given[_VALUES]
    wanted = {name.strip() for name in given[_TYPES].split(",") if name.strip()}
    shown = [
        entry
        for entry in log.entries
        if given[_START] <= entry.index
        and (not given[_END] or entry.index < given[_END])
        and (not wanted or request_name(entry) in wanted or kind_of(entry) in wanted)
    ]
    if given[_WRITE_OUT] == "json":
        put_line(json.dumps(_head(log)))
        for entry in shown:
            line = {"term": entry.term, "index": entry.index, "type": kind_of(entry), "request": request_name(entry)}
            put_line(json.dumps(line | {"data": as_json(entry, values=values)}))
        return
    _show_head(log)
    rows = (
        (str(entry.term), str(entry.index), kind_of(entry), request_name(entry), told(entry, values=values))
        for entry in shown
    )
    if given[_WRITE_OUT] == "table":
        put_line(table([name.upper() for name in _COLUMNS], list(rows), left=(2, 3, 4)))
    else:
        put_line("\t".join(_COLUMNS))
        for row in rows:
            put_line("\t".join(row))
    put_line(f"\n{len(shown)} entries shown, of {len(log.entries)}")


def _head(log: Log) -> dict[str, object]:
    state = log.hard_state
    ids = log.metadata or Metadata(NOBODY, 0)
    return {
        "memberID": f"{ids.node_id:x}",
        "clusterID": f"{ids.cluster_id:x}",
        "term": state.term,
        "vote": f"{state.vote:x}",
        "commit": state.commit,
        "snapshots": [{"index": snapshot.index, "term": snapshot.term} for snapshot in log.snapshots if snapshot.index],
    }


def _show_head(log: Log) -> None:
    put_line("Snapshots:")
    saved = [snapshot for snapshot in log.snapshots if snapshot.index]
    for snapshot in saved:
        voters = [] if snapshot.conf_state is None else [f"{voter:x}" for voter in snapshot.conf_state.voters]
        put_line(f"term={snapshot.term} index={snapshot.index} voters={','.join(voters) or '?'}")
    if not saved:
        put_line("none")
    state = log.hard_state
    put_line("WAL metadata:")
    if log.metadata is not None:
        ids = f"memberID={log.metadata.node_id:x} clusterID={log.metadata.cluster_id:x}"
        put_line(f"{ids} term={state.term} commitIndex={state.commit} vote={state.vote:x}")
    put_line("WAL entries:")
    put_line(f"lastIndex={log.entries[-1].index if log.entries else 0}")


def _raw_line(name: SegmentName, record: Record, *, values: bool) -> str:
    kind, data = record.kind, record.data
    try:
        match kind:
            case 1:
                metadata = decode_metadata(data)
                text = f"memberID={metadata.node_id:x} clusterID={metadata.cluster_id:x}"
            case 2:
                entry = decode_entry(data)
                text = f"term={entry.term} index={entry.index} {kind_of(entry)} {told(entry, values=values)}"
            case 3:
                state = decode_hard_state(data)
                text = f"term={state.term} vote={state.vote:x} commit={state.commit}"
            case 5:
                snapshot = decode_snapshot_record(data)
                text = f"term={snapshot.term} index={snapshot.index}"
            case _:
                text = ""
    except ValueError as error:
        text = f"??? {error}"
    return f"{name}\t{record.offset}\t{_KIND_NAMES.get(kind, kind)}\t{text}"


DUMP_LOG = Command(
    "dump-log",
    "Show the raft log (the WAL): its entries with their terms and what they ask for.\n\nKeys are shown, values only "
    "with --values, passwords and tokens never. Reads the log of an etcd as well, and of a running member up to what "
    "it has written. Changes nothing. A damaged log is shown up to the damage.",
    _dump,
    (Word("PATH", "A data directory, or a folder with .wal files", optional=True),),
    (_WAL_DIR, _START, _END, _TYPES, _VALUES, _RAW, _WRITE_OUT),
    examples=(
        "actcd dump-log default.etcd",
        "actcd dump-log default.etcd --entry-type txn,conf_change --start-index 1000",
        "actcd dump-log default.etcd -w json | grep lease_revoke",
    ),
)
