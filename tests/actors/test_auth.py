"""How auth travels between actors: rules and tokens from the log to listeners, watchers and leases, in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.messages.apply import ObserveAuth, ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.raft import Propose
from actors.messages.serve import Answered, AuthIs, Completed, Published, ReadIndexed, TokensUsed
from actors.messages.watch import WatchRequested
from actors.messages.worker import Work
from actors.serve import HASHES_WAITING_MAX, TOKENS_TICK_S, TOKENS_WAITING_MAX
from core.auth.permissions import READWRITE, Permission
from core.auth.rules import NO_RULES, NOBODY, Identity, Role, Rules, User
from core.auth.tokens import TokenAssigned, TokensDropped
from core.types import Index, LeaseId
from net.rpc import Code
from proto.raft_internal_pb2 import InternalAuthenticateRequest, InternalRaftRequest
from proto.rpc_pb2 import (
    AuthEnableRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    WatchCreateRequest,
    WatchRequest,
)
from services.auth import AUTH_STATUS_TAG, AUTHENTICATE_TAG
from tests.actors.test_apply import Machine
from tests.actors.test_lease import A, Leases
from tests.actors.test_serve import OWNER, TIMEOUT_S, Listener, failure
from tests.actors.test_watch import ONE, Watching
from tests.fakes import FakeCall

if TYPE_CHECKING:
    from collections.abc import Iterator

EMPTY = (Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
INVALID_TOKEN = (Code.UNAUTHENTICATED, "etcdserver: invalid auth token")


def rules(revision: int = 5, *, enabled: bool = True, keys: tuple[bytes, ...] = (b"a", b"b")) -> Rules:
    """Return rules with root and a user who may read and write *keys*."""
    users = [User("root", b"", ("root",)), User("joe", b"", ("role",))]
    role = Role("role", tuple(Permission(READWRITE, key) for key in keys))
    return Rules(enabled, revision, {user.name: user for user in users}, {"role": role})


def call(token: str | None = None) -> FakeCall:
    """Return a call that brings *token*."""
    made = FakeCall()
    made.metadata = {} if token is None else {"token": [token]}
    return made


class Guarded(Listener):
    """A listener with auth on, which knows a token of joe's."""

    TOKEN = "word.3"

    def __init__(self, *, quota_bytes: int | None = None) -> None:
        super().__init__(quota_bytes=quota_bytes)
        self.publish(applied=5, commit=5)
        self.tell(AuthIs(rules(), [TokenAssigned(self.TOKEN, "joe")]))

    def headers(self) -> list[tuple[str, int]]:
        """Return user and auth revision of every entry proposed so far."""
        entries = [InternalRaftRequest.FromString(data) for message in self.proposed() for _, data in message.proposals]
        return [(entry.header.username, entry.header.auth_revision) for entry in entries]

    def proposed(self) -> list[Propose]:
        """Return the proposals so far."""
        return self.raft.of(Propose)

    def end_read_round(self) -> None:
        """Answer the round of reads that is under way."""
        self.tell(ReadIndexed(self.rounds()[-1], Index(5)))


@pytest.fixture
def listener() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.loop.close()


def test_a_proposal_says_who_asks(listener: Guarded) -> None:
    """Every member decides by what stands in the entry."""
    listener.propose(call(Guarded.TOKEN))
    assert listener.headers() == [("joe", 5)]
    listener.tell(AuthIs(rules(6), ()))
    listener.propose(call(Guarded.TOKEN))
    assert listener.headers()[-1] == ("joe", 6)  # a simple token is as new as the rules


def test_while_auth_is_off_tokens_are_not_looked_at(listener: Guarded) -> None:
    """Clients go on sending what they have."""
    listener.tell(AuthIs(rules(6, enabled=False), [TokensDropped(None)]))
    listener.propose(call("nonsense"))
    assert listener.headers() == [("", 0)]


def test_a_bad_token_is_refused_at_once(listener: Guarded) -> None:
    """It never gets into the log."""
    refused = call("other.3")
    listener.propose(refused)
    assert failure(refused) == INVALID_TOKEN
    assert listener.headers() == []


def test_nobody_is_refused_by_what_the_cluster_knows(listener: Guarded) -> None:
    """Not by what this member knows: auth may have been switched off elsewhere a moment ago."""
    refused, late = call(), call()
    listener.propose(refused)
    assert not refused.done
    listener.end_read_round()
    assert failure(refused) == EMPTY
    listener.propose(late)
    listener.tell(AuthIs(rules(6, enabled=False), ()))
    listener.end_read_round()
    assert not late.done
    assert listener.headers() == [("", 0)]


