"""The JSON gateway beside that of the real etcd 3.5.1: the same requests, the same statuses and bodies.

Ids of the cluster and its members, terms, sizes and hashes may differ.  Where the contract of etcd 3.7 wins, a test of
its own says so.
"""

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.e2e.harness import Server, actcd, real_etcd, running, wait_for

pytestmark = pytest.mark.e2e

COMPARE_AND_DELETE: Final = """
{"compare":[{"key":"Yw==","result":"EQUAL","target":"VALUE","value":"YmF6"}],
 "success":[{"request_delete_range":{"key":"Yw=="}}],"failure":[{"request_range":{"key":"YQ=="}}]}
"""

# Base64: a=YQ== b=Yg== c=Yw== foo=Zm9v bar=YmFy
REQUESTS: Final[tuple[tuple[str, str], ...]] = (
    # Plain use
    ("kv/range", '{"key":"Zm9v"}'),
    ("kv/put", '{"key":"Zm9v","value":"YmFy"}'),
    ("kv/put", '{"key":"Zm9v","value":"YmFy","prev_kv":true}'),
    ("kv/put", '{"key":"Zm9v","value":"YmFy","prevKv":true}'),
    ("kv/put", '{"key":"YQ==","value":""}'),
    ("kv/put", '{"key":"Yg==","value":"PGI+JiA="}'),
    ("kv/range", '{"key":"Zm9v"}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg=="}'),
    ("kv/range", '{"key":"YQ==","rangeEnd":"eg==","limit":"1"}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg==","limit":1}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg==","sort_order":"DESCEND","sort_target":"KEY"}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg==","sort_order":2,"sort_target":0}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg==","keys_only":true}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg==","count_only":true}'),
    ("kv/range", '{"key":"YQ==","range_end":"eg==","countOnly":true,"serializable":true}'),
    ("kv/range", '{"key":"Zm9v","revision":"2"}'),
    ("kv/range", '{"key":"Zm9v","revision":2}'),
    ("kv/range", '{"key":"Zm9v","revision":999999}'),
    ("kv/range", '{"key":"Zm9v","revision":-1}'),
    ("kv/range", '{"key":"Zm9v","limit":-1}'),
    ("kv/deleterange", '{"key":"YQ==","prev_kv":true}'),
    ("kv/deleterange", '{"key":"YQ=="}'),
    ("kv/deleterange", "{}"),
    ("kv/txn", '{"success":[{"request_put":{"key":"Yw==","value":"YmF6"}},{"requestRange":{"key":"Yw=="}}]}'),
    ("kv/txn", COMPARE_AND_DELETE),
    ("kv/txn", '{"compare":[{"key":"Yw==","target":"CREATE","create_revision":"0"}]}'),
    ("kv/txn", '{"compare":[{"key":"Yw==","target":"VERSION","version":"1","result":"GREATER"}],"failure":[{}]}'),
    ("kv/txn", '{"success":[{"request_txn":{"success":[{"request_put":{"key":"ZA==","value":"ZA=="}}]}}]}'),
    ("kv/txn", '{"success":[{"request_put":{"key":"ZA=="}},{"request_put":{"key":"ZA=="}}]}'),
    ("kv/txn", "{}"),
    ("kv/txn", '{"success":{}}'),
    ("kv/txn", '{"success":null}'),
    ("kv/txn", '{"success":["x"]}'),
    ("kv/txn", '{"compare":[{"key":5}]}'),
    ("kv/compaction", '{"revision":"3"}'),
    ("kv/compaction", '{"revision":3}'),
    ("kv/compaction", '{"revision":"99999"}'),
    ("kv/range", '{"key":"Zm9v","revision":"2"}'),
    ("lease/grant", '{"TTL":"100","ID":"77"}'),
    ("lease/grant", '{"TTL":100,"ID":77}'),
    ("lease/grant", '{"TTL":0}'),
    ("lease/grant", '{"ttl":100}'),
    ("kv/put", '{"key":"bGVhc2U=","value":"MQ==","lease":"77"}'),
    ("kv/put", '{"key":"bGVhc2U=","value":"MQ==","lease":"78"}'),
    ("lease/timetolive", '{"ID":"77","keys":true}'),
    ("kv/lease/timetolive", '{"ID":77}'),
    ("lease/timetolive", '{"ID":"12345"}'),
    ("lease/keepalive", '{"ID":"77"}'),
    ("lease/keepalive", '{"ID":"77"}\n{"ID":78} {"ID":77}'),
    ("lease/keepalive", '{"ID":"77"} x'),
    ("lease/keepalive", "x"),
    ("lease/leases", "{}"),
    ("kv/lease/leases", ""),
    ("kv/lease/revoke", '{"ID":"77"}'),
    ("lease/revoke", '{"ID":"77"}'),
    ("cluster/member/list", "{}"),
    ("cluster/member/list", '{"linearizable":true}'),
    ("maintenance/alarm", '{"action":"GET"}'),
    ("maintenance/alarm", "{}"),
    ("maintenance/hash", "{}"),
    ("maintenance/defragment", "{}"),
    ("auth/status", "{}"),
    ("auth/enable", "{}"),
    ("auth/disable", "{}"),
    ("auth/authenticate", '{"name":"root","password":"x"}'),
    ("auth/user/list", "{}"),
    ("auth/user/get", '{"name":"nobody"}'),
    ("auth/user/add", '{"name":"u","password":"p"}'),
    ("auth/user/add", '{"name":"u","password":"p"}'),
    ("auth/role/add", '{"name":"r"}'),
    ("auth/role/grant", '{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}'),
    ("auth/role/grant", '{"name":"r","perm":{"permType":"BAD","key":"YQ=="}}'),
    ("auth/role/get", '{"role":"r"}'),
    ("auth/role/list", "{}"),
    ("auth/user/grant", '{"user":"u","role":"r"}'),
    ("auth/user/get", '{"name":"u"}'),
    ("auth/user/revoke", '{"name":"u","role":"r"}'),
    ("auth/role/revoke", '{"role":"r","key":"YQ==","range_end":"Yg=="}'),
    ("auth/user/delete", '{"name":"u"}'),
    ("auth/role/delete", '{"role":"r"}'),
    # Not what it should be
    ("kv/range", ""),
    ("kv/range", "   "),
    ("kv/range", "null"),
    ("kv/range", "true"),
    ("kv/range", "5"),
    ("kv/range", '"x"'),
    ("kv/range", "[]"),
    ("kv/range", "hello"),
    ("kv/range", "{"),
    ("kv/range", '{"key"'),
    ("kv/range", '{"key":'),
    ("kv/range", '{"key":"Zm9v"'),
    ("kv/range", '{"key":"Zm9v",}'),
    ("kv/range", '{"key" "Zm9v"}'),
    ("kv/range", '{"key":"Zm9v" "x":1}'),
    ("kv/range", "{key:1}"),
    ("kv/range", "{'key':1}"),
    ("kv/range", '{"key":tru}'),
    ("kv/range", '{"key":nul'),
    ("kv/range", '{"key":"Z\\xm9v"}'),
    ("kv/range", '{"key":"Z\\u00zz"}'),
    ("kv/range", '{"key":"Z\nm9v"}'),
    ("kv/range", '{"key":"\t"}'),
    ("kv/range", '{"limit":-}'),
    ("kv/range", '{"limit":1.}'),
    ("kv/range", '{"limit":1e}'),
    ("kv/range", '{"limit":01}'),
    ("kv/range", '{"limit":NaN}'),
    ("kv/range", '{"key":"Zm9v"} trailing'),
    ("kv/range", '{"key":"Zm9v"}{"key":"YQ=="}'),
    ("kv/range", '{"key":5}'),
    ("kv/range", '{"key":true}'),
    ("kv/range", '{"key":{}}'),
    ("kv/range", '{"key":["YQ=="]}'),
    ("kv/range", '{"key":[102,111,111]}'),
    ("kv/range", '{"key":[102,256]}'),
    ("kv/range", '{"key":[]}'),
    ("kv/range", '{"key":"Z*m9"}'),
    ("kv/range", '{"key":"Zm9vY"}'),
    ("kv/range", '{"key":"=m9v"}'),
    ("kv/range", '{"key":"Zm9v","limit":"x"}'),
    ("kv/range", '{"key":"Zm9v","limit":""}'),
    ("kv/range", '{"key":"Zm9v","limit":"1.5"}'),
    ("kv/range", '{"key":"Zm9v","limit":1.5}'),
    ("kv/range", '{"key":"Zm9v","limit":1e3}'),
    ("kv/range", '{"key":"Zm9v","limit":true}'),
    ("kv/range", '{"key":"Zm9v","limit":{}}'),
    ("kv/range", '{"key":"Zm9v","limit":99999999999999999999}'),
    ("kv/range", '{"key":"Zm9v","limit":"9223372036854775808"}'),
    ("kv/range", '{"key":"Zm9v","limit":null}'),
    ("kv/range", '{"key":null}'),
    ("kv/range", '{"key":"Zm9v","serializable":"true"}'),
    ("kv/range", '{"key":"Zm9v","serializable":1}'),
    ("kv/range", '{"key":"Zm9v","sort_order":"BAD"}'),
    ("kv/range", '{"key":"Zm9v","sort_order":"<b>"}'),
    ("kv/range", '{"key":"Zm9v","sort_order":1.5}'),
    ("kv/range", '{"key":"Zm9v","nope":{"a":[1,2]},"also":null}'),
    ("auth/user/get", '{"name":5}'),
    ("auth/user/get", '{"name":"\\ud800"}'),
    ("auth/user/get", '{"name":"<&>\\u00e9"}'),
    ("maintenance/hash", "[]"),
    ("watch", "x"),
    ("watch", '{"create_request":{"key":5}}'),
    ("watch", "[]"),
    ("kv/nope", "{}"),
    ("kv/range/", "{}"),
    ("", "{}"),
)

