"""A downgrade from outside: asked about, begun, kept over a kill, called off.  etcdctl 3.5.1 has no such command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import grpc
import pytest

from proto import rpc_pb2 as pb
from tests.e2e.client import CALL_TIMEOUT_S, Stubs, connect
from tests.e2e.harness import Server, actcd, real_etcd, running, wait_for

pytestmark = pytest.mark.e2e

VALIDATE, ENABLE, CANCEL = pb.DowngradeRequest.VALIDATE, pb.DowngradeRequest.ENABLE, pb.DowngradeRequest.CANCEL
FORMAT: Final = "INVALID_ARGUMENT: etcdserver: wrong downgrade target version format"
TARGET: Final = "INVALID_ARGUMENT: etcdserver: invalid downgrade target version"
UNDER_WAY: Final = "FAILED_PRECONDITION: etcdserver: cluster has a downgrade job in progress"
NONE_UNDER_WAY: Final = "FAILED_PRECONDITION: etcdserver: no inflight downgrade job"
UNANSWERED: Final = "UNAVAILABLE: etcdserver: request timed out"
"""3.5.1 carries these out, and forgets to answer them."""

STEPS: Final[tuple[tuple[pb.DowngradeRequest.DowngradeAction, str, str, str], ...]] = (
    (CANCEL, "", NONE_UNDER_WAY, ""),
    (VALIDATE, "3.4.0", "OK", ""),
    (VALIDATE, "3.4", "OK", ""),
    (VALIDATE, "nonsense", FORMAT, ""),
    (VALIDATE, "3.5.0", TARGET, ""),
    (VALIDATE, "3.6.0", TARGET, ""),
    (ENABLE, "3.3.0", TARGET, ""),
    (ENABLE, "3.4.0", "OK", UNANSWERED),
    (VALIDATE, "3.4.0", UNDER_WAY, ""),
    (ENABLE, "3.4.0", UNDER_WAY, ""),
    (CANCEL, "", "OK", UNANSWERED),
    (VALIDATE, "3.4.0", "OK", ""),
)
"""What is asked, how it ends here, and how on 3.5.1 where that differs."""


def end(client: Stubs, action: pb.DowngradeRequest.DowngradeAction, version: str, timeout_s: float) -> str:
    """Ask, and return how it ended."""
    request = pb.DowngradeRequest(action=action, version=version)
    try:
        client.maintenance.Downgrade(request, timeout=timeout_s)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def cluster_version(server: Server) -> str:
    """Return the version that the members have agreed on."""
    with urlopen(f"http://{server.endpoint}/version", timeout=CALL_TIMEOUT_S) as page:
        return str(json.load(page)["etcdcluster"])


@pytest.fixture(params=[actcd, real_etcd], ids=["actcd", "etcd"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One server that knows the cluster's version."""
    program = request.param()
    # Nothing must lower the version between two questions, however slow the machine.
    settings = {"downgrade-check-time": "1h"} if program.name == "actcd" else {}
    with running(Server(program, tmp_path, settings)) as started:
        wait_for(lambda: cluster_version(started) == "3.5.0", 10.0, "the cluster's version")
        yield started


def test_what_is_asked_of_a_downgrade(server: Server) -> None:
    """The same questions get the same answers on both, but for what 3.5.1 did worse."""
    ours = server.program.name == "actcd"
    with connect(server.endpoint) as client:
        for number, (action, version, here, old) in enumerate(STEPS):
            want = here if ours else old or here
            timeout_s = 1.0 if want == UNANSWERED else CALL_TIMEOUT_S
            got = end(client, action, version, timeout_s)
            if got.startswith("DEADLINE_EXCEEDED"):  # whichever side noticed first
                got = UNANSWERED
            assert got == want, (number, version)


def test_a_downgrade_is_kept_and_called_off(tmp_path: Path) -> None:
    """The version falls for the older members to come; a kill forgets nothing; after the end it rises again."""
    with running(Server(actcd(), tmp_path, {"downgrade-check-time": "200ms"})) as server:
        wait_for(lambda: cluster_version(server) == "3.5.0", 10.0, "the cluster's version")
        with connect(server.endpoint) as client:
            assert end(client, ENABLE, "3.4.0", CALL_TIMEOUT_S) == "OK"
        wait_for(lambda: cluster_version(server) == "3.4.0", 20.0, "the fall of the version")
        server.kill()
        server.start()
        with connect(server.endpoint) as client:
            status = client.maintenance.Status(pb.StatusRequest(), timeout=CALL_TIMEOUT_S)
            assert (status.downgradeInfo.enabled, status.downgradeInfo.targetVersion) == (True, "3.4.0")
            assert cluster_version(server) == "3.4.0"
            client.kv.Put(pb.PutRequest(key=b"k", value=b"v"), timeout=CALL_TIMEOUT_S)
            assert end(client, CANCEL, "", CALL_TIMEOUT_S) == "OK"
            assert not client.maintenance.Status(pb.StatusRequest(), timeout=CALL_TIMEOUT_S).downgradeInfo.enabled
        wait_for(lambda: cluster_version(server) == "3.5.0", 20.0, "the rise of the version")
