"""etcdctl 3.5.1 talks to actcd and to the real etcd: its output must be the same, word for word.

Scripts are lists of command lines.  What may differ is replaced by a name first: ids, endpoints, the raft term, sizes
and durations.  Commands that sort by nothing (keys of a lease) are given one key.
"""

import re
import subprocess
from collections.abc import Sequence
from typing import Final

import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.conftest import MakeServer
from tests.e2e.harness import SHORT_TIMEOUTS, Server, etcd_tool, real_etcd, run_etcdctl

pytestmark = pytest.mark.e2e

Step = str | tuple[str, str]
"""A command line, words separated by blanks ('' stands for an empty word); or that and its standard input."""

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
    "get k/1 k/3",
    "get k/2 --from-key",
    "get a --rev=2",
    "get a --rev=3 -w json",
    "get a --rev=1000",
    "get a --consistency=s",
    "get a --consistency=x",
    "get --prefix k/ --from-key",
    "get",
    "put",
    "del",
    "del k/1 --prev-kv",
    "del k/ --prefix --prev-kv -w json",
    "del nothing",
    "del b --from-key -w json",
    "compaction 4",
    "compaction 4",
    "compaction 9 --physical",
    "compaction 1000",
    "get a --rev=2",
    "get '' --from-key -w json",
)

TXN: Final[Sequence[Step]] = (
    "put flag off",
    ("txn", 'value("flag") = "off"\n\nput flag on\nget flag\n\nput flag broken\n\n'),
    ("txn", 'value("flag") = "off"\n\nput flag broken\n\nget flag\ndel flag\n\n'),
    ("txn", 'mod("flag") > "0"\n\nget flag\n\nput other 1\nget other\n\n'),
    ("txn -w json", 'create("other") > "0"\nversion("other") = "1"\n\ndel other --prev-kv\n\n\n'),
    ("txn", 'nonsense("flag") = "0"\n\n\n\n'),
    ("txn", "\nput twice 1\nput twice 2\n\n\n"),
    "get '' --from-key",
)

LEASES: Final[Sequence[Step]] = (
    "lease list",
    "lease grant 1000",
    "lease grant 9000000001",
    "lease grant minus",
    "put held 1 --lease=$LEASE",
    "get held -w json",
    "lease timetolive $LEASE --keys",
    "lease timetolive $LEASE -w json",
    "lease keep-alive --once $LEASE",
    "lease list",
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
    "endpoint hashkv -w json",
    "put a 1",
    "put a 2",
    "endpoint hashkv -w json",
    "endpoint hashkv --rev=2 -w json",
    "endpoint hashkv --rev=100",
    "compaction 3 --physical",
    "endpoint hashkv",
    "defrag",
    "defrag --cluster",
    "alarm list",
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
    "auth disable --user=root:secret",
    "auth status",
    "user list",
)

SCRIPTS: Final = {"key-value": KEY_VALUE, "txn": TXN, "leases": LEASES, "admin": ADMIN, "auth": AUTH}

_HIDDEN: Final = (
    (re.compile(r'"(cluster_id|member_id|raft_term|ID)":\d+'), r'"\1":0'),
    (re.compile(r'"(ClusterID|MemberID|RaftTerm|ID)" ?: ?\d+'), r'"\1": 0'),
    (re.compile(r"took[ :=\"]+[\d.]+[mµ]?s"), "took TIME"),
    (re.compile(r'"ts":"[^"]*"'), '"ts":"TIME"'),
    (re.compile(r"etcd-endpoints://0x[0-9a-f]+"), "etcd-endpoints://ADDRESS"),
    (re.compile(r"remaining\(\d+s\)"), "remaining(SECONDS)"),
    (re.compile(r'"ttl":99\d'), '"ttl":SECONDS'),
    (re.compile(r"^\n.*", re.DOTALL), "PROTOBUF"),
)


class Session:
    """etcdctl against one server, with a memory for the lease that was granted last."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lease = "0"
        with connect(server.endpoint) as stubs:
            member = stubs.cluster.MemberList(rpc_pb2.MemberListRequest(), timeout=CALL_TIMEOUT_S).members[0]
        self._names = {
            f"{member.ID:x}": "MEMBER",
            server.endpoint: "ENDPOINT",
            member.peerURLs[0]: "PEER-URL",
        }

    def run(self, step: Step) -> tuple[int, str, str]:
        """Return code, standard output and standard error of one step, normalised."""
        line, stdin = (step, "") if isinstance(step, str) else step
        words = ["" if word == "''" else word.replace("$LEASE", self._lease) for word in line.split()]
        done = run_etcdctl(self._server, *words, stdin=stdin)
        if granted := re.search(r"lease ([0-9a-f]{16}) granted", done.stdout):
            self._lease = granted[1]
            self._names |= {granted[1]: "LEASE", str(int(granted[1], 16)): "LEASE"}
        return done.returncode, self._normalised(done.stdout), self._normalised(done.stderr)

    def _normalised(self, text: str) -> str:
        for name, replacement in self._names.items():
            text = text.replace(name, replacement)
        for pattern, replacement in _HIDDEN:
            text = pattern.sub(replacement, text)
        return text


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_output(make_server: MakeServer, name: str) -> None:
    """Every command of the script prints and returns the same against both servers: people and scripts read it."""
    subject = Session(make_server(settings=SHORT_TIMEOUTS))
    reference = Session(make_server(real_etcd(), settings=SHORT_TIMEOUTS))
    for number, step in enumerate(SCRIPTS[name]):
        got, expected = subject.run(step), reference.run(step)
        assert got == expected, f"step {number}: etcdctl {step}\n--- subject {got}\n--- etcd 3.5.1 {expected}"


def test_watch_prints_events(make_server: MakeServer) -> None:
    """`etcdctl watch` shows history, then live events, with the previous values when asked."""

    def watched(server: Server) -> str:
        run_etcdctl(server, "put", "w/1", "first")
        run_etcdctl(server, "put", "w/1", "second")
        command = [etcd_tool("etcdctl"), f"--endpoints={server.endpoint}", "watch", "--prefix", "w/", "--rev=2"]
        with subprocess.Popen([*command, "--prev-kv"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                history = [process.stdout.readline() for _ in range(8)]
                run_etcdctl(server, "del", "w/1")
                return "".join(history + [process.stdout.readline() for _ in range(5)])
            finally:
                process.kill()

    servers = make_server(settings=SHORT_TIMEOUTS), make_server(real_etcd(), settings=SHORT_TIMEOUTS)
    subject, reference = (watched(server) for server in servers)
    assert subject == reference
    assert "DELETE" in subject


def test_endpoint_status(make_server: MakeServer) -> None:
    """`etcdctl endpoint status` names the leader, the term and the indexes of a healthy single member."""
    server = make_server(settings=SHORT_TIMEOUTS)
    run_etcdctl(server, "put", "a", "1")
    done = run_etcdctl(server, "endpoint", "status")
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