OWN: Final = re.compile(
    r'"(cluster_id|member_id|memberID|raft_term|hash|dbSize|dbSizeInUse|raftIndex|raftTerm|raftAppliedIndex|leader)":"?\d+"?'
)
TTL: Final = re.compile(r'"TTL":"(98|99|100)"')
MEMBER: Final = re.compile(r'"ID":"\d{15,}"')
URLS: Final = re.compile(r"http://127\.0\.0\.1:\d+")


class Answer(NamedTuple):
    """One answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    server: Server, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Ask for one thing."""
    connection = http.client.HTTPConnection("127.0.0.1", server.client_port, timeout=10.0)
    try:
        connection.request(method, path, None if body is None else body.encode(), headers or {})
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def shown(answer: Answer) -> tuple[int, str, str]:
    """Return what must be the same everywhere."""
    text = OWN.sub(r'"\1":0', answer.body.decode())
    text = MEMBER.sub('"ID":0', TTL.sub('"TTL":99', URLS.sub("URL", text)))
    return answer.status, answer.headers.get("content-type", ""), text


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


def test_same_answers_as_etcd(tmp_path: Path) -> None:
    """A caller that moves from etcd sees no difference, whatever it sends: JSON that is good, odd or broken."""
    different = []
    with running(Server(real_etcd(), tmp_path / "etcd")) as etcd, running(Server(actcd(), tmp_path / "own")) as subject:
        for path, body in REQUESTS:
            theirs, ours = (shown(ask(server, "POST", f"/v3/{path}", body)) for server in (etcd, subject))
            if theirs != ours:
                different.append(f"{path} {body!r}\n  etcd:  {theirs}\n  actcd: {ours}")
    assert not different, "\n".join(different)


