"""A lean reader of many watch streams: counts events without protobuf, hpack or an event loop.

Speaks just enough HTTP/2 for this one purpose.  Runs in a process of its own, tells its count through shared memory,
and so is not what limits the servers measured here.
"""

import selectors
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proto import rpc_pb2

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_WINDOW_BYTES: Final = 2**31 - 1
_RECEIVE_BYTES: Final = 1 << 18
_EVENTS_TAG: Final = 0x5A
"""Field 11 of WatchResponse, length-delimited."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """One header field without indexing or Huffman coding (RFC 7541, 6.2.2); both shorter than 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def _varint(buffer: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def count_events(message: bytes) -> int:
    """How many events a serialised WatchResponse holds."""
    position, count = 0, 0
    while position < len(message):
        tag, position = _varint(message, position)
        value, position = _varint(message, position)
        if tag & 7 == 2:
            position += value
        count += tag == _EVENTS_TAG
    return count


class Connection:
    """One HTTP/2 connection with a watch stream for each of *keys*, one watcher each."""

    def __init__(self, host: str, port: int, keys: Sequence[bytes]) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.events_count = 0
        self._unparsed = b""
        self._messages: dict[int, bytearray] = {}
        self._partial_streams: set[int] = set()
        self._whole_payload = b""
        """The last payload that was exactly one message: watchers of one key get equal ones, nearly always."""
        self._whole_events_count = 0
        headers = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/etcdserverpb.Watch/Watch"),
                (b":authority", f"{host}:{port}".encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            )
        )
        opening = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        opening += _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW_BYTES))
        opening += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_BYTES - 65_535))
        for stream, key in zip(range(1, 2 * len(keys), 2), keys, strict=True):
            self._messages[stream] = bytearray()
            create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key)).SerializeToString()
            body = b"\x00" + struct.pack(">I", len(create)) + create
            opening += _frame(_HEADERS, 4, stream, headers) + _frame(_DATA, 0, stream, body)
        self.socket.sendall(opening)

    def receive(self) -> int:
        """Read what is there; the number of gRPC messages completed."""
        data = self._unparsed + self.socket.recv(_RECEIVE_BYTES)
        if len(data) == len(self._unparsed):
            raise ConnectionError("the server closed the connection")
        position, end, messages_count = 0, len(data), 0
        while position + 9 <= end:
            length = (data[position] << 16) | (data[position + 1] << 8) | data[position + 2]
            after = position + 9 + length
            if after > end:
                break
            kind, flags = data[position + 3], data[position + 4]
            if kind == _DATA:
                payload = data[position + 9 : after]
                if payload == self._whole_payload and not self._partial_streams:
                    self.events_count += self._whole_events_count
                    messages_count += 1
                else:
                    messages_count += self._take(int.from_bytes(data[position + 5 : position + 9]), payload)
            elif kind == _SETTINGS and not flags & 1:
                self.socket.sendall(_frame(_SETTINGS, 1, 0, b""))
            elif kind == _PING and not flags & 1:
                self.socket.sendall(_frame(_PING, 1, 0, data[position + 9 : after]))
            elif kind in {_RST_STREAM, _GOAWAY}:
                raise ConnectionError(f"the server ended a stream or the connection: frame {kind}")
            position = after
        self._unparsed = data[position:]
        return messages_count

    def _take(self, stream: int, payload: bytes) -> int:
        """Add *payload* to its stream; the number of messages that it completes."""
        pending = self._messages[stream]
        if pending:
            payload = bytes(pending) + payload
            pending.clear()
        position, count, events_count = 0, 0, 0
        while position + 5 <= len(payload):
            after = position + 5 + int.from_bytes(payload[position + 1 : position + 5])
            if after > len(payload):
                break
            events_count += count_events(payload[position + 5 : after])
            count += 1
            position = after
        self.events_count += events_count
        pending += payload[position:]
        if pending:
            self._partial_streams.add(stream)
        else:
            self._partial_streams.discard(stream)
        if count == 1 and not pending:
            self._whole_payload, self._whole_events_count = payload, events_count
        return count


def read_watches(
    port: int,
    keys: Sequence[Sequence[bytes]],
    created: "Synchronized[int]",
    delivered: "Synchronized[int]",
    stop: "Synchronized[int]",
) -> None:
    """Watch each of *keys*, a list for each connection, and count until *stop* is not 0.

    *created* answers come first, *delivered* events after.
    """
    watchers_count = sum(map(len, keys))
    connections = [Connection("127.0.0.1", port, watched) for watched in keys]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while not stop.value:
            for ready, _ in selector.select(timeout=0.1):
                messages_count = ready.data.receive()
                if created.value < watchers_count:
                    created.value += messages_count
            delivered.value = sum(connection.events_count for connection in connections)
    for connection in connections:
        connection.socket.close()
