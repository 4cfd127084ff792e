"""etcdctl talks to actcd and to the real etcd: its output must be the same, word for word.

Scripts are lists of command lines, run by etcdctl 3.4 too.  What may differ is replaced by a name first: ids,
endpoints, the raft term, sizes and durations.  Commands that sort by nothing (keys of a lease) are given one key.  All
share one pair of servers, so revisions are counted from where a script begins.  `check perf` and `check datascale` take
a minute, and are left out.
"""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import pytest

from proto import rpc_pb2
from tests.e2e.auth_client import CHEAP
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.conftest import MakeServer
from tests.e2e.harness import (
    SHORT_TIMEOUTS,
    Server,
    actcd,
    etcd_tool,
    etcdctl_environment,
    real_etcd,
    run_etcdctl,
    running_together,
    wait_for,
)

pytestmark = pytest.mark.e2e

Step = str | tuple[str, str]
"""A command line, words separated by blanks ('' stands for an empty word); or that and its standard input.

$R+N is the revision N after that at which the script began.
"""

OLDER: Final = Path("/usr/bin/etcdctl")
"""Where Debian puts etcdctl 3.4."""

KEY_VALUE: Final[Sequence[Step]] = (
    "get nothing",
    "put a 1",
    "put a 2 --prev-kv",
    "put b",
    "put --ignore-value a",
    "put --ignore-value nothing",
    "put --ignore-lease a 3",
    "put --lease=1234 a 3",
    ("put piped", "from standard input"),
    "put k/1 one",
    "put k/2 two",
    "put k/3 three",
    "get a",
    "get a -w json",
    "get a -w fields",
    "get a -w protobuf",
    "get a --hex",
    "get k/ --prefix",
    "get k/ --prefix --limit=2",
    "get k/ --prefix --limit=2 -w json",
    "get k/ --prefix --keys-only",
    "get k/ --prefix --count-only -w json",
    "get k/ --prefix --count-only --write-out=fields",
    "get k/ --prefix --print-value-only",
    "get k/ --prefix --order=DESCEND",
    "get k/ --prefix --sort-by=MODIFY --order=DESCEND",
    "get k/ --prefix --sort-by=VALUE --order=ASCEND",
    "get k/ --prefix --sort-by=CREATE --order=DESCEND --keys-only",
    "get k/ --prefix --sort-by=VERSION --order=ASCEND --keys-only --limit=2",
    "get k/ --prefix --sort-by=KEY --order=DESCEND --limit=1 -w json",
    "get k/ --prefix --sort-by=SIZE",
    "get k/ --prefix --order=UP",
    "get k/ --prefix -w fields",
    "get k/ --prefix -w table",
    "get k/ --prefix --keys-only --count-only",
    "get k/1 k/3",
    "get k/2 --from-key",
    "get a --rev=$R+1",
    "get a --rev=$R+2 -w json",
    "get a --rev=$R+999",
    "get a --consistency=s",
    "get a --consistency=x",
    "get --prefix k/ --from-key",
    "get",
    "put",
    "del",
    "del k/1 k/3 extra",
    "del k/1 --prev-kv",
    "del k/ --prefix --prev-kv -w json",
    "del nothing",
    "del b --from-key -w json",
    "compaction $R+3",
    "compaction $R+3",
    "compaction $R+8 --physical",
    "compaction $R+999",
    "get a --rev=$R+1",
    "get '' --from-key -w json",
)

TXN: Final[Sequence[Step]] = (
    "put flag off",
    ("txn", 'value("flag") = "off"\n\nput flag on\nget flag\n\nput flag broken\n\n'),
    ("txn", 'value("flag") = "off"\n\nput flag broken\n\nget flag\ndel flag\n\n'),
    ("txn", 'mod("flag") > "0"\n\nget flag\n\nput other 1\nget other\n\n'),
    ("txn -w json", 'create("other") > "0"\nversion("other") = "1"\n\ndel other --prev-kv\n\n\n'),
    ("txn", 'nonsense("flag") = "0"\n\n\n\n'),
    ("txn -w fields", 'version("flag") < "9"\n\nget flag\nput flag again\n\n\n'),
    ("txn", 'value("flag") != "again"\n\n\nput flag "in two words" --prev-kv\n\n'),
    ("txn", "\nnonsense\n\n\n"),
    ("txn", "\nput twice 1\nput twice 2\n\n\n"),
    "get '' --from-key",
)

