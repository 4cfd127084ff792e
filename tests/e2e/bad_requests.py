"""Seeded requests that are wrong in every way: for each method as protobuf bytes, for each route as JSON text.

Made from the descriptors, so a new method or field is covered as soon as it is there.  What would end the comparison is
never made: members that exist, the user root, an alarm that is raised.
"""

import json
from base64 import b64encode
from random import Random
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_BYTES: Final = 100_000
DEPTH_MAX: Final = 4
_VARINT_KINDS: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_ENUM,
    }
)
NUMBERS: Final = (0, 1, 2, 3, 7, 127, 128, -1, -2, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, -(1 << 63), 999_999)
TEXTS: Final = (b"", b"a", b"b", b"zz", b"\x00", b"\x00\x00", b"a b", b"key", b"no-such-name", "é".encode())
INVALID_UTF8: Final = (b"\xff", b"a\xc3", b"\xed\xa0\x80")
INSERTED: Final = (b",", b"}", b"]", b'"', b"\\", b"\x00", b"x", b":", b"{", b"1")
NO_OBJECTS: Final = (b"", b"[]", b"null", b"1", b'"x"', b"{", b"{{}}", b'{"key":}', b"[" * 2000, b"\xff\xfe", b"tru")
KEPT_AWAY: Final = frozenset({"options", "hashedPassword"})
"""Fields that are not sent."""
HARMLESS: Final[dict[str, tuple[int, ...]]] = {
    "memberID": (7,),
    "ID": (0, 5, 77, -1),
    "action": (0, 2),
    "sort_order": (0, 1, 2),
    "sort_target": (0, 1, 2, 3, 4),
    "start_revision": (0, 1, 2, 999_999),
}
"""What some fields are limited to where two servers are compared: 3.5.1 panics on unknown alarm actions and sort
orders, an alarm that is raised shuts writes out, and for other start revisions the rules differ."""


