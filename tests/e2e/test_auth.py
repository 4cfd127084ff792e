"""Auth from outside: who may do what (auth_table.py, also on etcd 3.5.1), and what becomes of tokens and passwords."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest

from proto import auth_pb2
from proto import rpc_pb2 as pb
from tests.e2e.auth_client import CHEAP, PASSWORD, AuthClient, as_code_and_text
from tests.e2e.auth_table import CREATED, DENIED, EMPTY, OK, TABLE
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.conftest import MakeServer
from tests.e2e.harness import Server, actcd, real_etcd, run_etcdctl, running, wait_for

pytestmark = pytest.mark.e2e

INVALID_TOKEN: Final = "UNAUTHENTICATED: etcdserver: invalid auth token"
OLD_REVISION: Final = "INVALID_ARGUMENT: etcdserver: revision of auth store is old"
WRONG_PASSWORD: Final = "INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password"
READ_OWN: Final = ("kv", "Range", pb.RangeRequest(key=b"k/1"))
UNSERVED: Final = {
    "auth": {"AuthDisable"},  # has a test of its own: the table would stop there
}
"""What the table leaves out: methods that actcd does not serve yet, which a test below tells when it does."""


BEARER_IN_3_5_1: Final = ([("authorization", "Bearer {token}")], [("token", "Bearer {token}")])
"""Forms that 3.5.1 does not understand, and later releases do."""


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthClient]:
    """An actcd with auth on."""
    with running(Server(actcd(), tmp_path_factory.mktemp("auth"), CHEAP)) as server, connect(server.endpoint) as stubs:
        client = AuthClient(server, stubs)
        client.set_up()
        yield client


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthClient]:
    """An etcd 3.5.1 with auth on."""
    directory = tmp_path_factory.mktemp("auth-etcd")
    with running(Server(real_etcd(), directory, CHEAP)) as server, connect(server.endpoint) as stubs:
        client = AuthClient(server, stubs)
        client.set_up()
        yield client


@pytest.fixture
def with_auth(make_server: MakeServer) -> Iterator[Callable[..., AuthClient]]:
    """A factory of actcds with auth on, for tests that restart or reconfigure theirs."""
    with ExitStack() as stack:

        def make(**settings: object) -> AuthClient:
            server = make_server(settings={**CHEAP, **settings})
            client = AuthClient(server, stack.enter_context(connect(server.endpoint)))
            client.set_up()
            return client

        yield make


# -- who may do what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", TABLE)
def test_who_may_do_what(subject: AuthClient, reference: AuthClient, group: str) -> None:
    """Each call ends as the table says here, and on etcd 3.5.1 too unless a later advisory changed the rule."""
    wrong = []
    for row in TABLE[group]:
        expected = (row.nobody, row.user, row.root)
        for client, want in ((subject, expected), (reference, row.old or expected)):
            got = tuple(client.end_of(row, who) for who in ("nobody", "user", "root"))
            if got != want:
                wrong.append(f"{client.server.program.name}: {row.method}, {row.name}: {got}, not {want}")
    assert not wrong, "\n".join(wrong)


def test_no_method_is_left_out(subject: AuthClient) -> None:
    """Whoever adds a method must say who may call it."""
    rows = {(row.service, row.method) for group in TABLE.values() for row in group}
    for service in pb.DESCRIPTOR.services_by_name.values():
        attribute = service.name.lower()
        for method in service.methods:
            if method.name not in UNSERVED.get(attribute, set()):
                assert (attribute, method.name) in rows, method.full_name
    for attribute, methods in UNSERVED.items():
        for name in methods - {"AuthDisable"}:
            service = pb.DESCRIPTOR.services_by_name["KV" if attribute == "kv" else attribute.capitalize()]
            message = getattr(pb, service.methods_by_name[name].input_type.name)()
            call = getattr(getattr(subject.stubs, attribute), name)
            assert _code(call, message) == "UNIMPLEMENTED", f"{name} is served: it needs a row"


def _code(call: Callable[..., Any], message: Any) -> str:
    """Return the code that a call of a method ends with, whether its answer is one or a stream."""
    try:
        answer = call(message, timeout=CALL_TIMEOUT_S)
        if isinstance(answer, Iterator):
            list(answer)
    except grpc.RpcError as error:
        return str(error.code().name)
    return OK


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "end"),
    [
        ([("token", "nonsense")], INVALID_TOKEN),
        ([("token", "")], INVALID_TOKEN),
        ([("token", "AAAAAAAAAAAAAAAA.5")], INVALID_TOKEN),
        ([("token", "AAAAAAAAAAAAAAAA.x.5")], INVALID_TOKEN),
        ([("authorization", "Bearer nonsense")], INVALID_TOKEN),
        ([("authorization", "{token}")], OK),
        ([("authorization", "Bearer {token}")], OK),
        ([("token", "Bearer {token}")], OK),
        ([("token", "{token}"), ("authorization", "nonsense")], OK),
        ([("token", "nonsense"), ("authorization", "{token}")], INVALID_TOKEN),
        ([("token", "{token}"), ("token", "nonsense")], OK),
        ([("other", "{token}")], EMPTY),
    ],
)
def test_where_a_token_is_looked_for(
    subject: AuthClient, reference: AuthClient, metadata: list[tuple[str, str]], end: str
) -> None:
    """Clients and gateways send tokens in two ways; both servers take the same ones, and the first of several."""
    for client in (subject, reference):
        client.sent = [(key, value.format(token=client.tokens["user"])) for key, value in metadata]
        try:
            want = INVALID_TOKEN if client is reference and metadata in BEARER_IN_3_5_1 else end
            assert client.end("user", *READ_OWN) == want, client.server.program.name
        finally:
            client.sent = None


def test_users_survive_a_restart_and_simple_tokens_do_not(with_auth: Callable[..., AuthClient]) -> None:
    """Users, roles and the switch are data; tokens were never written down, and clients know by the text what to do."""
    client = with_auth()
    assert client.end("user", *READ_OWN) == OK
    client.server.kill()
    client.server.start()
    wait_for(lambda: not client.end("nobody", *READ_OWN).startswith("UNAVAILABLE"), 10.0, "a connection")
    assert client.end("nobody", *READ_OWN) == EMPTY
    assert client.end("user", *READ_OWN) == INVALID_TOKEN
    client.log_in("user")
    assert client.end("user", *READ_OWN) == OK
    assert client.end("user", "kv", "Range", pb.RangeRequest(key=b"other")) == DENIED
    client.log_in("root")
    status = client.call("root", "auth", "AuthStatus", pb.AuthStatusRequest())
    assert (status.enabled, status.authRevision) == (True, 12)


def test_tokens_end_by_time_unless_used(with_auth: Callable[..., AuthClient]) -> None:
    """A token nobody uses for its time to live is gone."""
    client = with_auth(**{"auth-token-ttl": 1})
    assert client.end("user", *READ_OWN) == OK
    wait_for(lambda: client.end("root", *READ_OWN) == INVALID_TOKEN or _pause(1.1), 10.0, "the end of the token")


def _pause(seconds: float) -> bool:
    """Let time pass without a call, which would prolong what is to end."""
    subprocess.run(["sleep", str(seconds)], check=True)
    return False


def test_a_changed_password_ends_what_it_let_in(with_auth: Callable[..., AuthClient]) -> None:
    """After the change neither the old password nor tokens got with it are worth anything; others' tokens stay."""
    client = with_auth()
    request = pb.AuthUserChangePasswordRequest(name="user", password="other")
    client.call("root", "auth", "UserChangePassword", request)
    assert client.end("user", *READ_OWN) == INVALID_TOKEN
    assert client.end("root", *READ_OWN) == OK
    old = pb.AuthenticateRequest(name="user", password=PASSWORD)
    assert client.end("nobody", "auth", "Authenticate", old) == WRONG_PASSWORD
    client.log_in("user", "other")
    assert client.end("user", *READ_OWN) == OK


