"""What an entry of the log asks for, in words and as JSON: keys are shown, values only when asked, secrets never.

Reads what etcd writes too: the requests of its retired second API, by which members up to 3.5 tell of themselves.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message

from core.apply.v2_request import v2_request
from core.raft.messages import ConfChange, ConfChangeType, EntryType
from proto.raft_internal_pb2 import InternalRaftRequest
from wal.codec import decode_conf_change, decode_conf_change_v2

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

    from core.raft.messages import Entry

_SECRETS = frozenset({"password", "hashedPassword", "simple_token"})
_VALUES = frozenset({"value"})
_HIDDEN = "<hidden>"


def kind_of(entry: Entry) -> str:
    """Return what sort of entry it is: "norm" or "conf", as etcd's own dump calls them."""
    return "norm" if entry.type is EntryType.NORMAL else "conf"


def request_name(entry: Entry) -> str:
    """Return the name of the request in *entry* (put, txn, conf_change, noop, ...); "unknown" if it cannot be read."""
    if entry.type is not EntryType.NORMAL:
        return "conf_change"
    if not entry.data:
        return "noop"
    if v2_request(entry.data) is not None:
        return "v2"
    request = _request(entry.data)
    names = [field.name for field, _ in request.ListFields() if field.message_type is not None] if request else []
    return next((name for name in names if name != "header"), "unknown")


def told(entry: Entry, *, values: bool) -> str:
    """Return what *entry* asks for as one line of text."""
    if entry.type is not EntryType.NORMAL:
        return _told_change(entry)
    if not entry.data:
        return "noop"
    old = v2_request(entry.data)
    if old is not None:
        return f"ID:{old.id} method={old.method} path={old.path!r}" + (f" value={old.value!r}" if values else "")
    request = _request(entry.data)
    return f"??? ({len(entry.data)} bytes)" if request is None else _text(request, values=values)


def as_json(entry: Entry, *, values: bool) -> Any:  # noqa: ANN401 - as JSON is
    """Return what *entry* asks for as JSON's types: bytes in base64, as etcdctl gives them."""
    if entry.type is not EntryType.NORMAL or not entry.data:
        return told(entry, values=values)
    old = v2_request(entry.data)
    if old is not None:
        named = {"ID": old.id, "method": old.method, "path": old.path}
        return named | ({"value": old.value} if values else {})
    request = _request(entry.data)
    return {"size": len(entry.data)} if request is None else _object(request, values=values)


def _request(data: bytes) -> InternalRaftRequest | None:
    try:
        return InternalRaftRequest.FromString(data)
    except DecodeError:
        return None


def _told_change(entry: Entry) -> str:
    try:
        if entry.type is EntryType.CONF_CHANGE:
            return _told_single(decode_conf_change(entry.data))
        change = decode_conf_change_v2(entry.data)
    except ValueError:
        return f"??? ({len(entry.data)} bytes)"
    steps = ", ".join(f"{_method(single.type)} id={single.node_id:x}" for single in change.changes)
    return f"transition={change.transition.name} [{steps}]"


def _told_single(change: ConfChange) -> str:
    context = f" context={change.context.decode(errors='backslashreplace')}" if change.context else ""
    return f"method={_method(change.type)} id={change.node_id:x}{context}"


def _method(change: ConfChangeType) -> str:
    return "ConfChange" + "".join(part.capitalize() for part in change.name.split("_"))


def _text(message: Message, *, values: bool) -> str:
    parts: list[str] = []
    for field, value in message.ListFields():
        for each in _each(field, value):
            if field.message_type is not None:
                parts.append(f"{field.name}:<{_text(each, values=values)}>")
            else:
                parts.append(f"{field.name}:{_plain_text(field, each, values=values)}")
    return " ".join(parts)


def _plain_text(field: FieldDescriptor, value: Any, *, values: bool) -> str:  # noqa: ANN401 - a field's
    if field.name in _SECRETS:
        return _HIDDEN
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else str(value)
    if isinstance(value, bytes):
        if field.name in _VALUES and not values:
            return f"<{len(value)} bytes>"
        return '"' + str(value)[2:-1].replace('"', '\\"') + '"'
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _object(message: Message, *, values: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field, value in message.ListFields():
        found = [_member(field, each, values=values) for each in _each(field, value)]
        made[field.name] = found if field.is_repeated else found[0]
    return made


def _member(field: FieldDescriptor, value: Any, *, values: bool) -> Any:  # noqa: ANN401 - a field's
    if field.message_type is not None:
        return _object(value, values=values)
    if field.name in _SECRETS:
        return _HIDDEN
    if isinstance(value, bytes):
        return {"size": len(value)} if field.name in _VALUES and not values else b64encode(value).decode()
    return value


def _each(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401 - a field's
    return value if field.is_repeated else (value,)
