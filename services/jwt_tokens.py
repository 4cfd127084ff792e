"""Signed tokens (JSON Web Tokens, RFC 7519): claims username, revision and exp, in any algorithm that etcd takes.

Members share nothing but the key, so a token outlives a restart and is good at every member; that its user has changed
shows in the revision only.  Keys are PEM, for HS* any bytes; with a public key alone tokens are read but not made.
Behaviour: section Auth of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from core.auth.rules import Identity, Rules
from core.errors import VerifyOnly
from services.tokens import JwtKeysRefused, LoglessScheme

if TYPE_CHECKING:
    from collections.abc import Callable

ALGORITHMS = frozenset(f"{family}{size}" for family in ("HS", "RS", "PS", "ES") for size in (256, 384, 512)) | {"EdDSA"}
CURVES: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}

REMEMBERED_MAX = 4096
"""Tokens remembered as well signed: checking a signature takes as long as a whole put."""

_PRIVATE_KINDS: dict[str, type[Any]] = {
    "RS": rsa.RSAPrivateKey,
    "PS": rsa.RSAPrivateKey,
    "ES": ec.EllipticCurvePrivateKey,
    "Ed": ed25519.Ed25519PrivateKey,
}
_PUBLIC_KINDS: dict[str, type[Any]] = {
    "RS": rsa.RSAPublicKey,
    "PS": rsa.RSAPublicKey,
    "ES": ec.EllipticCurvePublicKey,
    "Ed": ed25519.Ed25519PublicKey,
}
# Times are looked at here, by the clock that was handed in; who issued a token for whom does not matter.
_DECODING: Any = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


class JwtKeys(NamedTuple):
    """What tokens are signed and checked with."""

    algorithm: str
    public: Any
    """Checks a signature; for HS* the secret."""
    private: Any
    """Makes one; None if tokens are only read."""


class _Claims(NamedTuple):
    identity: Identity
    not_before_s: float
    end_s: float
    """Both in wall-clock seconds."""


def parse_keys(algorithm: str, private: bytes, public: bytes) -> JwtKeys:
    """Return the keys in the contents of two files, either of which may be empty.  Raises JwtKeysRefused."""
    family = algorithm[:2]
    if family == "HS":
        if not private:
            raise JwtKeysRefused("auth: missing key data")
        _check_usable(algorithm, private)
        return JwtKeys(algorithm, private, private)
    if not private and not public:
        raise JwtKeysRefused("auth: missing key data")
    signing: Any = _loaded(_private_key, private, _PRIVATE_KINDS[family], "priv-key") if private else None
    checking: Any = _loaded(_public_key, public, _PUBLIC_KINDS[family], "pub-key") if public else None
    if checking is None:
        checking = signing.public_key()
    elif signing is not None and checking != signing.public_key():
        raise JwtKeysRefused("auth: public and private keys don't match")
    if family == "ES" and not isinstance(checking.curve, CURVES[algorithm]):
        raise JwtKeysRefused(f"auth: {algorithm} needs a key on curve {CURVES[algorithm].name}")
    return JwtKeys(algorithm, checking, signing)


class JwtTokens(LoglessScheme):
    """See TokenScheme."""

    def __init__(
        self,
        keys: JwtKeys,
        ttl_s: float,
        wall_s: Callable[[], float],
        changed_keys: Callable[[], JwtKeys | None],
    ) -> None:
        """Make tokens that live *ttl_s* seconds.  *changed_keys* returns the keys when they are others than before."""
        self._keys = keys
        self._ttl_s = ttl_s
        self._wall_s = wall_s
        self._changed_keys = changed_keys
        self._known: dict[str, _Claims] = {}

    def sign(self, user: str, revision: int) -> str:
        """See TokenScheme; raises VerifyOnly."""
        keys = self._keys
        if keys.private is None:
            raise VerifyOnly
        claims = {"username": user, "revision": revision, "exp": int(self._wall_s() + self._ttl_s)}
        return jwt.encode(claims, keys.private, algorithm=keys.algorithm)

    def identify(self, token: str, rules: Rules, now_s: float) -> Identity | None:  # noqa: ARG002 - part of the scheme
        """See TokenScheme."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._read(token)
            if claims is None:
                return None
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[token] = claims
        return claims.identity if claims.not_before_s <= self._wall_s() < claims.end_s else None

    def tick(self, now_s: float) -> None:  # noqa: ARG002 - part of the scheme
        """See TokenScheme: take up new keys."""
        keys = self._changed_keys()
        if keys is not None:
            self._keys = keys
            self._known.clear()

    def _read(self, token: str) -> _Claims | None:
        """Return what a well-signed *token* claims, whenever it holds."""
        keys = self._keys
        try:
            claims = jwt.decode(token, keys.public, algorithms=[keys.algorithm], options=_DECODING)
        except (jwt.PyJWTError, ValueError):
            return None  # a ValueError is what lone surrogates and overlong numbers end in
        user: Any = claims.get("username")
        revision: Any = claims.get("revision")
        not_before_s, end_s = claims.get("nbf", 0.0), claims.get("exp", float("inf"))
        if not isinstance(user, str) or not all(map(_is_number, (revision, not_before_s, end_s))):
            return None
        try:
            user.encode()
            return _Claims(Identity(user, max(int(revision), 0)), not_before_s, end_s)
        except (ValueError, OverflowError):
            return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _loaded(load: Callable[[bytes], Any], content: bytes, kind: type[Any], option: str) -> Any:  # noqa: ANN401 - any key
    try:
        key = load(content)
    except (ValueError, TypeError) as error:
        raise JwtKeysRefused(f"auth: {option} holds no key in PEM form that can be read: {error}") from error
    if not isinstance(key, kind):
        raise JwtKeysRefused(f"auth: {option} holds a key of another kind than sign-method needs")
    return key


def _private_key(content: bytes) -> Any:  # noqa: ANN401 - any key
    return load_pem_private_key(content, password=None)


def _public_key(content: bytes) -> Any:  # noqa: ANN401 - any key
    if b"-----BEGIN CERTIFICATE-----" in content:
        return x509.load_pem_x509_certificate(content).public_key()
    return load_pem_public_key(content)


def _check_usable(algorithm: str, secret: bytes) -> None:
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise JwtKeysRefused(f"auth: priv-key cannot be a secret: {error}") from error
