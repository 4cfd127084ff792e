"""Version: reading, comparing, agreeing."""

from __future__ import annotations

import pytest

from core.membership.version import MalformedVersion, Version, agreed_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.5.21", Version(3, 5, 21)),
        ("3.5", Version(3, 5)),
        ("3.7.0-alpha.0", Version(3, 7)),
        ("3.6.1+git", Version(3, 6, 1)),
        ("10.0.2", Version(10, 0, 2)),
    ],
)
def test_parse(text: str, version: Version) -> None:
    """Both forms that members tell each other, and those of unreleased servers."""
    assert Version.parse(text) == version


@pytest.mark.parametrize(
    "text", ["", "3", "3.", "v3.5.1", "3.5.1.2", "3.x", "-3.5", "3.5 ", "3.5.1-", "\u0663.\u0665", "3." + "9" * 5000]
)
def test_malformed(text: str) -> None:
    """A peer may send anything."""
    with pytest.raises(MalformedVersion):
        Version.parse(text)


def test_order_is_by_number() -> None:
    """3.10 is newer than 3.9."""
    assert Version.parse("3.9.5") < Version.parse("3.10.0") < Version.parse("4.0.0")


def test_text_has_three_numbers() -> None:
    """As bucket and /version have it."""
    assert str(Version.parse("3.5")) == "3.5.0"
    assert str(Version.parse("3.5.21").release) == "3.5.0"


def test_the_cluster_agrees_on_the_lowest_release() -> None:
    """Members may differ in patches; nothing is used that one of them does not know."""
    members = [Version.parse(text) for text in ("3.6.2", "3.5.21", "3.5.3")]
    assert agreed_version(members) == Version(3, 5)
