"""DNS SRV records: who serves something in a domain.

Owns the questions and their errors, in Go's words where etcd shows them; what the answers are used for is the caller's.
Looking up blocks: only for threads that may wait.  Format: RFC 2782; service names as in etcd's DNS discovery.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dns.rdtypes.IN.SRV import SRV

LOOKUP_TIMEOUT_S = 10.0
"""For one question, with all its retries."""


class LookupFailed(Exception):  # noqa: N818 - named for what happened
    """There is no answer; the text is for the operator."""


class Srv(NamedTuple):
    """One record."""

    target: str
    """Without the dot at its end."""
    port: int
    priority: int = 0
    weight: int = 0

    @property
    def address(self) -> str:
        """``host:port``, with brackets where the host needs them."""
        return f"[{self.target}]:{self.port}" if ":" in self.target else f"{self.target}:{self.port}"


class Found(NamedTuple):
    """An endpoint for clients."""

    url: str
    srv: Srv


Lookup = Callable[[str, str], Sequence[Srv]]
"""Returns the records of ``_service._tcp.domain``, best first; LookupFailed.  Here DNS, in tests a table."""


def lookup_srv(service: str, domain: str) -> Sequence[Srv]:
    """Ask the name servers of this machine's resolver, in Go's order: by priority, and by chance in it."""
    import dns.exception  # noqa: PLC0415 - takes longer to import than the rest together, and few have to ask
    import dns.resolver  # noqa: PLC0415

    name = f"_{service}._tcp.{domain}"
    try:
        answer = dns.resolver.resolve(name, "SRV", lifetime=LOOKUP_TIMEOUT_S, search=True)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
        raise LookupFailed(f"lookup {name}: no such host") from error
    except dns.exception.DNSException as error:
        raise LookupFailed(f"lookup {name}: {error or type(error).__name__}") from error
    return ordered(_records(answer), random.SystemRandom())


def ordered(records: Iterable[Srv], chance: random.Random) -> list[Srv]:
    """Return *records* by priority, and within one drawn by weight (RFC 2782)."""
    found: list[Srv] = []
    for _, group in groupby(sorted(records, key=lambda srv: srv.priority), key=lambda srv: srv.priority):
        left = sorted(group, key=lambda srv: srv.weight)  # those of weight 0 first, so that they have a small chance
        while left:
            at = chance.randint(0, sum(srv.weight for srv in left))
            for srv in left:
                at -= srv.weight
                if at <= 0:
                    break
            left.remove(srv)
            found.append(srv)
    return found


def service_of(service: str, suffix: str, scheme: str) -> str:
    """Return the name under which *service* is found over *scheme*: ``etcd-client-ssl-suffix``."""
    secured = f"{service}-ssl" if scheme == "https" else service
    return f"{secured}-{suffix}" if suffix else secured


def find_clients(domain: str, suffix: str = "", lookup: Lookup = lookup_srv) -> tuple[Found, ...]:
    """Return the endpoints for clients that *domain* tells of, those with TLS first; LookupFailed if it tells of none.

    *suffix* is the end of the service's name, as in ``discovery-srv-name``.
    """
    found: list[Found] = []
    failures: list[str] = []
    for scheme in ("https", "http"):
        try:
            records = lookup(service_of("etcd-client", suffix, scheme), domain)
        except LookupFailed as failure:
            failures.append(str(failure))
            continue
        found.extend(Found(f"{scheme}://{srv.address}", srv) for srv in records)
    if len(failures) == 2:
        raise LookupFailed(f"dns lookup errors: {failures[0]} and {failures[1]}")
    return tuple(found)


def _records(answer: Iterable[SRV]) -> Iterator[Srv]:
    for record in answer:
        target = record.target.to_text().rstrip(".")
        if target:  # the root alone says that the service is not offered (RFC 2782)
            yield Srv(target, record.port, record.priority, record.weight)
