"""Backups: only what was read back counts, the right ones are kept, and a failure leaves nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from actors.extension import NodeApi, Place
from actors.messages.extension import CloseStream, OpenStream, StreamEnded, StreamSaid
from actors.messages.raft import RoleIs
from core.types import MemberId, Term
from extensions.backup import RETRY_S, BackupActor, BackupOptions, Due
from extensions.backup_files import Backup, backups_in, expendable, file_name
from net.rpc import OK, Code, Status
from proto.rpc_pb2 import SnapshotResponse
from storage.bbolt.export import export
from storage.bbolt.status import read_status
from tests.actors.home import TestHome
from tests.fake_node import FakeNode
from tests.fakes import Told

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400.0


class House:
    """A BackupActor and a node that the test plays."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.home = TestHome()
        self.gate = Told()
        place = Place(
            "backup",
            BackupOptions(folder=str(folder), every_s=600, **options),
            MemberId(1),
            "m1",
            structlog.stdlib.BoundLogger(None, [self.home.log], {}),
            self.home.clock,
            self.home.later,
        )
        self.node = NodeApi(place, 1, self.gate)
        self.actor = BackupActor(self.home, self.node)
        self.actor.setup()

    def lead(self, *, is_leader: bool = True) -> None:
        role = RoleIs(Term(1), MemberId(1), is_leader=is_leader)
        self.node.noticed(role)
        self.actor.handle(role)

    def pass_time(self, by_s: float) -> None:
        self.home.later.advance(by_s)
        self.home.run()

    @property
    def streams(self) -> list[int]:
        """Tokens of the snapshots that were asked for."""
        return [message.token for message in self.gate.of(OpenStream)]

    def send(self, snapshot: bytes, *, end: Status = OK) -> None:
        token = self.streams[-1]
        for at in range(0, len(snapshot), 1000):
            blob = snapshot[at : at + 1000]
            self.actor.handle(StreamSaid(token, SnapshotResponse(blob=blob).SerializeToString()))
        self.actor.handle(StreamEnded(token, end))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


Make = Callable[..., House]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make houses that are left in order."""
    houses: list[House] = []

    def made(folder: Path, **options: Any) -> House:
        houses.append(House(folder, **options))
        return houses[-1]

    yield made
    for house in houses:
        house.actor.teardown()


@pytest.fixture
def snapshot(tmp_path: Path) -> bytes:
    """A store as a client gets it."""
    node = FakeNode()
    node.put(b"a", b"b")
    export(node.view, tmp_path / "snapshot")
    content = (tmp_path / "snapshot").read_bytes()
    return content + hashlib.sha256(content).digest()


def test_a_backup_is_taken_at_once_then_at_intervals(make: Make, tmp_path: Path, snapshot: bytes) -> None:
    """Under its own name only when it is whole, and as a snapshot that any tool reads."""
    house = make(tmp_path / "backups")
    house.lead()
    assert len(house.streams) == 1
    house.send(snapshot)
    assert len(house.names()) == 1
    path = house.folder / house.names()[0]
    assert path.name.startswith("snapshot-m1-2023")
    assert read_status(path).revision == 3
    house.pass_time(599.0)
    assert len(house.streams) == 1
    house.pass_time(1.0)
    assert len(house.streams) == 2
    house.send(snapshot)
    assert len(house.names()) == 2


def test_a_restart_does_not_take_one_before_its_time(make: Make, tmp_path: Path, snapshot: bytes) -> None:
    """A crash loop must not fill the folder, or push out what is older."""
    first = make(tmp_path / "backups")
    first.lead()
    first.send(snapshot)
    (tmp_path / "backups" / "snapshot-m1.part").write_bytes(b"left by a crash")
    second = make(tmp_path / "backups")
    second.lead()
    assert second.streams == []
    assert len(second.names()) == 1
    second.pass_time(601.0)
    assert len(second.streams) == 1


def test_only_the_leader_takes_backups_unless_told_otherwise(make: Make, tmp_path: Path) -> None:
    """One copy of the cluster's state is enough, and whoever comes to lead goes on."""
    house = make(tmp_path / "backups")
    house.lead(is_leader=False)
    house.pass_time(6000.0)
    assert house.streams == []
    house.lead()
    assert len(house.streams) == 1
    everybody = make(tmp_path / "others", only_on_leader=False)
    everybody.pass_time(0.0)
    assert len(everybody.streams) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "refused"])
