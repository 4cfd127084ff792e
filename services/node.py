"""What services may ask of the node that they are part of.

A ServeActor implements it.  Everything here belongs to the listener's loop thread; what takes longer goes out as a
message and comes back as a call of *then*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.apply.header import ResponseHeaders
    from core.auth.rules import Identity, Rules
    from core.errors import EtcdError
    from core.membership.downgrade import Downgrade
    from core.metrics import Sample
    from core.mvcc.hashing import HashKv
    from core.mvcc.view import View
    from core.mvcc.watch_streams import StreamId
    from core.raft.messages import ConfChange
    from core.types import LeaseId, MemberId, Term
    from net.rpc import Call, Context, Status, Stream
    from services.passwords import Passwords
    from services.request_times import RequestTimes
    from services.slow_requests import SlowRequest
    from services.tokens import TokenScheme
    from services.trace_pages import InFlight

    Count = Callable[[bytes, bytes], int]
    """How many live keys lie in [key, range_end)."""


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds on requests, from the configuration."""

    request_bytes_max: int = 1_572_864
    txn_ops_max: int = 128


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """What the primary knows of one lease, seconds."""

    remaining_s: int | None
    """None if it is unknown or has expired."""
    granted_s: int


class Export(Protocol):
    """The store as a file for a client.  Made on the loop; build, read and close belong to work_on_export()."""

    size_bytes: int
    """Known when it is built."""
    storage_version: str
    """What the file's format is called; empty where nothing says so."""

    def build(self) -> bool:
        """Write some more of it; True when it is whole.  Raises OSError."""

    def read(self, size_bytes: int) -> bytes:
        """Return up to so many of the next bytes.  Raises OSError."""

    def close(self) -> None:
        """Let go of it; harmless when repeated."""


class Answerable(Protocol):
    """What waits for a worker's result: a call, or a page."""

    @property
    def done(self) -> bool:
        """Whether nobody waits any more.  May be asked from any thread."""

    def reply(self, message: bytes, /) -> None:
        """Take the result."""

    def fail(self, status: Status, /) -> None:
        """Take note that there is none."""


class Asker(Protocol):
    """Who waits for a read: a call, or a page."""

    @property
    def done(self) -> bool:
        """Whether nobody waits any more."""

    def fail(self, status: Status) -> None:
        """Take note that the read failed."""


