"""Leader election (raft paper 5.1, 5.2, 5.4.1; raft thesis 3.8, 4.2.3, 6.2, 9.6)."""

from __future__ import annotations

import pytest

from core.raft.events import (
    BecameCandidate,
    BecameLeader,
    CampaignRefused,
    LeaderChanged,
    MessageRefused,
    QuorumLost,
    VoteCast,
    VoteIgnored,
)
from core.raft.messages import CAMPAIGN_TRANSFER, Message, MessageType
from core.raft.node import RaftConfig
from core.raft.role import ProposeResult, Role
from core.types import Index, MemberId, Term
from tests.unit.raft_nodes import acknowledge, drain, entries, make_leader, make_node, message


def heartbeat(term: int, sender: int = 2) -> Message:
    """Return a heartbeat of *term*."""
    return message(MessageType.HEARTBEAT, sender, term=Term(term))


# 5.1: terms.


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_5_1_any_role_follows_a_higher_term(role: Role) -> None:
    """Who finds its term out of date becomes a follower at once, and knows the leader if a leader told it."""
    node = make_leader([1]) if role is Role.LEADER else make_node([1], pre_vote=False)
    if role is Role.CANDIDATE:
        node.campaign()
    assert node.role is role
    node.step(heartbeat(9))
    assert (node.role, node.term, node.vote, node.leader_id) == (Role.FOLLOWER, 9, 0, 2)


def test_5_1_a_lower_term_is_answered_with_ones_own() -> None:
    """A leader of the past must hear of the new term even if the votes that carry it are ignored."""
    node = make_node([1], term=5)
    node.step(heartbeat(3))
    (answer,) = drain(node).messages
    assert (answer.type, answer.to, answer.term) == (MessageType.APPEND_RESPONSE, 2, 5)


def test_5_1_a_lower_term_is_ignored_where_votes_are_always_heard() -> None:
    """Without pre-vote and quorum checks terms spread by votes, so nothing is answered (raft paper)."""
    node = make_node([1], term=5, pre_vote=False, check_quorum=False)
    node.step(heartbeat(3))
    node.step(message(MessageType.VOTE_RESPONSE, term=3))
    assert not node.has_ready()


@pytest.mark.parametrize(
    "strange",
    [
        heartbeat(3)._replace(to=MemberId(7)),
        heartbeat(3)._replace(sender=MemberId(1)),
        heartbeat(3)._replace(sender=MemberId(0)),
        heartbeat(0),
    ],
)
def test_a_message_from_nobody_or_to_another_is_dropped(strange: Message) -> None:
    """What a peer sends is input: it is refused with an event, never raised on, and changes nothing."""
    node = make_node([1])
    node.step(strange)
    output = drain(node)
    assert [type(event) for event in output.events] == [MessageRefused]
    assert (output.messages, node.term) == ([], 1)


# 5.2: elections.


def test_5_2_a_follower_stands_after_a_randomised_timeout() -> None:
    """Timeouts are spread over one to two election timeouts, so that votes are rarely split."""
    timeouts = set()
    node = make_node([1], pre_vote=False, check_quorum=False)
    for _ in range(200):
        term = node.term
        ticks = 0
        while node.term == term:
            node.tick()
            ticks += 1
        timeouts.add(ticks)
    assert timeouts == set(range(10, 20))


def test_5_2_a_leader_that_speaks_puts_the_election_off() -> None:
    """As long as heartbeats come, nobody stands."""
    node = make_node([1])
    for _ in range(50):
        node.tick()
        node.step(heartbeat(1))
    assert node.role is Role.FOLLOWER


