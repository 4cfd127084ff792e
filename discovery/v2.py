"""The registry of etcd 3.5 and before: a discovery URL, spoken to over HTTP in the terms of etcd's v2 key API.

The URL's path is the token.  ``etcd-discovery`` serves it, and any etcd with its v2 API on below ``/v2/keys``.  There
may be an HTTP proxy in between.  Each request has a connection of its own.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from discovery.registry import (
    BAD_ENDPOINT,
    DUPLICATE_ID,
    DiscoveryFailed,
    Listing,
    Registration,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from discovery.patience import Patience

REQUEST_TIMEOUT_S = 5.0
KEEPALIVE_S = 30
"""How soon it is noticed that a registry which is waited for is gone without a word."""

ANSWER_BYTES_MAX = 1 << 20
KEY_NOT_FOUND = 100
NODE_EXISTS = 105
INDEX_CLEARED = 401
_CONFIG = "_config"
_HTTP_SERVER_ERRORS = 500
_HTTP_OK_BELOW = 300


class Answer(NamedTuple):
    """What came back: a document, and how far the registry is."""

    document: Mapping[str, Any]
    position: int
    is_error: bool


class V2Registry:
    """A token behind a discovery URL.  For one thread."""

    def __init__(self, url: str, proxy: str, patience: Patience) -> None:
        """*url* and *proxy* are as the configuration has checked them; *proxy* may be empty."""
        parts = urlsplit(url)
        self.name = url
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname or "", parts.port or (443 if self._secure else 80))
        self._token = "/" + parts.path.strip("/")
        self._proxy = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
        self._patience = patience

    def size(self) -> str | None:
        """Return how many members are needed."""
        answer = self._ask("GET", f"/{_CONFIG}/size")
        if answer.is_error:
            if answer.document.get("errorCode") == KEY_NOT_FOUND:
                return None
            raise DiscoveryFailed(_error_text(answer))
        value = _node(answer).get("value")
        return value if isinstance(value, str) else ""

    def members(self) -> Listing:
        """Return who has registered."""
        answer = self._ask("GET", "")
        if answer.is_error:
            raise DiscoveryFailed(_error_text(answer))
        nodes = _node(answer).get("nodes", [])
        found = tuple(_registrations(nodes if isinstance(nodes, list) else []))
        return Listing(found, answer.position)

    def register(self, own: str, contents: str) -> None:
        """Register *own*, which must not be there already: whoever was, has a data directory or needs a new token."""
        answer = self._ask("PUT", f"/{own}", {"prevExist": "false"}, {"value": contents})
        if not answer.is_error:
            return
        code = answer.document.get("errorCode")
        raise DiscoveryFailed(DUPLICATE_ID if code == NODE_EXISTS else _error_text(answer))

    def later(self, position: int) -> Listing:
        """Wait for the next change after *position*."""
        query = {"wait": "true", "waitIndex": str(position + 1), "recursive": "true"}
        answer = self._ask("GET", "", query, timeout_s=None)
        if answer.is_error:
            if answer.document.get("errorCode") == INDEX_CLEARED:
                return self.members()  # the registry has forgotten what happened so long ago
            raise DiscoveryFailed(_error_text(answer))
        node = _node(answer)
        index = node.get("modifiedIndex")
        return Listing(tuple(_registrations([node])), index if isinstance(index, int) else position + 1)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        timeout_s: float | None = REQUEST_TIMEOUT_S,
    ) -> Answer:
        target = quote(self._token + path) + (f"?{urlencode(query)}" if query else "")
        body = None if form is None else urlencode(form)
        try:
            return self._patience.wait_for(lambda: self._exchange(method, target, body, timeout_s))
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(str(error) or type(error).__name__) from error

    def _exchange(self, method: str, target: str, body: str | None, timeout_s: float | None) -> Answer:
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(timeout_s)
            if timeout_s is None:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
            if self._proxy is not None and not self._secure:
                target = f"http://{self._authority()}{target}"
                headers["Host"] = self._authority()
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX + 1)
        finally:
            connection.close()
        return _read(response, data)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._proxy is not None:
            proxy = (self._proxy.hostname or "", self._proxy.port or 80)
            if not self._secure:
                return http.client.HTTPConnection(*proxy, timeout=REQUEST_TIMEOUT_S)
            tunnelled = http.client.HTTPSConnection(*proxy, timeout=REQUEST_TIMEOUT_S, context=_trusting())
            tunnelled.set_tunnel(host, port)
            return tunnelled
        if self._secure:
            return http.client.HTTPSConnection(host, port, timeout=REQUEST_TIMEOUT_S, context=_trusting())
        return http.client.HTTPConnection(host, port, timeout=REQUEST_TIMEOUT_S)

    def _authority(self) -> str:
        host, port = self._address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read(response: http.client.HTTPResponse, data: bytes) -> Answer:
    """Return the document in *data*; Unavailable for a server's own failure, DiscoveryFailed for no such server."""
    if response.status >= _HTTP_SERVER_ERRORS:
        raise Unavailable(f"the registry answers {response.status} {response.reason}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DiscoveryFailed(BAD_ENDPOINT) from error
    if len(data) > ANSWER_BYTES_MAX or not isinstance(document, dict):
        raise DiscoveryFailed(BAD_ENDPOINT)
    index = response.headers.get("X-Etcd-Index", "0")
    usable = index.isascii() and index.isdigit()
    return Answer(document, int(index[:20]) if usable else 0, response.status >= _HTTP_OK_BELOW)


def _node(answer: Answer) -> Mapping[str, Any]:
    node = answer.document.get("node")
    if not isinstance(node, dict):
        raise DiscoveryFailed(BAD_ENDPOINT)
    return node


def _registrations(nodes: list[Any]) -> Iterator[Registration]:
    for node in nodes:
        if not isinstance(node, dict):
            continue
        key, value, order = node.get("key"), node.get("value"), node.get("createdIndex")
        if not isinstance(key, str) or not isinstance(value, str) or not isinstance(order, int):
            continue
        name = key.rpartition("/")[2]
        if name != _CONFIG and f"/{_CONFIG}/" not in key:
            yield Registration(name, value, order)


def _error_text(answer: Answer) -> str:
    document = answer.document
    shown: Callable[[str], object] = lambda name: document.get(name, "")  # noqa: E731 - shorter than four lines of it
    return f"{shown('errorCode')}: {shown('message')} ({shown('cause')}) [{shown('index')}]"
