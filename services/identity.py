"""Who calls, and whether they may: the checks of the API layer.

Writes are checked where they are applied (core/apply/auth.py).  Here is what is answered without the log, and what only
an administrator may start at all.  While auth is off each of these is one look at a flag.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.auth.rules import NOBODY
from core.errors import AuthOldRevision, EtcdError
from net.rpc import Code
from services.decode import unreadable
from services.errors import status_of, undecodable_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.auth.rules import Identity, Rules
    from net.rpc import Call, Context, Status, Stream, StreamHandler, StreamMethod, UnaryMethod
    from services.node import Node

    Check = Callable[[Rules, Identity], None]
    """Raises the EtcdError that refuses the caller."""

_BEARER = "Bearer "


def token_in(metadata: Mapping[str, Sequence[str]]) -> str | None:
    """Return the token that came with a call, None if there is none."""
    values = metadata.get("token") or metadata.get("authorization")
    return values[0].removeprefix(_BEARER) if values else None


def certified_name(context: Context) -> str | None:
    """Return the name in the client's certificate, unless the call came through a gateway, whose name that is."""
    name = context.common_name
    if name is None or "grpcgateway-accept" in context.metadata:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return None  # no user has such a name
    return name


def admit(
    node: Node, call: Call, check: Check, then: Callable[[], None], refused: Callable[[EtcdError], None] | None = None
) -> None:
    """Run *then* if whoever makes *call* passes *check*, else *refused*, or refuse the call."""
    if not node.auth.enabled:
        then()
        return

    refused = refused or partial(refuse, call)

    def judge(identity: Identity) -> None:
        try:
            check(node.auth, identity)
        except EtcdError as error:
            refused(error)
        else:
            then()

    node.identify(call, judge, refused)


def admit_read(node: Node, call: Call, check: Check, then: Callable[[Call], None]) -> None:
    """Have *then* answer the call it is given if whoever makes *call* passes *check*.

    An answer that was on its way while the rules changed is withheld: AuthOldRevision.
    """

    def judge(identity: Identity) -> None:
        try:
            check(node.auth, identity)
        except EtcdError as error:
            call.fail(status_of(error))
        else:
            then(_Unchanged(call, node, identity.revision))

    node.identify(call, judge, partial(refuse, call))


def refuse(call: Call, error: EtcdError) -> None:
    """Refuse *call*."""
    call.fail(status_of(error))


def is_root(rules: Rules, identity: Identity) -> None:
    """Check that an administrator calls."""
    rules.check_root(identity)


def is_known(rules: Rules, identity: Identity) -> None:
    """Check that somebody calls who has shown who it is."""
    rules.check_known(identity)


def only(node: Node, check: Check, method: UnaryMethod) -> UnaryMethod:
    """Return *method* for those who pass *check*; to others what is no message is said to be none, as in etcd."""

    def checked(call: Call, payload: bytes) -> None:
        def refused(error: EtcdError) -> None:
            call.fail(unreadable(call.method, payload) or status_of(error))

        if node.auth.enabled:
            admit(node, call, check, partial(method, call, payload), refused)
        else:
            method(call, payload)

    return checked


def only_stream(node: Node, check: Check, method: StreamMethod) -> StreamMethod:
    """Return the streaming *method* for those who pass *check*."""
    return lambda stream: _Guarded(node, check, method, stream) if node.auth.enabled else method(stream)


class ForwardedCall:
    """A call whose answer somebody looks at before it leaves; see net.rpc.Call."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def method(self) -> str:
        """See Context."""
        return self._call.method

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """See Context."""
        return self._call.metadata

    @property
    def peer(self) -> str:
        """See Context."""
        return self._call.peer

    @property
    def common_name(self) -> str | None:
        """See Context."""
        return self._call.common_name

    @property
    def deadline_s(self) -> float | None:
        """See Context."""
        return self._call.deadline_s

    @property
    def done(self) -> bool:
        """See Call."""
        return self._call.done

    def reply(self, message: bytes) -> None:
        """See Call."""
        self._call.reply(message)

    def fail(self, status: Status) -> None:
        """See Call."""
        self._call.fail(status)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See Call."""
        self._call.when_abandoned(then)


class NotedCall(ForwardedCall):
    """A call of which somebody notes how it ends, just before its answer leaves."""

    def reply(self, message: bytes) -> None:
        """See Call."""
        self.note(Code.OK)
        self._call.reply(message)

    def fail(self, status: Status) -> None:
        """See Call."""
        self.note(status.code)
        self._call.fail(status)

    def note(self, code: Code) -> None:
        """Take note of an answer, which may be one too many: later ones are ignored."""
        raise NotImplementedError


class _Unchanged(ForwardedCall):
    """Answers only while the auth revision is the one that the caller was judged by."""

    def __init__(self, call: Call, node: Node, revision: int) -> None:
        super().__init__(call)
        self._node = node
        self._revision = revision

    def reply(self, message: bytes) -> None:
        """See Call."""
        # Nobody was judged by no revision, and let through to what is nothing.
        if self._revision in {self._node.auth.revision, NOBODY.revision}:
            self._call.reply(message)
        else:
            self._call.fail(status_of(AuthOldRevision()))


class _Guarded:
    """A stream's handler that lets its messages through once the caller was judged."""

    def __init__(self, node: Node, check: Check, method: StreamMethod, stream: Stream) -> None:
        self._node = node
        self._check = check
        self._method = method
        self._stream = stream
        self._handler: StreamHandler | None = None
        self._early: list[Callable[[StreamHandler], None]] = []
        self._closed = False
        self._first: bytes | None = None
        self._refusal: EtcdError | None = None
        node.identify(stream, self._judge, self._refuse)

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        if self._first is None:
            self._first = message
            self._finish_refused()
        self._pass_on(lambda handler: handler.on_message(message))

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self._first = self._first or b""
        self._finish_refused()
        self._pass_on(lambda handler: handler.on_half_close())

    def on_drained(self) -> None:
        """See StreamHandler."""
        self._pass_on(lambda handler: handler.on_drained())

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self._closed = True
        if self._handler is not None:
            self._handler.on_closed(status)

    def _pass_on(self, event: Callable[[StreamHandler], None]) -> None:
        if self._handler is not None:
            event(self._handler)
        else:
            self._early.append(event)

    def _judge(self, identity: Identity) -> None:
        try:
            self._check(self._node.auth, identity)
        except EtcdError as error:
            self._refuse(error)
            return
        if not self._closed:
            self._handler = self._method(self._stream)
            early, self._early = self._early, []
            for event in early:
                event(self._handler)

    def _refuse(self, error: EtcdError) -> None:
        self._refusal = error
        self._finish_refused()

    def _finish_refused(self) -> None:
        """End once it is known that the caller may not, and whether the request is one."""
        if not self._closed and self._refusal is not None and self._first is not None:
            self._stream.finish(
                unreadable(self._stream.method, self._first, undecodable_message) or status_of(self._refusal)
            )
