"""Where messages go.

A started Pykka ActorRef is an Address of anything, so mypy checks each send against the receiver's own union; a test
hands in a list with a tell.  Addresses are the only thing that one actor knows of another.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, Protocol, TypeVar

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)


class Address(Protocol[M_contra]):
    """Where to send an M.  Sending never blocks, never fails, and gives the message away."""

    def tell(self, message: M_contra) -> None:
        """Put *message* into the receiver's mailbox."""


class Delivery(NamedTuple, Generic[M]):
    """A message held back until its holder may send it."""

    to: Address[M]
    message: M

    def send(self) -> None:
        """Send it now."""
        self.to.tell(self.message)


AnyDelivery = Delivery[Any]
