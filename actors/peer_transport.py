"""PeerTransportActor: the way to and from the other members.

It follows what was applied: a change of the members that is only proposed opens and closes nothing.  Beside raft's
messages it carries the questions that members ask each other, and serves the peer listeners' pages.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, final

import google_crc32c

from actors.address import Delivery
from actors.base import Home, NodeActor
from actors.messages.apply import Inspect, ObserveCluster
from actors.messages.common import ActivityIs, ClusterIs
from actors.messages.lease import Renew, TimeToLive
from actors.messages.membership import PromoteMember
from actors.messages.metrics import Measure, Measured
from actors.messages.peer_transport import (
    AnswerPromotions,
    AskMember,
    CarryQuestions,
    MemberAnswer,
    ObserveActivity,
    PeerTransportMessage,
    Send,
    Taken,
)
from actors.messages.raft import CarryMessages, SnapshotStatus, Step, Unreachable
from actors.messages.serve import Answered, Drain, Open, Renewed
from actors.messages.worker import Work
from core.errors import EtcdError, NotLeader
from core.membership import v2store
from core.membership.member import MalformedMember
from core.metrics import SYNC_BOUNDS_S, TRANSFER_BOUNDS_S, Histogram, Sample, exponential
from core.mvcc.hashing import hash_kv
from core.raft.messages import MessageType
from core.transfers import Transfers
from net.rafthttp.client import PeerUnreachable
from net.rafthttp.links import Links, Surroundings
from net.rafthttp.messages import EntryEncoder, encode_message
from services.peer_pages import PeerPages
from storage.incoming import IncomingFile, UnsoundSnapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.lease import LeaseMessage
    from actors.messages.raft import RaftMessage
    from actors.serve import Engine
    from core.apply.applier import Applier
    from core.clock import Clock
    from core.mvcc.hashing import HashKv
    from core.mvcc.view import View
    from core.raft.messages import Message
    from core.types import LeaseId, MemberId
    from net.commons import TakeOver
    from net.rafthttp.client import PeerClient
    from net.rafthttp.headers import Identity
    from net.rafthttp.upload import Sink, SnapshotUpload
    from net.rpc import HttpHandler, HttpRequest, HttpResponder
    from services.node import Export, LeaseTimes

    MakePeerEngine = Callable[[HttpHandler, TakeOver], Engine]

ROUND_TRIP_BOUNDS_S = exponential(0.0001, 2, 16)
SNAPSHOT_PIECE_BYTES = 256 * 1024
SNAPSHOT_RETRY_S = 1.0
"""A snapshot takes much work to make: one that failed is not tried again at once."""

SNAPSHOT_TIMEOUT_S = 60.0
"""For the peer to take a piece, and to check and answer the whole."""

UNTAKEN_BATCHES_MAX = 64
"""Batches of messages told to raft and not yet stepped, beyond which no more is read from peers."""


@final
class PeerTransportActor(NodeActor[PeerTransportMessage]):
    """Carries messages between members, and serves the peer listeners.  Lives on a loop.

    Owns: the links, the peer listeners' engine, pages that wait for an answer.  Tells: RaftActor, ApplyActor
    (questions), whoever asked.  Fails when: never by itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        identity: Identity,
        known: Mapping[MemberId, Sequence[str]],
        make_client: Callable[[], PeerClient],
        make_engine: MakePeerEngine,
        apply: Address[ApplyMessage],
        raft: Address[RaftMessage],
        lease: Address[LeaseMessage],
        worker: Address[Work],
        checker: Address[Work],
        make_export: Callable[[View], Export],
        snap_folder: Path,
        timeout_s: float,
        clock: Clock,
        removed: Callable[[], None],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*known* are members that the store may not know yet; *removed* is called when peers say that this one was.

        *worker* makes snapshots, *checker* hashes for other members.
        """
        super().__init__(home)
        self._identity = identity
        self._known = dict(known)
        self._make_client = make_client
        self._make_engine = make_engine
        self._apply = apply
        self._raft = raft
        self._lease = lease
        self._worker = worker
        self._checker = checker
        self._make_export = make_export
        self._snap_folder = snap_folder
        self._incoming_count = 0
        self._timeout_s = timeout_s
        self._clock = clock
        self._removed = removed
        self._logger = logger
        self._links: Links
        self._engine: Engine
        self._pages: PeerPages
        self._cluster = ClusterIs((), (), "")
        self._membership: Address[PromoteMember] | None = None
        self._observers: list[Address[ActivityIs]] = []
        self._round_trips: dict[MemberId, Histogram] = {}
        self._sent = Transfers("send")
        self._received = Transfers("receive")
        self._keep_times = Histogram(SYNC_BOUNDS_S)
        self._save_times = Histogram(TRANSFER_BOUNDS_S)
        self._untaken = 0
        self._paused = False
        self._answers: dict[int, Callable[..., None]] = {}
        self._last_token = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def setup(self) -> None:
        """Make the links, and ask to be told who belongs to the cluster."""
        surroundings = Surroundings(self._make_client(), self._logger, self._clock.wall_s, self._crash)
        self._links = Links(self._identity, surroundings, self)
        self._links.set_members(self._known, ())
        self._engine = self._make_engine(self._handle_http, self._links.take_over)
        self._pages = PeerPages(self)
        self._raft.tell(CarryMessages(self.actor_ref))
        self._lease.tell(CarryQuestions(self.actor_ref, self._timeout_s))
        self._apply.tell(ObserveCluster(self.actor_ref))

    def handle(self, message: PeerTransportMessage) -> None:
        """Take one message."""
        match message:
            case Send():
                self._send(message.messages)
            case Taken():
                self._untaken -= 1
                if self._paused and self._untaken <= UNTAKEN_BATCHES_MAX // 2:
                    self._set_paused(paused=False)
            case AskMember():
                self._run(self._ask(message))
            case ClusterIs():
                self._follow(message)
            case ObserveActivity():
                self._observers.append(message.observer)
                message.observer.tell(self._activity())
            case Answered():
                self._answers.pop(message.token)(message.outcome)
            case Renewed():
                for token, ttl_s in message.answers:
                    self._answers.pop(token)(ttl_s)
            case AnswerPromotions():
                self._membership = message.judge
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))
            case Open():
                self._run(self._engine.start())
            case Drain():
                self._run(self._drain(message))

    def teardown(self) -> None:
        """End all links."""
        self._links.close()

    # -- what the links tell -----------------------------------------------------------------------------------------

    def receive(self, sender: MemberId, messages: Sequence[Message]) -> None:
        """See LinkListener."""
        del sender
        self._untaken += 1
        self._raft.tell(Step(messages, Delivery(self.actor_ref, Taken())))
        if self._untaken > UNTAKEN_BATCHES_MAX and not self._paused:
            self._set_paused(paused=True)

    def unreachable(self, member: MemberId) -> None:
        """See LinkListener."""
        self._raft.tell(Unreachable(member))

    def told_removed(self) -> None:
        """See LinkListener."""
        self._removed()

    def activity_changed(self) -> None:
        """See LinkListener."""
        activity = self._activity()
        for observer in self._observers:
            observer.tell(activity)

    def measured(self, member: MemberId, round_trip_s: float) -> None:
        """See LinkListener."""
        self._round_trips.setdefault(member, Histogram(ROUND_TRIP_BOUNDS_S)).observe(round_trip_s)

    def _samples(self) -> list[Sample]:
        local = f"{self._identity.member_id:x}"
        samples = [
            *self._sent.samples(),
            *self._received.samples(),
            Sample("etcd_snap_db_fsync_duration_seconds", self._keep_times.distribution()),
            Sample("etcd_snap_db_save_total_duration_seconds", self._save_times.distribution()),
        ]
        for member, peer in self._links.peers.items():
            remote = f"{member:x}"
            samples += [
                Sample("etcd_network_active_peers", int(peer.active_since_s is not None), (local, remote)),
                Sample("etcd_network_known_peers", 1, (local, remote)),
                Sample("etcd_network_disconnected_peers_total", peer.disconnect_count, (local, remote)),
                Sample("etcd_network_peer_sent_bytes_total", peer.sent_bytes, (remote,)),
                Sample("etcd_network_peer_received_bytes_total", peer.received_bytes, (remote,)),
                Sample("etcd_network_peer_received_failures_total", peer.received_failure_count, (remote,)),
                Sample("etcd_network_peer_sent_failures_total", peer.failure_count, (remote,)),
            ]
            if member in self._round_trips:
                times = self._round_trips[member].distribution()
                samples.append(Sample("etcd_network_peer_round_trip_time_seconds", times, (remote,)))
        return samples

    def open_sink(self, message: Message) -> Sink:
        """See LinkListener."""
        assert message.snapshot is not None, "checked where it was read"
        self._incoming_count += 1
        file = IncomingFile(self._snap_folder, message.snapshot.metadata.index, self._incoming_count)
        sender, started_s = message.sender, self._clock.monotonic_s()
        self._received.began(sender)

        def ended(well: bool) -> None:
            taken_s = self._clock.monotonic_s() - started_s
            self._received.ended(sender, taken_s, well=well)
            if well:
                self._save_times.observe(taken_s)

        return _Receiving(file, ended)

    def snapshot_arrived(self, message: Message, sink: Sink, upload: SnapshotUpload) -> None:
        """See LinkListener."""
        assert message.snapshot is not None, "checked where it was read"
        assert isinstance(sink, _Receiving), "from open_sink"
        index = message.snapshot.metadata.index
        came_s = self._clock.monotonic_s()

        def with_verdict(fault: object) -> None:
            sink.ended(not fault)
            if not fault:
                self._keep_times.observe(self._clock.monotonic_s() - came_s)
            if fault:
                self._logger.error("refused a snapshot", index=index, peer_id=f"{message.sender:x}", reason=str(fault))
                upload.answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(fault))
                return
            self._logger.info("received a snapshot", index=index, peer_id=f"{message.sender:x}")
            self._raft.tell(Step((message,)))
            upload.answer(HTTPStatus.NO_CONTENT, "")

        self._worker.tell(
            Work(self._token(with_verdict), partial(kept, sink.file, message.snapshot.data), self.actor_ref)
        )

    # -- what pages ask ----------------------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> int:
        """See PeerNode."""
        return self._identity.cluster_id

    @property
    def cluster_version(self) -> str:
        """See PeerNode."""
        return self._cluster.version

    @property
    def is_downgrading(self) -> bool:
        """See PeerNode."""
        return self._cluster.downgrade.enabled

    def members_json(self, then: Callable[[bytes], None]) -> None:
        """See PeerNode."""
        self._inspect(then, lambda applier: applier.cluster.to_json())

    def promote(self, member: MemberId, then: Callable[[EtcdError | None], None]) -> None:
        """See PeerNode."""
        if self._membership is None:
            then(NotLeader())
            return
        token = self._token(lambda outcome: then(outcome if isinstance(outcome, EtcdError) else None))
        self._membership.tell(PromoteMember(token, member, self.actor_ref, may_forward=False))

    def renew(self, lease: LeaseId, then: Callable[[int | EtcdError], None]) -> None:
        """See PeerNode."""
        self._lease.tell(Renew(((self._token(then), lease),), self.actor_ref, may_forward=False))

    def lease_times(self, lease: LeaseId, then: Callable[[LeaseTimes | EtcdError], None]) -> None:
        """See PeerNode."""
        self._lease.tell(TimeToLive(self._token(then), lease, self.actor_ref, may_forward=False))

    def lease_keys(self, lease: LeaseId, then: Callable[[list[bytes]], None]) -> None:
        """See PeerNode."""
        self._inspect(then, lambda applier: applier.lease_keys(lease))

    def hash_kv(self, revision: int, then: Callable[[tuple[HashKv, int] | EtcdError], None]) -> None:
        """See PeerNode."""

        def with_view(found: tuple[View, HashKv | None]) -> None:
            view, made = found
            if made is not None:
                then((made, view.revision))
            else:
                self._checker.tell(Work(self._token(then), partial(hashed, view, revision), self.actor_ref))

        self._inspect(with_view, lambda applier: applier.hash_question(revision))

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _inspect(self, then: Callable[..., None], question: Callable[[Applier], object]) -> None:
        token, answer_to = self._token(then), self.actor_ref
        self._apply.tell(Inspect(lambda applier: answer_to.tell(Answered(token, question(applier)))))

    def _token(self, then: Callable[..., None]) -> int:
        self._last_token += 1
        self._answers[self._last_token] = then
        return self._last_token

    def _send(self, messages: Sequence[Message]) -> None:
        snapshots = [message for message in messages if message.type is MessageType.SNAPSHOT]
        if snapshots:
            messages = [message for message in messages if message.type is not MessageType.SNAPSHOT]
            for snapshot in snapshots:
                self._run(self._send_snapshot(snapshot))
        self._links.send(messages)

    async def _send_snapshot(self, message: Message) -> None:
        """Send *message* with the store as it is now, which stands at its index or later; tell raft how that went."""
        started_s = self._clock.monotonic_s()
        self._sent.began(message.to)
        log = self._logger.bind(peer_id=f"{message.to:x}")
        try:
            index, size_bytes = await self._transfer(message)
        except (PeerUnreachable, OSError) as error:
            self._sent.ended(message.to, self._clock.monotonic_s() - started_s, well=False)
            log.warning("could not send a snapshot", reason=str(error))
            failed = SnapshotStatus(message.to, ok=False)
            asyncio.get_running_loop().call_later(SNAPSHOT_RETRY_S, self._raft.tell, failed)
        else:
            taken_s = self._clock.monotonic_s() - started_s
            self._sent.ended(message.to, taken_s, well=True)
            log.info("sent a snapshot", index=index, size_bytes=size_bytes, took_s=round(taken_s, 3))
            self._raft.tell(SnapshotStatus(message.to, ok=True))

    async def _transfer(self, message: Message) -> tuple[int, int]:
        """Return the index and the size of what was sent; PeerUnreachable, OSError."""
        peer = self._links.peer(message.to)
        if peer is None:
            raise PeerUnreachable("nothing is known of this member")
        snapshot, view = await self._inspected(lambda applier: (applier.raft_snapshot(), applier.store.view()))
        export = self._make_export(view)
        try:
            while not await self._worked(export.build):
                pass
            head = encode_message(message._replace(snapshot=snapshot), EntryEncoder())
            start = len(head).to_bytes(8, "big") + head

            async def pieces() -> AsyncIterator[bytes]:
                yield start
                while piece := await self._worked(partial(export.read, SNAPSHOT_PIECE_BYTES)):
                    yield piece

            headers = [("Content-Type", "application/octet-stream"), *self._identity.request_headers()]
            answer = await self._links.client.upload(peer.url, "/raft/snapshot", headers, pieces(), SNAPSHOT_TIMEOUT_S)
        finally:
            await self._worked(export.close)
        if answer.status != HTTPStatus.NO_CONTENT:
            raise PeerUnreachable(f"{answer.status} {answer.body[:200].decode(errors='replace').strip()}")
        return snapshot.metadata.index, export.size_bytes

    async def _inspected(self, question: Callable[[Applier], Any]) -> Any:  # noqa: ANN401 - whatever is asked for
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._inspect(partial(resolve, future), question)
        return await future

    async def _worked(self, job: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the job returns
        """Return what *job* does on the worker's thread; OSError."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._worker.tell(Work(self._token(partial(resolve, future)), partial(attempted, job), self.actor_ref))
        outcome = await future
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def _follow(self, cluster: ClusterIs) -> None:
        self._cluster = cluster
        members = {member.id: member.peer_urls for member in cluster.members}
        if self._identity.member_id in members:
            # From here on the store knows better than what this member was started with.
            self._known = {}
        if self._identity.member_id in cluster.removed:
            self._removed()
        self._links.set_members({**self._known, **members}, cluster.removed)

    def _activity(self) -> ActivityIs:
        peers = self._links.peers.items()
        return ActivityIs({member: peer.active_since_s for member, peer in peers if peer.active_since_s is not None})

    def _set_paused(self, *, paused: bool) -> None:
        self._paused = paused
        for peer in self._links.peers.values():
            if paused:
                peer.pause()
            else:
                peer.resume()

    async def _ask(self, asked: AskMember) -> None:
        peer = self._links.peer(asked.member)
        answer: MemberAnswer | None = None
        if peer is not None:
            headers = self._identity.request_headers()
            if asked.body:
                headers.append(("Content-Type", asked.content_type))
            try:
                got = await peer.ask(asked.method, asked.path, headers, asked.body, asked.timeout_s)
            except PeerUnreachable:
                pass  # None says as much, and the links have logged why
            else:
                answer = MemberAnswer(got.status, got.body)
        asked.answer_to.tell(Answered(asked.token, answer))

    def _handle_http(self, request: HttpRequest, responder: HttpResponder) -> None:
        if not self._links.handle(request, responder):
            self._pages.handle(request, responder)

    def _crash(self, error: BaseException) -> None:
        self._home.fatal(type(self).__name__, error)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop keeps only weak references to tasks.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)

    async def _drain(self, message: Drain) -> None:
        await self._engine.drain(message.timeout_s)
        await self._engine.close()
        message.after.send()


