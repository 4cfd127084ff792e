"""The smaller parts of the gRPC proxy: flags, metadata, the order of reads, whose turn it is, what registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from config.grpc_proxy import ProxyFlags, help_text, read_flags
from config.start_flags import FlagsRefused, HelpWanted
from grpcproxy.cache import RangeCache
from grpcproxy.kv import KvProxy
from grpcproxy.passed import NotPassedOn, group_of, metadata_of
from grpcproxy.registry import decode_endpoint, encode_endpoint
from grpcproxy.rotation import Rotation
from grpcproxy.statuses import NO_GREATER_REVISION, READ_ONLY
from grpcproxy.upstream import address_of
from net.rpc import OK, Call, Status
from proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    TxnRequest,
)
from tests.fakes import FakeCall, FakeStream

if TYPE_CHECKING:
    from collections.abc import Callable


def test_flags_are_read_as_etcd_reads_them() -> None:
    """Unit files are taken over as they are: both forms of a value, bare switches, durations, and stray words."""
    flags = read_flags(
        [
            "start",
            "--endpoints=a:1",
            "--endpoints=b:2",
            "--namespace",
            "n/",
            "--auto-tls",
            "--dial-keepalive-time=30s",
            "stray",
            "--debug",
        ]
    )
    assert (flags.endpoints, flags.namespace, flags.auto_tls, flags.dial_keepalive_time, flags.debug) == (
        "a:1,b:2",
        "n/",
        True,
        30.0,
        True,
    )
    assert read_flags(["start"]) == ProxyFlags()
    with pytest.raises(HelpWanted):
        read_flags(["start", "--help"])
    assert all(f"--{name.replace('_', '-')} " in help_text() for name in ProxyFlags.__slots__)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["begin"], 'unknown command "begin"'),
        (["start", "-x"], "unknown shorthand flag: 'x' in -x"),
        (["start", "--endpoints"], "flag needs an argument: --endpoints"),
        (["start", "--resolver-ttl=x"], 'invalid argument "x" for "--resolver-ttl" flag'),
        (["start", "--resolver-prefix=p"], "invalid resolver-ttl 0"),
        (
            ["start", "--resolver-prefix=p", "--resolver-ttl=1", "--advertise-client-url="],
            "invalid advertise-client-url",
        ),
        (["start", "--auto-tls", "--self-signed-cert-validity=0"], "selfSignedCertValidity is invalid"),
        (["start", "--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"], "min version (TLS1.3) is greater"),
        (["start", "--tls-min-version=SSL3"], "unexpected TLS version"),
        (["start", "--tls-min-version=TLS1.3", "--listen-cipher-suites=x"], "cipher suites cannot be configured"),
        (["start", "--cert=c"], "--cert and --key belong together"),
        (["start", "--trusted-ca-file=c"], "need --cert-file or --auto-tls"),
        (["start", "--max-send-bytes=-1"], "--max-send-bytes must be between"),
        (["start", "--dial-keepalive-time=-1s"], "--dial-keepalive-time must not be negative"),
        (["start", "--endpoints=,"], "no endpoints found"),
    ],
)
def test_bad_flags_are_refused_with_a_sentence(arguments: list[str], text: str) -> None:
    """A proxy that starts with half of what it was told is worse than none."""
    with pytest.raises(FlagsRefused) as refused:
        read_flags(arguments)
    assert text in str(refused.value)


def test_metadata_goes_on_but_for_what_belongs_to_the_connection() -> None:
    """A token must arrive; a deadline is told anew; what grpcio cannot send is refused instead of raising in it."""
    call = FakeCall()
    call.metadata = {
        ":authority": ["proxy"],
        "token": ["t"],
        "grpc-timeout": ["1S"],
        "user-agent": ["u"],
        "x": ["1", "2"],
        "y-bin": ["AAE"],
    }
    assert metadata_of(call) == (("token", "t"), ("x", "1"), ("x", "2"), ("y-bin", b"\0\1"))
    for name, value in (("x", "\udcff"), ("x", "a\nb"), ("x-bin", "!"), ("x y", "1")):
        call.metadata = {name: [value]}
        with pytest.raises(NotPassedOn):
            metadata_of(call)


def test_only_those_who_may_see_the_same_share_a_stream() -> None:
    """The group is the token and what is wanted of the leader; nothing else that a client says of itself."""
    groups = []
    for metadata in (
        {"token": ["a"], "client-api-version": ["3.5"]},
        {"token": ["a"]},
        {"token": ["b"]},
        {"authorization": ["a"]},
        {"token": ["a"], "hasleader": ["true"]},
        {},
    ):
        stream = FakeStream()
        stream.metadata = metadata
        groups.append(group_of(stream))
    assert groups[0] == groups[1]
    assert len(set(groups)) == 5


class Members:
    """Members that answer with the revisions they are given, in turn."""

    endpoint_count = 2

    def __init__(self, *revisions: int) -> None:
        self._revisions = list(revisions)

    def pass_on(self, call: Call, body: bytes, then: Callable[[bytes | Status], None]) -> None:
        revision = self._revisions.pop(0) if len(self._revisions) > 1 else self._revisions[0]
        then(RangeResponse(header=ResponseHeader(revision=revision)).SerializeToString())


def read(proxy: KvProxy, key: bytes = b"k", *, serializable: bool = True) -> int | Status:
    """Return the revision that a client reads, or how its call failed."""
    call = FakeCall()
    proxy.range(call, RangeRequest(key=key, serializable=serializable).SerializeToString())
    assert call.ends == 1
    if call.answer is None:
        assert call.status is not None
        return call.status
    return RangeResponse.FromString(call.answer).header.revision


def test_ordered_reads_never_go_back() -> None:
    """A member that lags is passed over; if all lag, that is an error, whatever the cache holds."""
    proxy = KvProxy(Members(5, 7, 6, 8, 3), RangeCache(), ordered=True, read_only=False)
    assert [read(proxy, key) for key in (b"a", b"b")] == [5, 7]
    assert read(proxy, b"c") == 8
    assert read(proxy, b"a") == NO_GREATER_REVISION, "what is cached is older as well"
    unordered = KvProxy(Members(5, 4), RangeCache(), ordered=False, read_only=False)
    assert [read(unordered, key) for key in (b"a", b"b", b"a")] == [5, 4, 5]


def test_a_proxy_that_only_reads_says_so() -> None:
    """Whatever may write is refused before it leaves, also a branch that would not be taken; reads go on."""
    proxy = KvProxy(Members(5), RangeCache(), ordered=False, read_only=True)
    nested = TxnRequest(failure=[RequestOp(request_put=PutRequest(key=b"k"))])
    for method, request in (
        (proxy.put, PutRequest(key=b"k")),
        (proxy.delete_range, DeleteRangeRequest(key=b"k")),
        (proxy.txn, TxnRequest(success=[RequestOp(request_txn=nested)])),
    ):
        call = FakeCall()
        method(call, request.SerializeToString())
        assert call.status == READ_ONLY
    call = FakeCall()
    proxy.txn(call, TxnRequest(success=[RequestOp(request_range=RangeRequest(key=b"k"))]).SerializeToString())
    assert call.status == OK


def test_calls_go_round_those_that_are_connected() -> None:
    """The dead are passed over, the living share, and one that has just failed comes last."""
    rotation = Rotation(["a", "b", "c", "a"])
    assert rotation.take() is None
    for endpoint in ("a", "b", "c", "unknown"):
        rotation.ready(endpoint, yes=True)
    assert [rotation.take() for _ in range(4)] == ["a", "b", "c", "a"]
    rotation.ready("b", yes=False)
    assert [rotation.take() for _ in range(2)] == ["c", "a"]
    assert [rotation.take(["c"]), rotation.take(["a", "c"])] == ["a", None]
    rotation.replace(["c", "d"])
    assert (rotation.ready_count, rotation.take()) == (1, "c")


def test_registered_proxies_are_etcds_records() -> None:
    """Proxies of etcd read ours; what is no record is no proxy, whatever it is."""
    assert encode_endpoint("h:1", "n") == b'{"Op":0,"Addr":"h:1","Metadata":"{\\"name\\":\\"n\\"}"}'
    assert decode_endpoint(encode_endpoint("h:1", "n")) == ("n", "h:1")
    for value in (b"", b"[]", b"{}", b"\xff", b'{"Addr":1,"Metadata":"{}"}', b'{"Addr":"a","Metadata":"[]"}'):
        assert decode_endpoint(value) is None


def test_endpoints_are_addresses_whatever_was_given() -> None:
    """URLs from the command line and from member lists, with and without a scheme."""
    assert [address_of(url) for url in ("h:1", "http://h:1", "https://h:1/x", "unix:///s")] == [
        "h:1",
        "h:1",
        "h:1",
        "unix:/s",
    ]
