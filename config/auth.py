"""What the settings of auth mean: ``auth-token`` with its options, and the cost of a password's hash.

Owns the syntax ``jwt,priv-key=PATH,sign-method=RS256,ttl=5m``; reads no file.  Spec: etcd's ``--auth-token``.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.durations import parse_duration_s
from config.faults import BadValue

INVALID_OPTIONS = "auth: invalid auth options"
SIGN_METHODS = frozenset(
    (
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
    )
)
_JWT_OPTIONS = frozenset(("sign-method", "pub-key", "priv-key", "ttl"))
JWT_TTL_S = 300.0
"""Life of a signed token that no ttl was given for."""

SIMPLE_TTL_S = 300
"""Life of a simple token where the setting is 0."""

BCRYPT_COST_MIN = 4
BCRYPT_COST_MAX = 31
BCRYPT_COST_DEFAULT = 10


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Which tokens there are; the rest is for kind ``jwt`` only."""

    kind: str
    """``simple``, ``jwt``, or empty for none."""
    sign_method: str = ""
    private_key: str = ""
    public_key: str = ""
    """Paths of files; empty where there is none."""
    ttl_s: float = JWT_TTL_S
    unknown: tuple[str, ...] = ()
    """Options that mean nothing."""


def parse_token_options(text: str) -> TokenOptions:
    """Return what *text* asks for; raise BadValue in etcd's words."""
    kind, *pairs = text.split(",")
    options: dict[str, str] = {}
    for pair in pairs:
        name, *values = pair.split("=")
        if len(values) != 1 or name in options:
            raise BadValue(INVALID_OPTIONS)
        options[name] = values[0]
    if kind in {"simple", ""}:
        return TokenOptions(kind)
    if kind != "jwt" or options.get("sign-method") not in SIGN_METHODS:
        raise BadValue(INVALID_OPTIONS)
    try:
        ttl_s = parse_duration_s(options["ttl"]) if options.get("ttl") else JWT_TTL_S
    except BadValue as error:
        raise BadValue(INVALID_OPTIONS) from error
    return TokenOptions(
        kind,
        options["sign-method"],
        private_key=options.get("priv-key", ""),
        public_key=options.get("pub-key", ""),
        ttl_s=ttl_s,
        unknown=tuple(sorted(options.keys() - _JWT_OPTIONS)),
    )


def is_bcrypt_cost(cost: int) -> bool:
    """Whether passwords can be hashed at this cost; etcd takes its default in place of one that they cannot."""
    return BCRYPT_COST_MIN <= cost <= BCRYPT_COST_MAX
