"""Who may join a cluster, and who must not come back to it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from config.urls import InitialMember, parse_url
from core.membership.member import Member
from core.types import MemberId
from daemon.joining import FoundCluster, JoinRefused, expect_compatible, expect_new, find_cluster, join

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        (configured(a="http://127.0.0.1:1", b="http://127.0.0.1:4"), CLUSTER, "no match found for existing member"),
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


def test_two_names_of_one_host_are_the_same() -> None:
    """Who adds a member by its address may start it by its name (etcd resolves both)."""
    names = {"one": "127.0.0.1"}
    members = configured(a="http://one:1", b="http://127.0.0.1:3")
    assert join(members, "b", CLUSTER, lambda host: names.get(host, host)) == MemberId(2)

    def nowhere(host: str) -> str:
        raise OSError(host)

    with pytest.raises(JoinRefused, match="no match found for existing member"):
        join(members, "b", CLUSTER, nowhere)
    assert join(configured(a="http://127.0.0.1:1", b="http://127.0.0.1:3"), "b", CLUSTER, nowhere) == MemberId(2)
    assert join(configured(a="http://x:1", b="http://y:1"), "b", TWINS, lambda _: "one") == MemberId(2)
    with pytest.raises(JoinRefused, match="two members are where b is"):
        join(configured(a="http://z:1", b="http://y:1"), "b", TWINS, lambda _: "one")


TWINS = FoundCluster(9, (replace(FIRST, peer_urls=("http://x:1",)), replace(ADDED, peer_urls=("http://y:1",))))


@pytest.mark.parametrize(
    ("versions", "downgrades", "refused"),
    [
        (("3.5.0", "3.5.0"), False, ""),
        (("3.4.0", "not_decided"), False, ""),
        (("3.5.0", "3.6.0"), False, "its version is 3.5.0, 3.6.0, and .* takes part in 3.0.0 to 3.5.0"),
        (("2.3.0",), False, "its version is 2.3.0"),
        ((), False, "its version is none, or none that can be reached"),
        (("not_decided",), False, "its version is none"),
        (("3.6.0",), True, ""),
        (("3.5.0",), True, "takes part in 3.6.0 to 3.6.0"),
    ],
)
def test_only_versions_that_suit_each_other_make_a_cluster(
    versions: tuple[str, ...], downgrades: bool, refused: str
) -> None:
    """An older member would not know what newer ones write; during a downgrade it may come one release early."""
    found = CLUSTER._replace(versions=versions, downgrades=downgrades)
    if not refused:
        return expect_compatible(found)
    with pytest.raises(JoinRefused, match=f"incompatible with current running cluster: .*{refused}"):
        expect_compatible(found)
    with pytest.raises(JoinRefused, match="incompatible"):
        join(configured(a="http://127.0.0.1:1", b="http://127.0.0.1:3"), "b", found)
    return None


PAGES = {
    "/version": b'{"etcdserver":"3.5.21","etcdcluster":"3.5.0"}\n',
    "/downgrade/enabled": b"false",
}


@contextmanager
def member_at_work() -> Iterator[str]:
    """A server that answers as a member does; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def do_GET(self) -> None:
            member = {"id": 5, "peerURLs": ["http://127.0.0.1:1", url], "name": "a"}
            body = json.dumps([member, {"id": 6, "peerURLs": ["http://127.0.0.1:1"]}]).encode()
            body = PAGES.get(self.path, body)
            self.send_response(200)
            self.send_header("X-Etcd-Cluster-ID", "9")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield url
        finally:
            server.shutdown()
            thread.join()


def test_the_first_to_answer_tells_and_every_member_its_version() -> None:
    """At whichever of its URLs it can be reached; one that was never started is not asked."""
    with member_at_work() as url:
        found = find_cluster(["http://127.0.0.1:1", url], with_versions=True)
        plain = find_cluster([url])
    assert found is not None
    assert (found.id, found.versions, found.downgrades) == (9, ("3.5.0",), False)
    assert [member.id for member in found.members] == [5, 6]
    assert plain == found._replace(versions=None)


def test_nobody_answers() -> None:
    """Ports where no member listens tell nothing, and are no error."""
    assert find_cluster(["http://127.0.0.1:1"], timeout_s=1.0) is None
