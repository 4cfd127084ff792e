"""TLS for the grpcio engine: the same files, read again when they change.

What grpcio cannot check (names, revocation) is refused in the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from net.tls import Current, TlsConfigurationError, check_files

if TYPE_CHECKING:
    from net.tls import TlsFiles


def credentials(files: TlsFiles, log: Any) -> grpc.ServerCredentials:  # noqa: ANN401 - see net.tls.ServerTls
    """Return the credentials of a listener; raises TlsConfigurationError.

    grpcio asks for the files at each handshake, on a thread of its own.
    """
    current = Current(files, _read, log)
    used = current.value()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        found = current.value()
        if found is used:
            return None
        used = found
        return found

    # The type stubs know it as something else.
    make: Any = grpc.dynamic_ssl_server_credentials
    made: grpc.ServerCredentials = make(used, renewed, files.trusted_ca is not None)
    return made


def _read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    check_files(files)
    assert files.certificate is not None, "checked"
    assert files.key is not None, "checked"
    try:
        pair = (files.key.read_bytes(), files.certificate.read_bytes())
        authorities = None if files.trusted_ca is None else files.trusted_ca.read_bytes()
    except OSError as error:
        raise TlsConfigurationError(f"{error.filename}: {error.strerror}") from error
    return grpc.ssl_server_certificate_configuration([pair], authorities)