def test_later_rules_win_over_etcd_3_5(subject: Server) -> None:
    """Base64 without padding or of the URL alphabet is taken, and a method that is not POST gets a JSON error."""
    for key in ("Zm8", "Zm8=", "-_8=", "-_8"):
        assert ask(subject, "POST", "/v3/kv/range", json.dumps({"key": key})).status == 200
    refused = ask(subject, "GET", "/v3/kv/range")
    assert (refused.status, json.loads(refused.body)["code"]) == (501, 12)
    for prefix in ("v3beta", "v3alpha"):
        assert ask(subject, "POST", f"/{prefix}/kv/range", '{"key":"Zm9v"}').status == 200


def test_requests_may_say_how_long_to_wait(etcd: Server, subject: Server) -> None:
    """Grpc-Timeout is a deadline: one that is over fails the call, one that is no time is refused."""
    for timeout in ("1n", "bad", "10S", "5", "1000000u"):
        headers = {"Grpc-Timeout": timeout}
        theirs, ours = (
            shown(ask(server, "POST", "/v3/kv/range", '{"key":"eA=="}', headers)) for server in (etcd, subject)
        )
        assert ours[0] == theirs[0], timeout
        if ours[0] != 200:
            assert ours == theirs


CURL: Final = (
    ("/v3/kv/put", "-X", "POST", "-d", '{"key":"Y3VybA==","value":"YmFy"}'),
    ("/v3/kv/range", "-L", "--compressed", "-d", '{"key":"Y3VybA=="}'),
    ("/v3/kv/range", "-0", "-d", '{"key":"Y3VybA=="}'),
    ("/v3//kv/range", "-d", '{"key":"Y3VybA=="}'),
    ("/v3beta//health/", "-L"),
    ("/v3/kv/range", "--http2", "-d", '{"key":"Y3VybA=="}'),
    ("/v3/kv/range", "-H", "Transfer-Encoding: chunked", "-d", '{"key":"Y3VybA=="}'),
    ("/v3/kv/range", "-F", "key=value"),
    ("/v3/kv/range", "--data-urlencode", "key=a b"),
    ("/v3/kv/deleterange", "-H", "Content-Type: application/json", "--data-binary", '{"key":"Y3VybA=="}'),
    ("/v3/lease/grant", "-d", '{"TTL":100,"ID":7077}'),
    ("/v3/lease/keepalive", "-N", "-d", '{"ID":7077}'),
    ("/v3/lease/revoke", "-d", '{"ID":7077}'),
    ("/health", "-I"),
    ("/health/",),
    ("/health", "-d", "x"),
)
"""A path and curl's options: what people type.  A body of more than a megabyte is sent after "100 Continue" only."""

