"""FrontActor: one listener of the proxy.

It owns the engine and every call that waits for a member.  What is not coalesced or cached goes to UpstreamActor as it
came, but for a namespace.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from google.protobuf.message import DecodeError

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from actors.messages.metrics import Gather, Measure, Measured
from actors.messages.serve import Answered, Drain, Open
from actors.messages.worker import Work
from core.errors import EtcdError, InvalidAuthToken, PermissionDenied, UserEmpty
from core.metrics import Sample
from grpcproxy.cache import RangeCache
from grpcproxy.kv import KvProxy, finish
from grpcproxy.leasing import Leasing
from grpcproxy.messages import (
    ClientAsked,
    ClientClosed,
    ClientEvent,
    ClientOpened,
    CloseStream,
    Finish,
    Forward,
    Frames,
    FrontMessage,
    GiveUp,
    Group,
    OpenStream,
    ProxiesAre,
    SendOn,
    StreamEnded,
    StreamGot,
    StreamOpened,
)
from grpcproxy.methods import AUTH_CHANGES, KEEP_ALIVE, MEMBER_LIST, RANGE, READS, STREAMS, UNARY, WATCH
from grpcproxy.pages import ProxyPages
from grpcproxy.passed import NotPassedOn, group_of, metadata_of
from grpcproxy.statuses import READ_ONLY, STOPPED, malformed
from grpcproxy.streams import ASKED_MAX, OwnStream, SharedStream
from net.rpc import OK, Code, Routes, Status
from proto.rpc_pb2 import AlarmRequest, Member, MemberListRequest, MemberListResponse, RangeRequest, WatchResponse
from services.decode import decode
from services.errors import status_of, undecodable
from services.grpc_metrics import GO_CODES
from services.grpc_metrics import samples as grpc_samples
from services.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import structlog

    from actors.address import Address
    from actors.messages.metrics import Gather as GatherMessage
    from actors.serve import Engine
    from core.clock import Clock
    from grpcproxy.leasing_session import Receiver
    from grpcproxy.messages import LeasesMessage, Metadata, UpstreamMessage, WatchesMessage
    from grpcproxy.namespace import Namespace
    from grpcproxy.pages import Fetch
    from grpcproxy.settings import Front
    from net.rpc import Call, HttpHandler, Stream, StreamHandler, StreamMethod, UnaryMethod

CALLS_MAX: Final = 50_000
"""Calls of this listener that may wait at once."""

ABANDONED: Final = Status(Code.CANCELLED, "context canceled")
TOO_MANY: Final = Status(Code.RESOURCE_EXHAUSTED, "the proxy has too many calls in flight")
RECOVERY_RETRY_S: Final = 1.0
ALARM: Final = "/etcdserverpb.Maintenance/Alarm"
DISTRUST: Final = frozenset({UserEmpty.text, InvalidAuthToken.text, PermissionDenied.text})
"""Refusals after which nothing is served from the cache that was read before: who may read it has changed."""


class Waiting(Protocol):
    """Who waits for an answer."""

    @property
    def done(self) -> bool:
        """Whether nobody does any more."""


class Probe:
    """A page that waits."""

    done = False


class WatchProbe:
    """A page that waits for a watcher to be there."""

    def __init__(self, then: Callable[[bool], None], until_s: float) -> None:
        self._then: Callable[[bool], None] | None = then
        self.until_s = until_s

    def send(self, message: bytes) -> None:
        """Take what a client would get."""
        try:
            there = not WatchResponse.FromString(message).canceled
        except DecodeError:
            there = False
        self._end(there)

    def finish(self, status: Status) -> None:
        """Take note that it has failed."""
        del status
        self._end(False)

    def _end(self, there: bool) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(there)


@final
class FrontActor(NodeActor[FrontMessage]):
    """Serves clients.

    Owns: the engine; calls and streams of clients, the cache of ranges.  Tells: UpstreamActor, WatchesActor,
    LeasesActor, WorkerActor, MetricsActor.  Fails when: a handler raises what is no error of a call.
    """

    def __init__(
        self,
        home: Home,
        *,
        settings: Front,
        namespace: Namespace | None,
        endpoints: Sequence[str],
        upstream: Address[UpstreamMessage],
        watches: Address[WatchesMessage],
        leases: Address[LeasesMessage],
        worker: Address[Work],
        metrics: Address[GatherMessage],
        fetch_metrics: Fetch,
        make_engine: Callable[[Routes, HttpHandler], Engine],
        clock: Clock,
        opened: Callable[[], None],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        super().__init__(home)
        self._settings = settings
        self._namespace = namespace
        self.endpoint_count = len(endpoints)
        self._upstream = upstream
        self._watches = watches
        self._leases = leases
        self._worker = worker
        self._metrics = metrics
        self._fetch_metrics = fetch_metrics
        self._make_engine = make_engine
        self._clock = clock
        self._opened = opened
        self._logger = logger
        self._numbers = count(1)
        self._calls: dict[int, tuple[Waiting, Callable[[bytes | Status], None]]] = {}
        self._jobs: dict[int, Callable[..., None]] = {}
        self._streams: dict[int, SharedStream | OwnStream | WatchProbe] = {}
        self._probes: dict[int, WatchProbe] = {}
        self._cache = RangeCache()
        self._receivers: dict[int, Receiver] = {}
        self._leasing: Leasing | None = None
        if settings.leasing_prefix:
            inside = b"" if namespace is None else namespace.prefix
            self._leasing = Leasing(self, settings.leasing_prefix, inside, logger)
        passing = self._leasing or self
        self._kv = KvProxy(passing, self._cache, ordered=settings.ordered, read_only=settings.read_only)
        self._proxies: tuple[tuple[str, str], ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_at_s: float | None = None

    # -- the actor ---------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the engine."""
        self._loop = asyncio.get_running_loop()
        self._routes = self._make_routes()
        settings = self._settings
        pages = ProxyPages(self, self._fetch_metrics, settings.profiles, advertised=bool(settings.advertise_client_url))
        self._engine = self._make_engine(self._routes, pages.handle)

    def handle(self, message: FrontMessage) -> None:
        """Take one message."""
        match message:
            case Answered():
                self._answer(message)
            case Frames():
                for number, frame in message.frames:
                    stream = self._streams.get(number)
                    if stream is not None:
                        stream.send(frame)
            case StreamGot():
                taker = self._streams.get(message.number) or self._receivers.get(message.number)
                if taker is not None:
                    taker.send(message.body)
            case Finish():
                for number in message.numbers:
                    self._finish(number, message.status)
            case StreamEnded():
                receiver = self._receivers.pop(message.number, None)
                if receiver is not None:
                    receiver.finish(message.status)
                self._finish(message.number, message.status)
            case StreamOpened():
                if message.number in self._receivers:  # else it is a client's, which has nothing to wait for
                    self._receivers[message.number].opened()
            case ProxiesAre():
                self._proxies = message.proxies
            case Tick():
                self._sweep(message.now_s)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))
            case Open():
                self._open()
            case Drain():
                self._run_task(self._drain(message))

    def teardown(self) -> None:
        """Fail what still waits."""
        calls, self._calls = self._calls, {}
        for waiting, then in calls.values():
            if not waiting.done:
                then(STOPPED)

    # -- what is served ----------------------------------------------------------------------------------------------

    def _make_routes(self) -> Routes:
        health = Health()
        unary: dict[str, UnaryMethod] = {
            **self._kv.methods(),
            **dict.fromkeys(UNARY, self._pass),
            MEMBER_LIST: self._member_list,
            "/grpc.health.v1.Health/Check": health.check,
        }
        streams: dict[str, StreamMethod] = {
            **dict.fromkeys(STREAMS, self._open_own),
            WATCH: partial(self._open_shared, self._watches, None),
            KEEP_ALIVE: partial(self._open_shared, self._leases, ASKED_MAX),
            "/grpc.health.v1.Health/Watch": health.watch,
        }
        if self._settings.read_only:
            for path in unary.keys() - READS - self._kv.methods().keys():
                unary[path] = self._alarm if path == ALARM else refuse_write
            streams[KEEP_ALIVE] = refuse_writing_stream
        if self._settings.log_calls:
            unary = {path: partial(self._logged, path, method) for path, method in unary.items()}
            streams = {path: partial(self._logged_stream, path, method) for path, method in streams.items()}
        return Routes(unary=unary, streams=streams)

    def pass_on(self, call: Call, body: bytes, then: Callable[[bytes | Status], None]) -> None:
        """See Passing."""
        try:
            metadata = metadata_of(call)
        except NotPassedOn as error:
            then(Status(Code.INVALID_ARGUMENT, str(error)))
            return
        if len(self._calls) >= CALLS_MAX:
            then(TOO_MANY)
            return
        deadline_s = call.deadline_s
        timeout_s = None if deadline_s is None else max(deadline_s - self._loop.time(), 0.0)
        token = self._enter(call, call.method, body, metadata, timeout_s, then)
        if token is not None:
            call.when_abandoned(partial(self._give_up, token))

    def now_s(self) -> float:
        """See Carrier."""
        return self._loop.time()

    def ask(
        self,
        path: str,
        body: bytes,
        metadata: Metadata,
        timeout_s: float | None,
        then: Callable[[bytes | Status], None],
    ) -> None:
        """See Carrier."""
        self._enter(Probe(), path, body, metadata, timeout_s, then)

    def open(self, path: str, receiver: Receiver) -> int:
        """See Carrier."""
        number = next(self._numbers)
        self._receivers[number] = receiver
        self._upstream.tell(OpenStream(number, path, (), None, self.actor_ref))
        return number

    def send_on(self, number: int, body: bytes) -> None:
        """See Carrier."""
        self._upstream.tell(SendOn(number, self.actor_ref, body))

    def close(self, number: int) -> None:
        """See Carrier."""
        if self._receivers.pop(number, None) is not None:
            self._upstream.tell(CloseStream(number, self.actor_ref))

    def _enter(
        self,
        waiting: Waiting,
        path: str,
        body: bytes,
        metadata: Metadata,
        timeout_s: float | None,
        then: Callable[[bytes | Status], None],
    ) -> int | None:
        """Ask a member, through the namespace; return the token of what waits, None if *then* has been told at once."""
        passage = None if self._namespace is None else self._namespace.passages.get(path)
        try:
            if passage is not None:
                request = passage.request.FromString(body)
                passage.enter(request)
                body = request.SerializeToString()
        except DecodeError as error:
            then(undecodable(error))
            return None
        except EtcdError as error:
            then(status_of(error))
            return None

        def end(outcome: bytes | Status) -> None:
            if isinstance(outcome, Status):
                if outcome.message in DISTRUST:
                    self._cache.clear()
            elif passage is not None:
                try:
                    answer = passage.response.FromString(outcome)
                except DecodeError as error:
                    then(malformed(error))
                    return
                passage.leave(answer)
                outcome = answer.SerializeToString()
            elif path in AUTH_CHANGES:
                self._cache.clear()
            then(outcome)

        return self._forward(waiting, path, body, metadata, timeout_s, end)

    def _give_up(self, token: int) -> None:
        """Have what nobody waits for given up at the members too: who campaigns or waits for a lock holds on there."""
        if self._calls.pop(token, None) is not None:
            self._upstream.tell(GiveUp(token, self.actor_ref))

    def _forward(
        self,
        waiting: Waiting,
        path: str,
        body: bytes,
        metadata: Metadata,
        timeout_s: float | None,
        then: Callable[[bytes | Status], None],
    ) -> int:
        token = next(self._numbers)
        self._calls[token] = (waiting, then)
        self._upstream.tell(Forward(token, path, body, metadata, timeout_s, self.actor_ref))
        return token

    def _pass(self, call: Call, body: bytes) -> None:
        self.pass_on(call, body, partial(finish, call))

    def _alarm(self, call: Call, body: bytes) -> None:
        """Pass on a look at the alarms."""
        request = decode(call, AlarmRequest, body)
        if request is None:
            return
        if request.action == AlarmRequest.GET:
            self._pass(call, body)
        else:
            call.fail(READ_ONLY)

    def _member_list(self, call: Call, body: bytes) -> None:
        """List the proxies, if they are known by an address: clients are to come here, not to the members."""
        settings = self._settings
        if not settings.advertise_client_url:
            self._pass(call, body)
            return
        if decode(call, MemberListRequest, body) is None:
            return
        proxies = self._proxies or ((settings.host_name, settings.advertise_client_url),)
        members = [Member(name=name, clientURLs=[address]) for name, address in proxies]
        call.reply(MemberListResponse(members=members).SerializeToString())

    # -- streams -----------------------------------------------------------------------------------------------------

    def _open_shared(self, carrier: Address[ClientEvent], asked_max: int | None, stream: Stream) -> StreamHandler:
        try:
            group = group_of(stream)
        except NotPassedOn as error:
            stream.finish(Status(Code.INVALID_ARGUMENT, str(error)))
            return Ended()
        number = next(self._numbers)
        shared = SharedStream(self.actor_ref, self, number, stream, group, carrier, asked_max)
        self._streams[number] = shared
        return shared

    def _open_own(self, stream: Stream) -> StreamHandler:
        try:
            metadata = metadata_of(stream)
        except NotPassedOn as error:
            stream.finish(Status(Code.INVALID_ARGUMENT, str(error)))
            return Ended()
        number = next(self._numbers)
        deadline_s = stream.deadline_s
        timeout_s = None if deadline_s is None else max(deadline_s - self._loop.time(), 0.0)
        passage = None if self._namespace is None else self._namespace.passages.get(stream.method)
        own = OwnStream(self.actor_ref, self, number, stream, metadata, timeout_s, self._upstream, passage)
        self._streams[number] = own
        return own

    def forget(self, number: int) -> None:
        """See Registered."""
        self._streams.pop(number, None)

    def _finish(self, number: int, status: Status) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.finish(status)

    # -- answers -----------------------------------------------------------------------------------------------------

    def _answer(self, message: Answered) -> None:
        job = self._jobs.pop(message.token, None)
        if job is not None:
            job(message.outcome)
            return
        waiting, then = self._calls.pop(message.token, (None, None))
        if waiting is not None and then is not None and not waiting.done:
            assert isinstance(message.outcome, bytes | Status), message
            then(message.outcome)

    def _sweep(self, now_s: float) -> None:
        """End what has taken too long."""
        for number, probe in list(self._probes.items()):
            if now_s > probe.until_s:
                probe.finish(STOPPED)
                self._end_probe(number)
        if self._leasing is not None:
            self._leasing.tick()
        if self._open_at_s is not None and now_s >= self._open_at_s:
            self._open_at_s = None
            self._recover_order()

    # -- pages -------------------------------------------------------------------------------------------------------

    def probe_range(self, body: bytes, timeout_s: float, then: Callable[[bytes | Status], None]) -> None:
        """See Probes."""
        if self._namespace is not None:
            request = RangeRequest.FromString(body)
            self._namespace.passages[RANGE].enter(request)
            body = request.SerializeToString()
        self._forward(Probe(), RANGE, body, (), timeout_s, then)

    def probe_watch(self, body: bytes, timeout_s: float, then: Callable[[bool], None]) -> None:
        """See Probes."""
        number = next(self._numbers)

        def end(there: bool) -> None:
            self._end_probe(number)
            then(there)

        probe = WatchProbe(end, self._clock.monotonic_s() + timeout_s)
        self._streams[number] = self._probes[number] = probe
        self._watches.tell(ClientOpened(number, Group("", wants_leader=False, metadata=()), self.actor_ref))
        self._watches.tell(ClientAsked(number, body))

    def _end_probe(self, number: int) -> None:
        if self._probes.pop(number, None) is not None:
            self._streams.pop(number, None)
            self._watches.tell(ClientClosed(number))

    def gather(self, then: Callable[[Sequence[Sample]], None]) -> None:
        """See Probes."""
        token = next(self._numbers)
        self._jobs[token] = then
        self._metrics.tell(Gather(token, self.actor_ref))

    def work(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """See Probes."""
        token = next(self._numbers)
        self._jobs[token] = then
        self._worker.tell(Work(token, job, self.actor_ref))

    def _samples(self) -> tuple[Sample, ...]:
        return (
            Sample("etcd_grpc_proxy_cache_hits_total", self._kv.hits),
            Sample("etcd_grpc_proxy_cache_misses_total", self._kv.misses),
            Sample("etcd_grpc_proxy_cache_keys_total", len(self._cache)),
            *(() if self._leasing is None else self._leasing.samples()),
            *grpc_samples(self._routes),
        )

    # -- logged calls ------------------------------------------------------------------------------------------------

    def _logged(self, path: str, method: UnaryMethod, call: Call, body: bytes) -> None:
        method(LoggedCall(call, partial(self._log_call, path, call.peer, self._loop.time(), len(body))), body)

    def _logged_stream(self, path: str, method: StreamMethod, stream: Stream) -> StreamHandler:
        self._logger.info("stream opened", method=path, peer=stream.peer)
        return method(stream)

    def _log_call(self, path: str, peer: str, began_s: float, size: int, status: Status, answered: int) -> None:
        self._logger.info(
            "call answered",
            method=path,
            peer=peer,
            code=GO_CODES[status.code],
            error=status.message,
            took_s=round(self._loop.time() - began_s, 6),
            request_bytes=size,
            response_bytes=answered,
        )

    # -- start and stop ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._settings.ordered:
            self._logger.info("waiting for linearized read from cluster to recover ordering")
            self._recover_order()
        else:
            self._run_task(self._start())

    def _recover_order(self) -> None:
        """Learn how far the cluster is, so that the first serializable read is not older than the last run's."""

        def end(outcome: bytes | Status) -> None:
            if isinstance(outcome, Status):
                self._logger.warning("ordering recovery failed, retrying in 1s", error=outcome.message)
                self._open_at_s = self._clock.monotonic_s() + RECOVERY_RETRY_S
            else:
                self._kv.learn(outcome)
                self._run_task(self._start())

        body = RangeRequest(key=b"_", keys_only=True).SerializeToString()
        self._forward(Probe(), RANGE, body, (), RECOVERY_RETRY_S * 5, end)

    async def _start(self) -> None:
        await self._engine.start()
        self._opened()

    async def _drain(self, message: Drain) -> None:
        if self._leasing is not None:
            self._leasing.stop()
        await self._engine.drain(message.timeout_s)
        await self._engine.close()
        message.after.send()

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop keeps only weak references
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._home.fatal(type(self).__name__, error)


class LoggedCall:
    """A call whose end is logged."""

    def __init__(self, call: Call, log: Callable[[Status, int], None]) -> None:
        self._call = call
        self._log = log
        self.method = call.method
        self.metadata = call.metadata
        self.peer = call.peer
        self.common_name = call.common_name
        self.deadline_s = call.deadline_s

    @property
    def done(self) -> bool:
        """See Call."""
        return self._call.done

    def reply(self, message: bytes) -> None:
        """See Call."""
        self._call.reply(message)
        self._log(OK, len(message))

    def fail(self, status: Status) -> None:
        """See Call."""
        self._call.fail(status)
        self._log(status, 0)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See Call."""

        def abandoned() -> None:
            self._log(ABANDONED, 0)
            then()

        self._call.when_abandoned(abandoned)


class Ended:
    """The handler of a stream that was refused when it was opened."""

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""

    def on_half_close(self) -> None:
        """See StreamHandler."""

    def on_drained(self) -> None:
        """See StreamHandler."""

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""


def refuse_write(call: Call, body: bytes) -> None:
    """Refuse a call of a proxy that only reads."""
    del body
    call.fail(READ_ONLY)


def refuse_writing_stream(stream: Stream) -> StreamHandler:
    """Refuse a stream of a proxy that only reads."""
    stream.finish(READ_ONLY)
    return Ended()
