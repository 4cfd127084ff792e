"""Stream frames of raft messages: what goes in comes out, however the bytes are cut, and rubbish is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.raft.messages import ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata
from core.types import Index, MemberId, Term
from net.rafthttp.frames import AppendDecoder, AppendEncoder, MessageDecoder, MessageEncoder
from net.rafthttp.messages import EntryEncoder, decode_message, decode_message_alone, encode_message
from proto import raft_pb2

numbers = st.integers(0, (1 << 64) - 1)
members = st.integers(1, (1 << 64) - 1).map(MemberId)
entries = st.builds(
    Entry,
    numbers.map(Term),
    numbers.map(Index),
    st.sampled_from(EntryType),
    st.binary(max_size=300),
)
id_lists = st.lists(members, max_size=3).map(tuple)
snapshots = st.builds(
    Snapshot,
    st.builds(
        SnapshotMetadata,
        st.builds(ConfState, id_lists, id_lists, id_lists, id_lists, st.booleans()),
        numbers.map(Index),
        numbers.map(Term),
    ),
    st.binary(max_size=100),
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message between members."""
    kind = draw(st.sampled_from(MessageType))
    return Message(
        kind,
        draw(members),
        draw(members),
        draw(numbers.map(Term)),
        draw(numbers.map(Term)),
        draw(numbers.map(Index)),
        tuple(draw(st.lists(entries, max_size=4))),
        draw(numbers.map(Index)),
        draw(st.booleans()),
        draw(numbers.map(Index)),
        draw(st.binary(max_size=30)),
        draw(snapshots) if kind is MessageType.SNAPSHOT else None,
    )


@st.composite
def append_runs(draw: st.DrawFn) -> list[Message]:
    """Appends of one leader as raft sends them: mostly one after the other, sometimes going back or to a new term."""
    term = draw(st.integers(1, 5))
    index = draw(st.integers(0, 50))
    log_term = draw(st.integers(0, term))
    run: list[Message] = []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 4)) == 0:
            term += draw(st.integers(0, 1))
            index = draw(st.integers(0, 50))
            log_term = draw(st.integers(0, term))
        count = draw(st.integers(0, 3))
        new = tuple(
            Entry(Term(term), Index(index + 1 + n), EntryType.NORMAL, draw(st.binary(max_size=20)))
            for n in range(count)
        )
        run.append(
            Message(
                MessageType.APPEND,
                MemberId(2),
                MemberId(1),
                Term(term),
                Term(log_term),
                Index(index),
                new,
                Index(draw(st.integers(0, 60))),
            )
        )
        index += count
        log_term = term if count else log_term
    return run


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Cut *data* at positions given as any numbers."""
    places = sorted({position % (len(data) + 1) for position in at} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


@given(messages())
def test_a_message_survives_the_wire(message: Message) -> None:
    """Every field of every kind of message reaches the other member."""
    assert decode_message(encode_message(message, EntryEncoder())) == message


@given(messages())
def test_a_message_is_raftpb(message: Message) -> None:
    """The generated class reads what was written by hand, so etcd does."""
    fields = raft_pb2.Message.FromString(encode_message(message, EntryEncoder()))
    read = [(entry.Term, entry.Index, int(entry.Type), entry.Data) for entry in fields.entries]
    assert read == [tuple(entry) for entry in message.entries]
    assert int(fields.type) == int(message.type)
    assert (fields.commit, fields.rejectHint) == (int(message.commit), int(message.reject_hint))


@given(st.lists(messages(), max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_message_stream_cut_anywhere(sent: list[Message], places: list[int]) -> None:
    """Sockets cut where they like; heartbeats of the link are no messages."""
    encoder, decoder = MessageEncoder(EntryEncoder()), MessageDecoder(with_file=True)
    data = b"".join(encoder.heartbeat() + encoder.encode(message) for message in sent)
    assert [message for piece in cut(data, places) for message in decoder.feed(piece)] == sent


@given(append_runs(), st.lists(st.integers(0, 10_000), max_size=6))
def test_append_stream_cut_anywhere(sent: list[Message], places: list[int]) -> None:
    """Short frames leave out what the stream's position tells; the receiver must get it all back."""
    encoder, decoder = AppendEncoder(EntryEncoder()), AppendDecoder(MemberId(2), MemberId(1))
    data = b"".join(encoder.heartbeat() + encoder.encode(message) for message in sent)
    assert [message for piece in cut(data, places) for message in decoder.feed(piece)] == sent


@given(st.binary(max_size=200))
def test_rubbish_is_a_value_error_or_waits(data: bytes) -> None:
    """Whatever a peer sends, a decoder raises nothing but ValueError."""
    for decoder in (MessageDecoder(), AppendDecoder(MemberId(2), MemberId(1))):
        try:
            decoder.feed(data)
        except ValueError:
            continue


def test_entries_need_a_position() -> None:
    """A stream that begins with a short frame says nothing about where its entries belong."""
    with pytest.raises(ValueError, match="nowhere"):
        AppendDecoder(MemberId(2), MemberId(1)).feed(b"\x01" + bytes(8) + bytes(8))


def test_local_messages_are_refused() -> None:
    """A peer must not be able to make this member campaign by a message that only a member tells itself."""
    hup = raft_pb2.Message(type="MsgHup", to=2).SerializeToString()
    with pytest.raises(ValueError, match="type 0"):
        decode_message(hup)


def test_a_snapshot_does_not_come_without_its_file() -> None:
    """Raft would wait for a store that is not there: its message is taken only in front of the file."""
    message = Message(MessageType.SNAPSHOT, MemberId(2), MemberId(1), Term(3))
    with pytest.raises(ValueError, match="without its file"):
        MessageDecoder().feed(MessageEncoder(EntryEncoder()).encode(message))
    with pytest.raises(ValueError, match="without its file"):
        decode_message_alone(encode_message(message, EntryEncoder()))


def test_msgapp_bytes() -> None:
    """The three frame types byte by byte, as the format has them."""
    encoder = AppendEncoder(EntryEncoder())
    first = Message(MessageType.APPEND, MemberId(2), MemberId(1), Term(3), Term(3), Index(5), (), Index(5))
    entry = Entry(Term(3), Index(6), EntryType.NORMAL, b"x")
    second = first._replace(entries=(entry,), commit=Index(6))
    assert encoder.heartbeat() == b"\x00"
    assert encoder.encode(first)[:1] == b"\x02"
    body = b'\x08\x00\x10\x03\x18\x06"\x01x'
    eight = 8
    assert encoder.encode(second) == (
        b"\x01" + (1).to_bytes(eight) + len(body).to_bytes(eight) + body + (6).to_bytes(eight)
    )
