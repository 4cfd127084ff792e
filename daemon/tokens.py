"""The token scheme that the configuration asks for, and the files that its keys are in."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from config.auth import SIMPLE_TTL_S, parse_token_options
from core.auth.tokens import SimpleTokens
from services.tokens import JwtKeysRefused, NoScheme, SimpleScheme

if TYPE_CHECKING:
    import structlog

    from config.auth import TokenOptions
    from config.schema import Auth
    from core.clock import Clock
    from services.jwt_tokens import JwtKeys
    from services.tokens import TokenScheme


def make_token_scheme(auth: Auth, clock: Clock, logger: structlog.stdlib.BoundLogger) -> TokenScheme:
    """Return the scheme for one listener.  Raises JwtKeysRefused."""
    options = parse_token_options(auth.auth_token)
    match options.kind:
        case "jwt":
            from services.jwt_tokens import JwtTokens  # noqa: PLC0415 - members start faster without it

            files = KeyFiles(options, logger)
            return JwtTokens(files.load(), options.ttl_s, clock.wall_s, files.load_changed)
        case "simple":
            return SimpleScheme(SimpleTokens(auth.auth_token_ttl_s or SIMPLE_TTL_S), SystemRandom())
        case _:
            return NoScheme()


class KeyFiles:
    """The files of one key pair, read again when they have changed."""

    def __init__(self, options: TokenOptions, logger: structlog.stdlib.BoundLogger) -> None:
        self._options = options
        self._logger = logger
        self._stamp: object = None

    def load(self) -> JwtKeys:
        """Read the keys.  Raises JwtKeysRefused."""
        from services.jwt_tokens import parse_keys  # noqa: PLC0415 - see above

        self._stamp = self._stamps()
        return parse_keys(
            self._options.sign_method,
            private=_content("priv-key", self._options.private_key),
            public=_content("pub-key", self._options.public_key),
        )

    def load_changed(self) -> JwtKeys | None:
        """Return the keys if their files are others than at the last look and can be used; else the old ones go on."""
        if self._stamps() == self._stamp:
            return None
        try:
            keys = self.load()
        except JwtKeysRefused as error:
            self._logger.warning("the new keys of tokens cannot be used; the old ones stay", error=str(error))
            return None
        self._logger.info("took up new keys for tokens")
        return keys

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._options.private_key, self._options.public_key))


def _stamp(path: str) -> tuple[int, int, int] | None:
    if not path:
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None  # being replaced, most likely
    return status.st_mtime_ns, status.st_ino, status.st_size


def _content(option: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise JwtKeysRefused(f"auth: {option} {path} cannot be read: {error.strerror}") from error
