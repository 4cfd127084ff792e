"""What an item of one of etcd's buckets says, in words: keys are shown, values only when asked, secrets never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from core.apply.conf_state import decode_conf_state
from core.mvcc.record import decode_kv
from proto.auth_pb2 import Permission, Role, User
from proto.lease_pb2 import Lease
from proto.rpc_pb2 import AlarmMember, AlarmType
from storage.bbolt.export import KEY_BUCKET
from storage.bbolt.load import record_fault

if TYPE_CHECKING:
    from collections.abc import Callable

_REVISION_KEYS = frozenset({b"scheduledCompactRev", b"finishedCompactRev"})
_NUMBER_KEYS = frozenset({b"consistent_index", b"term"})


def described(bucket: bytes, key: bytes, value: bytes, *, values: bool) -> str:
    """Return what the item of *bucket* says as one line; what cannot be read is shown as bytes."""
    try:
        if bucket == KEY_BUCKET:
            return _revision(key, value, values=values)
        reader = _READERS.get(bucket)
        return reader(key, value) if reader else raw(key, value, values=values)
    except (DecodeError, ValueError, KeyError, IndexError):
        return raw(key, value, values=values)


def raw(key: bytes, value: bytes, *, values: bool) -> str:
    """Return the item as bytes."""
    return f"key={_quoted(key)}, value={_quoted(value) if values else f'<{len(value)} bytes>'}"


def _quoted(data: bytes) -> str:
    return '"' + str(data)[2:-1].replace('"', '\\"') + '"'


def _revision(key: bytes, value: bytes, *, values: bool) -> str:
    fault = record_fault(key, value)
    if fault:
        raise ValueError(fault)
    at = f"rev={int.from_bytes(key[:8])}/{int.from_bytes(key[9:17])}"
    if not value:
        return f"{at} mark of a raised revision"
    kv = decode_kv(value)
    if key.endswith(b"t"):
        return f"{at} key={_quoted(kv.key)} deleted"
    content = _quoted(kv.value) if values else f"<{len(kv.value)} bytes>"
    lease = f" lease={kv.lease:x}" if kv.lease else ""
    return f"{at} key={_quoted(kv.key)} value={content} created={kv.create_revision} version={kv.version}{lease}"


def _alarm(key: bytes, _value: bytes) -> str:
    alarm = AlarmMember.FromString(key)
    return f"member={alarm.memberID:x} alarm={AlarmType.Name(alarm.alarm)}"


def _auth(key: bytes, value: bytes) -> str:
    if key == b"authEnabled":
        return "authEnabled=true" if value == b"\x01" else "authEnabled=false"
    return f"{key.decode()}={int.from_bytes(value)}"


def _user(_key: bytes, value: bytes) -> str:
    user = User.FromString(value)
    login = "none" if user.options.no_password else "<hidden>"
    return f"user={_quoted(user.name)} roles={','.join(user.roles)} password={login}"


def _role(_key: bytes, value: bytes) -> str:
    role = Role.FromString(value)
    permissions = "; ".join(
        f"{Permission.Type.Name(each.permType)} {_quoted(each.key)}"
        + (f"..{_quoted(each.range_end)}" if each.range_end else "")
        for each in role.keyPermission
    )
    return f"role={_quoted(role.name)} permissions=[{permissions}]"


def _lease(key: bytes, value: bytes) -> str:
    lease = Lease.FromString(value)
    left = f" remaining={lease.RemainingTTL}" if lease.RemainingTTL else ""
    return f"lease={int.from_bytes(key):x} ttl={lease.TTL}{left}"


def _meta(key: bytes, value: bytes) -> str:
    if key in _NUMBER_KEYS:
        return f"{key.decode()}={int.from_bytes(value)}"
    if key in _REVISION_KEYS:
        return f"{key.decode()}={int.from_bytes(value[:8])}"
    if key == b"confState":
        state = decode_conf_state(value)
        return f"confState voters={_ids(state.voters)} learners={_ids(state.learners)}"
    return _text(key, value)


def _ids(ids: tuple[int, ...]) -> str:
    return ",".join(f"{each:x}" for each in ids) or "none"


def _text(key: bytes, value: bytes) -> str:
    return f"{key.decode()}={value.decode()}"


_READERS: dict[bytes, Callable[[bytes, bytes], str]] = {
    b"alarm": _alarm,
    b"auth": _auth,
    b"authRoles": _role,
    b"authUsers": _user,
    b"cluster": _text,
    b"lease": _lease,
    b"members": _text,
    b"members_removed": _text,
    b"meta": _meta,
}
