"""Every RPC and every route with input that is wrong: actcd and etcd 3.5.1 give the same codes and texts.

Seeded: a failure names its seed, ACTCD_SEEDS=<seed> runs it again, `make fuzz` runs many new ones.  Where later rules
win, or the two read wrong bytes in different words, EXCEPTIONS says so.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from services.gateway import PATHS
from tests.e2e.bad_callers import (
    CHANGES_MEMBERS,
    METHODS,
    QUICK,
    UNREADABLE,
    WAITS_FOR_EVER,
    Caller,
    Page,
    Said,
    alive,
    ask,
    comparable,
    message_in,
)
from tests.e2e.bad_requests import BadBytes, BadJson, is_harmless
from tests.e2e.differential import Failure, found_in_turn, seeds
from tests.e2e.harness import Server, actcd, real_etcd, running

pytestmark = pytest.mark.e2e

CALLS_PER_SEED: Final = 200
PAGES_PER_SEED: Final = 200
LENGTHS: Final = (9_000, 70_000, 1_000_000)
"""Of headers: up to Go's limit, which test_http_like_etcd.py goes beyond."""
LARGE_BYTES: Final = 3_000_000
"""Of a body: about as much as ours keeps of one."""
STREAMS_PER_SEED: Final = 96
STREAM_ENDS: Final = "400m"
"""When the answers of streams end, as a Grpc-Timeout: long after all has come that comes by itself."""
PATIENT_ENDS: Final = "4S"
"""The same for a second try, where a busy machine may have been the reason for a difference."""
STREAMS_AT_ONCE: Final = 8
SETTINGS: Final = {"auth-password-characters-min": 0}
EXCEPTIONS: Final = {
    "what is no message": "3.5.1 reads with gogo/protobuf, which refuses a known field of another wire type and takes "
    "groups without an end; Go's own library (3.7) and ours do not: where either side finds no message, ours must be "
    "the judgement of the protobuf library, in grpc-go's words up to the library's own",
    "tokens while auth is off": "3.5.1 refuses a token that it does not know even then, 3.6 and later look at none: a "
    "bad token is sent where both refuse, with auth on, in test_bad_tokens.py",
    "HashKV at or below the compact revision": "see differential.py",
    "transactions with several faults": "see differential.py",
    "unknown alarm actions and sort orders": "3.5.1 panics: sent to actcd alone, which must live",
    "members that are not there": "3.5.1 sometimes drops such a change without a word, and the caller waits",
    "methods other than POST": "grpc-gateway answers 501 since its second version, which etcd 3.6 has; 405 before",
    "bodies with several faults": "the one that is named first may differ; so do how deep JSON may be nested, and the "
    "byte at which base64 is wrong",
    "base64 without padding or in the alphabet for URLs": "taken since etcd 3.6, refused by 3.5.1: never sent",
    "progress requests in JSON": "see differential.py: never sent to routes",
    "streams that end before anything came": "3.5.1 says in one of three ways that the time is over: the words count",
    "routes of 3.6": "maintenance/hashkv and others are not known to 3.5.1, or not by that name",
    "ranges that hold no key, in permissions": "refused since 3.6, before the role is looked for",
    "passwords of more than 72 bytes": "refused by later releases' bcrypt, cut by that of 3.5.1",
    "snapshots at once": "ours takes so many, and refuses more in etcd's words; etcd makes as many as are asked for",
    "hashes of passwords": "actcd takes one in the place of a password, for users that move in: never sent",
    "empty passwords": "actcd wants a character at least (CVE-2020-15115): switched off for the comparison",
}

METADATA: Final = (
    (),
    (),
    (),
    (("hasleader", "true"),),
    (("hasleader", "perhaps"),),
    (("client-api-version", "x" * 500),),
    (("client-api-version", ""),),
    (("x-bin", b"\x00\xff"),),
    (("x", "y" * 20_000),),
    (("x", "y" * 60_000),),
)