def test_disabling_ends_all_tokens(with_auth: Callable[..., AuthClient]) -> None:
    """Only root may; then everybody may do everything, and a token from before is nothing when auth is on again."""
    client = with_auth()
    disable = ("auth", "AuthDisable", pb.AuthDisableRequest())
    assert client.end("nobody", *disable) == EMPTY
    assert client.end("user", *disable) == DENIED
    assert client.end("root", *disable) == OK
    assert client.end("nobody", "kv", "Range", pb.RangeRequest(key=b"other")) == OK
    login = pb.AuthenticateRequest(name="user", password=PASSWORD)
    not_enabled = "FAILED_PRECONDITION: etcdserver: authentication is not enabled"
    assert client.end("nobody", "auth", "Authenticate", login) == not_enabled
    assert client.end("nobody", "auth", "AuthEnable", pb.AuthEnableRequest()) == OK
    assert client.end("user", *READ_OWN) == INVALID_TOKEN


@pytest.mark.parametrize(("method", "bits"), [("HS256", 0), ("RS256", 2048), ("ES256", 256), ("EdDSA", 1)])
def test_signed_tokens(with_auth: Callable[..., AuthClient], tmp_path: Path, method: str, bits: int) -> None:
    """They outlive a restart; a change of users or roles makes them old, which is what clients log in again for."""
    key = tmp_path / "key.pem"
    if bits:
        make = {"RS256": ["RSA", f"rsa_keygen_bits:{bits}"], "ES256": ["EC", "ec_paramgen_curve:P-256"]}
        algorithm, *option = make.get(method, ["ED25519"])
        options = [word for each in option for word in ("-pkeyopt", each)]
        subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, *options, "-out", str(key)], check=True)
    else:
        key.write_bytes(b"0123456789abcdef" * 4)
    client = with_auth(**{"auth-token": f"jwt,priv-key={key},sign-method={method},ttl=10m"})
    assert client.tokens["user"].count(".") == 2
    assert client.end("user", *READ_OWN) == OK
    assert client.end("user", "kv", "Put", pb.PutRequest(key=b"k/1")) == OK
    client.server.kill()
    client.server.start()
    wait_for(lambda: not client.end("user", *READ_OWN).startswith("UNAVAILABLE"), 10.0, "a connection")
    assert client.end("user", *READ_OWN) == OK
    client.call("root", "auth", "RoleAdd", pb.AuthRoleAddRequest(name="more"))
    assert client.end("user", *READ_OWN) == OLD_REVISION
    assert client.end("user", "kv", "Put", pb.PutRequest(key=b"k/1")) == OLD_REVISION
    client.log_in("user")
    assert client.end("user", *READ_OWN) == OK


