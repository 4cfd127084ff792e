"""JSON to messages and back, as the gateway of etcd does it.

Names go out as they stand in the .proto files and come in so or in lowerCamelCase; 64-bit numbers go out as strings,
bytes in base64, zero values not at all.  What is wrong with a request is said in the words of Go's packages, which
clients show.  Spec: the JSON mapping of protobuf 3, and the JSON gateway in etcd's documentation.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64encode
from functools import cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from services.go_json import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_OBJECT: Final = "map[string]json.RawMessage"
_ENUM: Final = "protoreflect.EnumNumber"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INTEGERS: Final[Mapping[int, tuple[str, int, int]]] = {
    FieldDescriptor.TYPE_INT32: ("int32", -(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: ("uint32", 0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: ("int64", -(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: ("uint64", 0, (1 << 64) - 1),
}
"""Kinds of integers in etcd's messages: Go's name, least and greatest value."""

_TO_STANDARD: Final = str.maketrans("-_", "+/", "\r\n")
_HTML: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HTML_CHARACTERS: Final = re.compile("[<>&\u2028\u2029]")


class JsonFault(Exception):  # noqa: N818 - named for what it tells
    """The client's JSON is none, or not of the message that is wanted; the text is for the client."""


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_ESCAPED_BYTE: Final = re.compile("[\udc80-\udcff]")
_DECODER: Final = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant)


def values(body: bytes) -> Iterator[Any]:
    """Yield the JSON values that stand in *body* one after the other.  Raises JsonFault where one is broken."""
    try:
        text = lossless = body.decode()
    except UnicodeDecodeError:
        # In strings Go puts U+FFFD in the place of each byte that is none of UTF-8.
        lossless = body.decode("utf-8", "surrogateescape")
        text = _ESCAPED_BYTE.sub("\N{REPLACEMENT CHARACTER}", lossless)
    position = _skip_space(text, 0)
    while position < len(text):
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            # Go looks at single bytes, and names them so.
            rest = lossless[position:].encode("utf-8", "surrogateescape").decode("latin-1")
            raise JsonFault(explain(rest, 0, "unexpected EOF")) from None
        yield value
        position = _skip_space(text, position)