def agree(method: MethodDescriptor, payload: bytes, theirs: Said, ours: Said) -> bool:
    """Whether the two answers are as like as they must be; see EXCEPTIONS."""
    if theirs == ours:
        return True
    if (theirs.text in UNREADABLE) != (ours.text in UNREADABLE):
        return (ours.text in UNREADABLE) is (message_in(method, payload) is None)
    if method.name in CHANGES_MEMBERS and theirs.code in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}:
        return ours.code in {"NOT_FOUND", "INVALID_ARGUMENT"}
    if method.name == "Txn" and (message := message_in(method, payload)) is not None:
        return found_in_turn(message, Failure(theirs.code, theirs.text), Failure(ours.code, ours.text))
    if method.name == "RoleGrantPermission":
        return ours.text == "etcdserver: invalid auth management"
    if method.name in {"UserAdd", "UserChangePassword"}:
        return ours.text == "bcrypt: password length exceeds 72 bytes"
    return method.name == "HashKV" and theirs.text == "etcdserver: mvcc: required revision has been compacted"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The subject, without the rules of its own that EXCEPTIONS names."""
    with running(Server(actcd(), tmp_path / "actcd", SETTINGS)) as started:
        yield started


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Server]:
    """The reference, as empty as the subject: leases and revisions of other tests would be told of."""
    with running(Server(real_etcd(), tmp_path / "etcd", {})) as started:
        yield started


@pytest.mark.parametrize("seed", seeds([1, 2]))
def test_every_method_refuses_alike(server: Server, etcd: Server, seed: int) -> None:
    """A client's bug must look the same on either server, and no bytes may harm one."""
    random = Random(seed)
    ours, theirs = Caller(server), Caller(etcd)
    different = []
    for _ in range(CALLS_PER_SEED):
        method = random.choice(METHODS if random.random() < 0.05 else QUICK)
        payload = BadBytes(random).message(method.input_type)
        metadata = random.choice(METADATA)
        message = message_in(method, payload)
        if message is not None and not is_harmless(message):
            ours.call(method, payload, metadata)
            continue
        wanted = comparable(theirs.call(method, payload, metadata))
        got = comparable(ours.call(method, payload, metadata))
        assert wanted.code != "UNAVAILABLE" or method.name in CHANGES_MEMBERS, (method.name, payload, wanted)
        if not agree(method, payload, wanted, got):
            sent = f"{payload[:120]!r}{'...' if len(payload) > 120 else ''}"
            different.append(f"{method.name} {sent} {str(metadata)[:100]}\n  etcd:  {wanted}\n  actcd: {got}")
    assert not different, f"seed {seed}:\n" + "\n".join(different)
    alive(server)


def routes() -> Iterator[tuple[str, Descriptor, bool]]:
    """Every route of the gateway, the message that it takes, and whether its answer may have no end."""
    pool = descriptor_pool.Default()
    for service, paths in PATHS.items():
        for path, name in paths.items():
            method = pool.FindServiceByName(service).FindMethodByName(name)
            if name not in WAITS_FOR_EVER or method.server_streaming:
                yield path, method.input_type, method.server_streaming


ROUTES: Final = tuple((path, descriptor) for path, descriptor, streaming in routes() if not streaming)
STREAM_ROUTES: Final = tuple((path, descriptor) for path, descriptor, streaming in routes() if streaming)
NEW_ROUTES: Final = {"maintenance/hashkv", "maintenance/transfer-leadership", "maintenance/downgrade"}
JSON_FAULTS: Final = (
    "illegal base64 data",
    "json: cannot unmarshal",
    "unknown value",
    "unexpected EOF",
    "exceeded max depth",
    "invalid character",
)


def comparable_page(status: int, body: str) -> tuple[int, str]:
    """What must be equal of an answer: nothing of one that is right, whose content other tests compare."""
    if status == 200:
        return status, ""
    return status, re.sub(r"\b[0-9a-f]{14,16}\b", "<id>", body).strip()


def pages_agree(page: Page, theirs: tuple[int, str], ours: tuple[int, str]) -> bool:
    """Whether the two answers are as like as they must be; see EXCEPTIONS."""
    if theirs == ours:
        return True
    route = re.sub(r"^/v3(beta)?/", "", page.path).partition("?")[0]
    if route in NEW_ROUTES:
        return ours[0] in {200, 400, 404, 501}
    if theirs[0] == 405:
        return ours[0] == 501 and '"code":12' in ours[1]
    if "role name not found" in theirs[1]:
        return route == "auth/role/grant" and "invalid auth management" in ours[1]
    faults = [next((fault for fault in JSON_FAULTS if f'"error":"{fault}' in body), "") for _, body in (theirs, ours)]
    return theirs[0] == ours[0] and theirs[0] in {400, 500} and all(faults)


def bad_page(random: Random) -> Page:
    """A request to the gateway that is likely to be wrong."""
    path, descriptor = random.choice(ROUTES)
    prefix = random.choice(("/v3/", "/v3/", "/v3/", "/v3beta/", "/v4/", "/v3//"))
    suffix = random.choice(("", "", "", "", "/", "?x=y", "/x"))
    method = random.choice(("POST",) * 12 + ("GET", "PUT", "DELETE", "OPTIONS"))
    long = {"X": "y" * random.choice(LENGTHS)}
    headers = random.choice(
        ({}, {}, {}, {"Content-Type": "text/plain"}, {"Grpc-Timeout": "x"}, {"Grpc-Timeout": "S"}, long)
    )
    body = BadJson(random).body(descriptor)
    if random.random() < 0.04:
        body = random.choice((body + b" " * LARGE_BYTES, b'{"no":"' + b"x" * LARGE_BYTES + b'",' + body[1:]))
    return Page(method, f"{prefix}{path}{suffix}", body, headers)


