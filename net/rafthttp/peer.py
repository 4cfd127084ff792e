"""One other member: the streams to and from it, the pipeline beside them, and how long it takes to answer.

The receiver of a stream dials it, so two tasks here keep dialling the streams that bring this peer's messages, and the
peer dials those that carry ours.  While none is up, messages go as single posts.  Every queue is bounded; what does not
fit is dropped and reported, and raft sends it again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from core.raft.messages import Message, MessageType
from net.rafthttp.client import TIMEOUT_S_MIN, PeerUnreachable, request_head
from net.rafthttp.frames import AppendDecoder, AppendEncoder, MessageDecoder, MessageEncoder
from net.rafthttp.headers import CLUSTER_ID_MISMATCH, SENDER_NOT_FOUND
from net.rafthttp.messages import encode_message
from net.rafthttp.streams import IncomingStream, OutgoingStream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

    from core.types import MemberId
    from net.rafthttp.client import Answer
    from net.rafthttp.frames import FrameDecoder, FrameEncoder
    from net.rafthttp.links import Links

PIPELINE_MESSAGES_MAX: Final = 64
PIPELINE_POSTS_MAX: Final = 4
"""Posts under way at once."""

REDIAL_S: Final = 0.1
BEAT_S: Final = TIMEOUT_S_MIN / 3
"""How often a stream says that it lives.  It does not follow this member's timeouts: peers may have shorter ones."""

PROBE_S: Final = 4.0
CLOCK_DRIFT_MAX_S: Final = 1.0

MISMATCH_ADVICE: Final = (
    "one of the two belongs to another cluster: compare the peer URLs, initial-cluster and initial-cluster-token of "
    "both; a member that was started for itself by mistake must lose its data directory (look first whether its data "
    "is needed) and join with initial-cluster-state: existing, once 'etcdctl member add' has told the cluster of it"
)


class StreamKind(Enum):
    """What a stream carries; the value is its place in the URL."""

    APPENDS = "msgapp"
    MESSAGES = "message"