COUNTED: Final = re.compile(r'"((?:create_|mod_)?revision)":"\d+"')


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_is_answered_as_by_etcd(etcd: Server, subject: Server, tmp_path: Path) -> None:
    """Statuses, headers and bodies are the same however curl is told to speak."""
    large = tmp_path / "large"
    large.write_text(json.dumps({"key": "Y3VybA==", "value": "YmFy" * 300_000}))

    def told(server: Server, path: str, *options: str) -> tuple[list[str], list[str], str]:
        words = [word.replace("LARGE", str(large)) for word in options]
        heads = tmp_path / server.program.name
        done = subprocess.run(
            ["curl", "-s", "-D", heads, "--max-time", "10", f"http://{server.endpoint}{path}", *words],
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 0, (server.program.name, path, options, done)
        lines = heads.read_text().lower().split("\n")
        statuses = [" ".join(line.split()[:2]) for line in lines if line.startswith("http/")]
        # No clock is read for a date, and lengths are those of ids.
        ours = ("http/", "date:", "content-length:")
        headers = sorted(line.strip() for line in lines if line.strip() and not line.startswith(ours))
        body = "" if "-I" in options else shown(Answer(0, {}, done.stdout))[2]
        return statuses, headers, COUNTED.sub(r'"\1":0', body)

    for server in (subject, etcd):
        assert told(server, "/v3/kv/put", "-d", "@LARGE")[0] == ["http/1.1 100", "http/1.1 200"]
    for path, *options in CURL:
        assert told(subject, path, *options) == told(etcd, path, *options), (path, options)


class Lines:
    """A streaming request by hand: one line for each chunk that has come."""

    def __init__(self, server: Server, path: str, body: str) -> None:
        self._connection = socket.create_connection(("127.0.0.1", server.client_port), timeout=10.0)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._connection.sendall((head + body).encode())
        self._file = self._connection.makefile("rb")
        assert self._file.readline().startswith(b"HTTP/1.1 200")
        while self._file.readline() not in {b"\r\n", b""}:
            pass

    def next(self) -> Any:
        """Wait for one chunk, which is one line of JSON."""
        size = int(self._file.readline(), 16)
        chunk = self._file.read(size)
        assert self._file.read(2) == b"\r\n"
        assert chunk.endswith(b"\n")
        assert chunk.count(b"\n") == 1
        return json.loads(chunk)

    def close(self) -> None:
        """Go away."""
        self._file.close()
        self._connection.close()


def test_a_watch_streams_one_message_a_chunk_and_ends_with_its_client(subject: Server) -> None:
    """Clients cut the stream by chunks; a watcher whose client has gone must not stay."""
    before = subject.metric("etcd_debugging_mvcc_watcher_total")
    watch = Lines(subject, "/v3/watch", '{"create_request":{"key":"d2F0Y2g="}} {"progress_request":{}}')
    assert watch.next()["result"]["created"] is True
    assert watch.next()["result"]["watch_id"] == "-1"
    ask(subject, "POST", "/v3/kv/put", '{"key":"d2F0Y2g=","value":"MQ=="}')
    (event,) = watch.next()["result"]["events"]
    assert event["kv"]["value"] == "MQ=="
    assert "type" not in event
    ask(subject, "POST", "/v3/kv/deleterange", '{"key":"d2F0Y2g="}')
    (event,) = watch.next()["result"]["events"]
    assert event["type"] == "DELETE"
    assert subject.metric("etcd_debugging_mvcc_watcher_total") == before + 1
    watch.close()
    wait_for(lambda: subject.metric("etcd_debugging_mvcc_watcher_total") == before, 5.0, "the watcher is gone")


def test_a_snapshot_streams(subject: Server) -> None:
    """Every line is a piece of the file; the last says that nothing remains, however many there are."""
    for name in "ab":
        put = {"key": to_base64(name.encode()), "value": "YmFy" * 300_000}
        ask(subject, "POST", "/v3/kv/put", json.dumps(put))
    answer = ask(subject, "POST", "/v3/maintenance/snapshot", "{}")
    pieces = [json.loads(line)["result"] for line in answer.body.splitlines()]
    assert len(pieces) > 50
    assert "remaining_bytes" not in pieces[-1]


def test_a_large_answer_is_whole(subject: Server) -> None:
    """It is turned into JSON away from the loop, and is as right as a small one."""
    for number in range(40):
        put = {"key": to_base64(b"large/%02d" % number), "value": "eHh4" * 2000}
        ask(subject, "POST", "/v3/kv/put", json.dumps(put))
    request = {"key": to_base64(b"large/"), "range_end": to_base64(b"large0")}
    kvs = json.loads(ask(subject, "POST", "/v3/kv/range", json.dumps(request)).body)["kvs"]
    assert len(kvs) == 40
    assert all(kv["value"] == "eHh4" * 2000 for kv in kvs)


def to_base64(raw: bytes) -> str:
    """Return *raw* as JSON carries it."""
    return b64encode(raw).decode()


LIBRARY = """
import sys, threading
import etcd3gw
client = etcd3gw.client(host="127.0.0.1", port=int(sys.argv[1]), api_path="/v3/")
assert client.status()["header"]
assert client.put("gw/a", "1") and client.put("gw/b", "2")
assert client.get("gw/a") == [b"1"], client.get("gw/a")
assert [value for value, _ in client.get_prefix("gw/")] == [b"1", b"2"]
assert client.replace("gw/a", "1", "3") and not client.replace("gw/a", "1", "4")
assert client.create("gw/c", "5") and not client.create("gw/c", "6")
lease = client.lease(ttl=60)
assert client.put("gw/l", "x", lease=lease) and lease.keys() == [b"gw/l"]
assert 0 < lease.refresh() <= 60 and lease.ttl() <= 60
assert lease.revoke() and client.get("gw/l") == []
with client.lock("gw-lock", ttl=10) as lock:
    assert lock.is_acquired()
    assert not client.lock("gw-lock", ttl=10).acquire()
events, cancel = client.watch("gw/w")
client.put("gw/w", "seen")
assert next(events)["kv"]["value"] == b"seen"
cancel()
assert client.delete("gw/a") and not client.delete("gw/a")
assert client.delete_prefix("gw/")
print("fine")
"""


def test_etcd3gw_works(subject: Server) -> None:
    """OpenStack's client speaks nothing but the gateway."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIBRARY, str(subject.client_port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert run.stdout == "fine\n", run.stderr
