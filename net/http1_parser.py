"""The bytes of HTTP/1.1 requests: heads, bodies with a length or in chunks, and what is wrong with them.

Pure: fed with bytes, it returns whole requests.  Strict where leniency has let requests be smuggled: no bare CR or
LF, no folded lines, no two lengths, nothing but `chunked` as a transfer coding.  Spec: RFC 9110 and 9112; what is said
to those who break it is what Go's server says, which is etcd's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

REQUEST_LINE_BYTES_MAX: Final = 8192
CHUNK_LINE_BYTES_MAX: Final = 256
TRAILER_BYTES_MAX: Final = 16 * 1024
FIELDS_MAX: Final = 2000
"""Of one head: each costs more than its bytes do."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/(\d\.\d)")
_NAME: Final = re.compile(_TOKEN)
_HOST: Final = re.compile(r"[0-9A-Za-z!$%&'()*+,\-.:;=\[\]_~]*")
_CONTROLS: Final = bytes(byte for byte in (*range(0x20), 0x7F) if byte != 0x09)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")


class HttpFaultError(Exception):
    """The bytes are no request that is taken here; the connection ends with *status*, and *text* for people."""

    def __init__(self, status: HTTPStatus, reason: str = "", text: str | None = None) -> None:
        super().__init__(reason or status.phrase)
        self.status = status
        said = f"{status.value} {status.phrase}"
        self.text = text if text is not None else f"{said}: {reason}" if reason else said


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
        self._searched_bytes = 0
        """So much of the buffer has been searched for the end of a head, and for what may not be in one."""

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
        self._searched_bytes = 0
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
            self._searched_bytes = 0
        searched = self._searched_bytes
        end = self._buffer.find(b"\r\n\r\n", max(searched - 3, 0), self._head_bytes_max + 4)
        if searched <= REQUEST_LINE_BYTES_MAX and len(self._buffer) > REQUEST_LINE_BYTES_MAX:
            line_end = self._buffer.find(b"\r\n", 0, REQUEST_LINE_BYTES_MAX + 2)
            if line_end < 0:
                raise HttpFaultError(HTTPStatus.REQUEST_URI_TOO_LONG)
        if end < 0:
            if len(self._buffer) > self._head_bytes_max:
                raise HttpFaultError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            if _BARE_LF.search(self._buffer, searched) is not None:
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            self._searched_bytes = len(self._buffer)
            return
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._searched_bytes = 0
        self._head = self._parse_head(lines[0], _parse_fields(lines[1:]))

    def _parse_head(self, line: bytes, headers: dict[str, str]) -> Head:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        method, target, version = (part.decode("latin-1") for part in match.groups())
        if version[0] != "1":
            raise HttpFaultError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        old = version == "1.0"
        if not old and "host" not in headers:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST, "missing required Host header")
        if _HOST.fullmatch(headers.get("host", "")) is None:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST, "malformed Host header")
        path, query = _parse_target(method, target)
        self._length = self._body_length(headers, old=old)
        options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
        keep_alive = "close" not in options and (not old or "keep-alive" in options)
        expectation = headers.get("expect", "").lower()
        if expectation not in {"", "100-continue"}:
            raise HttpFaultError(HTTPStatus.EXPECTATION_FAILED, text="")
        self.expects_continue = bool(expectation) and not old
        return Head(method, path, query, "1.0" if old else "1.1", headers, keep_alive)

    def _body_length(self, headers: dict[str, str], *, old: bool) -> int | None:
        """Return the body's length; None if it comes in chunks."""
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None:
            if length is not None or old:
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            if coding.lower() != "chunked":
                raise HttpFaultError(HTTPStatus.NOT_IMPLEMENTED, text="Unsupported transfer encoding")
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
        bytes_max = min(self._head_bytes_max, TRAILER_BYTES_MAX)
        end = self._buffer.find(b"\r\n\r\n", 0, bytes_max + 4)
        if end < 0:
            if len(self._buffer) > bytes_max:
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
    if len(lines) > FIELDS_MAX:
        raise HttpFaultError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        if not colon:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        if _NAME.fullmatch(raw_name) is None:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST, "invalid header name")
        if len(raw_value.translate(None, _CONTROLS)) != len(raw_value):
            raise HttpFaultError(HTTPStatus.BAD_REQUEST, "invalid header value")
        name = raw_name.decode("ascii").lower()
        value = raw_value.strip(b" \t").decode("utf-8", "surrogateescape")
        if name in headers:
            if name == "host":
                raise HttpFaultError(HTTPStatus.BAD_REQUEST, "too many Host headers")
            if name == "transfer-encoding":
                raise HttpFaultError(HTTPStatus.NOT_IMPLEMENTED, text="Unsupported transfer encoding")
            if name == "content-length":
                raise HttpFaultError(HTTPStatus.BAD_REQUEST)
            value = headers[name] + ("; " if name == "cookie" else ", ") + value
        headers[name] = value
    return headers


def _parse_target(method: str, target: str) -> tuple[str, str]:
    """Split a request target into path and query; where only a host is named the path is empty."""
    if target.startswith("/"):
        path, _, query = target.partition("#")[0].partition("?")
    elif target == "*" and method == "OPTIONS":
        path, query = "*", ""
    elif method == "CONNECT":
        path = query = ""
    else:
        try:
            parts = urlsplit(target)
        except ValueError:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST) from None
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise HttpFaultError(HTTPStatus.BAD_REQUEST)
        path, query = parts.path or "/", parts.query
    if "%" in path and _BAD_ESCAPE.search(path) is not None:
        raise HttpFaultError(HTTPStatus.BAD_REQUEST)
    return unquote(path), query
