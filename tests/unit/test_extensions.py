"""Extensions before they are started: what may stand in the configuration, and what it is refused for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

import pytest

from actors.extension import ExtensionActor
from actors.extension_options import OptionsRefused, read_options
from config.extensions import ExtensionEntry, read_extensions
from config.faults import BadValue
from core.auth.rules import NOBODY, Identity, Rules
from core.errors import InvalidAuthToken
from daemon.command_line import CheckConfig, check_config
from daemon.extensions import ExtensionsRefused, find_extensions
from net.rpc import OK, Code, HttpRequest, RefusedCall, Routes, Status
from proto.rpc_pb2 import WatchRequest, WatchResponse
from services.additions import Additions, method_fault, page_fault
from services.observed import CallSeen, Observer
from tests.fake_node import FakeNode
from tests.fakes import FakeCall, FakeClock, FakeStream

MODULE = "extensions_under_test"


class Plain(ExtensionActor):
    """Needs nothing."""

    def handle(self, message: Any) -> None:
        """Take nothing."""


class Choosy(Plain):
    """Has options and paths."""

    @dataclass(frozen=True)
    class Options:
        """Of every kind."""

        path: str
        count: int = 1
        ratio: float = 0.5
        deep: bool = False
        names: tuple[str, ...] = ()
        more: dict[str, object] = field(default_factory=dict)

        def __post_init__(self) -> None:
            """Check what a type cannot say."""
            if self.count < 1:
                raise ValueError("count must be at least 1")

    pages: ClassVar = ("/choosy/",)
    methods: ClassVar = ("/choosy.Service/Ask",)


class Greedy(Plain):
    """Wants what is not its own."""

    pages: ClassVar = ("/health", "/v3/kv/put")
    methods: ClassVar = ("/etcdserverpb.KV/Put",)


class Careless(Plain):
    """A text is a list of texts, to Python."""

    pages: ClassVar = "/careless"


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(MODULE)
    for each in (Plain, Choosy, Greedy, Careless):
        setattr(module, each.__name__, each)
    module.number = 7  # type: ignore[attr-defined]  # a module that the test makes
    module.Other = dict  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, MODULE, module)


def entry(name: str, **options: object) -> ExtensionEntry:
    """Return what the configuration says of a class above."""
    return ExtensionEntry(f"{MODULE}:{name}", options)


def test_entries_are_read_as_they_stand() -> None:
    """Dashes and underscores are the same; a second one of a class gets a name of its own."""
    found = find_extensions([entry("Plain"), entry("Choosy", path="p", names=["a", "b"], ratio=1), entry("Plain")])
    assert [(each.name, each.actor) for each in found] == [
        ("Plain", f"{MODULE}:Plain"),
        ("Choosy", f"{MODULE}:Choosy"),
        ("Plain-2", f"{MODULE}:Plain"),
    ]
    assert found[1].options == Choosy.Options(path="p", names=("a", "b"), ratio=1.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module:X", "cannot import no_such_module: ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{MODULE}:Absent", f"{MODULE} has no class Absent"),
        (f"{MODULE}:number", f"{MODULE} has no class number"),
        (f"{MODULE}:Other", "Other is no extension: it must inherit from actors.extension.ExtensionActor"),
        (f"{MODULE}:Careless", "its pages must be a list of paths"),
        (f"{MODULE}:Choosy", "the option path is missing"),
    ],
)
def test_what_an_entry_is_refused_for(name: str, text: str) -> None:
    """The operator learns which entry it is and what to mend, before anything has started."""
    with pytest.raises(ExtensionsRefused) as refused:
        find_extensions([entry("Plain"), ExtensionEntry(name)])
    assert str(refused.value) == f"extension 2 ({name}): {text}"


def test_paths_of_the_server_and_of_others_are_refused_all_at_once() -> None:
    """Who calls a page or method must get what has always been there."""
    with pytest.raises(ExtensionsRefused) as refused:
        find_extensions([entry("Choosy", path="p"), entry("Greedy"), entry("Choosy", path="q")])
    assert str(refused.value) == (
        f"extension 2 ({MODULE}:Greedy): /health is a page of the server itself; "
        "/v3/kv/put is a page of the server itself; /etcdserverpb.KV/Put belongs to a service of the server itself; "
        f"extension 3 ({MODULE}:Choosy): /choosy/ is answered by the extension Choosy; "
        "/choosy.Service/Ask is answered by the extension Choosy"
    )


def test_a_module_that_raises_is_a_refusal(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever somebody's program does when it is imported, the start ends with a sentence."""
    (tmp_path / "raising_extension.py").write_text("raise SystemExit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExtensionsRefused, match="cannot import raising_extension: SystemExit: 7"):
        find_extensions([ExtensionEntry("raising_extension:X")])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"path": 7}, "the option path must be a text, not 7"),
        ({"path": "p", "count": True}, "the option count must be a whole number, not True"),
        ({"path": "p", "deep": 1}, "the option deep must be true or false, not 1"),
        ({"path": "p", "names": "a"}, "the option names must be a list of texts, not 'a'"),
        ({"path": "p", "more": []}, r"the option more must be an object, not \[\]"),
        ({"path": "p", "pth": "q"}, "there is no option pth .known: path, count, ratio, deep, names, more"),
        ({"path": "p", "count": 0}, "count must be at least 1"),
        (
            {"count": "x", "y": 1},
            "the option count must be a whole number, not 'x'; there is no option y .*; .* missing",
        ),
    ],
)
def test_options_are_checked_against_what_is_declared(given: dict[str, object], text: str) -> None:
    """An extension sees only options that it can work with."""
    with pytest.raises(OptionsRefused, match=text):
        read_options(Choosy.Options, given)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "expected a list of {actor, options}"),
        (["x"], "entry 1: expected an object with actor and options, found 'x'"),
        ([{"actor": "a.b"}], "entry 1: actor must look like package.module:Class, not 'a.b'"),
        ([{"options": {}}], "entry 1: actor must look like package.module:Class, not None"),
        ([{"actor": "a:B", "options": []}], "entry 1: options must hold keys and values, not []"),
        ([{"actor": "a:B", "option": {}}, 7], "entry 1: unknown key option: there are actor and options; entry 2: "),
    ],
)
def test_what_is_no_list_of_extensions(value: object, text: str) -> None:
    """Every fault of every entry, at once."""
    with pytest.raises(BadValue) as refused:
        read_extensions(value)
    assert str(refused.value).startswith(text)