def test_who_logs_in_or_asks_for_the_state_needs_no_name(listener: Guarded) -> None:
    """Everything else does."""
    listener.turn(lambda: listener.actor.propose(call("nonsense"), AUTHENTICATE_TAG, b"", as_caller=False))
    listener.turn(lambda: listener.actor.propose(call(), AUTH_STATUS_TAG, b""))
    assert listener.headers() == [("", 0), ("", 0)]


def test_a_token_from_an_entry_still_to_come_is_waited_for(listener: Guarded) -> None:
    """A client logs in at one member and goes to another, which is a little behind."""
    early = call("new.7")
    listener.propose(early)
    listener.publish(applied=6, commit=7)
    assert not early.done
    assert listener.headers() == []
    listener.tell(AuthIs(rules(), [TokenAssigned("new.7", "joe")]))
    listener.publish(applied=7, commit=7)
    assert listener.headers() == [("joe", 5)]


def test_a_token_from_an_entry_that_never_comes(listener: Guarded) -> None:
    """Anybody can make up an index; the wait ends, and is not for more than a few."""
    made_up = call("new.99999999")
    listener.propose(made_up)
    listener.pass_time(TIMEOUT_S / 2)
    assert not made_up.done
    listener.pass_time(TIMEOUT_S / 2 + 0.1)
    assert failure(made_up) == INVALID_TOKEN
    many = [call("new.99999999") for _ in range(TOKENS_WAITING_MAX + 1)]
    listener.propose(*many)
    assert [each.done for each in many] == [False] * TOKENS_WAITING_MAX + [True]