class Peer:
    """The links to one member.  Belongs to the loop of its Links."""

    def __init__(self, links: Links, member: MemberId, urls: Sequence[str], *, is_member: bool) -> None:
        """Without *is_member* only the pipeline is used: the sender is not known yet as a member of the cluster."""
        self.member = member
        self.is_member = is_member
        self.active_since_s: float | None = None
        """Since when it has been heard from without a break, on the loop's clock; None while it is not."""
        self.round_trip_s: float | None = None
        self.disconnect_count = 0
        self.failure_count = 0
        """Messages that were dropped or lost on the way, as far as it was noticed."""
        self._sent_bytes = 0
        self._received_bytes = 0
        self.received_failure_count = 0
        """How often what the peer sends broke off."""
        self._links = links
        self._urls = tuple(urls)
        self._url_at = 0
        self._outgoing: dict[StreamKind, OutgoingStream] = {}
        self._incoming: dict[StreamKind, IncomingStream] = {}
        self._queue: deque[Message] = deque()
        self._posting = 0
        self._complained: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        if is_member:
            for kind in StreamKind:
                self._run(self._keep_reading(kind))
            self._run(self._keep_beating())
            self._run(self._keep_probing())

    @property
    def url(self) -> str:
        """Where to try next."""
        return self._urls[self._url_at % len(self._urls)]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the member listens."""
        return self._urls

    @property
    def received_bytes(self) -> int:
        """Bytes of messages that the peer has sent."""
        return self._received_bytes + sum(stream.received_bytes for stream in self._incoming.values())

    def count_received(self, size_bytes: int) -> None:
        """Count a message that came by itself."""
        self._received_bytes += size_bytes

    @property
    def sent_bytes(self) -> int:
        """Bytes that have gone out on streams and as posts."""
        return self._sent_bytes + sum(stream.sent_bytes for stream in self._outgoing.values())

    def move_to(self, urls: Sequence[str]) -> None:
        """Use other URLs from now on."""
        if tuple(urls) != self._urls:
            self._urls = tuple(urls)
            self._url_at = 0
            for stream in self._incoming.values():
                stream.close("the member has other URLs now")

    def close(self) -> None:
        """End all links."""
        for task in self._tasks:
            task.cancel()
        for incoming in self._incoming.values():
            incoming.close("this side has ended")
        for outgoing in list(self._outgoing.values()):
            outgoing.close()
        self._outgoing.clear()
        self._queue.clear()

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Send *messages* the best way there is now, or drop them and report it."""
        appends = self._outgoing.get(StreamKind.APPENDS)
        others = self._outgoing.get(StreamKind.MESSAGES)
        if appends is None:
            self._send_on(others, messages)
            return
        for_appends = [message for message in messages if message.type is MessageType.APPEND]
        if for_appends:
            self._send_on(appends, for_appends)
        if len(for_appends) < len(messages):
            self._send_on(others, [message for message in messages if message.type is not MessageType.APPEND])

    def _send_on(self, stream: OutgoingStream | None, messages: Sequence[Message]) -> None:
        if stream is not None:
            if not stream.send(messages):
                self._failed()
            return
        room = PIPELINE_MESSAGES_MAX - len(self._queue)
        self._queue.extend(messages[:room])
        if len(messages) > room:
            self._failed()
        while self._posting < PIPELINE_POSTS_MAX and self._posting < len(self._queue):
            self._posting += 1
            self._run(self._post_queued())

    async def _post_queued(self) -> None:
        try:
            while self._queue:
                await self._post(self._queue.popleft())
        finally:
            self._posting -= 1

    async def _post(self, message: Message) -> None:
        headers = [("Content-Type", "application/protobuf"), *self._links.identity.request_headers()]
        body = encode_message(message, self._links.entries)
        try:
            answer = await self.ask("POST", "/raft", headers, body)
        except PeerUnreachable as error:
            self._complain("post", str(error))
            self._queue.clear()
            self._failed()
            return
        self._sent_bytes += len(body)
        if answer.status == HTTPStatus.NO_CONTENT:
            self._complained -= {"post", CLUSTER_ID_MISMATCH}
        elif answer.status == HTTPStatus.FORBIDDEN and b"removed" in answer.body:
            self._links.told_removed(self.member)
        else:
            text = answer.body[:200].decode(errors="replace").strip()
            self._complain_of_answer("post", answer.status, text, answer.headers)
            self._failed()

    def _failed(self) -> None:
        self.failure_count += 1
        self._links.unreachable(self.member)

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes = b"",
        timeout_s: float | None = None,
    ) -> Answer:
        """Send one HTTP request to the member; after a failure the next one goes to its next URL.  PeerUnreachable.

        Without *timeout_s* the answer may take as long as reads from peers may.
        """
        client = self._links.client
        try:
            return await client.ask(self.url, method, path, headers, body, timeout_s or client.read_timeout_s)
        except PeerUnreachable:
            self._url_at += 1
            raise

    # -- the streams that carry our messages -------------------------------------------------------------------------

    def accept(self, kind: StreamKind) -> OutgoingStream:
        """Return the stream that the peer has just asked for; an older one of that kind ends."""
        make: Callable[..., FrameEncoder] = AppendEncoder if kind is StreamKind.APPENDS else MessageEncoder
        stream = OutgoingStream(
            self._links.identity.answer_headers(), make(self._links.entries), lambda lost: self._lost(kind, lost)
        )
        older = self._outgoing.pop(kind, None)
        self._outgoing[kind] = stream
        if older is not None:
            self._sent_bytes += older.sent_bytes
            older.close()
        return stream

    def _lost(self, kind: StreamKind, stream: OutgoingStream) -> None:
        if self._outgoing.get(kind) is stream:
            del self._outgoing[kind]
            self._sent_bytes += stream.sent_bytes
            self._failed()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for stream in list(self._outgoing.values()):
                stream.beat(self._links.client.write_timeout_s)

    # -- the streams that bring the peer's messages ------------------------------------------------------------------

    async def _keep_reading(self, kind: StreamKind) -> None:
        while True:
            started_s = self._loop.time()
            await self._read(kind)
            self._note_activity()
            await asyncio.sleep(max(0.0, started_s + REDIAL_S - self._loop.time()))

    async def _read(self, kind: StreamKind) -> None:
        """Dial the stream and stay until it breaks."""
        links, url = self._links, self.url
        path = f"/raft/stream/{kind.value}/{links.identity.member_id:x}"
        headers = [*links.identity.request_headers(), ("X-Raft-To", f"{self.member:x}")]
        request = request_head("GET", path, url, headers)
        decoder: FrameDecoder = (
            AppendDecoder(links.local, self.member) if kind is StreamKind.APPENDS else MessageDecoder()
        )
        try:
            stream = await links.client.dial(
                url, lambda: IncomingStream(request, decoder, self._received, self._loop.time())
            )
        except PeerUnreachable as error:
            self._url_at += 1
            self._complain(kind.value, str(error))
            return
        self._incoming[kind] = stream
        try:
            await self._stay(kind, stream)
        finally:
            stream.close("this side has ended")
            self._received_bytes += stream.received_bytes
            del self._incoming[kind]

    async def _stay(self, kind: StreamKind, stream: IncomingStream) -> None:
        opened, timeout_s = False, self._links.client.read_timeout_s
        while not stream.closed.is_set():
            try:
                async with asyncio.timeout_at(stream.heard_s + timeout_s):
                    await (stream.closed if opened else stream.opened).wait()
            except TimeoutError:
                if self._loop.time() - stream.heard_s >= timeout_s:
                    stream.close(f"nothing came for {timeout_s:g} s")
                continue
            if stream.status != HTTPStatus.OK:
                break
            if not opened:
                opened = True
                self._complained -= {kind.value, CLUSTER_ID_MISMATCH}
                self._links.log.info(
                    "established TCP streaming connection with remote peer",
                    stream=kind.value,
                    remote_peer_id=f"{self.member:x}",
                )
                self._note_activity()
        if opened:
            self.received_failure_count += 1
            self._links.log.warning(
                "lost TCP streaming connection with remote peer",
                stream=kind.value,
                remote_peer_id=f"{self.member:x}",
                reason=stream.fault,
            )
            return
        self._url_at += 1
        if stream.status == HTTPStatus.GONE:
            self._links.told_removed(self.member)
        elif stream.status == HTTPStatus.NOT_FOUND and stream.refusal == SENDER_NOT_FOUND:
            self._complain(kind.value, "the member does not know this one yet")
        else:
            self._complain_of_answer(kind.value, stream.status, stream.refusal or stream.fault, stream.headers)

    def _received(self, messages: Sequence[Message]) -> None:
        self._links.receive(self.member, messages)

    def pause(self) -> None:
        """Read no more messages for now."""
        for stream in self._incoming.values():
            stream.pause()

    def resume(self) -> None:
        """Read on."""
        for stream in self._incoming.values():
            stream.resume()

    def _note_activity(self) -> None:
        active = any(stream.status == HTTPStatus.OK for stream in self._incoming.values())
        if active == (self.active_since_s is not None):
            return
        self.active_since_s = self._loop.time() if active else None
        if active:
            self._links.log.info("peer became active", peer_id=f"{self.member:x}")
        else:
            self.disconnect_count += 1
            self._links.log.warning("peer became inactive (message send to peer failed)", peer_id=f"{self.member:x}")
        self._links.activity_changed()

    # -- probing -----------------------------------------------------------------------------------------------------

    async def _keep_probing(self) -> None:
        while True:
            asked_s = self._loop.time()
            try:
                answer = await self.ask("GET", "/raft/probing", ())
            except PeerUnreachable:
                self.round_trip_s = None
            else:
                self.round_trip_s = self._loop.time() - asked_s
                self._links.measured(self.member, self.round_trip_s)
                self._compare_clocks(answer)
            await asyncio.sleep(PROBE_S)

    def _compare_clocks(self, answer: Answer) -> None:
        try:
            theirs = datetime.fromisoformat(json.loads(answer.body)["Now"]).timestamp()
        except (ValueError, KeyError, TypeError):
            return  # what is no probing page says nothing about a clock
        drift_s = self._links.wall_s() - theirs - (self.round_trip_s or 0.0) / 2
        if abs(drift_s) > CLOCK_DRIFT_MAX_S:
            self._complain("clock", f"clocks differ by {drift_s:.3f} s")
        else:
            self._complained.discard("clock")

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _complain_of_answer(self, about: str, status: int, text: str, headers: Mapping[str, str]) -> None:
        """Log that the peer refused something; what is wrong with all that it is asked is told once for all of it."""
        if status != HTTPStatus.PRECONDITION_FAILED or text != CLUSTER_ID_MISMATCH:
            self._complain(about, f"{status} {text}" if status else text)
        elif CLUSTER_ID_MISMATCH not in self._complained:
            self._complained.add(CLUSTER_ID_MISMATCH)
            self._links.log.warning(
                "request sent was ignored by remote peer due to cluster ID mismatch",
                peer_id=f"{self.member:x}",
                url=self.url,
                remote_cluster_id=headers.get("x-etcd-cluster-id", ""),
                local_cluster_id=f"{self._links.identity.cluster_id:x}",
                advice=MISMATCH_ADVICE,
            )

    def _complain(self, about: str, reason: str) -> None:
        """Log the first failure of its kind; the next one is worth a line only after it went well in between."""
        if about not in self._complained:
            self._complained.add(about)
            self._links.log.warning(
                "trouble with a peer", about=about, peer_id=f"{self.member:x}", url=self.url, reason=reason
            )

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop keeps only weak references to tasks.
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._links.fatal(error)
