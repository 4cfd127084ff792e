"""The older registry over HTTP: what is asked, how answers are read, and which of them can be waited out."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from discovery.registry import DiscoveryFailed, Listing, Registration, Unavailable
from discovery.v2 import V2Registry
from tests.fake_registry import Eager

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = [
    {"key": "/r/t/b", "value": "b=http://b:1", "createdIndex": 7, "modifiedIndex": 9},
    {"key": "/r/t/_config", "dir": True, "createdIndex": 3},
    {"key": "/r/t/a", "value": "a=http://a:1", "createdIndex": 5, "modifiedIndex": 5},
    "rubbish",
    {"key": 4},
]
FOUND = (Registration("b", "b=http://b:1", 7), Registration("a", "a=http://a:1", 5))


class Server(ThreadingHTTPServer):
    """Answers every request with the same, and remembers them."""

    def __init__(self, status: int, body: bytes, index: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = (status, body, index)
        self.asked: list[tuple[str, str, str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.server.asked.append((self.command, self.path, body, self.headers["Host"]))
        status, content, index = self.server.answer
        self.send_response(status)
        self.send_header("X-Etcd-Index", index)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET  # noqa: N815 - the base class looks for it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(document: Any, status: int = 200, index: str = "12") -> Iterator[Server]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with Server(status, body, index) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def registry(server: Server, proxy: str = "") -> V2Registry:
    return V2Registry(f"http://{server.address}/t", proxy, Eager())


def error(code: int, message: str) -> dict[str, object]:
    return {"errorCode": code, "message": message, "cause": "/r/t", "index": 11}


def test_the_size() -> None:
    """Below _config, where the service has put it."""
    with answering({"node": {"value": "3"}}) as server:
        assert registry(server).size() == "3"
        assert server.asked[0][:2] == ("GET", "/t/_config/size")
    with answering(error(100, "Key not found"), 404) as server:
        assert registry(server).size() is None
    with answering({"node": {}}) as server:
        assert registry(server).size() == ""


def test_members_are_what_lies_below_the_token_but_its_settings() -> None:
    """What makes no sense there is passed over."""
    with answering({"node": {"nodes": NODES}}) as server:
        assert registry(server).members() == Listing(FOUND, 12)
    with answering({"node": {}}, index="rubbish") as server:
        assert registry(server).members() == Listing((), 0)


def test_registering_must_be_the_first_time() -> None:
    """Who is registered already has a data directory; without it, it must not come back under the same id."""
    with answering({"node": NODES[0]}, 201) as server:
        registry(server).register("a", "a=http://a:1")
        assert server.asked[0][:3] == ("PUT", "/t/a?prevExist=false", "value=a%3Dhttp%3A%2F%2Fa%3A1")
    with answering(error(105, "Key already exists"), 412) as server, pytest.raises(DiscoveryFailed) as failed:
        registry(server).register("a", "a=http://a:1")
    assert str(failed.value) == "discovery: found duplicate id"
    refusal = error(110, "The request requires user authentication")
    with answering(refusal, 401) as server, pytest.raises(DiscoveryFailed) as failed:
        registry(server).register("a", "a=http://a:1")
    assert str(failed.value) == "110: The request requires user authentication (/r/t) [11]"


def test_waiting_for_the_next() -> None:
    """From the position of the listing on, so that nobody is missed in between."""
    with answering({"node": NODES[0]}) as server:
        assert registry(server).later(8) == Listing(FOUND[:1], 9)
        assert server.asked[0][1] == "/t?wait=true&waitIndex=9&recursive=true"
    with answering(
        {"node": {"key": "/r/t/_config/size", "value": "3", "modifiedIndex": 4, "createdIndex": 4}}
    ) as server:
        assert registry(server).later(3) == Listing((), 4)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"node": 4}', b"[" * 100_000])
def test_who_is_no_registry(body: bytes) -> None:
    """A wrong URL is said at once, not tried again for ever."""
    with answering(body) as server, pytest.raises(DiscoveryFailed, match="discovery: bad discovery endpoint"):
        registry(server).size()


def test_what_may_pass() -> None:
    """A server that has trouble, or that is not there."""
    with answering(b"", 503) as server, pytest.raises(Unavailable, match="503"):
        registry(server).size()
    with pytest.raises(Unavailable, match="refused"):
        registry(server).size()
    with pytest.raises(Unavailable):
        V2Registry("http://nowhere.invalid/t", "", Eager()).size()


def test_a_proxy_is_told_the_whole_address() -> None:
    """With its scheme or without; the registry itself need not be reachable from here."""
    for scheme in ("http://", ""):
        with answering({"node": {"value": "3"}}) as proxy:
            asked = V2Registry("http://nowhere.invalid/t", scheme + proxy.address, Eager())
            assert asked.size() == "3"
            assert proxy.asked[0][1] == "http://nowhere.invalid:80/t/_config/size"
            assert proxy.asked[0][3] == "nowhere.invalid:80"


def test_a_proxy_is_asked_for_a_tunnel_to_a_secured_registry() -> None:
    """It must not see what is said; one that refuses is the trouble of the way, and may pass."""
    with answering({}, 403) as proxy:
        proxy.RequestHandlerClass.do_CONNECT = Handler.do_GET  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match="403"):
            V2Registry("https://nowhere.invalid/t", proxy.address, Eager()).size()
        assert proxy.asked[0][:2] == ("CONNECT", "nowhere.invalid:443")
