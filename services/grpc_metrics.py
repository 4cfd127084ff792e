"""The families of calls, from what the engines have counted of each method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pool

import proto.rpc_pb2  # noqa: F401 - registers the descriptors that are looked up here
from core.metrics import Sample
from net.rpc import Code

if TYPE_CHECKING:
    from net.rpc import Routes

GO_CODES: Final = {
    code: "Canceled" if code is Code.CANCELLED else "".join(word.capitalize() for word in code.name.split("_"))
    for code in Code
}
"""As Go names them; OK is its own name."""
GO_CODES[Code.OK] = "OK"

STREAM_APIS: Final = {"/etcdserverpb.Watch/Watch": "watch", "/etcdserverpb.Lease/LeaseKeepAlive": "lease-keepalive"}
"""Streams whose failures are counted, under the names that etcd has for them."""

ORDERLY_ENDS: Final = frozenset((Code.OK, Code.CANCELLED, Code.DEADLINE_EXCEEDED))
"""How streams end whose client has had enough."""

PRESET_PREFIX: Final = "/etcdserverpb."
"""Methods of these services are shown before they are called."""


def kind_of(path: str, *, unary: bool) -> tuple[str, str, str]:
    """Return type, service and method of a path, in the order of the families' labels."""
    service, _, method = path.removeprefix("/").rpartition("/")
    if unary:
        return "unary", service, method
    try:
        described = descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
    except KeyError:
        return "bidi_stream", service, method  # of a service whose description is not loaded here
    if not described.client_streaming:
        return "server_stream", service, method
    return "bidi_stream" if described.server_streaming else "client_stream", service, method


def samples(routes: Routes) -> list[Sample]:
    """Return what was counted at *routes*."""
    found: list[Sample] = []
    for path in (*routes.unary, *routes.streams):
        if path.startswith(PRESET_PREFIX):
            labels = kind_of(path, unary=path in routes.unary)
            found += [
                Sample("grpc_server_started_total", 0, labels),
                Sample("grpc_server_msg_received_total", 0, labels),
                Sample("grpc_server_msg_sent_total", 0, labels),
                *(Sample("grpc_server_handled_total", 0, (*labels, name)) for name in GO_CODES.values()),
            ]
    received_bytes = sent_bytes = ranges = 0
    for (path, version), tally in routes.tallies.counts.items():
        unary = path in routes.unary
        labels = kind_of(path, unary=unary)
        ends = {**tally.ended, Code.OK: tally.ended.get(Code.OK, 0) + tally.replied}
        received = tally.started if unary else tally.received
        sent = ends[Code.OK] if unary else tally.sent
        found += [
            Sample("grpc_server_started_total", tally.started, labels),
            Sample("grpc_server_msg_received_total", received, labels),
            Sample("grpc_server_msg_sent_total", sent, labels),
            *(Sample("grpc_server_handled_total", count, (*labels, GO_CODES[Code(c)])) for c, count in ends.items()),
            Sample("etcd_server_client_requests_total", tally.started, ("unary" if unary else "stream", version)),
        ]
        received_bytes += tally.received_bytes
        sent_bytes += tally.sent_bytes
        if path == "/etcdserverpb.KV/Range":
            ranges += ends[Code.OK]
    failures = dict.fromkeys(STREAM_APIS.values(), 0)
    for (path, _), tally in routes.tallies.counts.items():
        if path in STREAM_APIS:
            failures[STREAM_APIS[path]] += sum(n for code, n in tally.ended.items() if code not in ORDERLY_ENDS)
    found += [
        Sample("etcd_network_server_stream_failures_total", count, ("receive", api)) for api, count in failures.items()
    ]
    return [
        *found,
        Sample("etcd_network_client_grpc_received_bytes_total", received_bytes),
        Sample("etcd_network_client_grpc_sent_bytes_total", sent_bytes),
        Sample("etcd_mvcc_range_total", ranges),
        Sample("etcd_debugging_mvcc_range_total", ranges),
    ]