def test_check_config_finds_extensions_that_cannot_be_used(tmp_path: Any) -> None:
    """What a start would refuse is said before it."""
    path = tmp_path / "config.yaml"
    path.write_text(f"data-dir: {tmp_path}/data\nextensions: [{{actor: '{MODULE}:Absent'}}]\n")
    report = check_config(CheckConfig(str(path)))
    assert report.exit_code == 1
    assert f"error: extension 1 ({MODULE}:Absent): {MODULE} has no class Absent" in report.lines


@pytest.mark.parametrize("path", ["/", "/v3", "/v3/x", "/metrics", "/debug/vars", "/livez/x", "relative", "/a?b"])
def test_pages_that_no_extension_may_have(path: str) -> None:
    """They are the server's, or none."""
    assert page_fault(path)


def test_methods_that_no_extension_may_have() -> None:
    """They are the server's, or none."""
    assert all(map(method_fault, ("/etcdserverpb.KV/New", "/grpc.health.v1.Health/Check", "x", "/x", "/x/", "/x/y/z")))
    assert method_fault("/my.Service/Method") is None
    assert page_fault("/my/page") is None


class Carrier:
    """Keeps what listeners have for extensions."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.seen: list[CallSeen] = []

    def ask_page(self, *asked: Any) -> None:
        self.asked.append(asked)

    def ask_method(self, *asked: Any) -> None:
        self.asked.append(asked)

    def open_stream(self, *asked: Any) -> None:
        self.asked.append(asked)

    def client_said(self, *asked: Any) -> None:
        self.asked.append(asked)

    def client_left(self, *asked: Any) -> None:
        self.asked.append(asked)

    def saw(self, seen: CallSeen, /) -> None:
        self.seen.append(seen)

    def describe(self, then: Any, /) -> None:
        then(())


class Page:
    """An HttpResponder that keeps its answer."""

    done = False
    answer: tuple[Any, ...] = ()

    def reply(self, *answer: Any) -> None:
        self.answer = answer


def request_for(path: str, **headers: str) -> HttpRequest:
    return HttpRequest("GET", path, "", headers, b"", "192.0.2.1:1", secure=False, common_name=None)


def test_pages_are_found_by_path_or_by_what_they_lie_below() -> None:
    """The longest that fits answers; what no extension has is left to the server."""
    node, carrier = FakeNode(), Carrier()
    additions = Additions(carrier, FakeClock(), pages={"/a/": 0, "/a/b": 1, "/c": 2})
    for path in ("/a/", "/a/x/y", "/a/b", "/c"):
        page = additions.page(node, path)
        assert page is not None, path
        page(request_for(path), Page())  # type: ignore[arg-type]  # as much of a responder as is used
    assert [asked[0] for asked in carrier.asked] == [0, 0, 1, 2]
    assert [additions.page(node, path) for path in ("/c/d", "/ab", "/", "/metrics")] == [None] * 4


def test_whoever_asks_an_extension_is_identified() -> None:
    """It may decide by user, and a bad token is refused as elsewhere."""
    node, carrier = FakeNode(), Carrier()
    node.auth = Rules(enabled=True, revision=3, users={}, roles={})
    additions = Additions(carrier, FakeClock(), methods={"/my.Service/Ask": 0}, pages={"/c": 0})
    method = additions.routes(node, Routes({}, {})).unary["/my.Service/Ask"]
    page = additions.page(node, "/c")
    assert page is not None
    node.identity = Identity("ann", 3)
    call = FakeCall()
    method(call, b"payload")
    page(request_for("/c", authorization="t"), Page())  # type: ignore[arg-type]  # as above
    assert [asked[-1] if asked[1] is call else asked[2] for asked in carrier.asked] == [Identity("ann", 3)] * 2
    node.identity = InvalidAuthToken()
    refused, answer = FakeCall(), Page()
    method(refused, b"")
    page(request_for("/c", authorization="t"), answer)  # type: ignore[arg-type]  # as above
    assert refused.status == Status(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
    assert answer.answer[0] == 401


def test_a_stream_waits_until_it_is_known_who_opens_it() -> None:
    """What comes early comes in its order, and a bad token ends it."""
    node, carrier = FakeNode(), Carrier()
    node.auth = Rules(enabled=True, revision=3, users={}, roles={})
    routes = Additions(carrier, FakeClock(), streams={"/my.Service/Chat": 0}).routes(node, Routes({}, {}))
    node.identity = None
    stream = FakeStream()
    handler = routes.streams["/my.Service/Chat"](stream)
    reading = [stream.reading]
    handler.on_message(b"one")
    handler.on_half_close()
    assert carrier.asked == []
    node.tell_identity(Identity("ann", 3))
    assert [*reading, stream.reading] == [False, True]
    handler.on_closed(OK)
    assert carrier.asked == [(0, stream, Identity("ann", 3)), (stream, b"one"), (stream, None), (stream, OK)]
    node.identity = InvalidAuthToken()
    refused = FakeStream()
    routes.streams["/my.Service/Chat"](refused).on_closed(OK)
    assert refused.status == Status(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
    assert len(carrier.asked) == 4


def test_routes_are_not_touched_where_nobody_observes() -> None:
    """Auditing that is not configured costs nothing."""
    routes = Routes({"/a.B/C": lambda _call, _payload: None}, {})
    assert Additions().routes(FakeNode(), routes) is routes
    assert Additions(Carrier(), FakeClock()).routes(FakeNode(), routes).unary["/a.B/C"] is routes.unary["/a.B/C"]


def observed(node: FakeNode, clock: FakeClock, seen: list[CallSeen], routes: Routes) -> Routes:
    return Observer(node, clock, seen.append).observed(routes)


def test_every_end_of_a_call_is_seen_once() -> None:
    """Answers and refusals alike, with who, what and how long; also an answer that its client did not wait for."""
    node, clock, seen = FakeNode(), FakeClock(), list[CallSeen]()
    kept: list[Any] = []
    method = observed(node, clock, seen, Routes({"/a.B/C": lambda call, _payload: kept.append(call)}, {})).unary[
        "/a.B/C"
    ]
    node.auth = Rules(enabled=True, revision=3, users={}, roles={})
    node.identity = Identity("ann", 3)
    calls = [FakeCall() for _ in range(3)]
    for call in calls:
        method(call, b"asked")
    node.identity = InvalidAuthToken()
    method(denied := FakeCall(), b"asked")
    clock.now_s += 0.5
    kept[0].reply(b"h" * 100)
    kept[0].reply(b"again")
    kept[1].fail(Status(Code.PERMISSION_DENIED, "no"))
    calls[2].leave()
    kept[2].reply(b"late")
    kept[3].fail(Status(Code.UNAUTHENTICATED, "bad token"))
    assert denied.status is not None
    assert [(each.user, each.status.code, each.client_left, each.took_s) for each in seen] == [
        ("ann", Code.OK, False, 0.5),
        ("ann", Code.PERMISSION_DENIED, False, 0.5),
        ("ann", Code.OK, True, 0.5),
        ("", Code.UNAUTHENTICATED, False, 0.5),
    ]
    assert (seen[0].request, seen[0].answer, seen[0].peer) == (b"asked", b"h" * 64, FakeCall.peer)


def test_calls_that_reach_no_method_are_seen_too() -> None:
    """What an intruder tries is of interest even where there is nothing; names that it makes up take little room."""
    node, seen = FakeNode(), list[CallSeen]()
    routes = Routes({"/a.B/C": lambda _call, _payload: None}, {})
    assert Additions(Carrier(), FakeClock()).seeing_refusals(node, routes) is routes
    told = Observer(node, FakeClock(), seen.append).refused
    node.auth = Rules(enabled=True, revision=3, users={}, roles={})
    node.identity = Identity("ann", 3)
    told(RefusedCall("/a.B/" + "x" * 1000, {}, "192.0.2.1:1"), Status(Code.UNIMPLEMENTED, "y" * 1000))
    node.identity = InvalidAuthToken()
    told(RefusedCall("/a.B/C", {}, "192.0.2.1:1", "cn"), Status(Code.RESOURCE_EXHAUSTED, "too large"))
    assert [(each.user, len(each.method), len(each.status.message)) for each in seen] == [("ann", 256, 256), ("", 6, 9)]
    assert (seen[1].common_name, seen[1].status.code, seen[1].request) == ("cn", Code.RESOURCE_EXHAUSTED, b"")


class Handler:
    """A service of one stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def on_message(self, message: bytes) -> None:
        """Take a message."""

    def on_half_close(self) -> None:
        """Go on."""

    def on_drained(self) -> None:
        """Go on."""

    def on_closed(self, status: Status) -> None:
        """End."""


