"""The registry of etcd 3.6 and later: keys below ``/_etcd/registry/TOKEN`` in any etcd or actcd.

``_config/size`` must be there before anybody comes.  Endpoints are tried one after the other.
"""

from __future__ import annotations

import queue
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from discovery.credentials import Secure, address_of, credentials_of
from discovery.registry import Listing, Registration, Unavailable
from proto.rpc_pb2 import AuthenticateRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest
from proto.rpc_pb2_grpc import AuthStub, KVStub, WatchStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from discovery.patience import Patience
    from proto.rpc_pb2 import WatchResponse

T = TypeVar("T")

PREFIX = "/_etcd/registry"
KEEPALIVE_S_MIN = 10.0
"""Shorter is not used, as in Go's gRPC: servers would disconnect whoever pings so often."""

SEND_BYTES_MAX = 2 * 1024 * 1024
"""What a max-request-bytes of 0 stands for."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where the registry is, and as whom it is asked; durations in seconds."""

    endpoints: tuple[str, ...]
    secure: Secure
    user: str = ""
    password: str = ""
    token: str = ""
    dial_timeout_s: float = 2.0
    request_timeout_s: float = 5.0
    keepalive_time_s: float = 2.0
    keepalive_timeout_s: float = 6.0
    send_bytes_max: int = 0
    receive_bytes_max: int = 0


class V3Registry:
    """A token in an etcd.  For one thread."""

    def __init__(self, service: Service, token: str, patience: Patience) -> None:
        self.name = ",".join(service.endpoints)
        self._service = service
        self._root = f"{PREFIX}/{token.strip('/')}"
        self._patience = patience
        self._first = 0
        """Which endpoint is tried first: the one that answered last."""

    def size(self) -> str | None:
        """Return how many members are needed."""
        key = f"{self._root}/_config/size".encode()
        answer = self._ask(lambda at: at.kv.Range(RangeRequest(key=key), **at.call))
        return answer.kvs[0].value.decode(errors="replace") if answer.kvs else None

    def members(self) -> Listing:
        """Return who has registered."""
        key, end = self._members()
        answer = self._ask(lambda at: at.kv.Range(RangeRequest(key=key, range_end=end), **at.call))
        found = (self._registration(kv.key, kv.value, kv.create_revision) for kv in answer.kvs)
        return Listing(tuple(found), answer.header.revision)

    def register(self, own: str, contents: str) -> None:
        """Register *own*; again does no harm."""
        key = self._members()[0] + own.encode()
        self._ask(lambda at: at.kv.Put(PutRequest(key=key, value=contents.encode()), **at.call))

    def later(self, position: int) -> Listing:
        """Wait for the next changes after *position*."""
        key, end = self._members()
        create = WatchCreateRequest(key=key, range_end=end, start_revision=position + 1)
        answer = self._ask(lambda at: at.first_events(WatchRequest(create_request=create)))
        puts = [event.kv for event in answer.events if event.type == event.PUT]
        found = (self._registration(kv.key, kv.value, kv.create_revision) for kv in puts)
        return Listing(tuple(found), answer.header.revision)

    def _members(self) -> tuple[bytes, bytes]:
        """Return the range of all members' keys."""
        return f"{self._root}/members/".encode(), f"{self._root}/members0".encode()

    def _registration(self, key: bytes, value: bytes, order: int) -> Registration:
        name = key.removeprefix(self._members()[0]).decode(errors="replace").strip()
        return Registration(name, value.decode(errors="replace").strip(), order)

    def _ask(self, question: Callable[[_Endpoint], T]) -> T:
        """Return the answer of the first endpoint that gives one."""
        endpoints = self._service.endpoints
        failures: list[str] = []
        for number in range(len(endpoints)):
            at = (self._first + number) % len(endpoints)
            try:
                answer = self._patience.wait_for(lambda at=at: self._ask_one(endpoints[at], question))  # type: ignore[misc]
            except _NoAnswer as failure:
                failures.append(str(failure))
                continue
            self._first = at
            return answer
        raise Unavailable("; ".join(failures))

    def _ask_one(self, endpoint: str, question: Callable[[_Endpoint], T]) -> T:
        try:
            with closing(_Endpoint(endpoint, self._service)) as connected:
                connected.connect()
                return question(connected)
        except grpc.FutureTimeoutError as error:
            raise _NoAnswer(f"{endpoint}: no answer within {self._service.dial_timeout_s:g} s") from error
        except grpc.RpcError as error:
            raise _NoAnswer(f"{endpoint}: {error.details()} ({error.code().name})") from error
        except OSError as error:
            raise _NoAnswer(f"{endpoint}: {error}") from error


class _NoAnswer(Exception):  # noqa: N818 - named for what happened
    """One endpoint did not answer."""


class _Endpoint:
    """A connection to one endpoint."""

    def __init__(self, endpoint: str, service: Service) -> None:
        self._service = service
        options: list[tuple[str, Any]] = [
            ("grpc.keepalive_time_ms", int(max(service.keepalive_time_s, KEEPALIVE_S_MIN) * 1000)),
            ("grpc.keepalive_timeout_ms", int(service.keepalive_timeout_s * 1000)),
            ("grpc.max_send_message_length", service.send_bytes_max or SEND_BYTES_MAX),
            ("grpc.max_receive_message_length", service.receive_bytes_max or -1),
            ("grpc.enable_http_proxy", 0),
        ]
        credentials = credentials_of(endpoint, service.secure, service.dial_timeout_s)
        address = address_of(endpoint)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            if credentials.expected_name:
                options.append(("grpc.ssl_target_name_override", credentials.expected_name))
            self._channel = grpc.secure_channel(address, credentials.channel, options)
        self.kv = KVStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._metadata = [("token", service.token)] if service.token else []

    @property
    def call(self) -> dict[str, Any]:
        """What every call is given."""
        return {"timeout": self._service.request_timeout_s, "metadata": self._metadata}

    def connect(self) -> None:
        """Wait for the connection, and log in where there is a user."""
        timeout_s = self._service.dial_timeout_s
        grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        if self._service.user:
            request = AuthenticateRequest(name=self._service.user, password=self._service.password)
            auth = AuthStub(self._channel)  # type: ignore[no-untyped-call]  # generated
            self._metadata = [("token", auth.Authenticate(request, timeout=timeout_s).token)]

    def first_events(self, request: WatchRequest) -> WatchResponse:
        """Return the first answer of a watch that has events; ends only with the connection."""
        requests: queue.SimpleQueue[WatchRequest | None] = queue.SimpleQueue()
        requests.put(request)
        watch = WatchStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        try:
            for answer in watch.Watch(iter(requests.get, None), metadata=self._metadata):
                if answer.canceled:
                    raise _NoAnswer(f"the watch was cancelled: {answer.cancel_reason}")
                if answer.events:
                    events: WatchResponse = answer
                    return events
        finally:
            requests.put(None)
        raise _NoAnswer("the watch has ended")

    def close(self) -> None:
        """Let go of it."""
        self._channel.close()
