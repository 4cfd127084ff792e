"""Who may join a cluster, and who must not come back to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.urls import InitialMember, parse_url
from core.membership.member import Member
from core.types import MemberId
from daemon.joining import FoundCluster, JoinRefused, expect_new, find_cluster, join

FIRST = Member(MemberId(1), ("http://127.0.0.1:1",), name="a", client_urls=("http://127.0.0.1:2",))
ADDED = Member(MemberId(2), ("http://127.0.0.1:3",))
CLUSTER = FoundCluster(9, (FIRST, ADDED))


def configured(**urls: str) -> list[InitialMember]:
    """The members of --initial-cluster."""
    return [InitialMember(name, (parse_url(url),)) for name, url in urls.items()]


def test_who_joins_gets_the_id_that_the_cluster_has_given() -> None:
    """It is a hash of the time at which it was added, which nobody else can know."""
    assert join(configured(a="http://127.0.0.1:1", b="http://127.0.0.1:3"), "b", CLUSTER) == MemberId(2)


@pytest.mark.parametrize(
    ("members", "found", "text"),
    [
        (configured(a="http://127.0.0.1:1", b="http://127.0.0.1:3"), None, "cannot fetch cluster info"),
        (configured(b="http://127.0.0.1:3"), CLUSTER, "member count is unequal"),
        (configured(a="http://127.0.0.1:1", b="http://127.0.0.1:4"), CLUSTER, "unmatched member"),
        (
            configured(a="http://127.0.0.1:1", b="http://127.0.0.1:3"),
            CLUSTER._replace(members=(FIRST, replace(ADDED, client_urls=("http://127.0.0.1:4",)))),
            "has already been bootstrapped",
        ),
    ],
)
def test_joining_is_refused_in_words(members: list[InitialMember], found: FoundCluster | None, text: str) -> None:
    """Each refusal says what is wrong and what to do."""
    with pytest.raises(JoinRefused, match=text):
        join(members, "b", found)


def test_a_founder_that_has_lost_its_data_must_not_come_back() -> None:
    """It may have voted or acknowledged what it has forgotten."""
    with pytest.raises(JoinRefused, match="etcdctl member remove 1`"):
        expect_new(FIRST, CLUSTER)
    expect_new(replace(FIRST, id=MemberId(7)), CLUSTER)
    expect_new(FIRST, None)


def test_nobody_answers() -> None:
    """Ports where no member listens tell nothing, and are no error."""
    assert find_cluster(["http://127.0.0.1:1"], timeout_s=1.0) is None