LEASES: Final[Sequence[Step]] = (
    "lease list",
    "lease grant 1000",
    "lease grant 1000 -w json",
    "lease revoke $LEASE",
    "lease grant 1000",
    "lease grant 9000000001",
    "lease grant minus",
    "put held 1 --lease=$LEASE",
    "get held -w json",
    "lease timetolive $LEASE --keys",
    "lease timetolive $LEASE -w json",
    "lease timetolive $LEASE --keys -w json",
    "lease timetolive 77 -w json",
    "lease timetolive none",
    "put held --lease=0 2",
    "put held --ignore-value --lease=$LEASE",
    "put held 3 --ignore-lease",
    "lease keep-alive --once $LEASE",
    "lease keep-alive --once $LEASE -w json",
    "lease list",
    "lease list -w json",
    "lease revoke $LEASE",
    "lease revoke $LEASE",
    "lease timetolive $LEASE",
    "lease keep-alive --once $LEASE",
    "lease keep-alive --once 77",
    "get held",
)

ADMIN: Final[Sequence[Step]] = (
    "member list",
    "member list -w json",
    "member list -w table",
    "member list -w fields",
    "endpoint health",
    "endpoint health -w json",
    "endpoint health --cluster",
    "endpoint hashkv",
    "endpoint hashkv -w json",
    "endpoint hashkv -w fields",
    "put a 1",
    "put a 2",
    "endpoint hashkv -w json",
    "endpoint hashkv --rev=$R+1 -w json",
    "endpoint hashkv --rev=$R+99",
    "compaction $R+2 --physical",
    "endpoint hashkv",
    "defrag",
    "defrag --cluster",
    "alarm list",
    "alarm list -w json",
    "alarm disarm",
    "move-leader 1234",
    "member remove 1234",
    "member promote 1234",
    "member update 1234 --peer-urls=http://127.0.0.1:1",
    "member add other --peer-urls=nonsense",
)

AUTH: Final[Sequence[Step]] = (
    "auth status",
    "user add root:secret",
    "user add reader:word",
    "user add reader:word",
    "user add ghost --no-password",
    "role add root",
    "role add read",
    "role add read",
    "role grant-permission read read k/ --prefix=true",
    "role grant-permission read readwrite own",
    "role grant-permission read write z --from-key=true",
    "role get read",
    "role get none",
    "role list",
    "role revoke-permission read own",
    "role revoke-permission read own",
    "user grant-role root root",
    "user grant-role reader read",
    "user grant-role nobody read",
    "user get reader",
    "user get reader --detail",
    "user get reader -w json",
    "role get read -w json",
    "role list -w json",
    "user list",
    "put k/1 visible",
    "put hidden 1",
    "auth enable",
    "get k/1",
    "get k/1 --user=reader:wrong",
    "get k/1 --user=reader:word",
    "get hidden --user=reader:word",
    "put k/1 no --user=reader:word",
    "put zz yes --user=reader:word",
    "get '' --from-key --user=root:secret",
    "user list --user=reader:word",
    "user get reader --user=reader:word",
    "auth status --user=root:secret",
    "user delete ghost --user=root:secret",
    "user delete root --user=root:secret",
    "user revoke-role reader read --user=root:secret",
    "role delete read --user=root:secret",
    ("user passwd reader --interactive=false --user=root:secret", "other"),
    "get k/1 --user=reader:word",
    "auth disable --user=root:secret",
    "auth status",
    "user list",
    "user delete reader",
    "user delete root",
    "role delete root",
    "user delete root",
    "user list -w json",
)

MEMBER: Final[Sequence[Step]] = (
    "snapshot save $DIRECTORY/saved",
    "lock",
    "lock mutex echo held",
    "elect",
    "move-leader",
    "move-leader $MEMBER",
    "version",
)

SCRIPTS: Final = {"key-value": KEY_VALUE, "txn": TXN, "leases": LEASES, "admin": ADMIN, "auth": AUTH}

_HIDDEN: Final = (
    (re.compile(r'"(cluster_id|member_id|raft_term|ID)":\d+'), r'"\1":0'),
    (re.compile(r'"(ClusterID|MemberID|RaftTerm|ID)" ?: ?\d+'), r'"\1": 0'),
    (re.compile(r"took[ :=\"]+[\d.]+[mµ]?s"), "took TIME"),
    (re.compile(r'"ts":("[^"]*"|[\d.]+)'), '"ts":"TIME"'),
    (re.compile(r'"took":("[^"]*"|[\d.e-]+)'), '"took":"TIME"'),
    (re.compile(r'"size":"[^"]*"'), '"size":"SIZE"'),
    (re.compile(r'"version":"3.5[.\d]*"'), '"version":"VERSION"'),
    (re.compile(r"etcd-endpoints://0x[0-9a-f]+"), "etcd-endpoints://ADDRESS"),
    (re.compile(r"endpoint://client-[-0-9a-f]+"), "endpoint://CLIENT"),
    (re.compile(r"-{3,}"), "---"),  # columns are as wide as ids, some of which begin with a zero
    (re.compile(r" {2,}"), "  "),
    (re.compile(r"remaining\(\d+s\)"), "remaining(SECONDS)"),
    (re.compile(r'"ttl":99\d'), '"ttl":SECONDS'),
    (re.compile(r"^\n.*", re.DOTALL), "PROTOBUF"),
)


