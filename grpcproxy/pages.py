"""The HTTP pages of the proxy: its own health and numbers, and those of the cluster behind it.

Paths and texts are those of etcd's proxy.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from core.errors import PermissionDenied
from net.rpc import Status
from proto.rpc_pb2 import RangeRequest, WatchCreateRequest, WatchRequest
from services.debug_pages import INDEX, PREFIX, seconds_in
from services.exposition import content_type, exposition
from services.health_checks import TEXT
from services.status_pages import NO_SNIFF, PLAIN, reply_health

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from core.metrics import Sample
    from net.rpc import HttpRequest, HttpResponder
    from services.access import Profile

PROBED_KEY: Final = b"a"
HEALTH_TIMEOUT_S: Final = 1.0
WATCH_TIMEOUT_S: Final = 3.0
METRICS_TIMEOUT_S: Final = 5.0
PROM_TEXT: Final = ("content-type", "text/plain; version=0.0.4")


class Probes(Protocol):
    """What the pages ask of the front."""

    def probe_range(self, body: bytes, timeout_s: float, then: Callable[[bytes | Status], None]) -> None:
        """Have a member answer a range, as a client's without a token."""

    def probe_watch(self, body: bytes, timeout_s: float, then: Callable[[bool], None]) -> None:
        """Open a watcher as a client would; *then* hears whether it was there in time."""

    def gather(self, then: Callable[[Sequence[Sample]], None]) -> None:
        """Look up the numbers of all actors."""

    def work(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """Run *job* on a thread."""


class Fetch(Protocol):
    """Fetches a page of the members."""

    def __call__(self) -> bytes | None:
        """Return it; None if no member has given it."""


class ProxyPages:
    """Answers HTTP requests."""

    def __init__(
        self, probes: Probes, fetch_metrics: Fetch, profiles: Mapping[str, Profile], *, advertised: bool
    ) -> None:
        self._probes = probes
        self._fetch_metrics = fetch_metrics
        self._profiles = profiles
        self._advertised = advertised
        self._pages: dict[str, Callable[[HttpRequest, HttpResponder], None]] = {
            "/health": self._health,
            "/proxy/health": self._proxy_health,
            "/metrics": self._metrics,
            "/proxy/metrics": self._proxy_metrics,
        }

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request (an HttpHandler)."""
        page = self._pages.get(request.path)
        if page is None and self._profiles and request.path.startswith(PREFIX):
            page = self._profile(request.path.removeprefix(PREFIX))
        if page is None:
            responder.reply(404, [PLAIN, NO_SNIFF], b"404 page not found\n")
        elif request.method != "GET" and request.path.endswith("health"):
            responder.reply(405, [("allow", "GET"), PLAIN, NO_SNIFF], b"Method Not Allowed\n")
        else:
            page(request, responder)

    def _health(self, _request: HttpRequest, responder: HttpResponder) -> None:
        self._probe(partial(reply_health, responder))

    def _probe(self, then: Callable[[str], None]) -> None:
        """Read a key; *then* gets why that did not work, nothing if it did."""

        def end(outcome: bytes | Status) -> None:
            # A member that says that this may not be read is healthy.
            sick = isinstance(outcome, Status) and outcome.message != PermissionDenied.text
            then(f"GET ERROR:{outcome.message}" if sick and isinstance(outcome, Status) else "")

        self._probes.probe_range(RangeRequest(key=PROBED_KEY).SerializeToString(), HEALTH_TIMEOUT_S, end)

    def _proxy_health(self, _request: HttpRequest, responder: HttpResponder) -> None:
        if not self._advertised:
            reply_health(responder, "no connection to proxy")
            return

        def with_range(reason: str) -> None:
            if reason:
                reply_health(responder, reason)
                return
            create = WatchCreateRequest(key=PROBED_KEY)
            self._probes.probe_watch(
                WatchRequest(create_request=create).SerializeToString(),
                WATCH_TIMEOUT_S,
                lambda there: reply_health(responder, "" if there else "WATCH TIMEOUT"),
            )

        self._probe(with_range)

    def _metrics(self, _request: HttpRequest, responder: HttpResponder) -> None:
        def end(page: object) -> None:
            if isinstance(page, bytes):
                responder.reply(200, [PROM_TEXT], page)
            else:
                responder.reply(500, [PLAIN, NO_SNIFF], b"Internal server error\n")

        self._probes.work(self._fetch_metrics, end)

    def _proxy_metrics(self, request: HttpRequest, responder: HttpResponder) -> None:
        accept = request.headers.get("accept", "")

        def write(samples: Sequence[Sample]) -> None:
            def end(page: object) -> None:
                assert isinstance(page, bytes), page
                responder.reply(200, [("content-type", content_type(accept))], page)

            self._probes.work(partial(exposition, samples, accept, zipped=False), end)

        self._probes.gather(write)

    def _profile(self, name: str) -> Callable[[HttpRequest, HttpResponder], None] | None:
        if not name:
            return lambda _request, responder: responder.reply(200, TEXT, INDEX)
        if name == "cmdline":
            return lambda _request, responder: responder.reply(200, TEXT, "\0".join(sys.argv).encode())
        job = self._profiles.get(name)
        if job is None:
            return None

        def run(request: HttpRequest, responder: HttpResponder) -> None:
            def end(page: object) -> None:
                assert isinstance(page, bytes), page
                responder.reply(200, TEXT, page)

            self._probes.work(partial(job, seconds_in(request.query)), end)

        return run


def fetch_page(endpoints: Sequence[str], path: str, context: ssl.SSLContext | None) -> bytes | None:
    """Return *path* of the first of *endpoints* that gives it; blocks for seconds."""
    scheme = "http" if context is None else "https"
    for endpoint in endpoints:
        if endpoint.startswith("unix:"):
            continue
        try:
            with urllib.request.urlopen(  # noqa: S310 - the scheme is ours
                f"{scheme}://{endpoint}{path}", timeout=METRICS_TIMEOUT_S, context=context
            ) as answer:
                page: bytes = answer.read()
                return page
        except (OSError, ValueError, urllib.error.URLError):
            continue
    return None
