"""Extensions in a real member: they serve beside it, see what clients do, crash alone, and stop before it."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.harness import Server, actcd, etcd_tool, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.e2e

ENGINES: Final = ("native", "grpcio")
SECRET: Final = "5ecret"

MODULE: Final = '''
"""Under test."""
from dataclasses import dataclass
from pathlib import Path

from actors.extension import ExtensionActor
from actors.messages.extension import Answer, Called, HttpAsked, StreamHeard, StreamHeardAll, StreamOpened, WatchSaid
from net.rpc import Code, Status


class Under(ExtensionActor):
    """Does what it is asked."""

    @dataclass(frozen=True)
    class Options:
        journal: str

    pages = ("/under/",)
    methods = ("/under.Test/Do",)
    streams = ("/under.Test/Chat",)

    def setup(self):
        self.asked = {}
        self.node.watch(b"w")
        self.note("setup")

    def handle(self, message):
        match message:
            case Called(payload=b"crash"):
                raise RuntimeError("as asked")
            case Called(payload=b"refuse"):
                self.node.refuse(message, Status(Code.ABORTED, "no: \\u00e9"))
            case Called(payload=b"put"):
                self.asked[self.node.put(b"w", message.identity.user.encode())] = message
            case Called():
                self.node.answer(message, message.identity.user.encode() + b":" + message.payload)
            case HttpAsked():
                body = f"{message.request.path} {message.identity.user} leads={self.node.is_leader}"
                self.node.answer_http(message, 201, body.encode(), headers=[("x-under", "test")])
            case Answer(token=token) if token in self.asked:
                self.node.answer(self.asked.pop(token), str(message.response.header.revision).encode())
            case StreamOpened():
                self.chat = message
                self.node.say(message, b"hello " + message.identity.user.encode())
            case StreamHeard():
                self.node.say(self.chat, message.payload.upper())
            case StreamHeardAll():
                self.node.finish(self.chat)
            case WatchSaid() if message.response.events:
                self.note(f"event {message.response.events[0].kv.mod_revision}")

    def teardown(self):
        self.note("teardown")

    def note(self, text):
        with Path(self.node.options.journal).open("a") as file:
            file.write(text + "\\n")
'''


class House:
    """A server with three extensions, and a client of each of its ports."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.directory = directory
        self.engine = engine
        (directory / "under_test_extension.py").write_text(MODULE)
        settings: dict[str, object] = {
            "engine": engine,
            "bcrypt-cost": 4,
            "extensions": [
                {"actor": "under_test_extension:Under", "options": {"journal": str(directory / "journal")}},
                {"actor": "extensions.audit:AuditActor", "options": {"path": str(directory / "audit" / "log")}},
                {"actor": "extensions.backup:BackupActor", "options": {"folder": str(directory / "backup")}},
            ],
        }
        self.server = Server(actcd(), directory / "server", settings)

    def wait(self) -> None:
        """Wait until the extension answers (not for /health, since grpcio serves none)."""
        wait_for(lambda: self.answers(b"x"), 20.0, "the extension answers")

    def answers(self, payload: bytes) -> bool:
        with suppress(grpc.RpcError):
            self.do(payload)
            return True
        return False

    def do(self, payload: bytes, token: str = "") -> bytes:
        """Call the extension's method."""
        with grpc.insecure_channel(self.server.endpoint) as channel:
            method: Any = channel.unary_unary("/under.Test/Do")
            metadata = (("token", token),) if token else ()
            answer: bytes = method(payload, timeout=CALL_TIMEOUT_S, metadata=metadata)
            return answer

    def chat(self, messages: list[bytes], token: str) -> list[bytes]:
        """Call the extension's stream, to its end."""
        with grpc.insecure_channel(self.server.endpoint) as channel:
            method: Any = channel.stream_stream("/under.Test/Chat")
            return list(method(iter(messages), timeout=CALL_TIMEOUT_S, metadata=(("token", token),)))

    def refusal(self, payload: bytes, token: str = "") -> tuple[grpc.StatusCode, str]:
        """Call the extension's method, and return how it was refused."""
        with pytest.raises(grpc.RpcError) as raised:
            self.do(payload, token)
        error: Any = raised.value
        return error.code(), error.details()

    def journal(self) -> list[str]:
        path = self.directory / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def audit(self) -> list[dict[str, Any]]:
        path = self.directory / "audit" / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(params=ENGINES)
