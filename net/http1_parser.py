"""The bytes of HTTP/1.1 requests: heads, bodies with a length or in chunks, and what is wrong with them.

Pure: fed with bytes, it returns whole requests.  Strict where leniency has let requests be smuggled: no bare CR or
LF, no folded lines, no two lengths, nothing but `chunked` as a transfer coding.  Spec: RFC 9110 and 9112.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

REQUEST_LINE_BYTES_MAX: Final = 8192
CHUNK_LINE_BYTES_MAX: Final = 256

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/(\d\.\d)")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00\r\n]*?)[ \t]*")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


class HttpFaultError(Exception):
    """The bytes are no request that is taken here; the connection ends with *status*."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(slots=True)
class Head:
    """A request; the body is set when it is complete."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    query: str
    version: str
    headers: dict[str, str]
    keep_alive: bool
    body: bytes = b""


class RequestParser:
    """Cuts one connection's bytes into requests."""

    def __init__(self, head_bytes_max: int, body_bytes_max: int) -> None:
        self.expects_continue = False
        """Whether the client waits for a word before it sends the body; cleared by whoever sends it."""
        self._head_bytes_max = head_bytes_max
        self._body_bytes_max = body_bytes_max
        self._buffer = bytearray()
        self._head: Head | None = None
        self._length: int | None = None
        self._body = bytearray()
        self._in_trailers = False

    @property
    def begun(self) -> bool:
        """Whether a request has begun that is not complete."""
        return self._head is not None or bool(self._buffer)

    @property
    def buffered_bytes(self) -> int:
        """What has been fed and belongs to no request yet."""
        return len(self._buffer)

    @property
    def in_body(self) -> bool:
        """Whether a request's head has been read, but not yet its body."""
        return self._head is not None

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        self._buffer += data

    def next_head(self) -> Head | None:
        """Return the next request without its body, which is yet to be read; None.  Raises HttpFaultError."""
        if self._head is None:
            self._read_head()
        return self._head

    def take_rest(self) -> bytes:
        """Remove and return what was fed and not read, for whoever reads on from here."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def next_request(self) -> Head | None:
        """Return the next complete request, or None.  Raises HttpFaultError; nothing can be read after that."""
        head = self.next_head()
        if head is None or not (self._read_chunks() if self._length is None else self._read_length(self._length)):
            return None
        head.body = bytes(self._body)
        self._body.clear()
        self._head = None
        self._in_trailers = False
        self.expects_continue = False
        return head

    def _read_head(self) -> None:
        # An empty line or two before a request is forgiven (RFC 9112, section 2.2).
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, self._head_bytes_max + 4)
        line_end = self._buffer.find(b"\r\n", 0, REQUEST_LINE_BYTES_MAX + 2)
        if line_end < 0 and len(self._buffer) > REQUEST_LINE_BYTES_MAX:
            raise HttpFaultError(HTTPStatus.REQUEST_URI_TOO_LONG)
        if end < 0:
            if len(self._buffer) > self._head_bytes_max:
                raise HttpFaultError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            if b"\n" in self._buffer.replace(b"\r\n", b""):
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            return
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._head = self._parse_head(lines[0], _parse_fields(lines[1:]))

    def _parse_head(self, line: bytes, headers: dict[str, str]) -> Head:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        method, target, version = (part.decode("latin-1") for part in match.groups())
        if version not in {"1.0", "1.1"}:
            raise HttpFaultError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if method not in _METHODS:
            raise HttpFaultError(HTTPStatus.NOT_IMPLEMENTED)
        if version == "1.1" and "host" not in headers:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        path, query = _parse_target(method, target)
        self._length = self._body_length(headers, version)
        options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
        keep_alive = "close" not in options and (version == "1.1" or "keep-alive" in options)
        expectation = headers.get("expect", "").lower()
        if expectation not in {"", "100-continue"}:
            raise HttpFaultError(HTTPStatus.EXPECTATION_FAILED)
        self.expects_continue = bool(expectation) and version == "1.1"
        return Head(method, path, query, version, headers, keep_alive)

    def _body_length(self, headers: dict[str, str], version: str) -> int | None:
        """Return the body's length; None if it comes in chunks."""
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None:
            if length is not None or version == "1.0":
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            if coding.lower() != "chunked":
                raise HttpFaultError(HTTPStatus.NOT_IMPLEMENTED)
            return None
        if length is None:
            return 0
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        if int(length) > self._body_bytes_max:
            raise HttpFaultError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return int(length)

    def _read_length(self, length: int) -> bool:
        missing = length - len(self._body)
        self._body += self._buffer[:missing]
        del self._buffer[:missing]
        return len(self._body) == length

    def _read_chunks(self) -> bool:
        while not self._in_trailers:
            line_end = self._line_end()
            if line_end < 0:
                return False
            match = _CHUNK_SIZE.fullmatch(self._buffer, 0, line_end)
            if match is None:
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            size = int(match[1], 16)
            if len(self._body) + size > self._body_bytes_max:
                raise HttpFaultError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            start = line_end + 2
            if size == 0:
                self._in_trailers = True
                del match
                del self._buffer[:start]
                break
            if len(self._buffer) < start + size + 2:
                return False
            if self._buffer[start + size : start + size + 2] != b"\r\n":
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            self._body += self._buffer[start : start + size]
            del match
            del self._buffer[: start + size + 2]
        return self._read_trailers()

    def _read_trailers(self) -> bool:
        """Skip the trailers (RFC 9110, section 6.5.1 allows it)."""
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            return True
        end = self._buffer.find(b"\r\n\r\n", 0, self._head_bytes_max + 4)
        if end < 0:
            if len(self._buffer) > self._head_bytes_max:
                raise HttpFaultError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return False
        _parse_fields(bytes(self._buffer[:end]).split(b"\r\n"))
        del self._buffer[: end + 4]
        return True

    def _line_end(self) -> int:
        line_end = self._buffer.find(b"\r\n", 0, CHUNK_LINE_BYTES_MAX + 2)
        if line_end < 0 and len(self._buffer) > CHUNK_LINE_BYTES_MAX:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        return line_end


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        name = match[1].decode("ascii").lower()
        value = match[2].decode("utf-8", "surrogateescape")
        if name in headers:
            if name in {"content-length", "host", "transfer-encoding"}:
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            value = headers[name] + ("; " if name == "cookie" else ", ") + value
        headers[name] = value
    return headers


def _parse_target(method: str, target: str) -> tuple[str, str]:
    """Split a request target in origin, absolute or asterisk form into path and query."""
    if target.startswith("/"):
        path, _, query = target.partition("#")[0].partition("?")
    elif target == "*" and method == "OPTIONS":
        path, query = "*", ""
    else:
        try:
            parts = urlsplit(target)
        except ValueError:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST) from None
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        path, query = parts.path or "/", parts.query
    return unquote(path), query
