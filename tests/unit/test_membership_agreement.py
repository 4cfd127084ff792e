"""The version that a cluster agrees on."""

from __future__ import annotations

import pytest

from core.membership.agreement import told_version, version_to_settle
from core.membership.version import Version

V35, V36 = Version(3, 5, 21), Version(3, 6, 1)


@pytest.mark.parametrize(
    ("current", "told", "expected"),
    [
        ("", [V35, V35], "3.5.0"),
        ("", [V35, V36], "3.5.0"),
        ("", [V35, None], "3.0.0"),
        ("3.0.0", [V35, None], None),
        ("3.0.0", [V35, V36], "3.5.0"),
        ("3.5.0", [V35, V36], None),
        ("3.5.0", [V36, V36], "3.6.0"),
        ("3.6.0", [V35, V36], None),
        ("3.5.0", [], None),
    ],
)
def test_version_to_settle(current: str, told: list[Version | None], expected: str | None) -> None:
    """It is the lowest release of all, once all have spoken, and never falls."""
    assert version_to_settle(current, told, "3.0.0") == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b'{"etcdserver":"3.5.21","etcdcluster":"not_decided"}', V35),
        (b'{"etcdserver":"x"}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_told_version(page: bytes, expected: Version | None) -> None:
    """What is no version page tells nothing."""
    assert told_version(page) == expected
