"""The Auth service: what is proposed, what never is, and how a login comes to its token."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

from core.auth.rules import NOBODY, Identity, Rules, User
from core.errors import InvalidAuthToken, VerifyOnly
from core.mvcc.varint import field
from net.rpc import Code, Status
from proto import rpc_pb2 as pb
from proto.raft_internal_pb2 import InternalRaftRequest
from services.auth import PROPOSED, AuthService
from services.tokens import LoglessScheme, NoScheme
from tests.fake_node import FakeNode
from tests.fakes import FakeCall

if TYPE_CHECKING:
    from google.protobuf.message import Message

PREFIX = "/etcdserverpb.Auth/"
RIGHT = "right"
HASH = bcrypt.hashpw(RIGHT.encode(), bcrypt.gensalt(4, prefix=b"2a"))
ROOT = Identity("root", 5)
FAILED = "etcdserver: authentication failed, invalid user ID or password"


def rules(revision: int = 5, *, enabled: bool = True, password: bytes = HASH) -> Rules:
    """Return rules with root, a user and one who has no password."""
    users = [User("root", HASH, ("root",)), User("joe", password), User("ghost", b"", no_password=True)]
    return Rules(enabled, revision, {user.name: user for user in users}, {})


class Signing(LoglessScheme):
    """A scheme whose tokens say what they are for."""

    def sign(self, user: str, revision: int) -> str:
        """See TokenScheme."""
        if user == "root":
            raise VerifyOnly
        return f"signed for {user} at {revision}"

    def identify(self, token: str, rules: Rules, now_s: float) -> Identity | None:
        """See TokenScheme."""
        raise NotImplementedError

    def tick(self, now_s: float) -> None:
        """See TokenScheme."""


class Service:
    """An AuthService and the node below it."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.node.auth, self.node.identity = rules(), ROOT
        self.methods = AuthService(self.node).methods()

    def call(self, method: str, request: Message) -> FakeCall:
        """Make a call."""
        call = FakeCall()
        self.methods[PREFIX + method](call, request.SerializeToString())
        return call

    def log_in(self, name: str, password: str) -> FakeCall:
        """Ask for a token, up to where a password would be hashed."""
        call = self.call("Authenticate", pb.AuthenticateRequest(name=name, password=password))
        self.node.run_reads()
        return call

    def proposal(self) -> Any:
        """Return the newest proposal, decoded."""
        newest = self.node.proposed[-1]
        return InternalRaftRequest.FromString(field(newest.tag, newest.body))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.mark.parametrize("method", PROPOSED)
def test_administration_is_proposed_as_it_came(service: Service, method: str) -> None:
    """Each under the field of its own request, in the caller's name; the log decides."""
    kind, number = PROPOSED[method]
    assert not service.call(method, kind()).done
    [proposed] = service.node.proposed
    entry = InternalRaftRequest.FromString(field(proposed.tag, proposed.body))
    assert [(each.number, each.message_type) for each, _ in entry.ListFields()] == [(number, kind.DESCRIPTOR)]
    assert proposed.as_caller


@pytest.mark.parametrize("method", ["UserAdd", "UserChangePassword"])
def test_a_password_is_hashed_before_it_is_proposed(service: Service, method: str) -> None:
    """The log is on every disk and in every backup: no password may get there."""
    kind: Any = pb.AuthUserAddRequest if method == "UserAdd" else pb.AuthUserChangePasswordRequest
    service.call(method, kind(name="new", password="clear", hashedPassword="c3R1ZmY="))
    assert not service.node.proposed
    service.node.run_hashes()
    assert b"clear" not in service.node.proposed[-1].body
    entry = service.proposal()
    request = entry.auth_user_add if method == "UserAdd" else entry.auth_user_change_password
    hashed = base64.b64decode(request.hashedPassword)
    assert hashed.startswith(b"$2a$04$")  # Go's kind, at the cost that was asked for
    assert bcrypt.checkpw(b"clear", hashed)


def test_a_hash_that_was_brought_is_kept(service: Service) -> None:
    """Whoever moves users from another cluster has their hashes only."""
    service.call("UserAdd", pb.AuthUserAddRequest(name="new", hashedPassword="aGFzaA=="))
    assert service.proposal().auth_user_add == pb.AuthUserAddRequest(name="new", hashedPassword="aGFzaA==")


def test_a_user_without_password_costs_no_hash(service: Service) -> None:
    """And a password that is given all the same goes nowhere."""
    service.call("UserAdd", pb.AuthUserAddRequest(name="new", password="p", options={"no_password": True}))
    assert service.proposal().auth_user_add == pb.AuthUserAddRequest(name="new", options={"no_password": True})
    assert not service.node.hashes


@pytest.mark.parametrize(
    ("password", "text"),
    [("", "etcdserver: password is too short"), ("ä" * 37, "bcrypt: password length exceeds 72 bytes")],
)
def test_passwords_that_are_not_taken(service: Service, password: str, text: str) -> None:
    """None at all, and more than bcrypt looks at."""
    call = service.call("UserAdd", pb.AuthUserAddRequest(name="new", password=password))
    assert call.status is not None
    assert call.status.message == text
    assert not service.node.proposed
    assert not service.node.hashes


