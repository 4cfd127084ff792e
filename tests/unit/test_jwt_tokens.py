"""Signed tokens: every algorithm that etcd takes, what makes one bad, and keys that change."""

from __future__ import annotations

import base64
import hmac
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from config.auth import SIGN_METHODS
from core.auth.rules import NO_RULES, Identity
from core.errors import VerifyOnly
from services.jwt_tokens import ALGORITHMS, CURVES, JwtTokens, parse_keys
from services.tokens import JwtKeysRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.jwt_tokens import JwtKeys

NOW_S = 1_700_000_000.0
TTL_S = 300.0
SECRET = b"0123456789abcdef" * 8


def _pem(key: Any) -> tuple[bytes, bytes]:
    """Return private and public key as the two files hold them."""
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


RSA = _pem(rsa.generate_private_key(65537, 2048))
OTHER_RSA = _pem(rsa.generate_private_key(65537, 2048))
ED25519 = _pem(ed25519.Ed25519PrivateKey.generate())
ELLIPTIC = {algorithm: _pem(ec.generate_private_key(curve())) for algorithm, curve in CURVES.items()}


def files_for(algorithm: str) -> tuple[bytes, bytes]:
    """Return what the private and the public file hold for *algorithm*."""
    match algorithm[:2]:
        case "HS":
            return SECRET, b""
        case "ES":
            return ELLIPTIC[algorithm]
        case "Ed":
            return ED25519
        case _:
            return RSA


class Clock:
    """The time of day, moved by hand."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


class Scheme:
    """JwtTokens, and what they are handed."""

    def __init__(self, keys: JwtKeys) -> None:
        self.clock = Clock()
        self.next_keys: JwtKeys | None = None
        self.tokens = JwtTokens(keys, TTL_S, self.clock, self._take_keys)

    def _take_keys(self) -> JwtKeys | None:
        keys, self.next_keys = self.next_keys, None
        return keys

    def identify(self, token: str) -> Identity | None:
        """Return whom *token* stands for."""
        return self.tokens.identify(token, NO_RULES, 0.0)


def scheme(algorithm: str = "HS256") -> Scheme:
    """Return a scheme with keys for *algorithm*."""
    return Scheme(parse_keys(algorithm, *files_for(algorithm)))


def signed(claims: Mapping[str, object], secret: bytes = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    """Return a token that somebody else has signed."""
    return jwt.encode(dict(claims), secret, algorithm=algorithm, headers=headers or None)


def test_the_algorithms_are_those_of_the_setting() -> None:
    """What the configuration takes is what is there."""
    assert ALGORITHMS == SIGN_METHODS


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_token_is_good_wherever_the_key_is(algorithm: str) -> None:
    """Members share the key and nothing else; with the public key alone they read tokens, and make none."""
    private, public = files_for(algorithm)
    token = scheme(algorithm).tokens.sign("joe", 7)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert scheme(algorithm).identify(token) == Identity("joe", 7)
    assert Scheme(parse_keys(algorithm, private, b"")).identify(token) == Identity("joe", 7)
    if public:
        reader = Scheme(parse_keys(algorithm, b"", public))
        assert reader.identify(token) == Identity("joe", 7)
        with pytest.raises(VerifyOnly):
            reader.tokens.sign("joe", 7)


def test_the_claims_are_etcds() -> None:
    """Members of etcd and its clients read them."""
    claims = jwt.decode(scheme().tokens.sign("joe", 7), options={"verify_signature": False})
    assert claims == {"username": "joe", "revision": 7, "exp": int(NOW_S + TTL_S)}


def test_a_token_ends() -> None:
    """Also one that was seen before its end, and remembered."""
    made = scheme()
    token = made.tokens.sign("joe", 7)
    assert made.identify(token) == Identity("joe", 7)
    made.clock.now_s += TTL_S
    assert made.identify(token) is None
    assert made.identify(signed({"username": "joe", "revision": 7})) == Identity("joe", 7)  # never, if it says nothing
    late = signed({"username": "joe", "revision": 7, "nbf": NOW_S + TTL_S + 1})
    assert made.identify(late) is None
    made.clock.now_s += 1
    assert made.identify(late) == Identity("joe", 7)


GOOD = {"username": "joe", "revision": 7}


def unsigned(header: object, claims: object) -> str:
    """Return a token whose signature is empty."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "ä.ö.ü",
        "\udcff.b.c",
        "\ud800",
        "AAAAAAAAAAAAAAAA.5",
        unsigned({"alg": "none"}, GOOD),
        unsigned({"alg": "None", "typ": "JWT"}, GOOD),
        unsigned({"alg": "HS256"}, GOOD),
        unsigned([], []),
        unsigned({"alg": None}, None),
        signed(GOOD, b"another secret, as long as it must be" * 2),
        signed(GOOD, algorithm="HS512"),
        signed(GOOD)[:-2],
        signed({**GOOD, "username": 5}),
        signed({**GOOD, "username": None}),
        signed({**GOOD, "username": "\ud800"}),
        signed({"revision": 7}),
        signed({"username": "joe"}),
        signed({**GOOD, "revision": "7"}),
        signed({**GOOD, "revision": True}),
        signed({**GOOD, "revision": float("inf")}),
        signed({**GOOD, "revision": float("nan")}),
        signed({**GOOD, "exp": "tomorrow"}),
        signed({**GOOD, "exp": NOW_S}),
        signed({**GOOD, "nbf": [1]}),
        signed(GOOD, crit=["exp"]),
        "x" * 100_000,
    ],
)
def test_what_is_no_good_token(token: str) -> None:
    """Anybody can send anything: it must be told from a token, and never crash who reads it (etcd issue 15676)."""
    assert scheme().identify(token) is None


