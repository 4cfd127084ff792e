"""What the header block of a request asks for: checked, routed, and immutable, so that it can be remembered.

Owns RFC 9113's rules for request fields (sections 8.1 to 8.3) and grpc-go's answers to requests that name no method.
Does not know of streams, and nothing here depends on one call: the deadline is kept apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from net.http2.frames import ErrorCode, StreamFaultError
from net.rpc import Code, Status
from net.tally import UNKNOWN, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from net.http2.headers import Field
    from net.rpc import Routes, StreamMethod, UnaryMethod

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_PSEUDO_FIELDS: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_GRPC_TYPE: Final = re.compile(r"application/grpc(?:[+;].*)?", re.DOTALL)
_RESERVED_NAMES: Final = frozenset(
    ("te", "grpc-encoding", "grpc-timeout", "grpc-message", "grpc-status", "grpc-message-type")
)
"""Fields of the protocol itself: no metadata."""

_TIMEOUT_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Request:
    """One meaning of a header block.

    Raises StreamFaultError (PROTOCOL_ERROR) from its constructor if the fields are malformed.
    """

    __slots__ = (
        "authority",
        "content_length",
        "encoding",
        "fields",
        "grpc",
        "metadata_fields",
        "method",
        "path",
        "quick",
        "refusal",
        "stream",
        "tally",
        "unary",
    )

    def __init__(self, fields: Sequence[Field], routes: Routes) -> None:
        pseudo = _check(fields)
        self.fields: Final = tuple(fields)
        self.method: Final = pseudo.get(b":method", b"").decode("latin-1")
        self.path: Final = _text(pseudo.get(b":path", b""))
        self.metadata_fields: Mapping[str, Sequence[str]] | None = None  # made when first asked for
        self.authority: Final = _text(pseudo.get(b":authority", b""))
        self.content_length: int | None = None
        self.encoding = "identity"
        content_type = ""
        version = UNKNOWN
        version_fault = False
        version_field = routes.tallies.version_field
        for name, value in fields:
            if name == b"content-type":
                content_type = value.decode("latin-1")
            elif name == b"grpc-encoding":
                self.encoding = _text(value)
            elif name == b"content-length":
                self.content_length = _content_length(value, self.content_length)
            elif name == version_field:
                version = _text(value)
                version_fault = version_fault or not _is_text(version)
        self.grpc: Final = _GRPC_TYPE.fullmatch(content_type) is not None
        self.tally = Tally()
        """What counts the calls; where there is no such method, for nobody."""
        self.unary: UnaryMethod | None = None
        self.stream: StreamMethod | None = None
        self.refusal: tuple[int, Status] | None = None
        """HTTP status and gRPC status for a gRPC request that goes nowhere."""
        self.quick = False
        """Whether a call may be opened without a further look: unary, and with nothing unusual about it."""
        if not self.grpc:
            return
        if self.method != "POST":
            text = f'Received a HEADERS frame with :method "{self.method}" which should be POST'
            self.refusal = (405, Status(Code.INTERNAL, text))
        else:
            self.unary = routes.unary.get(self.path)
            self.stream = routes.streams.get(self.path)
            if self.unary is None and self.stream is None:
                self.refusal = (200, unknown_method(self.path, routes))
            elif version_fault:
                self.refusal = (200, Status(Code.INVALID_ARGUMENT, routes.tallies.no_version))
            else:
                self.tally = routes.tallies.find(self.path, version)
            self.quick = self.unary is not None and not self.refusal and self.encoding in {"identity", "gzip"}

    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Return the fields as gRPC metadata; bytes that are not UTF-8 come as lone surrogates."""
        if self.metadata_fields is not None:
            return self.metadata_fields
        collected: dict[str, list[str]] = {}
        for raw_name, value in self.fields:
            name = raw_name.decode("ascii")
            if name == ":authority" or (raw_name[0] != 0x3A and name not in _RESERVED_NAMES):
                collected.setdefault(name, []).append(_text(value))
        self.metadata_fields = collected
        return collected

    def headers(self) -> Mapping[str, str]:
        """Return the fields as an HTTP/1.1 request would have them, repeated ones joined."""
        collected: dict[str, str] = {"host": self.authority} if self.authority else {}
        for raw_name, value in self.fields:
            name = raw_name.decode("ascii")
            if raw_name[0] == 0x3A or (name == "host" and self.authority):
                continue
            separator = "; " if name == "cookie" else ", "
            collected[name] = f"{collected[name]}{separator}{_text(value)}" if name in collected else _text(value)
        return collected