def test_passwords_are_nowhere(with_auth: Callable[..., AuthClient]) -> None:
    """Neither a new password nor one used to log in may stand in the log, the store, a page or what is printed.

    A debug page once showed them (CVE-2021-28235).
    """
    client = with_auth(**{"enable-pprof": True, "log-level": "debug"})
    words = [b"Unmistakable-one", b"Unmistakable-two"]
    client.call("root", "auth", "UserAdd", pb.AuthUserAddRequest(name="new", password=words[0].decode()))
    client.log_in("new", words[0].decode())
    change = pb.AuthUserChangePasswordRequest(name="new", password=words[1].decode())
    client.call("root", "auth", "UserChangePassword", change)
    wrong = pb.AuthenticateRequest(name="new", password=words[0].decode())
    assert client.end("nobody", "auth", "Authenticate", wrong) == WRONG_PASSWORD
    pages = ("metrics", "debug/vars", "debug/requests", "debug/events", "debug/pprof/goroutine", "debug/pprof/heap")
    for page in pages:
        with suppress(HTTPError), urlopen(f"http://{client.server.endpoint}/{page}?debug=2", timeout=10) as shown:
            text = shown.read()
            assert text
            assert not any(word in text for word in words), page
    client.server.stop()
    content = b"".join(path.read_bytes() for path in client.server.directory.rglob("*") if path.is_file())
    assert b"$2a$04$" in content or b"JDJhJDA0J" in content  # hashes are there, so the search looks where it should
    assert not any(word in content for word in words)


def test_an_empty_password_is_none(with_auth: Callable[..., AuthClient]) -> None:
    """Whoever means a user without password has to say so (CVE-2020-15115); longer than bcrypt looks is refused too."""
    client = with_auth(**{"auth-password-characters-min": 6})
    for password, end in (
        ("", "INVALID_ARGUMENT: etcdserver: password is too short"),
        ("short", "INVALID_ARGUMENT: etcdserver: password is too short"),
        ("enough", OK),
        ("x" * 73, "UNKNOWN: bcrypt: password length exceeds 72 bytes"),
    ):
        add = pb.AuthUserAddRequest(name=f"u{len(password)}", password=password)
        assert client.end("root", "auth", "UserAdd", add) == end, password


# -- what auth holds together with ------------------------------------------------------------------------------------


