"""The command `actcd defrag`: give back the space of what was deleted, while the member does not run.

A running member does the same in the background (`etcdctl defrag`) and LevelDB does most of it by itself.
"""

from __future__ import annotations

import json
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

from core.mvcc.keyspace import ATTACHED, CURRENT, HISTORY, RECORDS, Bucket
from daemon.tools.commands import Command, text_option, write_out
from daemon.tools.offline import LOCK_TIMEOUT, Kind, find_member, kept
from daemon.tools.output import Progress, human_size, put_line
from storage.leveldb import open_leveldb

if TYPE_CHECKING:
    from daemon.tools.commands import Given

_DATA_DIR = text_option("data-dir", "The data directory", placeholder="DIR", is_needed=True)
_WRITE_OUT = write_out("simple", "json")
_BORDERS = sorted([RECORDS, CURRENT, HISTORY, ATTACHED, *(bucket.prefix for bucket in Bucket)])
"""Between these lie the ranges that are compacted one after the other, so that there is progress to tell."""


def _defrag(given: Given) -> None:
    data_dir = given[_DATA_DIR]
    advice = f"; use 'etcdutl defrag --data-dir {data_dir}', or make it actcd's with 'actcd migrate --to actcd'"
    place = find_member(data_dir, Kind.LEVELDB, advice)
    with kept(place, given[LOCK_TIMEOUT], change=True), Progress() as progress:
        with closing(open_leveldb(place.store)) as backend:
            before = backend.size_bytes()
            for done, (start, stop) in enumerate(pairwise([None, *_BORDERS, None])):
                backend.compact(start, stop)
                progress("ranges", done + 1, len(_BORDERS) + 1)
        with closing(open_leveldb(place.store)) as backend:  # opening removes the files that nobody needs any more
            after = backend.size_bytes()
    if given[_WRITE_OUT] == "json":
        put_line(json.dumps({"sizeBefore": before, "sizeAfter": after}, separators=(",", ":")))
    else:
        put_line(f"Finished defragmenting {place.store}: {human_size(before)} before, {human_size(after)} now")


DEFRAG = Command(
    "defrag",
    "Give back the space of deleted and compacted keys.\n\nThe member must not run; a running one does it on "
    "'etcdctl defrag', without stopping. Compact old revisions first ('etcdctl compaction'): what is not compacted "
    "is kept.",
    _defrag,
    (),
    (_DATA_DIR, _WRITE_OUT, LOCK_TIMEOUT),
    examples=("actcd defrag --data-dir default.etcd",),
)
