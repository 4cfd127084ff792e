"""The bytes of HTTP/1.1 responses, for the client's side of connections between members.

Pure: fed with bytes, it knows the head as soon as it is there and returns pieces of the body.  Spec: RFC 9112.
"""

from __future__ import annotations

import re
from typing import Final

from net.rafthttp.body import BodyFault, BodyReader

HEAD_BYTES_MAX: Final = 64 * 1024
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")
_STATUS_MIN: Final = 200
"""Lower ones are interim answers, which the real one follows."""
_BODILESS: Final = frozenset({204, 304})


class ResponseReader:
    """Reads one response."""

    def __init__(self) -> None:
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        """Lower-case names."""
        self._buffer = bytearray()
        self._body: BodyReader | None = None

    @property
    def done(self) -> bool:
        """Whether the response is complete."""
        return self._body is not None and self._body.done

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may be used again."""
        return self.headers.get("connection", "").lower() != "close"

    def feed(self, data: bytes) -> bytes:
        """Take what came and return what it adds to the body; BodyFault."""
        if self._body is None:
            self._buffer += data
            self._body = self._read_head()
            if self._body is None:
                return b""
            data = bytes(self._buffer)
            self._buffer.clear()
        return self._body.feed(data) if data and not self._body.done else b""

    def end(self) -> None:
        """Note the end of the connection; BodyFault if it came too early."""
        if self._body is None:
            raise BodyFault("the connection ended before the answer")
        self._body.end()

    def _read_head(self) -> BodyReader | None:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= HEAD_BYTES_MAX:
                raise BodyFault("a head without an end")
            return None
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            raise BodyFault(f"no status line: {lines[0][:80]!r}")
        status = int(match[1])
        if status < _STATUS_MIN:
            return self._read_head()
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise BodyFault(f"a header without a colon: {line[:80]!r}")
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()
        self.status = status
        return BodyReader({"content-length": "0"} if status in _BODILESS else self.headers)