def test_a_lease_ends_whatever_it_holds(with_auth: Callable[..., AuthClient]) -> None:
    """The server revokes with root's rights: keys on an expired lease go although nobody asked with a token."""
    client = with_auth()
    client.call("root", "lease", "LeaseGrant", pb.LeaseGrantRequest(ID=99, TTL=1))
    client.call("root", "kv", "Put", pb.PutRequest(key=b"held", lease=99))

    def gone() -> bool:
        return not client.call("root", "kv", "Range", pb.RangeRequest(key=b"held")).kvs

    wait_for(gone, 15.0, "the end of the lease")


def test_a_watch_ends_with_its_permission(with_auth: Callable[..., AuthClient]) -> None:
    """What may be read no more is watched no more, while the stream and its other watchers go on."""
    client = with_auth()
    extra = auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=b"extra")
    client.call("root", "auth", "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="role", perm=extra))
    creates = [pb.WatchCreateRequest(key=key, watch_id=number) for number, key in enumerate((b"k/1", b"extra"), 1)]
    answers = client.stubs.watch.Watch(
        iter([pb.WatchRequest(create_request=create) for create in creates]),
        metadata=client.metadata("user"),
        timeout=CALL_TIMEOUT_S,
    )
    assert [next(answers).created, next(answers).created] == [True, True]
    client.call("root", "auth", "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="role", key=b"extra"))
    end = next(answers)
    assert (end.watch_id, end.canceled, as_code_and_text(end.cancel_reason)) == (2, True, DENIED)
    client.call("root", "kv", "Put", pb.PutRequest(key=b"extra", value=b"hidden"))
    client.call("root", "kv", "Put", pb.PutRequest(key=b"k/1", value=b"seen"))
    event = next(answers)
    assert (event.watch_id, event.events[0].kv.value) == (1, b"seen")
    answers.cancel()
    assert client.end("user", "watch", "Watch", pb.WatchCreateRequest(key=b"k/1")) == CREATED


def test_nobody_fills_the_log(with_auth: Callable[..., AuthClient]) -> None:
    """What comes without a name is refused before it is proposed: it may not cost disk."""
    client = with_auth()

    def index() -> int:
        return int(client.call("root", "maintenance", "Status", pb.StatusRequest()).raftIndex)

    before = index()
    for _ in range(20):
        assert client.end("nobody", "kv", "Put", pb.PutRequest(key=b"k/1")) == EMPTY
        assert client.end("nobody", "auth", "UserList", pb.AuthUserListRequest()) == EMPTY
    assert index() == before


def test_etcdctl_manages_users_as_with_etcd(make_server: MakeServer) -> None:
    """Beyond the scripts of test_etcdctl.py: what needs a prompt, json and root by password on every line."""
    as_root = "--user=root:secret"
    lines = (
        "user add root:secret", "user add joe:pw", "role add all", "role grant-permission all readwrite \0 \0",
        "role get all", "user grant-role joe all", "auth enable", "user grant-role root root", "auth enable",
        f"user passwd joe {as_root}", "put a 1 --user=joe:pw", "put a 1 --user=joe:new", "get a --user=joe:new",
        "watch-is-no-word --user=joe:new", f"user get joe {as_root}", f"user get joe -w json {as_root}",
        f"role list -w json {as_root}", f"role revoke-permission all \0 \0 {as_root}", "get a --user=joe:new",
        f"user delete joe {as_root}", "get a --user=joe:new", f"auth disable {as_root}", "get a",
    )  # fmt: skip
    servers = make_server(settings=CHEAP), make_server(real_etcd(), settings=CHEAP)
    for line in lines:
        words = line.replace("\0", "''").split()
        words = ["" if word == "''" else word for word in words]
        stdin = "new\n" if "passwd" in line else ""
        extra = ["--interactive=false"] if "passwd" in line else ["--prefix=true"] if "-permission" in line else []
        ends = [run_etcdctl(server, *words, *extra, stdin=stdin) for server in servers]
        subject, reference = ((end.returncode, _blanked(end.stdout), _blanked(end.stderr)) for end in ends)
        assert subject == reference, line


def _blanked(text: str) -> str:
    """Cut what differs by server: ids, terms, addresses and times."""
    text = re.sub(r'"(cluster_id|member_id|raft_term|revision)":\d+', r'"\1":0', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    return re.sub(r'"ts":"[^"]*"|0x[0-9a-f]+', "", text)