def fill(message: Message, value: Any) -> None:  # noqa: ANN401 - any JSON
    """Set the fields of *message* as *value* says.  Raises JsonFault."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise _mismatch(value, _OBJECT)
    fields: Sequence[FieldDescriptor] = message.DESCRIPTOR.fields  # type: ignore[assignment]  # two stubs of one class
    for field in fields:
        given = value.get(field.name)
        given = value.get(field.json_name, given)
        if given is None:
            continue
        if field.is_repeated:
            _fill_list(message, field, given)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            inner.SetInParent()
            fill(inner, given)
        else:
            setattr(message, field.name, _scalar(field, given))


def encode(message: Message) -> str:
    """Return *message* as JSON."""
    writers = _writers(message.DESCRIPTOR)
    return "{" + ",".join([writers[field.number](value) for field, value in message.ListFields()]) + "}"


def string(text: str) -> str:
    """Return *text* as a JSON string, as Go writes it."""
    quoted = str(encode_basestring(text))
    return _HTML_CHARACTERS.sub(_escape_html, quoted)


def _escape_html(match: re.Match[str]) -> str:
    return _HTML[match.group()]


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None, position
    return match.end()


def _fill_list(message: Message, field: FieldDescriptor, given: object) -> None:
    if not isinstance(given, list):
        raise _mismatch(given, "[]json.RawMessage")
    container = getattr(message, field.name)
    for each in given:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            fill(container.add(), each)
        else:
            container.append(_scalar(field, each))


def _scalar(field: FieldDescriptor, given: object) -> bool | int | str | bytes:
    kind = field.type
    if kind in _INTEGERS:
        return _integer(given, *_INTEGERS[kind])
    if kind == FieldDescriptor.TYPE_BYTES:
        if given is None:
            return b""
        if isinstance(given, list):  # Go's package takes this for bytes, too
            return bytes(_integer(each, "uint8", 0, 255) for each in map(_not_quoted, given))
        if not isinstance(given, str) or isinstance(given, _Number):
            raise _mismatch(given, "[]uint8")
        return _bytes(given)
    if kind == FieldDescriptor.TYPE_STRING:
        if given is None:
            return ""
        if not isinstance(given, str) or isinstance(given, _Number):
            raise _mismatch(given, "string")
        return _SURROGATE.sub("\ufffd", given)
    if kind == FieldDescriptor.TYPE_BOOL:
        if given is not None and not isinstance(given, bool):
            raise _mismatch(given, "bool")
        return bool(given)
    assert kind == FieldDescriptor.TYPE_ENUM, field.full_name
    return _enum(field, given)


def _integer(given: object, go_name: str, least: int, greatest: int) -> int:
    if isinstance(given, str) and not isinstance(given, _Number):
        # A number in quotes is read as if they were not there.
        given = _unquoted(given)
    if given is None:
        return 0
    if not isinstance(given, _Number):
        raise _mismatch(given, go_name)
    if len(given) <= 20 and given.removeprefix("-").isdigit() and least <= int(given) <= greatest:
        return int(given)
    raise JsonFault(f"json: cannot unmarshal number {given} into Go value of type {go_name}")


def _not_quoted(given: object) -> object:
    """Return *given*, which must be no number in quotes.  Raises JsonFault."""
    if isinstance(given, str) and not isinstance(given, _Number):
        raise _mismatch(given, "uint8")
    return given


def _unquoted(text: str) -> object:
    if text.isascii() and text.isdigit() and (text == "0" or text[0] != "0"):
        return _Number(text)
    try:
        value, end = _DECODER.raw_decode(text, _skip_space(text, 0))
    except (ValueError, RecursionError):
        raise _broken_number(text) from None
    if _skip_space(text, end) < len(text):
        raise _broken_number(text)
    return value


def _broken_number(text: str) -> JsonFault:
    return JsonFault(explain(text, 0, "unexpected end of JSON input"))


def _enum(field: FieldDescriptor, given: object) -> int:
    if isinstance(given, str) and not isinstance(given, _Number):
        assert field.enum_type is not None, field.full_name
        value = field.enum_type.values_by_name.get(given)
        if value is None:
            written = encode_basestring(encode_basestring(given))
            raise JsonFault(f"unknown value {written} for enum {field.enum_type.full_name}")
        return value.number
    return _integer(given, _ENUM, -(1 << 31), (1 << 31) - 1)


def _bytes(text: str) -> bytes:
    try:
        return binascii.a2b_base64(_padded(text.translate(_TO_STANDARD)), strict_mode=True)
    except ValueError:
        raise JsonFault(f"illegal base64 data at input byte {_bad_base64_position(text)}") from None


def _padded(text: str) -> str:
    if text.endswith("="):
        if len(text) % 4:
            raise ValueError("padding of a group that is complete, which binascii passes over")
        return text
    return text + "=" * (-len(text) % 4)


def _bad_base64_position(text: str) -> int:
    """Return where Go would stop: at the first character that cannot be, or the last group that is not complete."""
    raw = text.encode()
    group = 0
    used = 0
    for position, byte in enumerate(raw):
        if byte in b"\r\n":
            continue
        if used % 4 == 0:
            group = position
        if not (byte in b"+/-_" or chr(byte).isalnum()) or byte > 0x7F:
            return position
        used += 1
    return group


def _mismatch(value: object, go_name: str) -> JsonFault:
    if isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, _Number):
        kind = "number"
    elif isinstance(value, str):
        kind = "string"
    else:
        kind = "array" if isinstance(value, list) else "object"
    return JsonFault(f"json: cannot unmarshal {kind} into Go value of type {go_name}")


@cache
def _writers(descriptor: Descriptor) -> Mapping[int, Callable[[Any], str]]:
    return {field.number: _writer(field) for field in descriptor.fields}


def _writer(field: FieldDescriptor) -> Callable[[Any], str]:
    """Return what writes name and value of *field*."""
    name = f'"{field.name}":'
    one = _value_writer(field)
    if field.is_repeated:
        return lambda listed: f"{name}[{','.join([one(each) for each in listed])}]"
    return lambda value: name + one(value)


def _value_writer(field: FieldDescriptor) -> Callable[[Any], str]:
    kind = field.type
    if kind == FieldDescriptor.TYPE_MESSAGE:
        return encode
    if kind == FieldDescriptor.TYPE_BYTES:
        return lambda value: f'"{b64encode(value).decode("ascii")}"'
    if kind == FieldDescriptor.TYPE_STRING:
        return string
    if kind == FieldDescriptor.TYPE_BOOL:
        return lambda value: "true" if value else "false"
    if kind == FieldDescriptor.TYPE_ENUM:
        assert field.enum_type is not None, field.full_name
        names = {number: f'"{value.name}"' for number, value in field.enum_type.values_by_number.items()}
        return lambda value: names.get(value, str(value))
    if kind in {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32}:
        return str
    assert kind in _INTEGERS, field.full_name
    return lambda value: f'"{value}"'