class Node(Protocol):
    """The node, seen from a service."""

    @property
    def headers(self) -> ResponseHeaders:
        """Makes response headers."""

    @property
    def limits(self) -> ApiLimits:
        """What requests may ask for."""

    @property
    def view(self) -> View:
        """The newest state that may be read without asking anybody."""

    @property
    def term(self) -> Term:
        """The current raft term."""

    @property
    def leader(self) -> MemberId:
        """Who leads; 0 if nobody is known to."""

    @property
    def fits_bytes(self) -> int:
        """Up to which size in wire form a request surely fits into the quota; of others may_grow must be asked."""

    @property
    def is_learner(self) -> bool:
        """Whether this member has no vote (yet)."""

    @property
    def cluster_version(self) -> str:
        """What the members have agreed on; empty if nothing yet."""

    @property
    def downgrade(self) -> Downgrade:
        """What the members have agreed on about going back a release."""

    @property
    def member_id(self) -> MemberId:
        """This member."""

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed."""

    @property
    def auth(self) -> Rules:
        """Who may do what, as far as this member has applied."""

    @property
    def passwords(self) -> Passwords:
        """Hashes and checks passwords; slow methods through hash_password."""

    @property
    def times(self) -> RequestTimes:
        """Counts how long reads take."""

    @property
    def tokens(self) -> TokenScheme:
        """Makes tokens; to read one, ask identify."""

    def identify(self, context: Context, then: Callable[[Identity], None], refuse: Callable[[EtcdError], None]) -> None:
        """Find out who calls: by token, else by certificate, else it is NOBODY.

        Mostly at once; later where a token comes from an entry that this member has still to apply.  *refuse* gets
        InvalidAuthToken.  For use while auth is on.
        """

    def hash_password(self, call: Call, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """Hand what *job* returns, run on a thread for such things, to *then*; refuse *call* if too many wait."""

    def header(self) -> bytes:
        """Return the wire bytes of a response header at the view's revision (field 1, tag included)."""

    def propose(self, call: Call, tag: bytes, body: bytes, *, as_caller: bool = True) -> None:
        """Have *call* answered by what applying this request gives.

        *tag* is the wire tag of the request's field in InternalRaftRequest, *body* the request's own bytes.  While auth
        is on it is proposed in the caller's name, except where *as_caller* is False: whoever logs in has no name yet.
        """

    def read(self, asker: Asker, then: Callable[[View], None]) -> None:
        """Call *then* with a view that holds every write acknowledged before now (linearizable)."""

    def work(self, call: Answerable, job: Callable[[], bytes], *, slow: bool = False) -> None:
        """Answer *call* with what *job* returns, run on another thread; it may raise an EtcdError.

        A *slow* one takes seconds or more, so it runs where shorter ones do not wait for it.  A job whose call has
        ended is not run.
        """

    def hash_question(self, revision: int, then: Callable[[tuple[View, HashKv | None]], None]) -> None:
        """Look up what the hash of the keys at *revision* is made from, or the hash that a compaction there left."""

    def counter(self, view: View) -> Count | None:
        """Return what counts the live keys of *view* without a scan, if anything can.  For use at once."""

    def may_grow(self, call: Call, cost: int) -> bool:
        """Say whether *cost* more bytes fit into the quota; if not, refuse *call* and raise the alarm."""

    def make_lease_id(self) -> LeaseId:
        """Return a positive id that no lease has."""

    def renew_lease(self, lease: LeaseId, then: Callable[[int | EtcdError], None]) -> None:
        """Prolong *lease*; *then* gets its time to live in seconds, 0 if there is no such lease."""

    def lease_times(self, lease: LeaseId, then: Callable[[LeaseTimes | EtcdError], None]) -> None:
        """Look up how long *lease* has."""

    def lease_keys(self, lease: LeaseId, then: Callable[[Sequence[bytes]], None]) -> None:
        """Look up the keys attached to *lease*."""

    def leased_keys(self, then: Callable[[Sequence[bytes]], None]) -> None:
        """Look up every key that is attached to any lease."""

    def list_leases(self, then: Callable[[Sequence[tuple[float, LeaseId]]], None]) -> None:
        """List when each lease expires, in no order."""

    def open_watch(self, stream: Stream) -> StreamId:
        """Register a watch stream; the number names it in the calls below."""

    def watch(self, number: StreamId, request: bytes, user: str | None = None, refusal: str = "") -> None:
        """Pass a valid WatchRequest on; *user* asks it while auth is on.  A *refusal* is why it must be turned down."""

    def watch_drained(self, number: StreamId) -> None:
        """Notice that all that was sent on the stream has left."""

    def close_watch(self, number: StreamId) -> None:
        """Forget the stream."""

    def members(self, then: Callable[[Sequence[bytes]], None]) -> None:
        """List the members, ascending by id, each as the wire bytes of MemberListResponse.members (tag included)."""

    def wall_s(self) -> int:
        """Return seconds since 1970."""

    def change_members(self, change: ConfChange, then: Callable[[Sequence[bytes] | EtcdError], None]) -> None:
        """Carry out *change*; *then* gets the members after it, as `members` does, or why it was refused."""

    def promote_member(self, member: MemberId, then: Callable[[Sequence[bytes] | EtcdError], None]) -> None:
        """Make a learner a voter, wherever that is decided."""

    def move_leader(self, to: MemberId, then: Callable[[EtcdError | None], None]) -> None:
        """Let *to* lead; *then* gets None when it does."""

    def alarms(self, then: Callable[[Sequence[tuple[MemberId, int]]], None]) -> None:
        """List the active alarms: member and alarm type."""

    def defragment(self, then: Callable[[object], None]) -> None:
        """Give space back to the file system, beside the traffic."""

    def open_export(self) -> Export | EtcdError:
        """Begin to export the view as a file; an error where too many exports are under way."""

    def work_on_export(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """Run *job*, which takes milliseconds, on the thread for exports; *then* gets what it returns."""

    def close_export(self, export: Export, error: str) -> None:
        """Let go of *export* once its job has ended; *error* is empty if all of it was sent."""

    def raft_status(self, then: Callable[[Mapping[str, object]], None]) -> None:
        """Look up how consensus stands, in the form in which it is shown."""

    def profile(self, answer: Answerable, job: Callable[[], bytes]) -> None:
        """Give *answer* what *job* returns, run on the thread for profiles: it may take minutes."""

    def at_deadline(self, timeout_s: float, then: Callable[[], None]) -> tuple[float, Callable[[], None]]:
        """Call *then* in *timeout_s* seconds; return when that is, on the loop's clock, and what calls it off."""

    def describe_extensions(self, then: Callable[[Sequence[Mapping[str, object]]], None]) -> None:
        """Look up how the extensions are, in the form in which it is shown."""

    def gather(self, then: Callable[[Sequence[Sample]], None]) -> None:
        """Look up the numbers that the actors keep of their work, as they are now."""

    def in_flight(self) -> InFlight:
        """Look up what clients of this listener wait for."""

    def slow_requests(self) -> Sequence[SlowRequest]:
        """Return the newest requests of this listener that took too long, oldest first."""

    def sizes(self, then: Callable[[tuple[int, int]], None]) -> None:
        """Look up the bytes allocated by the store's files, and the bytes in use."""
