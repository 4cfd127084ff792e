"""Entries in the form of etcd's retired second API, by which members of etcd up to 3.5 still tell about themselves.

Such an entry is an etcdserverpb.Request where later ones are an InternalRaftRequest; the two are told apart by their
first fields.  Only two of them mean anything here: a member's attributes and the cluster's version.  The others change
the second store, which actcd does not have.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from core.mvcc.varint import read_varint
from core.types import MemberId, RequestId

_ID_TAG, _METHOD_TAG, _PATH_TAG, _VALUE_TAG = 0x08, 0x12, 0x1A, 0x22
_ATTRIBUTES_PATH = re.compile(r"/0/members/([0-9a-f]{1,16})/attributes")
_VERSION_PATH = "/0/version"


class V2Request(NamedTuple):
    """What is read of an etcdserverpb.Request."""

    id: RequestId
    method: str
    path: str
    value: str


class Attributes(NamedTuple):
    """A member says what it is called and where it serves clients."""

    member: MemberId
    name: str
    client_urls: tuple[str, ...]


class ClusterVersion(NamedTuple):
    """The members have agreed on a version."""

    version: str


def v2_request(data: bytes) -> V2Request | None:
    """Return the request in *data*; None if it is no such request."""
    if data[0] != _ID_TAG:
        return None
    try:
        request_id, at = read_varint(data, 1)
        if data[at] != _METHOD_TAG:
            return None
        texts: dict[int, str] = {}
        while at < len(data) and data[at] in {_METHOD_TAG, _PATH_TAG, _VALUE_TAG}:
            length, start = read_varint(data, at + 1)
            texts[data[at]] = data[start : start + length].decode(errors="replace")
            at = start + length
    except IndexError:
        return None
    return V2Request(
        RequestId(request_id), texts.get(_METHOD_TAG, ""), texts.get(_PATH_TAG, ""), texts.get(_VALUE_TAG, "")
    )


def meaning(request: V2Request) -> Attributes | ClusterVersion | None:
    """Return what *request* says about the cluster; None if nothing."""
    if request.method != "PUT":
        return None
    if request.path == _VERSION_PATH:
        return ClusterVersion(request.value)
    match = _ATTRIBUTES_PATH.fullmatch(request.path)
    if match is None:
        return None
    try:
        fields = json.loads(request.value)
        name, urls = str(fields.get("name", "")), tuple(map(str, fields.get("clientURLs") or ()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    return Attributes(MemberId(int(match[1], 16)), name, urls)
