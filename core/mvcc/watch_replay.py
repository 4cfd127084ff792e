"""What a read of history holds for each of several watchers.

Watchers of one range, variant and position see the same bytes, so these are encoded once; most that wait for history
came back together after a lost connection and stand at one position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mvcc.watch_ranges import WatchRanges
from core.mvcc.watch_streams import event_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from core.mvcc.event import Event, Revised
    from core.mvcc.watch_ranges import WatchGroup
    from core.mvcc.watch_streams import Watcher


def replayed(watchers: Iterable[Watcher], revisions: Iterable[Revised]) -> Iterator[tuple[Watcher, list[bytes]]]:
    """Yield each watcher that *revisions* have events for, with their encoded fields from its position on."""
    ranges = WatchRanges()
    for watcher in watchers:
        ranges.add(watcher)
    batches: dict[WatchGroup, list[tuple[int, Event]]] = {}
    for revision, events in revisions:
        for event in events:
            for group in ranges.match(event.key):
                batches.setdefault(group, []).append((revision, event))
    for group, batch in batches.items():
        for variant, alike in group.variants.items():
            yield from _replayed_alike(alike, variant, batch)


def _replayed_alike(
    watchers: Iterable[Watcher], variant: int, batch: list[tuple[int, Event]]
) -> Iterator[tuple[Watcher, list[bytes]]]:
    fields_from: dict[int, list[bytes]] = {}
    for watcher in watchers:
        position = watcher.next_revision
        fields = fields_from.get(position)
        if fields is None:
            fields = event_fields((event for revision, event in batch if revision >= position), variant)
            fields_from[position] = fields
        if fields:
            yield watcher, fields
