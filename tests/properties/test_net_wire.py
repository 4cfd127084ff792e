"""Whatever bytes come, in whatever pieces: no exception leaves the protocols, and what is valid means the same."""

from __future__ import annotations

import itertools
from urllib.parse import unquote_to_bytes

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net.http1 import Http1Connection
from net.http2 import frames
from net.http2.frames import ConnectionFaultError
from net.http2.headers import HeaderDecoder
from net.http2.messages import MessageFaultError, MessageReader, percent_encode
from net.rpc import HttpRequest, HttpResponder, Limits
from tests.unit.net_harness import Client, FakeTransport, Recorder, World, data

unhurried = settings(deadline=None)
"""A busy machine is no reason to fail; pytest's own timeout remains."""

LIMITS = Limits(
    header_list_bytes_max=2000, http_head_bytes_max=2000, receive_message_bytes_max=5000, http_body_bytes_max=1000
)

names = st.sampled_from([b"a", b"token", b"grpc-timeout", b":path", b"content-type", b"x" * 40])
values = st.binary(max_size=60)
fields = st.lists(st.tuples(names, values, st.booleans()), max_size=8)


@unhurried
@given(st.lists(st.tuples(fields, st.booleans(), st.sampled_from([None, 0, 100, 300, 4096])), max_size=8))
def test_decoder_agrees_with_the_library(
    blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]],
) -> None:
    """Blocks of a foreign encoder, with sizes of the table that change between them, decode to what went in."""
    encoder = hpack.Encoder()
    decoder = HeaderDecoder(1 << 20)
    for block_fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        decoded = decoder.decode(encoder.encode(block_fields, huffman=huffman))
        assert decoded.fields == [(name, value) for name, value, _ in block_fields]


@unhurried
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_decoder_refuses_what_the_library_refuses(blocks: list[bytes]) -> None:
    """On any bytes our decoder and the library's agree: the same fields, or a fault."""
    ours = HeaderDecoder(1 << 20)
    theirs = hpack.Decoder(1 << 20)
    for block in blocks:
        expected: list[tuple[bytes, bytes]] | None
        try:
            expected = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):
            expected = None
        try:
            fields_seen = ours.decode(block).fields
        except ConnectionFaultError:
            assert expected is None
            return
        assert fields_seen == expected


@unhurried
@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=5),
    st.lists(st.integers(1, 4000), max_size=20),
)
def test_messages_survive_any_cut(messages: list[bytes], cuts: list[int]) -> None:
    """The reader returns the messages that were sent, however DATA frames cut them."""
    body = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    reader = MessageReader("identity", 5000)
    seen = []
    for cut in [*cuts, len(body)]:
        reader.feed(body[:cut])
        body = body[cut:]
        while (message := reader.read()) is not None:
            seen.append(message)
    assert seen == messages
    assert reader.held_bytes == 0


@unhurried
@given(st.binary(max_size=200))
def test_reader_takes_anything(body: bytes) -> None:
    """Bytes that are no messages end in a fault or are held, within the limit."""
    reader = MessageReader("gzip", 100)
    reader.feed(body)
    try:
        while reader.read() is not None:
            pass
    except MessageFaultError:
        return
    assert reader.held_bytes < 105


@unhurried
@given(st.text(max_size=200))
def test_percent_encoding_is_printable_and_reversible(text: str) -> None:
    """Any text of a status can stand in a header and be read again."""
    encoded = percent_encode(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote_to_bytes(encoded) == text.encode("utf-8", "replace")


def check_alive_or_ended(client: Client) -> None:
    """Check that a connection either still works or has said why it does not, and that its accounts are even."""
    connection = client.connection
    if connection.ended:
        assert client.transport.sent_eof
        assert connection.streams == {}
    assert connection.queued_bytes == sum(stream.unsent_bytes for stream in connection.streams.values())
    client.connection.connection_lost(None)
    client.world.loop.turn()
    assert connection.queued_bytes == 0
    assert connection.buffered_bytes == 0
    for recorder in client.service.streams:
        assert_told_of_the_end_once(recorder)
    assert client.service.faults == []
    client.world.loop.advance(5)


def assert_told_of_the_end_once(recorder: Recorder) -> None:
    ends = [told for told in recorder.told if not isinstance(told, bytes | str)]
    assert len(ends) == 1
    assert recorder.told[-1] is ends[0]


@unhurried
@given(pieces=st.lists(st.binary(max_size=100), max_size=5), greet=st.booleans())
def test_http2_takes_any_bytes(pieces: list[bytes], *, greet: bool) -> None:
    """Random bytes, before and after the greeting."""
    client = Client(greet=greet, limits=LIMITS)
    for piece in pieces:
        client.feed(piece)
    check_alive_or_ended(client)


stream_ids = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9, 0x7FFFFFFF, 0x80000001])
random_frames = st.builds(
    frames.frame,
    st.integers(0, 11),
    st.integers(0, 255) | st.sampled_from([0, 1, 4, 5, 8]),
    stream_ids,
    st.binary(max_size=30) | st.integers(0, 2**31).map(lambda number: number.to_bytes(4, "big")),
)