@pytest.mark.parametrize(
    ("voters", "yes", "no", "role"),
    [
        ((1,), [], [], Role.LEADER),
        ((1, 2, 3), [2], [], Role.LEADER),
        ((1, 2, 3), [], [2], Role.CANDIDATE),
        ((1, 2, 3), [], [2, 3], Role.FOLLOWER),
        ((1, 2, 3, 4), [2], [], Role.CANDIDATE),
        ((1, 2, 3, 4), [2], [3, 4], Role.FOLLOWER),
        ((1, 2, 3, 4, 5), [2, 5], [3], Role.LEADER),
        ((1, 2, 3), [9, 8], [], Role.CANDIDATE),
    ],
)
def test_5_2_a_majority_makes_a_leader(voters: tuple[int, ...], yes: list[int], no: list[int], role: Role) -> None:
    """Votes of strangers do not count; a candidate that cannot win any more goes back to following."""
    node = make_node([1], voters=voters, pre_vote=False)
    node.campaign()
    drain(node)
    for sender in [*no, *yes]:
        node.step(message(MessageType.VOTE_RESPONSE, sender, term=Term(2), reject=sender in no))
    assert (node.role, node.term, node.vote) == (role, 2, 1)


def test_5_2_a_voter_counts_once() -> None:
    """A vote that arrives twice is one vote, and the first answer stays."""
    node = make_node([1], voters=(1, 2, 3, 4, 5), pre_vote=False)
    node.campaign()
    drain(node)
    for reject in (False, False, True):
        node.step(message(MessageType.VOTE_RESPONSE, 2, term=Term(2), reject=reject))
    roles = [node.role]
    node.step(message(MessageType.VOTE_RESPONSE, 3, term=Term(2)))
    assert [*roles, node.role] == [Role.CANDIDATE, Role.LEADER]


def test_5_2_one_vote_a_term() -> None:
    """First come, first served; the same candidate gets the same answer again."""
    node = make_node([1], check_quorum=False)
    for sender in (2, 3, 2):
        node.step(message(MessageType.VOTE, sender, term=Term(2), index=Index(1), log_term=Term(1)))
    assert [(answer.to, answer.reject) for answer in drain(node).messages] == [(2, False), (3, True), (2, False)]
    assert node.vote == 2


def test_5_2_no_vote_against_a_known_leader_of_the_term() -> None:
    """Who already follows a leader of this term does not elect another in it."""
    node = make_node([1])
    node.step(heartbeat(2, sender=3))
    drain(node)
    node.step(message(MessageType.VOTE, 2, term=Term(2), index=Index(9), log_term=Term(1)))
    assert drain(node).messages[0].reject


@pytest.mark.parametrize("kind", [MessageType.HEARTBEAT, MessageType.APPEND])
@pytest.mark.parametrize("pre_vote", [False, True])
def test_5_2_a_candidate_follows_the_leader_of_its_term(kind: MessageType, pre_vote: bool) -> None:
    """Another has won: the candidate takes its message as a follower does."""
    node = make_node([1], pre_vote=pre_vote)
    node.campaign()
    drain(node)
    node.step(message(kind, 3, term=node.term, index=Index(1), log_term=Term(1)))
    assert (node.role, node.leader_id) == (Role.FOLLOWER, 3)
    assert drain(node).messages[0].to == 3


def test_5_2_an_undecided_election_starts_over() -> None:
    """With a split vote the candidate stands again in the next term after a new timeout."""
    node = make_node([1], pre_vote=False)
    node.campaign()
    for _ in range(20):
        node.tick()
    assert (node.role, node.term) == (Role.CANDIDATE, 3)


def test_5_2_a_leader_makes_itself_known() -> None:
    """It appends an entry of its term and sends it to all, so that no other election starts."""
    node = make_node([1], pre_vote=False)
    node.campaign()
    drain(node)
    node.step(message(MessageType.VOTE_RESPONSE, 2, term=Term(2)))
    output = drain(node)
    assert output.events == [BecameLeader(Term(2)), LeaderChanged(Term(2), MemberId(1), MemberId(0))]
    assert [(append.to, append.index, append.entries[0].data) for append in output.of(MessageType.APPEND)] == [
        (2, 1, b""),
        (3, 1, b""),
    ]