def house(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A server with extensions, on each engine."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = House(tmp_path, request.param)
    with ExitStack() as stack:
        stack.callback(made.server.close)
        made.server.launch()
        made.wait()
        yield made


def test_extensions_serve_see_crash_and_stop(house: House) -> None:
    """One life of a member: each promise of the tutorial, against a process, on each engine."""
    server = house.server
    # It answers, it refuses, and what it does goes through the log like any client's call.
    assert house.do(b"hello") == b":hello"
    assert house.refusal(b"refuse") == (grpc.StatusCode.ABORTED, "no: \u00e9")
    revision = int(house.do(b"put"))
    wait_for(lambda: f"event {revision}" in house.journal(), 10.0, "the extension's watch sees its put")
    with grpc.insecure_channel(server.endpoint) as channel:
        other: Any = channel.unary_unary("/under.Test/Other")
        with pytest.raises(grpc.RpcError, match=r"unknown method Other for service under\.Test"):
            other(b"", timeout=CALL_TIMEOUT_S)

    # It crashes: its caller is told, the store goes on, it comes back.
    assert house.refusal(b"crash") == (grpc.StatusCode.UNAVAILABLE, "the extension has stopped")
    with connect(server.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=SECRET.encode()), timeout=CALL_TIMEOUT_S)
        house.wait()
        assert house.journal().count("setup") == 2

        # Who asks is known as everywhere, and the extension itself may do what root may.
        for name in ("root", "ann"):
            client.auth.UserAdd(rpc_pb2.AuthUserAddRequest(name=name, password=SECRET), timeout=CALL_TIMEOUT_S)
        client.auth.UserGrantRole(rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"), timeout=CALL_TIMEOUT_S)
        client.auth.AuthEnable(rpc_pb2.AuthEnableRequest(), timeout=CALL_TIMEOUT_S)
        login = rpc_pb2.AuthenticateRequest(name="ann", password=SECRET)
        token = client.auth.Authenticate(login, timeout=CALL_TIMEOUT_S).token
        assert house.do(b"x", token) == b"ann:x"
        assert house.do(b"x") == b":x"
        assert house.chat([b"a", b"b"], token) == [b"hello ann", b"A", b"B"]
        assert int(house.do(b"put", token)) > revision
        assert house.refusal(b"x", "bad") == (grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        with pytest.raises(grpc.RpcError):
            client.kv.Range(rpc_pb2.RangeRequest(key=b"k"), timeout=CALL_TIMEOUT_S, metadata=[("token", token)])
    if house.engine == "native":
        read_pages(house, token)

    # What was seen is written soon, though not before the client has its answer.
    wait_for(lambda: any(line["code"] == "PERMISSION_DENIED" for line in house.audit()), 10.0, "the audit is written")

    # Killed without a word, it comes back with what was acknowledged, and no line of the audit is broken.
    server.kill()
    lines = house.audit()
    server.launch()
    house.wait()
    assert server.stop() == -15
    assert house.journal()[-1] == "teardown"
    assert house.audit()[: len(lines)] == lines
    read_audit(house.audit())
    read_backup(house.directory / "backup")


def read_pages(house: House, token: str) -> None:
    """Pages beside the server's own."""

    def get(path: str, **headers: str) -> tuple[int, str, Any]:
        request = urllib.request.Request(f"http://{house.server.endpoint}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers

    status, body, headers = get("/under/a/b", authorization=token)
    assert (status, body, headers["x-under"]) == (201, "/under/a/b ann leads=True", "test")
    assert get("/under/", authorization="bad")[0] == 401
    assert get("/under")[0] == 404
    assert get("/health")[0] == 200
    variables = json.loads(get("/debug/vars")[1])["extensions"]
    assert [(each["name"], each["state"], each["restarts"]) for each in variables] == [
        ("Under", "running", 1),
        ("AuditActor", "running", 0),
        ("BackupActor", "running", 0),
    ]
    metrics = get("/metrics")[1]
    assert 'actcd_extension_restarts_total{extension="Under"} 1.0' in metrics
    assert 'actcd_extension_state{extension="AuditActor",state="running"} 1.0' in metrics


def read_audit(lines: list[dict[str, Any]]) -> None:
    """Every call with its user and result, and nothing secret."""
    seen = {(line["method"].rpartition("/")[2], line["user"], line["code"]) for line in lines}
    assert {
        ("Put", "", "OK"),
        ("UserAdd", "", "OK"),
        ("AuthEnable", "", "OK"),
        ("Authenticate", "ann", "OK"),
        ("Range", "ann", "PERMISSION_DENIED"),
        ("Do", "ann", "OK"),
        ("Do", "", "UNAUTHENTICATED"),
        ("Do", "", "UNAVAILABLE"),
        ("Other", "", "UNIMPLEMENTED"),
    } <= seen
    put = next(line for line in lines if line["method"] == "/etcdserverpb.KV/Put")
    assert (put["request"], put["peer"].rpartition(":")[0], put["revision"] > 1) == ({"key": "k"}, "127.0.0.1", True)
    assert SECRET not in json.dumps(lines)


def read_backup(folder: Path) -> None:
    """A snapshot that etcd's own tool takes."""
    (path,) = folder.iterdir()
    shown = subprocess.run(
        [etcd_tool("etcdutl"), "snapshot", "status", str(path), "-w", "json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30.0,
    )
    assert json.loads(shown.stdout)["totalKey"] >= 0


@pytest.mark.parametrize(
    ("extension", "text"),
    [
        ({"actor": "no.such:Thing"}, "extension 1 (no.such:Thing): cannot import no.such"),
        ({"actor": "nothing"}, "entry 1: actor must look like package.module:Class"),
        (
            {"actor": "extensions.audit:AuditActor"},
            "extension 1 (extensions.audit:AuditActor): the option path is missing",
        ),
    ],
)
def test_a_bad_entry_ends_the_start_with_a_sentence(tmp_path: Path, extension: dict[str, str], text: str) -> None:
    """Before anything was touched: the data directory is not even made."""
    server = Server(actcd(), tmp_path, {"extensions": [extension]})
    try:
        assert server.launch().wait(30.0) == 1
        assert text in server.log_tail()
        assert not server.data_dir.exists()
    finally:
        server.close()