def test_a_public_key_is_no_secret() -> None:
    """The old trick: sign with HMAC, the public key as the secret, and hope that the server takes either."""
    _, public = RSA
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(GOOD).encode()).rstrip(b"=")
    mark = base64.urlsafe_b64encode(hmac.digest(public, header + b"." + body, "sha256")).rstrip(b"=")
    assert scheme("RS256").identify(b".".join((header, body, mark)).decode()) is None


def test_a_negative_revision_is_none() -> None:
    """It cannot go into an entry's header; the token is as old as can be."""
    assert scheme().identify(signed({**GOOD, "revision": -3})) == Identity("joe", 0)


def test_new_keys_end_old_tokens() -> None:
    """Whoever changes the key has a reason; what was remembered under the old one counts no more."""
    made = Scheme(parse_keys("RS256", *RSA))
    old = made.tokens.sign("joe", 7)
    assert made.identify(old) is not None
    made.tokens.tick(0.0)
    assert made.identify(old) is not None
    made.next_keys = parse_keys("RS256", *OTHER_RSA)
    made.tokens.tick(1.0)
    assert made.identify(old) is None
    assert made.identify(made.tokens.sign("joe", 7)) == Identity("joe", 7)


@pytest.mark.parametrize(
    ("algorithm", "private", "public", "text"),
    [
        ("HS256", b"", b"", "auth: missing key data"),
        ("HS256", b"", b"public", "auth: missing key data"),
        ("HS256", RSA[1], b"", "auth: priv-key cannot be a secret"),
        ("RS256", b"", b"", "auth: missing key data"),
        ("RS256", b"nonsense", b"", "auth: priv-key holds no key"),
        ("RS256", RSA[0], b"nonsense", "auth: pub-key holds no key"),
        ("RS256", RSA[0], OTHER_RSA[1], "auth: public and private keys don't match"),
        ("RS256", ED25519[0], b"", "auth: priv-key holds a key of another kind"),
        ("PS512", b"", ED25519[1], "auth: pub-key holds a key of another kind"),
        ("EdDSA", RSA[0], b"", "auth: priv-key holds a key of another kind"),
        ("ES256", *ELLIPTIC["ES384"], "auth: ES256 needs a key on curve secp256r1"),
    ],
)
def test_keys_that_cannot_be_used(algorithm: str, private: bytes, public: bytes, text: str) -> None:
    """Found at the start, and said in a way that tells what to change."""
    with pytest.raises(JwtKeysRefused) as refused:
        parse_keys(algorithm, private, public)
    assert str(refused.value).startswith(text)