def test_5_2_a_leader_does_not_stand_again() -> None:
    """Being told to campaign is nothing to a leader."""
    node = make_leader()
    node.campaign()
    node.campaign(transferred=True)
    assert (node.role, node.has_ready()) == (Role.LEADER, False)


# 5.4.1: the candidate's log.


@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.PRE_VOTE])
@pytest.mark.parametrize(
    ("index", "log_term", "granted"), [(2, 2, True), (3, 2, True), (1, 3, True), (1, 2, False), (9, 1, False)]
)
def test_5_4_1_only_an_up_to_date_candidate_gets_a_vote(
    kind: MessageType, index: int, log_term: int, granted: bool
) -> None:
    """Its log must be at least as new as the voter's, or committed entries could get lost."""
    node = make_node([1, 2])
    node.step(message(kind, term=Term(3), index=Index(index), log_term=Term(log_term)))
    output = drain(node)
    assert output.messages[0].reject is not granted
    assert VoteCast(Term(3), MemberId(2), kind is MessageType.PRE_VOTE, granted) in output.events


# Thesis 3.8: what must be on disk first.


def test_thesis_3_8_a_vote_leaves_when_it_is_durable() -> None:
    """A vote that a crash forgets could be cast twice in a term."""
    node = make_node([1])
    node.step(message(MessageType.VOTE, term=Term(2), index=Index(1), log_term=Term(1)))
    ready = node.take_ready()
    assert ready.hard_state == (2, 2, 0)
    assert ready.must_sync
    assert [answer.type for answer in ready.after_sync] == [MessageType.VOTE_RESPONSE]
    assert ready.messages == ()


def test_thesis_3_8_a_candidate_s_own_vote_counts_when_it_is_durable() -> None:
    """Until then a crash could have it vote for another in the same term, and two leaders would be elected."""
    node = make_node([1], pre_vote=False)
    node.campaign()
    ready = node.take_ready()
    node.step(message(MessageType.VOTE_RESPONSE, 2, term=Term(2)))
    roles = [node.role]
    assert ready.stable is not None
    node.stable(*ready.stable)
    assert [*roles, node.role] == [Role.CANDIDATE, Role.LEADER]


def test_thesis_3_8_an_older_write_does_not_stand_for_the_vote() -> None:
    """Only a write of the candidate's own term holds its vote."""
    node = make_leader([1], pre_vote=False)
    node.propose([b"x"])
    older = node.take_ready()
    node.step(message(MessageType.VOTE_RESPONSE, 2, term=Term(7)))
    node.campaign()
    node.step(message(MessageType.VOTE_RESPONSE, 2, term=Term(8)))
    node.take_ready()
    assert older.stable is not None
    node.stable(*older.stable)
    assert (node.role, node.term) == (Role.CANDIDATE, 8)


def test_thesis_3_8_a_request_for_a_vote_waits_for_the_log_it_speaks_of() -> None:
    """A candidate that restarts without its last entries must not meet votes that were given for them."""
    node = make_node([1], pre_vote=False)
    node.step(
        message(MessageType.APPEND, term=Term(1), index=Index(1), log_term=Term(1), entries=tuple(entries([1], 2)))
    )
    node.take_ready()
    node.campaign()
    ready = node.take_ready()
    assert ready.messages == ()
    assert [(request.type, request.index) for request in ready.after_sync] == [(MessageType.VOTE, 2)] * 2


# Thesis 9.6: pre-vote.


def test_thesis_9_6_a_pre_candidate_changes_nothing() -> None:
    """It asks about the next term and keeps its own; nothing is written, and nothing waits for a disk."""
    node = make_node([1], vote=3)
    node.campaign()
    ready = node.take_ready()
    assert (node.role, node.term, node.vote) == (Role.PRE_CANDIDATE, 1, 3)
    assert [(request.type, request.to, request.term) for request in ready.messages] == [
        (MessageType.PRE_VOTE, 2, 2),
        (MessageType.PRE_VOTE, 3, 2),
    ]
    assert (ready.hard_state, ready.must_sync, ready.after_sync) == (None, False, ())


