"""The members in the tree of a raft snapshot file: what etcd 3.5 tells right only there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.membership.member import MalformedMember, Member
from core.membership.v2store import dump, members_in
from core.types import MemberId

VOTER = Member(MemberId(0xA1), ("http://a:2380",), name="a", client_urls=("http://a:2379",))
LEARNER = Member(MemberId(0xB2), ("http://b:2380",), is_learner=True)


def test_what_is_written_is_read() -> None:
    """Names, URLs and learners."""
    assert members_in(dump([VOTER, LEARNER], [MemberId(3)], "3.5.0", 7)) == [VOTER, LEARNER]


@pytest.mark.parametrize("data", [b"", b"{}", b'{"Root":{"Children":{}}}', dump([], [], "", 1)])
def test_who_tells_of_no_members(data: bytes) -> None:
    """Then the store alone says who they are."""
    assert members_in(data) == []


def broken(change: str, value: Any) -> bytes:
    """Return a tree in which the member's folder has *value* at *change*."""
    tree = json.loads(dump([VOTER], [], "", 1))
    folder = tree["Root"]["Children"]["0"]["Children"]["members"]["Children"]
    if change == "name":
        folder[value] = folder.pop("a1")
    elif change == "folder":
        folder["a1"]["Children"] = value
    else:
        folder["a1"]["Children"]["attributes"]["Value"] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"[]",
        broken("name", "x"),
        broken("name", "123456789012345678"),
        broken("folder", []),
        broken("value", None),
        broken("value", "no JSON"),
        broken("value", '{"name":7}'),
    ],
)
def test_rubbish_is_named(data: bytes) -> None:
    """It comes from another member: nothing in it may stop this one."""
    with pytest.raises(MalformedMember):
        members_in(data)
