"""/metrics as a Prometheus server reads it, beside the real etcd 3.5.1's: what dashboards and alerts use."""

import gzip
import http.client
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proto import rpc_pb2
from tests.e2e.client import connect
from tests.e2e.cluster import cluster_of
from tests.e2e.harness import Server, actcd, real_etcd, reserve_port, running, wait_for

pytestmark = pytest.mark.e2e

BAD_CODES: Final = "Unknown|FailedPrecondition|ResourceExhausted|Internal|Unavailable|DataLoss|DeadlineExceeded"

SELECTORS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("etcd_server_has_leader", {}),
    ("etcd_server_leader_changes_seen_total", {}),
    ("etcd_server_proposals_applied_total", {}),
    ("etcd_server_proposals_committed_total", {}),
    ("etcd_server_proposals_failed_total", {}),
    ("etcd_server_proposals_pending", {}),
    ("etcd_server_quota_backend_bytes", {}),
    ("etcd_disk_wal_fsync_duration_seconds_bucket", {"le": ".+"}),
    ("etcd_disk_backend_commit_duration_seconds_bucket", {"le": ".+"}),
    ("etcd_mvcc_db_total_size_in_bytes", {}),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", {}),
    ("etcd_network_client_grpc_received_bytes_total", {}),
    ("etcd_network_client_grpc_sent_bytes_total", {}),
    ("etcd_network_peer_received_bytes_total", {"From": "[0-9a-f]+"}),
    ("etcd_network_peer_sent_bytes_total", {"To": "[0-9a-f]+"}),
    ("etcd_network_peer_sent_failures_total", {"To": "[0-9a-f]+"}),
    ("etcd_network_peer_round_trip_time_seconds_bucket", {"To": "[0-9a-f]+", "le": ".+"}),
    ("grpc_server_started_total", {"grpc_type": "unary"}),
    ("grpc_server_started_total", {"grpc_service": "etcdserverpb.Watch", "grpc_type": "bidi_stream"}),
    ("grpc_server_started_total", {"grpc_service": "etcdserverpb.Lease", "grpc_type": "bidi_stream"}),
    ("grpc_server_handled_total", {"grpc_type": "unary", "grpc_code": BAD_CODES}),
    ("grpc_server_handled_total", {"grpc_service": "etcdserverpb.Watch", "grpc_type": "bidi_stream"}),
    ("grpc_server_handled_total", {"grpc_service": "etcdserverpb.Lease", "grpc_type": "bidi_stream"}),
    ("grpc_server_handling_seconds_bucket", {"grpc_method": "(?!Defragment)", "grpc_type": "unary", "le": ".+"}),
    ("process_resident_memory_bytes", {}),
)
"""What the expressions of etcd's alerts and dashboard select, with the matchers for the labels."""


class Page(NamedTuple):
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def page(port: int, path: str = "/metrics", **headers: str) -> Page:
    """Fetch a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Page(response.status, named, response.read())
    finally:
        connection.close()


def types(text: str) -> dict[str, str]:
    """Return the type of each family by its name, as the page says them."""
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE ")]
    return {name: kind for _, _, name, kind in lines}


def bounds(text: str) -> dict[str, list[str]]:
    """Return the buckets of each histogram without labels."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition('_bucket{le="')
        if rest:
            found.setdefault(name, []).append(rest.partition('"')[0])
    return found


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The reference."""
    with running(Server(real_etcd(), tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server under test."""
    with running(Server(actcd(), tmp_path_factory.mktemp("actcd"))) as server:
        yield server


def test_families_are_etcds(etcd: Server, subject: Server) -> None:
    """Every family of etcd is there under its name, with its type and buckets."""
    theirs_text, ours_text = (page(server.client_port).body.decode() for server in (etcd, subject))
    theirs, ours = types(theirs_text), types(ours_text)
    wanted = {name: kind for name, kind in theirs.items() if not name.startswith("go_")}
    assert {name: kind for name, kind in wanted.items() if ours.get(name) != kind} == {}
    their_bounds, our_bounds = bounds(theirs_text), bounds(ours_text)
    shared = their_bounds.keys() & our_bounds.keys()
    assert shared
    assert {name: our_bounds[name] for name in shared} == {name: their_bounds[name] for name in shared}


def test_the_page_is_one_that_prometheus_reads(subject: Server) -> None:
    """Each family once, each sample once."""
    text = page(subject.client_port).body.decode()
    families = list(text_string_to_metric_families(text))
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names))
    samples = [(sample.name, tuple(sorted(sample.labels.items()))) for each in families for sample in each.samples]
    assert len(samples) == len(set(samples))


def test_alerts_and_dashboards_find_what_they_select(tmp_path: Path) -> None:
    """On every member of a cluster, with the labels by which they are summed and told apart."""
    with cluster_of(3, tmp_path, {"metrics": "extensive"}) as cluster:
        for member in cluster.running:
            with connect(member.endpoint) as client:
                client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=b"v"))
            wait_for(lambda member=member: missing(member) == [], 20.0, f"all of it: {missing(member)}")  # type: ignore[misc]  # bound now
        leader = cluster.leader()
        assert value(leader, "etcd_network_peer_received_bytes_total") > 0
        assert value(leader, "grpc_server_handling_seconds_count", grpc_method="Put") == 1
        applied = value(leader, "etcd_server_apply_duration_seconds_count", op="Put", success="true", version="v3")
        assert applied == 3