def test_thesis_9_6_a_pre_vote_binds_nobody() -> None:
    """Any number of candidates may be told that they would win; the voter's term and vote stay."""
    node = make_node([1], check_quorum=False)
    for sender in (2, 3):
        node.step(message(MessageType.PRE_VOTE, sender, term=Term(2), index=Index(1), log_term=Term(1)))
    ready = node.take_ready()
    assert [(answer.to, answer.term, answer.reject) for answer in ready.messages] == [(2, 2, False), (3, 2, False)]
    assert (node.term, node.vote, ready.hard_state) == (1, 0, None)


@pytest.mark.parametrize(
    ("answers", "role", "term"),
    [
        ([(2, 2, False)], Role.CANDIDATE, 2),
        ([(2, 1, True)], Role.PRE_CANDIDATE, 1),
        ([(2, 1, True), (3, 1, True)], Role.FOLLOWER, 1),
        ([(2, 3, True)], Role.FOLLOWER, 3),
        ([(2, 1, False)], Role.PRE_CANDIDATE, 1),
        ([(2, 5, False)], Role.PRE_CANDIDATE, 1),
    ],
)
def test_thesis_9_6_answers_to_a_pre_vote(answers: list[tuple[int, int, bool]], role: Role, term: int) -> None:
    """A majority leads to the election; a refusal may bring a newer term; a yes to another question does not count."""
    node = make_node([1])
    node.campaign()
    drain(node)
    for sender, of_term, reject in answers:
        node.step(message(MessageType.PRE_VOTE_RESPONSE, sender, term=Term(of_term), reject=reject))
    assert (node.role, node.term) == (role, term)


def test_thesis_9_6_a_pre_candidate_of_the_past_is_told_the_term() -> None:
    """It has voted for itself in terms that others have left behind, and would ask in vain for ever."""
    node = make_node([1], term=5)
    node.step(message(MessageType.PRE_VOTE, term=Term(3), index=Index(9), log_term=Term(3)))
    (answer,) = drain(node).messages
    assert (answer.type, answer.term, answer.reject) == (MessageType.PRE_VOTE_RESPONSE, 5, True)


def test_thesis_9_6_a_candidate_takes_no_pre_votes() -> None:
    """Late answers to the question before are not votes."""
    node = make_node([1], voters=(1, 2, 3, 4, 5))
    node.campaign()
    for sender in (2, 3, 4, 5):
        node.step(message(MessageType.PRE_VOTE_RESPONSE, sender, term=Term(2)))
    drain(node)
    assert node.role is Role.CANDIDATE


# Thesis 4.2.3 and 6.2: leases and quorum checks.


@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.PRE_VOTE])
def test_thesis_4_2_3_who_hears_a_leader_ignores_votes(kind: MessageType) -> None:
    """A member that was removed, or cut off, must not disturb those who have a leader."""
    node = make_node([1])
    node.step(heartbeat(1))
    drain(node)
    asked = message(kind, 3, term=Term(2), index=Index(9), log_term=Term(1))
    node.step(asked)
    output = drain(node)
    assert (output.messages, output.events, node.term) == ([], [VoteIgnored(Term(2), MemberId(3))], 1)
    node.step(asked._replace(context=CAMPAIGN_TRANSFER))
    assert not drain(node).messages[0].reject


def test_thesis_4_2_3_an_election_timeout_without_the_leader_ends_that() -> None:
    """From then on it helps to elect another."""
    node = make_node([1])
    node.step(heartbeat(1))
    for _ in range(10):
        node.tick()
    node.step(message(MessageType.VOTE, 3, term=Term(2), index=Index(9), log_term=Term(1)))
    assert (node.term, node.vote) == (2, 3)


