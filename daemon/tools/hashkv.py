"""The command `actcd hashkv`: the hash of the keys at a revision, by which members are compared, of data at rest.

It is the hash that `etcdctl endpoint hashkv` asks a running member for, and `etcdutl hashkv` computes of etcd's file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

from core.errors import EtcdError
from core.mvcc.hashing import HashKv, hash_kv_steps
from daemon.tools.commands import Command, Word, number_option, write_out
from daemon.tools.offline import LOCK_TIMEOUT, NotUsable, find, kept, opened
from daemon.tools.output import Progress, put_line, table

if TYPE_CHECKING:
    from core.mvcc.view import View
    from daemon.tools.commands import Given

_RECORDS_PER_STEP = 500
_REVISION = number_option("rev", "The revision to hash at; the newest if not given")
_WRITE_OUT = write_out("simple", "json", "fields", "table")


def shown(made: HashKv, how: str) -> str:
    """Return *made* as etcdutl prints it."""
    if how == "json":
        named = {"hash": made.hash, "hashRevision": made.revision, "compactRevision": made.compact_revision}
        return json.dumps(named, separators=(",", ":"))
    if how == "fields":
        return f'"Hash" : {made.hash}\n"Hash revision" : {made.revision}\n"Compact revision" : {made.compact_revision}'
    row = (f"{made.hash:x}", str(made.revision), str(made.compact_revision))
    return table(("HASH", "HASH REVISION", "COMPACT REVISION"), [row]) if how == "table" else ", ".join(row)


def hash_with_progress(view: View, revision: int, progress: Progress) -> HashKv:
    """Return the hash of *view* at *revision*; raises NotUsable where that is compacted or to come."""
    try:
        steps = hash_kv_steps(view, revision, google_crc32c.extend)
        count = 0
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                made: HashKv = stop.value
                return made
            count += _RECORDS_PER_STEP
            progress("records", count)
    except EtcdError as error:
        raise NotUsable(
            f"revision {revision}: {error} (it holds revisions {max(view.compact_revision, 1)} to {view.revision})"
        ) from error


def _hashkv(given: Given) -> None:
    place = find(Path(given.words[0]))
    with kept(place, given[LOCK_TIMEOUT]), Progress() as progress, opened(place, progress) as store:
        made = hash_with_progress(store.view(), given[_REVISION], progress)
    put_line(shown(made, given[_WRITE_OUT]))


HASHKV = Command(
    "hashkv",
    "Compute the hash of all keys at a revision.\n\nTwo members, or a member and a backup, hold the same keys if their "
    "hashes are equal at equal revisions and compact revisions. The member must not run: ask a running one with "
    "'etcdctl endpoint hashkv'. Changes nothing.",
    _hashkv,
    (Word("PATH", "A data directory of actcd or etcd, a store in it, or a snapshot"),),
    (_REVISION, _WRITE_OUT, LOCK_TIMEOUT),
    examples=("actcd hashkv default.etcd", "actcd hashkv backup.db --rev 1000 -w json"),
)
