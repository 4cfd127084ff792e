"""The Lease service: what is proposed, what the primary is asked, and keep-alive streams."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import NotPrimaryLessor
from core.lease.book import TTL_S_MAX
from net.rpc import OK, Code
from proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from services import lease as lease_module
from services.lease import GRANT_TAG, INLINE_LEASES_MAX, REVOKE_TAG, UNSENT_BYTES_MAX, KeepAliveStream, LeaseService
from services.node import LeaseTimes
from tests.fake_node import FakeNode
from tests.fakes import FakeCall, FakeStream

NOT_A_MESSAGE = b"\xff"


@pytest.mark.parametrize("method", ["grant", "revoke", "time_to_live", "leases"])
def test_bytes_that_are_no_message_are_refused(method: str) -> None:
    """In grpc-go's words, and without asking anybody."""
    node, call = FakeNode(), FakeCall()
    getattr(LeaseService(node), method)(call, NOT_A_MESSAGE)
    assert call.status is not None
    assert call.status.code is Code.INTERNAL
    assert (node.proposed, node.asked, node.reads) == ([], [], [])


def test_a_grant_keeps_the_id_that_the_client_chose() -> None:
    """It is proposed as it came."""
    node, payload = FakeNode(), LeaseGrantRequest(ID=5, TTL=10).SerializeToString()
    LeaseService(node).grant(FakeCall(), payload)
    assert [(proposed.tag, proposed.body) for proposed in node.proposed] == [(GRANT_TAG, payload)]


def test_a_grant_without_an_id_gets_one_here() -> None:
    """It must be the same on every member, so it is chosen before it is proposed."""
    node = FakeNode()
    LeaseService(node).grant(FakeCall(), LeaseGrantRequest(TTL=10).SerializeToString())
    assert LeaseGrantRequest.FromString(node.proposed[0].body) == LeaseGrantRequest(ID=77, TTL=10)