def test_thesis_6_2_a_leader_without_a_quorum_steps_down() -> None:
    """Its clients would wait for ever; one answer of a majority within an election timeout keeps it."""
    node = make_leader(voters=(1, 2, 3, 4, 5))
    for _ in range(10):
        acknowledge(node, 2)
        node.step(message(MessageType.HEARTBEAT_RESPONSE, 3, term=node.term))
        node.tick()
    assert node.role is Role.LEADER
    for _ in range(9):
        node.tick()
        acknowledge(node, 2)
    assert node.role is Role.LEADER
    node.tick()
    assert (node.role, node.term, node.leader_id) == (Role.FOLLOWER, 1, 0)
    assert QuorumLost(Term(1)) in drain(node).events


def test_thesis_6_2_without_the_check_a_leader_stays() -> None:
    """The check is a setting."""
    node = make_leader(check_quorum=False)
    for _ in range(50):
        node.tick()
    assert node.role is Role.LEADER


# Who may stand.


def test_a_learner_does_not_stand_but_votes() -> None:
    """It may have been promoted without knowing it yet: then its vote may be the one that is needed."""
    node = make_node([1], voters=(2, 3), learners=(1,))
    for _ in range(50):
        node.tick()
    node.step(message(MessageType.TIMEOUT_NOW, term=Term(1)))
    assert (node.role, node.term) == (Role.FOLLOWER, 1)
    node.step(message(MessageType.VOTE, term=Term(2), index=Index(1), log_term=Term(1)))
    output = drain(node)
    assert not output.messages[0].reject
    assert type(output.events[0]) is CampaignRefused


def test_a_candidate_has_nobody_to_ask() -> None:
    """Without a leader proposals and reads are refused at once, so that the asker may try elsewhere."""
    node = make_node([1])
    node.campaign()
    node.transfer_leader(MemberId(2))
    assert (node.propose([b"x"]), node.read_index(1)) == (ProposeResult.NO_LEADER, False)
    assert not ProposeResult.NO_LEADER.accepted


def test_a_role_drops_what_means_nothing_to_it() -> None:
    """A leader hears no leader of its own term, a follower no votes it did not ask for."""
    node = make_leader()
    for kind in MessageType:
        if kind not in {MessageType.PROPOSE, MessageType.READ_INDEX, MessageType.TRANSFER_LEADER}:
            node.step(message(kind, 9, term=node.term))
    assert node.role is Role.LEADER
    follower = make_node([1])
    follower.step(message(MessageType.VOTE_RESPONSE, term=Term(1)))
    follower.step(message(MessageType.APPEND_RESPONSE, term=Term(1)))
    assert not follower.has_ready()


def test_reports_mean_something_to_a_leader_only() -> None:
    """A transport reports on, whoever leads now."""
    node = make_node([1])
    node.report_unreachable(MemberId(2))
    node.report_snapshot(MemberId(2), ok=True)
    node.campaign()
    assert BecameCandidate(Term(2)) not in drain(node).events


@pytest.mark.parametrize(
    "values", [{"member_id": 0}, {"heartbeat_ticks": 10}, {"heartbeat_ticks": 0}, {"inflight_messages_max": 0}]
)
def test_a_configuration_that_cannot_work_is_refused(values: dict[str, int]) -> None:
    """Elections must take longer than heartbeats, and something must be allowed to be sent."""
    with pytest.raises(ValueError, match="raft:"):
        RaftConfig(**({"member_id": MemberId(1)} | values))  # type: ignore[arg-type]  # a table of wrong values


@pytest.mark.parametrize(("applied", "commit"), [(0, 3), (5, 3), (3, 5)])
def test_a_disk_that_contradicts_itself_is_refused(applied: int, commit: int) -> None:
    """A log that ends before what was committed or applied has lost entries: the member must not start."""
    with pytest.raises(ValueError, match="raft:"):
        make_node([2, 2], compacted=(2, 1), applied=applied, commit=commit)


def test_what_was_applied_was_committed() -> None:
    """A commit index that was not synced may come back older than the store; the store is right."""
    node = make_node([1, 1, 1], commit=1, applied=2)
    ready = node.take_ready()
    assert (node.commit, ready.hard_state, ready.must_sync) == (2, (1, 0, 2), False)
