"""ExtensionGateActor: looks after the extensions of a member, and carries everything between them and the node.

It lives on the loop of the listeners, whose calls it may hold: one listener without a socket serves what extensions ask
for.  Nothing that an extension does or leaves undone reaches further than here: a crash is logged and its setup runs
again after a while; what waits for it is bounded.
"""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, final

from actors.address import Delivery
from actors.base import Home, NodeActor
from actors.extension import NodeApi
from actors.extension_calls import InsideCall, InsideStream
from actors.extension_home import ExtensionHome, Parcel, Stop
from actors.messages.extension import (
    AnswerAsked,
    AskedCall,
    AskedHttp,
    AskedStream,
    Called,
    CallsSeen,
    ClientLeft,
    ClientSaid,
    CloseStream,
    Describe,
    ExtensionEnded,
    ExtensionStarted,
    GateMessage,
    GiveUpStopping,
    HttpAsked,
    MakeCall,
    OpenStream,
    RoutesAre,
    Saw,
    SayToClient,
    SendToStream,
    StartAgain,
    StartExtensions,
    StillStarting,
    StopExtensions,
    StopNext,
    StreamHeard,
    StreamHeardAll,
    StreamLeft,
    StreamOpened,
    Taken,
)
from actors.messages.metrics import Measure, Measured
from actors.messages.raft import ObserveRole, RoleIs
from core.metrics import Sample
from net.rpc import Code, Routes, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address, AnyDelivery
    from actors.extension import ExtensionActor, Place
    from actors.messages.raft import RaftMessage
    from core.auth.rules import Identity
    from core.clock import Clock
    from net.rpc import Call, HttpRequest, HttpResponder, Stream
    from services.observed import CallSeen

BACK_OFF_FIRST_S: Final = 0.5
BACK_OFF_MAX_S: Final = 60.0
WELL_AFTER_S: Final = 60.0
"""Who has lived so long begins anew with the shortest back-off."""

STOP_TIMEOUT_S: Final = 5.0
"""How long all extensions together may take to stop; who has not then is left behind."""

START_SLOW_S: Final = 10.0
"""Whoever is not running so long after its start is worth a line of the log."""

ASKED_MAX: Final = 1000
ASKED_BYTES_MAX: Final = 64 << 20
"""Requests and calls that one extension may have unanswered."""

UNHEARD_BYTES_MAX: Final = 1 << 20
"""A client's stream with more than this on its way to an extension is not read on."""
HEARD_FIXED_BYTES: Final = 100
"""What a message takes beside its content, about."""
UNREAD_BYTES_MAX: Final = 4 << 20
"""A client's stream with more than this unread by the client is ended."""

SEEN_MAX: Final = 10_000
SEEN_BYTES_MAX: Final = 16 << 20
"""Calls that one extension may not have been told of yet; of more it is told only how many there were."""

SEEN_FIXED_BYTES: Final = 200
"""What a call that was seen takes beside its request, about."""

STOPPED: Final = "the extension has stopped"

PLAIN: Final = (("content-type", "text/plain; charset=utf-8"),)


class _Flush:
    """A note to self: tell of the calls that were seen."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One extension as it is configured."""

    place: Place
    make: Callable[[Home, NodeApi], ExtensionActor]
    actor: str
    """As the configuration names it."""
    observes: bool


@dataclass(slots=True)
class _Life:
    """One extension from a start to its end."""

    number: int
    home: ExtensionHome
    since_s: float
    started: bool = False
    calls: dict[int, InsideCall] = field(default_factory=dict)
    streams: dict[int, InsideStream] = field(default_factory=dict)
    asked: dict[int, tuple[Call | HttpResponder, int]] = field(default_factory=dict)
    """By ticket, with the bytes that each holds."""
    asked_bytes: int = 0
    role_on_way: bool = False
    role_next: RoleIs | None = None
    seen_on_way: CallsSeen | None = None
    """What it was told and has not taken yet."""
    served: dict[int, _Served] = field(default_factory=dict)
    """Streams of clients by ticket."""


@dataclass(slots=True)
class _Served:
    """A client's stream on its way to an extension."""

    stream: Stream
    unheard_bytes: int = 0
    """On their way to the extension."""
    paused: bool = False


@dataclass(slots=True)
class _Extension:
    """One extension over all its lives."""

    kind: Kind
    state: str = "waiting"
    life: _Life | None = None
    restarts: int = 0
    back_off_s: float = BACK_OFF_FIRST_S
    seen: deque[CallSeen] = field(default_factory=deque)
    seen_bytes: int = 0
    lost: int = 0
    """Calls of which it was not told, and does not know yet how many they are."""
    lost_in_all: int = 0


