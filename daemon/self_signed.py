"""Certificates made at the start, for --auto-tls and --peer-auto-tls: encryption without anybody to vouch for it.

Kept in the data directory and used again as long as both files are there; form and place are etcd's.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import structlog


class SelfSignedRefused(Exception):  # noqa: N818 - named for what happened
    """No certificate could be made; the text is for the operator."""


def self_signed(
    folder: Path, hosts: Iterable[str], validity_years: int, logger: structlog.stdlib.BoundLogger
) -> tuple[Path, Path]:
    """Return the files of the certificate and its key in *folder*, made for *hosts* if they are not both there.

    The folder and the one above it are made if they are missing.  Raises SelfSignedRefused.
    """
    from daemon.issuing import end_of, issue  # noqa: PLC0415 - members start faster without it

    certificate, key = folder / "cert.pem", folder / "key.pem"
    try:
        if certificate.exists() and key.exists():
            _warn_of_age(certificate, end_of(certificate.read_bytes()), logger)
            return certificate, key
        for directory in (folder.parent, folder):
            directory.mkdir(mode=0o700, exist_ok=True)
        made, made_key, until = issue(list(dict.fromkeys(hosts)), validity_years)
        logger.warning("automatically generate certificates", certificate_validity_bound_not_after=until.isoformat())
        _write(key, made_key)
        _write(certificate, made)
    except (OSError, ValueError, OverflowError) as error:
        raise SelfSignedRefused(f"cannot make a certificate in {folder}: {error}") from error
    logger.info("created cert file", path=str(certificate))
    logger.info("created key file", path=str(key))
    return certificate, key


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _warn_of_age(path: Path, until: dt.datetime, logger: structlog.stdlib.BoundLogger) -> None:
    if until < dt.datetime.now(dt.UTC):
        logger.warning(
            "the certificate made at an earlier start has expired; remove it and its key to have a new one made",
            path=str(path),
            not_after=until.isoformat(),
        )
