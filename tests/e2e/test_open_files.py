"""Clients cannot take the files that the log needs."""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.harness import Program, Server, running, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

LIMIT = 300
STARTER = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
os.execv(sys.executable, [sys.executable, "-m", "daemon", *sys.argv[1:]])
"""


def test_a_burst_of_connections(tmp_path: Path) -> None:
    """More clients than there are files come at once: some are turned away, the member goes on, and serves the next."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 3 * LIMIT
    program = Program("actcd", (sys.executable, "-c", STARTER))
    with running(Server(program, tmp_path)) as server:
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.client_port)))]
            for _ in range(2 * LIMIT):
                with suppress(OSError):
                    clients.append(
                        stack.enter_context(socket.create_connection(("127.0.0.1", server.client_port), 5.0))
                    )

            def turned_away() -> int:
                return sum(_is_over(client) for client in clients)

            wait_for(lambda: turned_away() >= LIMIT, 20.0, "those above the limit are turned away")
            assert server.process is not None
            assert server.process.poll() is None, server.log_tail()
        with connect(server.endpoint) as stubs:
            stubs.kv.Put(rpc_pb2.PutRequest(key=b"k", value=b"v"), timeout=CALL_TIMEOUT_S)
        assert "Too many open files" not in server.log_path.read_text()


def _is_over(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