class Session:
    """etcdctl against one server, with a memory for the lease that was granted last."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._lease = "0"
        with connect(server.endpoint) as stubs:
            member = stubs.cluster.MemberList(rpc_pb2.MemberListRequest(), timeout=CALL_TIMEOUT_S).members[0]
        self._member = f"{member.ID:x}"
        self._names = {
            self._member: "MEMBER",
            str(member.ID): "MEMBER",
            server.endpoint: "ENDPOINT",
            member.peerURLs[0]: "PEER-URL",
            str(server.directory): "DIRECTORY",
        }

    def clear(self) -> int:
        """End all leases and forget all history, in which their ids differ; return the revision."""
        with connect(self.server.endpoint) as stubs:
            for each in stubs.lease.LeaseLeases(rpc_pb2.LeaseLeasesRequest(), timeout=CALL_TIMEOUT_S).leases:
                stubs.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=each.ID), timeout=CALL_TIMEOUT_S)
            stubs.kv.DeleteRange(rpc_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"), timeout=CALL_TIMEOUT_S)
            put = stubs.kv.Put(rpc_pb2.PutRequest(key=b"beginning"), timeout=CALL_TIMEOUT_S)
            stubs.kv.Compact(
                rpc_pb2.CompactionRequest(revision=put.header.revision, physical=True), timeout=CALL_TIMEOUT_S
            )
        return int(put.header.revision)

    def run(self, step: Step, since: int, tool: str = "") -> tuple[int, str, str]:
        """Return code, standard output and standard error of one step, normalised; *since* is what $R stands for."""
        line, stdin = (step, "") if isinstance(step, str) else step
        line = line.replace("$LEASE", self._lease).replace("$MEMBER", self._member)
        line = line.replace("$DIRECTORY", str(self.server.directory))
        line = re.sub(r"\$R\+(\d+)", lambda found: str(since + int(found[1])), line)
        words = ["" if word == "''" else word for word in line.split()]
        done = run_etcdctl(self.server, *words, stdin=stdin, tool=tool)
        if granted := re.search(r'lease ([0-9a-f]{16}) granted|"ID":(\d+),"(?:TTL|ttl)":1000', done.stdout):
            self._lease = granted[1] or f"{int(granted[2]):016x}"
            self._names |= {self._lease: "LEASE", str(int(self._lease, 16)): "LEASE"}
        return done.returncode, self.normalised(done.stdout), self.normalised(done.stderr)

    def normalised(self, text: str) -> str:
        """Return *text* with names for all that may differ."""
        for name, replacement in self._names.items():
            text = text.replace(name, replacement)
        for pattern, replacement in _HIDDEN:
            text = pattern.sub(replacement, text)
        return text


class Pair:
    """An actcd and an etcd that have got the same commands, all of them."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.differ = False
        servers = [Server(program, folder / program.name, CHEAP) for program in (actcd(), real_etcd())]
        self._stack.enter_context(running_together(*servers))
        self.subject, self.reference = (Session(server) for server in servers)

    def compare(self, script: Sequence[Step], tool: str) -> None:
        """Run *script* against both; AssertionError at the first difference, after which they are of no more use."""
        self.differ = True
        since = self.subject.clear()
        assert since == self.reference.clear()
        with ThreadPoolExecutor(1) as beside:
            for number, step in enumerate(script):
                expecting = beside.submit(self.reference.run, step, since, tool)
                got, expected = self.subject.run(step, since, tool), expecting.result()
                assert got == expected, f"step {number}: etcdctl {step}\n--- subject {got}\n--- etcd 3.5.1 {expected}"
        self.differ = False

    def close(self) -> None:
        """End both."""
        self._stack.close()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Pair]]:
    """A factory: the pair of this module, or a new one where a test has left a difference."""
    started: list[Pair] = []

    def current() -> Pair:
        if not started or started[-1].differ:
            started.append(Pair(tmp_path_factory.mktemp("pair")))
        return started[-1]

    yield current
    for pair in started:
        pair.close()


