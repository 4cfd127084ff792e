"""How many connections may be open, so that files are left for the log."""

from __future__ import annotations

import resource

import pytest

from daemon.open_files import CONNECTIONS_MAX, connections_max


@pytest.mark.parametrize(
    ("limit", "listeners", "expected"),
    [
        (1024, 1, 768),
        (1024, 3, 256),
        (256, 2, 53),
        (100, 2, 1),
        (1 << 20, 2, CONNECTIONS_MAX),
        (resource.RLIM_INFINITY, 2, CONNECTIONS_MAX),
    ],
)
def test_what_is_left_for_connections(
    limit: int, listeners: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All listeners together leave a quarter, and at least etcd's reserve."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert connections_max(listeners) == expected
