"""Which of etcd's errors a request without an answer ends with."""

from __future__ import annotations

import pytest

from core.errors import DeadlineExceeded, EtcdError, RequestTimeout, TimeoutDueToConnectionLost, TimeoutDueToLeaderFail
from core.types import MemberId
from services.timeouts import Leadership

LOCAL, SECOND, THIRD = MemberId(1), MemberId(2), MemberId(3)


def leadership(leader: MemberId, **connected_since_s: float) -> Leadership:
    """Three voters, election timeout 1 s, and *leader* since second 10."""
    found = Leadership(LOCAL, 1.0, voters=(LOCAL, SECOND, THIRD))
    found.notice(SECOND if leader != SECOND else THIRD, 1.0)
    found.notice(leader, 10.0)
    names = {"second": SECOND, "third": THIRD}
    found.connected_since_s = {names[name]: since_s for name, since_s in connected_since_s.items()}
    return found


@pytest.mark.parametrize(
    ("known", "since_s", "expected"),
    [
        (leadership(LOCAL, second=2.0), 12.0, RequestTimeout),
        (leadership(LOCAL, second=2.0), 9.0, TimeoutDueToLeaderFail),
        (leadership(LOCAL, second=2.0), 7.5, RequestTimeout),
        (leadership(LOCAL), 12.0, TimeoutDueToConnectionLost),
        (leadership(LOCAL, second=13.0), 12.0, TimeoutDueToConnectionLost),
        (leadership(SECOND, second=2.0), 12.0, RequestTimeout),
        (leadership(SECOND, third=2.0), 12.0, TimeoutDueToConnectionLost),
        (leadership(MemberId(0), second=2.0), 12.0, DeadlineExceeded),
        (leadership(MemberId(0), second=2.0), 9.0, RequestTimeout),
    ],
)
def test_why_a_request_timed_out(known: Leadership, since_s: float, expected: type[EtcdError]) -> None:
    """Clients tell these apart: some they retry, and people look for the cause that the text names."""
    assert type(known.timeout_of(since_s)) is expected


def test_a_member_alone_never_blames_a_connection() -> None:
    """It needs nobody else for its quorum."""
    alone = Leadership(LOCAL, 1.0, voters=(LOCAL,))
    alone.notice(LOCAL, 1.0)
    assert type(alone.timeout_of(5.0)) is RequestTimeout