def unknown_method(path: str, routes: Routes) -> Status:
    """Return grpc-go's answer to a path that no route has."""
    service, slash, method = path[1:].rpartition("/")
    if not path.startswith("/") or not slash:
        return Status(Code.UNIMPLEMENTED, f'malformed method name: "{path}"')
    prefix = f"/{service}/"
    if any(route.startswith(prefix) for table in (routes.unary, routes.streams) for route in table):
        return Status(Code.UNIMPLEMENTED, f"unknown method {method} for service {service}")
    return Status(Code.UNIMPLEMENTED, f"unknown service {service}")


def parse_timeout_s(value: bytes) -> float | Status:
    """Decode a `grpc-timeout` value into seconds, or into the status that answers a malformed one."""
    text = value.decode("latin-1")
    if len(text) < 2:
        problem = f'transport: timeout string is too short: "{text}"'
    elif len(text) > 9:
        problem = f'transport: timeout string is too long: "{text}"'
    elif text[-1] not in _TIMEOUT_UNITS_S:
        problem = f'transport: timeout unit is not recognized: "{text}"'
    elif not (text[:-1].isascii() and text[:-1].isdigit()):
        problem = f'strconv.ParseUint: parsing "{text[:-1]}": invalid syntax'
    else:
        return int(text[:-1]) * _TIMEOUT_UNITS_S[text[-1]]
    return Status(Code.INTERNAL, f"malformed grpc-timeout: {problem}")


def check_trailers(fields: Sequence[Field]) -> None:
    """Raise StreamFaultError if *fields* may not end a request."""
    for name, value in fields:
        _check_field(name, value)
        if name[0] == 0x3A:
            raise _malformed("pseudo field in trailers")


def _check(fields: Sequence[Field]) -> dict[bytes, bytes]:
    """Check a request's fields as RFC 9113, sections 8.2 and 8.3 say; return its pseudo fields."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    hosts = 0
    for name, value in fields:
        _check_field(name, value)
        if name[0] != 0x3A:
            regular = True
            hosts += name == b"host"
        elif regular or name in pseudo or name not in _PSEUDO_FIELDS:
            raise _malformed("pseudo field unknown, repeated or out of place")
        else:
            pseudo[name] = value
    if b":method" not in pseudo or hosts > 1:
        raise _malformed("no :method, or several hosts")
    if pseudo[b":method"] == b"CONNECT":
        raise _malformed("CONNECT is not served")
    if b":scheme" not in pseudo or not pseudo.get(b":path"):
        raise _malformed("no :scheme or no :path")
    return pseudo


def _check_field(name: bytes, value: bytes) -> None:
    bare = name[1:] if name[:1] == b":" else name
    if _NAME.fullmatch(bare) is None:
        raise _malformed("field name with forbidden characters")
    if _BAD_VALUE.search(value) is not None:
        raise _malformed("field value with forbidden characters")
    if name in _CONNECTION_FIELDS or (name == b"te" and value != b"trailers"):
        raise _malformed("field of HTTP/1.1 connections")


def _content_length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > 18 or before not in {None, int(value)}:
        raise _malformed("bad content-length")
    return int(value)


def _malformed(reason: str) -> StreamFaultError:
    return StreamFaultError(ErrorCode.PROTOCOL_ERROR, reason)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _is_text(value: str) -> bool:
    """Whether *value*, from _text, was UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
