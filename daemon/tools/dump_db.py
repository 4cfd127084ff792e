"""The command `actcd dump-db`: what a store holds, bucket by bucket, ours or etcd's.

Our LevelDB keeps etcd's buckets under prefixes of their own, so both are shown in the same form.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import deque
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from core.mvcc.keyspace import Bucket
from daemon.tools.bucket_items import described, raw
from daemon.tools.commands import Command, Word, number_option, switch, write_out
from daemon.tools.offline import LOCK_TIMEOUT, Kind, NotUsable, find, kept, opened
from daemon.tools.output import Progress, human_size, put_line, table
from storage.bbolt.export import KEY_BUCKET, STORAGE_VERSION
from storage.bbolt.reader import BoltFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from daemon.tools.commands import Given
    from daemon.tools.offline import Place

    Items = Callable[[bytes], Iterable[tuple[bytes, bytes]]]

_LIMIT = number_option("limit", "How many items to show; all if not given")
_REVERSE = switch("reverse", "Show the last items first, as etcd's tool does: of bucket 'key' the newest revisions")
_RAW = switch("raw", "Show keys and values as bytes instead of in words")
_VALUES = switch("values", "Show values too; in words, password hashes stay hidden")
_WRITE_OUT = write_out("simple", "json", "table")
_NOT_HASHED = frozenset({b"consistent_index", b"term", STORAGE_VERSION})
"""Of bucket meta: what differs between members that are equal."""
_TOLD_EVERY = 1000


class Contents(NamedTuple):
    """The buckets of a store, and the items of each; a bucket can be gone through once."""

    buckets: tuple[bytes, ...]
    items: Items


@contextmanager
def contents(place: Place, progress: Progress) -> Iterator[Contents]:
    """Open what *place* holds to read it; raises StorageError, BoltError, OSError."""
    if place.kind is Kind.BBOLT:
        with BoltFile(place.store) as file:
            yield Contents(file.buckets, file.items)
        return
    by_name = {bucket.bucket_name.encode(): bucket for bucket in Bucket}
    with opened(place, progress) as store:
        view = store.view()

        def items(name: bytes) -> Iterable[tuple[bytes, bytes]]:
            return view.revisions() if name == KEY_BUCKET else view.bucket_items(by_name[name])

        yield Contents(tuple(sorted((*by_name, KEY_BUCKET))), items)


def _list(given: Given) -> None:
    place = find(Path(given.words[0]))
    rows: list[tuple[str, int, int]] = []
    with kept(place, given[LOCK_TIMEOUT]), Progress() as progress, contents(place, progress) as found:
        for name in found.buckets:
            count = size_bytes = 0
            for key, value in found.items(name):
                count += 1
                size_bytes += len(key) + len(value)
                if count % _TOLD_EVERY == 0:
                    progress(f"items of {name.decode(errors='replace')}", count)
            rows.append((name.decode(errors="backslashreplace"), count, size_bytes))
    match given[_WRITE_OUT]:
        case "json":
            put_line(json.dumps([{"bucket": name, "items": count, "bytes": size} for name, count, size in rows]))
        case "table":
            shown = [(name, str(count), human_size(size_bytes)) for name, count, size_bytes in rows]
            put_line(table(("BUCKET", "ITEMS", "SIZE"), shown, left=(0,)))
        case _:
            for row in rows:
                put_line(row[0])


def _iterate(given: Given) -> None:
    place = find(Path(given.words[0]))
    bucket = given.words[1].encode()
    limit = given[_LIMIT] or None
    with kept(place, given[LOCK_TIMEOUT]), Progress() as progress, contents(place, progress) as found:
        if bucket not in found.buckets:
            names = ", ".join(name.decode(errors="replace") for name in found.buckets)
            raise NotUsable(f"{place.store} has no bucket {given.words[1]}: it has {names}")
        items = found.items(bucket)
        chosen = reversed(deque(items, maxlen=limit)) if given[_REVERSE] else islice(items, limit)
        rows: list[tuple[str]] = []
        for key, value in chosen:
            if given[_WRITE_OUT] == "json":
                put_line(json.dumps(_item(bucket, key, value, values=given[_VALUES])))
                continue
            describe = raw(key, value, values=given[_VALUES])
            line = describe if given[_RAW] else described(bucket, key, value, values=given[_VALUES])
            if given[_WRITE_OUT] == "table":
                rows.append((line,))
            else:
                put_line(line)
    if given[_WRITE_OUT] == "table":
        put_line(table((given.words[1].upper(),), rows, left=(0,)))


def _item(bucket: bytes, key: bytes, value: bytes, *, values: bool) -> dict[str, object]:
    made: dict[str, object] = {"key": b64encode(key).decode(), "size": len(value)}
    if values:
        made["value"] = b64encode(value).decode()
    return made | {"told": described(bucket, key, value, values=values)}


def _hash(given: Given) -> None:
    place = find(Path(given.words[0]))
    crc = read_bytes = 0
    with kept(place, given[LOCK_TIMEOUT]), Progress() as progress, contents(place, progress) as found:
        for name in found.buckets:
            crc = google_crc32c.extend(crc, name)
            for key, value in found.items(name):
                if name == b"meta" and key in _NOT_HASHED:
                    continue
                crc = google_crc32c.extend(crc, key + value)
                read_bytes += len(key) + len(value)
                progress("bytes", read_bytes)
    match given[_WRITE_OUT]:
        case "json":
            put_line(json.dumps({"hash": crc}))
        case "table":
            put_line(table(("HASH",), [(str(crc),)]))
        case _:
            put_line(f"db path: {place.store}\nHash: {crc}")


_PATH = Word("PATH", "A data directory of actcd or etcd, a store in it, or a snapshot")

DUMP_DB = Command(
    "dump-db",
    "Show what a store holds: its buckets, or the items of one.\n\nThe member must not run. Changes nothing. The "
    "buckets and their items are those of etcd, whether the store is our LevelDB or etcd's bbolt file.",
    commands=(
        Command(
            "list-bucket",
            "Name the buckets; with -w json or table also how many items and bytes each holds.",
            _list,
            (_PATH,),
            (_WRITE_OUT, LOCK_TIMEOUT),
            examples=("actcd dump-db list-bucket default.etcd -w table",),
        ),
        Command(
            "iterate-bucket",
            "Show the items of one bucket.\n\nBucket 'key' has an item for each revision that is still there.",
            _iterate,
            (_PATH, Word("BUCKET", "One of those that list-bucket names")),
            (_LIMIT, _REVERSE, _RAW, _VALUES, _WRITE_OUT, LOCK_TIMEOUT),
            examples=(
                "actcd dump-db iterate-bucket default.etcd key --reverse --limit 10",
                "actcd dump-db iterate-bucket backup.db authRoles",
            ),
        ),
        Command(
            "hash",
            "Compute the hash of everything, which etcd's Maintenance.Hash and etcd-dump-db tell too.",
            _hash,
            (_PATH,),
            (_WRITE_OUT, LOCK_TIMEOUT),
            examples=("actcd dump-db hash default.etcd",),
        ),
    ),
)
