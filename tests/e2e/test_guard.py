"""What guards a running server and cluster, as processes: history compacted by itself."""

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.conftest import MakeServer
from tests.e2e.harness import Program, Server, actcd, real_etcd, wait_for

pytestmark = pytest.mark.e2e


def put(endpoint: str, key: bytes, value: bytes = b"v") -> int:
    """Put at one server and return the revision."""
    with connect(endpoint) as client:
        return int(client.kv.Put(rpc_pb2.PutRequest(key=key, value=value), timeout=CALL_TIMEOUT_S).header.revision)


def is_compacted(server: Server, revision: int) -> bool:
    """Whether history at *revision* is refused for having been compacted."""
    with connect(server.endpoint) as client:
        try:
            client.kv.Range(rpc_pb2.RangeRequest(key=b"key", revision=revision), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return "required revision has been compacted" in str(error.details())
    return False


@pytest.mark.parametrize("program", [actcd(), real_etcd()], ids=lambda program: program.name)
def test_history_older_than_the_period_is_compacted_by_itself(make_server: MakeServer, program: Program) -> None:
    """Without a client that compacts, the store still does not grow for ever; the present stays readable."""
    server = make_server(program, {"auto-compaction-mode": "periodic", "auto-compaction-retention": "1s"})
    first = put(server.endpoint, b"key", b"old")
    put(server.endpoint, b"key", b"new")
    wait_for(lambda: is_compacted(server, first), 15.0, "the first revision is compacted")
    with connect(server.endpoint) as client:
        answer = client.kv.Range(rpc_pb2.RangeRequest(key=b"key"), timeout=CALL_TIMEOUT_S)
    assert [kv.value for kv in answer.kvs] == [b"new"]