def missing(server: Server) -> list[str]:
    """Return the selectors that select nothing."""
    families = text_string_to_metric_families(page(server.client_port).body.decode())
    samples = [sample for family in families for sample in family.samples]
    return [
        f"{name}{matchers}"
        for name, matchers in SELECTORS
        if not any(
            sample.name == name
            and all(re.match(wanted, sample.labels.get(label, "")) for label, wanted in matchers.items())
            for sample in samples
        )
    ]


def value(server: Server, name: str, **labels: str) -> float:
    """Return one sample."""
    text = page(server.client_port).body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError((name, labels))


def test_counts_follow_what_clients_do(etcd: Server, subject: Server) -> None:
    """Calls, keys, leases, watchers and bytes: both servers count the same for the same requests."""
    counted: tuple[tuple[str, dict[str, str]], ...] = (
        ("etcd_mvcc_put_total", {}),
        ("etcd_mvcc_delete_total", {}),
        ("etcd_mvcc_txn_total", {}),
        ("etcd_debugging_lease_granted_total", {}),
        ("etcd_debugging_lease_revoked_total", {}),
        ("etcd_debugging_lease_ttl_total_sum", {}),
        ("etcd_debugging_mvcc_keys_total", {}),
        ("etcd_network_client_grpc_received_bytes_total", {}),
        ("grpc_server_started_total", {"grpc_method": "Put", "grpc_type": "unary"}),
        ("grpc_server_handled_total", {"grpc_method": "Put", "grpc_code": "OK"}),
        ("grpc_server_handled_total", {"grpc_method": "Put", "grpc_code": "InvalidArgument"}),
        ("grpc_server_handled_total", {"grpc_method": "LeaseRevoke", "grpc_code": "NotFound"}),
        ("grpc_server_msg_received_total", {"grpc_method": "LeaseKeepAlive", "grpc_type": "bidi_stream"}),
        ("grpc_server_msg_sent_total", {"grpc_method": "Range", "grpc_service": "etcdserverpb.KV"}),
    )
    grown = []
    for server in (etcd, subject):
        before = [value(server, name, **labels) for name, labels in counted]
        use(server)
        after = [value(server, name, **labels) for name, labels in counted]
        grown.append([new - old for new, old in zip(after, before, strict=True)])
    assert dict(zip(counted_names(counted), grown[1], strict=True)) == dict(
        zip(counted_names(counted), grown[0], strict=True)
    )
    assert all(grown[0])


def counted_names(counted: tuple[tuple[str, dict[str, str]], ...]) -> list[str]:
    """Return readable names of samples."""
    return [f"{name}{labels}" for name, labels in counted]


def use(server: Server) -> None:
    """Make a few calls of every kind."""
    with connect(server.endpoint) as client:
        for number in range(5):
            client.kv.Put(rpc_pb2.PutRequest(key=b"m/%d" % number, value=b"v"))
        with pytest.raises(grpc.RpcError):
            client.kv.Put(rpc_pb2.PutRequest())
        client.kv.Range(rpc_pb2.RangeRequest(key=b"m/1"))
        client.kv.DeleteRange(rpc_pb2.DeleteRangeRequest(key=b"m/0"))
        puts = [
            rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"t/%d" % number, value=b"v")) for number in range(2)
        ]
        client.kv.Txn(rpc_pb2.TxnRequest(success=puts))
        client.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(ID=5, TTL=60))
        renewals = client.lease.LeaseKeepAlive(iter([rpc_pb2.LeaseKeepAliveRequest(ID=5)]))
        assert next(renewals).TTL == 60
        assert list(renewals) == []
        client.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=5))
        with pytest.raises(grpc.RpcError):
            client.lease.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=5))


def test_metrics_have_a_listener_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where listen-metrics-urls says: metrics and health, and nothing that changes anything."""
    with reserve_port() as reservation:
        port = int(reservation.getsockname()[1])
        settings = {"listen-metrics-urls": f"http://127.0.0.1:{port}"}
        with running(Server(actcd(), tmp_path_factory.mktemp("metrics"), settings)):
            assert b"etcd_server_has_leader 1" in page(port).body
            assert page(port, "/health").body == b'{"health":"true","reason":""}'
            for path, status in (("/readyz", 200), ("/livez", 200), ("/version", 404), ("/v3/kv/range", 404)):
                assert page(port, path).status == status, path


def test_other_formats_are_given_where_asked(subject: Server) -> None:
    """OpenMetrics by Accept, gzip by Accept-Encoding, as Prometheus asks for them."""
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = page(subject.client_port, Accept=wanted)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    zipped = page(subject.client_port, **{"Accept-Encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert b"etcd_server_has_leader 1" in gzip.decompress(zipped.body)
