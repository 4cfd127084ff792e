"""How members meet: who is in, who is too late, and what is done while the registry does not answer."""

from __future__ import annotations

import pytest
import structlog

from discovery.registry import DiscoveryFailed, Meeting, Registration, backoff_after_s, initial_cluster, parsed_size
from tests.fake_registry import UNAVAILABLE, Eager, FakeRegistry

OWN = "a1=http://a:1,a1=http://a:2"


def join(registry: FakeRegistry, patience: Eager | None = None) -> list[str]:
    cluster = Meeting(registry, "a", patience or Eager(), structlog.get_logger()).join(OWN)
    return [f"{member.name}={url}" for member in cluster for url in member.peer_urls]


def coming(*names: str) -> list[Registration]:
    return [Registration(name, f"{name}1=http://{name}:1", 0) for name in names]


def late(name: str) -> list[Registration]:
    return [Registration(name, f"{name}1=http://{name}:1", 1_000)]


def test_the_cluster_is_whoever_came_before_it_was_full() -> None:
    """Every member must come to the same cluster, whenever it looks: the order of registration decides."""
    registry = FakeRegistry()
    registry.put("b", "b1=http://b:1")
    registry.arrivals = coming("c")
    assert join(registry) == ["a1=http://a:1", "a1=http://a:2", "b1=http://b:1", "c1=http://c:1"]
    assert [member.name for member in initial_cluster([*registry.found, *late("d")], 3)] == ["a1", "b1", "c1"]


def test_who_comes_too_late_is_refused() -> None:
    """It registers nothing then, so that what stands there stays the cluster."""
    registry = FakeRegistry("2")
    registry.put("b", "b1=http://b:1")
    registry.put("c", "c1=http://c:1")
    with pytest.raises(DiscoveryFailed, match=r"^discovery: cluster is full$"):
        join(registry)
    assert len(registry.found) == 2


def test_who_loses_the_race_is_refused() -> None:
    """Between looking and registering others may come; then there is one too many, and that is the last."""

    class Racing(FakeRegistry):
        def register(self, own: str, contents: str) -> None:
            self.put("c", "c1=http://c:1")
            super().register(own, contents)

    registry = Racing("2")
    registry.put("b", "b1=http://b:1")
    with pytest.raises(DiscoveryFailed, match="cluster is full"):
        join(registry)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "discovery: size key not found"),
        ("", "discovery: size key is bad"),
        ("three", "discovery: size key is bad"),
        ("0", "discovery: size key is bad"),
        ("-1", "discovery: size key is bad"),
        ("99999999999999999999", "discovery: size key is bad"),
        ("\N{SUPERSCRIPT TWO}", "discovery: size key is bad"),
    ],
)
def test_without_a_size_nobody_registers(size: str | None, text: str) -> None:
    """A size of -1 made etcd wait for ever (Trail of Bits 14)."""
    registry = FakeRegistry(size)
    with pytest.raises(DiscoveryFailed, match=f"^{text}$"):
        join(registry)
    assert registry.found == []


def test_a_size_of_one() -> None:
    """No waiting at all."""
    assert parsed_size("1") == 1
    assert join(FakeRegistry("1")) == ["a1=http://a:1", "a1=http://a:2"]


def test_a_registry_that_does_not_answer_is_asked_again() -> None:
    """At every step, each time after twice as long; an answer starts the counting anew."""
    registry, patience = FakeRegistry(), Eager()
    registry.put("b", "b1=http://b:1")
    registry.arrivals = coming("c")
    none = UNAVAILABLE
    registry.failures = [none, None, none, None, None, none, none, None, None, none, None, None]
    assert len(join(registry, patience)) == 4
    assert patience.slept_s == [2.0, 4.0, 2.0, 4.0, 2.0]
    assert [backoff_after_s(retries) for retries in (1, 7, 8, 9, 1000)] == [2.0, 128.0, 256.0, 256.0, 256.0]


def test_what_is_no_registration_is_passed_over() -> None:
    """Anybody may write below a token; neither the size nor the order may suffer from it."""
    registry = FakeRegistry("2")
    registry.put("x", "no registration")
    registry.put("", "z=http://z:1")
    registry.arrivals = [Registration("y", "neither", 0), *coming("b")]
    assert join(registry) == ["a1=http://a:1", "a1=http://a:2", "b1=http://b:1"]


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        ("b=ftp://b:1", "discovery: invalid peer URL: URL scheme must be http"),
        ("a1=http://b:1", "discovery: found duplicate name: a1="),
        ("b=http://a:2", "has duplicate url"),
        ("b=http://b:1,c=http://c:1", "discovery: found duplicate name"),
    ],
)
def test_registrations_that_make_no_cluster(contents: str, text: str) -> None:
    """Better no cluster than one in which two members are the same, or one is two."""
    registry = FakeRegistry("2")
    registry.put("b", contents)
    with pytest.raises(DiscoveryFailed, match=text):
        join(registry)
