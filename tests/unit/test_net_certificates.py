"""What a certificate must say: names, addresses, revocation; in etcd's rules, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from net.certificates import (
    RevocationList,
    UnreadableList,
    common_name_in,
    fits_address,
    fits_names,
    is_allowed,
    names_host,
)
from tests.pki import Authority

if TYPE_CHECKING:
    from pathlib import Path

CERTIFICATE = {
    "subject": ((("organizationName", "o"), ("commonName", "first")), (("commonName", "a"),)),
    "subjectAltName": (
        ("DNS", "*.Example.com"),
        ("DNS", "plain.test"),
        ("IP Address", "10.0.0.1"),
        ("IP Address", "0:0:0:0:0:0:0:1"),
        ("URI", "x://other.test"),
    ),
}


def test_allow_lists() -> None:
    """CN by equality, the last one as in Go; host names against the alternatives alone; empty lists allow all."""
    assert common_name_in(CERTIFICATE) == "a"
    assert common_name_in({}) is None
    assert is_allowed(CERTIFICATE, [], [])
    assert is_allowed(CERTIFICATE, ["b", "a"], [])
    assert not is_allowed(CERTIFICATE, ["first"], [])
    assert not is_allowed({}, ["a"], [])
    assert is_allowed(CERTIFICATE, [], ["nobody", "x.example.com"])
    assert not is_allowed(CERTIFICATE, [], ["a"])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("x.example.com", True),
        ("X.EXAMPLE.COM.", True),
        ("x.y.example.com", False),
        ("example.com", False),
        (".example.com", False),
        ("plain.test", True),
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("::1", True),
        ("10.0.0.2", False),
        ("other.test", False),
    ],
)
def test_hosts(host: str, expected: bool) -> None:
    """A wildcard stands for one label, and addresses are compared as addresses, however they are written."""
    assert names_host(CERTIFICATE, host) is expected


def test_addresses() -> None:
    """An address in the certificate is enough; without one, DNS decides; without any name, everybody may show it."""

    def with_names(*names: tuple[str, str]) -> dict[str, object]:
        return {"subject": (), "subjectAltName": names}

    address, other, name = ("IP Address", "10.0.0.1"), ("IP Address", "10.0.0.2"), ("DNS", "plain.test")
    assert fits_address(with_names(address, name), "10.0.0.1") is True
    assert fits_address(with_names(other), "10.0.0.1") is False
    assert fits_address(with_names(other, name), "10.0.0.1") is None
    assert fits_address(with_names(), "10.0.0.1") is True


@pytest.mark.parametrize(
    ("names", "addresses", "expected"),
    [
        ({"10.0.0.1": ["plain.test."]}, {}, True),
        ({"10.0.0.1": ["a.b.example.com"]}, {}, True),
        ({}, {"plain.test": ["10.0.0.9", "::ffff:10.0.0.1"]}, True),
        ({}, {"plain.test": ["10.0.0.9"]}, False),
        ({"10.0.0.1": ["example.com", "xplain.test"]}, {}, False),
        ({}, {"*.example.com": ["10.0.0.1"]}, False),
    ],
)
def test_names_in_dns(names: dict[str, list[str]], addresses: dict[str, list[str]], expected: bool) -> None:
    """Either direction will do; a wildcard can only be found backwards, and there it stands for any depth, as in Go."""
    found = fits_names(
        CERTIFICATE, "10.0.0.1", lambda host: names.get(host, ()), lambda name: addresses.get(name.lower(), ())
    )
    assert found is expected


def test_revocation_list(tmp_path: Path) -> None:
    """PEM and DER alike; what replaces the file counts at once; one that cannot be read is no all-clear."""
    authority = Authority(tmp_path)
    issued = [authority.issue(name) for name in "ab"]
    path = authority.revoke(tmp_path / "crl", issued[0])
    listed = RevocationList(path)
    assert listed.serials() == {issued[0].serial}
    authority.revoke(path, *issued, der=True)
    assert listed.serials() == {each.serial for each in issued}
    for content in (b"", b"nonsense", issued[0].pem.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UnreadableList, match="cannot be read"):
            listed.serials()
    path.unlink()
    with pytest.raises(UnreadableList, match="No such file"):
        listed.serials()
