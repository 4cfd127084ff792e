"""One watcher of a member, and the clients' watchers that it feeds.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.rpc_pb2 import WatchCreateRequest, WatchRequest

if TYPE_CHECKING:
    from grpcproxy.watcher import Watcher


class Broadcast:
    """Feeds all *receivers* from one watcher upstream of the range [key, end)."""

    __slots__ = ("created", "created_revision", "end", "id", "key", "next_revision", "receivers")

    def __init__(self, key: bytes, end: bytes, next_revision: int) -> None:
        self.id = 0
        """Upstream; changes when that is lost."""
        self.key = key
        self.end = end
        self.next_revision = next_revision
        """Lowest revision of which nothing has come."""
        self.created = False
        self.created_revision = 0
        """Of the store, when it was created: what comes later comes as it happens."""
        self.receivers: dict[Watcher, None] = {}

    @property
    def synced(self) -> bool:
        """Whether it has caught up with what was there when it was created."""
        return self.created and self.next_revision > self.created_revision

    def may_take(self, watcher: Watcher) -> bool:
        """Whether *watcher* would miss nothing here, and get what it wants without waiting for what it does not."""
        if not self.created:
            return self.next_revision == watcher.next_revision
        if watcher.start_now and not watcher.announced:
            return self.synced
        return self.next_revision <= watcher.next_revision

    def take(self, watcher: Watcher) -> None:
        """Feed *watcher* too."""
        if self.created and watcher.start_now and not watcher.announced:
            # What has come already may be left out for one that has asked only now.
            watcher.next_revision = max(watcher.next_revision, self.next_revision)
        self.receivers[watcher] = None
        watcher.broadcast = self

    def request(self) -> bytes:
        """Return the request that creates it upstream."""
        create = WatchCreateRequest(
            key=self.key,
            range_end=self.end,
            start_revision=self.next_revision,
            progress_notify=True,
            prev_kv=True,
            watch_id=self.id,
        )
        return WatchRequest(create_request=create).SerializeToString()
