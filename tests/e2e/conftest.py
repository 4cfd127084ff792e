"""Fixtures of the end-to-end tests: servers of the module, and factories for tests that kill or restart theirs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.client import Stubs, connect
from tests.e2e.harness import Program, Server, actcd, real_etcd, running

MakeServer = Callable[..., Server]
"""``make_server(program=actcd(), settings={})``: a started server, killed after the test."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An actcd shared by the tests of one module, with etcd's default timeouts."""
    with running(Server(actcd(), tmp_path_factory.mktemp("actcd"))) as started:
        yield started


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real etcd 3.5.1, shared by the tests of one module, with its default timeouts."""
    with running(Server(real_etcd(), tmp_path_factory.mktemp("etcd"))) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Stubs]:
    """Blocking stubs for the module's actcd."""
    with connect(server.endpoint) as stubs:
        yield stubs


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """A factory of started servers, each with a directory of its own."""
    with ExitStack() as stack:

        def make(program: Program | None = None, settings: Mapping[str, object] | None = None) -> Server:
            program = program or actcd()
            directory = tmp_path / f"{program.name}-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(running(Server(program, directory, settings or {})))

        yield make