def test_nobody_raises_the_alarm() -> None:
    """A request too large for what is left of the quota stops all writes, so whoever sends it must have a name."""
    listener = Guarded(quota_bytes=1000)
    refused, full = call(), call(Guarded.TOKEN)
    listener.turn(lambda: listener.actor.may_grow(refused, 2000))
    assert failure(refused) == EMPTY
    assert listener.proposed() == []
    listener.turn(lambda: listener.actor.may_grow(full, 2000))
    assert failure(full) == (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    assert len(listener.proposed()) == 1
    listener.loop.close()


def test_listeners_share_the_use_of_tokens(listener: Guarded) -> None:
    """Once a second each tells what was used; without use there is nothing to tell."""
    listener.apply.take()
    listener.pass_time(TOKENS_TICK_S)
    assert listener.apply.of(TokensUsed) == []
    listener.propose(call(Guarded.TOKEN))
    used_s = listener.home.clock.now_s
    listener.pass_time(TOKENS_TICK_S)
    assert listener.apply.of(TokensUsed) == [TokensUsed({Guarded.TOKEN: used_s})]
    listener.pass_time(250.0)
    listener.tell(TokensUsed({Guarded.TOKEN: listener.home.clock.now_s}))
    listener.pass_time(250.0)
    listener.propose(call(Guarded.TOKEN))
    assert listener.headers() == [("joe", 5)] * 2
    listener.pass_time(301.0)
    refused = call(Guarded.TOKEN)
    listener.propose(refused)
    assert failure(refused) == INVALID_TOKEN


def test_a_certificate_names_its_user_where_that_is_asked_for(listener: Guarded) -> None:
    """Only with client-cert-auth, only without a token, and not through a gateway."""
    heard: list[object] = []

    def identify(asking: FakeCall) -> object:
        listener.turn(lambda: listener.actor.identify(asking, heard.append, heard.append))
        return heard.pop()

    with_certificate, gateway, with_token = call(), call(), call(Guarded.TOKEN)
    for each in (with_certificate, gateway, with_token):
        each.common_name = "root"
    gateway.metadata = {"grpcgateway-accept": ["*/*"]}
    assert identify(with_certificate) == NOBODY
    listener.actor._client_cert_auth = True
    assert identify(with_certificate) == Identity("root", 5)
    assert identify(gateway) == NOBODY
    assert identify(with_token) == Identity("joe", 5)


def test_passwords_queue_up_to_a_bound(listener: Guarded) -> None:
    """Hashing is slow on purpose; whoever sends more than a minute's work is turned away."""
    heard: list[object] = []
    listener.turn(*[lambda: listener.actor.hash_password(call(), lambda: "hash", heard.append)] * HASHES_WAITING_MAX)
    refused = call()
    listener.turn(lambda: listener.actor.hash_password(refused, lambda: "hash", heard.append))
    assert failure(refused) == (Code.UNKNOWN, "etcdserver: too many requests")
    [*_, work] = listener.actor._hashers[0].of(Work)  # type: ignore[attr-defined]  # a Told
    listener.tell(Answered(work.token, work.job()))
    assert heard == ["hash"]
    taken = call()
    listener.turn(lambda: listener.actor.hash_password(taken, lambda: "hash", heard.append))
    assert not taken.done


# -- the others ------------------------------------------------------------------------------------------------------


def test_rules_and_tokens_are_told_before_anything_else() -> None:
    """Whoever gets its answer may use its token at once, and what was taken away is gone before anybody reads."""
    machine = Machine()
    machine.tell(ObserveAuth(machine.listener), ObserveOutcomes(OWNER, machine.listener))
    assert [type(message) for message in machine.journal] == [AuthIs]
    assert machine.of(AuthIs)[0].rules.enabled is False
    machine.journal.clear()
    log = machine.log
    root, _ = log.request(auth_user_add=AuthUserAddRequest(name="root"))
    grant, _ = log.request(auth_user_grant_role=AuthUserGrantRoleRequest(user="root", role="root"))
    enable, _ = log.request(auth_enable=AuthEnableRequest())
    machine.apply(root, grant, enable)
    [told] = machine.of(AuthIs)
    assert (told.rules.enabled, told.rules.revision, list(told.tokens)) == (True, 3, [])
    assert machine.journal.index(told) == 0
    machine.journal.clear()
    login, _ = log.request(authenticate=InternalAuthenticateRequest(name="root", simple_token="word"))
    machine.apply(login)
    [again] = machine.of(AuthIs)
    assert list(again.tokens) == [TokenAssigned("word.4", "root")]
    machine.journal.clear()
    machine.apply(log.put(b"k"))
    assert machine.of(AuthIs) == []
    machine.tell(TokensUsed({"word.4": 1.0}))
    assert machine.of(TokensUsed) == [TokensUsed({"word.4": 1.0})]
    assert machine.of(Published) == []
    assert machine.of(Completed) != []


def test_expired_leases_are_revoked_with_roots_rights() -> None:
    """What hangs on them may belong to anybody."""
    leases = Leases()
    leases.home.tell(leases.actor, AuthIs(rules(8), ()), TokensUsed({}))
    leases.lead((A, 2))
    leases.pass_time(10.0)
    [proposal] = leases.raft.of(Propose)
    [(_, data)] = proposal.proposals
    entry = InternalRaftRequest.FromString(data)
    assert (entry.header.username, entry.header.auth_revision) == ("root", 8)
    assert LeaseId(entry.lease_revoke.ID) == A


def test_watchers_end_with_the_permission_to_read() -> None:
    """At once, each with its reason; what was created while auth was off goes on."""
    watching = Watching()
    watching.begin()
    watching.create(watch_id=1)
    watching.tell(AuthIs(rules(), ()))
    for watch_id, key in ((2, b"a"), (3, b"b")):
        create = WatchRequest(create_request=WatchCreateRequest(key=key, watch_id=watch_id))
        watching.tell(WatchRequested(watching.listener, ONE, create.SerializeToString(), "joe"))
    assert [answer.canceled for answer in watching.sent()] == [False] * 3
    watching.tell(AuthIs(rules(6, keys=(b"a",)), ()))
    [ended] = watching.sent()
    assert (ended.watch_id, ended.canceled) == (3, True)
    assert ended.cancel_reason == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    watching.tell(watching.write(b"b", b"a"), TokensUsed({}), Tick(0.0))
    assert [(answer.watch_id, answer.events[0].kv.key) for answer in watching.sent()] == [(1, b"a"), (2, b"a")]
    watching.tell(AuthIs(NO_RULES, ()))
    assert watching.sent() == []


def test_a_watch_that_the_listener_let_pass_too_early_is_refused() -> None:
    """The rules changed between the listener's look and the watcher's beginning."""
    watching = Watching()
    watching.begin()
    watching.tell(AuthIs(rules(keys=()), ()))
    create = WatchRequest(create_request=WatchCreateRequest(key=b"a"))
    watching.tell(WatchRequested(watching.listener, ONE, create.SerializeToString(), "joe"))
    [refused] = watching.sent()
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)


def test_a_refused_watch_with_a_faulty_start_is_told_of_the_fault() -> None:
    """In etcd's order: a negative start is looked at before the permission."""
    watching = Watching()
    watching.begin()
    create = WatchRequest(create_request=WatchCreateRequest(key=b"a", start_revision=-1))
    watching.tell(WatchRequested(watching.listener, ONE, create.SerializeToString(), "joe", "denied"))
    [refused] = watching.sent()
    assert refused.cancel_reason == "etcdserver: mvcc: required revision has been compacted"
