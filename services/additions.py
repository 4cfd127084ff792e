"""What extensions add to a client listener: gRPC methods and pages of their own, and eyes for its calls.

Knows who calls, as the built-in methods do; what is called belongs to the extension, which is told by way of the actor
that looks after extensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from core.auth.rules import NOBODY, Identity
from net.rpc import Routes
from services.errors import status_of
from services.gateway_calls import refuse
from services.observed import CallSeen, Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.clock import Clock
    from core.errors import EtcdError
    from net.rpc import (
        Call,
        HttpHandler,
        HttpRequest,
        HttpResponder,
        Status,
        Stream,
        StreamMethod,
        UnaryMethod,
    )
    from services.node import Node

    States = Sequence[dict[str, object]]

BUILT_IN_SERVICES: Final = ("etcdserverpb.", "v3lockpb.", "v3electionpb.", "grpc.", "v3rpc.")
BUILT_IN_PAGES: Final = ("/v3/", "/v3beta/", "/v3alpha/", "/debug/", "/livez/", "/readyz/", "/raft/", "/members/")
"""Everything below these."""
BUILT_IN_PATHS: Final = frozenset(
    ("/", "/v3", "/health", "/livez", "/readyz", "/version", "/metrics", "/raft", "/members", "/v3beta", "/v3alpha")
)


class Carrier(Protocol):
    """Takes to an extension what a listener has for it, and knows how extensions are."""

    def ask_page(self, number: int, request: HttpRequest, identity: Identity, responder: HttpResponder, /) -> None:
        """Have the extension *number* answer a request."""

    def ask_method(self, number: int, call: Call, payload: bytes, identity: Identity, /) -> None:
        """Have the extension *number* answer a call."""

    def open_stream(self, number: int, stream: Stream, identity: Identity, /) -> None:
        """Have the extension *number* serve a stream."""

    def client_said(self, stream: Stream, message: bytes | None, /) -> None:
        """Pass on what a client has sent; None if it will send no more."""

    def client_left(self, stream: Stream, status: Status, /) -> None:
        """Tell that a stream is over."""

    def saw(self, seen: CallSeen, /) -> None:
        """Tell those who want to know of a call that has ended."""

    def describe(self, then: Callable[[States], None], /) -> None:
        """Give *then* how the extensions are."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What the extensions of this member add; none by default."""

    carrier: Carrier | None = None
    clock: Clock | None = None
    methods: Mapping[str, int] = field(default_factory=dict)
    """Full paths of unary gRPC methods, and the number of the extension that each belongs to."""
    streams: Mapping[str, int] = field(default_factory=dict)
    """The same of streaming ones."""
    pages: Mapping[str, int] = field(default_factory=dict)
    """Paths; one that ends in a slash stands for all below it."""
    observes: bool = False
    """Whether any extension wants to hear of calls."""

    def routes(self, node: Node, routes: Routes) -> Routes:
        """Return *routes* with those of the extensions, observed if that is wanted."""
        if self.carrier is None:
            return routes
        added = {path: self._method(node, self.carrier, number) for path, number in self.methods.items()}
        opened = {path: self._stream(node, self.carrier, number) for path, number in self.streams.items()}
        routes = Routes({**routes.unary, **added}, {**routes.streams, **opened}, routes.tallies)
        if not self.observes:
            return routes
        assert self.clock is not None, "nobody to tell the time of calls"
        return Observer(node, self.clock, self.carrier.saw).observed(routes)

    def seeing_refusals(self, node: Node, routes: Routes) -> Routes:
        """Return *routes*, the last form of them, so that what reaches none of them is observed too, if anything is."""
        if not self.observes or self.carrier is None:
            return routes
        assert self.clock is not None, "nobody to tell the time of calls"
        return replace(routes, on_refused=Observer(node, self.clock, self.carrier.saw).refused)

    def page(self, node: Node, path: str) -> HttpHandler | None:
        """Return what answers *path*, if an extension does."""
        if not self.pages:
            return None
        number = self.pages.get(path)
        while number is None and len(path) > 1:
            path = path.rstrip("/").rpartition("/")[0] + "/"
            number = self.pages.get(path)
        if number is None or self.carrier is None:
            return None
        carrier, found = self.carrier, number

        def handle(request: HttpRequest, responder: HttpResponder) -> None:
            def then(identity: Identity) -> None:
                carrier.ask_page(found, request, identity, responder)

            if node.auth.enabled:
                node.identify(_Visit(request), then, lambda error: refuse(responder, status_of(error)))
            else:
                then(NOBODY)

        return handle

    def describe(self, then: Callable[[States], None]) -> None:
        """Give *then* how the extensions are."""
        if self.carrier is None:
            then(())
        else:
            self.carrier.describe(then)

    def _stream(self, node: Node, carrier: Carrier, number: int) -> StreamMethod:
        return lambda stream: _Carried(node, carrier, number, stream)

    def _method(self, node: Node, carrier: Carrier, number: int) -> UnaryMethod:
        def method(call: Call, payload: bytes) -> None:
            def then(identity: Identity) -> None:
                carrier.ask_method(number, call, payload, identity)

            def refused(error: EtcdError) -> None:
                call.fail(status_of(error))

            if node.auth.enabled:
                node.identify(call, then, refused)
            else:
                then(NOBODY)

        return method


