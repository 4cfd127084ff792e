"""The lease and the watch behind --experimental-leasing-prefix: what is owned, and what others ask back.

A lease counts from the moment at which its renewal was *sent*, so it has never ended at the members while it counts
here, whatever stops this process.  The watch is opened again where it breaks, after a look at what is there.
Belongs to FrontActor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from google.protobuf.message import DecodeError

from grpcproxy.methods import KEEP_ALIVE, RANGE, WATCH
from grpcproxy.namespace import prefix_end
from net.rpc import Status
from proto.kv_pb2 import Event
from proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcproxy.messages import Metadata
    from net.rpc import Call

    Outcome = bytes | Status

TTL_S: Final = 60
"""That of etcd's sessions."""

MARGIN_S: Final = 2.0
"""A lease is not relied on any more so long before it could have ended."""

RENEW_S: Final = TTL_S / 3
RETRY_S: Final = 1.0
CALL_TIMEOUT_S: Final = 5.0

GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
REVOKE_LEASE: Final = "/etcdserverpb.Lease/LeaseRevoke"


class Receiver(Protocol):
    """Hears of a stream to a member."""

    def opened(self) -> None:
        """Take note that the stream goes to a member now."""

    def send(self, message: bytes) -> None:
        """Take a message of the member."""

    def finish(self, status: Status) -> None:
        """Take note that the stream is over."""


class Carrier(Protocol):
    """Carries calls and streams to the members; FrontActor."""

    @property
    def endpoint_count(self) -> int:
        """How many members there are."""

    def now_s(self) -> float:
        """Return monotonic seconds."""

    def pass_on(self, call: Call, body: bytes, then: Callable[[Outcome], None]) -> None:
        """Have a member answer *call* as it is."""

    def ask(
        self, path: str, body: bytes, metadata: Metadata, timeout_s: float | None, then: Callable[[Outcome], None]
    ) -> None:
        """Have a member answer a call of the proxy's own; *then* is always told."""

    def open(self, path: str, receiver: Receiver) -> int:
        """Open a stream."""

    def send_on(self, number: int, body: bytes) -> None:
        """Send a message on a stream."""

    def close(self, number: int) -> None:
        """End a stream, of which nothing more is told."""


