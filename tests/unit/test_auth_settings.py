"""The settings of auth: what they take, which tokens they make, and keys in files that change."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
import structlog

from config.auth import TokenOptions, is_bcrypt_cost, parse_token_options
from config.faults import BadValue
from config.schema import Auth
from core.auth.rules import NO_RULES, Identity
from core.auth.tokens import TokenAssigned
from daemon.tokens import make_token_scheme
from services.passwords import Passwords
from services.tokens import JwtKeysRefused
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from services.tokens import TokenScheme

LOGGER: structlog.stdlib.BoundLogger = structlog.get_logger()
SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("simple", TokenOptions("simple")),
        ("simple,anything=1", TokenOptions("simple")),
        ("", TokenOptions("")),
        ("jwt,sign-method=HS256,priv-key=/k", TokenOptions("jwt", "HS256", "/k")),
        (
            "jwt,pub-key=/p,priv-key=/k,sign-method=EdDSA,ttl=1h30m,x=1",
            TokenOptions("jwt", "EdDSA", "/k", "/p", 5400.0, ("x",)),
        ),
        ("jwt,sign-method=RS256,pub-key=/p,ttl=", TokenOptions("jwt", "RS256", "", "/p")),
    ],
)
def test_token_options(text: str, options: TokenOptions) -> None:
    """The syntax is etcd's."""
    assert parse_token_options(text) == options


@pytest.mark.parametrize(
    "text",
    [
        "complex", "jwt", "jwt,sign-method=RS1", "jwt,sign-method=none", "jwt,sign-method", "jwt,sign-method=HS256=x",
        "jwt,sign-method=HS256,sign-method=HS256", "jwt,sign-method=HS256,ttl=soon", "simple,x", " jwt",
    ],
)  # fmt: skip
def test_token_options_that_are_refused(text: str) -> None:
    """In etcd's one sentence for all of them."""
    with pytest.raises(BadValue, match=r"^auth: invalid auth options$"):
        parse_token_options(text)


def test_costs_that_bcrypt_knows() -> None:
    """Beyond them etcd takes its default, with a warning."""
    assert [is_bcrypt_cost(cost) for cost in (3, 4, 10, 31, 32)] == [False, True, True, True, False]


def make(auth: Auth) -> TokenScheme:
    """Return the scheme for these settings."""
    return make_token_scheme(auth, FakeClock(), LOGGER)


def test_simple_tokens_live_as_long_as_is_set() -> None:
    """0 means etcd's default."""
    for ttl_s, lives_s in ((7, 7), (0, 300)):
        scheme = make(Auth(auth_token_ttl_s=ttl_s))
        scheme.take(TokenAssigned("word.1", "joe"), 0.0)
        assert scheme.identify("word.1", NO_RULES, lives_s - 1) == Identity("joe", NO_RULES.revision)
        assert scheme.identify("word.1", NO_RULES, 2 * lives_s) is None
        assert scheme.ready_at("word.12") == 12
        assert scheme.ready_at("nonsense") == 0


def test_no_tokens_at_all() -> None:
    """Then only certificates tell who calls."""
    scheme = make(Auth(auth_token=""))
    assert scheme.make_word() == ""
    assert scheme.identify("word.1", NO_RULES, 0.0) is None
    assert scheme.take_used() == {}


def test_keys_are_read_again_when_their_file_has_changed(tmp_path: Path) -> None:
    """Keys are replaced while members run; a file that is gone or half written leaves the old ones in place."""
    path = tmp_path / "key"
    path.write_text(SECRET)
    auth = Auth(auth_token=f"jwt,sign-method=HS256,priv-key={path}")
    scheme, same = make(auth), make(auth)
    token = scheme.sign("joe", 3)
    path.unlink()
    scheme.tick(1.0)
    assert scheme.identify(token, NO_RULES, 0.0) == Identity("joe", 3)
    path.write_text("")
    scheme.tick(2.0)
    assert scheme.identify(token, NO_RULES, 0.0) == Identity("joe", 3)
    path.write_text(SECRET[::-1])
    scheme.tick(3.0)
    assert scheme.identify(token, NO_RULES, 0.0) is None
    assert same.identify(token, NO_RULES, 0.0) == Identity("joe", 3)
    same.tick(1.0)
    assert same.identify(scheme.sign("joe", 4), NO_RULES, 0.0) == Identity("joe", 4)


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    """The member does not start, and says which option to look at."""
    with pytest.raises(JwtKeysRefused, match=r"auth: priv-key .* cannot be read: No such file or directory"):
        make(Auth(auth_token=f"jwt,sign-method=HS256,priv-key={tmp_path / 'none'}"))


def test_a_password_that_was_right_is_known_to_be() -> None:
    """Without hashing it again, for this hash of it and no other."""
    passwords = Passwords(4, 1, bytes)
    hashed, again = (base64.b64decode(passwords.hash("p")) for _ in range(2))
    assert not passwords.is_known_right("p", hashed)
    assert not passwords.is_right("q", hashed)
    assert not passwords.is_known_right("q", hashed)
    assert passwords.is_right("p", hashed)
    assert passwords.is_known_right("p", hashed)
    assert not passwords.is_known_right("q", hashed)
    assert not passwords.is_known_right("p", again)


def test_hashes_of_other_servers() -> None:
    """Old etcd cut a password at 72 bytes without a word; what is no hash at all is of no password."""
    passwords = Passwords(4, 1, bytes)
    password = "x" * 80
    assert passwords.is_right(password, base64.b64decode(passwords.hash(password[:72])))
    for hashed in (b"", b"no hash", b"$2a$99$" + b"." * 53, b"$2a$04$" + b"." * 20):
        assert not passwords.is_right("p", hashed)
