"""The streams to the members that clients' streams share: one for each group of clients that may share one.

Owns which clients are in which group, and whether its stream is open; what goes over it is the actor's business.
Numbers of streams to the members are this module's own.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from grpcproxy.messages import CloseStream, OpenStream, SendOn, StreamEnded
from net.rpc import Code, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.address import Address
    from grpcproxy.messages import Group, StreamEvent, UpstreamMessage

U = TypeVar("U", bound="GroupStream")


class GroupStream:
    """The stream of one group."""

    def __init__(self, group: Group, number: int) -> None:
        self.group: Final = group
        self.number: Final = number
        self.clients: Final[set[int]] = set()
        self.is_open = False
        """Whether there is a stream, or one has been asked for."""
        self.connected = False


class Groups(Generic[U]):
    """All groups of one actor, which is told of their streams."""

    def __init__(
        self,
        upstream: Address[UpstreamMessage],
        method: str,
        make: Callable[[Group, int], U],
        tell: Address[StreamEvent],
    ) -> None:
        self._upstream = upstream
        self._method = method
        self._make = make
        self._tell = tell
        self._numbers = count(1)
        self._by_group: dict[Group, U] = {}
        self._by_number: dict[int, U] = {}

    def __iter__(self) -> Iterator[U]:
        return iter(self._by_number.values())

    def join(self, group: Group, client: int) -> U:
        """Return the stream of *group*, to which *client* now belongs."""
        found = self._by_group.get(group)
        if found is None:
            number = next(self._numbers)
            found = self._by_group[group] = self._by_number[number] = self._make(group, number)
        found.clients.add(client)
        return found

    def leave(self, stream: U, client: int) -> bool:
        """Take *client* out; return whether it was the last, and its group is gone with its stream."""
        stream.clients.discard(client)
        if stream.clients:
            return False
        del self._by_group[stream.group], self._by_number[stream.number]
        if stream.is_open:
            self._upstream.tell(CloseStream(stream.number, self._tell))
        return True

    def get(self, number: int) -> U | None:
        """Return the stream *number*; None if its group is gone."""
        return self._by_number.get(number)

    def open(self, stream: U) -> None:
        """Have *stream* opened, unless it is."""
        if not stream.is_open:
            stream.is_open = True
            self._upstream.tell(OpenStream(stream.number, self._method, stream.group.metadata, None, self._tell))

    def send(self, stream: U, message: bytes) -> None:
        """Send *message* to the member; where none is connected it is lost, and asked for again by whoever sent it."""
        if stream.connected:
            self._upstream.tell(SendOn(stream.number, self._tell, message))

    def ended(self, number: int) -> U | None:
        """Note that the stream *number* is over; None if its group is gone."""
        stream = self._by_number.get(number)
        if stream is not None:
            stream.is_open = stream.connected = False
        return stream

    def give_up(self, number: int) -> StreamEnded:
        """Close a stream on which something came that no member sends; return the end that it is to be taken for."""
        self._upstream.tell(CloseStream(number, self._tell))
        return StreamEnded(number, Status(Code.UNAVAILABLE, "malformed answer"))