def test_a_grant_that_is_too_long_is_refused() -> None:
    """Before it takes a place in the log."""
    node, longest, longer = FakeNode(), FakeCall(), FakeCall()
    service = LeaseService(node)
    service.grant(longest, LeaseGrantRequest(ID=1, TTL=TTL_S_MAX).SerializeToString())
    service.grant(longer, LeaseGrantRequest(ID=1, TTL=TTL_S_MAX + 1).SerializeToString())
    assert longer.status is not None
    assert (longer.status.code, longer.status.message) == (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
    assert [proposed.call for proposed in node.proposed] == [longest]


def test_without_room_a_grant_is_refused() -> None:
    """Leases take space too."""
    node = FakeNode()
    node.is_roomy = False
    LeaseService(node).grant(FakeCall(), LeaseGrantRequest(ID=1, TTL=9).SerializeToString())
    assert node.proposed == []


def test_a_revoke_is_proposed() -> None:
    """What it deletes is found where it is applied."""
    node, payload = FakeNode(), LeaseRevokeRequest(ID=5).SerializeToString()
    LeaseService(node).revoke(FakeCall(), payload)
    assert [(proposed.tag, proposed.body) for proposed in node.proposed] == [(REVOKE_TAG, payload)]


def time_to_live(node: FakeNode, times: Any, *, keys: bool = False) -> FakeCall:
    """Ask for the time that lease 5 has, and let it be answered with *times*."""
    call = FakeCall()
    LeaseService(node).time_to_live(call, LeaseTimeToLiveRequest(ID=5, keys=keys).SerializeToString())
    assert node.asked == [], "what this client has seen acknowledged must be applied first"
    node.run_reads()
    node.answer(times)
    return call


def test_remaining_time_comes_from_the_primary() -> None:
    """With what was granted, so that a client can tell how much has passed."""
    call = time_to_live(FakeNode(), LeaseTimes(7, 10))
    assert call.answer is not None
    answer = LeaseTimeToLiveResponse.FromString(call.answer)
    assert (answer.ID, answer.TTL, answer.grantedTTL, list(answer.keys)) == (5, 7, 10, [])
    assert answer.header.raft_term == 3


def test_an_unknown_lease_has_minus_one() -> None:
    """Zero would be a lease that is about to end."""
    call = time_to_live(FakeNode(), LeaseTimes(None, 0), keys=True)
    assert call.answer is not None
    assert LeaseTimeToLiveResponse.FromString(call.answer).TTL == -1


def test_keys_are_looked_up_if_asked_for() -> None:
    """They are known where entries are applied, not where times are kept."""
    node = FakeNode()
    call = time_to_live(node, LeaseTimes(7, 10), keys=True)
    assert not call.done
    node.answer([b"a", b"b"])
    assert call.answer is not None
    assert list(LeaseTimeToLiveResponse.FromString(call.answer).keys) == [b"a", b"b"]


def test_a_member_that_is_not_primary_says_so() -> None:
    """It has no times to tell."""
    call = time_to_live(FakeNode(), NotPrimaryLessor())
    assert call.status is not None
    assert call.status.message == "not a primary lessor"


def test_leases_are_listed_in_their_order() -> None:
    """Soonest to end first; many are listed on another thread, which takes a while."""
    node, call = FakeNode(), FakeCall()
    LeaseService(node).leases(call, LeaseLeasesRequest().SerializeToString())
    node.answer([(20.0, 5), (10.0, 7)])
    assert call.answer is not None
    assert [lease.ID for lease in LeaseLeasesResponse.FromString(call.answer).leases] == [7, 5]
    other = FakeCall()
    LeaseService(node).leases(other, LeaseLeasesRequest().SerializeToString())
    node.answer([(-number, number) for number in range(INLINE_LEASES_MAX + 1)])
    [(waiting, job)] = node.jobs
    assert waiting is other
    listed = [lease.ID for lease in LeaseLeasesResponse.FromString(job()).leases]
    assert listed == list(range(INLINE_LEASES_MAX, -1, -1))


class KeepAlive:
    """A keep-alive stream."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.stream = FakeStream()
        self.handler = KeepAliveStream(self.node, self.stream)

    def ask(self, *leases: int) -> None:
        for lease in leases:
            self.handler.on_message(LeaseKeepAliveRequest(ID=lease).SerializeToString())

    def sent(self) -> list[tuple[int, int]]:
        answers = [LeaseKeepAliveResponse.FromString(message) for message in self.stream.sent]
        return [(answer.ID, answer.TTL) for answer in answers]


def test_each_request_is_answered() -> None:
    """With the time that the lease has now; 0 where it is gone."""
    keep_alive = KeepAlive()
    keep_alive.ask(5, 6)
    keep_alive.node.answer(10)
    keep_alive.node.answer(0)
    assert keep_alive.sent() == [(5, 10), (6, 0)]


def test_answers_keep_the_order_of_the_requests() -> None:
    """The answer about an expired lease waits for its revoke, and those behind it wait with it."""
    keep_alive = KeepAlive()
    keep_alive.ask(5, 6)
    first, second = keep_alive.node.asked
    second[-1](20)
    assert keep_alive.sent() == []
    first[-1](0)
    assert keep_alive.sent() == [(5, 0), (6, 20)]


def test_the_header_does_not_run_ahead_of_the_renewal() -> None:
    """It is the store as it was when the renewal was asked for."""
    keep_alive = KeepAlive()
    keep_alive.ask(5)
    keep_alive.node.put(b"a")
    keep_alive.node.answer(10)
    assert LeaseKeepAliveResponse.FromString(keep_alive.stream.sent[0]).header.revision == 1


def test_a_stream_ends_when_all_is_asked_and_answered() -> None:
    """A client that half-closes still wants its answers."""
    keep_alive = KeepAlive()
    keep_alive.ask(5)
    keep_alive.handler.on_half_close()
    assert keep_alive.stream.status is None
    keep_alive.node.answer(10)
    assert keep_alive.sent() == [(5, 10)]
    assert keep_alive.stream.status == OK


def test_a_stream_that_asked_nothing_ends_at_once() -> None:
    """There is nothing to wait for."""
    keep_alive = KeepAlive()
    keep_alive.handler.on_half_close()
    assert keep_alive.stream.status == OK


def test_a_member_that_is_not_primary_ends_the_stream() -> None:
    """The client goes on elsewhere."""
    keep_alive = KeepAlive()
    keep_alive.ask(5)
    keep_alive.node.answer(NotPrimaryLessor())
    assert keep_alive.stream.status is not None
    assert keep_alive.stream.status.message == "not a primary lessor"


def test_a_message_that_is_none_ends_the_stream() -> None:
    """In grpc-go's words."""
    keep_alive = KeepAlive()
    keep_alive.handler.on_message(NOT_A_MESSAGE)
    assert keep_alive.stream.status is not None
    assert keep_alive.stream.status.code is Code.INTERNAL


def test_a_stream_with_too_many_requests_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits lies in memory, and while nothing can be revoked it could wait for ever."""
    monkeypatch.setattr(lease_module, "RENEWALS_WAITING_MAX", 2)
    keep_alive = KeepAlive()
    reading = []
    keep_alive.ask(5)
    reading.append(keep_alive.stream.reading)
    keep_alive.ask(6)
    reading.append(keep_alive.stream.reading)
    keep_alive.node.answer(10)
    reading.append(keep_alive.stream.reading)
    assert reading == [True, False, True]


def test_a_client_that_does_not_read_its_answers_is_not_read_on() -> None:
    """They would pile up."""
    keep_alive = KeepAlive()
    reading = []
    keep_alive.stream.unsent_bytes = UNSENT_BYTES_MAX + 1
    keep_alive.ask(5)
    reading.append(keep_alive.stream.reading)
    keep_alive.node.answer(10)
    reading.append(keep_alive.stream.reading)
    keep_alive.stream.unsent_bytes = 0
    keep_alive.handler.on_drained()
    reading.append(keep_alive.stream.reading)
    assert reading == [False, False, True]
