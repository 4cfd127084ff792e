"""Where messages go.

A started Pykka ActorRef is an Address of anything, so mypy checks each send against the receiver's own union; a test
hands in a list with a tell.  Addresses are the only thing that one actor knows of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)


class Address(Protocol[M_contra]):
    """Where to send an M.  Sending never blocks, never fails, and gives the message away."""

    def tell(self, message: M_contra) -> None:
        """Put *message* into the receiver's mailbox."""


@dataclass(slots=True)
class Delivery(Generic[M]):
    """A message held back until its holder may send it.  Never changed; a frozen one takes twice as long to make."""

    to: Address[M]
    message: M

    def send(self) -> None:
        """Send it now."""
        self.to.tell(self.message)


AnyDelivery = Delivery[Any]
