"""How busy actors are."""

from __future__ import annotations


class Load:
    """How much an actor had to do.  Its own thread writes; others may read, and see the past."""

    __slots__ = ("batch_count", "busy_s", "message_count", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.message_count = 0
        self.batch_count = 0
        """How often its mailbox was drained."""
        self.busy_s = 0.0
