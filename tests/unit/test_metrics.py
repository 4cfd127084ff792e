"""The page /metrics from samples: Prometheus' text, sums over listeners, names and buckets as etcd writes them."""

from __future__ import annotations

import gzip

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.metrics import TTL_BOUNDS_S, Histogram, Sample, exponential
from net.rpc import Code, HttpRequest, Routes
from net.tally import UNKNOWN, VERSIONS_MAX, Tallies
from services.exposition import exposition, go_float
from services.grpc_metrics import GO_CODES
from services.grpc_metrics import samples as grpc_samples
from services.metric_families import FAMILIES
from services.status_pages import StatusPages
from tests.fake_node import FakeNode
from tests.unit.test_services_pages import FakeResponder


def lines(*samples: Sample) -> list[str]:
    """Return the lines of the page that are ours."""
    text = exposition(samples, "", zipped=False).decode()
    return [line for line in text.splitlines() if "process_" not in line]


def test_a_histogram_counts_up_to_and_including_its_bounds() -> None:
    """As Prometheus' buckets do; several at once count as often."""
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 3):
        histogram.observe(value)
    histogram.observe(2, times=2)
    assert histogram.distribution() == ((1, 2), (2, 3, 1), 10.0)
    histogram.observe_all([])
    histogram.observe_all([1.1, 2.0])
    histogram.observe_all([0.5, 3.0])
    assert histogram.distribution() == ((1, 2), (3, 5, 2), 16.6)
    assert exponential(1, 2, 3) == (1, 2, 4)


def test_the_page_has_etcds_form() -> None:
    """Type and buckets of a family; counters without the suffix that the library would give them."""
    histogram = Histogram(exponential(0.001, 2, 2))
    histogram.observe(0.0015)
    assert lines(Sample("etcd_disk_wal_fsync_duration_seconds", histogram.distribution()))[1:] == [
        "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 0.0',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 1.0',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 1.0',
        "etcd_disk_wal_fsync_duration_seconds_count 1.0",
        "etcd_disk_wal_fsync_duration_seconds_sum 0.0015",
    ]
    assert lines(Sample("etcd_server_health_failures", 2))[1:] == [
        "# TYPE etcd_server_health_failures counter",
        "etcd_server_health_failures 2.0",
    ]
    assert [go_float(bound) for bound in (1, 0.5, 1e-4, TTL_BOUNDS_S[20])] == ["1", "0.5", "0.0001", "1.048576e+06"]


def test_listeners_are_added_up() -> None:
    """Each counts for itself; a verdict is the worst of theirs, since two that are well are not well twice."""
    histogram = Histogram((1,))
    histogram.observe(5)
    both = [Sample("etcd_disk_wal_fsync_duration_seconds", histogram.distribution())] * 2
    assert "etcd_disk_wal_fsync_duration_seconds_sum 10.0" in lines(*both)
    assert "etcd_server_proposals_pending 5.0" in lines(*(Sample("etcd_server_proposals_pending", n) for n in (2, 3)))
    checks = [Sample("etcd_server_healthcheck", well, ("livez", "x")) for well in (1, 0)]
    assert 'etcd_server_healthcheck{name="x",type="livez"} 0.0' in lines(*checks)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_can_be_shown(name: str) -> None:
    """With its labels, in both formats, so that Prometheus' own parser reads it."""
    family = FAMILIES[name]
    value = Histogram((1,)).distribution() if family.kind == "histogram" else 1
    sample = Sample(name, value, tuple("x" for _ in family.labels))
    page = exposition([sample], "", zipped=False).decode()
    found = [each for each in text_string_to_metric_families(page) if each.documentation == family.text]
    assert [each.type for each in found] == [family.kind]
    assert gzip.decompress(exposition([sample], "application/openmetrics-text", zipped=True)).endswith(b"# EOF\n")


def test_methods_are_there_before_they_are_called() -> None:
    """A rate needs a zero to start from: every code of every method of etcd's, and none of other services."""
    routes = Routes({"/etcdserverpb.KV/Put": print, "/x.Y/Z": print}, {"/etcdserverpb.Maintenance/Snapshot": print})  # type: ignore[dict-item]  # never called
    counts = {(sample.family, *sample.labels): sample.value for sample in grpc_samples(routes)}
    for code in GO_CODES.values():
        assert counts["grpc_server_handled_total", "unary", "etcdserverpb.KV", "Put", code] == 0
    assert counts["grpc_server_started_total", "server_stream", "etcdserverpb.Maintenance", "Snapshot"] == 0
    assert not any("x.Y" in labels for labels in counts)
    assert (GO_CODES[Code.OK], GO_CODES[Code.CANCELLED], GO_CODES[Code.DATA_LOSS]) == ("OK", "Canceled", "DataLoss")


def test_ends_of_calls_are_counted_by_code() -> None:
    """Replies on the quick way and on others are both good ends; clients are told apart by the version they give."""
    routes = Routes({"/etcdserverpb.KV/Range": print}, {"/etcdserverpb.Watch/Watch": print})  # type: ignore[dict-item]  # never called
    tally = routes.tallies.find("/etcdserverpb.KV/Range", "3.5")
    tally.started, tally.replied, tally.received_bytes, tally.sent_bytes = 5, 2, 10, 20
    tally.end(Code.OK)
    tally.end(Code.NOT_FOUND)
    stream = routes.tallies.find("/etcdserverpb.Watch/Watch")
    stream.started, stream.received, stream.sent, stream.received_bytes = 1, 2, 3, 4
    text = "\n".join(lines(*grpc_samples(routes)))
    labels = 'grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    for line in (
        f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 3.0',
        f'grpc_server_handled_total{{grpc_code="NotFound",{labels}}} 1.0',
        'grpc_server_msg_sent_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 3.0',
        'etcd_server_client_requests_total{client_api_version="3.5",type="unary"} 5.0',
        'etcd_server_client_requests_total{client_api_version="unknown",type="stream"} 1.0',
        "etcd_network_client_grpc_received_bytes_total 14.0",
        "etcd_mvcc_range_total 3.0",
    ):
        assert line in text


def test_versions_of_clients_are_bounded() -> None:
    """They choose the text; no client may fill the memory with it, or break the page."""
    tallies = Tallies()
    for number in range(3 * VERSIONS_MAX):
        tallies.find("/x", f"3.{number}")
    tallies.find("/x", "a\nb")
    tallies.find("/x", "y" * 1000)
    assert len(tallies.counts) <= VERSIONS_MAX
    assert ("/x", UNKNOWN) in tallies.counts


def test_the_page_is_made_by_a_worker_from_what_was_gathered() -> None:
    """It has thousands of lines, and clients wait on the loop."""
    node, responder = FakeNode(), FakeResponder()
    request = HttpRequest("POST", "/metrics", "", {"accept-encoding": "gzip"}, b"", "192.0.2.1:1", False, None)
    StatusPages(node).handle(request, responder)
    node.answer([Sample("etcd_server_has_leader", 1)])
    at_once = responder.done
    node.run_jobs()
    assert (at_once, responder.status, responder.headers["content-encoding"]) == (False, 200, "gzip")
    assert b"etcd_server_has_leader 1.0" in gzip.decompress(responder.body)
