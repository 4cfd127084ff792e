"""Header blocks: RFC 7541's examples, malformed blocks, and what may be remembered."""

from __future__ import annotations

import pytest
from hpack import Encoder

from net.http2.frames import ConnectionFaultError, ErrorCode
from net.http2.headers import (
    REMEMBERED_BLOCKS_MAX,
    BlockMemory,
    Decoded,
    HeaderDecoder,
    decode_string,
    encode_literal,
)

LIMIT = 16 * 1024


def fields_of(decoder: HeaderDecoder, block: str) -> list[tuple[bytes, bytes]]:
    return decoder.decode(bytes.fromhex(block)).fields


def test_rfc_7541_requests_without_huffman() -> None:
    """Appendix C.3: three requests that build on each other's table entries."""
    decoder = HeaderDecoder(LIMIT)
    first = "828684410f7777772e6578616d706c652e636f6d"
    common = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
    assert fields_of(decoder, first) == common
    assert fields_of(decoder, "828684be58086e6f2d6361636865") == [*common, (b"cache-control", b"no-cache")]
    third = "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"
    assert fields_of(decoder, third)[3:] == [(b":authority", b"www.example.com"), (b"custom-key", b"custom-value")]


def test_rfc_7541_requests_with_huffman() -> None:
    """Appendix C.4: the same with Huffman coding."""
    decoder = HeaderDecoder(LIMIT)
    assert fields_of(decoder, "828684418cf1e3c2e5f23a6ba0ab90f4ff")[3] == (b":authority", b"www.example.com")
    assert fields_of(decoder, "828684be5886a8eb10649cbf")[4] == (b"cache-control", b"no-cache")


def test_eviction() -> None:
    """Entries leave the table oldest first; one that is larger than the table empties it (section 4.4)."""
    decoder = HeaderDecoder(LIMIT)
    decoder.decode(b"\x3f\x45" + b"\x40\x01a\x011" + b"\x40\x01b\x012" + b"\x40\x01c\x013")  # table of 100 bytes
    assert decoder.decode(b"\xbe\xbf").fields == [(b"c", b"3"), (b"b", b"2")]
    with pytest.raises(ConnectionFaultError):
        decoder.decode(b"\xc0")
    decoder.decode(b"\x40\x01d\x7f\x01" + bytes(128))
    with pytest.raises(ConnectionFaultError):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\x00",  # index 127, which is in neither table
        b"\xff",  # torn integer
        b"\xff\xff\xff\xff\xff\x7f",  # integer of more than 32 bits
        b"\x40",  # nothing after the first byte
        b"\x40\x05ab",  # torn name
        b"\x40\x01a\x05b",  # torn value
        b"\x40\x01a\x82\xff\xff",  # Huffman padding longer than seven bits
        b"\x40\x01a\x84\xff\xff\xff\xff",  # Huffman end of string
        b"\x82\x20",  # table size update behind a field
        b"\x3f\xe2\x1f",  # table size 4097
    ],
)
def test_malformed_blocks(block: bytes) -> None:
    """What cannot be decoded ends the connection: the table would be out of step."""
    with pytest.raises(ConnectionFaultError) as caught:
        HeaderDecoder(LIMIT).decode(block)
    assert caught.value.code == ErrorCode.COMPRESSION_ERROR


def test_size_is_counted_beyond_the_limit() -> None:
    """A bomb of table references is counted, not kept (and still updates the table)."""
    decoder = HeaderDecoder(LIMIT)
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000)
    decoded = decoder.decode(b"\xbe" * 10_000)
    assert decoded.size_bytes == 10_000 * (32 + 1 + 4000)
    assert sum(32 + len(name) + len(value) for name, value in decoded.fields) <= LIMIT


def test_table_must_shrink_to_the_announced_size_if_it_was_used() -> None:
    """RFC 9113 4.3.1; a client that has never used its table need not say anything, and several do not."""
    used = HeaderDecoder(LIMIT)
    used.decode(b"\x40\x01a\x011")
    used.announced_zero()
    with pytest.raises(ConnectionFaultError):
        used.decode(b"\x82")
    unused = HeaderDecoder(LIMIT)
    unused.announced_zero()
    assert unused.decode(b"\x82").fields == [(b":method", b"GET")]
    with pytest.raises(ConnectionFaultError):
        unused.decode(b"\x21\x82")


def decode(block: bytes, decoder: HeaderDecoder | None = None) -> Decoded:
    if decoder is None:
        decoder = HeaderDecoder(LIMIT)
        decoder.decode(b"\x20")
    return decoder.decode(block)


def test_blocks_tell_whether_they_depend_on_the_table() -> None:
    """Only a block that leaves the table as it was may be remembered; with a table of size zero each one does."""
    decoder = HeaderDecoder(LIMIT)
    literal, indexed, reference = b"\x00\x01a\x011", b"\x40\x01a\x011", b"\xbe"
    seen = [decoder.decode(block)[2:4] for block in (literal, indexed, reference, b"\x20" + literal, indexed)]
    assert seen == [(False, False), (True, False), (False, True), (True, False), (False, False)]


@pytest.mark.parametrize("huffman", [True, False])
def test_blocks_that_differ_in_their_timeout_alone_are_found(*, huffman: bool) -> None:
    """grpc-go and grpcio send a new timeout with each call, in the middle of the block."""
    encoder = Encoder()
    encoder.header_table_size = 0
    encoder.encode([])

    def block(timeout: str, token: str = "t") -> bytes:
        fields = [(":path", "/a/b"), ("grpc-timeout", timeout), ("token", token)]
        return encoder.encode(fields, huffman=huffman)

    memory: BlockMemory[str] = BlockMemory()
    first = block("4999828u")
    memory.remember(first, decode(first), "request")
    found = memory.find_timed(block("17S"))
    assert found is not None
    assert (found[0], decode_string(found[1])) == ("request", b"17S")
    assert memory.find_timed(block("17S", "other")) is None
    assert memory.find_timed(block("1" * 300 + "S")) is None
    assert memory.find_timed(block("17S")[:-1]) is None


def test_timeout_look_alikes_are_not_mistaken() -> None:
    """The name may stand in another field's value; only a split at the very same place counts."""
    name = b"\x0cgrpc-timeout"
    real = b"\x82\x00" + name + b"\x022S" + encode_literal(b"a", b"b")
    memory: BlockMemory[str] = BlockMemory()
    memory.remember(real, decode(real), "real")
    assert memory.find_timed(encode_literal(b"x", name + b"\x022S") + real[1:]) is None
    disguised = encode_literal(b"x", b"\x00" + name + b"\x022S")
    assert decode(disguised).timeout_at == -1
    assert memory.find_timed(disguised) is None


def test_memory_is_bounded_and_forgets_with_the_table() -> None:
    """A client can neither fill it up nor have a block keep a meaning that has changed."""
    memory: BlockMemory[int] = BlockMemory()
    for number in range(3 * REMEMBERED_BLOCKS_MAX):
        block = encode_literal(b"number", b"%d" % number)
        memory.remember(block, decode(block), number)
    assert 0 < len(memory.whole) <= REMEMBERED_BLOCKS_MAX
    memory.table_changed()
    assert memory.whole
    decoder = HeaderDecoder(LIMIT)
    decoder.decode(b"\x40\x01a\x011")
    memory.remember(b"\xbe", decode(b"\xbe", decoder), 1)
    assert memory.whole[b"\xbe"] == 1
    memory.table_changed()
    assert b"\xbe" not in memory.whole