class _Carried:
    """Carries a stream to an extension, once it is known who has opened it."""

    def __init__(self, node: Node, carrier: Carrier, number: int, stream: Stream) -> None:
        self._carrier = carrier
        self._number = number
        self._stream = stream
        self._early: list[bytes | None] = []
        self._opened = self._closed = False
        if node.auth.enabled:
            stream.pause_reading()
            node.identify(stream, self._open, lambda error: stream.finish(status_of(error)))
        else:
            self._open(NOBODY)

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        self._say(message)

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self._say(None)

    def on_drained(self) -> None:
        """See StreamHandler."""

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self._closed = True
        if self._opened:
            self._carrier.client_left(self._stream, status)

    def _open(self, identity: Identity) -> None:
        if self._closed:
            return
        self._opened = True
        self._carrier.open_stream(self._number, self._stream, identity)
        self._stream.resume_reading()
        for message in self._early:
            self._carrier.client_said(self._stream, message)
        self._early.clear()

    def _say(self, message: bytes | None) -> None:
        if self._opened:
            self._carrier.client_said(self._stream, message)
        else:
            self._early.append(message)


class _Visit:
    """Who asks for a page, as identify() looks at callers: by token, or by certificate."""

    deadline_s: float | None = None

    def __init__(self, request: HttpRequest) -> None:
        self.method = request.path
        self.peer = request.peer
        self.common_name = request.common_name
        token = request.headers.get("authorization")
        self.metadata: Mapping[str, Sequence[str]] = {} if token is None else {"authorization": (token,)}


def method_fault(path: str) -> str | None:
    """Return why an extension may not have this gRPC method, None if it may."""
    service, _, name = path.removeprefix("/").partition("/")
    if not path.startswith("/") or not service or not name or "/" in name:
        return f"{path} is no gRPC method: it must look like /package.Service/Method"
    if service.startswith(BUILT_IN_SERVICES):
        return f"{path} belongs to a service of the server itself"
    return None


def page_fault(path: str) -> str | None:
    """Return why an extension may not have this page, None if it may."""
    if not path.startswith("/") or "?" in path or "//" in path:
        return f"{path} is no path: it must begin with a slash, and have no query"
    if path in BUILT_IN_PATHS or f"{path}/" in BUILT_IN_PATHS or path.startswith(BUILT_IN_PAGES):
        return f"{path} is a page of the server itself"
    return None


NO_ADDITIONS: Final = Additions()
