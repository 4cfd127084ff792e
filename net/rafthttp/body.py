"""The bytes of an HTTP/1.1 body as they come, since a stream's body never ends and a snapshot's is large.

Framings: a length, chunks, or until the end of the connection (responses only).  Spec: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CHUNK_LINE_BYTES_MAX: Final = 256
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")


class BodyFault(Exception):  # noqa: N818 - named for what is wrong
    """The bytes are no HTTP; nothing can be read after that."""


class BodyReader:
    """Reads one body."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """*headers* have lower-case names; BodyFault if they contradict each other."""
        self.done = False
        """Whether all of it has been read."""
        self._buffer = bytearray()
        self._left: int | None = None
        self._in_trailers = False
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        if length is not None and not self._chunked:
            if not _LENGTH.fullmatch(length):
                raise BodyFault(f"a length that is none: {length!r}")
            self._left = int(length)
            self.done = self._left == 0

    def feed(self, data: bytes) -> bytes:
        """Take what came and return what it adds to the body; BodyFault.  What follows the body is dropped."""
        if self._chunked:
            self._buffer += data
            return self._read_chunks()
        if self._left is None:
            return data
        piece = data[: self._left]
        self._left -= len(piece)
        self.done = self._left == 0
        return piece

    def end(self) -> None:
        """Note the end of the connection; BodyFault if it came too early."""
        if not self.done and (self._chunked or self._left is not None):
            raise BodyFault("the connection ended within a body")
        self.done = True

    def _read_chunks(self) -> bytes:
        pieces: list[bytes] = []
        buffer = self._buffer
        while buffer and not self.done:
            if self._left:
                piece = bytes(buffer[: self._left])
                pieces.append(piece)
                del buffer[: len(piece)]
                self._left -= len(piece)
                continue
            line_end = buffer.find(b"\r\n", 0, CHUNK_LINE_BYTES_MAX)
            if line_end < 0:
                if len(buffer) >= CHUNK_LINE_BYTES_MAX:
                    raise BodyFault("a chunk's head without an end")
                break
            line = bytes(buffer[:line_end])
            del buffer[: line_end + 2]
            self._read_line(line)
        return b"".join(pieces)

    def _read_line(self, line: bytes) -> None:
        """Take a line of the framing: a chunk's head, the empty one behind a chunk, or one of the trailers."""
        if self._in_trailers:
            self.done = not line
        elif self._left == 0:
            if line:
                raise BodyFault("a chunk that is longer than it says")
            self._left = None
        else:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BodyFault(f"a chunk's head that is none: {line!r}")
            self._left = int(match[1], 16)
            if self._left == 0:
                self._left, self._in_trailers = None, True


def chunk(data: bytes) -> bytes:
    """Return *data*, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
