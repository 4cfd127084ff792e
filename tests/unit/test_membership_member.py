"""Member ids, addresses and JSON, held against what etcd 3.5.1 made of the same input."""

from __future__ import annotations

import pytest

from core.errors import MemberBadUrls
from core.membership.cluster import cluster_id_of
from core.membership.member import MalformedMember, Member, checked_peer_urls, member_from_json, member_id_of
from core.types import MemberId

FOUNDER = Member.new("actcd-one", ["http://127.0.0.1:35941"], "actcd-token")
ADDED = Member.added(["http://127.0.0.1:258809", "http://127.0.0.1:135941"], is_learner=True, now_s=1795246905)


def test_ids_are_etcds() -> None:
    """With this name, token and URL, asked at this second to add that learner, etcd 3.5.1 chose these."""
    assert FOUNDER.id == 194842234977744227
    assert FOUNDER.hex_id == "2b437fafb177563"
    assert cluster_id_of([FOUNDER.id]) == 13662330407680087511
    assert ADDED.id == 16422041601544679577
    assert ADDED.hex_id == "e3e6cfd432c1f099"


def test_json_is_etcds() -> None:
    """These bytes were found in that etcd's log and buckets."""
    assert FOUNDER.to_json() == b'{"id":194842234977744227,"peerURLs":["http://127.0.0.1:35941"],"name":"actcd-one"}'
    assert ADDED.to_json() == (
        b'{"id":16422041601544679577,"peerURLs":["http://127.0.0.1:135941","http://127.0.0.1:258809"],"isLearner":true}'
    )


def test_ids_do_not_depend_on_the_order_of_urls_or_the_name() -> None:
    """Each member derives the others' ids from its own configuration."""
    one = Member.new("a", ["http://b:1", "http://a:1"], "t")
    two = Member.new("b", ["http://a:1", "http://b:1"], "t")
    assert one.id == two.id == member_id_of(["http://a:1", "http://b:1"], token="t")
    assert one.id != Member.new("a", ["http://b:1", "http://a:1"], "u").id


def test_cluster_id_is_over_all_members_in_order() -> None:
    """All founders must arrive at the same one."""
    ids = [MemberId(3), MemberId(1), MemberId(2)]
    assert cluster_id_of(ids) == cluster_id_of(sorted(ids)) != cluster_id_of(ids[:2])


def test_started_is_having_a_name() -> None:
    """A member tells its name when it first starts."""
    assert FOUNDER.started
    assert not ADDED.started


@pytest.mark.parametrize(
    "urls",
    [
        ["http://a:1"],
        ["https://10.0.0.1:2380", "http://b:2"],
        ["http://[::1]:2380"],
        ["unix://a:1"],
        ["unixs:///run/etcd.sock"],
        [" http://a:1 "],
    ],
)
def test_good_peer_urls(urls: list[str]) -> None:
    """Host and port, or a socket; they are kept in order, as the id is made of them."""
    assert checked_peer_urls(urls) == tuple(sorted(url.strip() for url in urls))


@pytest.mark.parametrize(
    "urls",
    [
        [],
        [""],
        ["a:1"],
        ["http://a"],
        ["http://a:1/path"],
        ["http://a:1/"],
        ["http://a:x"],
        ["ftp://a:1"],
        ["http://a:1", "nonsense"],
        ["http://::1:2380"],
        ["http://a b:1"],
        ["http://a:1\nx"],
    ],
)
def test_bad_peer_urls(urls: list[str]) -> None:
    """Nobody could ever reach such a member, and it would count towards the quorum."""
    with pytest.raises(MemberBadUrls):
        checked_peer_urls(urls)
    with pytest.raises(MemberBadUrls):
        Member.added(urls, is_learner=False, now_s=1)


def test_json_is_read_back() -> None:
    """Every field, and none of a newer version's."""
    member = Member(
        MemberId(2**64 - 1), ("http://a:1",), is_learner=True, name="n", client_urls=("http://c:1", "http://d:1")
    )
    assert member_from_json(member.to_json()) == member
    assert member_from_json(b'{"id":1,"peerURLs":null,"shade":"blue"}') == Member(MemberId(1), ())


def test_json_escapes_as_go_does() -> None:
    """Go writes these characters escaped and the others as UTF-8; equal members must have equal bytes."""
    member = Member(MemberId(1), ("http://a:1",), name="<a>&é")
    assert member.to_json() == '{"id":1,"peerURLs":["http://a:1"],"name":"\\u003ca\\u003e\\u0026é"}'.encode()
    assert member_from_json(member.to_json()) == member


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"nonsense",
        b"\xff\xfe\xfd",
        b"[]",
        b"1",
        b"{}",
        b'{"id":"1"}',
        b'{"id":-1}',
        b'{"id":true}',
        b'{"id":18446744073709551616}',
        b'{"id":1,"name":5}',
        b'{"id":1,"isLearner":"yes"}',
        b'{"id":1,"peerURLs":"http://a:1"}',
        b'{"id":1,"clientURLs":[1]}',
        b"[" * 100_000,
    ],
)
def test_malformed_json_is_named(stored: bytes) -> None:
    """Whatever a log or a bucket holds, the answer is one error that says what is wrong."""
    with pytest.raises(MalformedMember):
        member_from_json(stored)


def test_half_a_character_is_replaced() -> None:
    """JSON can hold half of a surrogate pair, which no UTF-8 can; it must not stop the member that stores it."""
    member = member_from_json(rb'{"id":1,"name":"\ud800"}')
    assert member_from_json(member.to_json()).name == "?"
