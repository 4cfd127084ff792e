"""What hashes of several members say, and what they do not say."""

from __future__ import annotations

import json

import pytest

from core.alarms.corruption import (
    WHOLE_CLUSTER,
    Answer,
    NotTold,
    ToldHash,
    compaction_verdict,
    compare,
    periodic_verdict,
)
from core.mvcc.hashing import HashKv
from core.types import MemberId
from services.member_pages import hash_outcome, hash_question

A, B, C, D = MemberId(1), MemberId(2), MemberId(3), MemberId(4)
OWN = HashKv(hash=100, revision=10, compact_revision=4)
SILENT = NotTold("it does not answer", for_good=False)


def told(made: int = 100, compacted: int = 4, current: int = 10) -> ToldHash:
    return ToldHash(HashKv(made, 10, compacted), current)


def test_equal_hashes_pass_and_others_are_named() -> None:
    """The one thing that the checks are for."""
    assert compare(OWN, {B: told(), C: told()}).passed
    found = compare(OWN, {B: told(), C: told(7)})
    assert [member for member, _ in found.alarms] == [C]


def test_who_was_not_compared_has_not_passed() -> None:
    """Corruption went unnoticed where silence was taken for agreement (etcd's post mortem of 3.5)."""
    found = compare(OWN, {B: SILENT, C: told(7, compacted=5)})
    assert not found.alarms
    assert not found.passed
    assert {member: answer.for_good for member, answer in found.left.items()} == {B: False, C: True}


@pytest.mark.parametrize(
    ("answers", "after", "current", "wrong"),
    [
        ({B: told(), C: told()}, OWN, 10, []),
        ({B: told(7)}, OWN, 10, [B]),
        ({B: told(7), C: told(8)}, OWN, 10, [B]),
        ({B: told(current=12)}, OWN, 11, [B]),
        ({B: told(current=11)}, HashKv(3, 11, 4), 11, []),
        ({B: told(7, compacted=6)}, HashKv(3, 11, 5), 11, [B]),
        ({B: told(7, compacted=5)}, HashKv(3, 11, 5), 11, []),
        ({B: told()}, OWN._replace(hash=101), 10, [A]),
    ],
    ids=["equal", "unlike", "one alarm at most", "ahead", "moved on", "compacted ahead", "compacted", "itself changed"],
)
def test_a_leaders_verdict(answers: dict[MemberId, Answer], after: HashKv, current: int, wrong: list[MemberId]) -> None:
    """Etcd's rules: nobody is ahead of a leader that has just proved that it leads, and equal histories hash alike."""
    assert [member for member, _ in periodic_verdict(A, OWN, answers, after, current).alarms] == wrong


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({B: told(), C: told(7)}, [C]),
        ({B: told(7), C: told(7)}, [A]),
        ({B: told(7), C: told(8)}, [WHOLE_CLUSTER]),
        ({B: told(7)}, [WHOLE_CLUSTER]),
        ({B: told(7), C: SILENT}, [WHOLE_CLUSTER]),
        ({B: told(), C: told(7), D: SILENT}, [WHOLE_CLUSTER]),
        ({B: told(), C: told(7, compacted=9)}, []),
    ],
    ids=["one", "the leader", "all three", "of two", "of two that answer", "two of four", "not comparable"],
)
def test_after_a_compaction_a_quorum_knows_who_is_wrong(answers: dict[MemberId, Answer], wrong: list[MemberId]) -> None:
    """Also when it is the leader that is; without a quorum the alarm blames nobody in particular."""
    assert [member for member, _ in compaction_verdict(A, OWN, answers).alarms] == wrong


def test_pages_of_etcd_and_of_ours_are_read() -> None:
    """Etcd 3.5 does not say of which revision its hash is, and leaves out what is 0."""
    old = b'{"header":{"revision":12},"hash":100,"compact_revision":4}'
    assert hash_outcome(200, old, 10) == ToldHash(OWN, 12)
    assert hash_outcome(200, old[:-1] + b',"hash_revision":10}', 10) == ToldHash(OWN, 12)
    assert hash_outcome(200, b'{"header":{"revision":12}}', 10) == ToldHash(HashKv(0, 10, 0), 12)
    assert json.loads(hash_question(10)) == {"revision": 10}


@pytest.mark.parametrize(
    ("status", "body", "for_good"),
    [
        (400, b"mvcc: required revision has been compacted\n", True),
        (400, b"mvcc: required revision is a future revision\n", False),
        (412, b"cluster ID mismatch\n", False),
        (404, b"404 page not found\n", False),
        (200, b"[]", False),
        (200, b"{", False),
        (200, b'{"hash":"1"}', False),
        (200, b'{"hash":true}', False),
        (200, b'{"header":3,"hash":1}', False),
        (200, b"[" * 100_000, False),
        (200, b'{"hash":1,"hash_revision":11}', True),
    ],
)
def test_whatever_else_a_member_answers_is_no_hash(status: int, body: bytes, for_good: bool) -> None:
    """Rubbish from a peer is neither a pass nor an alarm, and stops nobody."""
    answer = hash_outcome(status, body, 10)
    assert isinstance(answer, NotTold)
    assert answer.for_good is for_good
