"""Reads a scenario file, runs its commands on a cluster and says what happened.

A file is prose: blocks with blank lines between them.  A block is comments (#), then commands, then ``----`` and what
the commands brought about; a block without ``----`` is set-up, whose outcome nobody looks at.  ``pytest
tests/scenarios --rewrite`` records the outcomes anew.  The commands are the do_ methods below.

Unless ``manual`` was said, the cluster comes to rest after each command: everything is taken, synced and delivered.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from core.raft.events import LeaderChanged, RaftEvent
from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
)
from core.raft.node import RaftConfig
from core.raft.role import ProposeResult
from core.types import Index, MemberId
from tests.scenarios.cluster import Cluster, Member, decode_change, encode_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.raft.ready import ReadState

KINDS = {"+": ConfChangeType.ADD_NODE, "-": ConfChangeType.REMOVE_NODE, "~": ConfChangeType.ADD_LEARNER_NODE}
SIGNS = {kind: sign for sign, kind in KINDS.items()} | {ConfChangeType.UPDATE_NODE: "="}
SEPARATOR = "----"


@dataclass(slots=True)
class Block:
    """One block of a file; *expected* is None in set-up."""

    comments: list[str]
    commands: list[str]
    expected: list[str] | None

    def text(self) -> str:
        """Return the block as it stands in a file."""
        outcome = [] if self.expected is None else [SEPARATOR, *self.expected]
        return "\n".join([*self.comments, *self.commands, *outcome])


def parse(text: str) -> list[Block]:
    """Return the blocks of a file."""
    blocks = []
    for part in text.strip().split("\n\n"):
        lines = part.strip("\n").split("\n")
        cut = lines.index(SEPARATOR) if SEPARATOR in lines else None
        head = lines[:cut]
        comments = [line for line in head if line.startswith("#")]
        commands = [line for line in head if not line.startswith("#")]
        blocks.append(Block(comments, commands, None if cut is None else lines[cut + 1 :]))
    return blocks


def run(blocks: Sequence[Block]) -> list[Block]:
    """Run the commands of a file and return its blocks with what happened."""
    script = Script()
    outcomes = []
    for block in blocks:
        script.lines = []
        for command in block.commands:
            script.do(command)
        outcomes.append(Block(block.comments, block.commands, None if block.expected is None else script.lines))
    return outcomes


class Script:
    """A cluster under commands, and the lines that say what happens to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._cluster = Cluster(self)
        self._manual = self._trace = False
        self._options: dict[str, int] = {}

    def do(self, line: str) -> None:
        """Do what one line says."""
        name, *words = shlex.split(line)
        options = {key: value for key, _, value in (word.partition("=") for word in words) if value}
        plain = [word for word in words if word.partition("=")[2] == ""]
        command = getattr(self, f"do_{name.replace('-', '_')}")
        command(*plain, **options)
        if not self._manual:
            self._cluster.settle()

    # What the cluster tells.

    def on_event(self, member: Member, event: RaftEvent) -> None:
        """Say what a member reports of itself."""
        if isinstance(event, LeaderChanged):
            self._say(member, f"leader {event.previous_id} -> {event.leader_id} term={event.term}")
            return
        name = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(event).__name__)
        values = " ".join(f"{field.name}={_show(getattr(event, field.name))}" for field in fields(event))
        self._say(member, f"{name.strip()} {values.removeprefix('conf_state=')}")

    def on_applied(self, member: Member, entry: Entry) -> None:
        """Say what a member applied."""
        self._say(member, f"applied {_entry(entry)}")
        if entry.type is not EntryType.NORMAL:
            assert member.store.conf_state == member.node.conf_state

    def on_restored(self, member: Member, index: Index) -> None:
        """Say that a member took over a snapshot."""
        self._say(member, f"restored its store up to {index}")

    def on_read(self, member: Member, state: ReadState) -> None:
        """Say that a read may be served."""
        self._say(member, f"read {state.context} at {state.index}")

    def on_sent(self, message: Message) -> None:
        """Say what left, while messages are traced."""
        if self._trace:
            self.lines.append(f"  {_message(message)}")

    # Set-up, and how much is shown.

    def do_cluster(self, size: str, learners: str = "", **options: str) -> None:
        """``cluster 3 [learners=3] [pre_vote=0] ...``: boot members 1 to 3; the options are RaftConfig's."""
        self._options = {key: int(value) for key, value in options.items()}
        configs = [self._config(number) for number in range(1, int(size) + 1)]
        self._cluster.bootstrap(configs, [int(learner) for learner in learners.split(",") if learner])

    def do_join(self, number: str) -> None:
        """``join 4``: start a member that knows nothing yet."""
        self._cluster.add(self._config(int(number)))

    def do_manual(self) -> None:
        """``manual``: from here on nothing is taken, synced or delivered by itself."""
        self._manual = True

    def do_auto(self) -> None:
        """``auto``: the opposite of manual."""
        self._manual = False

    def do_trace(self, switch: str) -> None:
        """``trace on, trace off``: show messages as they leave."""
        self._trace = switch == "on"

    # What members are asked to do.

    def do_campaign(self, number: str) -> None:
        """``campaign 1``: its election timeout is over."""
        self._member(number).node.campaign()

    def do_elect(self, number: str) -> None:
        """``elect 1``: campaign, and let all come to rest even if manual."""
        self.do_campaign(number)
        self._cluster.settle()

    def do_tick(self, number: str, count: str = "1") -> None:
        """``tick 1 3, tick all 3``: let time pass; unless manual, all come to rest after each."""
        members = list(self._cluster.members.values()) if number == "all" else [self._member(number)]
        for _ in range(int(count)):
            for member in members:
                if member.up:
                    member.node.tick()
            if not self._manual:
                self._cluster.settle()

    def do_propose(self, number: str, *datas: str) -> None:
        """``propose 1 "a" "b"``: put entries into the log by way of member 1."""
        self._result(number, self._member(number).node.propose([data.encode() for data in datas]))

    def do_change(self, number: str, *singles: str, joint: str = "") -> None:
        """``change 1 +4 ~5 -2 [joint=explicit|implicit]``: + votes, ~ learns, - leaves; none: end joint."""
        changes = tuple(ConfChangeSingle(KINDS[single[0]], MemberId(int(single[1:]))) for single in singles)
        node = self._member(number).node
        if len(changes) == 1 and not joint:
            change = ConfChange(changes[0].type, changes[0].node_id)
            self._result(number, node.propose_conf_change(encode_change(change)))
            return
        transition = ConfChangeTransition[f"JOINT_{joint.upper()}" if joint else "AUTO"]
        data = encode_change(ConfChangeV2(transition, changes))
        self._result(number, node.propose_conf_change(data, EntryType.CONF_CHANGE_V2))

    def do_transfer(self, number: str, to: str) -> None:
        """``transfer 1 2``: member 1 is asked to have 2 lead."""
        self._member(number).node.transfer_leader(MemberId(int(to)))

    def do_read(self, number: str, context: str) -> None:
        """``read 1 77``: member 1 asks for the index of a read named 77."""
        if not self._member(number).node.read_index(int(context)):
            self.lines.append(f"{number} cannot ask anybody")

    def do_compact(self, number: str, index: str = "") -> None:
        """``compact 1 [5]``: member 1 drops its log up to what it applied, or up to 5."""
        member = self._member(number)
        member.compact(Index(int(index)) if index else member.store.applied)

    def do_unreachable(self, number: str, peer: str) -> None:
        """``unreachable 1 2``: member 1's transport lost a message to 2."""
        self._member(number).node.report_unreachable(MemberId(int(peer)))

    # One step at a time.

    def do_settle(self, *numbers: str) -> None:
        """``settle [1 2]``: let all come to rest, or only some; the others' messages stay under way."""
        self._cluster.settle([MemberId(int(number)) for number in numbers] or None)

    def do_take(self, number: str) -> None:
        """``take 1``: one Ready; what it writes is then in flight."""
        ready = self._member(number).take()
        if ready is None:
            self.lines.append(f"{number} has nothing")
            return
        writes = [_entry(entry) for entry in ready.entries]
        if ready.hard_state is not None:
            writes.append("term={} vote={} commit={}".format(*ready.hard_state))
        if writes:
            self._say(self._member(number), f"writes {', '.join(writes)}{'' if ready.must_sync else ' (no sync)'}")
        self.lines += [f"  after sync: {_message(message)}" for message in ready.after_sync]

    def do_sync(self, number: str) -> None:
        """``sync 1``: the oldest write in flight reaches the disk."""
        member = self._member(number)
        if not member.sync():
            self.lines.append(f"{number} has no write in flight")
        else:
            self._say(member, f"synced, stable={member.node.writes.stable}")

    def do_deliver(self, source: str, target: str, count: str = "1") -> None:
        """``deliver 1 2 [3]``: hand over the oldest messages from 1 to 2."""
        for _ in range(int(count)):
            message = self._cluster.deliver(MemberId(int(source)), MemberId(int(target)))
            self.lines.append(f"delivered {_message(message)}" if message else f"nothing from {source} to {target}")

    def do_exchange(self, one: str, other: str) -> None:
        """``exchange 1 2``: one round between two: 1 sends, 2 takes it in, writes and answers."""
        link = (MemberId(int(one)), MemberId(int(other)))
        for source, target in (link, link[::-1]):
            while self._member(str(source)).take() or self._member(str(source)).sync():
                pass
            while self._cluster.network.queues.get((source, target)):
                self._cluster.deliver(source, target)

    def do_lose(self, source: str, target: str) -> None:
        """``lose 1 2``: what is under way from 1 to 2 is lost."""
        link = (MemberId(int(source)), MemberId(int(target)))
        while self._cluster.network.queues.get(link):
            self.lines.append(f"lost {_message(self._cluster.lose(*link))}")

    def do_repeat(self, source: str, target: str) -> None:
        """``repeat 1 2``: the oldest message from 1 to 2 is there once more, at the end."""
        queue = self._cluster.network.queues[MemberId(int(source)), MemberId(int(target))]
        queue.append(queue[0])

    # Faults.

    def do_isolate(self, number: str) -> None:
        """``isolate 1``: nothing gets to 1 or from it."""
        for other in self._cluster.members:
            self._cluster.network.cuts.add(frozenset({MemberId(int(number)), other}))

    def do_cut(self, one: str, other: str) -> None:
        """``cut 1 2``: nothing gets from one to the other."""
        self._cluster.network.cuts.add(frozenset({MemberId(int(one)), MemberId(int(other))}))

    def do_heal(self) -> None:
        """``heal``: all get to all."""
        self._cluster.network.cuts.clear()

    def do_crash(self, number: str, written: str = "0") -> None:
        """``crash 1 [2]``: member 1 dies and loses the writes in flight, except the oldest 2."""
        self._member(number).crash(written=int(written))

    def do_restart(self, number: str) -> None:
        """``restart 1``: member 1 starts from its disk."""
        self._member(number).start()

    # What members look like.

    def do_log(self, *numbers: str) -> None:
        """``log 1 2``: show logs."""
        for number in numbers:
            log = self._member(number).node.log
            entries = ", ".join(_entry(entry) for entry in log.entries(log.first, log.last + 1))
            self.lines.append(f"{number} log from {log.first}: {entries or 'empty'}")

    def do_progress(self, number: str) -> None:
        """``progress 1``: show what a leader knows of each member."""
        for peer, progress in self._member(number).node.progress.items():
            notes = [note for note in ("paused", "active") if getattr(progress, note)]
            if progress.snapshot_index:
                notes.append(f"snapshot={progress.snapshot_index}")
            if progress.in_flight:
                notes.append(f"in_flight={len(progress.in_flight)}")
            self.lines.append(
                " ".join([f"{peer} {progress.state.value} match={progress.match} next={progress.next}", *notes])
            )

    def do_state(self) -> None:
        """``state``: show each member in a line."""
        for member in self._cluster.members.values():
            node = member.node
            self.lines.append(
                f"{member.id} {node.role.value if member.up else 'down'} term={node.term} leader={node.leader_id} "
                f"commit={node.commit} applied={node.applied} last={node.log.last} {_conf(node.conf_state)}"
            )

    def _config(self, number: int) -> RaftConfig:
        values: dict[str, Any] = {
            key: bool(value) if key in {"pre_vote", "check_quorum"} else value for key, value in self._options.items()
        }
        return RaftConfig(MemberId(number), **values)

    def _member(self, number: str) -> Member:
        return self._cluster.members[MemberId(int(number))]

    def _say(self, member: Member, text: str) -> None:
        self.lines.append(f"{member.id} {text}")

    def _result(self, number: str, result: ProposeResult) -> None:
        if result is not ProposeResult.ACCEPTED:
            self.lines.append(f"{number} proposal: {result.value}")