@st.composite
def calls(draw: st.DrawFn) -> list[bytes]:
    """Draw the frames of a plausible call, in pieces that may be mixed with others."""
    stream_id = draw(st.sampled_from([1, 3, 5, 7, 9]))
    path = draw(st.sampled_from(["Echo", "Hold", "Stream", "Stream", "Nope"]))
    changes = draw(
        st.sampled_from([[], [("grpc-timeout", "1S")], [("grpc-encoding", "gzip")], [("content-length", "9")]])
    )
    head = Client(greet=False, obedient=False)
    pieces = [head.headers(stream_id, *changes, path=path)]
    pieces += [data(stream_id, message, end=False) for message in draw(st.lists(st.binary(max_size=20), max_size=3))]
    pieces.append(draw(st.sampled_from([data(stream_id, b"x"), frames.reset_frame(stream_id, 8), b""])))
    return pieces


window_changes = st.one_of(
    st.integers(0, 100).map(lambda size: frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: size})),
    st.tuples(stream_ids, st.integers(0, 100)).map(lambda update: frames.window_update_frame(*update)),
)


@settings(unhurried, max_examples=2 * unhurried.max_examples)
@given(
    st.lists(
        calls() | random_frames.map(lambda frame: [frame]) | window_changes.map(lambda frame: [frame]), max_size=10
    ),
    st.data(),
)
def test_http2_takes_any_frames(sequences: list[list[bytes]], choices: st.DataObject) -> None:
    """Valid calls mixed with random frames, cut anywhere, while services answer and windows change."""
    client = Client(obedient=choices.draw(st.booleans()), limits=LIMITS)
    for piece in (piece for sequence in sequences for piece in sequence):
        cut = choices.draw(st.integers(0, len(piece)))
        client.feed(piece[:cut])
        client.feed(piece[cut:])
        for recorder in client.service.streams:
            if choices.draw(st.booleans()):
                recorder.stream.send(b"answer" * 20)
        for call, _ in client.service.held:
            if choices.draw(st.booleans()):
                call.reply(b"answer")
        client.world.loop.turn()
    check_alive_or_ended(client)


@unhurried
@given(st.data())
def test_http2_takes_mutated_sessions(choices: st.DataObject) -> None:
    """A valid session with a few bytes changed, left out or repeated."""
    peer = Client(greet=False)
    session = bytearray(frames.PREFACE + frames.settings_frame({}) + frames.SETTINGS_ACK)
    for number in range(5):
        path = ["Echo", "Stream"][number % 2]
        session += peer.headers(2 * number + 1, ("grpc-timeout", f"{number + 1}S"), path=path)
        session += data(2 * number + 1, b"hello")
    for _ in range(choices.draw(st.integers(1, 4))):
        at = choices.draw(st.integers(0, len(session) - 1))
        end = at + choices.draw(st.integers(0, 3))
        session[at:end] = choices.draw(st.binary(max_size=4))
    client = Client(greet=False, limits=LIMITS)
    size = choices.draw(st.integers(1, 200))
    for start in range(0, len(session), size):
        client.feed(bytes(session[start : start + size]))
    check_alive_or_ended(client)


def describe(request: HttpRequest, responder: HttpResponder) -> None:
    """Answer with what was understood."""
    responder.reply(200, [], f"{request.method} {request.path!r} {len(request.body)};".encode())


HTTP_SESSION = (
    b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n"
    b"PUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)


def http1_answer(pieces: list[bytes]) -> tuple[bytes, FakeTransport]:
    world = World(LIMITS, describe)
    transport = FakeTransport()
    connection = Http1Connection(world.commons, transport)
    for piece in pieces:
        connection.data_received(piece)
        world.loop.turn()
    connection.connection_lost(None)
    world.loop.advance(200)
    assert world.service.faults == []
    assert not world.commons.connections
    return bytes(transport.written), transport


@unhurried
@given(st.lists(st.integers(0, len(HTTP_SESSION)), max_size=10))
def test_http1_means_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """Reads end anywhere."""
    bounds = [0, *sorted(cuts), len(HTTP_SESSION)]
    pieces = [HTTP_SESSION[start:end] for start, end in itertools.pairwise(bounds)]
    assert http1_answer(pieces)[0] == http1_answer([HTTP_SESSION])[0]


@unhurried
@given(st.data())
def test_http1_takes_any_bytes(choices: st.DataObject) -> None:
    """A mutated session, and plain noise: each ends in answers and at most one refusal, the last."""
    session = bytearray(choices.draw(st.sampled_from([HTTP_SESSION, b""])) or choices.draw(st.binary(max_size=300)))
    for _ in range(choices.draw(st.integers(0, 4))):
        at = choices.draw(st.integers(0, len(session)))
        session[at : at + choices.draw(st.integers(0, 3))] = choices.draw(st.binary(max_size=4))
    answer, transport = http1_answer([bytes(session)])
    refusals = answer.count(b"\r\nconnection: close\r\n")
    assert refusals <= 1
    assert transport.sent_eof == bool(refusals)


@pytest.mark.parametrize("count", [1, 7])
def test_session_is_valid_as_it_stands(count: int) -> None:
    """The session that is mutated above is answered in full; or else its mutations would test little."""
    answer, transport = http1_answer([HTTP_SESSION * count])
    assert answer.count(b" 200 OK") == 3 * count
    assert not transport.sent_eof
