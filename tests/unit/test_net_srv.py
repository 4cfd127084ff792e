"""SRV records: asked for over DNS, ordered, and turned into endpoints."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import dns.resolver
import pytest

from net.srv import Found, LookupFailed, Srv, find_clients, lookup_srv, ordered, service_of
from tests.dns_server import resolver_of, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDS = {
    "_etcd-client._tcp.example.org": ["10 0 2379 b.example.org.", "0 0 2379 a.example.org."],
    "_empty._tcp.example.org": [],
    "_none._tcp.example.org": ["0 0 0 ."],
}


def test_records_come_from_the_name_server_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dot at a name's end is DNS's way to write it, not a part of a host's name."""
    with serving(RECORDS) as address:
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver_of(address))
        assert lookup_srv("etcd-client", "example.org") == [
            Srv("a.example.org", 2379, 0, 0),
            Srv("b.example.org", 2379, 10, 0),
        ]
        assert lookup_srv("none", "example.org") == []
        for service in ("missing", "empty"):
            with pytest.raises(LookupFailed, match=rf"lookup _{service}\._tcp\.example\.org: no such host"):
                lookup_srv(service, "example.org")
        with pytest.raises(LookupFailed, match=r"lookup _x\._tcp"):
            lookup_srv("x", "a" * 64 + ".org")  # no name that DNS could hold


def test_weights_decide_by_chance_within_a_priority() -> None:
    """RFC 2782: nine of ten draws go first to the one with nine tenths of the weight, and 0 is drawn seldom."""
    records = [Srv("nine", 1, 0, 90), Srv("one", 1, 0, 10), Srv("zero", 1, 0, 0), Srv("later", 1, 1, 99)]
    chance = Random(7)
    draws = [ordered(records, chance) for _ in range(1000)]
    assert all(draw[3].target == "later" for draw in draws)
    assert all(sorted(draw) == sorted(records) for draw in draws)
    first = Counter(draw[0].target for draw in draws)
    assert 850 < first["nine"] < 950
    assert first["zero"] < 30


def test_services_have_their_schemes_and_suffix() -> None:
    """The names under which etcd looks."""
    assert service_of("etcd-server", "", "http") == "etcd-server"
    assert service_of("etcd-server", "prod", "http") == "etcd-server-prod"
    assert service_of("etcd-client", "prod", "https") == "etcd-client-ssl-prod"


def lookup(service: str, domain: str) -> Sequence[Srv]:
    if service == "etcd-client-ssl" and domain in {"both", "secure"}:
        return [Srv("s", 1)]
    if service == "etcd-client" and domain in {"both", "plain"}:
        return [Srv("::1", 2)]
    raise LookupFailed(f"lookup _{service}._tcp.{domain}: no such host")


def test_clients_find_both_kinds_of_endpoints() -> None:
    """Either alone will do; none at all is an error that tells of both."""
    secure, plain = Found("https://s:1", Srv("s", 1)), Found("http://[::1]:2", Srv("::1", 2))
    assert find_clients("both", lookup=lookup) == (secure, plain)
    assert find_clients("secure", lookup=lookup) == (secure,)
    assert find_clients("plain", lookup=lookup) == (plain,)
    with pytest.raises(LookupFailed, match=r"dns lookup errors: .*etcd-client-ssl-x.* and .*etcd-client-x\._tcp\.none"):
        find_clients("none", "x", lookup)