def bad_stream(random: Random) -> Page:
    """A request for a stream, of one value or several, that is likely to be wrong."""
    path, descriptor = random.choice(STREAM_ROUTES)
    bodies = [BadJson(random).body(descriptor) for _ in range(random.choice((1, 1, 1, 2, 3)))]
    if path == "watch" and random.random() < 0.5:
        bodies.append(b'{"create_request":{"key":"Z29vZA==","watch_id":"4242"}}')
    method = random.choice(("POST",) * 20 + ("GET", "PUT"))
    prefix = random.choice(("/v3/", "/v3/", "/v3beta/"))
    body = random.choice((b"", b"\n", b" ")).join(bodies).replace(b"rogress", b"r0gress")
    return Page(method, f"{prefix}{path}", body, {"Grpc-Timeout": STREAM_ENDS})


OWN_IN_HEADERS: Final = re.compile(r'"(cluster_id|member_id|raft_term)":"\d+"')


OVER: Final = "context deadline exceeded"


def lines_of(page: Page, status: int, body: str) -> list[Any]:
    """The status and each line of a stream as JSON; of a snapshot only whether it is one."""
    if status == 200 and page.path.endswith("snapshot"):
        return [status, "remaining_bytes" in body]
    lines = OWN_IN_HEADERS.sub(r'"\1":"0"', body).splitlines()
    if status != 200 and OVER in body:
        return [OVER]
    return [
        status,
        *(OVER if OVER in line else json.loads(line) if line.startswith("{") else line for line in lines),
    ]


def streams_agree(page: Page, theirs: list[Any], ours: list[Any]) -> bool:
    """Whether two streams are as like as they must be: errors in ours have the fields of later gateways too."""
    if theirs[0] != 200 and len(theirs) == len(ours) == 2:
        as_page = [(lines[0], json.dumps(lines[1], separators=(",", ":"))) for lines in (theirs, ours)]
        if pages_agree(page, *as_page):
            return True
    if "snapshot" in page.path and "etcdserver: too many requests" in str(ours):
        return True
    if len(theirs) != len(ours):
        return False
    for their, our in zip(theirs, ours, strict=True):
        if isinstance(their, dict) and isinstance(our, dict) and isinstance(their.get("error"), dict):
            if not isinstance(our.get("error"), dict) or not their["error"].items() <= our["error"].items():
                return False
        elif their != our:
            return False
    return True


@pytest.mark.parametrize("seed", seeds([1, 2]))
def test_every_route_refuses_alike(server: Server, etcd: Server, seed: int) -> None:
    """The same for callers with curl: statuses and the sentences in their bodies, and each line of a stream."""
    random = Random(seed)
    different = []
    for _ in range(PAGES_PER_SEED):
        page = bad_page(random)
        wanted, got = comparable_page(*ask(etcd, page)), comparable_page(*ask(server, page))
        if not pages_agree(page, wanted, got):
            different.append(f"{shown(page)}\n  etcd:  {wanted}\n  actcd: {got}")
    streams = [bad_stream(random) for _ in range(STREAMS_PER_SEED)]
    with ThreadPoolExecutor(2 * STREAMS_AT_ONCE) as pool:
        theirs, ours = ([pool.submit(ask, each, page) for page in streams] for each in (etcd, server))
        for page, their, our in zip(streams, theirs, ours, strict=True):
            lines_wanted, lines_got = lines_of(page, *their.result()), lines_of(page, *our.result())
            if not streams_agree(page, lines_wanted, lines_got):
                patient = page._replace(headers={"Grpc-Timeout": PATIENT_ENDS})
                lines_wanted, lines_got = (lines_of(page, *ask(each, patient)) for each in (etcd, server))
            if not streams_agree(page, lines_wanted, lines_got):
                different.append(f"{shown(page)}\n  etcd:  {lines_wanted}\n  actcd: {lines_got}")
    assert not different, f"seed {seed}:\n" + "\n".join(different)
    alive(server)


def shown(page: Page) -> str:
    """*page* for people, cut when it is long."""
    body = f"{page.body[:160]!r}{'...' if len(page.body) > 160 else ''}"
    return f"{page.method} {page.path} {str(page.headers)[:200]} {body}"
