"""What MetricsActor receives, and what it tells those whose numbers it gathers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.messages.serve import Answered
    from core.metrics import Sample


class Measure(NamedTuple):
    """To any actor that keeps numbers: tell them, as they are now."""

    round: int
    answer_to: Address[Measured]


class Measured(NamedTuple):
    """The numbers of one actor."""

    round: int
    """From the question; answers to an earlier one come too late."""
    samples: Sequence[Sample]


class Join(NamedTuple):
    """Ask *source* whenever numbers are wanted."""

    source: Address[Measure]


class Gather(NamedTuple):
    """Answer with the samples of all sources."""

    token: int
    answer_to: Address[Answered]


MetricsMessage = Measured | Join | Gather | Tick
