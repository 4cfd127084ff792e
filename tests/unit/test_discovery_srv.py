"""A cluster out of SRV records, and what is said where there is none.  Texts are etcd's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from config.urls import parse_urls
from discovery.srv import Own, SrvRefused, cluster_in_dns
from net.srv import LookupFailed, Srv

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDS = {
    ("etcd-server", "plain"): [Srv("h1", 1), Srv("h2", 1), Srv("h3", 1)],
    ("etcd-server-ssl", "secure"): [Srv("h1", 1), Srv("h2", 1)],
    ("etcd-server-ssl", "both"): [Srv("h1", 1), Srv("h2", 1)],
    ("etcd-server", "both"): [Srv("h3", 1)],
    ("etcd-server-prod", "plain"): [Srv("h1", 1), Srv("::1", 2)],
    ("etcd-server", "some"): [Srv("nowhere", 1), Srv("h1", 1)],
    ("etcd-server", "nowhere"): [Srv("nowhere", 1)],
    ("etcd-server", "empty"): [],
}


def lookup(service: str, domain: str) -> Sequence[Srv]:
    if (service, domain) not in RECORDS:
        raise LookupFailed(f"lookup _{service}._tcp.{domain}: no such host")
    return RECORDS[service, domain]


def resolve(host: str) -> str:
    if host == "nowhere":
        raise OSError(-2, "no such host")
    return {"own": "h1"}.get(host, host)


def cluster(domain: str, *, url: str = "http://own:1", name: str = "me", suffix: str = "") -> dict[str, list[str]]:
    own = Own(name, parse_urls(url))
    found = cluster_in_dns(domain, suffix, own, lookup, resolve, structlog.get_logger())
    return {member.name: [str(url) for url in member.peer_urls] for member in found}


def test_a_member_finds_itself_by_its_address_and_numbers_the_others() -> None:
    """Names are nothing that DNS knows; ids come from addresses, so they are the same everywhere."""
    assert cluster("plain") == {"me": ["http://h1:1"], "0": ["http://h2:1"], "1": ["http://h3:1"]}
    assert cluster("plain", url="http://h3:1", name="0") == {
        "1": ["http://h1:1"],
        "2": ["http://h2:1"],
        "0": ["http://h3:1"],
    }


def test_members_with_tls_and_without_are_one_cluster() -> None:
    """And no two of them share a number, which would make them one member."""
    assert cluster("secure", url="https://own:1") == {"me": ["https://h1:1"], "0": ["https://h2:1"]}
    assert cluster("both", url="https://own:1") == {
        "me": ["https://h1:1"],
        "0": ["https://h2:1"],
        "1": ["http://h3:1"],
    }


def test_the_suffix_chooses_among_several_clusters_of_a_domain() -> None:
    """As discovery-srv-name says."""
    assert cluster("plain", suffix="prod") == {"me": ["http://h1:1"], "0": ["http://[::1]:2"]}


def test_a_host_without_an_address_is_left_out() -> None:
    """As long as there are others."""
    assert cluster("some") == {"me": ["http://h1:1"]}


@pytest.mark.parametrize(
    ("domain", "url", "text"),
    [
        ("none", "http://own:1", r"querying DNS SRV records for _etcd-server lookup _etcd-server\._tcp\.none: no such"),
        ("empty", "http://own:1", r"_etcd-server-ssl\._tcp\.empty: no such host"),
        ("nowhere", "http://own:1", "lookup nowhere: no such host"),
        ("plain", "http://h9:1", 'cannot find local etcd member "me" in SRV records'),
        ("plain", "https://own:1", 'cannot find local etcd member "me" in SRV records'),
        ("plain", "http://nowhere:1", "failed to resolve the advertised peer URLs"),
    ],
)
def test_no_cluster(domain: str, url: str, text: str) -> None:
    """Each sentence says which question had no answer."""
    with pytest.raises(SrvRefused, match=f"^error setting up initial cluster.*{text}"):
        cluster(domain, url=url)


def test_a_record_that_names_this_member_with_another_scheme() -> None:
    """One that speaks TLS must not be found where none is promised."""
    RECORDS["etcd-server", "alone"] = [Srv("h1", 1)]
    with pytest.raises(SrvRefused, match="bootstrap at http://h1:1 from DNS for etcd-server has scheme mismatch"):
        cluster("alone", url="https://own:1")