class _Receiving:
    """The Sink of a snapshot that comes, which tells how that went."""

    def __init__(self, file: IncomingFile, ended: Callable[[bool], None]) -> None:
        """Tell *ended* whether it went well."""
        self.file = file
        self.ended = ended
        self.write = file.write
        self.finish = file.finish

    def discard(self) -> None:
        """See Sink."""
        self.file.discard()
        self.ended(False)


def resolve(future: asyncio.Future[Any], outcome: object) -> None:
    """Give *future* its result, unless whoever waits has been stopped."""
    if not future.done():
        future.set_result(outcome)


def attempted(job: Callable[[], object]) -> object:
    """Return what *job* returns, or the OSError that it raises."""
    try:
        return job()
    except OSError as error:
        return error


def kept(file: IncomingFile, v2_tree: bytes) -> str:
    """Keep a file that has come, if what came with it can be read too; return why not, or nothing."""
    try:
        v2store.members_in(v2_tree)
        file.keep()
    except MalformedMember as error:
        file.discard()
        return f"what it tells of members cannot be read: {error}"
    except (OSError, UnsoundSnapshot) as error:
        return str(error)
    return ""


def hashed(view: View, revision: int) -> tuple[HashKv, int]:
    """Return the hash of *view* at *revision*, and its own revision."""
    return hash_kv(view, revision, google_crc32c.extend), view.revision
