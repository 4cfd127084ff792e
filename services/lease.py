"""The Lease service.

Grants and revokes go through raft; renewals and remaining times are the primary's own and ask LeaseActor.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from core.apply.cost import LEASE_COST_BYTES
from core.auth.permissions import READ, WRITE
from core.errors import EtcdError, LeaseTtlTooLarge
from core.lease.book import TTL_S_MAX
from core.types import LeaseId
from net.rpc import OK
from proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from services.decode import decode, decode_entry
from services.errors import status_of, undecodable_message
from services.identity import admit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.auth.rules import Identity
    from net.rpc import Call, Status, Stream
    from services.node import LeaseTimes, Node

GRANT_TAG = b"\x42"
REVOKE_TAG = b"\x4a"

RENEWALS_WAITING_MAX = 1000
"""Requests of one keep-alive stream that may wait for their answer; it is not read on before some have theirs."""

INLINE_LEASES_MAX = 1000
"""More than these are listed on a worker: a hundred thousand take a quarter of a second."""

UNSENT_BYTES_MAX = 1 << 20
"""A keep-alive stream whose client leaves more than this unread is not read on either."""


class LeaseService:
    """Handles the unary calls of etcdserverpb.Lease for one listener."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def grant(self, call: Call, payload: bytes) -> None:
        """Make a lease; id 0 lets the server choose."""
        request = decode_entry(call, LeaseGrantRequest, GRANT_TAG, payload, check_grant)
        if request is None or not self._node.may_grow(call, LEASE_COST_BYTES):
            return
        if request.ID == 0:
            request.ID = self._node.make_lease_id()
            payload = request.SerializeToString()
        self._node.propose(call, GRANT_TAG, payload)

    def revoke(self, call: Call, payload: bytes) -> None:
        """End a lease and delete its keys."""
        if decode_entry(call, LeaseRevokeRequest, REVOKE_TAG, payload) is not None:
            self._node.propose(call, REVOKE_TAG, payload)

    def time_to_live(self, call: Call, payload: bytes) -> None:
        """Tell how long a lease has, and with ``keys`` what hangs on it."""
        request = decode(call, LeaseTimeToLiveRequest, payload)
        if request is None:
            return
        lease = LeaseId(request.ID)

        def with_times(times: LeaseTimes | EtcdError) -> None:
            if isinstance(times, EtcdError):
                call.fail(status_of(times))
                return
            answer = LeaseTimeToLiveResponse(ID=lease, TTL=-1)
            if times.remaining_s is None:
                call.reply(self._node.header() + answer.SerializeToString())
                return
            answer.TTL, answer.grantedTTL = times.remaining_s, times.granted_s
            if not request.keys:
                call.reply(self._node.header() + answer.SerializeToString())
                return

            def with_keys(keys: Sequence[bytes]) -> None:
                answer.keys.extend(keys)
                admit(
                    self._node,
                    call,
                    lambda rules, identity: rules.check_keys(identity, keys, READ),
                    lambda: call.reply(self._node.header() + answer.SerializeToString()),
                )

            self._node.lease_keys(lease, with_keys)

        # The primary's answer must not be older than what this client has seen acknowledged.
        self._node.read(call, lambda _view: self._node.lease_times(lease, with_times))

    def leases(self, call: Call, payload: bytes) -> None:
        """List the leases, soonest-expiring first, for those who may read all their keys."""
        if decode(call, LeaseLeasesRequest, payload) is None:
            return
        if not self._node.auth.enabled:
            self._list(call)
            return

        def with_keys(keys: Sequence[bytes]) -> None:
            admit(
                self._node,
                call,
                lambda rules, identity: rules.check_keys(identity, keys, READ),
                lambda: self._list(call),
            )

        self._node.leased_keys(with_keys)

    def _list(self, call: Call) -> None:
        def with_expiries(expiries: Sequence[tuple[float, LeaseId]]) -> None:
            header = self._node.header()

            def answer() -> bytes:
                leases = [LeaseStatus(ID=lease) for _, lease in sorted(expiries)]
                return header + LeaseLeasesResponse(leases=leases).SerializeToString()

            if len(expiries) > INLINE_LEASES_MAX:
                self._node.work(call, answer)
            else:
                call.reply(answer())

        self._node.list_leases(with_expiries)