class Session:
    """A lease, and the watch of all leasing keys."""

    def __init__(
        self,
        carrier: Carrier,
        prefix: bytes,
        namespace: bytes,
        seen: Callable[[Event], None],
        log: Any,  # noqa: ANN401
    ) -> None:
        """Tell *seen* of each change of a leasing key; what is there when the watch begins counts as put."""
        self._carrier = carrier
        self._prefix = prefix
        self._namespace = namespace
        self._seen = seen
        self._log = log
        self.lease = 0
        """0: there is none."""
        self.past: set[int] = set()
        """Leases that were let go, of which the members may not have heard."""
        self._good_until_s = 0.0
        self._granting = False
        self._stopped = False
        self._next_s = 0.0
        self._pinged_s: float | None = None
        """When the renewal was sent that has not been answered."""
        self._pings: int | None = None
        self._watch: int | None = None
        self._watch_at_s = 0.0

    @property
    def good(self) -> bool:
        """Whether the lease is certainly alive."""
        return self.lease != 0 and self._carrier.now_s() < self._good_until_s

    def tick(self) -> bool:
        """Renew what is due; return whether the lease was lost."""
        now_s = self._carrier.now_s()
        if self._watch is None and now_s >= self._watch_at_s:
            self._watch = self._carrier.open(WATCH, _Watch(self))
        if not self.lease:
            if not self._stopped and not self._granting and now_s >= self._next_s:
                self._granting = True
                grant = LeaseGrantRequest(TTL=TTL_S).SerializeToString()
                self._carrier.ask(GRANT, grant, (), CALL_TIMEOUT_S, lambda outcome: self._granted(now_s, outcome))
            return False
        if now_s >= self._good_until_s:
            self._log.warning("the lease of the leasing keys was lost", lease_id=self.lease)
            self.drop()
            return True
        if now_s >= self._next_s and self._pinged_s is None:
            if self._pings is None:
                self._pings = self._carrier.open(KEEP_ALIVE, _Pings(self))
            self._pinged_s = now_s
            self._next_s = now_s + RENEW_S
            self._carrier.send_on(self._pings, LeaseKeepAliveRequest(ID=self.lease).SerializeToString())
        return False

    def drop(self) -> None:
        """Let the lease go, and with it all that is owned; another one is asked for at the next tick."""
        if self.lease:
            revoke = LeaseRevokeRequest(ID=self.lease).SerializeToString()
            self.past.add(self.lease)
            self._carrier.ask(REVOKE_LEASE, revoke, (), CALL_TIMEOUT_S, lambda _outcome: None)
        self.lease = 0
        self._pinged_s = None
        self._next_s = 0.0

    def stop(self) -> None:
        """Let the lease go for good."""
        self._stopped = True
        self.drop()

    def _granted(self, sent_s: float, outcome: Outcome) -> None:
        self._granting = False
        try:
            answer = None if isinstance(outcome, Status) else LeaseGrantResponse.FromString(outcome)
        except DecodeError:
            answer = None
        if answer is None or not answer.ID:
            self._next_s = self._carrier.now_s() + RETRY_S
            return
        self.lease = answer.ID
        self._good_until_s = sent_s + answer.TTL - MARGIN_S
        self._next_s = sent_s + RENEW_S
        self._log.info("leasing keys are kept", lease_id=self.lease, ttl_s=answer.TTL)

    # -- renewals

    def renewed(self, message: bytes) -> None:
        """Take the answer to a renewal."""
        try:
            answer = LeaseKeepAliveResponse.FromString(message)
        except DecodeError:
            return
        if self.lease == answer.ID and self._pinged_s is not None:
            if answer.TTL > 0:
                self._good_until_s = self._pinged_s + answer.TTL - MARGIN_S
            else:
                self._good_until_s = 0.0  # it has ended at the members
            self._pinged_s = None

    def pings_ended(self) -> None:
        """Renew on another stream."""
        self._pings = None
        if self._pinged_s is not None:
            self._pinged_s = None
            self._next_s = self._carrier.now_s() + RETRY_S

    # -- the watch

    def look(self) -> None:
        """See what is there, then watch from there on."""
        watch = self._watch
        listing = RangeRequest(key=self._prefix, range_end=prefix_end(self._prefix)).SerializeToString()
        self._carrier.ask(RANGE, listing, (), CALL_TIMEOUT_S, lambda outcome: self._looked(watch, outcome))

    def _looked(self, watch: int | None, outcome: Outcome) -> None:
        if watch is None or watch != self._watch:
            return
        try:
            answer = None if isinstance(outcome, Status) else RangeResponse.FromString(outcome)
        except DecodeError:
            answer = None
        if answer is None:
            self._watch_again(watch)
            return
        for kv in answer.kvs:
            self._seen(Event(kv=kv))
        prefix = self._namespace + self._prefix
        create = WatchCreateRequest(key=prefix, range_end=prefix_end(prefix), start_revision=answer.header.revision + 1)
        self._carrier.send_on(watch, WatchRequest(create_request=create).SerializeToString())

    def watched(self, message: bytes) -> None:
        """Take what the watch tells."""
        try:
            answer = WatchResponse.FromString(message)
        except DecodeError:
            answer = WatchResponse(canceled=True)
        if answer.canceled and self._watch is not None:
            self._watch_again(self._watch)
            return
        for event in answer.events:
            event.kv.key = event.kv.key[len(self._namespace) :]
            self._seen(event)

    def _watch_again(self, watch: int) -> None:
        self._carrier.close(watch)
        self.watch_ended()

    def watch_ended(self) -> None:
        """Watch on another stream, a little later."""
        self._watch = None
        self._watch_at_s = self._carrier.now_s() + RETRY_S


class _Pings:
    """Hears of renewals."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def opened(self) -> None:
        """See Receiver."""

    def send(self, message: bytes) -> None:
        """See Receiver."""
        self._session.renewed(message)

    def finish(self, status: Status) -> None:
        """See Receiver."""
        del status
        self._session.pings_ended()


class _Watch:
    """Hears of leasing keys."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def opened(self) -> None:
        """See Receiver."""
        self._session.look()

    def send(self, message: bytes) -> None:
        """See Receiver."""
        self._session.watched(message)

    def finish(self, status: Status) -> None:
        """See Receiver."""
        del status
        self._session.watch_ended()