class GateCarrier:
    """Carries from the listeners to the gate, which lives on the same loop; see services.additions.Carrier."""

    def __init__(self, gate: Address[GateMessage]) -> None:
        self._gate = gate

    def ask_page(self, number: int, request: HttpRequest, identity: Identity, responder: HttpResponder, /) -> None:
        """See Carrier."""
        self._gate.tell(AskedHttp(number, request, identity, responder))

    def ask_method(self, number: int, call: Call, payload: bytes, identity: Identity, /) -> None:
        """See Carrier."""
        self._gate.tell(AskedCall(number, call, payload, identity))

    def open_stream(self, number: int, stream: Stream, identity: Identity, /) -> None:
        """See Carrier."""
        self._gate.tell(AskedStream(number, stream, identity))

    def client_said(self, stream: Stream, message: bytes | None, /) -> None:
        """See Carrier."""
        self._gate.tell(ClientSaid(stream, message))

    def client_left(self, stream: Stream, status: Status, /) -> None:
        """See Carrier."""
        self._gate.tell(ClientLeft(stream, status))

    def saw(self, seen: CallSeen, /) -> None:
        """See Carrier."""
        self._gate.tell(Saw(seen))

    def describe(self, then: Callable[[Sequence[dict[str, object]]], None], /) -> None:
        """See Carrier."""
        self._gate.tell(Describe(then))


