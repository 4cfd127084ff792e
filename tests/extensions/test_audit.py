"""The audit: all that an auditor needs of a call, nothing that is secret, and files that do not fill the disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from actors.extension import NodeApi, Place
from actors.messages.extension import CallsSeen
from core.types import MemberId
from extensions.audit import AuditActor, AuditOptions
from extensions.audit_record import READS, SHOWN, described, is_wanted, record, revision_in
from extensions.rotation import RotatedFile
from net.rpc import OK, Code, Status
from proto import rpc_pb2
from proto.rpc_pb2 import PutResponse
from services.observed import CallSeen
from services.routes import client_routes
from tests.actors.home import TestHome
from tests.fake_node import FakeNode
from tests.fakes import Told

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "5ecret"
"""Stands in every field of a request that could hold one."""


def seen(method: str = "KV/Put", request: bytes = b"", status: Status = OK, **changed: Any) -> CallSeen:
    call = CallSeen(
        1_700_000_000.25,
        0.0015,
        f"/etcdserverpb.{method}",
        "192.0.2.1:9",
        False,
        "ann",
        "",
        request,
        b"",
        status,
        False,
    )
    return call._replace(**changed)


def test_a_line_says_who_did_what_from_where_with_which_result() -> None:
    """The questions that an auditor asks."""
    put = rpc_pb2.PutRequest(key=b"k\xff", value=b"v", lease=7).SerializeToString()
    answer = PutResponse(header={"revision": 9, "member_id": 2**63}).SerializeToString()
    assert record(seen(request=put, answer=answer, by_gateway=True, common_name="cn", client_left=True), "m1") == {
        "ts": "2023-11-14T22:13:20.250+00:00",
        "member": "m1",
        "method": "/etcdserverpb.KV/Put",
        "user": "ann",
        "peer": "192.0.2.1:9",
        "code": "OK",
        "took_ms": 1.5,
        "request": {"key": "k\\xff", "lease": 7},
        "common_name": "cn",
        "gateway": True,
        "revision": 9,
        "client_left": True,
    }
    denied = record(seen(status=Status(Code.PERMISSION_DENIED, "etcdserver: permission denied")), "m1")
    assert (denied["code"], denied["error"], "revision" in denied) == (
        "PERMISSION_DENIED",
        "etcdserver: permission denied",
        False,
    )


def test_whoever_logs_in_is_named_by_what_it_claims() -> None:
    """A failed login has no other name, and is what an audit is read for."""
    login = rpc_pb2.AuthenticateRequest(name="eve", password=SECRET).SerializeToString()
    line = record(seen("Auth/Authenticate", login, Status(Code.INVALID_ARGUMENT, "failed"), user=""), "m1")
    assert (line["user"], SECRET in json.dumps(line)) == ("eve", False)


def test_a_transaction_is_shown_with_all_its_keys() -> None:
    """However deep they lie."""
    inner = {"success": [{"request_put": {"key": b"c", "value": SECRET.encode()}}]}
    txn = rpc_pb2.TxnRequest(
        compare=[{"key": b"a", "value": SECRET.encode()}],
        success=[{"request_delete_range": {"key": b"b", "range_end": b"bb"}}, {"request_txn": inner}],
    )
    assert described("/etcdserverpb.KV/Txn", txn.SerializeToString()) == {
        "compare": [{"key": "a"}],
        "success": [
            {"request_delete_range": {"key": "b", "range_end": "bb"}},
            {"request_txn": {"success": [{"request_put": {"key": "c"}}]}},
        ],
    }


def fill(message: Any, depth: int = 0) -> Any:
    """Put the secret into every text and bytes field, and fill what nests."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
            continue
        if field.message_type is not None:
            if depth < 3:
                fill(
                    getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name), depth + 1
                )
                if not field.is_repeated:
                    getattr(message, field.name).SetInParent()
        elif field.type in {field.TYPE_STRING, field.TYPE_BYTES} and field.name not in SHOWN:
            value = SECRET if field.type == field.TYPE_STRING else SECRET.encode()
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def test_nothing_that_is_not_listed_is_shown() -> None:
    """Values, passwords and tokens must not get into a file that others may read; later fields neither, unasked."""
    routes = client_routes(FakeNode())
    checked = 0
    for method in [*routes.unary, *routes.streams]:
        service, _, name = method.removeprefix("/").partition("/")
        if not service.startswith("etcdserverpb."):
            continue
        kind = getattr(
            rpc_pb2,
            rpc_pb2.DESCRIPTOR.services_by_name[service.partition(".")[2]].methods_by_name[name].input_type.name,
        )
        assert SECRET not in json.dumps(described(method, fill(kind()).SerializeToString())), method
        checked += 1
    assert checked > 40
    assert not {"value", "password", "hashedPassword", "token", "simple_token", "prev_value"} & SHOWN


