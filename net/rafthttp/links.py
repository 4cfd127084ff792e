"""All links of this member: its peers by id, and what their requests to this member get.

Requests between members are refused for the wrong cluster, an incompatible version or a removed sender, before their
bodies are looked at.  What comes in goes to the listener handed in; nothing here knows raft's state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from core.types import MemberId
from net.rafthttp.headers import SENDER_NOT_FOUND, TO_FIELD_MISMATCH, Identity, member_id_in
from net.rafthttp.messages import EntryEncoder, decode_message_alone
from net.rafthttp.peer import Peer, StreamKind
from net.rafthttp.upload import SnapshotUpload

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Mapping, Sequence

    from core.raft.messages import Message
    from net.http1_parser import Head
    from net.rafthttp.client import PeerClient
    from net.rafthttp.upload import Sink
    from net.rpc import HttpRequest, HttpResponder

STREAM_PREFIX: Final = "/raft/stream/"
UNKNOWN_SENDERS_MAX: Final = 16
"""Senders that are not known as members, and get their answers by post all the same."""

REFUSALS_LOGGED_MAX: Final = 100

_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")


class LinkListener(Protocol):
    """Is told what comes in, on the loop's thread."""

    def receive(self, sender: MemberId, messages: Sequence[Message]) -> None:
        """Take raft messages, in their order."""

    def unreachable(self, member: MemberId) -> None:
        """Note that something for *member* was dropped or lost."""

    def told_removed(self) -> None:
        """Note that a peer says that this member was removed from the cluster."""

    def activity_changed(self) -> None:
        """Note that a peer has become active or inactive."""

    def measured(self, member: MemberId, round_trip_s: float) -> None:
        """Note how long a probe took."""

    def open_sink(self, message: Message) -> Sink:
        """Return where the snapshot that comes with *message* goes; OSError."""

    def snapshot_arrived(self, message: Message, sink: Sink, upload: SnapshotUpload) -> None:
        """Take a complete snapshot, and answer *upload*."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What Links is given of the world."""

    client: PeerClient
    log: Any
    """A structlog logger."""
    wall_s: Callable[[], float]
    fatal: Callable[[BaseException], None]


