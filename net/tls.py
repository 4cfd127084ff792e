"""TLS from files that may be replaced while running, for both ends of a connection.

Owns the contexts, and that everything a certificate must satisfy is checked in the handshake itself, so that no
listener and no dialler can leave it out: authority, names, revocation (GHSA-3wh4-j44w-pg92).  What replaces a file
counts from the next handshake on.  The rules are etcd's: h2 is the only protocol offered by ALPN, and a client that
offers none of it is served in HTTP/1.1.  Does not know where the paths come from.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from net.certificates import NOT_ALLOWED, RevocationList, UnreadableList, is_allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from net.certificates import Certificate

T = TypeVar("T")

VERSIONS: Final = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What one side of TLS is made of: the files, and what the other side's certificate must satisfy."""

    certificate: Path | None = None
    key: Path | None = None
    client_certificate: Path | None = None
    """Shown when dialling, with its key; *certificate* if there is none of its own."""
    client_key: Path | None = None
    trusted_ca: Path | None = None
    """With it, clients must show a certificate that it has signed; servers that are dialled are verified by it."""
    revoked: Path | None = None
    """A revocation list; see RevocationList."""
    client_certificate_required: bool = False
    """Without a CA of its own, client certificates are verified against the system's."""
    common_names: Sequence[str] = ()
    """Those that the other side may have; empty for any."""
    host_names: Sequence[str] = ()
    """Those of which the other side's certificate must name one; empty for any."""
    anonymous: bool = False
    """Whether to dial servers whose certificate nobody vouches for, as with certificates made at the start."""
    server_name: str = ""
    """What the certificates of servers that are dialled must name, in place of the host of the URL; empty for that."""
    version_min: str = "TLS1.2"
    version_max: str = ""
    cipher_suites: Sequence[str] | None = None
    """For TLS 1.2, by OpenSSL's names; None: the usual ones."""

    def with_certificate(self, certificate: Path, key: Path) -> TlsFiles:
        """Return the same with another certificate, for both sides."""
        return replace(self, certificate=certificate, key=key, client_certificate=certificate, client_key=key)


class TlsConfigurationError(Exception):
    """The files or settings make no TLS; the text says which and why."""


class Handshake(ssl.SSLObject):
    """One end of a connection; its handshake is over only when the other end has passed every check."""

    outgoing: ssl.MemoryBIO
    check: Callable[[Handshake], None]
    send: Callable[[bytes], object] | None

    def do_handshake(self) -> None:
        """Go on with the handshake; raises ssl.SSLError, as ssl does, also where a check fails."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            # asyncio cuts the connection and drops the alert, which tells the other side what is wrong.
            if self.send is not None and (alert := self.outgoing.read()):
                self.send(alert)
            raise
        self.check(self)

    def chain(self) -> list[bytes]:
        """Return what the other side has shown, its own certificate first, as DER."""
        # Public from Python 3.13 on.
        inner: Any = getattr(self, "_sslobj")  # noqa: B009 - private, and so typed
        return [certificate.public_bytes(_DER) for certificate in inner.get_unverified_chain() or ()]


_DER: Final = 2
"""The encoding's number in CPython's _ssl; 1 is PEM."""


class _Context(ssl.SSLContext):
    """Makes Handshakes."""

    sslobject_class: type[ssl.SSLObject] = Handshake
    check: Callable[[Handshake], None]
    send: Callable[[bytes], object] | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, Handshake), made
        made.outgoing, made.check, made.send = outgoing, self.check, self.send
        return made


class ServerTls:
    """The server's side.  Belongs to one thread.

    *log* is a structlog logger; it hears when files were read again, or could not be.
    """

    def __init__(self, files: TlsFiles, log: Any) -> None:  # noqa: ANN401 - structlog's loggers have no common type
        """Read the files; raises TlsConfigurationError."""
        self.files = files
        self._current = Current(files, _server_context, log)
        self._check = _Check(files)

    def context(self, send: Callable[[bytes], object]) -> ssl.SSLContext:
        """Return the context of one handshake; *send* gets the alert if it fails.

        It is of no use for another one: what a client remembers of a session is worth nothing with the next context, so
        that nobody gets past a check that has changed meanwhile by going on with an old session.
        """
        current = self._current.value()
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        _limit(context, self.files)
        _demand(context, self.files)
        context.check, context.send = self._check, send

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = current

        # OpenSSL asks it in every handshake, also where the client names no server.
        context.sni_callback = renew
        return context


class ClientTls:
    """The client's side.  Belongs to one thread.  Without a certificate it shows none."""

    def __init__(self, files: TlsFiles, log: Any) -> None:  # noqa: ANN401 - see ServerTls
        """Read the files; raises TlsConfigurationError."""
        self._files = files
        self._log = log
        # The system's authorities are many, and few dial anybody whom they vouch for.
        self._current = None if files.trusted_ca is None and files.certificate is None else self._read()

    @property
    def server_name(self) -> str:
        """What a server's certificate must name in place of its host; empty for the host."""
        return self._files.server_name

    def context(self) -> ssl.SSLContext:
        """Return the context of the next connection."""
        if self._current is None:
            self._current = self._read()
        return self._current.value()

    def _read(self) -> Current[ssl.SSLContext]:
        return Current(self._files, _client_context, self._log)