@pytest.mark.parametrize("identity", [NOBODY, Identity("joe", 5), InvalidAuthToken()])
def test_only_root_makes_us_hash(service: Service, identity: Identity | InvalidAuthToken) -> None:
    """A hash costs a hundred puts: whoever may not add users may not have passwords hashed either."""
    service.node.identity = identity
    assert service.call("UserAdd", pb.AuthUserAddRequest(name="new", password="p")).done
    assert service.call("UserChangePassword", pb.AuthUserChangePasswordRequest(name="joe", password="p")).done
    assert not service.node.hashes


def test_a_right_password_is_proposed_as_a_login(service: Service) -> None:
    """With a random word, without the password, and in nobody's name: whoever logs in has none yet."""
    call = service.log_in("joe", RIGHT)
    service.node.run_hashes()
    login = service.proposal().authenticate
    assert (login.name, login.password, len(login.simple_token)) == ("joe", "", 16)
    assert not service.node.proposed[-1].as_caller
    service.node.proposed[-1].call.reply(b"answer of the log")
    assert call.answer == b"answer of the log"


def test_words_are_drawn_anew(service: Service) -> None:
    """Two logins of one user have two tokens."""
    words = set()
    for _ in range(2):
        service.log_in("joe", RIGHT)
        service.node.run_hashes()
        words.add(service.proposal().authenticate.simple_token)
    assert len(words) == 2


@pytest.mark.parametrize(
    ("name", "password", "status"),
    [
        ("joe", "wrong", Status(Code.INVALID_ARGUMENT, FAILED)),
        ("joe", "", Status(Code.INVALID_ARGUMENT, FAILED)),
        ("none", RIGHT, Status(Code.INVALID_ARGUMENT, FAILED)),
        ("ghost", "", Status(Code.UNKNOWN, "auth: authentication failed, password was given for no password user")),
    ],
)
def test_a_wrong_login_is_never_proposed(service: Service, name: str, password: str, status: Status) -> None:
    """Guessing costs the guesser, not the log."""
    call = service.log_in(name, password)
    service.node.run_hashes()
    assert call.status == status
    assert not service.node.proposed


def test_logging_in_while_auth_is_off(service: Service) -> None:
    """Clients that always send a password take this answer for leave to go on without."""
    service.node.auth = rules(enabled=False)
    call = service.log_in("joe", RIGHT)
    assert call.status == Status(Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")


def test_a_password_found_right_is_not_hashed_again(service: Service) -> None:
    """Clients that log in all the time would otherwise pay a hash each time; a changed password has another hash."""
    service.log_in("joe", RIGHT)
    service.node.run_hashes()
    service.log_in("joe", RIGHT)
    assert not service.node.hashes
    assert len(service.node.proposed) == 2
    service.log_in("joe", "wrong")
    assert len(service.node.hashes) == 1
    service.node.auth = rules(password=bcrypt.hashpw(b"other", bcrypt.gensalt(4)))
    service.log_in("joe", RIGHT)
    assert len(service.node.hashes) == 2


def test_what_changed_while_a_login_was_on_its_way_is_looked_at_again(service: Service) -> None:
    """The password was changed before the login was applied: the old one must not get a token."""
    call = service.log_in("joe", RIGHT)
    service.node.run_hashes()
    service.node.auth = rules(6, password=bcrypt.hashpw(b"other", bcrypt.gensalt(4)))
    service.node.proposed[-1].call.reply(b"a token for the old password")
    assert not call.done
    service.node.run_hashes()
    assert call.status == Status(Code.INVALID_ARGUMENT, FAILED)


def test_a_login_goes_on_after_a_change_that_does_not_concern_it(service: Service) -> None:
    """Then it is proposed once more."""
    call = service.log_in("joe", RIGHT)
    service.node.run_hashes()
    service.node.auth = rules(6)
    service.node.proposed[-1].call.reply(b"first")
    assert len(service.node.proposed) == 2
    service.node.proposed[-1].call.reply(b"second")
    assert call.answer == b"second"


def test_a_signed_token_is_made_after_the_log_agreed(service: Service) -> None:
    """At the revision at which the password was checked, so that a change in between makes it old."""
    service.node.tokens = Signing()
    call = service.log_in("joe", RIGHT)
    service.node.run_hashes()
    assert service.proposal().authenticate.simple_token == ""
    service.node.proposed[-1].call.reply(service.node.header())
    service.node.run_hashes()
    assert call.answer is not None
    answer = pb.AuthenticateResponse.FromString(call.answer)
    assert (answer.token, answer.header.member_id) == ("signed for joe at 5", service.node.member_id)


def test_a_token_that_cannot_be_signed(service: Service) -> None:
    """With a public key alone a member reads tokens and makes none."""
    service.node.tokens = Signing()
    call = service.log_in("root", RIGHT)
    service.node.run_hashes()
    service.node.proposed[-1].call.reply(service.node.header())
    service.node.run_hashes()
    assert call.status == Status(Code.UNKNOWN, "auth: token signing attempted with verify-only key")
    service.node.tokens = NoScheme()
    call = service.log_in("joe", RIGHT)
    service.node.run_hashes()
    service.node.proposed[-1].call.reply(service.node.header())
    service.node.run_hashes()
    assert call.status == Status(Code.INVALID_ARGUMENT, FAILED)


def test_a_refused_login_fails_its_call(service: Service) -> None:
    """What the log or the node refuses reaches the client."""
    call = service.log_in("joe", RIGHT)
    service.node.run_hashes()
    service.node.proposed[-1].call.fail(Status(Code.UNAVAILABLE, "no leader"))
    assert call.status == Status(Code.UNAVAILABLE, "no leader")
