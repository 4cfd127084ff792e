"""The bytes of HTTP/1.1 responses, for the client's side of connections between members.

Pure: fed with bytes, it returns the head and then pieces of the body as they come, since a stream's body never ends.
Framings: a length, chunks, or until the end of the connection.  Spec: RFC 9112.
"""

from __future__ import annotations

import re
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024
_CHUNK_LINE_BYTES_MAX: Final = 256
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")


class ResponseFault(Exception):  # noqa: N818 - named for what is wrong
    """The bytes are no response; nothing can be read after that."""


class ResponseParser:
    """Reads one response."""

    def __init__(self) -> None:
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        """Lower-case names."""
        self.done = False
        """Whether the body is complete."""
        self._buffer = bytearray()
        self._left: int | None = None
        self._chunked = False
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        """Take *data* and return what it adds to the body; ResponseFault."""
        self._buffer += data
        if not self.status and not self._read_head():
            return b""
        if self._chunked:
            return self._read_chunks()
        if self._left is None:
            piece = bytes(self._buffer)
            self._buffer.clear()
            return piece
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(piece)
        self.done = self._left == 0
        return piece

    def end(self) -> None:
        """Note the end of the connection; ResponseFault if it came too early."""
        if not self.status or self._chunked or self._left:
            raise ResponseFault("the connection ended within a response")
        self.done = True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= HEAD_BYTES_MAX:
                raise ResponseFault("a head without an end")
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            raise ResponseFault("no status line")
        status = int(match[1])
        if status < 200:
            return self._read_head()
        self.status = status
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ResponseFault("a header without a colon")
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()
        self._find_framing()
        return True

    def _find_framing(self) -> None:
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if self.status in {204, 304}:
            self._left = 0
        elif length is not None and not self._chunked:
            if not (length.isascii() and length.isdigit()) or len(length) > 15:
                raise ResponseFault("a length that is none")
            self._left = int(length)
        self.done = self._left == 0

    def _read_chunks(self) -> bytes:
        pieces: list[bytes] = []
        buffer = self._buffer
        while buffer and not self.done:
            if self._left:
                piece = bytes(buffer[: self._left])
                pieces.append(piece)
                del buffer[: self._left]
                self._left -= len(piece)
                continue
            line_end = buffer.find(b"\r\n", 0, _CHUNK_LINE_BYTES_MAX)
            if line_end < 0:
                if len(buffer) >= _CHUNK_LINE_BYTES_MAX:
                    raise ResponseFault("a chunk's head without an end")
                break
            line = bytes(buffer[:line_end])
            del buffer[: line_end + 2]
            self._read_chunk_line(line)
        return b"".join(pieces)

    def _read_chunk_line(self, line: bytes) -> None:
        if self._in_trailers:
            self.done = not line
        elif self._left == 0:
            if line:
                raise ResponseFault("a chunk that is longer than it says")
            self._left = None
        else:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise ResponseFault("a chunk's head that is none")
            self._left = int(match[1], 16)
            if self._left == 0:
                self._left, self._in_trailers = None, True
