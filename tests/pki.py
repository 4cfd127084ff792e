"""Certificates for tests, made when they run: authorities, what they sign, and what they revoke."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in files."""

    pem: Path
    key: Path
    serial: int


class Authority:
    """Signs certificates; its own is in *pem*."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.pem = folder / f"{name}.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(self._name, self._name, self._key, -DAY, DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        replace(self.pem, certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        common_name: str | None = None,
        dns: tuple[str, ...] = ("localhost",),
        addresses: tuple[str, ...] = ("127.0.0.1",),
        valid: bool = True,
    ) -> Issued:
        """Sign a certificate into NAME.pem and NAME.key, for servers and clients; one that is not *valid* is too old.

        *common_name* is the name where it is not given, and there is none where it is empty.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        common_name = name if common_name is None else common_name
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in dns]
        alternatives += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
        builder = _builder(subject, self._name, key, -2 * DAY, DAY if valid else -DAY)
        builder = builder.add_extension(x509.ExtendedKeyUsage(BOTH), critical=False)
        # Which of two authorities of one name has signed it.
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        issued = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key", certificate.serial_number)
        replace(issued.key, _pem(key))
        replace(issued.pem, certificate.public_bytes(serialization.Encoding.PEM))
        return issued

    def revoke(self, path: Path, *revoked: Issued, der: bool = False) -> Path:
        """Write the list of all that is *revoked* to *path*, in PEM or in DER."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - DAY).next_update(now + DAY)
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(now - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
        replace(path, builder.sign(self._key, hashes.SHA256()).public_bytes(encoding))
        return path


def replace(path: Path, content: bytes) -> None:
    """Put *content* in the place of the file at *path*, in one go, as tools for rotation do."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.replace(new, path)  # noqa: PTH105 - the one that says what it does


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: dt.timedelta,
    until: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
