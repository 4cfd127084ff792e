"""Carries out the steps of calls that are made of other calls (services/steps.py), on the listener's loop.

The inner calls go to the very methods that clients reach, in the name of whoever made the outer one: they check, wait
and fail as they do for anybody.  There is no thread and no task: a run is a generator that is sent each outcome.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from net.rpc import OK, Code, Status
from proto.election_pb2 import CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest
from proto.lock_pb2 import LockRequest, UnlockRequest
from proto.rpc_pb2 import WatchRequest, WatchResponse
from services import election, lock
from services.decode import decode
from services.errors import undecodable_message
from services.gateway_calls import CANCELED
from services.steps import Abandoned, Ask, Next, Present, Send, Start, StepFailed, Unwatch, Watch, unmapped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from net.rpc import Call, Context, Routes, Stream, StreamHandler, StreamMethod, UnaryMethod
    from services.steps import Step

M = TypeVar("M", bound=Message)
A = TypeVar("A", bound=Message)

_WATCH: Final = "/etcdserverpb.Watch/Watch"

LOST_WATCHER: Final = Status(Code.UNKNOWN, "lost watcher waiting for delete")


def composed_unary(routes: Routes) -> dict[str, UnaryMethod]:
    """Return the unary methods of Election and Lock, made of those in *routes*."""
    return {
        "/v3electionpb.Election/Campaign": _unary(routes, CampaignRequest, election.campaign),
        "/v3electionpb.Election/Proclaim": _unary(routes, ProclaimRequest, election.proclaim),
        "/v3electionpb.Election/Leader": _unary(routes, LeaderRequest, election.leader),
        "/v3electionpb.Election/Resign": _unary(routes, ResignRequest, election.resign),
        "/v3lockpb.Lock/Lock": _unary(routes, LockRequest, lock.lock),
        "/v3lockpb.Lock/Unlock": _unary(routes, UnlockRequest, lock.unlock),
    }


def composed_streams(routes: Routes) -> dict[str, StreamMethod]:
    """Return the streaming methods likewise."""
    return {"/v3electionpb.Election/Observe": lambda stream: ObserveStream(routes, stream)}


def _unary(
    routes: Routes, kind: type[M], steps: Callable[[M], Generator[Step, Message | None, A]]
) -> Callable[[Call, bytes], None]:
    def method(call: Call, payload: bytes) -> None:
        request = decode(call, kind, payload)
        if request is None:
            return
        run = Run(routes, call, lambda answer: call.reply(_encoded(answer)), call.fail)
        call.when_abandoned(run.abandon)
        run.begin(steps(request))

    return method


def _encoded(answer: Message | None) -> bytes:
    assert answer is not None, "a unary call has an answer"
    return answer.SerializeToString()


class Run:
    """One call under way."""

    def __init__(
        self,
        routes: Routes,
        context: Context,
        done: Callable[[Message | None], None],
        failed: Callable[[Status], None],
        send: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Act for the caller of *context*.  *send* says whether it takes more; where not, see resume."""
        self._routes = routes
        self._caller = _Caller(context)
        self._done = done
        self._failed = failed
        self._send = send
        self._steps: Generator[Step, Message | None, Message | None]
        self._watch: _Watch | None = None
        self._waiting: Step | None = None
        self._outcome: list[Message | StepFailed | None] = []
        self._advancing = False
        self._gone = False
        self._cleaning = False

    def begin(self, steps: Generator[Step, Message | None, Message | None]) -> None:
        """Carry out *steps*."""
        self._steps = steps
        self._take(None)

    def abandon(self) -> None:
        """Notice that the client has given up; what was asked is answered first, but nothing more is waited for."""
        self._gone = True
        if isinstance(self._waiting, Next | Send):
            self._take(None)

    def resume(self) -> None:
        """Notice that the client takes more."""
        if isinstance(self._waiting, Send):
            self._take(None)

    def _take(self, outcome: Message | StepFailed | None) -> None:
        """Go on with the outcome of the step that waited."""
        self._waiting = None
        self._outcome.append(outcome)
        if self._advancing:
            return  # a step that was over at once: the loop below goes on
        self._advancing = True
        try:
            while self._outcome:
                self._advance(self._outcome.pop())
        finally:
            self._advancing = False

    def _advance(self, outcome: Message | StepFailed | None) -> None:
        try:
            if isinstance(outcome, StepFailed):
                step = self._steps.throw(outcome)
            elif self._gone and not self._cleaning and outcome is None:
                step = self._clean_up()
            else:
                step = self._steps.send(outcome)
                if self._gone and not self._cleaning:
                    step = self._clean_up()
        except StopIteration as end:
            self._end()
            self._done(end.value)
        except StepFailed as failure:
            self._end()
            self._failed(failure.status)
        except Abandoned:
            self._end()
        else:
            self._waiting = step
            self._do(step)

    def _clean_up(self) -> Step:
        self._cleaning = True
        self._unwatch()
        return self._steps.throw(Abandoned())

    def _do(self, step: Step) -> None:
        match step:
            case Ask():
                self._ask(step)
            case Start():
                _Ignored(self._caller, step.method).open(self._routes.streams[step.method], step.request)
                self._take(None)
            case Watch():
                self._unwatch()
                self._watch = _Watch(self._caller, self._watched)
                self._watch.open(self._routes.streams[_WATCH], WatchRequest(create_request=step.create))
                self._take(None)
            case Next():
                self._watched()
            case Unwatch():
                self._unwatch()
                self._take(None)
            case Send():
                assert self._send is not None, "a unary call sends nothing"
                if self._send(step.message.SerializeToString()):
                    self._take(None)
            case Present():
                self._take(None)

    def _ask(self, step: Ask) -> None:
        def answered(message: bytes) -> None:
            self._take(step.answer.FromString(message))

        def refused(status: Status) -> None:
            self._take(StepFailed(unmapped(status)))

        call = _InnerCall(self._caller, step.method, answered, refused)
        self._routes.unary[step.method](call, step.request.SerializeToString())

    def _watched(self) -> None:
        """Hand the next response of the watch on, if it is waited for and there is one."""
        watch = self._watch
        if isinstance(self._waiting, Next):
            assert watch is not None, "waits for a watch that was not opened"
            if watch.responses:
                self._take(watch.take())
            elif watch.ended is not None:
                self._take(StepFailed(watch.ended if watch.ended.code else LOST_WATCHER))

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _end(self) -> None:
        self._unwatch()
        self._waiting = None


