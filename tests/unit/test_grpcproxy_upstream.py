"""UpstreamActor and its channels: what becomes of calls under way when the members tell of other addresses."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from actors.loop_home import LoopHome
from actors.messages.serve import Answered
from grpcproxy.settings import Upstream
from grpcproxy.upstream import LEAVING_S, UpstreamActor
from proto.rpc_pb2 import Member, MemberListResponse

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 10.0


class Channel:
    """Is connected, until it is closed."""

    def __init__(self, endpoint: str, note: Callable[[str, float | None], None]) -> None:
        self._endpoint = endpoint
        self._note = note

    def get_state(self, *, try_to_connect: bool) -> grpc.ChannelConnectivity:
        assert try_to_connect
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, _state: grpc.ChannelConnectivity) -> None:
        await asyncio.Event().wait()

    async def close(self, grace: float | None = None) -> None:
        self._note(self._endpoint, grace)


def test_calls_under_way_end_at_the_address_that_they_were_sent_to() -> None:
    """Members tell their addresses some time after the start, often the same ones by other names."""
    made: list[str] = []
    closed: dict[str, float | None] = {}
    first_made, both_made, first_closed = threading.Event(), threading.Event(), threading.Event()

    def note(endpoint: str, grace: float | None) -> None:
        closed[endpoint] = grace
        first_closed.set()

    async def make_channel(endpoint: str) -> Any:
        made.append(endpoint)
        (both_made if len(made) > 1 else first_made).set()
        return Channel(endpoint, note)

    crashes: list[BaseException] = []
    home = LoopHome(lambda _, error: crashes.append(error), "Under test")
    ref = UpstreamActor.start(
        home,
        settings=Upstream(endpoints=("localhost:1",)),
        make_channel=make_channel,
        logger=structlog.stdlib.BoundLogger(None, [structlog.testing.LogCapture()], {}),
    )
    answer = MemberListResponse(members=[Member(ID=1, name="m", clientURLs=["http://127.0.0.1:1"])])
    try:
        assert first_made.wait(WAIT_S)
        ref.tell(Answered(0, answer.SerializeToString()))
        assert both_made.wait(WAIT_S)
        assert first_closed.wait(WAIT_S)
    finally:
        ref.stop(timeout=WAIT_S)
        home.close()
    assert crashes == []
    assert made == ["localhost:1", "127.0.0.1:1"]
    assert closed["localhost:1"] == LEAVING_S
