"""What an audit says of a call: who did what, from where, with which result.

Of a request only the fields in SHOWN are read, by their names: keys, ids, names, and what nests them.  Values,
passwords and tokens are in none of them, and a field that a later version adds is not shown before it is listed here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

import proto.election_pb2
import proto.lock_pb2
import proto.rpc_pb2  # noqa: F401 - these register the descriptors that are looked up here
from net.rpc import Code
from proto.rpc_pb2 import ResponseHeader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from services.observed import CallSeen

SHOWN: Final = frozenset(
    (
        *("key", "range_end", "revision", "start_revision", "limit", "serializable", "physical"),
        *("compare", "success", "failure", "request_range", "request_put", "request_delete_range", "request_txn"),
        *("create_request", "lease", "ID", "TTL", "keys"),
        *("name", "user", "role", "perm", "permType", "options", "no_password"),
        *("peerURLs", "isLearner", "targetID", "memberID", "alarm", "action", "version"),
        *("leader", "rev"),
    )
)
"""Names of fields of requests; all others are left out."""

KEY_CHARACTERS_MAX: Final = 1024
"""Of a key so many are shown."""

READS: Final = frozenset(
    (
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        "/etcdserverpb.Lease/LeaseLeases",
        "/etcdserverpb.Cluster/MemberList",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Hash",
        "/etcdserverpb.Maintenance/HashKV",
        "/etcdserverpb.Auth/AuthStatus",
        "/etcdserverpb.Auth/UserGet",
        "/etcdserverpb.Auth/UserList",
        "/etcdserverpb.Auth/RoleGet",
        "/etcdserverpb.Auth/RoleList",
        "/v3electionpb.Election/Leader",
        "/v3electionpb.Election/Observe",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    )
)
"""Methods that change nothing and give nobody a right."""

DENIED: Final = frozenset((Code.PERMISSION_DENIED, Code.UNAUTHENTICATED))
_AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"


def is_wanted(seen: CallSeen, *, reads: bool) -> bool:
    """Whether *seen* goes into the audit; denied calls always do."""
    return reads or seen.method not in READS or seen.status.code in DENIED


def record(seen: CallSeen, member: str) -> dict[str, Any]:
    """Return the audit's line of a call, as JSON can hold it."""
    request = described(seen.method, seen.request)
    line: dict[str, Any] = {
        "ts": datetime.fromtimestamp(seen.ended_s, UTC).isoformat(timespec="milliseconds"),
        "member": member,
        "method": seen.method,
        # Who logs in has no name yet but the one that it claims.
        "user": request.get("name", "") if seen.method == _AUTHENTICATE else seen.user,
        "peer": seen.peer,
        "code": seen.status.code.name,
        "took_ms": round(seen.took_s * 1000, 3),
        "request": request,
    }
    if seen.common_name:
        line["common_name"] = seen.common_name
    if seen.by_gateway:
        line["gateway"] = True
    if seen.status.message:
        line["error"] = seen.status.message
    revision = revision_in(seen.answer)
    if revision:
        line["revision"] = revision
    if seen.client_left:
        line["client_left"] = True
    return line


def described(method: str, payload: bytes) -> dict[str, Any]:
    """Return what may be shown of a request; empty where its form is not known, or its bytes have not that form."""
    if not payload:
        return {}  # also of methods that callers made up, whose forms are not looked for
    kind = _request_of(method)
    if kind is None:
        return {}
    try:
        return shown(kind.FromString(payload))
    except DecodeError:
        return {}


@cache
def _request_of(method: str) -> type[Message] | None:
    """Return the form of a method's requests; methods are those that are served, so they are few."""
    service, _, name = method.removeprefix("/").partition("/")
    try:
        found = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        return None
    kind: type[Message] = GetMessageClass(found.input_type)
    return kind


def shown(message: Message) -> dict[str, Any]:
    """Return the fields of *message* that may be shown."""
    return {field.name: _plain(field, value) for field, value in message.ListFields() if field.name in SHOWN}


def _plain(field: Any, value: Any) -> Any:  # noqa: ANN401 - of any field
    if field.is_repeated:
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:  # noqa: ANN401 - as above
    if field.message_type is not None:
        return shown(value)
    if field.enum_type is not None:
        named: Mapping[int, Any] = field.enum_type.values_by_number
        return named[value].name if value in named else value
    if isinstance(value, bytes):
        text = value[: KEY_CHARACTERS_MAX * 4].decode("utf-8", "backslashreplace")
        return text if len(text) <= KEY_CHARACTERS_MAX else text[:KEY_CHARACTERS_MAX] + "..."
    return value


def revision_in(answer: bytes) -> int:
    """Return the revision in the header that an answer begins with; 0 if it has none."""
    if len(answer) < 2 or answer[0] != 0x0A or answer[1] >= 0x80:
        return 0
    try:
        return ResponseHeader.FromString(answer[2 : 2 + answer[1]]).revision
    except DecodeError:
        return 0