class Current(Generic[T]):
    """What has been read, until files are replaced by others that can be read too.

    While they cannot, perhaps since a certificate is there and its key not yet, the ones from before stay in use.
    """

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], T], log: Any) -> None:  # noqa: ANN401 - as above
        """*make* reads, and raises TlsConfigurationError."""
        self._files = files
        self._make = make
        self._log = log
        self._stamps = _stamps(files)
        self._value = make(files)

    def value(self) -> T:
        """Return what was read, now or before."""
        stamps = _stamps(self._files)
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._value = self._make(self._files)
            except TlsConfigurationError as error:
                self._log.warning("could not read TLS files again; the ones from before stay in use", reason=str(error))
            else:
                self._log.info("read TLS files again")
        return self._value


class _Check:
    """What a certificate must satisfy that is signed by the right authority."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._revoked = None
        if files.revoked is not None:
            self._revoked = RevocationList(files.revoked)
            try:
                self._revoked.serials()
            except UnreadableList as error:
                raise TlsConfigurationError(str(error)) from error

    def __call__(self, connection: Handshake) -> None:
        certificate: Certificate | None = connection.getpeercert()
        if not certificate:
            return  # none was demanded, or nobody vouches for it
        if not is_allowed(certificate, self._files.common_names, self._files.host_names):
            raise _refused(NOT_ALLOWED)
        if self._revoked is None:
            return
        try:
            serial = self._revoked.revoked(connection.chain())
        except (UnreadableList, ValueError) as error:
            # Not to know what is revoked is no reason to let anybody in.
            raise _refused(str(error)) from error
        if serial is not None:
            raise _refused(f"certificate serial {serial:x} revoked")


def check_files(files: TlsFiles) -> None:
    """Raise TlsConfigurationError if *files* make no server."""
    _server_context(files)


def _refused(reason: str) -> ssl.SSLCertVerificationError:
    return ssl.SSLCertVerificationError(1, reason)


def _server_context(files: TlsFiles) -> ssl.SSLContext:
    if files.certificate is None or files.key is None:
        raise TlsConfigurationError(
            f"KeyFile and CertFile must both be present[key: {files.key or ''}, cert: {files.certificate or ''}]"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _limit(context, files)
    _load_certificate(context, files.certificate, files.key)
    if files.trusted_ca is not None:
        _load_authorities(context, files.trusted_ca)
    elif files.client_certificate_required:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    _demand(context, files)
    return context


def _client_context(files: TlsFiles) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check = _Check(files)
    context.hostname_checks_common_name = False
    _limit(context, files)
    certificate, key = files.client_certificate or files.certificate, files.client_key or files.key
    if certificate is not None and key is not None:
        _load_certificate(context, certificate, key)
    if files.anonymous:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif files.trusted_ca is not None:
        _load_authorities(context, files.trusted_ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _limit(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Set what no file changes."""
    # Whatever stands in the file of authorities is trusted, not only what has signed itself; as in Go.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.minimum_version = _version(files.version_min)
    if files.version_max:
        context.maximum_version = _version(files.version_max)
    if files.cipher_suites:
        try:
            context.set_ciphers(":".join(files.cipher_suites))
        except ssl.SSLError as error:
            names = ", ".join(files.cipher_suites)
            raise TlsConfigurationError(f"OpenSSL has none of the cipher suites {names}") from error
    elif files.cipher_suites is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        context.set_alpn_protocols(["h2"])


def _demand(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.trusted_ca is not None or files.client_certificate_required:
        context.verify_mode = ssl.CERT_REQUIRED


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # A key with a passphrase would have OpenSSL ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=b"")
    except (OSError, ValueError) as error:
        # ssl.SSLError is an OSError.
        raise TlsConfigurationError(f"cannot use the certificate {certificate} with the key {key}: {error}") from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise TlsConfigurationError(f"cannot read the trusted authorities {path}: {error}") from error


def _version(name: str) -> ssl.TLSVersion:
    if name not in VERSIONS:
        raise TlsConfigurationError(f'unexpected TLS version "{name}" (must be one of: TLS1.2, TLS1.3)')
    return VERSIONS[name]


def _stamps(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what changes when a file is replaced."""
    paths = [files.certificate, files.key, files.client_certificate, files.client_key, files.trusted_ca]
    return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