def varint(number: int) -> bytes:
    """Protobuf's base 128; negative numbers in ten bytes."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def is_harmless(message: Message) -> bool:
    """Whether no field of *message*, or of one in it, has a value that is kept away."""
    for field, value in message.ListFields():
        limits = None if field.name in {"ID", "memberID"} else HARMLESS.get(field.name)
        for each in value if field.is_repeated else (value,):
            if field.message_type is not None:
                if not is_harmless(each):
                    return False
            elif field.name == "hashedPassword" or (limits is not None and each not in limits):
                return False
    return True


class BadBytes:
    """Protobuf messages from one seed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ways: dict[Callable[[bytes], bytes], int] = {
            lambda data: data: 50,
            self._cut: 12,
            self._flip: 12,
            self._insert: 6,
            self._garbage: 10,
            self._unknown_field: 5,
            self._wrong_wire_type: 8,
            lambda _: b"": 4,
        }

    def message(self, descriptor: Descriptor) -> bytes:
        """Bytes that may or may not be a message of *descriptor*."""
        (way,) = self._random.choices(list(self._ways), list(self._ways.values()))
        return way(self.plausible(descriptor))

    def plausible(self, descriptor: Descriptor, depth: int = 0) -> bytes:
        """A message that can be read, with values that make little sense."""
        random, out = self._random, bytearray()
        for field in descriptor.fields:
            if field.name in KEPT_AWAY or random.random() < 0.4:
                continue
            for _ in range(random.choice((1, 1, 2)) if field.is_repeated or random.random() < 0.05 else 1):
                out += self._field(field, depth)
        return bytes(out)

    def _field(self, field: FieldDescriptor, depth: int) -> bytes:
        if field.type in _VARINT_KINDS:
            numbers = HARMLESS.get(field.name, NUMBERS)
            return varint(field.number << 3) + varint(self._random.choice(numbers))
        if field.message_type is not None:
            content = b"" if depth >= DEPTH_MAX else self.plausible(field.message_type, depth + 1)
        else:
            content = self._text(field)
        return varint(field.number << 3 | 2) + varint(len(content)) + content

    def _text(self, field: FieldDescriptor) -> bytes:
        if field.name == "peerURLs":
            return self._random.choice(
                (b"", b"x", b"http://", b"ftp://a:1", b"http://a", b"http://a:1/x", b"http://:x")
            )
        if self._random.random() < 0.02:
            return self._random.choice(TEXTS) * LONG_BYTES
        if field.type == FieldDescriptor.TYPE_BYTES and self._random.random() < 0.2:
            return self._random.choice(INVALID_UTF8)
        return self._random.choice(TEXTS)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._random.randint(0, len(data))]

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"\x80"
        changed = bytearray(data)
        changed[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _insert(self, data: bytes) -> bytes:
        at = self._random.randint(0, len(data))
        return data[:at] + self._random.randbytes(self._random.randint(1, 5)) + data[at:]

    def _garbage(self, _data: bytes) -> bytes:
        return self._random.randbytes(self._random.choice((1, 2, 3, 8, 30, 200)))

    def _unknown_field(self, data: bytes) -> bytes:
        number = self._random.choice((99, 1000, (1 << 29) - 1))
        return data + varint(number << 3 | 2) + b"\x03abc" + varint(number << 3) + b"\x05"

    def _wrong_wire_type(self, data: bytes) -> bytes:
        wire = self._random.choice((0, 1, 2, 3, 4, 5, 6, 7))
        return varint(self._random.randint(0, 8) << 3 | wire) + b"\x01" * self._random.choice((0, 1, 4, 8, 9)) + data


class BadJson:
    """Bodies for the JSON gateway from one seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def body(self, descriptor: Descriptor) -> bytes:
        """A body that may or may not be a message of *descriptor*."""
        random = self._random
        text = json.dumps(self._object(descriptor, 0), ensure_ascii=random.random() < 0.5).encode(errors="replace")
        way = random.random()
        if way < 0.6:
            return text
        if way < 0.75:
            return text[: random.randint(0, len(text))]
        if way < 0.85:
            at = random.randint(0, len(text))
            return (
                text[:at] + random.choice((b",", b"}", b"]", b'"', b"\\", b"\x00", b"x", b":", b"{", b"1")) + text[at:]
            )
        return random.choice(
            (b"", b"[]", b"null", b"1", b'"x"', b"{", b"{{}}", b'{"key":}', b"[" * 2000, b"\xff\xfe", b"tru")
        )

    def _object(self, descriptor: Descriptor, depth: int) -> Any:
        made: dict[str, Any] = {}
        for field in descriptor.fields:
            if field.name in KEPT_AWAY or self._random.random() < 0.4:
                continue
            name = field.json_name if self._random.random() < 0.3 else field.name
            value = self._value(field, depth)
            made[name] = [value] if field.is_repeated and self._random.random() < 0.95 else value
        if self._random.random() < 0.1:
            made["no_such_field"] = {"x": [1]}
        return made

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        random = self._random
        if random.random() < 0.12:
            odd = random.choice((None, True, 1, -1, 1.5, 1e30, "x", "", [], {}, [1], {"a": 1}, "1", "-5", "é"))
            return "5" if odd == "-5" and field.type == FieldDescriptor.TYPE_BYTES else odd
        if field.name in HARMLESS:
            number = random.choice(HARMLESS[field.name])
            return str(number) if random.random() < 0.5 else number
        if field.enum_type is not None:
            return random.choice((0, 1, 2, 9, -1, "NO_SUCH", *(field.enum_type.values_by_name)))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return random.choice((True, False, "true", 1))
        if field.type in _VARINT_KINDS:
            number = random.choice(NUMBERS)
            return random.choice((number, str(number), f" {number}", float(number)))
        if field.message_type is not None:
            return {} if depth >= DEPTH_MAX else self._object(field.message_type, depth + 1)
        if field.name == "peerURLs":
            return random.choice(("", "x", "http://", "ftp://a:1", "http://a"))
        if field.type == FieldDescriptor.TYPE_BYTES:
            text = b64encode(random.choice((*TEXTS, *INVALID_UTF8))).decode()
            return random.choice((text, text, f"{text}=", f"{text}!", "a+/b", "a"))
        return random.choice(TEXTS).decode()