def test_a_backup_that_is_not_whole_leaves_nothing_and_is_tried_again(
    make: Make, tmp_path: Path, snapshot: bytes, damage: str
) -> None:
    """A bad file that looks like a backup is worse than none."""
    house = make(tmp_path / "backups")
    house.lead()
    flipped = bytearray(snapshot)
    flipped[5000] ^= 1
    content = {"cut": snapshot[:-600], "flipped": bytes(flipped), "refused": b""}[damage]
    house.send(content, end=Status(Code.UNAVAILABLE, "no") if damage == "refused" else OK)
    assert house.names() == []
    assert [entry["log_level"] for entry in house.home.log.entries] == ["error"]
    house.pass_time(RETRY_S)
    assert len(house.streams) == 2
    house.send(snapshot)
    assert len(house.names()) == 1


def test_a_stop_leaves_nothing_half_done(make: Make, tmp_path: Path, snapshot: bytes) -> None:
    """What was written so far is no backup."""
    house = make(tmp_path / "backups")
    house.lead()
    house.actor.handle(StreamSaid(house.streams[0], SnapshotResponse(blob=snapshot[:100]).SerializeToString()))
    house.actor.teardown()
    assert house.names() == []
    assert house.gate.of(CloseStream)
    house.actor.handle(StreamSaid(house.streams[0], b""))  # was on its way
    house.actor.handle(Due())


def test_old_backups_go_and_nobody_elses(make: Make, tmp_path: Path, snapshot: bytes) -> None:
    """A shared folder holds what other members, and people, have put there."""
    house = make(tmp_path / "backups", keep_count=2)
    now_s = house.home.clock.wall_s()
    own = [file_name("snapshot", "m1", now_s - DAY_S * day, 5) for day in (3, 2, 1)]
    others = ["snapshot-m2-20200101T000000Z-rev1.db", "notes.txt", file_name("weekly", "m1", 0, 1)]
    for name in (*own, *others):
        (house.folder / name).write_bytes(b"")
    house.lead()
    house.send(snapshot)
    left = set(house.names()) - set(others)
    assert set(others) <= set(house.names())
    assert len(left) == 2
    assert own[2] in left


def test_which_may_go() -> None:
    """By count, by age, or both; the newest stays whatever its age."""
    names = [Backup(DAY_S * day, None) for day in range(5)]  # type: ignore[arg-type]  # the path does not matter
    assert expendable(names, DAY_S * 5, 0, 0) == []
    assert expendable(names, DAY_S * 5, 2, 0) == names[:3]
    assert expendable(names, DAY_S * 5, 0, 2.5) == names[:3]
    assert expendable(names, DAY_S * 5, 4, 3.5) == names[:2]
    assert expendable(names, DAY_S * 500, 0, 1) == names[:4]
    assert expendable(names[:1], DAY_S * 500, 1, 1) == []
    assert expendable([], 0.0, 1, 1) == []


def test_names_are_safe_and_are_found_again(tmp_path: Path) -> None:
    """A member may be called anything."""
    name = file_name("p", "../a b", 1_700_000_000, 7)
    assert name == "p-_a_b-20231114T221320Z-rev7.db" or "/" not in name
    (tmp_path / name).write_bytes(b"")
    assert [backup.taken_s for backup in backups_in(tmp_path, "p", "../a b")] == [1_700_000_000.0]


@pytest.mark.parametrize(
    "options",
    [
        {"folder": ""},
        {"folder": "f", "every_s": 0.5},
        {"folder": "f", "keep_count": -1},
        {"folder": "f", "prefix": "a/b"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    """They are refused at the start."""
    with pytest.raises(ValueError, match=r"option|every-s"):
        BackupOptions(**options)
