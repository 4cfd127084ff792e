"""A client on Node.js: npm's etcd3, which speaks through grpc-js, a third stack of HTTP/2 beside Go's and C++'s."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.auth_client import CHEAP
from tests.e2e.harness import Server, actcd, real_etcd, running

pytestmark = pytest.mark.e2e

PACKAGE: Final = "etcd3@1.1.2"
PROGRAM: Final = Path(__file__).parent / "node_client.js"
INSTALL_TIMEOUT_S: Final = 60.0
RUN_TIMEOUT_S: Final = 60.0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in a folder where its package is installed; skipped where that cannot be."""
    folder = tmp_path_factory.mktemp("node")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node or no npm")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", PACKAGE]
    (folder / "package.json").write_text('{"private": true}')
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {PACKAGE} within {INSTALL_TIMEOUT_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr[-300:]}")
    return Path(shutil.copy(PROGRAM, folder))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    """An actcd and an etcd."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(Server(each, tmp_path / each.name, CHEAP))) for each in (actcd(), real_etcd())
        ]


def test_etcd3_of_npm_sees_no_difference(client: Path, servers: list[Server]) -> None:
    """Keys, transactions, watches, leases, locks, elections and logins are told alike by both servers."""

    def told(server: Server) -> list[Any]:
        done = subprocess.run(
            ["node", client.name, server.endpoint],
            cwd=client.parent,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{server.program.name}: {done.stdout}{done.stderr}{server.log_tail()}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(2) as both:
        subject, reference = both.map(told, servers)
    assert subject == reference
    assert ["watch delete", "seen"] in subject
    assert ["root", "two", ["root"]] in subject
