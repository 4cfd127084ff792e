"""What entries of etcd's second API say about the cluster, from bytes as etcd 3.5 writes them."""

from __future__ import annotations

import pytest

from core.apply.v2_request import Attributes, ClusterVersion, V2Request, meaning, v2_request
from core.types import MemberId, RequestId


def encoded(method: bytes, path: bytes, value: bytes) -> bytes:
    """An etcdserverpb.Request with id 300, its further fields written as zero."""
    texts = b"".join(bytes((tag, len(text))) + text for tag, text in ((0x12, method), (0x1A, path), (0x22, value)))
    return b"\x08\xac\x02" + texts + b"\x28\x00\x32\x00\x38\x00"


def test_attributes() -> None:
    """A member of etcd 3.5 publishes its name and client URLs in this form alone."""
    value = b'{"name":"m1","clientURLs":["http://127.0.0.1:2379"]}'
    request = v2_request(encoded(b"PUT", b"/0/members/8e9e05c52164694d/attributes", value))
    assert request is not None
    assert request.id == RequestId(300)
    assert meaning(request) == Attributes(MemberId(0x8E9E05C52164694D), "m1", ("http://127.0.0.1:2379",))


def test_cluster_version() -> None:
    """A leader of etcd 3.5 may settle the cluster's version in this form."""
    request = v2_request(encoded(b"PUT", b"/0/version", b"3.5.0"))
    assert request is not None
    assert meaning(request) == ClusterVersion("3.5.0")


@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("SYNC", "", ""),
        ("PUT", "/1/key", "x"),
        ("PUT", "/0/members/8e9e/attributes", "not json"),
        ("PUT", "/0/members/8e9e/attributes", "[]"),
        ("DELETE", "/0/version", ""),
    ],
)
def test_without_meaning(method: str, path: str, value: str) -> None:
    """What concerns only the second store changes nothing here, and stops nobody."""
    assert meaning(V2Request(RequestId(1), method, path, value)) is None


@pytest.mark.parametrize("data", [b"\x22\x00", b"\xa2\x06\x00", b"\x08\x01\x1a\x00", b"\x08\xff", b"\x08\x01"])
def test_other_entries_are_not_taken_for_it(data: bytes) -> None:
    """Requests of the third API begin differently."""
    assert v2_request(data) is None
