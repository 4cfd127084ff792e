"""The two stream formats: frames of raft messages in an endless HTTP body.

Both are sans-I/O: an encoder returns bytes, a decoder is fed bytes and returns messages.  A decoder that raises
ValueError has met what no member sends; nothing after it on that stream can be trusted.

Message stream: a length of eight bytes, then a raftpb.Message.  Msgapp v2 stream (appends alone): a type byte, 0 for a
heartbeat of the link, 1 for entries that go on where the stream stood (their count, each with its length, and the
commit index), 2 for a whole message, from which the stream's position is taken.  All numbers are big-endian.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Protocol

from core.raft.messages import Message, MessageType
from core.types import Index, MemberId, Term
from net.rafthttp.messages import (
    LINK_HEARTBEAT,
    EntryEncoder,
    decode_entry,
    decode_message,
    decode_message_alone,
    encode_message,
)

if TYPE_CHECKING:
    from core.raft.messages import Entry

MESSAGE_BYTES_MAX = 512 << 20
"""A longer message is rubbish (etcd's bound)."""

ENTRIES_MAX = 1 << 20
"""More entries in one frame are rubbish: a member sends about a mebibyte at a time."""

_NUMBER = Struct(">Q")
_HEARTBEAT, _ENTRIES, _WHOLE = 0, 1, 2


class FrameEncoder(Protocol):
    """Turns messages into the bytes of one stream, whose position it keeps."""

    def heartbeat(self) -> bytes:
        """Return the frame that says that the link lives."""

    def encode(self, message: Message) -> bytes:
        """Return the frame of *message*."""


class FrameDecoder(Protocol):
    """Turns the bytes of one stream into messages."""

    def feed(self, data: bytes) -> list[Message]:
        """Take *data*, cut anywhere, and return the messages that are complete now; ValueError."""


class MessageEncoder:
    """The message stream's."""

    def __init__(self, entries: EntryEncoder) -> None:
        self._entries = entries

    def heartbeat(self) -> bytes:
        """See FrameEncoder."""
        return _NUMBER.pack(len(LINK_HEARTBEAT)) + LINK_HEARTBEAT

    def encode(self, message: Message) -> bytes:
        """See FrameEncoder."""
        encoded = encode_message(message, self._entries)
        return _NUMBER.pack(len(encoded)) + encoded


class MessageDecoder:
    """The message stream's.

    A snapshot's message comes in front of its file or not at all: on a stream (*with_file* is false) it is rubbish.
    """

    def __init__(self, *, with_file: bool = False) -> None:
        self._decode = decode_message if with_file else decode_message_alone
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """See FrameDecoder."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        at = 0
        while len(buffer) - at >= _NUMBER.size:
            end = at + _NUMBER.size + checked_length(_NUMBER.unpack_from(buffer, at)[0])
            if end > len(buffer):
                break
            message = self._decode(bytes(buffer[at + _NUMBER.size : end]))
            if message is not None:
                messages.append(message)
            at = end
        del buffer[:at]
        return messages


class AppendEncoder:
    """The msgapp stream's."""

    def __init__(self, entries: EntryEncoder) -> None:
        self._entries = entries
        self._term = 0
        self._index = 0

    def heartbeat(self) -> bytes:
        """See FrameEncoder."""
        return bytes((_HEARTBEAT,))

    def encode(self, message: Message) -> bytes:
        """See FrameEncoder; *message* is an append."""
        assert message.type is MessageType.APPEND, message.type
        entries = message.entries
        if message.index == self._index and message.log_term == self._term == message.term:
            self._index += len(entries)
            pieces = [bytes((_ENTRIES,)), _NUMBER.pack(len(entries))]
            for entry in self._entries.encode(entries):
                pieces += (_NUMBER.pack(len(entry)), entry)
            pieces.append(_NUMBER.pack(message.commit))
            return b"".join(pieces)
        self._term = message.term
        self._index = entries[-1].index if entries else message.index
        encoded = encode_message(message, self._entries)
        return bytes((_WHOLE,)) + _NUMBER.pack(len(encoded)) + encoded


class AppendDecoder:
    """The msgapp stream's; *local* and *remote* are who receives and who sends, which short frames do not tell."""

    def __init__(self, local: MemberId, remote: MemberId) -> None:
        self._local = local
        self._remote = remote
        self._buffer = bytearray()
        self._term = Term(0)
        self._index = Index(0)

    def feed(self, data: bytes) -> list[Message]:
        """See FrameDecoder."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        at = 0
        while at < len(buffer):
            kind = buffer[at]
            if kind == _HEARTBEAT:
                at += 1
                continue
            if kind == _ENTRIES:
                read = self._read_entries(at + 1)
            elif kind == _WHOLE:
                read = self._read_whole(at + 1)
            else:
                raise ValueError(f"a frame of the unknown type {kind}")
            if read is None:
                break
            message, at = read
            messages.append(message)
        del buffer[:at]
        return messages

    def _read_entries(self, at: int) -> tuple[Message, int] | None:
        buffer, size = self._buffer, len(self._buffer)
        if size - at < _NUMBER.size:
            return None
        (count,) = _NUMBER.unpack_from(buffer, at)
        if count > ENTRIES_MAX:
            raise ValueError(f"a frame with {count} entries")
        if not self._term:
            raise ValueError("entries that go on from nowhere")
        at += _NUMBER.size
        # Cut first, decode when all is there: a frame that comes in many reads is walked through but not decoded anew.
        spans: list[tuple[int, int]] = []
        for _ in range(count):
            if size - at < _NUMBER.size:
                return None
            start = at + _NUMBER.size
            at = start + checked_length(_NUMBER.unpack_from(buffer, at)[0])
            spans.append((start, at))
        if size - at < _NUMBER.size:
            return None
        (commit,) = _NUMBER.unpack_from(buffer, at)
        entries: tuple[Entry, ...] = tuple([decode_entry(bytes(buffer[start:end])) for start, end in spans])
        index = self._index
        self._index = Index(index + count)
        term = self._term
        message = Message(MessageType.APPEND, self._local, self._remote, term, term, index, entries, Index(commit))
        return message, at + _NUMBER.size

    def _read_whole(self, at: int) -> tuple[Message, int] | None:
        buffer = self._buffer
        if len(buffer) - at < _NUMBER.size:
            return None
        start = at + _NUMBER.size
        end = start + checked_length(_NUMBER.unpack_from(buffer, at)[0])
        if end > len(buffer):
            return None
        message = decode_message(bytes(buffer[start:end]))
        if message is None or message.type is not MessageType.APPEND:
            raise ValueError("a message on the stream of appends that is none")
        self._term = message.term
        self._index = message.entries[-1].index if message.entries else message.index
        return message, end


def checked_length(length: int) -> int:
    """Return *length*; ValueError if nothing that long is ever sent."""
    if length > MESSAGE_BYTES_MAX:
        raise ValueError(f"a length of {length} bytes")
    return length
