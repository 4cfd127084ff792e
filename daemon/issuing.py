"""A certificate that vouches for itself, and until when one holds.  Values only: daemon/self_signed.py has the files.

Apart from it because the library takes as long to load as half of the rest, and most members have no use for it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS_A_YEAR = 365


def issue(hosts: list[str], validity_years: int) -> tuple[bytes, bytes, dt.datetime]:
    """Return a certificate for *hosts* and its key, both in PEM, and its end.  Raises ValueError, OverflowError."""
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


def end_of(certificate: bytes) -> dt.datetime:
    """Return when the *certificate*, in PEM, ends; ValueError."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