def check_grant(request: LeaseGrantRequest) -> None:
    """Raise LeaseTtlTooLarge."""
    if request.TTL > TTL_S_MAX:
        raise LeaseTtlTooLarge


class _Renewal:
    """One request of a keep-alive stream, and its answer once there is one."""

    __slots__ = ("answer", "lease")

    def __init__(self, lease: LeaseId) -> None:
        self.lease = lease
        self.answer: bytes | None = None


class KeepAliveStream:
    """One LeaseKeepAlive call: one answer a request, in order.

    The answer about a lease that has expired waits for its revoke, and those behind it wait for their turn.
    """

    def __init__(self, node: Node, stream: Stream) -> None:
        self._node = node
        self._stream = stream
        self._renewals: deque[_Renewal] = deque()
        self._paused = False
        self._half_closed = False

    def on_message(self, message: bytes) -> None:
        """Renew one lease."""
        try:
            lease = LeaseId(LeaseKeepAliveRequest.FromString(message).ID)
        except DecodeError as error:
            self._stream.finish(undecodable_message(error))
            return
        renewal = _Renewal(lease)
        self._renewals.append(renewal)
        self._read_or_wait()
        if self._node.auth.enabled:
            self._node.identify(self._stream, lambda identity: self._renew_as(identity, renewal), self._refuse)
        else:
            self._renew(renewal)

    def _renew_as(self, identity: Identity, renewal: _Renewal) -> None:
        """Renew a lease for those who may write what it holds: they could keep it from going away as well."""

        def with_keys(keys: Sequence[bytes]) -> None:
            rules = self._node.auth
            try:
                rules.check_known(identity)
                rules.check_keys(identity, keys, WRITE)
            except EtcdError as error:
                self._refuse(error)
            else:
                self._renew(renewal)

        self._node.lease_keys(renewal.lease, with_keys)

    def _refuse(self, error: EtcdError) -> None:
        self._stream.finish(status_of(error))

    def _renew(self, renewal: _Renewal) -> None:
        # The header is filled before the renewal, as etcd does: it must not run ahead of what the renewal saw.
        header = self._node.header()

        def answer(ttl_s: int | EtcdError) -> None:
            if isinstance(ttl_s, EtcdError):
                self._stream.finish(status_of(ttl_s))
                return
            renewal.answer = header + LeaseKeepAliveResponse(ID=renewal.lease, TTL=ttl_s).SerializeToString()
            self._send_answers()

        self._node.renew_lease(renewal.lease, answer)

    def _send_answers(self) -> None:
        renewals = self._renewals
        while renewals and (answer := renewals[0].answer) is not None:
            renewals.popleft()
            self._stream.send(answer)
        self._read_or_wait()
        self._finish_when_done()

    def _read_or_wait(self) -> None:
        full = len(self._renewals) >= RENEWALS_WAITING_MAX or self._stream.unsent_bytes > UNSENT_BYTES_MAX
        if full and not self._paused:
            self._paused = True
            self._stream.pause_reading()
        elif self._paused and not full:
            self._paused = False
            self._stream.resume_reading()

    def on_half_close(self) -> None:
        """End the stream once all that was asked is answered."""
        self._half_closed = True
        self._finish_when_done()

    def on_drained(self) -> None:
        """Read on, if it was unread answers that kept the stream from being read."""
        self._read_or_wait()

    def on_closed(self, status: Status) -> None:
        """Forget the stream: answers on their way are ignored by it."""

    def _finish_when_done(self) -> None:
        if self._half_closed and not self._renewals:
            self._stream.finish(OK)