class Links:
    """The table of peers.  Belongs to one event loop."""

    def __init__(self, identity: Identity, surroundings: Surroundings, listener: LinkListener) -> None:
        self.identity = identity
        self.local = MemberId(identity.member_id)
        self.client = surroundings.client
        self.log = surroundings.log
        self.wall_s = surroundings.wall_s
        self.fatal = surroundings.fatal
        self.entries = EntryEncoder()
        self._listener = listener
        self._peers: dict[MemberId, Peer] = {}
        self._unknown: dict[MemberId, Peer] = {}
        self._removed: frozenset[MemberId] = frozenset()
        self._told_removed = False
        self._refused: set[tuple[str, str]] = set()

    # -- who the others are ------------------------------------------------------------------------------------------

    def set_members(self, members: Mapping[MemberId, Sequence[str]], removed: Collection[MemberId]) -> None:
        """Link to exactly these *members* (this one is passed over), each with its peer URLs."""
        self._removed = frozenset(removed)
        others = {member: urls for member, urls in members.items() if member != self.local and urls}
        for member in self._peers.keys() - others.keys():
            self.log.info("stopped remote peer", remote_peer_id=f"{member:x}")
            self._peers.pop(member).close()
        for member, urls in others.items():
            peer = self._peers.get(member)
            if peer is not None:
                peer.move_to(urls)
                continue
            stranger = self._unknown.pop(member, None)
            if stranger is not None:
                stranger.close()
            self.log.info("started remote peer", remote_peer_id=f"{member:x}", remote_peer_urls=list(urls))
            self._peers[member] = Peer(self, member, urls, is_member=True)
        for member in [member for member in self._unknown if member in self._removed]:
            self._unknown.pop(member).close()

    def peer(self, member: MemberId) -> Peer | None:
        """Return the links to *member*."""
        return self._peers.get(member) or self._unknown.get(member)

    @property
    def peers(self) -> Mapping[MemberId, Peer]:
        """The links to every other member."""
        return self._peers

    def send(self, messages: Sequence[Message]) -> None:
        """Send *messages*, each to whom it names; those for nobody known are dropped."""
        by_member: dict[MemberId, list[Message]] = {}
        for message in messages:
            by_member.setdefault(message.to, []).append(message)
        for member, own in by_member.items():
            peer = self.peer(member)
            if peer is not None:
                peer.send(own)

    def close(self) -> None:
        """End all links."""
        for peer in (*self._peers.values(), *self._unknown.values()):
            peer.close()
        self._peers.clear()
        self._unknown.clear()
        self.client.close()

    # -- what peers tell of ------------------------------------------------------------------------------------------

    def receive(self, sender: MemberId, messages: Sequence[Message]) -> None:
        """Pass on what came over a stream."""
        self._listener.receive(sender, messages)

    def unreachable(self, member: MemberId) -> None:
        """Pass on that something was lost."""
        self._listener.unreachable(member)

    def told_removed(self, member: MemberId) -> None:
        """Pass on, once, that *member* says that this one was removed."""
        if not self._told_removed:
            self._told_removed = True
            self.log.warning("a peer says that this member was removed", peer_id=f"{member:x}")
            self._listener.told_removed()

    def activity_changed(self) -> None:
        """Pass on that a peer came or went."""
        self._listener.activity_changed()

    def measured(self, member: MemberId, round_trip_s: float) -> None:
        """Pass on how long a probe took."""
        self._listener.measured(member, round_trip_s)

    # -- what peers ask ----------------------------------------------------------------------------------------------

    def take_over(self, head: Head) -> asyncio.Protocol | None:
        """Return what speaks on a connection whose request is for a stream or brings a snapshot (see TakeOver)."""
        if head.path.startswith(STREAM_PREFIX) and head.method == "GET":
            found = self._stream_of(head.path, head.headers)
            return found[0].accept(found[1]) if isinstance(found, tuple) else None
        if head.path == "/raft/snapshot" and head.method == "POST" and self._refusal(head.headers) is None:
            return SnapshotUpload(
                head,
                self.identity.answer_headers(),
                self._listener.open_sink,
                self._listener.snapshot_arrived,
                self.client.read_timeout_s,
            )
        return None

    def handle(self, request: HttpRequest, responder: HttpResponder) -> bool:
        """Answer a request if its path is one of the peer protocol's."""
        if request.path == "/raft":
            self._only("POST", request, responder, self._take_message)
        elif request.path == "/raft/snapshot":
            self._only("POST", request, responder, self._refuse_snapshot)
        elif request.path.startswith(STREAM_PREFIX):
            self._only("GET", request, responder, self._refuse_stream)
        elif request.path == "/raft/probing":
            self._only("GET", request, responder, self._probe)
        else:
            return False
        return True

    def _only(
        self,
        method: str,
        request: HttpRequest,
        responder: HttpResponder,
        then: Callable[[HttpRequest, HttpResponder], None],
    ) -> None:
        if request.method == method:
            then(request, responder)
        else:
            responder.reply(405, [("Allow", method), _PLAIN], b"Method Not Allowed\n")

    def _take_message(self, request: HttpRequest, responder: HttpResponder) -> None:
        refusal = self._refusal(request.headers)
        if refusal is not None:
            self._refuse(responder, *refusal)
            return
        try:
            message = decode_message_alone(request.body)
        except ValueError as error:
            self.log.warning("refused a message", peer=request.peer, reason=str(error))
            self._refuse(responder, HTTPStatus.BAD_REQUEST, "error unmarshalling raft message")
            return
        if message is None:
            responder.reply(204, self.identity.answer_headers(), b"")
            return
        if message.to != self.local:
            self._refuse(responder, HTTPStatus.FORBIDDEN, "cannot process message to mismatch member")
            return
        self._remember_sender(message.sender, request.headers)
        if message.sender in self._peers:
            self._peers[message.sender].count_received(len(request.body))
        self._listener.receive(message.sender, (message,))
        responder.reply(204, self.identity.answer_headers(), b"")

    def _remember_sender(self, sender: MemberId, headers: Mapping[str, str]) -> None:
        """Know where to answer a sender whose membership has not been applied here yet."""
        urls = [url.strip() for url in headers.get("x-peerurls", "").split(",") if url.strip()]
        if (
            sender
            and urls
            and sender not in self._peers
            and sender not in self._unknown
            and sender != self.local
            and len(self._unknown) < UNKNOWN_SENDERS_MAX
        ):
            self._unknown[sender] = Peer(self, sender, urls, is_member=False)

    def _refuse_stream(self, request: HttpRequest, responder: HttpResponder) -> None:
        found = self._stream_of(request.path, request.headers)
        if isinstance(found, tuple):
            # Only a connection that cannot be taken over comes here with nothing wrong.
            self._refuse(responder, HTTPStatus.BAD_REQUEST, "a stream must be asked for over HTTP/1.1")
        else:
            self._refuse(responder, found.status, found.text)

    def _refuse_snapshot(self, request: HttpRequest, responder: HttpResponder) -> None:
        refusal = self._refusal(request.headers)
        if refusal is None:
            # Only a connection that cannot be taken over comes here: a snapshot needs HTTP/1.1.
            self._refuse(responder, HTTPStatus.BAD_REQUEST, "a snapshot must be sent over HTTP/1.1")
        else:
            self._refuse(responder, *refusal)

    def _probe(self, _request: HttpRequest, responder: HttpResponder) -> None:
        now = datetime.fromtimestamp(self.wall_s(), UTC).isoformat()
        responder.reply(200, [_PLAIN], json.dumps({"OK": True, "Now": now}, separators=(",", ":")).encode() + b"\n")

    def _refusal(self, headers: Mapping[str, str]) -> tuple[HTTPStatus, str] | None:
        fault = self.identity.fault_of(headers)
        if fault is not None:
            self._log_refusal(headers, fault)
            return HTTPStatus.PRECONDITION_FAILED, fault
        sender = member_id_in(headers.get("x-server-from", ""))
        if sender is not None and sender in self._removed:
            return HTTPStatus.FORBIDDEN, "cannot process message from removed member"
        return None

    def _stream_of(self, path: str, headers: Mapping[str, str]) -> tuple[Peer, StreamKind] | Refusal:
        """Return whose stream of which kind is asked for, or why there is none."""
        fault = self.identity.fault_of(headers)
        if fault is not None:
            self._log_refusal(headers, fault)
            return Refusal(HTTPStatus.PRECONDITION_FAILED, fault)
        name, _, sender_text = path.removeprefix(STREAM_PREFIX).partition("/")
        kind = next((kind for kind in StreamKind if kind.value == name), None)
        if kind is None:
            return Refusal(HTTPStatus.NOT_FOUND, "invalid path")
        sender = member_id_in(sender_text)
        if sender is None:
            return Refusal(HTTPStatus.NOT_FOUND, "invalid from")
        if sender in self._removed:
            return Refusal(HTTPStatus.GONE, "removed member")
        peer = self._peers.get(MemberId(sender))
        if peer is None:
            self._remember_sender(MemberId(sender), headers)
            return Refusal(HTTPStatus.NOT_FOUND, SENDER_NOT_FOUND)
        if headers.get("x-raft-to") != f"{self.local:x}":
            return Refusal(HTTPStatus.PRECONDITION_FAILED, TO_FIELD_MISMATCH)
        return peer, kind

    def _log_refusal(self, headers: Mapping[str, str], reason: str) -> None:
        # Whoever is refused tries again ten times a second: it is worth one line.
        refused = (headers.get("x-server-from", ""), reason)
        if refused not in self._refused and len(self._refused) < REFUSALS_LOGGED_MAX:
            self._refused.add(refused)
            self.log.warning("refused a request of a peer", peer_id=refused[0], reason=reason)

    def _refuse(self, responder: HttpResponder, status: HTTPStatus, text: str) -> None:
        responder.reply(status, [*self.identity.answer_headers(), _PLAIN], text.encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a stream is not given."""

    status: HTTPStatus
    text: str