@pytest.fixture
def pair(pairs: Callable[[], Pair]) -> Pair:
    """Two servers whose stores hold the same."""
    return pairs()


@pytest.fixture(params=["3.5", "3.4"])
def tool(request: pytest.FixtureRequest) -> str:
    """The path of an etcdctl, the later one of 3.5.1; whoever has not installed the older does without."""
    if request.param == "3.5":
        return etcd_tool("etcdctl")
    if not OLDER.exists():
        pytest.skip(f"there is no {OLDER}: install Debian's etcd-client")
    shown = subprocess.run([OLDER, "version"], env={"ETCDCTL_API": "3"}, capture_output=True, text=True, check=False)
    if "etcdctl version: 3.4." not in shown.stdout:
        pytest.skip(f"{OLDER} is not of 3.4: {shown.stdout}")
    return str(OLDER)


@pytest.mark.parametrize("name", [*SCRIPTS, "member"])
def test_same_output(pair: Pair, tool: str, name: str) -> None:
    """Every command of the script prints and returns the same against both servers: people and scripts read it."""
    pair.compare(MEMBER if name == "member" else SCRIPTS[name], tool)


class Running:
    """An etcdctl that goes on until it is told to end."""

    def __init__(self, session: Session, tool: str, *arguments: str) -> None:
        self._session = session
        self._process = subprocess.Popen(
            [tool, f"--endpoints={session.server.endpoint}", *arguments],
            env=etcdctl_environment(session.server),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def type(self, line: str) -> None:
        """Type one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def lines(self, count: int) -> str:
        """Return what the next *count* lines say, normalised."""
        assert self._process.stdout is not None
        return self._session.normalised("".join(self._process.stdout.readline() for _ in range(count)))

    def end(self, signal_number: int = signal.SIGINT) -> int:
        """Interrupt it, and return how it ended."""
        self._process.send_signal(signal_number)
        return self._process.wait(CALL_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def alike(pair: Pair, told: Callable[[Session], str]) -> str:
    """Have the same done with both servers; return what both said."""
    pair.differ = True
    with ThreadPoolExecutor(1) as beside:
        expecting = beside.submit(told, pair.reference)
        got = told(pair.subject)
        assert got == expecting.result()
    pair.differ = False
    return got


def test_watch_prints_events(pair: Pair, tool: str) -> None:
    """`etcdctl watch` shows history, then live events, with previous values when asked, and runs commands on them."""
    since = pair.subject.clear()
    assert since == pair.reference.clear()

    def told(session: Session) -> str:
        run_etcdctl(session.server, "put", "w/1", "first")
        run_etcdctl(session.server, "put", "w/1", "second")
        shown = ""
        rev = f"--rev={since + 1}"
        with (
            Running(session, tool, "watch", "--prefix", "w/", rev, "--prev-kv") as plain,
            Running(session, tool, "watch", "w/", "w0", rev, "-w", "json") as as_json,
            Running(session, tool, "watch", "w/1", rev, "--", "sh", "-c", "echo $ETCD_WATCH_VALUE") as executing,
            Running(session, tool, "watch", "-i") as typed,
        ):
            typed.type(f"watch w/1 {rev}")
            shown += plain.lines(8) + as_json.lines(1) + executing.lines(8) + typed.lines(6)
            run_etcdctl(session.server, "del", "w/1")
            shown += plain.lines(5) + as_json.lines(1) + executing.lines(3) + typed.lines(3)
            return shown + f"{plain.end()}"

    shown = alike(pair, told)
    assert shown.count("DELETE") == 3, shown
    assert '"second"' in shown


def test_watch_below_a_compaction_ends(pair: Pair, tool: str) -> None:
    """The watcher is told what it missed, with the same text and exit code."""
    pair.compare(("put gone 1", "put gone 2", "compaction $R+2", "watch gone --rev=$R+1"), tool)


def test_locks_and_elections(pair: Pair, tool: str) -> None:
    """One holds a lock or an office, the next waits for it, and observers hear of each leader."""

    def key(line: str) -> str:
        return re.sub(r"(mutex|office)/[0-9a-f]+", r"\1/KEY", line)

    def told(session: Session) -> str:
        with Running(session, tool, "lock", "mutex") as holder:
            shown = key(holder.lines(1))
            with Running(session, tool, "lock", "mutex") as waiter:
                shown += f"{holder.end()} " + key(waiter.lines(1)) + f"{waiter.end()} "
        with Running(session, tool, "elect", "office", "first") as leader:
            shown += key(leader.lines(2))
            with (
                Running(session, tool, "elect", "-l", "office") as observer,
                Running(session, tool, "elect", "office", "second") as candidate,
            ):
                shown += key(observer.lines(2)) + f"{leader.end()} "
                shown += key(candidate.lines(2)) + key(observer.lines(2))
                shown += f"{candidate.end()} {observer.end()}"
        shown += run_etcdctl(session.server, "get", "--prefix", "office/").stdout
        return shown

    shown = alike(pair, told)
    assert shown.startswith("mutex/KEY\n")
    assert shown.count("office/KEY\nsecond\n") == 2


def test_mirrors_of_each_other(pair: Pair) -> None:
    """`etcdctl make-mirror` carries keys, changes and deletions from either kind of server to the other."""
    pair.differ = True
    tool = etcd_tool("etcdctl")
    for origin, copy in ((pair.subject, pair.reference), (pair.reference, pair.subject)):
        name = origin.server.program.name
        run_etcdctl(origin.server, "put", f"{name}/1", "one")
        run_etcdctl(origin.server, "put", f"{name}/2", "two")

        def mirrored(server: Server = copy.server) -> str:
            return run_etcdctl(server, "get", "copy/", "--prefix").stdout

        options = (f"--prefix={name}/", "--dest-prefix=copy/", copy.server.endpoint)
        with Running(origin, tool, "make-mirror", *options) as mirror:
            wait_for(lambda now=mirrored: now() == "copy/1\none\ncopy/2\ntwo\n", CALL_TIMEOUT_S, "the copy")  # type: ignore[misc]  # bound now
            run_etcdctl(origin.server, "put", f"{name}/3", "three")
            run_etcdctl(origin.server, "del", f"{name}/1")
            wait_for(lambda now=mirrored: now() == "copy/2\ntwo\ncopy/3\nthree\n", CALL_TIMEOUT_S, "the changes")  # type: ignore[misc]  # bound now
            mirror.end()


def test_endpoint_status(pair: Pair, tool: str) -> None:
    """`etcdctl endpoint status` names the leader, the term and the indexes of a healthy single member."""
    server = pair.subject.server
    done = run_etcdctl(server, "endpoint", "status", tool=tool)
    assert done.returncode == 0, done.stderr
    endpoint, member, version, size, leader, learner, term, index, applied, errors = done.stdout.removesuffix(
        "\n"
    ).split(", ")
    assert (endpoint, leader, learner, errors) == (server.endpoint, "true", "false", "")
    assert re.fullmatch(r"[0-9a-f]+", member)
    assert re.fullmatch(r"3\.\d+\.\d+", version)
    assert re.fullmatch(r"[\d.]+ [kM]?B", size)
    assert int(term) >= 1
    assert int(index) >= int(applied) >= 1


def test_snapshot_passes_etcdutl(make_server: MakeServer) -> None:
    """A backup made with etcdctl is accepted, counted and restored by etcd's own tool, and etcd runs on it."""
    server = make_server(settings=SHORT_TIMEOUTS)
    for number in range(20):
        run_etcdctl(server, "put", f"s/{number}", "value")
    snapshot = server.directory / "backup.db"
    saved = run_etcdctl(server, "snapshot", "save", str(snapshot))
    assert saved.returncode == 0, saved.stderr
    status = subprocess.run(
        [etcd_tool("etcdutl"), "snapshot", "status", str(snapshot), "-w", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=CALL_TIMEOUT_S,
    )
    assert status.returncode == 0, status.stderr
    assert re.search(r'"revision":21\b', status.stdout), status.stdout
    restored = make_server(real_etcd(), {**SHORT_TIMEOUTS, "data-dir": str(server.directory / "unused")})
    restored.kill()
    data_dir = server.directory / "restored"
    config = {key: str(value) for key, value in restored.config().items()}
    done = subprocess.run(
        [
            *(etcd_tool("etcdutl"), "snapshot", "restore", str(snapshot), f"--data-dir={data_dir}"),
            f"--initial-cluster={config['initial-cluster']}",
            f"--initial-advertise-peer-urls={config['initial-advertise-peer-urls']}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=CALL_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    restored.settings = {**SHORT_TIMEOUTS, "data-dir": str(data_dir)}
    restored.start()
    listed = run_etcdctl(restored, "get", "s/", "--prefix", "--count-only", "--write-out=fields")
    assert '"Count" : 20' in listed.stdout, listed
