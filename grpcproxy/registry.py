"""RegistryActor: this proxy among the others that share a prefix.

It keeps a key with its address there, on a lease, and follows the keys of the others.  Keys and values are those of
etcd's client package ``naming/endpoints``, so that proxies of etcd and these see each other.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Final, final

from google.protobuf.message import DecodeError

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from actors.messages.serve import Answered
from grpcproxy.messages import (
    CloseStream,
    Forward,
    OpenStream,
    ProxiesAre,
    RegistryMessage,
    SendOn,
    StreamEnded,
    StreamGot,
    StreamOpened,
)
from grpcproxy.namespace import prefix_end
from net.rpc import Code, Status
from proto.kv_pb2 import Event
from proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

if TYPE_CHECKING:
    import structlog

    from actors.address import Address
    from grpcproxy.messages import FrontMessage, UpstreamMessage
    from grpcproxy.settings import Front

RETRY_S: Final = 1.0
"""Etcd's."""

CALL_TIMEOUT_S: Final = 5.0


class CallToken(IntEnum):
    """The calls that may be under way."""

    GRANT = 0
    PUT = 1
    LIST = 2
    REVOKE = 3


LEASE_STREAM: Final = 0
WATCH_STREAM: Final = 1


@final
class RegistryActor(NodeActor[RegistryMessage]):
    """Registers this proxy, and knows the others.

    Owns: the lease, what is registered.  Tells: UpstreamActor, FrontActor.  Fails when: never by itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        settings: Front,
        upstream: Address[UpstreamMessage],
        front: Address[FrontMessage],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        super().__init__(home)
        self._settings = settings
        self._upstream = upstream
        self._front = front
        self._logger = logger
        self._prefix = settings.namespace + settings.resolver_prefix.encode() + b"/"
        self._lease = 0
        self._lease_stream_open = False
        self._registering = False
        self._register_at_s = 0.0
        self._renew_at_s: float | None = None
        """None while not registered."""
        self._expires_s = 0.0
        self._now_s = 0.0
        self._following = False
        self._follow_at_s = 0.0
        self._revision = 0
        self._proxies: dict[bytes, tuple[str, str]] = {}

    def handle(self, message: RegistryMessage) -> None:
        """Take one message."""
        match message:
            case Tick():
                self._tick(message.now_s)
            case Answered():
                try:
                    self._take(message.token, message.outcome)
                except DecodeError as error:
                    self._take(message.token, Status(Code.INTERNAL, str(error)))
            case StreamOpened():
                if message.number == WATCH_STREAM:
                    self._watch()
            case StreamGot():
                self._take_message(message)
            case StreamEnded():
                if message.number == WATCH_STREAM:
                    self._stop_following(message.status.message)
                else:
                    self._lease_stream_open = False  # opened again for the next renewal

    def teardown(self) -> None:
        """Let the lease go, so that nobody is sent here any more."""
        if self._lease:
            self._call(
                CallToken.REVOKE,
                "/etcdserverpb.Lease/LeaseRevoke",
                LeaseRevokeRequest(ID=self._lease).SerializeToString(),
            )

    def _tick(self, now_s: float) -> None:
        self._now_s = now_s
        if self._renew_at_s is None:
            if not self._registering and now_s >= self._register_at_s:
                self._registering = True
                grant = LeaseGrantRequest(TTL=self._settings.resolver_ttl_s)
                self._call(CallToken.GRANT, "/etcdserverpb.Lease/LeaseGrant", grant.SerializeToString())
        elif now_s > self._expires_s:
            self._logger.warning("this proxy's lease has expired; it registers anew")
            self._close_session()
        elif now_s >= self._renew_at_s:
            self._renew_at_s = now_s + self._settings.resolver_ttl_s / 3
            request = LeaseKeepAliveRequest(ID=self._lease).SerializeToString()
            if not self._lease_stream_open:
                self._lease_stream_open = True
                method = "/etcdserverpb.Lease/LeaseKeepAlive"
                self._upstream.tell(OpenStream(LEASE_STREAM, method, (), None, self.actor_ref))
            self._upstream.tell(SendOn(LEASE_STREAM, self.actor_ref, request))
        if not self._following and now_s >= self._follow_at_s:
            self._following = True
            listing = RangeRequest(key=self._prefix, range_end=prefix_end(self._prefix), serializable=True)
            self._call(CallToken.LIST, "/etcdserverpb.KV/Range", listing.SerializeToString())

    def _call(self, token: int, method: str, body: bytes) -> None:
        self._upstream.tell(Forward(token, method, body, (), CALL_TIMEOUT_S, self.actor_ref))

    def _take(self, token: int, outcome: object) -> None:
        if isinstance(outcome, Status):
            if token in {CallToken.GRANT, CallToken.PUT}:
                self._logger.warning("this proxy cannot be registered yet", error=outcome.message)
                self._close_session()
            elif token == CallToken.LIST:
                self._stop_following(outcome.message)
            return
        assert isinstance(outcome, bytes), outcome
        match token:
            case CallToken.GRANT:
                self._lease = LeaseGrantResponse.FromString(outcome).ID
                address = self._settings.advertise_client_url
                put = PutRequest(
                    key=self._prefix + address.encode(),
                    value=encode_endpoint(address, self._settings.host_name),
                    lease=self._lease,
                )
                self._call(CallToken.PUT, "/etcdserverpb.KV/Put", put.SerializeToString())
            case CallToken.PUT:
                self._registering = False
                ttl_s = self._settings.resolver_ttl_s
                self._renew_at_s = self._now_s + ttl_s / 3
                self._expires_s = self._now_s + ttl_s
                self._logger.info(
                    "registered this proxy",
                    address=self._settings.advertise_client_url,
                    ttl_s=ttl_s,
                    lease_id=self._lease,
                )
            case CallToken.LIST:
                listed = RangeResponse.FromString(outcome)
                self._revision = listed.header.revision
                self._proxies = {}
                for pair in listed.kvs:
                    self._learn(pair.key, pair.value)
                self._tell_proxies()
                self._upstream.tell(OpenStream(WATCH_STREAM, "/etcdserverpb.Watch/Watch", (), None, self.actor_ref))

    # -- the lease ---------------------------------------------------------------------------------------------------

    def _close_session(self) -> None:
        if self._lease_stream_open:
            self._lease_stream_open = False
            self._upstream.tell(CloseStream(LEASE_STREAM, self.actor_ref))
        self._renew_at_s = None
        self._registering = False
        self._lease = 0
        self._register_at_s = self._now_s + RETRY_S

    # -- the others --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        create = WatchCreateRequest(
            key=self._prefix, range_end=prefix_end(self._prefix), start_revision=self._revision + 1
        )
        body = WatchRequest(create_request=create).SerializeToString()
        self._upstream.tell(SendOn(WATCH_STREAM, self.actor_ref, body))

    def _take_message(self, message: StreamGot) -> None:
        try:
            if message.number == LEASE_STREAM:
                ttl_s = LeaseKeepAliveResponse.FromString(message.body).TTL
                if ttl_s <= 0:
                    self._logger.warning("this proxy's lease has expired; it registers anew")
                    self._close_session()
                else:
                    self._expires_s = self._now_s + ttl_s
                return
            answer = WatchResponse.FromString(message.body)
        except DecodeError as error:
            self._upstream.tell(CloseStream(message.number, self.actor_ref))
            if message.number == LEASE_STREAM:
                self._lease_stream_open = False  # opened again for the next renewal
            else:
                self._stop_following(str(error))
            return
        if answer.canceled:
            self._upstream.tell(CloseStream(WATCH_STREAM, self.actor_ref))
            self._stop_following(answer.cancel_reason)
            return
        for event in answer.events:
            if event.type == Event.PUT:
                self._learn(event.kv.key, event.kv.value)
            else:
                self._proxies.pop(event.kv.key, None)
        if answer.events:
            self._tell_proxies()

    def _stop_following(self, reason: str) -> None:
        self._following = False
        self._follow_at_s = self._now_s + RETRY_S
        self._logger.warning("the other proxies cannot be followed for now", reason=reason)

    def _learn(self, key: bytes, value: bytes) -> None:
        found = decode_endpoint(value)
        if found is None:
            self._logger.warning("what is registered as a proxy is none", key=key)
        else:
            self._proxies[key] = found

    def _tell_proxies(self) -> None:
        self._front.tell(ProxiesAre(tuple(self._proxies[key] for key in sorted(self._proxies))))


def encode_endpoint(address: str, name: str) -> bytes:
    """Return what is registered of a proxy."""
    metadata = json.dumps({"name": name}, separators=(",", ":"))
    return json.dumps({"Op": 0, "Addr": address, "Metadata": metadata}, separators=(",", ":")).encode()


def decode_endpoint(value: bytes) -> tuple[str, str] | None:
    """Return name and address of a proxy; None if *value* tells of none."""
    try:
        fields = json.loads(value)
        metadata = json.loads(fields["Metadata"])
        name, address = metadata["name"], fields["Addr"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (name, address) if isinstance(name, str) and isinstance(address, str) else None
