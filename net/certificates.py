"""What a verified certificate must say beyond being signed: names that are allowed, not revoked, fitting the address.

Owns etcd's rules for each.  Values in, a reason out: no socket is touched, except where a revocation list is read again
after it has changed.  Certificates come as the mapping of `ssl.SSLObject.getpeercert`, or as DER.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    Certificate = Mapping[str, Any]

NOT_ALLOWED = "client certificate authentication failed"
"""Etcd's words, on either side of a connection."""

_PEM = b"-----BEGIN X509 CRL-----"


class UnreadableList(Exception):  # noqa: N818 - named for what is the matter
    """A revocation list that cannot be read; the text says which and why."""


def common_name_in(certificate: Certificate) -> str | None:
    """Return the CN of the subject, the last one as in Go; None if there is none."""
    found = None
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                found = str(value)
    return found


def is_allowed(certificate: Certificate, common_names: Collection[str], host_names: Collection[str]) -> bool:
    """Whether the certificate is on the allow-lists; empty ones allow all.  Host names are looked for in the SANs."""
    if common_names:
        return common_name_in(certificate) in common_names
    if host_names:
        return any(names_host(certificate, name) for name in host_names)
    return True


def names_host(certificate: Certificate, host: str) -> bool:
    """Whether the certificate is for *host*, a name or an IP address; a wildcard stands for one label."""
    address = _address(host)
    if address is not None:
        return any(_address(text) == address for text in alternatives(certificate, "IP Address"))
    return any(_matches(pattern, host) for pattern in alternatives(certificate, "DNS"))


def alternatives(certificate: Certificate, kind: str) -> list[str]:
    """Return the certificate's alternative names of one *kind*, "DNS" or "IP Address"."""
    return [str(value) for found, value in certificate.get("subjectAltName", ()) if found == kind]


def fits_address(certificate: Certificate, host: str) -> bool | None:
    """Whether a client at the address *host* may show the certificate, as far as can be said without asking DNS.

    None if that depends on what its names resolve to; see fits_names.  One without alternative names fits anywhere.
    """
    addresses, names = alternatives(certificate, "IP Address"), alternatives(certificate, "DNS")
    if addresses and names_host(certificate, host):
        return True
    if names:
        return None
    return not addresses


def fits_names(
    certificate: Certificate,
    host: str,
    names_of: Callable[[str], Iterable[str]],
    addresses_of: Callable[[str], Iterable[str]],
) -> bool:
    """Whether the address *host* has one of the certificate's DNS names, or one of these has that address.

    *names_of* and *addresses_of* ask DNS, may block, and find nothing where DNS has nothing.
    """
    patterns = [name.lower() for name in alternatives(certificate, "DNS")]
    suffixes = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))
    names = [pattern for pattern in patterns if not pattern.startswith("*.")]
    for found in names_of(host):
        name = found.lower().rstrip(".")
        if name in names or (suffixes and name.endswith(suffixes)):
            return True
    address = _address(host)
    return any(_address(found) == address for name in names for found in addresses_of(name))


class RevocationList:
    """The serial numbers that must not be accepted any more, from a file that may be replaced while running.

    Etcd's rule: whoever signed the list, and however old it is, a serial number on it is revoked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[object, frozenset[int]] = (None, frozenset())

    def serials(self) -> frozenset[int]:
        """Return the revoked serial numbers; UnreadableList."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._read[0]:
                from cryptography import x509  # noqa: PLC0415 - big, and few have a list

                content = self._path.read_bytes()
                load = x509.load_pem_x509_crl if _PEM in content else x509.load_der_x509_crl
                self._read = (stamp, frozenset(entry.serial_number for entry in load(content)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UnreadableList(f"the revocation list {self._path} cannot be read: {reason}") from error
        return self._read[1]

    def revoked(self, chain: Iterable[bytes]) -> int | None:
        """Return the first serial number of the *chain* (DER) that is on the list; UnreadableList."""
        serials = self.serials()
        return next((serial for serial in _serials_in(chain) if serial in serials), None)


def _serials_in(chain: Iterable[bytes]) -> Iterator[int]:
    from cryptography import x509  # noqa: PLC0415 - see above

    for certificate in chain:
        yield x509.load_der_x509_certificate(certificate).serial_number


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address in *text*; an IPv4 one that came through an IPv6 socket is itself."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _matches(pattern: str, name: str) -> bool:
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and bool(name.partition(".")[0])
    return pattern == name