def _show(value: object) -> str:
    if isinstance(value, ConfState):
        return _conf(value)
    if isinstance(value, MessageType):
        return value.name.lower()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _conf(conf_state: ConfState) -> str:
    parts = [f"voters={_ids(conf_state.voters)}"]
    parts += [
        f"{name}={_ids(ids)}"
        for name in ("voters_outgoing", "learners", "learners_next")
        if (ids := getattr(conf_state, name))
    ]
    return " ".join(parts + ["auto_leave"] * conf_state.auto_leave)


def _ids(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids)) or "none"


def _entry(entry: Entry) -> str:
    place = f"{entry.index}@{entry.term}" if entry.index else ""
    if entry.type is EntryType.NORMAL:
        return f"{place} {_data(entry.data)}".strip()
    change = decode_change(entry)
    singles = change.changes if isinstance(change, ConfChangeV2) else (ConfChangeSingle(change.type, change.node_id),)
    shown = " ".join(f"{SIGNS[single.type]}{single.node_id}" for single in singles) or "leave joint"
    return f"{place} <{shown}>".strip()


def _data(data: bytes) -> str:
    if data[:1] == b"\0":
        return str(int.from_bytes(data, "big"))
    return f'"{data.decode()}"'


def _message(message: Message) -> str:
    parts = [f"{message.sender}->{message.to} {message.type.name.lower()}"]
    if message.term:
        parts.append(f"term={message.term}")
    if message.type in {MessageType.APPEND, MessageType.VOTE, MessageType.PRE_VOTE}:
        parts.append(f"after={message.index}@{message.log_term}")
    elif message.index:
        parts.append(f"index={message.index}")
    if message.reject:
        parts.append("reject" + (f" hint={message.reject_hint}@{message.log_term}" if message.index else ""))
    if message.entries:
        parts.append(f"[{', '.join(_entry(entry) for entry in message.entries)}]")
    if message.commit:
        parts.append(f"commit={message.commit}")
    if message.context:
        parts.append(
            f"context={message.context.decode() if message.context[0] else int.from_bytes(message.context, 'big')}"
        )
    if message.snapshot is not None:
        metadata = message.snapshot.metadata
        parts.append(f"snapshot={metadata.index}@{metadata.term} {_conf(metadata.conf_state)}")
    return " ".join(parts)