@final
class ExtensionGateActor(NodeActor[GateMessage | _Flush]):
    """Looks after the extensions.

    Owns: their lives; calls and streams that they make, requests that wait for them.  Tells: extensions.  Fails when: a
    service raises what is no EtcdError; never by what an extension does.
    """

    def __init__(
        self,
        home: Home,
        /,
        *,
        kinds: Sequence[Kind],
        raft: Address[RaftMessage],
        clock: Clock,
        later: Callable[[float, AnyDelivery], None],
        launch: Callable[[ExtensionHome], None],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*launch* begins to run what lives in a home."""
        super().__init__(home)
        self._extensions = [_Extension(kind) for kind in kinds]
        self._raft = raft
        self._clock = clock
        self._later = later
        self._launch = launch
        self._logger = logger
        self._routes = Routes({}, {})
        self._lives: dict[int, _Extension] = {}
        self._served_by: dict[int, tuple[_Life, int]] = {}
        """Life and ticket of each stream that a client has opened, by its identity."""
        self._last_life = 0
        self._last_ticket = 0
        self._role: RoleIs | None = None
        self._flushing = False
        self._stopping: list[_Extension] = []
        self._stopped: AnyDelivery | None = None
        self._all_stopped = False
        self._stop_patience_s = 0.0
        self._stopping_life = 0
        """The one that was told last."""

    def setup(self) -> None:
        """Ask to be told who leads."""
        self._raft.tell(ObserveRole(self.actor_ref))

    def handle(self, message: GateMessage | _Flush) -> None:
        """Take one message."""
        match message:
            case Saw():
                self._see(message.call)
            case _Flush():
                self._flushing = False
                for extension in self._extensions:
                    self._tell_of_calls(extension)
            case MakeCall():
                self._call(message)
            case OpenStream():
                self._open(message)
            case SendToStream() | CloseStream():
                self._use_stream(message)
            case Taken():
                self._take(message)
            case AnswerAsked():
                self._answer(message)
            case AskedHttp() | AskedCall():
                self._ask(message)
            case AskedStream():
                self._serve(message)
            case ClientSaid():
                self._hear(message)
            case ClientLeft():
                self._forget(message)
            case SayToClient():
                self._say(message)
            case RoleIs():
                self._role = message
                for extension in self._extensions:
                    self._tell_role(extension, message)
            case RoutesAre():
                self._routes = message.routes
            case StartExtensions():
                for extension in self._extensions:
                    self._start(extension)
            case ExtensionStarted():
                self._note_start(message.life)
            case ExtensionEnded():
                self._end(message)
            case StartAgain():
                if self._extensions[message.number].state == "backing off":
                    self._start(self._extensions[message.number])
            case StopExtensions():
                self._begin_stop(message)
            case StillStarting():
                self._note_slow_start(message.life)
            case StopNext():
                if message.life == self._stopping_life and message.life in self._lives:
                    self._stop_next()
            case GiveUpStopping():
                self._leave_behind()
            case Describe():
                message.then([described(extension) for extension in self._extensions])
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))

    # -- lives -------------------------------------------------------------------------------------------------------

    def _start(self, extension: _Extension) -> None:
        self._last_life += 1
        number, kind = self._last_life, extension.kind
        node = NodeApi(kind.place, number, self.actor_ref)
        home = ExtensionHome(kind.place.name, number, self.actor_ref, lambda home: kind.make(home, node))
        extension.life = _Life(number, home, self._clock.monotonic_s())
        extension.state = "starting"
        self._lives[number] = extension
        if self._role is not None:
            self._tell_role(extension, self._role)
        self._launch(home)
        self._later(START_SLOW_S, Delivery(self.actor_ref, StillStarting(number)))

    def _note_slow_start(self, life: int) -> None:
        extension = self._lives.get(life)
        if extension is not None and extension.state == "starting":
            self._logger.warning("an extension has not started yet", extension=extension.kind.place.name)

    def _note_start(self, life: int) -> None:
        extension = self._lives.get(life)
        if extension is not None and extension.life is not None:
            extension.life.started = True
            if extension.state == "starting":
                extension.state = "running"
            self._logger.info("started an extension", extension=extension.kind.place.name)
            self._tell_of_calls(extension)

    def _end(self, message: ExtensionEnded) -> None:
        extension = self._lives.pop(message.life, None)
        if extension is None:
            return
        life, name = extension.life, extension.kind.place.name
        assert life is not None, name
        extension.life = None
        self._let_go(life)
        if life.seen_on_way is not None:
            # Told once more, they might crash the next life too; so it is told how many were in doubt.
            untaken = life.seen_on_way
            extension.lost += len(untaken.calls) + untaken.lost
            extension.lost_in_all += len(untaken.calls)
        if message.error is not None:
            self._logger.error(
                "an extension crashed",
                extension=name,
                error=repr(message.error),
                stacktrace="".join(traceback.format_exception(message.error)),
            )
        if self._stopped is not None:
            extension.state = "stopped"
            self._logger.info("stopped an extension", extension=name)
            if life.number == self._stopping_life:
                self._stop_next()
            else:
                self._end_stop()
            return
        if self._clock.monotonic_s() - life.since_s >= WELL_AFTER_S:
            extension.back_off_s = BACK_OFF_FIRST_S
        extension.restarts += 1
        extension.state = "backing off"
        wait_s, extension.back_off_s = extension.back_off_s, min(extension.back_off_s * 2, BACK_OFF_MAX_S)
        self._logger.warning(
            "an extension will be started again", extension=name, wait_s=wait_s, restarts=extension.restarts
        )
        again = StartAgain(self._extensions.index(extension))
        self._later(wait_s, Delivery(self.actor_ref, again))

    def _begin_stop(self, message: StopExtensions) -> None:
        """Stop one after the other, the last one first; those that are slow are not waited for by the others."""
        self._stopping = list(self._extensions)
        self._stopped = message.after
        self._stop_patience_s = STOP_TIMEOUT_S / 2 / max(len(self._extensions), 1)
        self._later(STOP_TIMEOUT_S, Delivery(self.actor_ref, GiveUpStopping()))
        self._stop_next()

    def _stop_next(self) -> None:
        while self._stopping:
            extension = self._stopping.pop()
            life = extension.life
            if life is None:
                extension.state = "stopped"
                continue
            extension.state = "stopping"
            life.seen_on_way = None  # it gets the rest, whether it has taken what came before or not
            self._tell_of_calls(extension)
            life.home.tell(Stop())
            self._stopping_life = life.number
            self._later(self._stop_patience_s, Delivery(self.actor_ref, StopNext(life.number)))
            return
        self._end_stop()

    def _end_stop(self) -> None:
        if self._stopped is not None and not self._stopping and not self._lives and not self._all_stopped:
            self._all_stopped = True
            self._stopped.send()

    def _leave_behind(self) -> None:
        for extension in list(self._lives.values()):
            life = extension.life
            assert life is not None, extension
            self._logger.warning("an extension does not stop and is left behind", extension=extension.kind.place.name)
            del self._lives[life.number]
            self._let_go(life)
            extension.life = None
        self._end_stop()

    # -- what extensions ask for -------------------------------------------------------------------------------------

    def _living(self, life: int) -> _Life | None:
        extension = self._lives.get(life)
        return None if extension is None else extension.life

    def _call(self, message: MakeCall) -> None:
        life = self._living(message.life)
        if life is None:
            return
        token, wrap = message.token, message.wrap

        def then(outcome: bytes | Status) -> None:
            life.calls.pop(token, None)
            life.home.tell(Parcel(partial(wrap, outcome)))

        unary = self._routes.unary.get(message.method)
        if unary is None:
            then(unknown(message.method))
            return
        call = life.calls[token] = InsideCall(message.method, message.payload, unary, then)
        call.begin()

    def _open(self, message: OpenStream) -> None:
        life = self._living(message.life)
        if life is None:
            return
        token, wrap = message.token, message.wrap

        def then(outcome: bytes | Status) -> None:
            size_bytes = len(outcome) if isinstance(outcome, bytes) else 0
            life.home.tell(Parcel(partial(wrap, outcome), token, size_bytes))

        method = self._routes.streams.get(message.method)
        if method is None:
            then(unknown(message.method))
            return
        stream = life.streams[token] = InsideStream(message.method, then)
        stream.open(method(stream))

    def _use_stream(self, message: SendToStream | CloseStream) -> None:
        life = self._living(message.life)
        stream = None if life is None else life.streams.get(message.token)
        if life is None or stream is None:
            return
        if isinstance(message, SendToStream):
            stream.receive(message.payload, last=message.last)
        else:
            del life.streams[message.token]
            stream.cancel()

    def _take(self, message: Taken) -> None:
        extension = self._lives.get(message.life)
        if extension is None or extension.life is None:
            return
        life = extension.life
        if message.token < 0:
            self._heard(life, -message.token, message.size_bytes)
        elif message.token:
            stream = life.streams.get(message.token)
            if stream is not None:
                stream.taken(message.size_bytes)
        elif message.kind is RoleIs:
            life.role_on_way = False
            if life.role_next is not None:
                self._tell_role(extension, life.role_next)
        elif message.kind is CallsSeen:
            life.seen_on_way = None
            self._tell_of_calls(extension)

    def _tell_role(self, extension: _Extension, role: RoleIs) -> None:
        life = extension.life
        if life is None:
            return
        if life.role_on_way:
            life.role_next = role  # only the newest is of interest to one who is late
            return
        life.role_on_way, life.role_next = True, None
        life.home.tell(Parcel(lambda: role))

    # -- what extensions are asked -----------------------------------------------------------------------------------

    def _ask(self, message: AskedHttp | AskedCall) -> None:
        extension = self._extensions[message.number]
        life, name = extension.life, extension.kind.place.name
        refusal = ""
        if life is None or not life.started:
            refusal = f"the extension {name} is not running"
        elif len(life.asked) >= ASKED_MAX or life.asked_bytes >= ASKED_BYTES_MAX:
            refusal = f"the extension {name} has too much to answer"
        if refusal or life is None:
            turn_away(message.responder if isinstance(message, AskedHttp) else message.call, refusal)
            return
        self._last_ticket += 1
        ticket = self._last_ticket
        told: HttpAsked | Called
        if isinstance(message, AskedHttp):
            told = HttpAsked(ticket, message.request, message.identity)
            size_bytes = len(message.request.body)
            life.asked[ticket] = (message.responder, size_bytes)
        else:
            call = message.call
            told = Called(ticket, call.method, message.payload, call.peer, message.identity)
            size_bytes = len(message.payload)
            life.asked[ticket] = (call, size_bytes)
        life.asked_bytes += size_bytes
        life.home.tell(Parcel(lambda: told))

    def _answer(self, message: AnswerAsked) -> None:
        life = self._living(message.life)
        found = None if life is None else life.asked.pop(message.ticket, None)
        if life is not None and found is not None:
            asker, size_bytes = found
            life.asked_bytes -= size_bytes
            message.answer(asker)

    def _serve(self, message: AskedStream) -> None:
        extension, stream = self._extensions[message.number], message.stream
        life, name = extension.life, extension.kind.place.name
        if life is None or not life.started:
            stream.finish(Status(Code.UNAVAILABLE, f"the extension {name} is not running"))
        elif len(life.served) >= ASKED_MAX:
            stream.finish(Status(Code.UNAVAILABLE, f"the extension {name} has too much to answer"))
        else:
            self._last_ticket += 1
            ticket = self._last_ticket
            life.served[ticket] = _Served(stream)
            self._served_by[id(stream)] = (life, ticket)
            opened = StreamOpened(ticket, stream.method, stream.peer, message.identity)
            life.home.tell(Parcel(lambda: opened))

    def _hear(self, message: ClientSaid) -> None:
        found = self._served_by.get(id(message.stream))
        if found is None:
            return
        life, ticket = found
        if message.message is None:
            life.home.tell(Parcel(partial(StreamHeardAll, ticket)))
            return
        served, size_bytes = life.served[ticket], len(message.message) + HEARD_FIXED_BYTES
        served.unheard_bytes += size_bytes
        if served.unheard_bytes > UNHEARD_BYTES_MAX and not served.paused:
            served.paused = True
            served.stream.pause_reading()
        life.home.tell(Parcel(partial(StreamHeard, ticket, message.message), -ticket, size_bytes))

    def _heard(self, life: _Life, ticket: int, size_bytes: int) -> None:
        served = life.served.get(ticket)
        if served is not None:
            served.unheard_bytes -= size_bytes
            if served.paused and served.unheard_bytes <= UNHEARD_BYTES_MAX // 2:
                served.paused = False
                served.stream.resume_reading()

    def _say(self, message: SayToClient) -> None:
        life = self._living(message.life)
        served = None if life is None else life.served.get(message.ticket)
        if served is None:
            return
        if message.status is not None:
            served.stream.finish(message.status)
            return
        served.stream.send(message.message)
        if served.stream.unsent_bytes > UNREAD_BYTES_MAX:
            served.stream.finish(Status(Code.RESOURCE_EXHAUSTED, "the client does not read what it is sent"))

    def _forget(self, message: ClientLeft) -> None:
        found = self._served_by.pop(id(message.stream), None)
        if found is not None:
            life, ticket = found
            del life.served[ticket]
            life.home.tell(Parcel(partial(StreamLeft, ticket, message.status)))

    def _let_go(self, life: _Life) -> None:
        served = list(life.served.values())
        life.served.clear()
        for each in served:
            del self._served_by[id(each.stream)]
            each.stream.finish(Status(Code.UNAVAILABLE, STOPPED))
        let_go(life)

    # -- what extensions see -----------------------------------------------------------------------------------------

    def _see(self, seen: CallSeen) -> None:
        size_bytes = SEEN_FIXED_BYTES + len(seen.request)
        for extension in self._extensions:
            if not extension.kind.observes:
                continue
            if len(extension.seen) >= SEEN_MAX or extension.seen_bytes + size_bytes > SEEN_BYTES_MAX:
                extension.lost += 1
                extension.lost_in_all += 1
                continue
            extension.seen.append(seen)
            extension.seen_bytes += size_bytes
        if not self._flushing:
            self._flushing = True
            self.actor_ref.tell(_Flush())

    def _tell_of_calls(self, extension: _Extension) -> None:
        life = extension.life
        if life is None or not life.started or life.seen_on_way or not (extension.seen or extension.lost):
            return
        told = CallsSeen(tuple(extension.seen), extension.lost)
        extension.seen.clear()
        extension.seen_bytes = extension.lost = 0
        life.seen_on_way = told
        life.home.tell(Parcel(lambda: told))

    def _samples(self) -> list[Sample]:
        samples: list[Sample] = []
        for extension in self._extensions:
            name, life = extension.kind.place.name, extension.life
            samples += [
                Sample("actcd_extension_state", 1, (name, extension.state)),
                Sample("actcd_extension_restarts_total", extension.restarts, (name,)),
                Sample("actcd_extension_mailbox_depth", 0 if life is None else life.home.depth, (name,)),
                Sample("actcd_extension_calls_lost_total", extension.lost_in_all, (name,)),
            ]
        return samples


def described(extension: _Extension) -> dict[str, object]:
    """Return how *extension* is, as /debug/vars shows it."""
    return {
        "name": extension.kind.place.name,
        "actor": extension.kind.actor,
        "state": extension.state,
        "restarts": extension.restarts,
        "mailbox_depth": 0 if extension.life is None else extension.life.home.depth,
        "calls_lost": extension.lost_in_all,
    }


def let_go(life: _Life) -> None:
    """End everything that a life has open, on both sides."""
    for call in list(life.calls.values()):
        call.drop()
    for stream in list(life.streams.values()):
        stream.cancel()
    for asker, _ in life.asked.values():
        turn_away(asker, STOPPED)
    life.calls.clear()
    life.streams.clear()
    life.asked.clear()


def turn_away(asker: Call | HttpResponder, reason: str) -> None:
    """Refuse what an extension cannot answer."""
    if hasattr(asker, "fail"):
        asker.fail(Status(Code.UNAVAILABLE, reason))
    else:
        asker.reply(503, PLAIN, reason.encode() + b"\n")


def unknown(method: str) -> Status:
    """Return what a call of a method gets that is not there."""
    return Status(Code.UNIMPLEMENTED, f"unknown method {method}")