def test_each_watch_is_seen_with_what_became_of_it() -> None:
    """A stream may be open for days and hold many watches, so its end alone would tell little and late."""
    node, seen = FakeNode(), list[CallSeen]()
    handlers: list[Handler] = []

    def opened(stream: Any) -> Handler:
        handlers.append(Handler(stream))
        return handlers[-1]

    routes = observed(node, FakeClock(), seen, Routes({}, {"/etcdserverpb.Watch/Watch": opened}))
    stream = FakeStream()
    stream.method = "/etcdserverpb.Watch/Watch"
    handler = routes.streams["/etcdserverpb.Watch/Watch"](stream)
    create = WatchRequest(create_request={"key": b"k"}).SerializeToString()
    handler.on_message(create)
    handler.on_message(WatchRequest(progress_request={}).SerializeToString())
    handler.on_message(create)
    for message in (
        WatchResponse(created=True, watch_id=1),
        WatchResponse(events=[{}]),
        WatchResponse(created=True, canceled=True, cancel_reason="no"),
    ):
        handlers[0].stream.send(message.SerializeToString())
    handler.on_message(create)
    handler.on_closed(Status(Code.CANCELLED, "gone"))
    assert [(each.request, each.status) for each in seen] == [
        (create, OK),
        (create, Status(Code.PERMISSION_DENIED, "no")),
        (create, Status(Code.CANCELLED, "gone")),
    ]
    assert len(stream.sent) == 3
    assert NOBODY.user == seen[0].user
