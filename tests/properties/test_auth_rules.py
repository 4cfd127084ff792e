"""Random users and roles: what the rules allow against a check key by key, for reads, writes, watches and commits."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from core.apply.auth import check_delete, check_put, check_txn
from core.auth.permissions import FROM_KEY, READ, READWRITE, WRITE, Permission
from core.auth.rules import NOBODY, Identity, Role, Rules, User
from core.errors import EtcdError, PermissionDenied
from proto.rpc_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchRequest
from services.watch import WatchStream
from tests.fake_node import FakeNode
from tests.fakes import FakeStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALPHABET = (b"\0", b"a", b"b")
KEYS = [b"".join(letters) for length in (1, 2, 3) for letters in product(ALPHABET, repeat=length)]
"""Every key that the tests know, in no order: what the naive check goes through."""

keys = st.sampled_from(KEYS)
range_ends = st.one_of(st.just(b""), st.just(FROM_KEY), keys)
permissions = st.builds(Permission, st.sampled_from((READ, WRITE, READWRITE, 3)), keys, range_ends)
ranges = st.tuples(keys, range_ends)
user_permissions = st.lists(permissions, max_size=6)


def rules_for(granted: Sequence[Permission]) -> tuple[Rules, Identity]:
    """Return rules with one user, its permissions split over two roles."""
    roles = [Role("one", tuple(granted[::2])), Role("two", tuple(granted[1::2]))]
    users = [User("user", b"", ("one", "two", "gone")), User("root", b"", ("root",))]
    rules = Rules(True, 5, {user.name: user for user in users}, {role.name: role for role in roles})
    return rules, Identity("user", 5)


def passes(check: Callable[[], None]) -> bool:
    """Whether *check* raises nothing."""
    try:
        check()
    except PermissionDenied:
        return False
    return True


def allowed(rules: Rules, identity: Identity, range_: tuple[bytes, bytes], access: int) -> bool:
    """Whether the rules let *identity* touch *range_*."""
    return passes(lambda: rules.check_key(identity, *range_, access))


def in_range(key: bytes, range_: tuple[bytes, bytes]) -> bool:
    """Whether *key* is in [key, range_end) as requests mean it."""
    start, end = range_
    return key == start if not end else key >= start and (end == FROM_KEY or key < end)


def naively(granted: Sequence[Permission], range_: tuple[bytes, bytes], access: int) -> bool:
    """Whether every key of *range_* that there could be is in some permission.

    Between two neighbouring keys of KEYS lie others; an interval may end only where a permission or the range does, so
    one key right behind each bound stands for them, and a key behind all others for the open end.
    """
    bounds = {bound for each in (*granted, Permission(access, *range_)) for bound in each[1:] if bound != FROM_KEY}
    probes = {probe for key in (*KEYS, *bounds) if key for probe in (key, key + b"\0", key + b"\x01")} | {b"\xff" * 9}
    wanted = [key for key in probes if in_range(key, range_)]
    return all(any(in_range(key, each[1:]) for each in granted if each.type in {access, READWRITE}) for key in wanted)


@given(user_permissions, ranges, st.sampled_from((READ, WRITE)))
def test_a_range_is_allowed_if_each_of_its_keys_is(
    granted: list[Permission], range_: tuple[bytes, bytes], access: int
) -> None:
    """Merging permissions is only a faster way to look at every key."""
    key, range_end = range_
    if range_end and range_end != FROM_KEY and range_end <= key:
        return  # holds no key: both answers show nothing
    rules, identity = rules_for(granted)
    assert allowed(rules, identity, range_, access) == naively(granted, range_, access)


@given(user_permissions, ranges)
def test_who_may_read_a_range_may_watch_it_and_nobody_else(
    granted: list[Permission], range_: tuple[bytes, bytes]
) -> None:
    """A watch shows what a read does, so an open end asked of one may not be less than of the other."""
    rules, identity = rules_for(granted)
    node, stream = FakeNode(), FakeStream()
    node.auth, node.identity = rules, identity
    request = WatchRequest()
    request.create_request.key, request.create_request.range_end = range_
    WatchStream(node, stream).on_message(request.SerializeToString())
    _, _, _, user, refusal = node.watched[-1]
    assert user == "user"
    reads = allowed(rules, identity, range_, READ)
    assert refusal == ("" if reads else "rpc error: code = PermissionDenied desc = etcdserver: permission denied")


def operations() -> st.SearchStrategy[RequestOp]:
    """Requests as a transaction may hold them, nested up to two deep."""
    single = st.one_of(
        st.builds(lambda range_: _op(RangeRequest(key=range_[0], range_end=range_[1])), ranges),
        st.builds(lambda key, prev: _op(PutRequest(key=key, prev_kv=prev)), keys, st.booleans()),
        st.builds(
            lambda range_, prev: _op(DeleteRangeRequest(key=range_[0], range_end=range_[1], prev_kv=prev)),
            ranges,
            st.booleans(),
        ),
    )
    return st.recursive(single, lambda inner: st.builds(_op, transactions(inner)), max_leaves=4)


def transactions(inner: st.SearchStrategy[RequestOp]) -> st.SearchStrategy[TxnRequest]:
    """Transactions of *inner* operations."""
    compares = st.builds(lambda range_: Compare(key=range_[0], range_end=range_[1]), ranges)
    branch = st.lists(inner, max_size=2)
    return st.builds(
        lambda compare, success, failure: TxnRequest(compare=compare, success=success, failure=failure),
        st.lists(compares, max_size=1),
        branch,
        branch,
    )


def _op(request: RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest) -> RequestOp:
    match request:
        case RangeRequest():
            return RequestOp(request_range=request)
        case PutRequest():
            return RequestOp(request_put=request)
        case DeleteRangeRequest():
            return RequestOp(request_delete_range=request)
        case TxnRequest():
            return RequestOp(request_txn=request)


def touched(request: TxnRequest) -> list[tuple[tuple[bytes, bytes], int]]:
    """Return every range that *request* reads or writes in any of its branches, spelled out apart from the code."""
    found = [((compare.key, compare.range_end), READ) for compare in request.compare]
    for op in (*request.success, *request.failure):
        if op.HasField("request_txn"):
            found += touched(op.request_txn)
        elif op.HasField("request_range"):
            found.append(((op.request_range.key, op.request_range.range_end), READ))
        elif op.HasField("request_put"):
            found.append(((op.request_put.key, b""), WRITE))
            found += [((op.request_put.key, b""), READ)] if op.request_put.prev_kv else []
        else:
            delete = op.request_delete_range
            found.append(((delete.key, delete.range_end), WRITE))
            found += [((delete.key, delete.range_end), READ)] if delete.prev_kv else []
    return found


@given(user_permissions, transactions(operations()))
def test_a_transaction_needs_what_all_its_parts_need(granted: list[Permission], request: TxnRequest) -> None:
    """Whichever branch is taken, at every depth: what one request may not do alone, it may not do inside of another."""
    rules, identity = rules_for(granted)
    expected = all(allowed(rules, identity, range_, access) for range_, access in touched(request))
    assert passes(lambda: check_txn(rules, identity, request, lambda _lease: ())) == expected


@given(user_permissions, keys, st.lists(keys, max_size=4), st.booleans())
def test_a_put_to_a_lease_needs_all_that_the_lease_holds(
    granted: list[Permission], key: bytes, held: list[bytes], prev_kv: bool
) -> None:
    """Whoever attaches a key could let the lease end, and all its keys with it."""
    rules, identity = rules_for(granted)
    request = PutRequest(key=key, lease=7, prev_kv=prev_kv)
    expected = all(naively(granted, (each, b""), WRITE) for each in (key, *held)) and (
        not prev_kv or naively(granted, (key, b""), READ)
    )
    assert passes(lambda: check_put(rules, identity, request, lambda lease: held if lease == 7 else ())) == expected


@given(user_permissions, ranges, st.booleans())
def test_nobody_and_old_tokens_pass_nothing_and_root_everything(
    granted: list[Permission], range_: tuple[bytes, bytes], prev_kv: bool
) -> None:
    """Whatever was granted to others, who asks is looked at first."""
    rules, _ = rules_for(granted)
    request = DeleteRangeRequest(key=range_[0], range_end=range_[1], prev_kv=prev_kv)
    check_delete(rules, Identity("root", 5), request)
    for identity in (NOBODY, Identity("user", 4), Identity("root", 4), Identity("gone", 5)):
        with suppress(EtcdError):
            check_delete(rules, identity, request)
            raise AssertionError(identity)
