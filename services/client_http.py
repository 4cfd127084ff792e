"""What a client listener answers over HTTP: the access rules first, then the gateway or a page.

Order and texts are those of etcd's client listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from net.websocket import wants_websocket
from services.access import PLAIN, HttpOptions, Responder, Serves, cors_headers, host_in, unknown_host
from services.additions import NO_ADDITIONS, Additions
from services.clean_paths import clean_path, redirect
from services.gateway import OLD_PREFIXES, PREFIX, Gateway
from services.status_pages import StatusPages

if TYPE_CHECKING:
    from core.metrics import Sample
    from net.rpc import HttpRequest, HttpResponder, Routes
    from services.node import Node

NAMES_NOBODY = b"CommonName of client sending a request against gateway will be ignored and not used as expected\n"


class ClientHttp:
    """Answers HTTP requests on one client listener."""

    def __init__(self, node: Node, routes: Routes, options: HttpOptions, additions: Additions = NO_ADDITIONS) -> None:
        self._node = node
        self._additions = additions
        self._options = options
        self._gateway = Gateway(node, routes, options.message_bytes_max) if options.gateway else None
        self._pages = StatusPages(node, options.profiles, options.lines, for_metrics=options.serves is Serves.METRICS)

    def samples(self) -> list[Sample]:
        """Return the numbers that are kept here."""
        return self._pages.samples()

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request (an HttpHandler)."""
        serves = self._options.serves
        if request.path == "*":
            responder.reply(200, (), b"")  # about the server as a whole, of which there is nothing to say
            return
        if serves is Serves.METRICS:
            clean = clean_path(request.path)
            if clean == request.path or request.method == "CONNECT":
                self._pages.handle(request, responder)
            else:
                redirect(clean, request, responder)
            return
        if serves is Serves.GRPC:
            responder.reply(404, PLAIN, b"404 page not found\n")
            return
        path = request.path
        for prefix in OLD_PREFIXES:
            if path.startswith(prefix):
                path = PREFIX + path.removeprefix(prefix)
        options = self._options
        if not request.secure:
            host = host_in(request)
            if options.hosts and "*" not in options.hosts and host not in options.hosts:
                responder.reply(421, PLAIN, unknown_host(host))
                return
        elif self._gateway is not None and path.startswith(PREFIX) and self._is_misled(request):
            responder.reply(400, PLAIN, NAMES_NOBODY)
            return
        origin = request.headers.get("origin", "")
        if origin and not cors_headers(options, origin) and wants_websocket(request.headers):
            # Browsers ask nobody before they open one, so it is here that foreign pages are kept out.
            responder.reply(403, PLAIN, b"Forbidden\n")
            return
        added = cors_headers(options, origin)
        if added:
            responder = Responder(responder, added)
        clean = path if request.method == "CONNECT" else clean_path(path)
        if request.method == "OPTIONS":
            responder.reply(200, (), b"")
        elif self._gateway is not None and clean + "/" == PREFIX:
            redirect(PREFIX, request, responder)
        elif clean != path:
            redirect(clean, request, responder)
        elif self._gateway is not None and path.startswith(PREFIX):
            self._gateway.handle(path, request, responder)
        else:
            page = self._additions.page(self._node, request.path)
            (page or self._pages.handle)(request, responder)

    def _is_misled(self, request: HttpRequest) -> bool:
        """Whether the client may think that its certificate says who it is."""
        return self._options.client_cert_auth and self._node.auth.enabled and bool(request.common_name)
