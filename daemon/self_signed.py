"""Certificates made at the start, for --auto-tls and --peer-auto-tls: encryption without anybody to vouch for it.

Kept in the data directory and used again as long as both files are there; form and place are etcd's.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import structlog

DAYS_A_YEAR = 365


class SelfSignedRefused(Exception):  # noqa: N818 - named for what happened
    """No certificate could be made; the text is for the operator."""


def self_signed(
    folder: Path, hosts: Iterable[str], validity_years: int, logger: structlog.stdlib.BoundLogger
) -> tuple[Path, Path]:
    """Return the files of the certificate and its key in *folder*, made for *hosts* if they are not both there.

    The folder and the one above it are made if they are missing.  Raises SelfSignedRefused.
    """
    certificate, key = folder / "cert.pem", folder / "key.pem"
    try:
        if certificate.exists() and key.exists():
            _warn_of_age(certificate, logger)
            return certificate, key
        for directory in (folder.parent, folder):
            directory.mkdir(mode=0o700, exist_ok=True)
        made, made_key, until = _make(list(dict.fromkeys(hosts)), validity_years)
        logger.warning("automatically generate certificates", certificate_validity_bound_not_after=until.isoformat())
        _write(key, made_key)
        _write(certificate, made)
    except (OSError, ValueError, OverflowError) as error:
        raise SelfSignedRefused(f"cannot make a certificate in {folder}: {error}") from error
    logger.info("created cert file", path=str(certificate))
    logger.info("created key file", path=str(key))
    return certificate, key


def _make(hosts: list[str], validity_years: int) -> tuple[bytes, bytes, dt.datetime]:
    # Etcd takes P-521, which clients built on BoringSSL (grpcio, browsers) do not speak.
    private = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(days=DAYS_A_YEAR * validity_years)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        crl_sign=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
    certificate = builder.sign(private, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return certificate, private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), until


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _warn_of_age(path: Path, logger: structlog.stdlib.BoundLogger) -> None:
    until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    if until < dt.datetime.now(dt.UTC):
        logger.warning(
            "the certificate made at an earlier start has expired; remove it and its key to have a new one made",
            path=str(path),
            not_after=until.isoformat(),
        )
