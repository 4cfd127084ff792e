"""The small parts of the peer protocol: who is refused, what a response is, and how a snapshot's upload is read."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.raft.messages import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from core.types import Index, MemberId, Term
from net.http1_parser import Head
from net.rafthttp.body import BodyFault, BodyReader, chunk
from net.rafthttp.frames import MessageEncoder
from net.rafthttp.headers import CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION, Identity, member_id_in
from net.rafthttp.messages import EntryEncoder
from net.rafthttp.response import ResponseReader
from net.rafthttp.upload import SnapshotUpload

SELF = Identity(0xC1, 0xA1, ("http://127.0.0.1:2380",), "3.5.21", "3.0.0")


def headers_of(**changed: str) -> dict[str, str]:
    """The headers of a request from a member of the same cluster, with some changed."""
    sent = {name.lower(): value for name, value in SELF.request_headers()}
    return {**sent, **{name.replace("_", "-"): value for name, value in changed.items()}}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"x_server_version": "3.7.1"}, None),
        ({"x_server_version": "3.0.0"}, None),
        ({"x_server_version": "2.3.8"}, INCOMPATIBLE_VERSION),
        ({"x_min_cluster_version": "3.6.0"}, INCOMPATIBLE_VERSION),
        ({"x_min_cluster_version": "3.5.99"}, None),
        ({"x_server_version": "rubbish"}, INCOMPATIBLE_VERSION),
        ({"x_etcd_cluster_id": "c2"}, CLUSTER_ID_MISMATCH),
    ],
)
def test_who_is_refused(changed: dict[str, str], fault: str | None) -> None:
    """Versions are compared by release; a foreign cluster's messages must never reach raft."""
    assert SELF.fault_of(headers_of(**changed)) == fault


def test_a_request_without_headers_is_refused() -> None:
    """It comes from a release too old to say who it is, or from nobody."""
    assert SELF.fault_of({}) == INCOMPATIBLE_VERSION


@pytest.mark.parametrize(("text", "found"), [("a1", 0xA1), ("0", None), ("", None), ("-1", None), ("1" * 17, None)])
def test_member_ids_in_hexadecimal(text: str, found: int | None) -> None:
    """Zero is nobody, and signs or more than 64 bits are no id."""
    assert member_id_in(text) == found


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.integers(1, 9), st.booleans())
def test_responses_cut_anywhere(pieces: list[bytes], step: int, chunked: bool) -> None:
    """Head and body come in reads of any size, in either framing."""
    body = b"".join(pieces)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"".join(map(chunk, pieces)) + b"0\r\n\r\n" if chunked else body
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + framing + b"\r\nX-A: b\r\n\r\n" + sent
    reader = ResponseReader()
    got = b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert (reader.status, reader.headers["x-a"], got, reader.done) == (200, "b", body, True)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"x" * 70000,
    ],
)
def test_what_is_no_response(data: bytes) -> None:
    """Another server on the port is a fault of the connection, nothing worse."""
    with pytest.raises(BodyFault):
        ResponseReader().feed(data)


@pytest.mark.parametrize("data", [b"zz\r\n", b"2\r\nabc\r\n", b"1" * 300])
def test_bad_chunks(data: bytes) -> None:
    """A chunk's length and its end are checked."""
    with pytest.raises(BodyFault):
        BodyReader({"transfer-encoding": "chunked"}).feed(data)


def test_a_body_that_ends_too_early() -> None:
    """A snapshot that breaks off must not pass for a whole one."""
    body = BodyReader({"content-length": "5"})
    body.feed(b"abc")
    with pytest.raises(BodyFault):
        body.end()


class KeptInMemory:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""
        self.end = ""

    def write(self, piece: bytes) -> None:
        """See Sink."""
        self.data += piece

    def finish(self) -> None:
        """See Sink."""
        self.end = "finished"

    def discard(self) -> None:
        """See Sink."""
        self.end = "discarded"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        """See asyncio."""
        self.written += bytes(data)

    def close(self) -> None:
        """See asyncio."""
        self.closed = True

    def abort(self) -> None:
        """See asyncio."""
        self.closed = True

    def is_closing(self) -> bool:
        """See asyncio."""
        return self.closed


SNAPSHOT = Message(
    MessageType.SNAPSHOT,
    MemberId(0xA1),
    MemberId(0xA2),
    Term(3),
    snapshot=Snapshot(SnapshotMetadata(ConfState((MemberId(0xA1),)), Index(9), Term(3)), b"tree"),
)


async def upload(body: bytes, step: int, *, cut: bool = False) -> tuple[KeptInMemory, list[Message], bytes]:
    """Receive a POST with *body* in reads of *step* bytes; *cut* loses the connection at its end."""
    sink, wire = KeptInMemory(), Wire()
    arrived: list[Message] = []
    head = Head("POST", "/raft/snapshot", "", "1.1", {"transfer-encoding": "chunked"}, keep_alive=True)

    def take(message: Message, _sink: object, uploading: SnapshotUpload) -> None:
        arrived.append(message)
        uploading.answer(HTTPStatus.NO_CONTENT, "")

    protocol = SnapshotUpload(head, (), lambda _message: sink, take, 5.0)
    protocol.connection_made(wire)
    data = chunk(body) + (b"" if cut else b"0\r\n\r\n")
    for at in range(0, len(data), step):
        protocol.data_received(data[at : at + step])
    if cut:
        protocol.connection_lost(None)
    return sink, arrived, wire.written


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_snapshot_arrives(step: int) -> None:
    """The message in front goes to raft, the rest into the file, whatever the reads were."""
    body = MessageEncoder(EntryEncoder()).encode(SNAPSHOT) + b"the file"
    sink, arrived, answer = asyncio.run(upload(body, step))
    assert (sink.data, sink.end, arrived) == (b"the file", "finished", [SNAPSHOT])
    assert answer.startswith(b"HTTP/1.1 204 ")


def test_a_snapshot_that_breaks_off_is_thrown_away() -> None:
    """Raft hears of it from the sender, who tries again."""
    body = MessageEncoder(EntryEncoder()).encode(SNAPSHOT) + b"half of the fi"
    sink, arrived, _ = asyncio.run(upload(body, 1000, cut=True))
    assert (sink.end, arrived) == ("discarded", [])


@pytest.mark.parametrize(
    "body",
    [
        MessageEncoder(EntryEncoder()).encode(SNAPSHOT._replace(type=MessageType.HEARTBEAT, snapshot=None)),
        (1 << 60).to_bytes(8, "big") + b"x",
        (4).to_bytes(8, "big") + b"\xff\xff\xff\xff",
        b"short",
    ],
)
def test_rubbish_in_place_of_a_snapshot(body: bytes) -> None:
    """It is refused, and nothing is stored."""
    sink, arrived, answer = asyncio.run(upload(body, 1000))
    assert (sink.end, arrived) == ("", [])
    assert answer.startswith(b"HTTP/1.1 400 ")