def test_what_cannot_be_read_is_left_out() -> None:
    """An audit must not crash on what any client can send."""
    assert described("/etcdserverpb.KV/Put", b"\xff\xff") == {}
    assert described("/no.Such/Method", b"") == {}
    assert [revision_in(answer) for answer in (b"", b"\x0a", b"\x0a\x05\xff\xff\xff\xff\xff", b"\x12\x00")] == [0] * 4


def test_long_keys_are_cut() -> None:
    """A key may have a megabyte, and a line must not."""
    put = rpc_pb2.PutRequest(key=b"\xff" * 100_000).SerializeToString()
    assert len(described("/etcdserverpb.KV/Put", put)["key"]) < 1100


def test_reads_can_be_left_out_but_not_denied_ones() -> None:
    """Who tries what it may not is what an audit is for."""
    assert is_wanted(seen("KV/Range"), reads=True)
    assert not is_wanted(seen("KV/Range"), reads=False)
    assert is_wanted(seen("KV/Range", status=Status(Code.PERMISSION_DENIED, "")), reads=False)
    assert is_wanted(seen("KV/Put"), reads=False)
    assert is_wanted(seen("Maintenance/Snapshot"), reads=False)  # it gives away everything
    assert all(method.startswith(("/etcdserverpb.", "/v3election", "/grpc.")) for method in READS)


def test_files_are_rotated_by_size_and_only_so_many_kept(tmp_path: Path) -> None:
    """The newest lines are in the file itself, older ones in numbered ones, the oldest gone."""
    path = tmp_path / "audit"
    file = RotatedFile(path, 10, 3)
    for number in range(10):
        file.write(b"line %d\n" % number)
    file.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit", "audit.1", "audit.2"]
    assert [(tmp_path / name).read_bytes() for name in ("audit", "audit.1", "audit.2")] == [
        b"line 9\n",
        b"line 8\n",
        b"line 7\n",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    only = RotatedFile(tmp_path / "one", 10, 1)
    only.write(b"first..\n")
    only.write(b"second.\n")
    only.close()
    assert (tmp_path / "one").read_bytes() == b"second.\n"


def test_a_line_that_a_crash_has_cut_does_not_spoil_the_next(tmp_path: Path) -> None:
    """Each line must be one JSON object."""
    path = tmp_path / "audit"
    path.write_bytes(b'{"whole":1}\n{"cut')
    file = RotatedFile(path, 1000, 2)
    file.write(b"next\n")
    file.close()
    assert path.read_bytes() == b'{"whole":1}\n{"cut\nnext\n'


def make(tmp_path: Path, **options: Any) -> AuditActor:
    home = TestHome()
    place = Place(
        "audit",
        AuditOptions(path=str(tmp_path / "log" / "audit"), **options),
        MemberId(1),
        "m1",
        structlog.stdlib.BoundLogger(None, [home.log], {}),
        home.clock,
        home.later,
    )
    return AuditActor(home, NodeApi(place, 1, Told()))


def test_the_actor_writes_what_it_sees_and_says_what_it_lost(tmp_path: Path) -> None:
    """A gap that is not told looks like peace."""
    actor = make(tmp_path, reads=False)
    actor.setup()
    actor.handle(CallsSeen((seen(), seen("KV/Range")), 3))
    actor.handle("what does not concern it")
    actor.teardown()
    lines = [json.loads(line) for line in (tmp_path / "log" / "audit").read_text().splitlines()]
    assert [line.get("method", line) for line in lines] == ["/etcdserverpb.KV/Put", {"member": "m1", "lost": 3}]


@pytest.mark.parametrize("options", [{"path": ""}, {"path": "x", "max_files": 0}, {"path": "x", "max_size_mib": 0}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    """They are refused at the start, not met at the first line."""
    with pytest.raises(ValueError, match=r"path|max-files"):
        AuditOptions(**options)
