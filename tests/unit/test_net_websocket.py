"""WebSocket's frames: whatever arrives in whatever pieces, the same messages or the same fault come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.websocket import (
    BINARY,
    CLOSE,
    PING,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameReader,
    Message,
    SocketFault,
    accepted,
    frame,
    unmasked,
    wants_websocket,
)


def masked(kind: int, payload: bytes, *, last: bool = True, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """Encode a frame as a client does: as the server does, and masked."""
    plain = bytearray(frame(kind, payload))
    head = plain[: len(plain) - len(payload)]
    head[0] = head[0] if last else head[0] & 0x7F
    head[1] |= 0x80
    return bytes(head) + mask + unmasked(payload, mask)


@given(
    st.lists(st.tuples(st.sampled_from((TEXT, BINARY, PING)), st.binary(max_size=125)), max_size=5),
    st.binary(min_size=126, max_size=300),
    st.binary(min_size=4, max_size=4),
    st.integers(1, 50),
)
def test_messages_come_out_as_they_went_in(sent: list[tuple[int, bytes]], long: bytes, mask: bytes, step: int) -> None:
    """However they are cut on the way."""
    wire = b"".join(masked(kind, payload, mask=mask) for kind, payload in sent)
    wire += masked(TEXT, long[:50], last=False) + masked(PING, b"p") + masked(0, long[50:])
    reader = FrameReader(1000)
    found = [m for at in range(0, len(wire), step) for m in reader.feed(wire[at : at + step])]
    assert found == [*(Message(*each) for each in sent), Message(PING, b"p"), Message(TEXT, long)]


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    """Messages, or one of the faults that are known, and never more kept than a message may have."""
    messages = FrameReader(100).feed(data)
    codes = {PROTOCOL_ERROR, TOO_BIG}
    while True:
        try:
            message = next(messages, None)
        except SocketFault as fault:
            codes.remove(fault.code)
            break
        if message is None:
            break
        assert len(message.payload) <= 125


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(TEXT, b"a"), PROTOCOL_ERROR),
        (b"\xc1\x80abcd", PROTOCOL_ERROR),
        (masked(3, b"a"), PROTOCOL_ERROR),
        (masked(0, b"a"), PROTOCOL_ERROR),
        (masked(TEXT, b"a", last=False) + masked(TEXT, b"b"), PROTOCOL_ERROR),
        (masked(PING, b"a", last=False), PROTOCOL_ERROR),
        (masked(CLOSE, b"a" * 126), PROTOCOL_ERROR),
        (masked(TEXT, b"a" * 101), TOO_BIG),
        (masked(TEXT, b"a" * 60, last=False) + masked(0, b"a" * 60), TOO_BIG),
        (b"\x81\xff" + b"\xff" * 8, TOO_BIG),
    ],
)
def test_what_breaks_a_rule_is_told(wire: bytes, code: int) -> None:
    """Each with the code that RFC 6455 has for it, before memory is spent on it."""
    with pytest.raises(SocketFault) as fault:
        list(FrameReader(100).feed(wire))
    assert fault.value.code == code


def test_a_handshake_is_known_by_its_headers() -> None:
    """As browsers and proxies send them; the answer is the RFC's example."""
    assert wants_websocket({"connection": "keep-alive, Upgrade", "upgrade": "WebSocket"})
    assert not wants_websocket({"connection": "keep-alive", "upgrade": "websocket"})
    assert not wants_websocket({"connection": "upgrade", "upgrade": "h2c"})
    assert accepted("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accepted("dG9vIHNob3J0") is None
    assert accepted("no base64!") is None
