"""What WorkerActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.messages.serve import Answered


class Work(NamedTuple):
    """Run *job* (it reads only what was handed to it, and may raise an EtcdError) and answer with what it returns."""

    token: int
    job: Callable[[], object]
    answer_to: Address[Answered]
