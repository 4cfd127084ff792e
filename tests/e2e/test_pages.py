"""The pages of a client listener beside those of the real etcd 3.5.1, and those that later versions have."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from proto import rpc_pb2
from tests.e2e.client import connect
from tests.e2e.harness import Server, actcd, real_etcd, running

pytestmark = pytest.mark.e2e

PAGES: Final = (
    ("GET", "/health"),
    ("GET", "/health?serializable=true"),
    ("GET", "/health?exclude=NOSPACE&exclude=CORRUPT"),
    ("GET", "/health?exclude=unknown&serializable=x"),
    ("HEAD", "/health"),
    ("POST", "/health"),
    ("HEAD", "/version"),
    ("PUT", "/version"),
    ("GET", "/nothing"),
    ("POST", "/nothing"),
    ("GET", "/"),
    ("GET", "/health/"),
    ("GET", "/members"),
    ("GET", "/raft"),
    ("GET", "/v2/keys"),
    ("GET", "/config/local/log"),
    ("GET", "/debug/pprof/"),
    ("GET", "/debug/requests"),
    ("POST", "/debug/vars"),
    ("OPTIONS", "/health"),
    ("OPTIONS", "/v3/kv/range"),
    ("POST", "/v3"),
)
SAME_HEADERS: Final = (
    "content-type",
    "allow",
    "location",
    "x-content-type-options",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
)


class Answer(NamedTuple):
    """What must be the same everywhere."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(server: Server, method: str, path: str, **headers: str) -> Answer:
    """Ask for a page."""
    connection = http.client.HTTPConnection("127.0.0.1", server.client_port, timeout=10.0)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        same = {name: value for name, value in found.items() if name in SAME_HEADERS}
        return Answer(response.status, same, response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The reference."""
    with running(Server(real_etcd(), tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server under test."""
    with running(Server(actcd(), tmp_path_factory.mktemp("actcd"))) as server:
        yield server


@pytest.mark.parametrize(("method", "path"), PAGES)
def test_same_pages_as_etcd(etcd: Server, subject: Server, method: str, path: str) -> None:
    """Status, text and headers, for methods and paths that are right and that are not."""
    assert ask(subject, method, path) == ask(etcd, method, path)


def test_hosts_and_origins_as_etcd_judges_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same requests pass, and the same fail, where lists are set."""
    settings = {"host-whitelist": "good,127.0.0.1", "cors": "http://a:80,http://b:81"}
    names = [{"Host": host} for host in ("good", "good:1", "evil", "evil:1", "127.0.0.1:1", "localhost")]
    origins = [{"Host": "good", "Origin": origin} for origin in ("http://a:80", "http://b:81", "http://a", "")]
    answers = []
    for program in (real_etcd(), actcd()):
        # /health must answer the harness, which names 127.0.0.1.
        with running(Server(program, tmp_path_factory.mktemp("access"), settings)) as server:
            each = [ask(server, "OPTIONS", "/health", **headers) for headers in (*names, *origins)]
            answers.append([(answer.status, answer.headers) for answer in each])
    assert answers[1] == answers[0]


def test_the_variables_of_the_process_are_json(etcd: Server, subject: Server) -> None:
    """Under etcd's names, with how consensus stands."""
    theirs, ours = (json.loads(ask(server, "GET", "/debug/vars").body) for server in (etcd, subject))
    assert theirs.keys() == ours.keys()
    assert theirs["raft.status"].keys() - {"leadtransferee"} == ours["raft.status"].keys()
    assert ours["raft.status"]["raftState"] == "StateLeader"


def test_checks_one_by_one(subject: Server) -> None:
    """As Kubernetes asks: all, one, all but one, with a line for each."""
    assert ask(subject, "GET", "/livez").body == b"ok\n"
    assert ask(subject, "GET", "/livez?verbose").body == b"[+]serializable_read ok\nok\n"
    verbose = ask(subject, "GET", "/readyz?verbose&exclude=linearizable_read").body.decode().splitlines()
    assert verbose == [
        "[+]data_corruption ok",
        "[+]serializable_read ok",
        "[+]linearizable_read excluded: ok",
        "[+]non_learner ok",
        "ok",
    ]
    assert ask(subject, "GET", "/readyz/linearizable_read").status == 200
    assert ask(subject, "GET", "/livez/linearizable_read").status == 404
    assert ask(subject, "POST", "/readyz").status == 405


def test_profiles_where_they_are_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stacks of every thread, and where a second of CPU time went; not to be had by everybody otherwise."""
    with running(Server(actcd(), tmp_path_factory.mktemp("profiles"), {"enable-pprof": True})) as server:
        assert b"profile" in ask(server, "GET", "/debug/pprof/").body
        assert b"thread MainThread" in ask(server, "GET", "/debug/pprof/goroutine").body
        assert b"Core;" in ask(server, "GET", "/debug/pprof/profile?seconds=1").body
        assert b"PYTHONTRACEMALLOC" in ask(server, "GET", "/debug/pprof/heap").body
        assert b"daemon" in ask(server, "GET", "/debug/pprof/cmdline").body
        assert ask(server, "GET", "/debug/pprof/nothing").status == 404


def test_pages_of_traces_are_there_at_debug(tmp_path: Path) -> None:
    """As at etcd: at log level debug alone.  Who is connected and what was logged is on them."""
    with running(Server(actcd(), tmp_path, {"log-level": "debug"})) as server, connect(server.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"secret-key", value=b"secret-value"), timeout=10.0)
        client.kv.Range(rpc_pb2.RangeRequest(key=b"secret-key"), timeout=10.0)
        requests, events = (ask(server, "GET", f"/debug/{name}") for name in ("requests", "events"))
        assert (requests.status, events.status) == (200, 200)
        assert b"<td>etcdserverpb.KV/Put</td><td>[0 active]</td><td>[1 ok]</td>" in requests.body
        assert b"<td>Range</td><td>ok</td>" in requests.body
        assert b"actors/raft.py" in events.body
        assert b"became leader" in ask(server, "GET", "/debug/events?fam=actors%2Fraft.py").body.replace(b"-", b" ")
        assert b"secret" not in requests.body + events.body
        assert ask(server, "POST", "/debug/requests").status == 405