class ObserveStream:
    """One Observe call: it has one request, and sends at the pace of its client."""

    def __init__(self, routes: Routes, stream: Stream) -> None:
        self._stream = stream
        self._run = Run(routes, stream, lambda _: stream.finish(), stream.finish, self._send)
        self._begun = False

    def on_message(self, message: bytes) -> None:
        """Take the request; more than one is not expected and changes nothing."""
        if self._begun:
            return
        self._begun = True
        try:
            request = LeaderRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable_message(error))
        else:
            self._run.begin(election.observe(request))

    def on_half_close(self) -> None:
        """Go on: the client has asked, and now listens."""

    def on_drained(self) -> None:
        """Send on."""
        self._run.resume()

    def on_closed(self, status: Status) -> None:  # noqa: ARG002 - however it ended, nobody listens
        """Stop."""
        self._run.abandon()

    def _send(self, message: bytes) -> bool:
        self._stream.send(message)
        return not self._stream.unsent_bytes


class _Caller:
    """Who made the outer call: kept apart, because cleaning up outlives that call."""

    def __init__(self, context: Context) -> None:
        self.metadata = context.metadata
        self.peer = context.peer
        self.common_name = context.common_name


class _Inner:
    """What inner calls and streams tell of their caller; see net.rpc.Context.  They wait as long as they must."""

    deadline_s: float | None = None

    def __init__(self, caller: _Caller, method: str) -> None:
        self.method = method
        self.metadata: Mapping[str, Sequence[str]] = caller.metadata
        self.peer = caller.peer
        self.common_name = caller.common_name


class _InnerCall(_Inner):
    """A unary call within another; see net.rpc.Call."""

    def __init__(
        self, caller: _Caller, method: str, answered: Callable[[bytes], None], refused: Callable[[Status], None]
    ) -> None:
        super().__init__(caller, method)
        self.done = False
        self._answered = answered
        self._refused = refused

    def reply(self, message: bytes) -> None:
        """See Call."""
        if not self.done:
            self.done = True
            self._answered(message)

    def fail(self, status: Status) -> None:
        """See Call."""
        if not self.done:
            self.done = True
            self._refused(status)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See Call; the run that made it waits for its end."""


class _InnerStream(_Inner):
    """A stream within a call; see net.rpc.Stream.  What is sent is taken at once."""

    unsent_bytes = 0

    def __init__(self, caller: _Caller, method: str) -> None:
        super().__init__(caller, method)
        self.ended: Status | None = None
        self._handler: StreamHandler | None = None

    def open(self, method: StreamMethod, request: Message) -> None:
        """Open it, with one message."""
        handler = method(self)
        if self.ended is None:
            self._handler = handler
            handler.on_message(request.SerializeToString())
        else:
            handler.on_closed(self.ended)

    def half_close(self) -> None:
        """Say that no more messages come."""
        if self._handler is not None:
            self._handler.on_half_close()

    def close(self) -> None:
        """Leave."""
        self._end(CANCELED)

    def send(self, message: bytes) -> None:
        """See Stream."""

    def finish(self, status: Status = OK) -> None:
        """See Stream."""
        self._end(status)

    def pause_reading(self) -> None:
        """See Stream; no further message comes."""

    def resume_reading(self) -> None:
        """See Stream."""

    def _end(self, status: Status) -> None:
        if self.ended is None:
            self.ended = status
            handler, self._handler = self._handler, None
            if handler is not None:
                handler.on_closed(status)


class _Ignored(_InnerStream):
    """A stream of which nobody waits for an answer."""

    def open(self, method: StreamMethod, request: Message) -> None:
        """Open it, with one message, and let it end."""
        super().open(method, request)
        self.half_close()


class _Watch(_InnerStream):
    """The watch of a run."""

    def __init__(self, caller: _Caller, notice: Callable[[], None]) -> None:
        super().__init__(caller, _WATCH)
        self.responses: deque[bytes] = deque()
        self._notice = notice

    def send(self, message: bytes) -> None:
        """Keep a response until it is asked for; too many, and the node sees a reader that is behind."""
        if self.ended is None:
            self.responses.append(message)
            self.unsent_bytes += len(message)
            self._notice()

    def take(self) -> WatchResponse:
        """Return the oldest response that is kept."""
        message = self.responses.popleft()
        self.unsent_bytes -= len(message)
        if not self.responses and self._handler is not None:
            self._handler.on_drained()
        return WatchResponse.FromString(message)

    def finish(self, status: Status = OK) -> None:
        """End, which whoever waits has to know."""
        super().finish(status)
        self._notice()
