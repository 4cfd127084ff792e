"""Who may ask for pages: which hosts a request may name, and from which origins browsers may call.

Both rules protect people whose browser is made to call a server that trusts its network.  Spec: etcd's options
host-whitelist and cors; the Fetch standard for what the headers mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from net.rpc import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.rpc import HttpRequest, HttpResponder
    from net.websocket import WebSocket
    from services.trace_pages import LogLines

    Profile = Callable[[float], bytes]
    """Makes a profile within so many seconds."""

PLAIN: Final = (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"))
ANY: Final = "*"


class Serves(Enum):
    """What a listener is for."""

    ALL = "all"
    GRPC = "gRPC"
    HTTP = "HTTP"
    METRICS = "metrics"
    """And health."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What one client listener offers over HTTP, from the configuration."""

    serves: Serves = Serves.ALL
    gateway: bool = True
    """Whether there is a JSON gateway."""
    origins: frozenset[str] = frozenset((ANY,))
    """Origins from which browsers may call."""
    hosts: frozenset[str] = frozenset((ANY,))
    """Names that a request may give for this server; empty for any."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Pages of profiles by their names; empty for none."""
    lines: LogLines | None = None
    """Returns the newest lines of the log, for the pages of traces; without it there are none."""
    timed: bool = False
    """Whether metrics tell how long calls take."""
    client_cert_auth: bool = False
    """Whether certificates name users elsewhere: here they do not, and who relies on it is told."""
    message_bytes_max: int = Limits().receive_message_bytes_max
    """Of a message that comes as JSON, once it is none any more."""
    reflection: bool = False
    """Whether gRPC tools may ask which services there are."""


def host_in(request: HttpRequest) -> str:
    """Return the name in the Host header, without the port."""
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and ":" not in name and port.isdigit() else host


def unknown_host(host: str) -> bytes:
    """Return the page for a request that names a host which is not ours."""
    return (
        "\netcd received your request, but the Host header was unrecognized.\n\n"
        "Without TLS only known names are served, so that no page in a browser can rebind its own name to this "
        f'address (CVE-2018-5702).\nEither use TLS, or add the name: host-whitelist: "{host}"\n'
    ).encode()


class Responder:
    """An HttpResponder that adds headers to another's answer."""

    def __init__(self, responder: HttpResponder, headers: Sequence[tuple[str, str]]) -> None:
        self._responder = responder
        self._headers = headers

    @property
    def done(self) -> bool:
        """See HttpResponder."""
        return self._responder.done

    @property
    def unsent_bytes(self) -> int:
        """See HttpResponder."""
        return self._responder.unsent_bytes

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """See HttpResponder."""
        self._responder.follow(on_drained, on_closed)

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """See HttpResponder."""
        self._responder.reply(status, [*self._headers, *headers], body)

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See HttpResponder."""
        self._responder.start(status, [*self._headers, *headers])

    def write(self, chunk: bytes) -> None:
        """See HttpResponder."""
        self._responder.write(chunk)

    def end(self) -> None:
        """See HttpResponder."""
        self._responder.end()

    def upgrade(
        self,
        headers: Sequence[tuple[str, str]],
        on_message: Callable[[bytes], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> WebSocket | None:
        """See HttpResponder."""
        return self._responder.upgrade([*self._headers, *headers], on_message, on_drained, on_closed)


def cors_headers(options: HttpOptions, origin: str) -> tuple[tuple[str, str], ...]:
    """Return the headers that let a browser at *origin* call; none where it may not."""
    if ANY in options.origins:
        origin = ANY
    elif origin not in options.origins:
        return ()
    return (
        ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
        ("access-control-allow-origin", origin),
        ("access-control-allow-headers", "accept, content-type, authorization"),
    )
